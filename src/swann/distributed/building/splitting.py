"""Shards of an index whose arrays are on disk: one task each, in pieces of bounded size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.distributed.building.executor import Executor
from swann.index.disk.assemble import map_entry, packed_of, place_pieces, place_whole
from swann.index.disk.contents import Entry, manifest_of
from swann.index.disk.leaves import LeafParts, spread_leaves
from swann.index.disk.lock import DirectoryLock
from swann.index.disk.sharded import ShardedWriter
from swann.index.docids import Docids
from swann.index.source import Progress
from swann.index.state import State

__all__ = ["Split", "commit_shards", "split_shard"]


@dataclass(frozen=True)
class Split:
    """What makes a shard.

    Attributes
    ----------
    folder : str
        Where the arrays of the whole are, and where those of the shard go.
    entries : dict of str to Entry
        Arrays of the whole.
    fields : dict
        What else `PackedIndex` has.
    owned : bool array of shape (num_leaves,)
        Leaves of the shard; none make the head.
    most_bytes : int
        Of an array that are read at a time.
    """

    folder: str
    entries: dict[str, Entry]
    fields: dict[str, Any]
    owned: NDArray[np.bool_]
    most_bytes: int


def split_shard(task: Split) -> dict[str, Any]:
    """Write the arrays of a shard; return its manifest, and how many entries it has."""
    folder = Path(task.folder)
    whole = packed_of(task.fields, {k: map_entry(folder, e) for k, e in task.entries.items()})
    parts = LeafParts(whole, task.owned)
    entries = dict(task.entries)
    for name, array in parts.small.items():
        entries[name] = place_whole(folder, name, array)
    for name, shape in parts.large().items():
        pieces = parts.pieces(name, task.most_bytes)
        entries[name] = place_pieces(folder, name, task.entries[name].dtype, shape, pieces)
    packed = packed_of(
        task.fields | {"num_datapoints": parts.num_rows},
        {name: map_entry(folder, entry) for name, entry in entries.items()},
    )
    state = State(packed, None, whole.num_datapoints, packed.config)
    ordered = {name: entries[name] for name in packed.arrays()}
    return {"manifest": manifest_of(state, ordered), "entries": int(packed.leaf_starts[-1])}


def commit_shards(
    root: Path,
    folder: Path,
    entries: dict[str, Entry],
    fields: dict[str, Any],
    num_shards: int,
    docids: Docids | None,
    executor: Executor,
    most_bytes: int,
    report: Progress,
) -> None:
    """Split an index whose arrays are in `folder`, and make the shards the index of `root`.

    Parameters
    ----------
    root, folder : Path
        The directory, and a folder on the same file system, whose files are used up.
    entries, fields : dict
        As in `Split`.
    num_shards : int
    docids : Docids or None
    executor : Executor
        Makes the shards.
    most_bytes : int
        That a task reads at a time.
    report : callable
        Told how many shards are made, and the head.

    Raises
    ------
    InvalidInputError
        If there are fewer leaves than shards.
    LockedError, OSError
        As a save raises them.
    """
    packed = packed_of(fields, {name: map_entry(folder, e) for name, e in entries.items()})
    owners = spread_leaves(packed.centroids, np.diff(packed.leaf_starts), num_shards)
    parts = [np.zeros(len(owners), np.bool_), *(owners == i for i in range(num_shards))]
    tasks = [Split(str(folder), entries, fields, owned, most_bytes) for owned in parts]
    done = 0

    def on_done(*_: object) -> None:
        nonlocal done
        done += 1
        report("split", done, len(tasks))

    told = executor.run(split_shard, tasks, on_done)
    with DirectoryLock(root, "save"), ShardedWriter(root) as out:
        shards = []
        for one in told:
            for described in one["manifest"]["arrays"].values():
                if (folder / described["file"]).exists():
                    os.replace(folder / described["file"], root / described["file"])
            shards.append(out.shard_manifest(one["manifest"], one["entries"]))
        out.finish(
            packed.config,
            num_datapoints=packed.num_datapoints,
            dimension=packed.dimension,
            head=shards[0],
            shards=shards[1:],
            whole_starts=np.array(packed.leaf_starts),
            owners=owners,
            docids=docids,
        )

"""A sharded index on disk: one manifest that lists a head and shards, each with its own.

::

    directory/
      manifest.json               features ["sharded"]: the settings, the head, the shards
      shard-5b0c0a7be8461d22.json of the head and of each shard: a manifest like any index's
      codes-3f2a91c05d7be846.npy  arrays, named by content; what is shared lies there once
      ...

Arrays of the whole (`swann.index.disk.contents.SHARDED_ARRAYS`, and docids) are in the manifest
itself. Saving follows `swann.index.disk.store`: files first, the manifest last, in one step.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann.config import IndexConfig
from swann.errors import CorruptIndexError, IndexFormatError
from swann.index.disk import file_system, store
from swann.index.disk.contents import (
    SHARDED_ARRAYS,
    docid_shapes,
    log_entry,
    natural,
    read_contents,
    read_entry,
    read_log_point,
)
from swann.index.disk.index_files import DirectoryFiles, Files, Verify, check_verify, map_array
from swann.index.disk.leaves import join
from swann.index.disk.manifest import (
    DOCIDS,
    FORMAT_VERSION,
    LOG,
    MAX_BYTES,
    PLAN,
    SHARDED,
    encode_manifest,
    open_unchanged,
    read_manifest,
)
from swann.index.disk.store import (
    place_array,
    place_manifest,
    read_state,
)
from swann.index.docid_arrays import StoredDocids, docid_arrays
from swann.index.docids import Docids
from swann.index.packed import PackedIndex
from swann.index.shards import Head, Shard
from swann.index.state import LogPoint, State

__all__ = [
    "ShardEntry",
    "ShardedIndex",
    "ShardedWriter",
    "is_sharded",
    "load_state",
    "open_sharded",
]

_DIGEST = re.compile("[0-9a-f]{64}")
_MOST_SHARDS = 1 << 12


class ShardEntry(NamedTuple):
    """A shard, or the head, as the manifest lists it."""

    file: str
    sha256: str
    rows: int
    entries: int


@dataclass(frozen=True)
class ShardedIndex:
    """What the manifest of a sharded index says, with its small arrays.

    Attributes
    ----------
    files : Files
        Where the files are.
    config, plan : IndexConfig
        How it was built, and what a rebalance would build.
    num_datapoints, next_number, dimension : int
        Of the whole.
    head : ShardEntry
    shards : tuple of ShardEntry
    whole_starts : uint32 array of shape (num_leaves + 1,)
        First entry of each leaf in the whole.
    owners : uint32 array of shape (num_leaves,)
        Which shard has each leaf.
    docids : Docids or None
    log : LogPoint or None
        Where changes go on that the shards do not hold.
    """

    files: Files
    config: IndexConfig
    plan: IndexConfig
    num_datapoints: int
    next_number: int
    dimension: int
    head: ShardEntry
    shards: tuple[ShardEntry, ...]
    whole_starts: NDArray[np.uint32]
    owners: NDArray[np.uint32]
    docids: Docids | None
    log: LogPoint | None

    def open_head(self, verify: Verify = "manifest") -> Head:
        """Open what chooses leaves."""
        return Head(self._open(self.head, verify, np.zeros(len(self.owners), np.bool_)))

    def open_shard(self, number: int, verify: Verify = "manifest") -> Shard:
        """Open one shard; its arrays are memory-mapped."""
        packed = self._open(self.shards[number], verify, self.owners == number)
        return Shard(packed, self.whole_starts)

    def whole(self, verify: Verify = "manifest") -> State:
        """Return the index as if it had no shards, made in memory."""
        if verify == "full":
            self.open_head(verify)
        parts = [self.open_shard(i, verify).packed for i in range(len(self.shards))]
        try:
            packed = join(parts, self.owners)
        except (ValueError, IndexError) as error:
            message = f"the shards of {self.files.where} do not fit together: {error}"
            raise CorruptIndexError(message) from error
        if packed.num_datapoints != self.num_datapoints:
            raise CorruptIndexError(
                f"the shards of {self.files.where} hold {packed.num_datapoints} datapoints; "
                f"expected {self.num_datapoints}"
            )
        docids = None if self.docids is None else self.docids.copy()
        return State(packed, docids, self.next_number, self.plan, self.log)

    def _open(self, entry: ShardEntry, verify: Verify, owned: NDArray[np.bool_]) -> PackedIndex:
        where = Path(self.files.where).parent / entry.file
        try:
            data = bytes(self.files.file(entry.file)[: MAX_BYTES + 1])
        except FileNotFoundError:
            raise CorruptIndexError(f"{where} is missing") from None
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise CorruptIndexError(f"{where} is damaged: its digest does not match the manifest")
        contents = read_contents(read_manifest(data, where), where)
        packed = read_state(self.files, contents, verify).packed
        sizes = np.diff(packed.leaf_starts.astype(np.int64))
        wanted = np.where(owned, np.diff(self.whole_starts.astype(np.int64)), 0)
        if not np.array_equal(sizes, wanted) or contents.dimension != self.dimension:
            raise CorruptIndexError(f"{where} does not hold the leaves that the manifest lists")
        return packed


# ---- Writing


class ShardedWriter:
    """Writes a sharded index: shards in any order, then the manifest that lists them.

    Used by ``with``: what was written is removed again where an error ends it.

    Parameters
    ----------
    root : Path
        An existing directory, whose lock the caller has.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._present: set[str] = set()
        self._written: dict[str, None] = {}
        self._data = b""  # of the manifest

    def __enter__(self) -> ShardedWriter:
        file_system.remove_temporary(self._root)
        self._present = {path.name for path in self._root.iterdir()}
        return self

    def __exit__(self, *_: object) -> None:
        if store.is_placed(self._root, self._data):
            return
        for name in self._written:
            if name not in self._present:
                with suppress(OSError):  # the next save removes them
                    (self._root / name).unlink(missing_ok=True)

    def shard_manifest(self, content: dict[str, Any], entries: int) -> ShardEntry:
        """Write the manifest of a shard whose arrays are there."""
        data = encode_manifest(content)
        digest = hashlib.sha256(data).hexdigest()
        file = f"shard-{digest[:16]}.json"
        place_manifest(self._root, data, file)
        self._written[file] = None
        self._written |= {entry["file"]: None for entry in content["arrays"].values()}
        return ShardEntry(file, digest, content["num_datapoints"], entries)

    def finish(
        self,
        config: IndexConfig,
        *,
        num_datapoints: int,
        dimension: int,
        head: ShardEntry,
        shards: Sequence[ShardEntry],
        whole_starts: NDArray[np.uint32],
        owners: NDArray[np.uint32],
        docids: Docids | None = None,
        plan: IndexConfig | None = None,
        next_number: int | None = None,
        log: LogPoint | None = None,
    ) -> None:
        """Write the manifest of the whole, which makes all of it the index of the directory."""
        arrays = {"leaf_starts": whole_starts, "leaf_owners": owners} | docid_arrays(docids)
        entries = {}
        for name, array in arrays.items():
            entries[name] = place_array(self._root, name, array)
            self._written[entries[name].file] = None
        content: dict[str, Any] = {
            "format": "swann",
            "version": FORMAT_VERSION,
            "features": [SHARDED],
            "config": config.to_dict(),
            "num_datapoints": num_datapoints,
            "next_number": num_datapoints if next_number is None else next_number,
            "dimension": dimension,
            "arrays": {name: entry.to_dict() for name, entry in entries.items()},
            "head": head._asdict(),
            "shards": [shard._asdict() for shard in shards],
        }
        if docids is not None:
            content["features"].append(DOCIDS)
        if plan is not None and plan != config:
            content["features"].append(PLAN)
            content["plan"] = plan.to_dict()
        if log is not None:
            content["features"].append(LOG)
            content["log"] = log_entry(log)
        file_system.sync_directory(self._root)  # no manifest without what it lists
        self._data = encode_manifest(content)
        place_manifest(self._root, self._data)
        file_system.sync_directory(self._root)
        store.remove_stale(self._root, set(self._written), log)


# ---- Reading


def is_sharded(root: Path) -> bool:
    """Whether a directory holds an index in shards; an IndexFormatError if it holds none."""
    files = DirectoryFiles(root)
    return _is_sharded(files.manifest(), files.where)


def load_state(path: str | os.PathLike[str], *, verify: Verify = "manifest") -> State:
    """Open an index as `swann.index.disk.store.load_state` does; one in shards is made whole."""
    check_verify(verify)
    files = DirectoryFiles(Path(path))
    if not files.root.is_dir():
        return store.load_state(path, verify=verify)

    def attempt(data: bytes) -> State:
        if _is_sharded(data, files.where):
            return open_sharded(files, verify, data).whole(verify)
        return store.load_state(path, verify=verify)

    return open_unchanged(files.manifest, attempt, path)


def _is_sharded(data: bytes, where: Path) -> bool:
    return b'"shards"' in data and SHARDED in read_manifest(data, where)["features"]


def open_sharded(
    files: Files, verify: Verify = "manifest", manifest: bytes | None = None
) -> ShardedIndex:
    """Read the manifest of a sharded index, unless it is given, and its small arrays.

    Raises
    ------
    FormatVersionError, CorruptIndexError, IndexFormatError
        As `swann.index.disk.store.load_state` raises them.
    """
    check_verify(verify)
    content = read_manifest(files.manifest() if manifest is None else manifest, files.where)
    if SHARDED not in content["features"]:
        raise IndexFormatError(
            f"{files.where} lists no shards: swann.load opens it; workers need an index that "
            "swann.distributed.build made, with num_shards above 1"
        )
    try:
        described = dict(content["arrays"])
        n, features = natural(content, "num_datapoints", 0), content["features"]
        shapes: dict[str, tuple[int | None, ...]] = dict.fromkeys(SHARDED_ARRAYS, (None,))
        if DOCIDS in features:
            shapes |= docid_shapes(described, n)
        if set(described) != set(shapes):
            raise ValueError(f"there are arrays {sorted(described)}, not {sorted(shapes)}")
        entries = {name: read_entry(name, described[name], s) for name, s in shapes.items()}
        config = IndexConfig.from_dict(content["config"])
        plan = IndexConfig.from_dict(content["plan"]) if PLAN in features else config
        next_number = natural(content, "next_number", n)
        dimension = natural(content, "dimension", 1)
        head = _read_shard(content["head"])
        shards = tuple(_read_shard(shard) for shard in content["shards"])
        log = read_log_point(content["log"]) if LOG in features else None
        if not 1 <= len(shards) <= _MOST_SHARDS:
            raise ValueError(f"there are {len(shards)} shards")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorruptIndexError(f"{files.where} is not a valid manifest: {error}") from error
    arrays = {name: map_array(files, entry, verify) for name, entry in entries.items()}
    starts, owners = arrays.pop("leaf_starts"), arrays.pop("leaf_owners")
    sizes = np.diff(starts.astype(np.int64))
    held = [shard.entries for shard in shards]
    if (
        len(starts) != len(owners) + 1
        or starts[0] != 0
        or (sizes < 0).any()
        or (len(owners) and int(owners.max()) >= len(shards))
        or np.bincount(owners, sizes, minlength=len(shards)).tolist() != held
    ):
        raise CorruptIndexError(f"leaf_starts, leaf_owners and shards of {files.where} disagree")
    docids = None
    if DOCIDS in features:
        docids = Docids(stored=StoredDocids(arrays, files.where)) if arrays else Docids()
        if verify == "full":
            docids.check()
    return ShardedIndex(
        files, config, plan, n, next_number, dimension, head, shards, starts, owners, docids, log
    )


def _read_shard(content: dict[str, Any]) -> ShardEntry:
    file, digest = content["file"], content["sha256"]
    if not _DIGEST.fullmatch(digest) or file != f"shard-{digest[:16]}.json":
        raise ValueError(f"a shard is {file!r} with the digest {digest!r}")
    rows, entries = natural(content, "rows", 0), natural(content, "entries", 0)
    return ShardEntry(file, digest, rows, entries)

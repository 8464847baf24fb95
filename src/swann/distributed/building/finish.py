"""The end of a build: what maps gave is reduced, array by array, and made the index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.config import AHConfig
from swann.distributed.building.executor import Executor
from swann.distributed.building.mapping import Map
from swann.distributed.building.reduction import Layouts, Reduce, reduce_array
from swann.distributed.building.sections import LostError, Sections
from swann.distributed.building.splitting import commit_shards
from swann.distributed.building.tasks import digest_of_names, load_trained
from swann.index.building.encoding import correction_range, has_corrections
from swann.index.building.trained import Trained
from swann.index.building.writing import exact_rows
from swann.index.disk.assemble import commit, is_there, map_entry, packed_of, place_whole
from swann.index.disk.contents import Entry
from swann.index.docid_arrays import docid_arrays
from swann.index.docids import Docids
from swann.index.packed import ranks_by_reach
from swann.index.rows import row_shapes
from swann.index.source import Progress
from swann.index.state import State
from swann.partition.tree import hidden_variance

__all__ = ["Finish"]

_LEARNED = (
    "projection",
    "tree_map",
    "code_metric",
    "centroids",
    "row_origins",
    "codebook",
    "code_center",
)


class Finish:
    """Makes the arrays of an index and its manifest.

    Parameters
    ----------
    root, work : Path
        The directory, and the folder of the build in it.
    num_shards : int
        1 makes a plain index.
    bucket_bytes : int
        Of an array that is put together at a time.
    """

    def __init__(self, root: Path, work: Path, num_shards: int, bucket_bytes: int) -> None:
        self.root = root
        self.work = work
        self.num_shards = num_shards
        self.bucket_bytes = bucket_bytes
        self.entries: dict[str, Entry] = {}
        self.fields: dict[str, Any] = {}

    def run(
        self,
        executor: Executor,
        tasks: list[Map],
        told: list[dict[str, Any]],
        firsts: tuple[int, ...],
        trained_path: str,
        bits: int,
        report: Progress,
    ) -> list[str]:
        """Make all arrays; return the files that turned out to be lost."""
        paths = tuple(task.out for task in tasks)
        try:
            trained = load_trained(trained_path)
            layouts = _layouts(paths, told, firsts, trained_path, trained, bits)
        except LostError as error:
            return [error.path]
        names = _reduced(trained)
        name = digest_of_names("reduce", [Path(path).name for path in paths])
        marker = self.work / f"reduced-{name}.json"
        made = _read_marker(marker, self.work)
        todo = [n for n in names if n not in made]
        done = len(names) - len(todo)

        def on_done(number: int, told: dict[str, Any]) -> None:
            nonlocal done
            if "lost" not in told:
                done += 1
                made[todo[number]] = told
                _write_marker(marker, made)
            report("reduce", done, len(names))

        folder = str(self.work.absolute())
        reduces = [Reduce(layouts, n, self.bucket_bytes, folder) for n in todo]
        results = executor.run(reduce_array, reduces, on_done)
        lost = sorted({path for result in results for path in result.get("lost", [])})
        if not lost:
            self.entries = {n: _entry(made[n]) for n in names}
            self._place_rest(trained, layouts)
        return lost

    def _place_rest(self, trained: Trained, layouts: Layouts) -> None:
        """Write the arrays that are known already, and note what else the manifest tells."""
        starts = layouts.starts
        if layouts.guests is not None:
            starts = starts + np.concatenate([[0], np.cumsum(layouts.guests)])
        known = {"leaf_starts": starts}
        known |= {n: a for n in _LEARNED if (a := getattr(trained, n)) is not None}
        for name, array in (known | trained.routes).items():
            self.entries[name] = place_whole(self.work, name, array)
        self.fields = {
            "config": trained.config,
            "num_datapoints": int(layouts.starts[-1]),
            "dimension": trained.dimension,
            "correction_low": layouts.low,
            "correction_span": layouts.span,
            "residual": trained.residual,
        }

    def commit(self, docids: Docids | None, executor: Executor, report: Progress) -> None:
        """Replace what the directory holds by what was made."""
        if self.num_shards > 1:
            commit_shards(
                self.root,
                self.work,
                self.entries,
                self.fields,
                self.num_shards,
                docids,
                executor,
                self.bucket_bytes,
                report,
            )
            return
        mapped = {name: map_entry(self.work, entry) for name, entry in self.entries.items()}
        state = State.of(packed_of(self.fields, mapped), docids)
        named = docid_arrays(docids)
        entries = {name: place_whole(self.work, name, array) for name, array in named.items()}
        ordered = {name: self.entries[name] for name in state.packed.arrays()}
        commit(self.root, self.work, ordered | entries, state)


def _layouts(
    paths: tuple[str, ...],
    told: list[dict[str, Any]],
    firsts: tuple[int, ...],
    trained_path: str,
    trained: Trained,
    bits: int,
) -> Layouts:
    spills = trained.config.tree is not None and trained.config.tree.soar_lambda is not None
    own, guests = (np.zeros(trained.num_leaves, np.int64) for _ in range(2))
    for path in paths:
        file = Sections(path)
        own += _sizes(file.read("starts"))
        if spills:
            guests += _sizes(file.read("guest_starts"))
    low = span = hidden = 0.0
    if "low" in told[0]:
        low, high = min(one["low"] for one in told), max(one["high"] for one in told)
        sizes = np.sum([one["sizes"] for one in told], axis=0)
        low, span = correction_range(low, high, sizes)
    if "whole" in told[0]:
        whole, kept = (sum(one[name] for one in told) for name in ("whole", "kept"))
        sizes = (trained.dimension, trained.reduced_dim)
        hidden = hidden_variance(whole, kept, bits, int(own.sum()), *sizes)
    starts = np.concatenate([[0], np.cumsum(own)])
    return Layouts(
        paths, firsts, trained_path, starts, guests if spills else None, low, span, hidden
    )


def _sizes(starts: NDArray[Any]) -> NDArray[np.int64]:
    ends = starts.astype(np.int64)
    return ends[1:] - ends[:-1]


def _reduced(trained: Trained) -> list[str]:
    """Return the arrays that are made of datapoints, those that take longest first."""
    config = trained.config
    exact = exact_rows(config)
    names: list[str] = []
    if exact is not None:
        measure = config.distance_measure
        origins = trained.row_origins is not None
        names += row_shapes(exact.quantize, None, trained.dimension, measure, origins=origins)
    if isinstance(config.score, AHConfig):
        names.append("codes")
        if has_corrections(config, trained.residual, trained.code_center):
            names.append("corrections")
    if config.tree is not None:
        names.append("ids")
        if ranks_by_reach(config):
            names.append("spreads")
        if config.tree.soar_lambda is not None:
            names.append("entry_rows")
    return names


def _entry(told: dict[str, Any]) -> Entry:
    return Entry(told["file"], np.dtype(told["dtype"]), tuple(told["shape"]), told["sha256"])


def _write_marker(marker: Path, made: dict[str, Any]) -> None:
    temporary = marker.with_suffix(".tmp")
    temporary.write_text(json.dumps(made))
    temporary.replace(marker)


def _read_marker(marker: Path, folder: Path) -> dict[str, Any]:
    """Return which arrays were made before and are still there."""
    try:
        made = json.loads(marker.read_text())
        return {name: told for name, told in made.items() if is_there(folder, _entry(told))}
    except (OSError, ValueError, LookupError, TypeError):
        return {}

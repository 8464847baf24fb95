"""The tasks of a build that read datapoints: check, train, map.

Each is a pure function of its argument and the files that this names. Its result is a file named
by the digest of all that went in, so a task that was done is not done again, by whoever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import IndexConfig
from swann.distributed.building.sections import LostError, Sections, write_sections
from swann.index.building.build import train_index
from swann.index.building.encoding import correction_sizes, unpack
from swann.index.building.trained import Trained, spill
from swann.index.building.writing import write
from swann.index.disk.npy import npy_header
from swann.index.packed import ranks_by_reach
from swann.index.source import Source
from swann.kernels import GROUP
from swann.partition import tree
from swann.partition.avq import squared_errors
from swann.sources import Sources
from swann.tensors import is_bfloat16

__all__ = [
    "Check",
    "Map",
    "Train",
    "check_span",
    "digest_of_names",
    "finished",
    "load_trained",
    "map_span",
    "train",
]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

FORMAT = 2
"""Of the files of tasks: others are not taken for one's own."""

_TRAINED_ARRAYS = (
    "projection",
    "tree_map",
    "code_metric",
    "centroids",
    "assigned_by",
    "reach_from",
    "codebook",
    "row_origins",
    "code_center",
)


def digest_of_names(*parts: Any) -> str:
    """Return a name for what is made of these: numbers, strings, and lists and dicts of them."""
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()[:32]


def finished(path: str | Path) -> dict[str, Any] | None:
    """Return what the result of a task tells, if it is there and not cut short."""
    try:
        return Sections(path).told
    except LostError:
        return None


# ---- Check


@dataclass(frozen=True)
class Check:
    """Read a span, refuse bad rows, and keep those that are trained on.

    Attributes
    ----------
    sources : Sources
        At least what the span is read from.
    first, last : int
        The span.
    config : IndexConfig
        What is built.
    sample : int64 array
        Which rows of the span to keep, ascending, counted from `first`.
    threads : int
        0 means all cores.
    out : str
        The file to write.
    """

    sources: Sources
    first: int
    last: int
    config: IndexConfig
    sample: NDArray[np.int64]
    threads: int
    out: str


def check_span(task: Check) -> dict[str, Any]:
    """Do it; return the length of the longest row, ``longest``.

    Raises
    ------
    NonFiniteError, ZeroVectorError, InvalidInputError
        If a row cannot be indexed: its file and its number there are named.
    """
    done = finished(task.out)
    if done is not None:
        return done
    dtype = stored_dtype(task.sources.dtype)
    kept = np.empty((len(task.sample), task.sources.dimension), dtype)
    longest, threads = 0.0, task.threads or kernels.hardware_threads()
    for part, low, high in task.sources.pieces(task.first, task.last):
        rows = part.read(low, high)
        source = Source(rows, task.config, threads, None, part.name, low)
        longest = max(longest, float(source.check().max()))
        begin = task.sources.start(part) + low - task.first
        inside = slice(*np.searchsorted(task.sample, [begin, begin + high - low]))
        kept[inside] = source.picked(task.sample[inside] - begin)
    told = {"longest": longest}
    write_sections(Path(task.out), told, {"rows": kept})
    return told


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that rows of another are kept in: NumPy has no name for bfloat16."""
    return np.dtype(np.float32) if is_bfloat16(dtype) else dtype


# ---- Train


@dataclass(frozen=True)
class Train:
    """Learn what there is to be learned, from the rows that were kept.

    Attributes
    ----------
    config : IndexConfig
        What is built.
    checks : tuple of str
        Files of `Check`, in the order of their spans.
    queries : float32 array of shape (m, d), or None
        Queries like those to come.
    total : int
        Datapoints of the index.
    threads : int
        0 means all cores.
    out : str
        The file to write.
    progress : callable, optional
        Told how far it is, in this process only.
    """

    config: IndexConfig
    checks: tuple[str, ...]
    queries: F32 | None
    total: int
    threads: int
    out: str
    progress: Callable[[str, int, int], None] | None = None


def train(task: Train) -> dict[str, Any]:
    """Do it; return nothing of interest, or which files are ``lost``."""
    done = finished(task.out)
    if done is not None:
        return done
    path = Path(task.out)
    sample = path.with_name(f"{path.stem}-sample.npy")
    try:
        lost = _gather(task.checks, sample)
        if lost:
            return {"lost": lost}
        trained = train_index(
            np.load(sample, mmap_mode="r", allow_pickle=False),
            task.config,
            num_threads=task.threads,
            progress=task.progress,
            training_queries=task.queries,
            total=task.total,
        )
        _save_trained(path, trained)
    finally:
        sample.unlink(missing_ok=True)
    return {}


def _gather(checks: tuple[str, ...], target: Path) -> list[str]:
    """Write the rows that were kept into one .npy file; return the files that are damaged."""
    lost: list[str] = []
    files: list[Sections] = []
    for path in checks:
        try:
            files.append(Sections(path))
        except LostError as error:
            lost.append(error.path)
    if lost:
        return lost
    count = sum(file.length("rows") for file in files)
    some = files[0].read("rows", 0, 0)
    temporary = target.with_suffix(".part")
    with open(temporary, "wb") as out:
        out.write(npy_header(some.dtype, (count, some.shape[1])))
        step = max(1, (1 << 24) // max(1, some.shape[1] * some.dtype.itemsize))
        for file in files:
            try:
                for first in range(0, file.length("rows"), step):
                    last = min(first + step, file.length("rows"))
                    out.write(file.read("rows", first, last).data)
            except LostError as error:
                lost.append(error.path)
    temporary.replace(target)
    return lost


def _save_trained(path: Path, trained: Trained) -> None:
    arrays = {name: getattr(trained, name) for name in _TRAINED_ARRAYS}
    told = {
        "config": trained.config.to_dict(),
        "dimension": trained.dimension,
        "reduced_dim": trained.reduced_dim,
        "residual": trained.residual,
        "routes": list(trained.routes),
    }
    present = {name: array for name, array in arrays.items() if array is not None}
    write_sections(path, told, present | trained.routes)


@lru_cache(maxsize=1)
def load_trained(path: str) -> Trained:
    """Read what `train` wrote.

    Raises
    ------
    LostError
        If it is missing or damaged.
    """
    file = Sections(path)
    told = file.told
    arrays = {name: file.read(name) for name in _TRAINED_ARRAYS if name in file}
    return Trained(
        IndexConfig.from_dict(told["config"]),
        told["dimension"],
        told["reduced_dim"],
        residual=told["residual"],
        routes={name: file.read(name) for name in told["routes"]},
        **arrays,
    )


# ---- Map


@dataclass(frozen=True)
class Map:
    """Place and encode the datapoints of a span.

    Attributes
    ----------
    sources : Sources
        At least what the span is read from.
    first, last : int
        The span.
    trained : str
        The file of `Train`.
    bits : int
        What `swann.partition.tree.square_bits` returns for all rows.
    threads : int
        0 means all cores.
    out : str
        The file to write.
    """

    sources: Sources
    first: int
    last: int
    trained: str
    bits: int
    threads: int
    out: str


def map_span(task: Map) -> dict[str, Any]:
    """Do it; return sums and bounds of the span, or which files are ``lost``.

    The file holds, in the order of the leaves and within a leaf in that of the input::

        starts       uint32 (leaves + 1,)   where the datapoints of each leaf begin
        ids          uint32 (m,)            their numbers, counted from the first of the span
        rows ...                            as `swann.index.rows` keeps them
        codes        uint8  (m, blocks)     a code a byte
        corrections  float32 (m,)
        squares      float64 (m,)           squared distances to the centroids

    and where datapoints have a second leaf, in the order of these leaves and within one in that
    above: ``guest_starts``, ``guests`` (uint32, places in the order above), ``guest_codes``,
    ``guest_corrections``.
    """
    done = finished(task.out)
    if done is not None:
        return done
    try:
        trained = load_trained(task.trained)
    except LostError as error:
        return {"lost": [error.path]}
    threads = task.threads or kernels.hardware_threads()
    db = task.sources.read(task.first, task.last)
    source = Source(db, trained.config, threads, None)
    source.adopt(trained.projection, trained.reduced_dim, trained.tree_map)
    told, arrays = _mapped(source, trained, task.bits)
    write_sections(Path(task.out), told, arrays)
    kernels.release_memory()
    return told


def _mapped(
    source: Source, trained: Trained, bits: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    config = trained.config
    norms = source.check()
    reduced_norms = np.empty(source.n, np.float32) if source.projects else norms
    leaves, squares = _placed(source, trained, reduced_norms)
    order, starts = kernels.sort_by_leaf(leaves, trained.num_leaves)
    guests = guest_starts = spilled = None
    if config.tree is not None and config.tree.soar_lambda is not None:
        assert trained.centroids is not None
        spilled = spill(source, trained.centroids, leaves, config.tree.soar_lambda)
        guests, guest_starts = kernels.sort_by_leaf(spilled[order], trained.num_leaves)
    encoder = trained.encoder(source.threads)
    places = _SpanPlaces(leaves, order, spilled, guests)
    arrays: dict[str, NDArray[Any]] = {"starts": starts, "ids": order}
    arrays |= write(source, places, encoder, trained.row_origins, norms, reduced_norms)
    if squares is not None:
        arrays["squares"] = squares[order]
    if guests is not None and guest_starts is not None:
        arrays |= {"guest_starts": guest_starts, "guests": guests}
    told: dict[str, Any] = {"count": source.n}
    if source.projects:
        told["whole"] = tree.square_sum(norms, bits)
        told["kept"] = tree.square_sum(reduced_norms, bits)
    if encoder is not None:
        made: dict[str, NDArray[Any]] = {"codes": unpack(encoder.codes)}
        if encoder.corrections is not None:
            made["corrections"] = encoder.corrections
            told["low"] = float(np.nanmin(encoder.corrections))
            told["high"] = float(np.nanmax(encoder.corrections))
            told["sizes"] = correction_sizes(encoder.corrections).tolist()
        for name, array in made.items():
            arrays[name] = array[: source.n]
            if guests is not None:
                arrays[f"guest_{name}"] = array[places.guests : places.guests + source.n]
    return told, arrays


def _placed(
    source: Source, trained: Trained, reduced_norms: F32
) -> tuple[U32, NDArray[np.float64] | None]:
    """Return the leaves of datapoints, and how far they are from their centroids."""
    config = trained.config
    if config.tree is None or trained.assigned_by is None:
        if source.projects:
            for _ in source.reduced_chunks(reduced_norms):
                pass
        return np.zeros(source.n, np.uint32), None
    mapped = source.tree_map is not None
    tree_norms = np.empty(source.n, np.float32) if mapped else reduced_norms
    leaves, scores = tree.assign(
        source.tree_chunks(reduced_norms, tree_norms),
        source.n,
        trained.assigned_by,
        source.threads,
        avq=config.tree.avq,
    )
    if not ranks_by_reach(config):
        return leaves, None
    if trained.reach_from is None:
        return leaves, tree.squared_distances(scores, tree_norms)
    squares = np.empty(source.n)
    for first, rows in source.tree_chunks():
        part = slice(first, first + len(rows))
        squares[part] = squared_errors(rows, trained.reach_from, leaves[part])
    return leaves, squares


class _SpanPlaces:
    """Places without a gap: those of the datapoints in the order of the leaves, then the guests."""

    def __init__(self, leaves: U32, order: U32, spilled: U32 | None, guests: U32 | None) -> None:
        groups = -(-len(leaves) // GROUP)
        self.guests = groups * GROUP
        self._rows = _inverse(order)
        self._copies = [(leaves, self._rows, 0)]
        if spilled is not None and guests is not None:
            self._copies.append((spilled, _inverse(guests)[self._rows], self.guests))
        self.num_groups = groups * len(self._copies)

    def rows(self, first: int, last: int) -> U32:
        return self._rows[first:last]

    def entries(self, first: int, last: int) -> list[tuple[U32, U64]]:
        return [
            (leaves[first:last], numbers[first:last].astype(np.uint64) + np.uint64(begin))
            for leaves, numbers, begin in self._copies
        ]


def _inverse(order: U32) -> U32:
    places = np.empty_like(order)
    places[order] = np.arange(len(order), dtype=np.uint32)
    return places

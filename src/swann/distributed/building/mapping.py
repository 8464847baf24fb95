"""The task of a build that places and encodes the datapoints of a span; see `tasks.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.distributed.building.sections import LostError, write_sections
from swann.distributed.building.tasks import finished, load_trained
from swann.index.building.encoding import correction_sizes, unpack
from swann.index.building.trained import Trained, spill
from swann.index.building.writing import write
from swann.index.packed import ranks_by_reach
from swann.index.source import Source
from swann.kernels import GROUP
from swann.partition import tree
from swann.partition.avq import squared_errors
from swann.sources import Sources

__all__ = ["Map", "map_span"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]


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

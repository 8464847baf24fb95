"""Recall and cost of every number of leaves and candidates, from one search.

One search over all leaves returns the candidates in the order of their codes. A datapoint is found
with `l` leaves and `c` candidates if its leaf is among the `l` best and fewer than `c` of the
candidates before it lie in these leaves: so the one list tells the recall of all pairs (l, c).

What is cheap is decided by counting, not by a clock, so that the same input gives the same index:
nanoseconds of one thread of an AVX-512 Xeon, rounded.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.autopilot.sample import Panel
from swann.config import AHConfig, BruteForceConfig, IndexConfig, ReorderType
from swann.distance import SQUARED_L2
from swann.index.packed import PackedIndex

__all__ = ["Limits", "Measure", "leaf_ranks", "recalls", "rows_only"]

I64 = NDArray[np.int64]

_LEAF = 40.0
_CODED, _CODED_BLOCK = 0.1, 0.015  # a datapoint by its code: and a block of it
_ROW, _ROW_BYTE = 2.0, 0.04  # a datapoint by its row, rows of a leaf following each other
_CANDIDATE, _CANDIDATE_BYTE = 40.0, 0.06  # a row that lies anywhere
_BYTES = {ReorderType.FLOAT32: 4, ReorderType.BFLOAT16: 2, ReorderType.INT8: 1}

_QUERIES_AT_ONCE = 64
_LADDER = 1.08
_WORTH_SCANNING = 4.0
"""More datapoints by this factor never pay by candidates that they save."""


class Limits(NamedTuple):
    """How a search is to be limited; `candidates` is 0 where rows are scored without codes."""

    leaves: int
    candidates: int
    cost: float


class Measure:
    """The recall of panels by leaves and candidates.

    Parameters
    ----------
    packed : PackedIndex
        An index without spilling, as built.
    panels : list of Panel
        The queries.
    db : array of shape (n, d)
        The database.
    most : int
        Candidates to look at.
    target : float
        The least recall that limits will be asked for.
    threads : int
        The result does not depend on it.
    """

    def __init__(
        self,
        packed: PackedIndex,
        panels: list[Panel],
        db: NDArray[Any],
        most: int,
        target: float,
        threads: int,
    ) -> None:
        self._packed = packed
        ladder = _ladder(packed.num_leaves)
        self._coded = packed.codes is not None
        self._found: list[NDArray[np.float64]] = []  # by panel: (ladder, candidates)
        self._reached: list[NDArray[np.float64]] = []  # by panel: (ladder,), with all candidates
        scanned = np.zeros(len(ladder))
        leaf_of = _leaf_of(packed)
        sizes = np.diff(packed.leaf_starts.astype(np.int64))
        ranks = []
        for panel in panels:
            rank, order = leaf_ranks(packed, panel, threads)
            ranks.append(rank)
            visited = np.cumsum(sizes[order].sum(axis=0), dtype=np.float64)
            scanned += visited[ladder - 1] / (len(panel.queries) * len(panels))
            known = panel.neighbors >= 0
            at = np.take_along_axis(rank, leaf_of[panel.neighbors], axis=1)
            found = np.array([float((known & (at < leaves)).sum()) for leaves in ladder])
            self._reached.append(found / known.sum())
        kept = self._worth_counting(scanned, [1.0 - p.leniency * (1.0 - target) for p in panels])
        self._ladder, self._scanned = ladder[kept], scanned[kept]
        self._reached = [reached[kept] for reached in self._reached]
        if self._coded:
            for panel, rank in zip(panels, ranks, strict=True):
                found = self._count(panel, rank, leaf_of, db, most, threads)
                self._found.append(found / (panel.neighbors >= 0).sum())

    def _worth_counting(
        self, scanned: NDArray[np.float64], goals: list[float]
    ) -> NDArray[np.bool_]:
        """Return which rungs may be best: from those that hold enough neighbors on, and the last.

        Neighbors that are equal to others may be found in fewer leaves; that is not looked into.
        """
        enough = np.ones(len(scanned), np.bool_)
        for reached, goal in zip(self._reached, goals, strict=True):
            enough &= reached >= goal
        first = int(enough.argmax())
        kept = np.arange(len(scanned)) >= first
        kept &= scanned <= _WORTH_SCANNING * scanned[first]
        kept[-1] = True
        return kept

    def best(self, goals: list[float], rows_alone: bool = True) -> Limits | None:
        """Return the cheapest limits whose recall is at least the goal of each panel, if any.

        Scoring all rows of the leaves, without codes, is looked into unless `rows_alone` is False.
        """
        best: Limits | None = None
        for rung, leaves in enumerate(self._ladder.tolist()):
            rows = self._cost(rung, 0)
            if (
                (rows_alone or not self._coded)
                and all(r[rung] >= goal for r, goal in zip(self._reached, goals, strict=True))
                and (best is None or rows < best.cost)
            ):
                best = Limits(leaves, 0, rows)
            if not self._coded:
                continue
            enough = np.ones(self._found[0].shape[1], np.bool_)
            for found, goal in zip(self._found, goals, strict=True):
                enough &= found[rung] >= goal
            if not enough.any():
                continue
            candidates = int(enough.argmax()) + 1
            cost = self._cost(rung, candidates)
            if best is None or cost < best.cost:
                best = Limits(leaves, candidates, cost)
        return best

    def scanned(self, leaves: int) -> float:
        """Return how many datapoints lie in so many leaves of a query, a number `best` returned."""
        return float(self._scanned[int(np.searchsorted(self._ladder, leaves))])

    def widest(self) -> Limits:
        """Return the limits that find most."""
        rung = len(self._ladder) - 1
        candidates = self._found[0].shape[1] if self._coded else 0
        return Limits(int(self._ladder[rung]), candidates, self._cost(rung, candidates))

    def _cost(self, rung: int, candidates: int) -> float:
        packed, scanned = self._packed, float(self._scanned[rung])
        score, reorder = packed.config.score, packed.config.reorder
        quantize = reorder.quantize if reorder is not None else ReorderType.FLOAT32
        if isinstance(score, BruteForceConfig):
            quantize = score.quantize
        row = packed.dimension * _BYTES[quantize]
        leaves = float(self._ladder[rung]) * _LEAF
        if candidates == 0:
            return leaves + scanned * (_ROW + row * _ROW_BYTE)
        assert isinstance(score, AHConfig)
        blocks = kernels.num_blocks(packed.reduced_dim, score.dimensions_per_block)
        coded = scanned * (_CODED + blocks * _CODED_BLOCK)
        return leaves + coded + candidates * (_CANDIDATE + row * _CANDIDATE_BYTE)

    def _count(
        self,
        panel: Panel,
        ranks: NDArray[np.int32],
        leaf_of: NDArray[np.uint32],
        db: NDArray[Any],
        most: int,
        threads: int,
    ) -> NDArray[np.float64]:
        """Return how many neighbors are found, by rung of the ladder and by candidates."""
        codes = _without_rows(self._packed)
        count, k = panel.neighbors.shape
        width = min(most + int(panel.copies.max()), codes.num_datapoints)
        found = np.zeros((len(self._ladder), most))
        for first in range(0, count, _QUERIES_AT_ONCE):
            some = slice(first, first + _QUERIES_AT_ONCE)
            part = panel.part(some)
            ids = np.empty((len(part.queries), width), np.int64)
            scores = np.empty(ids.shape, np.float32)
            codes.native.search(part.queries, width, codes.num_leaves, threads, ids, scores)
            listed = part.without_own(ids, most)
            good = part.good(listed, db, self._packed.config)
            leaf = np.take_along_axis(ranks[some], leaf_of[listed], axis=1)
            leaf[listed < 0] = codes.num_leaves
            for rung, leaves in enumerate(self._ladder.tolist()):
                inside = leaf < leaves
                hits = good & inside
                if part.tied.any():  # more may be good than are wanted
                    hits &= np.cumsum(hits, axis=1, dtype=np.int32) <= k
                places = np.cumsum(inside, axis=1, dtype=np.int32)[hits]
                found[rung] += np.bincount(places - 1, minlength=most)
        return np.cumsum(found, axis=1)


def recalls(
    packed: PackedIndex, panel: Panel, db: NDArray[Any], limits: Limits, threads: int
) -> NDArray[np.float64]:
    """Search as a user would, and return the recall of each query, shape (s,)."""
    count, k = panel.neighbors.shape
    found = np.zeros(count)
    for own in np.unique(panel.copies).tolist():  # a user's search is not asked for these
        some = panel.copies == own
        part = panel.part(some)
        ids = np.empty((len(part.queries), k + own), np.int64)
        distances = np.empty(ids.shape, np.float32)
        candidates = max(k, limits.candidates) + own
        packed.native.search(part.queries, candidates, limits.leaves, threads, ids, distances)
        good = part.good(part.without_own(ids, k), db, packed.config)
        found[some] = good.sum(axis=1)
    wanted = np.maximum(1, (panel.neighbors >= 0).sum(axis=1))
    return np.asarray(found / wanted, np.float64)


def rows_only(packed: PackedIndex) -> PackedIndex:
    """Return the index without its codes: rows are scored as they are."""
    reorder = packed.config.reorder
    if packed.codes is None or reorder is None:
        return packed
    config = dataclasses.replace(
        packed.config, score=BruteForceConfig(quantize=reorder.quantize), reorder=None
    )
    return dataclasses.replace(
        packed,
        config=config,
        codes=None,
        codebook=None,
        code_metric=None,
        corrections=None,
        code_center=None,
        residual=True,
    )


def _without_rows(packed: PackedIndex) -> PackedIndex:
    """Return the index with no more than its codes: results come in the order of these."""
    config = dataclasses.replace(packed.config, reorder=None)
    return dataclasses.replace(
        packed,
        config=config,
        rows=None,
        rows_bf16=None,
        rows_i8=None,
        row_scales=None,
        row_squares=None,
        row_labels=None,
        row_origins=None,
    )


def _ladder(num_leaves: int) -> I64:
    """Return numbers of leaves worth trying, ascending, all of them last."""
    rungs = [1]
    while rungs[-1] < num_leaves:
        rungs.append(min(num_leaves, max(rungs[-1] + 1, int(rungs[-1] * _LADDER))))
    return np.array(rungs)


def _leaf_of(packed: PackedIndex) -> NDArray[np.uint32]:
    """Return the leaf of each datapoint."""
    sizes = np.diff(packed.leaf_starts)
    leaves = np.repeat(np.arange(packed.num_leaves, dtype=np.uint32), sizes)
    numbers = packed.numbers()
    if packed.entry_rows is not None:
        numbers = numbers[packed.entry_rows]
    by_id = np.empty_like(leaves)
    by_id[numbers] = leaves
    return by_id


def leaf_ranks(packed: PackedIndex, panel: Panel, threads: int) -> tuple[NDArray[np.int32], I64]:
    """Return the rank of each leaf for each query, and the leaves by rank; both (s, leaves)."""
    count, leaves = len(panel.queries), packed.num_leaves
    ranks = np.zeros((count, leaves), np.int32)
    order = np.zeros((count, leaves), np.int64)
    if packed.centroids is None:
        return ranks, order
    centroids, queries = packed.centroids, packed.reduce(panel.queries, threads)
    measure = packed.config.distance_measure
    if packed.spreads is not None:
        _, lengths = kernels.check_rows(queries, threads)
        centroids = np.concatenate([centroids, packed.spreads[:, None]], axis=1)
        queries = np.concatenate([queries, lengths[:, None]], axis=1)
    config = IndexConfig(
        num_neighbors=leaves,
        distance_measure=SQUARED_L2 if measure == SQUARED_L2 else "dot_product",
    )
    over_centroids = PackedIndex(
        config=config,
        num_datapoints=leaves,
        dimension=centroids.shape[1],
        leaf_starts=np.array([0, leaves], np.uint32),
        rows=centroids.view(),
    )
    scores = np.empty((count, leaves), np.float32)
    over_centroids.native.search(queries, leaves, 1, threads, order, scores)
    np.put_along_axis(ranks, order, np.arange(leaves, dtype=np.int32)[None, :], axis=1)
    return ranks, order

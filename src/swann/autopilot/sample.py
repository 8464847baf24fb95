"""Queries to measure with, and their exact neighbors.

Nobody knows the queries when an index is built. Datapoints can stand in for them, each left out of
its own answer with all its copies, and with those that are almost that (a picture encoded twice):
on data of one kind (word vectors, pictures) they are as hard to answer as real queries, within .005
of recall.

Under the dot product queries are often of another kind than datapoints, and harder: users and what
they may buy, hidden states and output embeddings. There the index must also answer a *wide* panel:
half of its queries vary as the datapoints do, half point anywhere.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.config import IndexConfig
from swann.distance import (
    DOT_PRODUCT,
    SQUARED_L2,
    DistanceMeasure,
    descending,
    normalize_rows,
    normalizes,
)
from swann.index.packed import PackedIndex
from swann.vectors import slice_rows, take

__all__ = ["WIDE", "Panel", "draw_panels", "marks_of", "nearest_rows", "row_length"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

WIDE = "queries of any kind"
"""What the queries of a wide panel are."""

_LENGTHS = 4096
_MIXED = 32  # datapoints in a query that varies as they do
_TRAINED_ON = 0.75
"""Leniency of datapoints as queries: the tree was trained on them, and they miss less than queries
from outside do (fashion-mnist: .042 where those miss .051)."""
_LENIENT = 1.5  # real queries are easier than those that point anywhere
_CHUNK_VALUES = 4 * 1024 * 1024
_TOLERANCE = 1e-6  # of scores that count as equal, relative
_MOST_COPIES = 1024
"""A datapoint with more of them does not stand in for a query: all of them would be listed."""
_MARKED_VALUES = 256 * 1024
_UNIT_NOISE = 1e-6  # a squared distance of unit vectors that float32 tells
_ALMOST, _MOST_ALMOST = 0.04, 128
"""The nearest datapoints are almost copies where the next is 25 times as far; so many at most."""
_FEW = 48
"""Fewer sample queries say little, so datapoints must be answered beside them."""


def row_length(db: NDArray[Any], seed: int) -> float:
    """Return the median length of a sample of rows; 0 if they are not finite, or there are none."""
    rng = np.random.default_rng([seed, 10])
    ids = np.sort(rng.choice(len(db), min(len(db), _LENGTHS), replace=False))
    rows = take(db, ids).astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    median = float(np.median(lengths)) if len(ids) else 0.0
    return median if np.isfinite(median) else 0.0


@dataclasses.dataclass(frozen=True)
class Panel:
    """Queries of one kind, and what they should find.

    Attributes
    ----------
    about : str
        What the queries are.
    leniency : float
        How many times as many neighbors may be missed here as the target says.
    queries : float32 array of shape (s, d)
        Of unit length under cosine.
    copies : int64 array of shape (s,)
        How many datapoints are left out of a query's answer: what is equal to it, or almost.
    neighbors : int64 array of shape (s, k)
        The best datapoints, best first.
    tied : bool array of shape (s,)
        Whether another datapoint is as good as the last of the neighbors.
    last : float64 array of shape (s,)
        The score of the last neighbor, as `_scores` computes it.
    marks, own : uint64 arrays of shape (n,) and (s,), or None
        Datapoints with the mark of a query are left out of its answer.
    almost : int64 array of shape (s, m), or None
        Other datapoints that are left out of a query's answer; -1 where there are no more.
    """

    about: str
    leniency: float
    queries: F32
    copies: I64
    neighbors: I64
    tied: NDArray[np.bool_]
    last: F64
    marks: U64 | None = None
    own: U64 | None = None
    almost: I64 | None = None

    def part(self, which: slice | NDArray[np.bool_]) -> Panel:
        """Return the panel of some of the queries."""
        return dataclasses.replace(
            self,
            queries=self.queries[which],
            copies=self.copies[which],
            neighbors=self.neighbors[which],
            tied=self.tied[which],
            last=self.last[which],
            own=None if self.own is None else self.own[which],
            almost=None if self.almost is None else self.almost[which],
        )

    def others(self, found: I64) -> NDArray[np.bool_]:
        """Return which of the ids (s, m) are not each query's own; -1 is not."""
        kept = found >= 0
        if self.marks is not None and self.own is not None:
            kept &= self.marks[found] != self.own[:, None]
        if self.almost is not None and self.almost.size and found.size:
            # One key for each pair of query and id, so that one set operation answers for all.
            span = 1 + max(int(found.max()), int(self.almost.max()))
            keys = np.arange(len(found))[:, None] * span
            kept &= ~np.isin(found + keys, (self.almost + keys)[self.almost >= 0])
        return kept

    def without_own(self, found: I64, width: int) -> I64:
        """Return ids (s, m) without each query's own, in their order, cut to `width` columns.

        What is missing is -1.
        """
        kept = self.others(found)
        order = np.argsort(~kept, axis=1, kind="stable")
        ids = np.take_along_axis(np.where(kept, found, -1), order, axis=1)[:, :width]
        return np.ascontiguousarray(ids)

    def good(self, found: I64, db: NDArray[Any], config: IndexConfig) -> NDArray[np.bool_]:
        """Return which of the ids (s, m), each query's all different, are as good as neighbors."""
        # As in `others`; the ids of a query are all different.
        keys = np.arange(len(found))[:, None] * len(db)
        marks = np.isin(found + keys, (self.neighbors + keys)[self.neighbors >= 0])
        marks &= found >= 0
        step = max(1, _CHUNK_VALUES // db.shape[1])
        for row in np.flatnonzero(self.tied):
            others = np.flatnonzero(~marks[row] & (found[row] >= 0))
            for first in range(0, len(others), step):
                part = others[first : first + step]
                rows = _finished(take(db, found[row, part]), config)
                scores = _scores(rows, self.queries[row], config)
                marks[row, part] = scores >= self.last[row]
        return marks


def draw_panels(
    db: NDArray[Any],
    config: IndexConfig,
    size: int,
    sample_queries: F32 | None,
    threads: int,
) -> list[Panel]:
    """Draw queries and find their exact neighbors.

    Costs about ``2 len(db) size d`` multiplications, twice that under the dot product.

    Parameters
    ----------
    db : array of shape (n, d)
        The database, at least two datapoints.
    config : IndexConfig
        The distance measure, the number of neighbors and the seed.
    size : int
        Queries in a panel, at most.
    sample_queries : float32 array of shape (m, d), optional
        Queries to measure with, in place of stand-ins unless they are few.
    threads : int
        The result does not depend on it.

    Returns
    -------
    list of Panel
        The index is to answer each of them well.
    """
    rng = np.random.default_rng([config.seed, 11])
    panels = []
    if sample_queries is not None:
        count = len(sample_queries)
        ids = np.sort(rng.choice(count, min(size, count), replace=False))
        panels.append(_unanswered("sample queries", 1.0, _finished(sample_queries[ids], config)))
    if sample_queries is None or len(sample_queries) < _FEW:
        ids = np.sort(rng.choice(len(db), min(size, len(db)), replace=False))
        panels.append(_stand_ins(db, ids, config))
    if sample_queries is None and config.distance_measure == DOT_PRODUCT:
        wide = _wide_queries(db, size, rng)
        panels.append(_unanswered(WIDE, _LENIENT, wide))
    return [_answer(panel, db, config, threads) for panel in panels]


def _unanswered(about: str, leniency: float, queries: F32) -> Panel:
    """Return a panel whose neighbors are not known yet."""
    count = len(queries)
    none = np.zeros(count, np.int64)
    return Panel(
        about, leniency, queries, none, none[:, None][:, :0], none.astype(np.bool_), np.zeros(count)
    )


def _stand_ins(db: NDArray[Any], ids: I64, config: IndexConfig) -> Panel:
    """Return datapoints as queries: these, but for those that have too many copies."""
    marks = marks_of(db)
    kinds, kind = np.unique(marks[ids], return_inverse=True)
    at = np.minimum(np.searchsorted(kinds, marks), len(kinds) - 1)
    copies = np.bincount(at[kinds[at] == marks], minlength=len(kinds))[kind.reshape(-1)]
    some = copies <= _MOST_COPIES
    if some.any():
        ids, copies = ids[some], copies[some]
    else:  # only each itself is left out
        marks, copies = np.arange(len(db), dtype=np.uint64), np.ones(len(ids), np.int64)
    panel = _unanswered("datapoints as queries", _TRAINED_ON, _finished(take(db, ids), config))
    return dataclasses.replace(panel, copies=copies, marks=marks, own=marks[ids])


def marks_of(db: NDArray[Any]) -> U64:
    """Return a number for each datapoint: the same where they are equal, and hardly ever else."""
    n, d = db.shape
    factors = 2 * np.random.default_rng(0).integers(1 << 63, size=d, dtype=np.uint64) + 1
    marks = np.empty(n, np.uint64)
    step = max(1, _MARKED_VALUES // d)
    for first in range(0, n, step):
        rows = slice_rows(db, first, min(n, first + step)) + np.float32(0.0)  # -0.0 is 0.0
        bits = np.ascontiguousarray(rows).view(np.uint32).astype(np.uint64)
        marks[first : first + len(rows)] = np.einsum("ij,j->i", bits, factors)
    return marks


def _wide_queries(db: NDArray[Any], size: int, rng: np.random.Generator) -> F32:
    """Half vary as the datapoints do about their mean, half point anywhere; of unit length."""
    n, d = db.shape
    half = size // 2
    mean = take(db, np.sort(rng.choice(n, min(n, _LENGTHS), replace=False))).mean(
        axis=0, dtype=np.float64
    )
    queries = rng.standard_normal((size, d))
    varied = np.zeros((half, d))
    for _ in range(_MIXED):
        rows = take(db, rng.integers(n, size=half)).astype(np.float64) - mean
        varied += rng.standard_normal((half, 1)) * rows
    # Datapoints that are all alike do not vary: their half points anywhere too.
    moved = np.einsum("ij,ij->i", varied, varied) > 0.0
    queries[:half][moved] = varied[moved]
    lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries))
    return np.ascontiguousarray(queries / lengths[:, None], np.float32)


def _finished(rows: F32, config: IndexConfig) -> F32:
    unit = normalizes(config.distance_measure)
    return np.ascontiguousarray(normalize_rows(rows) if unit else rows, np.float32)


def _scores(rows: F32, query: F32, config: IndexConfig) -> F64:
    """Return scores of rows, greater is better, from float64 sums in a fixed order."""
    wide = rows.astype(np.float64)
    if descending(config.distance_measure):
        return np.asarray(np.einsum("ij,j->i", wide, query.astype(np.float64)))
    wide -= query
    return np.asarray(-np.einsum("ij,ij->i", wide, wide))


def nearest_rows(
    queries: F32, rows: F32, count: int, distance_measure: DistanceMeasure, threads: int
) -> tuple[I64, F32]:
    """Return the places and the distances of the `count` nearest rows, or of all, exactly."""
    n, d = rows.shape
    k = min(count, n)
    index = PackedIndex(
        config=IndexConfig(num_neighbors=k, distance_measure=distance_measure),
        num_datapoints=n,
        dimension=d,
        leaf_starts=np.array([0, n], np.uint32),
        rows=rows.view(),  # an index makes its arrays read-only
    )
    places = np.empty((len(queries), k), np.int64)
    distances = np.empty(places.shape, np.float32)
    index.native.search(np.ascontiguousarray(queries), k, 1, threads, places, distances)
    return places, distances


def _without_almost(panel: Panel, ids: I64, scores: F32, config: IndexConfig) -> Panel:
    """Leave datapoints out of the answers of those that they are almost copies of.

    `ids` and `scores` (s, m) are of the best datapoints, each query's own among them.
    """
    if config.distance_measure == SQUARED_L2:
        squares = np.maximum(-scores.astype(np.float64), 0.0)
    else:  # cosine: what rounding alone makes of equal ones
        squares = np.maximum(2.0 - 2.0 * scores.astype(np.float64), _UNIT_NOISE)
    own = ~panel.others(ids)
    squares[own] = np.nan
    order = np.argsort(own, axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    squares = np.take_along_axis(squares, order, axis=1)
    counts = np.arange(1, min(_MOST_ALMOST + 1, squares.shape[1]))
    apart = squares[:, counts - 1] < _ALMOST**2 * squares[:, counts]
    sizes = (apart * counts).max(axis=1, initial=0)
    most = int(sizes.max(initial=0))
    almost = np.where(np.arange(most) < sizes[:, None], ids[:, :most], -1)
    return dataclasses.replace(panel, copies=panel.copies + sizes, almost=almost)


def _answer(panel: Panel, db: NDArray[Any], config: IndexConfig, threads: int) -> Panel:
    """Return the panel with the exact neighbors of its queries."""
    n, d = db.shape
    count = len(panel.queries)
    own = int(panel.copies.max())
    k = min(config.num_neighbors, n - min(own, 1))
    stands_in = panel.marks is not None and config.distance_measure != DOT_PRODUCT
    width = min(k + 1 + own + (_MOST_ALMOST if stands_in else 0), n)  # one more tells of ties
    sign = 1.0 if descending(config.distance_measure) else -1.0
    best_ids = np.empty((count, 0), np.int64)
    best = np.empty((count, 0), np.float32)
    step = max(1024, _CHUNK_VALUES // d)
    for first in range(0, n, step):
        rows = _finished(slice_rows(db, first, min(n, first + step)), config)
        ids, distances = nearest_rows(panel.queries, rows, width, config.distance_measure, threads)
        # Earlier datapoints come first where scores are equal.
        best_ids = np.concatenate([best_ids, ids + first], axis=1)
        best = np.concatenate([best, sign * distances], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :width]
        best_ids = np.take_along_axis(best_ids, order, axis=1)
        best = np.take_along_axis(best, order, axis=1)
    if stands_in:
        panel = _without_almost(panel, best_ids, best, config)
    kept = panel.without_own(best_ids, k + 1)
    neighbors = np.ascontiguousarray(kept[:, :k])
    tied = np.zeros(count, np.bool_)
    last = np.zeros(count)
    for row in range(count):
        pair = kept[row, k - 1 :]
        pair = pair[pair >= 0]
        if len(pair) == 0:  # fewer than k datapoints are left
            continue
        scores = _scores(_finished(take(db, pair), config), panel.queries[row], config)
        last[row] = scores[0] - _TOLERANCE * abs(scores[0])
        tied[row] = len(scores) > 1 and scores[1] >= last[row]
    return dataclasses.replace(panel, neighbors=neighbors, tied=tied, last=last)

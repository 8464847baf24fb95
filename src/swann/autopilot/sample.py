"""Queries to measure with, and their exact neighbors.

Nobody knows the queries when an index is built. Datapoints can stand in for them, each left out of
its own answer: on data of one kind (word vectors, pictures) they are as hard to answer as real
queries, within .005 of recall. Those of which there are copies say nothing: the nearest datapoint
lies in their own leaf. Where most are such, queries vary as the datapoints do instead.

Under the dot product queries are often of another kind than datapoints, and harder: users and what
they may buy, hidden states and output embeddings. There the index must also answer a *wide* panel:
half of its queries vary as the datapoints do, half point anywhere.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann.config import IndexConfig
from swann.distance import DOT_PRODUCT, descending, normalize_rows, normalizes
from swann.index.packed import PackedIndex
from swann.vectors import slice_rows, take

__all__ = ["FEWEST_QUERIES", "Panel", "draw_panels", "row_length"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

FEWEST_QUERIES = 48
"""A panel of fewer says too little."""

_LENGTHS = 4096
_MIXED = 32  # datapoints in a query that varies as they do
_TRAINED_ON = 0.75
"""Leniency of datapoints as queries: the tree was trained on them, and they miss less than queries
from outside do (fashion-mnist: .042 where those miss .051)."""
_WIDE = 1.5  # real queries are easier than those that point anywhere
_CHUNK_VALUES = 4 * 1024 * 1024
_TOLERANCE = 1e-6  # of scores that count as equal, relative
_COPY = 1e-10  # squared distance of what counts as a copy, relative


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
    own : int64 array of shape (s,)
        The datapoint that each query is, which is left out of its answer; -1: none.
    neighbors : int64 array of shape (s, k)
        The best datapoints, best first.
    tied : bool array of shape (s,)
        Whether another datapoint is as good as the last of the neighbors.
    last : float64 array of shape (s,)
        The score of the last neighbor, as `_scores` computes it.
    """

    about: str
    leniency: float
    queries: F32
    own: I64
    neighbors: I64
    tied: NDArray[np.bool_]
    last: F64

    def part(self, which: slice | NDArray[np.bool_]) -> Panel:
        """Return the panel of some of the queries."""
        return dataclasses.replace(
            self,
            queries=self.queries[which],
            own=self.own[which],
            neighbors=self.neighbors[which],
            tied=self.tied[which],
            last=self.last[which],
        )

    def without_own(self, found: I64, width: int) -> I64:
        """Return ids (s, m) without each query's own, in their order, cut to `width` columns.

        What is missing is -1.
        """
        kept = found != self.own[:, None]
        order = np.argsort(~kept, axis=1, kind="stable")
        ids = np.take_along_axis(np.where(kept, found, -1), order, axis=1)[:, :width]
        return np.ascontiguousarray(ids)

    def good(self, found: I64, db: NDArray[Any], config: IndexConfig) -> NDArray[np.bool_]:
        """Return which of the ids (s, m), each query's all different, are as good as neighbors."""
        # One key for each pair of query and id, so that one set operation answers for all.
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


class _Draw(NamedTuple):
    about: str
    leniency: float
    queries: F32
    own: I64 | None = None  # the datapoints that they are


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
        Queries to measure with in place of stand-ins.
    threads : int
        The result does not depend on it.

    Returns
    -------
    list of Panel
        The index is to answer each of them well.
    """
    rng = np.random.default_rng([config.seed, 11])
    if sample_queries is not None:
        count = len(sample_queries)
        ids = np.sort(rng.choice(count, min(size, count), replace=False))
        queries = _finished(sample_queries[ids], config)
        return [_solve(_Draw("sample queries", 1.0, queries), db, config, threads)]
    ids = np.sort(rng.choice(len(db), min(size, len(db)), replace=False)).astype(np.int64)
    queries = _finished(take(db, ids), config)
    draw = _Draw("datapoints as queries", _TRAINED_ON, queries, ids)
    panel = _solve(draw, db, config, threads)
    copied = _have_copies(panel, db, config)
    panel = panel.part(~copied)
    if copied.any() and len(panel.queries) < FEWEST_QUERIES:
        mean = _mean(db, config, rng)
        varied = mean + _varied(db, config, mean, size, rng) / np.sqrt(_MIXED)
        varied[~varied.any(axis=1)] = queries[0]
        draw = _Draw("queries that vary as datapoints do", 1.0, _finished(varied, config))
        panel = _solve(draw, db, config, threads)
    panels = [panel]
    if config.distance_measure == DOT_PRODUCT:
        wide = _wide_queries(db, config, size, rng)
        draw = _Draw("queries of any kind", _WIDE, wide)
        panels.append(_solve(draw, db, config, threads))
    return panels


def _have_copies(panel: Panel, db: NDArray[Any], config: IndexConfig) -> NDArray[np.bool_]:
    """Return which queries are datapoints that the database has more than once."""
    copies = np.zeros(len(panel.queries), np.bool_)
    for row, query in enumerate(panel.queries):
        near = panel.neighbors[row]
        apart = _finished(take(db, near[near >= 0]), config).astype(np.float64) - query
        least = _COPY * float(np.dot(query, query.astype(np.float64)))
        copies[row] = bool((np.einsum("ij,ij->i", apart, apart) <= least).any())
    return copies


def _mean(db: NDArray[Any], config: IndexConfig, rng: np.random.Generator) -> F64:
    """Return the mean of a sample of rows."""
    ids = np.sort(rng.choice(len(db), min(len(db), _LENGTHS), replace=False))
    return np.asarray(_finished(take(db, ids), config).mean(axis=0, dtype=np.float64))


def _varied(
    db: NDArray[Any], config: IndexConfig, mean: F64, count: int, rng: np.random.Generator
) -> F64:
    """Return vectors that vary as datapoints do about their mean, `_MIXED` times the variance."""
    varied = np.zeros((count, db.shape[1]))
    for _ in range(_MIXED):
        rows = _finished(take(db, rng.integers(len(db), size=count)), config)
        varied += rng.standard_normal((count, 1)) * (rows.astype(np.float64) - mean)
    return varied


def _wide_queries(
    db: NDArray[Any], config: IndexConfig, size: int, rng: np.random.Generator
) -> F32:
    """Half vary as the datapoints do about their mean, half point anywhere; of unit length."""
    half = size // 2
    mean = _mean(db, config, rng)
    queries = rng.standard_normal((size, db.shape[1]))
    varied = _varied(db, config, mean, half, rng)
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


def _solve(draw: _Draw, db: NDArray[Any], config: IndexConfig, threads: int) -> Panel:
    n, d = db.shape
    count = len(draw.queries)
    own = draw.own is not None
    k = min(config.num_neighbors, n - own)
    width = min(k + 1 + own, n)  # one more tells of ties
    sign = 1.0 if descending(config.distance_measure) else -1.0
    exact = IndexConfig(num_neighbors=width, distance_measure=config.distance_measure)
    best_ids = np.empty((count, 0), np.int64)
    best = np.empty((count, 0), np.float32)
    step = max(1024, _CHUNK_VALUES // d)
    for first in range(0, n, step):
        rows = _finished(slice_rows(db, first, min(n, first + step)), config)
        part = PackedIndex(
            config=exact,
            num_datapoints=len(rows),
            dimension=d,
            leaf_starts=np.array([0, len(rows)], np.uint32),
            rows=rows.view(),  # an index makes its arrays read-only
        )
        wanted = min(width, len(rows))
        ids = np.empty((count, wanted), np.int64)
        distances = np.empty((count, wanted), np.float32)
        part.native.search(draw.queries, wanted, 1, threads, ids, distances)
        # Earlier datapoints come first where scores are equal.
        best_ids = np.concatenate([best_ids, ids + first], axis=1)
        best = np.concatenate([best, sign * distances], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :width]
        best_ids = np.take_along_axis(best_ids, order, axis=1)
        best = np.take_along_axis(best, order, axis=1)
    panel = Panel(
        draw.about,
        draw.leniency,
        draw.queries,
        np.full(count, -1) if draw.own is None else draw.own,
        best_ids[:, :0],
        np.zeros(count, np.bool_),
        np.zeros(count),
    )
    kept = panel.without_own(best_ids, k + 1)
    neighbors = np.ascontiguousarray(kept[:, :k])
    tied = np.zeros(count, np.bool_)
    last = np.zeros(count)
    for row in range(count):
        pair = kept[row, k - 1 :]
        pair = pair[pair >= 0]
        scores = _scores(_finished(take(db, pair), config), draw.queries[row], config)
        last[row] = scores[0] - _TOLERANCE * abs(scores[0])
        tied[row] = len(scores) > 1 and scores[1] >= last[row]
    return dataclasses.replace(panel, neighbors=neighbors, tied=tied, last=last)

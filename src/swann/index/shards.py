"""Parts of an index that are searched apart, as one.

A *shard* owns whole leaves of an index. It is an index of its own with all of the centroids, whose
other leaves are empty; its `ids` are those of the whole. The *head* owns no leaf: it chooses leaves
for a query. Where datapoints have two leaves that belong to different shards, both have their row.

::

    head.choose(queries)  -> Choices      leaves of each query, with their scores
    shard.gather(choices) -> Found        candidates of the leaves that the shard owns
    merge(found)          -> ids, distances

Candidates carry two keys: (approximate score, entry of the whole index), by which the best are
kept, and (exact score, number), by which they are ranked. Whoever is among the best of the whole
is among the best of its shard, so answers are those of the whole index, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.index.packed import PackedIndex
from swann.vectors import bad_query

__all__ = ["Choices", "Found", "Head", "Shard", "merge"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]


class Choices(NamedTuple):
    """Leaves that queries visit.

    Attributes
    ----------
    leaves : uint32 array of shape (num_queries, leaves_to_search)
    scores : float32 array of the same shape
        Of their centroids.
    """

    leaves: U32
    scores: F32

    def of(self, queries: NDArray[np.integer[Any]]) -> Choices:
        """Return those of some queries."""
        return Choices(self.leaves[queries], self.scores[queries])


class Found(NamedTuple):
    """Candidates that a shard found for queries, in any order, ended by keys of 0.

    Attributes
    ----------
    first : uint64 array of shape (num_queries, width)
        What candidates are kept by: score, and entry of the whole index.
    last : uint64 array of the same shape
        What they are ranked by: exact score, and number of the datapoint.
    distances : float32 array of the same shape
    """

    first: U64
    last: U64
    distances: F32


class Head:
    """Chooses leaves.

    Parameters
    ----------
    packed : PackedIndex
        Any part of the index, or the whole; the smallest is what `take_leaves` makes of no leaf.
    """

    def __init__(self, packed: PackedIndex) -> None:
        self.packed = packed

    def choose(self, queries: F32, leaves: int, threads: int = 1) -> Choices:
        """Return the best leaves of queries, at most as many as there are.

        Parameters
        ----------
        queries : float32 array of shape (num_queries, d)
            As `swann.vectors.as_queries` returns them.
        leaves : int
            Leaves to visit.

        Raises
        ------
        NonFiniteError, InvalidInputError
            If a query holds a NaN or an infinity, or is longer than 1e18.
        ZeroVectorError
            If a query is all zeros under cosine.
        """
        shape = len(queries), min(leaves, self.packed.num_leaves)
        chosen = Choices(np.empty(shape, np.uint32), np.empty(shape, np.float32))
        bad = self.packed.native.choose(queries, threads, *chosen)
        if bad != len(queries):
            raise bad_query(queries, "queries", bad)
        return chosen


class Shard:
    """The leaves of an index that lie together.

    Parameters
    ----------
    packed : PackedIndex
        What `take_leaves` made of them.
    whole_starts : uint32 array of shape (num_leaves + 1,)
        `leaf_starts` of the whole index.
    """

    def __init__(self, packed: PackedIndex, whole_starts: U32) -> None:
        self.packed = packed
        self.whole_starts = np.ascontiguousarray(whole_starts)

    def gather(
        self, queries: F32, choices: Choices, k: int, candidates: int, threads: int = 1
    ) -> Found:
        """Find candidates in the leaves that are here.

        Parameters
        ----------
        queries : float32 array of shape (num_queries, d)
            They passed `Head.choose`.
        choices : Choices
            Of these queries, complete: scores are rounded by the greatest that any leaf has.
        k, candidates : int
            As `Searcher.search` resolves them.

        Returns
        -------
        Found
            As wide as there are candidates here, or as are asked for.
        """
        native = self.packed.native
        here = max(1, int(self.packed.leaf_starts[-1]))
        if native.changed():
            here = max(1, 2 * native.num_rows())
        shape = len(queries), min(native.kept(k, candidates), here)
        found = Found(
            np.empty(shape, np.uint64), np.empty(shape, np.uint64), np.empty(shape, np.float32)
        )
        leaves, scores = map(np.ascontiguousarray, choices)
        bad = native.gather(queries, leaves, scores, threads, self.whole_starts, *found)
        if bad != len(queries):
            raise bad_query(queries, "queries", bad)
        return found


def merge(
    packed: PackedIndex,
    parts: Sequence[tuple[U32, Found]],
    num_queries: int,
    k: int,
    candidates: int,
    threads: int = 1,
) -> tuple[NDArray[np.int64], F32]:
    """Put together what shards found.

    Parameters
    ----------
    packed : PackedIndex
        Any part of the index.
    parts : sequence of (uint32 array of shape (m,), Found)
        Which queries a shard was asked, and what it found for them.
    num_queries, k, candidates : int
        As `Searcher.search` resolves them.

    Returns
    -------
    tuple of (int64, float32 arrays of shape (num_queries, k))
        Numbers and distances, best first, ended by -1 and NaN.
    """
    ids = np.empty((num_queries, k), np.int64)
    distances = np.empty((num_queries, k), np.float32)
    kernels.merge(
        [(queries, *found) for queries, found in parts],
        packed.native.kept(k, candidates),
        ids,
        distances,
        threads,
    )
    return ids, distances

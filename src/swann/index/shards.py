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

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.errors import InvalidInputError
from swann.index.packed import PackedIndex
from swann.kernels import GROUP
from swann.vectors import bad_query

__all__ = [
    "OF_LEAVES",
    "Choices",
    "Found",
    "Head",
    "Shard",
    "join",
    "merge",
    "spread_leaves",
    "take_leaves",
]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

_ROUNDS = 4  # of moving the line that cuts leaves in two
_BY_ROW = ("rows", "rows_bf16", "rows_i8", "row_scales", "row_squares")

OF_LEAVES = frozenset({"leaf_starts", "ids", "entry_rows", "codes", "corrections", *_BY_ROW})
"""Arrays that each shard has of its own; it shares the others with the whole."""


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


# ---- Which leaves lie together


def spread_leaves(centroids: F32 | None, sizes: NDArray[np.integer[Any]], num_shards: int) -> U32:
    """Spread leaves over shards of about the same size, so that near leaves lie together.

    The leaves are cut in two by a plane between them, again and again.

    Parameters
    ----------
    centroids : float32 array of shape (num_leaves, d), or None
        None: there is one leaf.
    sizes : integer array of shape (num_leaves,)
        Entries of each leaf.
    num_shards : int
        How many shards, each of which gets a leaf at least.

    Returns
    -------
    uint32 array of shape (num_leaves,)
        The shard that owns each leaf.

    Raises
    ------
    InvalidInputError
        If there are fewer leaves than shards.
    """
    if not 1 <= num_shards <= len(sizes):
        raise InvalidInputError(
            f"num_shards is {num_shards}; expected 1 to {len(sizes)}, the number of leaves, of "
            "which a shard owns whole ones"
        )
    owners = np.zeros(len(sizes), np.uint32)
    weights = np.asarray(sizes, np.float64) + 1e-3
    todo = [(np.arange(len(sizes)), 0, num_shards)]
    while todo:
        leaves, first, count = todo.pop()
        if count == 1:
            owners[leaves] = first
            continue
        assert centroids is not None  # else there was one leaf
        left = count // 2
        order, cut = _cut(centroids[leaves], weights[leaves], left / count)
        cut = min(max(cut, left), len(leaves) - (count - left))
        todo.append((np.sort(leaves[order[:cut]]), first, left))
        todo.append((np.sort(leaves[order[cut:]]), first + left, count - left))
    return owners


def _cut(centroids: F32, weights: NDArray[np.float64], share: float) -> tuple[Any, int]:
    """Order centroids along a line, and return how many make up a share of the weight."""
    points = centroids.astype(np.float64)

    def far_from(place: NDArray[np.float64]) -> NDArray[np.float64]:
        # No matrix product: its bits would depend on the number of threads.
        farthest = int(np.argmax(((points - place) ** 2).sum(axis=1)))
        return np.asarray(points[farthest])

    pole = far_from(np.average(points, axis=0, weights=weights))
    line = far_from(pole) - pole
    for _ in range(_ROUNDS):
        order = np.argsort((points * line).sum(axis=1), kind="stable")
        passed = np.cumsum(weights[order])
        cut = int(np.searchsorted(passed, share * passed[-1])) + 1
        below, above = order[:cut], order[cut:]
        if len(above) == 0:
            break
        ends = [np.average(points[s], axis=0, weights=weights[s]) for s in (below, above)]
        line = ends[1] - ends[0]
    return order, cut


# ---- Taking apart and putting together


def take_leaves(packed: PackedIndex, owned: NDArray[np.bool_]) -> PackedIndex:
    """Return an index of some of the leaves; the others are empty.

    Parameters
    ----------
    packed : PackedIndex
        Without changes that are not folded in.
    owned : bool array of shape (num_leaves,)
        None at all makes a head.
    """
    starts = packed.leaf_starts.astype(np.int64)
    sizes = np.diff(starts)
    entries = _runs(starts[:-1][owned], sizes[owned])
    parts: dict[str, Any] = {"leaf_starts": _starts(np.where(owned, sizes, 0)).astype(np.uint32)}
    rows = entries
    if packed.entry_rows is not None:
        rows, places = np.unique(packed.entry_rows[entries], return_inverse=True)
        parts["entry_rows"] = places.reshape(-1).astype(np.uint32)
    parts["ids"] = packed.numbers()[rows].astype(np.uint32)
    for name in _BY_ROW:
        array = getattr(packed, name)
        parts[name] = None if array is None else array[rows]
    counts = -(-sizes // GROUP)
    groups = _runs(_starts(counts)[:-1][owned], counts[owned])
    if packed.codes is not None:
        parts["codes"] = packed.codes[groups]
    if packed.corrections is not None:
        parts["corrections"] = packed.corrections.reshape(-1, GROUP)[groups].reshape(-1)
    return dataclasses.replace(packed, num_datapoints=len(rows), **parts)


def join(parts: Sequence[PackedIndex], owners: U32) -> PackedIndex:
    """Return the index whose shards these are. It is made in memory.

    Parameters
    ----------
    parts : sequence of PackedIndex
        What `take_leaves` made.
    owners : uint32 array of shape (num_leaves,)
        Which of them has each leaf.
    """
    first = parts[0]
    owned_starts = [part.leaf_starts.astype(np.int64) for part in parts]
    sizes = np.zeros(first.num_leaves, np.int64)
    for number, starts in enumerate(owned_starts):
        sizes[owners == number] = np.diff(starts)[owners == number]
    whole_starts, groups = _starts(sizes), _starts(-(-sizes // GROUP))
    ids = np.empty(whole_starts[-1], np.int64)  # of entries
    made: dict[str, Any] = {"leaf_starts": whole_starts.astype(np.uint32)}
    if first.codes is not None:
        made["codes"] = np.empty((groups[-1], *first.codes.shape[1:]), np.uint8)
    if first.corrections is not None:
        made["corrections"] = np.empty(groups[-1] * GROUP, np.uint16)
    for number, part in enumerate(parts):
        owned = owners == number
        entries = _runs(owned_starts[number][:-1][owned], sizes[owned])
        here = entries if part.entry_rows is None else part.entry_rows[entries]
        ids[_runs(whole_starts[:-1][owned], sizes[owned])] = part.numbers()[here]
        counts = -(-np.diff(owned_starts[number]) // GROUP)
        from_groups = _runs(_starts(counts)[:-1][owned], counts[owned])
        to_groups = _runs(groups[:-1][owned], np.diff(groups)[owned])
        if part.codes is not None:
            made["codes"][to_groups] = part.codes[from_groups]
        if part.corrections is not None:
            blocks = part.corrections.reshape(-1, GROUP)
            made["corrections"].reshape(-1, GROUP)[to_groups] = blocks[from_groups]
    # A datapoint's row is where its first entry is.
    numbers, firsts, places = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(firsts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    if first.entry_rows is not None:
        made["entry_rows"] = rank[places.reshape(-1)].astype(np.uint32)
    made["ids"] = numbers[order].astype(np.uint32)
    for name in _BY_ROW:
        array = getattr(first, name)
        if array is None:
            continue
        made[name] = np.empty((len(numbers), *array.shape[1:]), array.dtype)
        for part in parts:
            made[name][rank[np.searchsorted(numbers, part.numbers())]] = getattr(part, name)
    if first.config.tree is None and np.array_equal(made["ids"], np.arange(len(numbers))):
        made["ids"] = None
    return dataclasses.replace(first, num_datapoints=len(numbers), **made)


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _runs(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of all runs, one run after the other."""
    total = int(sizes.sum())
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(total)

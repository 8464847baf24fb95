"""Leaves of an index, spread over shards, taken apart and put together again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.errors import InvalidInputError
from swann.index.packed import PackedIndex
from swann.kernels import GROUP

__all__ = ["LARGE", "LeafParts", "join", "spread_leaves", "take_leaves"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

_ROUNDS = 4  # of moving the line that cuts leaves in two
_PIECE_BYTES = 1 << 24
_BY_ROW = ("rows", "rows_bf16", "rows_i8", "row_scales", "row_squares", "row_labels")
_BY_GROUP = ("codes", "corrections")

LARGE = (*_BY_ROW, *_BY_GROUP)
"""Arrays of an index that grow with the bytes of its datapoints."""


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


class LeafParts:
    """Where everything of some leaves lies in an index.

    Parameters
    ----------
    packed : PackedIndex
        Without changes that are not folded in; its arrays may be mapped.
    owned : bool array of shape (num_leaves,)
        Which leaves.

    Attributes
    ----------
    small : dict of str to array
        `leaf_starts`, `ids` and `entry_rows` of these leaves alone.
    """

    def __init__(self, packed: PackedIndex, owned: NDArray[np.bool_]) -> None:
        self._packed = packed
        starts = packed.leaf_starts.astype(np.int64)
        sizes = np.diff(starts)
        self.small: dict[str, NDArray[Any]] = {
            "leaf_starts": _starts(np.where(owned, sizes, 0)).astype(np.uint32)
        }
        self._rows = _runs(starts[:-1][owned], sizes[owned])  # of entries, until
        if packed.entry_rows is not None:
            self._rows, places = np.unique(packed.entry_rows[self._rows], return_inverse=True)
            self.small["entry_rows"] = places.reshape(-1).astype(np.uint32)
        self.small["ids"] = packed.numbers()[self._rows].astype(np.uint32)
        counts = -(-sizes // GROUP)
        self._groups = _runs(_starts(counts)[:-1][owned], counts[owned])

    @property
    def num_rows(self) -> int:
        """Datapoints with an entry in these leaves."""
        return len(self._rows)

    def large(self) -> dict[str, tuple[int, ...]]:
        """Return the other arrays that are of leaves, and their shapes."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name in LARGE:
            array = getattr(self._packed, name)
            if array is not None:
                length = GROUP * len(self._groups) if name == "corrections" else self._len(name)
                shapes[name] = (length, *array.shape[1:])
        return shapes

    def pieces(self, name: str, most_bytes: int) -> Iterator[NDArray[Any]]:
        """Walk through one of these arrays in pieces of about so many bytes."""
        array = getattr(self._packed, name)
        if name == "corrections":
            array = array.reshape(-1, GROUP)
        places = self._groups if name in _BY_GROUP else self._rows
        width = array.itemsize * math.prod(array.shape[1:])
        step = max(1, most_bytes // max(1, width))
        for first in range(0, len(places), step):
            piece = array[places[first : first + step]]
            yield piece.reshape(-1) if name == "corrections" else piece

    def _len(self, name: str) -> int:
        return len(self._groups) if name in _BY_GROUP else len(self._rows)


def take_leaves(packed: PackedIndex, owned: NDArray[np.bool_]) -> PackedIndex:
    """Return an index of some of the leaves; the others are empty.

    Parameters
    ----------
    packed : PackedIndex
        Without changes that are not folded in.
    owned : bool array of shape (num_leaves,)
        None at all makes a head.
    """
    parts = LeafParts(packed, owned)
    made: dict[str, Any] = dict(parts.small)
    for name, shape in parts.large().items():
        made[name] = np.empty(shape, getattr(packed, name).dtype)
        first = 0
        for piece in parts.pieces(name, _PIECE_BYTES):
            made[name][first : first + len(piece)] = piece
            first += len(piece)
    return dataclasses.replace(packed, num_datapoints=parts.num_rows, **made)


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

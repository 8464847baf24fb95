"""Keeping a tree in shape while it is updated: leaves split as they grow, merge as they empty."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from swann.index import updates
from swann.index.packed import PackedIndex
from swann.index.routes import build_routes
from swann.partition import tree
from swann.quantize.metric import map_rows, unmap_rows

__all__ = ["reshape"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]

_LARGE, _SMALL = 1.75, 0.125
"""Leaves beyond these multiples of the usual size are split, or merged into others."""

_TOGETHER = 8
"""Leaves that are trained anew together: one that is too large, and those nearest to it."""

_AROUND = 16
"""Leaves around each new centroid whose datapoints it may draw to itself."""

_CHUNK_VALUES = 4 * 1024 * 1024


def reshape(packed: PackedIndex, threads: int) -> PackedIndex | None:
    """Split leaves that are too large, and give the datapoints of tiny ones to others.

    The usual size grows with the square root of the number of datapoints, as does the number of
    leaves. Datapoints of changed leaves are assigned and encoded anew, and so are those of the
    leaves around a split one that are nearer to one of its new centroids; all others stay as they
    are.

    Parameters
    ----------
    packed : PackedIndex
        With its changes and a tree; it stays as it is.
    threads : int
        The result does not depend on it.

    Returns
    -------
    PackedIndex or None
        None where every leaf is of a fit size, or a datapoint that is kept as a code cannot be
        encoded anew.
    """
    config = packed.config.tree
    assert config is not None
    assert packed.centroids is not None
    native = updates.begin(packed)
    starts = np.empty_like(packed.leaf_starts)
    count = native.fold_starts(None, starts)
    sizes = np.diff(starts.astype(np.float64))
    usual = _usual_size(count, config.num_leaves, float(starts[-1]) / max(1, count))
    large = sizes > _LARGE * usual
    small = sizes < _SMALL * usual
    if small.all():
        small[sizes.argmax()] = False
    if not large.any() and not (small.any() and len(sizes) > 1):
        return None

    groups = _groups(packed.centroids, sizes, large, small)
    changed = small.copy()
    changed[[leaf for group in groups for leaf in group]] = True
    kept = packed.centroids[~changed]
    split = [
        _split(_leaf_vectors(packed, group), packed, usual, group, threads) for group in groups
    ]
    centroids = np.concatenate([kept, *(new for new, _ in split)])
    spreads = None
    if packed.spreads is not None:
        spreads = np.concatenate([packed.spreads[~changed], *(reach for _, reach in split)])
    skip = _rows_of(packed, changed)
    if large.any():
        near = np.zeros(len(sizes), np.bool_)
        near[np.flatnonzero(~changed)[_nearest(kept, centroids[len(kept) :])]] = True
        _mark_drawn(packed, _rows_of(packed, near), centroids, len(kept), skip, threads)
    numbers = np.empty(len(skip), np.uint32)
    native.numbers(numbers)
    moved = np.flatnonzero(skip).astype(np.uint32)
    made = _with_leaves(updates.folded(packed, skip), ~changed, centroids, spreads, threads)
    target = updates.begin(made)
    for part, vectors in _vectors(packed, moved):
        scales, labels = np.empty(len(part), np.float32), np.empty(len(part), np.uint8)
        native.kept_as(part, scales, labels)
        if target.upsert(vectors, numbers[part], threads, scales, labels) < len(part):
            return None  # what codes stand for may be too long
    return made


def _usual_size(count: int, leaves: int, entries_each: float) -> float:
    """Return what a leaf holds where leaves are many enough for `count` datapoints.

    An index that has kept the number of leaves it was given has the mean size; one that has
    outgrown it has sqrt(n) leaves of sqrt(n) datapoints at least.
    """
    fit = max(leaves, round(math.sqrt(count)))
    return max(1.0, count * entries_each / fit)


def _groups(
    centroids: F32, sizes: F64, large: NDArray[np.bool_], small: NDArray[np.bool_]
) -> list[list[int]]:
    """Give each leaf that is too large the nearest leaves, to be trained together with it."""
    free = ~small
    groups = []
    for leaf in np.argsort(-sizes, kind="stable")[: int(large.sum())].tolist():
        if not free[leaf]:
            continue
        free[leaf] = False
        distances = ((centroids - centroids[leaf]) ** 2).sum(axis=1)
        around = np.argsort(np.where(free, distances, np.inf), kind="stable")
        group = [leaf, *around[: min(_TOGETHER - 1, int(free.sum()))].tolist()]
        free[group] = False
        groups.append(group)
    return groups


def _rows_of(packed: PackedIndex, leaves: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Mark the rows that lie in some leaves."""
    rows = np.zeros(packed.native.num_rows(), np.uint8)
    packed.native.mark_rows(leaves.astype(np.uint8), rows)
    return rows


def _vectors(packed: PackedIndex, rows: U32) -> Iterator[tuple[U32, F32]]:
    step = max(1, _CHUNK_VALUES // packed.dimension)
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        vectors = np.empty((len(part), packed.dimension), np.float32)
        packed.native.vectors(part, vectors)
        yield part, vectors


def _leaf_vectors(packed: PackedIndex, leaves: list[int]) -> F32:
    members = np.flatnonzero(_rows_of(packed, np.isin(np.arange(packed.num_leaves), leaves)))
    vectors = np.empty((len(members), packed.dimension), np.float32)
    packed.native.vectors(members.astype(np.uint32), vectors)
    return vectors


def _nearest(kept: F32, new: F32) -> NDArray[np.intp]:
    """Return which of the centroids kept are among the nearest of a new one."""
    squares = np.einsum("ij,ij->i", kept, kept)
    order = np.argsort(squares - 2.0 * new @ kept.T, axis=1, kind="stable")
    return np.unique(order[:, :_AROUND])


def _mark_drawn(
    packed: PackedIndex,
    rows: NDArray[np.uint8],
    centroids: F32,
    first_new: int,
    skip: NDArray[np.uint8],
    threads: int,
) -> None:
    """Mark those of the rows that belong to one of the new centroids."""
    assert packed.config.tree is not None
    mapped = map_rows(centroids, packed.tree_map, threads)
    for part, vectors in _vectors(packed, np.flatnonzero(rows).astype(np.uint32)):
        reduced = map_rows(packed.reduce(vectors, threads), packed.tree_map, threads)
        labels, _ = tree.assign_rows(reduced, mapped, packed.config.tree.avq, threads)
        skip[part[labels >= first_new]] = 1


def _split(
    vectors: F32, packed: PackedIndex, usual: float, group: list[int], threads: int
) -> tuple[F32, F32]:
    """Return the centroids that take the place of a group, and how far their leaves reach."""
    config = packed.config.tree
    assert config is not None
    reduced = packed.reduce(vectors, threads)
    rows = map_rows(reduced, packed.tree_map, threads)
    parts = min(len(rows), max(len(group) + 1, round(len(rows) / usual)))
    settings = dataclasses.replace(config, num_leaves=parts, num_leaves_to_search=1, upper=None)
    centroids = tree.train_tree(
        rows,
        settings,
        rng=np.random.default_rng([packed.config.seed, 3, group[0], len(rows)]),
        threads=threads,
    )
    norms, reduced_norms, mapped_norms = (
        np.asarray(np.linalg.norm(part.astype(np.float64), axis=1), np.float32)
        for part in (vectors, reduced, rows)
    )
    if config.spherical and config.avq is None:
        longest = max(float(norms.max()), float(mapped_norms.max()))
        centroids = tree.to_means([(0, rows)], centroids, longest, len(rows), threads)
    labels, scores = tree.assign_rows(rows, centroids, config.avq, threads)
    distances = tree.leaf_distances(labels, scores, mapped_norms, len(centroids))
    hidden = tree.left_out(norms, reduced_norms, packed.dimension, packed.reduced_dim)
    spreads = tree.leaf_spreads(distances, packed.reduced_dim, config.avq, hidden)
    return unmap_rows(centroids, packed.tree_map, threads), spreads


def _with_leaves(
    packed: PackedIndex,
    stay: NDArray[np.bool_],
    centroids: F32,
    spreads: F32 | None,
    threads: int,
) -> PackedIndex:
    """Take the leaves that do not stay, which are empty, out of the tree; append empty new ones."""
    starts = packed.leaf_starts[:-1][stay]
    end = packed.leaf_starts[-1]
    new = np.full(len(centroids) + 1 - len(starts), end, np.uint32)
    return dataclasses.replace(
        packed,
        leaf_starts=np.concatenate([starts, new]).astype(np.uint32),
        centroids=np.ascontiguousarray(centroids),
        spreads=spreads,
        routes=build_routes(packed.config, centroids, threads),
    )

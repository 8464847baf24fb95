"""Keeping a tree in shape while it is updated: leaves split as they grow, merge as they empty."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from swann.index import updates
from swann.index.packed import PackedIndex
from swann.index.routes import build_routes
from swann.partition import tree

__all__ = ["reshape"]

F32 = NDArray[np.float32]

_LARGE, _SMALL = 2.5, 0.125
"""Leaves beyond these multiples of the usual size are split, or merged into others."""

_CHUNK_VALUES = 4 * 1024 * 1024


def reshape(packed: PackedIndex, threads: int) -> PackedIndex | None:
    """Split leaves that are too large, and give the datapoints of tiny ones to others.

    The usual size grows with the square root of the number of datapoints, as does the number of
    leaves. Datapoints of changed leaves are assigned and encoded anew; all others stay as they are.

    Parameters
    ----------
    packed : PackedIndex
        With its changes and a tree; it stays as it is.
    threads : int
        The result does not depend on it.

    Returns
    -------
    PackedIndex or None
        None where every leaf is of a fit size.
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

    skip = np.zeros(native.num_rows(), np.uint8)
    native.mark_rows((large | small).astype(np.uint8), skip)
    numbers = np.empty(len(skip), np.uint32)
    native.numbers(numbers)
    moved = np.flatnonzero(skip).astype(np.uint32)

    kept = packed.centroids[~(large | small)]
    split = [
        _split(packed.reduce(_leaf_vectors(packed, leaf), threads), packed, usual, leaf, threads)
        for leaf in np.flatnonzero(large).tolist()
    ]
    centroids = np.concatenate([kept, *(new for new, _ in split)])
    spreads = None
    if packed.spreads is not None:
        spreads = np.concatenate([packed.spreads[~(large | small)], *(reach for _, reach in split)])
    made = _with_leaves(updates.folded(packed, skip), ~(large | small), centroids, spreads, threads)
    target = updates.begin(made)
    step = max(1, _CHUNK_VALUES // packed.dimension)
    for first in range(0, len(moved), step):
        part = moved[first : first + step]
        vectors = np.empty((len(part), packed.dimension), np.float32)
        native.vectors(part, vectors)
        target.upsert(vectors, numbers[part], threads)
    return made


def _usual_size(count: int, leaves: int, entries_each: float) -> float:
    """Return what a leaf holds where leaves are many enough for `count` datapoints.

    An index that has kept the number of leaves it was given has the mean size; one that has
    outgrown it has sqrt(n) leaves of sqrt(n) datapoints at least.
    """
    fit = max(leaves, round(math.sqrt(count)))
    return max(1.0, count * entries_each / fit)


def _leaf_vectors(packed: PackedIndex, leaf: int) -> F32:
    native = packed.native
    marks = np.zeros(packed.num_leaves, np.uint8)
    marks[leaf] = 1
    rows = np.zeros(native.num_rows(), np.uint8)
    native.mark_rows(marks, rows)
    members = np.flatnonzero(rows).astype(np.uint32)
    vectors = np.empty((len(members), packed.dimension), np.float32)
    native.vectors(members, vectors)
    return vectors


def _split(
    vectors: F32, packed: PackedIndex, usual: float, leaf: int, threads: int
) -> tuple[F32, F32]:
    """Return the centroids that take the place of one, and how far their leaves reach."""
    config = packed.config.tree
    assert config is not None
    parts = min(len(vectors), max(2, round(len(vectors) / usual)))
    settings = dataclasses.replace(config, num_leaves=parts, num_leaves_to_search=1, upper=None)
    centroids = tree.train_tree(
        vectors,
        settings,
        rng=np.random.default_rng([packed.config.seed, 3, leaf, len(vectors)]),
        threads=threads,
    )
    labels, scores = tree.assign_rows(vectors, centroids, config.avq, threads)
    norms = np.asarray(np.linalg.norm(vectors, axis=1), np.float32)
    distances = tree.leaf_distances(labels, scores, norms, len(centroids))
    return centroids, tree.leaf_spreads(distances, packed.reduced_dim, config.avq)


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

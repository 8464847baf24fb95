"""Anisotropic centroids: those whose scores are nearest to the scores of their datapoints.

Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", ICML 2020. A
leaf's centroid c stands for its datapoints x while leaves are chosen: <q, c> for <q, x>. The error
e = x - c matters most along x, for the queries that score x highly. So the loss is

    |e|^2 + (eta - 1) <e, x / |x|>^2,

and the best centroid of n datapoints solves (Theorem 4.2, with u = x / |x|)

    (n I + (eta - 1) sum of u u^T) c = eta sum of x.

Such centroids are longer than means, the longer the wider their leaf: the mean of a wide leaf
scores less than the datapoints that a query looks for there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels

__all__ = ["evenly_spaced", "move_to_datapoints", "reach_out", "squared_errors"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]


def reach_out(sample: F32, centroids: F32, eta: float, *, threads: int = 1) -> F32:
    """Move k-means centroids to where they are best for the datapoints nearest to them.

    Parameters
    ----------
    sample : float32 array of shape (n, d)
        The training datapoints.
    centroids : float32 array of shape (num_leaves, d)
        Not changed.
    eta : float
        How much more an error along the datapoint costs than one across it; at least 1.
    threads : int
        The result does not depend on it.

    Returns
    -------
    float32 array of shape (num_leaves, d)

    Notes
    -----
    Once, and from leaves that k-means made. Lloyd's iteration under the loss draws ever more
    datapoints to ever fewer long centroids where lengths differ: queries of a language model then
    find leaves of a few datapoints each (eta 4, 6 of 66 leaves searched: 2.5 % of the datapoints
    and .70 of the neighbors, in place of 10.5 % and .84).
    """
    labels, _ = kernels.assign_leaves(sample, centroids, threads)
    order, starts = kernels.sort_by_leaf(labels, len(centroids))
    moved = centroids.copy()
    kernels.anisotropic_centroids(sample, order, starts, eta, moved, threads)
    return moved


def move_to_datapoints(
    read: Callable[[U32], F32],
    order: U32,
    starts: U32,
    centroids: F32,
    eta: float,
    *,
    most_rows: int,
    threads: int = 1,
    on_rows: Callable[[int], None] | None = None,
) -> tuple[F32, F64]:
    """Move centroids to where they are best for all datapoints of their leaves, not for a sample.

    Parameters
    ----------
    read : callable
        Returns the datapoints of the given numbers, float32 of shape (m, d).
    order, starts : uint32 arrays of shapes (n,) and (num_leaves + 1,)
        The datapoints in the order of the leaves, as `kernels.sort_by_leaf` returns them.
    centroids : float32 array of shape (num_leaves, d)
        Where they are now. Not changed.
    most_rows : int
        Datapoints to read at a time. Of a leaf that has more, so many are used, evenly spaced.
    on_rows : callable, optional
        Called with the number of datapoints done.

    Returns
    -------
    tuple of (float32 array of shape (num_leaves, d), float64 array of shape (num_leaves,))
        The centroids, and the mean squared distance of their datapoints (0 where there are none).
    """
    moved = centroids.copy()
    distances = np.zeros(len(centroids))
    ends = starts.astype(np.int64)
    first = 0
    while first < len(centroids):
        last = int(np.searchsorted(ends, ends[first] + most_rows, side="right")) - 1
        last = min(max(last, first + 1), len(centroids))
        ids = order[ends[first] : ends[last]]
        sizes = np.diff(ends[first : last + 1])
        if len(ids) > most_rows:  # one leaf
            ids = ids[evenly_spaced(len(ids), most_rows)]
            sizes = np.array([most_rows])
        if len(ids):
            rows = read(ids)
            inner = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint32)
            places = np.arange(len(ids), dtype=np.uint32)
            part = moved[first:last]
            kernels.anisotropic_centroids(rows, places, inner, eta, part, threads)
            leaf = np.repeat(np.arange(last - first), sizes)
            squares = squared_errors(rows, part, leaf)
            total = np.bincount(leaf, squares, minlength=last - first)
            distances[first:last] = total / np.maximum(sizes, 1)
        if on_rows is not None:
            on_rows(int(ends[last]))
        first = last
    return moved, distances


def evenly_spaced(count: int, most: int) -> NDArray[np.int64]:
    """Return which datapoints stand for a leaf that has more than `most`."""
    return np.linspace(0, count - 1, most).astype(np.int64)


def squared_errors(rows: F32, centroids: F32, leaves: NDArray[Any]) -> F64:
    """Return the squared distance of each row to the centroid of its leaf.

    That of a row does not depend on the others: nothing is converted by pieces.
    """
    errors = (rows - centroids[leaves]).astype(np.float64)
    squares: F64 = np.einsum("ij,ij->i", errors, errors)
    return squares

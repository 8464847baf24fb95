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

import numpy as np
from numpy.typing import NDArray

from swann import kernels

__all__ = ["anisotropic_losses", "move_to_datapoints", "train_anisotropic"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]


def anisotropic_losses(norms: F32, scores: F32, squares: F64, eta: float) -> F64:
    """Return the loss of each datapoint.

    Parameters
    ----------
    norms, scores : float32 arrays of shape (n,)
        Lengths of the datapoints, and ``<x, c> - |c|^2 / 2`` with their centroids.
    squares : float64 array of shape (n,)
        Squared lengths of their centroids.
    eta : float
        How much more an error along the datapoint costs than one across it.

    Returns
    -------
    float64 array of shape (n,)
    """
    lengths = norms.astype(np.float64)
    dots = scores + squares / 2.0
    along = lengths - dots / np.where(lengths > 0, lengths, 1.0)
    return np.asarray(lengths**2 - 2.0 * scores + (eta - 1.0) * along**2)


def train_anisotropic(
    sample: F32,
    centroids: F32,
    eta: float,
    *,
    iterations: int,
    threads: int = 1,
    on_iteration: Callable[[int, float], None] | None = None,
) -> F32:
    """Train centroids further, under the anisotropic loss: Lloyd's iteration with Theorem 4.2.

    Parameters
    ----------
    sample : float32 array of shape (n, d)
        The training datapoints.
    centroids : float32 array of shape (num_leaves, d)
        Where to start: k-means centroids. Not changed.
    eta : float
        At least 1.
    iterations : int
        Passes of assignment and update. An update costs some tens of multiplications a value of
        the sample, and no d x d matrix.
    threads : int
        The result does not depend on it.
    on_iteration : callable, optional
        Called as ``on_iteration(number, mean_loss)`` after each assignment; the loss never rises.

    Returns
    -------
    float32 array of shape (num_leaves, d)
    """
    centroids = centroids.copy()
    norms = np.sqrt(np.einsum("ij,ij->i", sample, sample, dtype=np.float64)).astype(np.float32)
    for iteration in range(iterations):
        labels, scores = kernels.assign_leaves(sample, centroids, threads, eta)
        if on_iteration is not None:
            squares = np.einsum("ij,ij->i", centroids, centroids, dtype=np.float64)
            losses = anisotropic_losses(norms, scores, squares[labels], eta)
            on_iteration(iteration, float(losses.mean()))
        order, starts = kernels.sort_by_leaf(labels, len(centroids))
        kernels.anisotropic_centroids(sample, order, starts, eta, centroids, threads)
    return centroids


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
            ids = ids[np.linspace(0, len(ids) - 1, most_rows).astype(np.int64)]
            sizes = np.array([most_rows])
        if len(ids):
            rows = read(ids)
            inner = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint32)
            places = np.arange(len(ids), dtype=np.uint32)
            part = moved[first:last]
            kernels.anisotropic_centroids(rows, places, inner, eta, part, threads)
            leaf = np.repeat(np.arange(last - first), sizes)
            errors = rows - part[leaf]
            squares = np.einsum("ij,ij->i", errors, errors, dtype=np.float64)
            total = np.bincount(leaf, squares, minlength=last - first)
            distances[first:last] = total / np.maximum(sizes, 1)
        if on_rows is not None:
            on_rows(int(ends[last]))
        first = last
    return moved, distances

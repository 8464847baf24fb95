"""Lloyd's k-means, with the centroids of tiny clusters put to better use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.partition.splitting import Leaves, split_largest, split_widest

__all__ = ["NEAR", "train_centroids"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

_DRAWS = 16
"""Candidates that k-means++ draws at a time: with these a pass is still bound by memory."""

NEAR = 96
"""Centroids that a row is compared with once it is in a leaf: those nearest to the leaf's mean. All
are in the first iteration, and where splitting ends."""

_CONVERGED = 1e-4
"""Iterations stop when the mean squared distance falls by less than this fraction."""


def train_centroids(
    sample: F32,
    num_centroids: int,
    *,
    iterations: int = 12,
    at_first: int | None = None,
    min_partition_size: int = 50,
    spherical: bool = False,
    end_at_means: bool = False,
    random_init: bool = True,
    rng: np.random.Generator,
    threads: int = 1,
    on_iteration: Callable[[int, float], None] | None = None,
) -> F32:
    """Train centroids that minimise the squared distance of the sample to its nearest ones.

    Parameters
    ----------
    sample : float32 array of shape (n, d)
        The training datapoints; n is at least `num_centroids`.
    num_centroids : int
        How many to train.
    iterations : int
        Passes of assignment and update. Two of them cost about ``n * num_centroids * d``
        multiplications, the others a fraction of that where there are many centroids.
    at_first : int, optional
        How many rows of the sample the first half of the iterations sees: those at its front,
        which should be like the others. All, unless given.
    min_partition_size : int
        In the first half of the iterations, a centroid that owns fewer datapoints of the sample
        moves next to that of the largest cluster and splits it. At most an eighth of the mean
        size: beyond that, evening the sizes out costs recall. (Centroids also leave clusters that
        have several for those that share one: `split_widest`.)
    spherical : bool
        Normalise the centroids after every update.
    end_at_means : bool
        One more update where they were normalised, which leaves them at means.
    random_init : bool
        Start from distinct random datapoints; otherwise from k-means++, which costs about as much
        as an iteration more.
    rng : numpy.random.Generator
        The source of all randomness.
    threads : int
        The result does not depend on it.
    on_iteration : callable, optional
        Called as ``on_iteration(number, mean_squared_distance)`` after each assignment.

    Returns
    -------
    float32 array of shape (num_centroids, d)

    Notes
    -----
    The last update leaves the centroids at the means of their clusters. Where no cluster is too
    small, the mean squared distance never rises, but for where the second half begins to see the
    whole sample.
    """
    if random_init:
        start = np.sort(rng.choice(len(sample), num_centroids, replace=False))
        centroids = sample[start].copy()
    else:
        centroids = _plus_plus(sample, num_centroids, rng, threads)
    if spherical:
        centroids = _unit(centroids)
    whole, half = sample, iterations // 2
    sample = whole[:at_first]
    smallest = max(1, min(min_partition_size, len(sample) // (8 * num_centroids)))
    squares = kernels.square_rows(sample, threads)
    before = np.inf
    seen: Leaves | None = None
    few = num_centroids <= 2 * NEAR
    for iteration in range(iterations):
        if iteration == half and len(sample) < len(whole):
            sample, squares, before = whole, kernels.square_rows(whole, threads), np.inf
        labels, scores = _assign(
            sample, centroids, None if few or iteration == half else seen, threads
        )
        distances = np.maximum(squares - 2.0 * scores, 0.0)
        distance = float(np.mean(distances))
        if on_iteration is not None:
            on_iteration(iteration, distance)
        seen = _update(sample, centroids, labels, threads)
        means, moved = seen.means, 0
        early = 2 * iteration < iterations
        if iteration < iterations - 1:
            means, moved = split_largest(seen, smallest if early else 1, sample, rng)
        if early:
            errors = np.bincount(labels, distances, minlength=num_centroids)
            means, also = split_widest(
                seen, means, np.asarray(errors, float), smallest, sample, threads
            )
            moved += also
        centroids = _unit(means) if spherical else means
        converged = moved == 0 and before - distance < _CONVERGED * before
        if converged and len(sample) == len(whole):
            break
        before = distance
    if not (spherical and end_at_means):
        return centroids
    labels, _ = _assign(sample, means, None if few else seen, threads)
    return _update(sample, means, labels, threads).means


def _assign(sample: F32, centroids: F32, seen: Leaves | None, threads: int) -> tuple[U32, F32]:
    """Assign to the nearest centroid of all, or of those near the leaf that a row is in."""
    if seen is None:
        return kernels.assign_leaves(sample, centroids, threads)
    return kernels.assign_near(
        sample, seen.means, centroids, NEAR, seen.order, seen.starts, threads
    )


def _update(sample: F32, centroids: F32, labels: U32, threads: int) -> Leaves:
    """Return the leaves that rows were assigned to. The mean of an empty one is its centroid."""
    order, starts = kernels.sort_by_leaf(labels, len(centroids))
    means = kernels.leaf_means(sample, order, starts, threads)
    empty = starts[1:] == starts[:-1]
    means[empty] = centroids[empty]
    return Leaves(means, order, starts)


def _unit(centroids: F32) -> F32:
    norms = np.linalg.norm(centroids, axis=1, keepdims=True)
    return np.asarray(centroids / np.where(norms > 0, norms, 1), np.float32)


def _plus_plus(sample: F32, count: int, rng: np.random.Generator, threads: int) -> F32:
    """k-means++ (Arthur and Vassilvitskii, 2007): far datapoints are likelier to be chosen.

    Several candidates are drawn at once and each is kept with the probability by which those kept
    before it have lowered its own: they are distributed as if drawn one by one, for a fraction of
    the passes over the sample.
    """
    squares = kernels.square_rows(sample, threads)
    nearest = np.full(len(sample), np.inf)  # squared distance to the chosen
    chosen = np.empty(0, np.int64)
    while len(chosen) < count:
        weights = np.cumsum(nearest) if len(chosen) else np.zeros(1)
        if weights[-1] > 0:
            draws = rng.random(min(_DRAWS, count - len(chosen))) * weights[-1]
            # `side="right"` never picks a datapoint of weight zero.
            drawn = np.searchsorted(weights, draws, side="right")
            new = _keep(sample, np.minimum(drawn, len(sample) - 1), nearest, rng)
        else:
            new = np.array([rng.integers(len(sample))])
        _, scores = kernels.assign_leaves(sample, sample[new], threads)
        np.minimum(nearest, np.maximum(squares - 2.0 * scores, 0.0), out=nearest)
        chosen = np.concatenate([chosen, new])
    return sample[chosen].copy()


def _keep(
    sample: F32, drawn: NDArray[np.intp], nearest: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return those of the datapoints drawn that drawing one by one would have let stand."""
    rows = sample[drawn].astype(np.float64)
    chances = rng.random(len(drawn))
    kept: list[int] = [0]
    for i in range(1, len(drawn)):
        before = nearest[drawn[i]]
        now = min(before, ((rows[kept] - rows[i]) ** 2).sum(axis=1).min())
        if chances[i] * before < now:
            kept.append(i)
    return drawn[kept]

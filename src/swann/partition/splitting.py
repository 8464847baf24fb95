"""Centroids that others can do without, moved to where they are missed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.median import median

__all__ = ["Leaves", "split_largest", "split_widest"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]

_SPLIT = np.float32(0.3)
"""How far towards a member of the largest cluster a moved centroid starts from its mean."""

_WIDE, _CLEAR, _PAYS = 8.0, 0.25, 2.0
"""The error of a wide leaf over that of most; the share of it that a split has to save, as it does
where there are clusters; and what it saves over what it costs elsewhere."""
_MOST_SPLIT, _MOST_IN_VAIN, _ROWS_SEEN, _LINE_ROUNDS = 64, 2, 64, 2


class Leaves(NamedTuple):
    """Which rows the leaves hold, as `sort_by_leaf` says, and the means of these."""

    means: F32
    order: U32
    starts: U32

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each leaf."""
        starts = self.starts.astype(np.int64)
        return starts[1:] - starts[:-1]


def split_largest(
    leaves: Leaves, smallest: int, sample: F32, rng: np.random.Generator
) -> tuple[F32, int]:
    """Return the means, those of too few datapoints moved into the largest leaves; and how many."""
    means, order, starts = leaves.means.copy(), leaves.order, leaves.starts
    sizes = leaves.sizes
    small = np.flatnonzero(sizes < smallest)
    sizes[small] = 0  # these give nothing away
    for count, leaf in enumerate(small):
        donor = int(sizes.argmax())
        if sizes[donor] < 2:
            return means, count
        member = sample[order[rng.integers(int(starts[donor]), int(starts[donor + 1]))]]
        means[leaf] = means[donor] + _SPLIT * (member - means[donor])
        sizes[donor] -= sizes[donor] // 2
    return means, len(small)


def split_widest(
    leaves: Leaves, means: F32, errors: F64, smallest: int, sample: F32, threads: int
) -> tuple[F32, int]:
    """Return the means, some of them moved into leaves that hold clusters apart; and how many.

    A leaf whose error is many times that of most is cut in two where that saves far more than it
    costs another leaf to do with the centroid nearest to its own. Lloyd's iteration never does
    that: where clusters are tight, no datapoint moves from one to another.

    Parameters
    ----------
    means : float32 array of shape (k, d)
        Where the centroids are to be; those that differ from the leaves' means stay.
    errors : float64 array of shape (k,)
        The sum of the squared distances of each leaf's rows.
    smallest : int
        Rows of a half at least: outliers get no leaves of their own.
    """
    sizes = leaves.sizes
    wide = np.flatnonzero(errors > _WIDE * median(errors))
    wide = wide[np.argsort(-errors[wide], kind="stable")][:_MOST_SPLIT]
    if len(wide) == 0 or len(means) < 3:
        return means, 0
    near, costs = _costs_to_leave(means, sizes, threads)
    free = (means == leaves.means).all(axis=1)
    free[wide] = False
    cheapest = iter(np.argsort(costs, kind="stable").tolist())
    means, moved, in_vain = means.copy(), 0, 0
    spare = next((leaf for leaf in cheapest if free[leaf] and free[near[leaf]]), None)
    for leaf in wide.tolist():
        if spare is None or in_vain == _MOST_IN_VAIN:
            break
        held = leaves.order[leaves.starts[leaf] : leaves.starts[leaf + 1]]
        rows = sample[held[:: -(-len(held) // _ROWS_SEEN)]].astype(np.float64)
        saved, share, halves = _cut(rows)
        enough = max(_CLEAR * errors[leaf], _PAYS * costs[spare])
        if saved * sizes[leaf] < enough or share * sizes[leaf] < smallest:
            in_vain += 1
            continue
        means[leaf], means[spare] = halves
        free[[spare, near[spare]]] = False  # the latter takes over
        moved += 1
        spare = next((leaf for leaf in cheapest if free[leaf] and free[near[leaf]]), None)
    return means, moved


def _costs_to_leave(
    means: F32, sizes: NDArray[np.int64], threads: int
) -> tuple[NDArray[np.intp], F64]:
    """Return the nearest other leaf of each, and the error that its centroid for both would add."""
    held = kernels.Centroids(means, threads)
    own = np.arange(len(means), dtype=np.uint32)
    near = kernels.spill_leaves(means, held, own, 0.0, threads).astype(np.intp)
    apart = ((means.astype(np.float64) - means[near]) ** 2).sum(axis=1)
    return near, sizes * apart


def _cut(rows: F64) -> tuple[float, float, F64]:
    """Cut rows in two, across the line along which they differ most.

    Returns
    -------
    tuple of (float, float, float64 array of shape (2, d))
        What the mean squared distance to the mean of a half is less than to that of all, the share
        of the smaller half, and the means.
    """
    mean = rows.mean(axis=0)
    centred = rows - mean
    line = centred[int(np.argmax((centred**2).sum(axis=1)))]
    for _ in range(_LINE_ROUNDS):
        line = ((centred * line).sum(axis=1)[:, None] * centred).sum(axis=0)
        line = line / max(float(np.sqrt((line**2).sum())), 1e-300)
    above = (centred * line).sum(axis=1) > 0.0
    if above.all() or not above.any():
        return 0.0, 0.0, np.stack([mean, mean])
    halves = np.stack([rows[above].mean(axis=0), rows[~above].mean(axis=0)])
    share = float(above.mean())
    saved = share * (1.0 - share) * float(((halves[0] - halves[1]) ** 2).sum())
    return saved, min(share, 1.0 - share), halves

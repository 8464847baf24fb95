"""An order of centroids in which near ones follow each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["near_together"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_LINE_ROUNDS = 3
_FEW = 8  # are ordered along one line


def near_together(centroids: F32) -> NDArray[np.int64]:
    """Order centroids so that near ones have near numbers.

    They are cut in two across the direction in which they differ most, again and again. A batch
    takes queries in the order of their best leaves: those that go through it together then visit
    the same leaves, and leaves that a query visits lie near each other in memory.

    Parameters
    ----------
    centroids : float32 array of shape (k, d)

    Returns
    -------
    int64 array of shape (k,)
        A permutation. It costs about ``10 k d log2(k)`` multiplications.

    Examples
    --------
    >>> near_together(np.float32([[3, 0], [-1, 0], [4, 0], [0, 0], [-2, 0]])).tolist()
    [4, 1, 3, 0, 2]
    """
    order: list[NDArray[np.int64]] = []
    todo = [(np.arange(len(centroids)), np.zeros(centroids.shape[1]))]
    while todo:
        part, above = todo.pop()
        points = centroids[part].astype(np.float64)
        line = _line(points)
        if float((line * above).sum()) < 0.0:  # halves run as what they are halves of
            line = -line
        part = part[np.argsort((points * line).sum(axis=1), kind="stable")]
        if len(part) <= _FEW:
            order.append(part)
            continue
        middle = len(part) // 2
        todo += [(part[middle:], line), (part[:middle], line)]
    return np.concatenate(order)


def _line(points: F64) -> F64:
    """Return the direction in which points differ most."""
    # No matrix products: their bits would depend on the number of threads.
    points = points - points.mean(axis=0)
    line: F64 = points[int(np.argmax((points**2).sum(axis=1)))]
    for _ in range(_LINE_ROUNDS):
        length = float(np.sqrt((line**2).sum()))
        if length == 0.0:
            break
        line = line / length
        line = (points * (points * line).sum(axis=1)[:, None]).sum(axis=0)
    return line

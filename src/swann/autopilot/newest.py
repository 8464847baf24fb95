"""Whether an index that changes still finds what comes into it.

What it was not trained on may be of another kind: then no leaf and no codeword is near it, and
searches miss most of it (30,000 datapoints, then as many whose every value is greater by five
standard deviations: recall of .05 among those), long before the index has outgrown its settings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from swann.distance import DistanceMeasure, descending

__all__ = ["Newest"]

F32 = NDArray[np.float32]
Nearest = Callable[[F32, bool], F32]

_SHARE = 0.1
"""Recall is measured each time that so large a share of the index has come."""

_SAMPLE = 64
_SLACK = 0.1
"""What recall on so few queries, which the index has not been tuned for, may lack."""

_TOLERANCE = 1e-5  # of distances that count as equal, relative


class Newest:
    """Some of the datapoints that came last, to ask for now and then.

    Parameters
    ----------
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        Which way is nearer.
    """

    def __init__(self, distance_measure: DistanceMeasure) -> None:
        self._sign = 1.0 if descending(distance_measure) else -1.0
        self._rows: list[F32] = []
        self._seen = 0
        self._lacking = 0.0

    def add(self, rows: F32, size: int) -> bool:
        """Keep some of new rows.

        Parameters
        ----------
        rows : float32 array of shape (m, d)
        size : int
            Datapoints in the index, with these.

        Returns
        -------
        bool
            Whether it is time to ask `missed`.
        """
        step = max(1, int(_SHARE * size) // _SAMPLE)
        first = -self._seen % step
        if first < len(rows):
            self._rows.append(rows[first::step].copy())
        self._seen += len(rows)
        return self._seen >= _SHARE * size

    def missed(self, target: float, nearest: Nearest) -> bool:
        """Whether too little of what is near the newest is found.

        If not, others are gathered from now on.

        Parameters
        ----------
        target : float
            The recall that the index was tuned for.
        nearest : callable
            Takes queries (s, d) and whether to search everything, and not as by default; returns
            the distances of the nearest, best first, shape (s, k).
        """
        missed = self._recall(nearest) < target - self._lacking - _SLACK
        if not missed:
            self._forget()
        return missed

    def rebuilt(self, target: float, nearest: Nearest) -> None:
        """Begin again, now that the index was built anew with the newest in it.

        What that misses, no other would find: `missed` lets it pass from now on.
        """
        self._lacking = max(0.0, target - self._recall(nearest))
        self._forget()

    def _forget(self) -> None:
        self._rows = []
        self._seen = 0

    def _recall(self, nearest: Nearest) -> float:
        if not self._rows:
            return 1.0
        rows = np.concatenate(self._rows)
        rows = np.ascontiguousarray(rows[:: -(-len(rows) // _SAMPLE)])
        found, there = self._sign * nearest(rows, False), self._sign * nearest(rows, True)
        slack = _TOLERANCE * np.abs(there).max(axis=1, keepdims=True)
        return float((found >= there[:, -1:] - slack).mean())

"""Whether an index that changes still finds what comes into it.

What it was not trained on may be of another kind: then no leaf and no codeword is near it, and
searches miss most of it (30,000 datapoints, then as many whose every value is greater by five
standard deviations: recall of .05 among those), long before the index has outgrown its settings.

Codes that cannot tell the newest apart cannot tell either what a search misses. So some of the
newest are compared with each other, exactly: what is nearer to one of them than the last neighbor
that a search found, and was not found, was missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.autopilot.sample import marks_of, nearest_rows
from swann.distance import DOT_PRODUCT, DistanceMeasure, descending

__all__ = ["Newest", "found_share"]

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Search = Callable[[F32], tuple[I64, F32]]

_SHARE, _MOST_SHARE = 0.1, 1.0
_SAMPLE, _QUERIES = 8192, 512
"""Datapoints that are compared, and those among them that are searched for."""

_ERRORS = 2.0  # standard errors that a share is taken to be too low by

_TOLERANCE = 1e-6  # of scores that count as equal, relative


class Newest:
    """The names of some of the datapoints that came last, and when to look at them.

    After a tenth of the index has come. Where it had to be built anew, after twice that share, and
    so on up to a whole index: where no build can keep up, there are few.
    """

    def __init__(self) -> None:
        self._names: list[Any] = []
        self._seen = 0
        self._share = _SHARE

    def add(self, names: NDArray[Any], size: int) -> bool:
        """Keep some of new docids or row ids.

        Parameters
        ----------
        names : array of shape (m,)
        size : int
            Datapoints in the index, with these.

        Returns
        -------
        bool
            Whether it is time to look.
        """
        due = int(self._share * size)
        step = max(1, due // _SAMPLE)
        self._names.extend(names[-self._seen % step :: step].tolist())
        self._seen += len(names)
        return self._seen >= due

    def take(self) -> tuple[list[Any], float]:
        """Return what was kept, and its share of what came, and begin again."""
        names = list(dict.fromkeys(self._names))  # one may have been overwritten
        names = names[:: max(1, -(-len(names) // _SAMPLE))]
        share = len(names) / max(1, self._seen)
        self._names, self._seen = [], 0
        return names, min(1.0, share)

    def looked(self, *, missed: bool) -> None:
        """Note what was seen: it says when to look again."""
        self._share = min(_MOST_SHARE, 2 * self._share) if missed else _SHARE


def found_share(
    numbers: I64,
    rows: F32,
    share_kept: float,
    distance_measure: DistanceMeasure,
    search: Search,
) -> float:
    """Return the share of the neighbors of these datapoints that a search finds.

    Costs two searches for 512 of them at most, one of them in all of these.

    A query misses those of these datapoints that are nearer than what was found, as far as there is
    room for them among its neighbors; each stands for others that were not kept. It misses
    everything if it does not find itself, but under the dot product.

    Parameters
    ----------
    numbers : int64 array of shape (n,)
        Of the datapoints.
    rows : float32 array of shape (n, d)
        The datapoints, of unit length under cosine.
    share_kept : float
        Of those that came, how many these are.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What near means.
    search : callable
        Returns the numbers and the distances of the nearest of queries, best first, shape
        (s, k + 1) both: the query is among them.

    Returns
    -------
    float
        The mean over the queries, with what it may be too low by.
    """
    first = np.sort(np.unique(marks_of(rows), return_index=True)[1])  # of copies one
    numbers, rows = numbers[first], np.ascontiguousarray(rows[first])
    if len(numbers) == 0:
        return 1.0
    asked = np.arange(0, len(rows), -(-len(rows) // _QUERIES))
    found, distances = search(np.ascontiguousarray(rows[asked]))
    k = found.shape[1] - 1
    near, exact = nearest_rows(rows[asked], rows, k + 1, distance_measure, 1)
    sign = 1.0 if descending(distance_measure) else -1.0
    got = np.nan_to_num(sign * distances, nan=-np.inf)
    best = sign * exact
    slack = _TOLERANCE * np.abs(best).max(axis=1, keepdims=True)
    there = np.array([np.isin(*pair) for pair in zip(numbers[near], found, strict=True)])
    missed = ~there & (near != asked[:, None])
    # Neighbors of a query are the k + 1 best of what it found and what it missed.
    all_scores = np.concatenate([got, np.where(missed, best, -np.inf)], axis=1)
    last = -np.partition(-all_scores, k, axis=1)[:, k : k + 1]
    above = missed & (best >= last) & (best > got[:, -1:] + slack)
    misses = np.minimum(above.sum(axis=1) / share_kept, k)
    if distance_measure != DOT_PRODUCT:
        misses[got[:, 0] < best[:, 0] - slack[:, 0]] = k
    shares = 1.0 - misses / k
    return float(shares.mean() + _ERRORS * shares.std() / math.sqrt(len(shares)))

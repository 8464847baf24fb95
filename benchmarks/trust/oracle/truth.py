"""What the answers must be: NumPy in float64, and how far float32 may be from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swann import SearchResult

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_UNIT = 2.0**-24  # a float32 operation is off by this share of its result,
_LEAST = 2.0**-149  # or by the smallest number there is


def unit(rows: F64) -> F64:
    """Return rows at unit length; those of zeros stay."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest == 0, 1, largest)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths))


class Truth:
    """Distances of queries to rows, and bounds of the errors of float32.

    A sum of d terms runs in 16 lanes, which are folded in four steps, so no term passes through
    more than ``ceil(d / 16) + 4`` additions; some more roundings are those of the terms.

    Parameters
    ----------
    rows : float32 array of shape (n, d)
        As they are stored, of unit length under cosine.
    queries : float32 array of shape (nq, d)
        As they are given.
    measure : str
        The distance measure.
    int8 : bool
        Whether rows are kept in int8: squared distances are made of three parts, and dot products
        of those with an origin and with what is beyond it, twice and once as long as the row at
        most.

    Attributes
    ----------
    scores : float64 array of shape (nq, n)
        Greater is better.
    errors : float64 array of shape (nq, n)
        What the scores of a search may be off by.
    """

    def __init__(self, rows: F32, queries: F32, measure: str, int8: bool) -> None:
        x, q = rows.astype(np.float64), queries.astype(np.float64)
        d = x.shape[1]
        steps = (-(-d // 16) + 12) * _UNIT
        self.descending = measure != "squared_l2"
        if measure == "cosine":
            q = unit(q)
        products = np.abs(q) @ np.abs(x).T
        if int8:
            products += 3 * np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(x, axis=1))
        least = _LEAST * (np.abs(q).sum(axis=1, keepdims=True) + np.abs(x).sum(axis=1) + 2 * d + 8)
        if self.descending:
            self.scores: F64 = q @ x.T
            self.errors: F64 = steps * products + least
            return
        self.scores = np.empty((len(q), len(x)))
        for i, query in enumerate(q):
            self.scores[i] = -((query - x) ** 2).sum(axis=1)
        size = -self.scores
        if int8:
            size = (q**2).sum(axis=1, keepdims=True) + 2 * products + (x**2).sum(axis=1)
        self.errors = steps * size + least

    def distances_are_true(self, places: list[NDArray[np.int64]], found: SearchResult) -> str:
        """Compare distances with those of what was found, `places` among the rows."""
        for i, at in enumerate(places):
            given = found.distances[i, : len(at)].astype(np.float64)
            off = np.abs((given if self.descending else -given) - self.scores[i, at])
            worst = int((off - self.errors[i, at]).argmax()) if len(at) else 0
            if len(at) and not off[worst] <= self.errors[i, at[worst]]:
                return (
                    f"query {i}: distance {given[worst]!r} of row {at[worst]}, truly "
                    f"{abs(self.scores[i, at[worst]])!r} within {self.errors[i, at[worst]]:.3g}"
                )
        return ""

    def none_is_better(self, places: list[NDArray[np.int64]]) -> str:
        """Look for what was not found though it is better than something that was."""
        for i, at in enumerate(places):
            missing = np.ones(self.scores.shape[1], bool)
            missing[at] = False
            if not missing.any() or not len(at):
                continue
            best = np.where(missing, self.scores[i] - self.errors[i], -np.inf)
            worst = (self.scores[i, at] + self.errors[i, at]).min()
            if best.max() > worst:
                return (
                    f"query {i}: row {best.argmax()} of score {self.scores[i, best.argmax()]!r} is "
                    f"missing; found was one of {self.scores[i, at].min()!r}"
                )
        return ""


def rounded_well(kept: F32, rows: F64, precision: str, halves: int) -> str:
    """Compare rows that are kept in fewer bits with what they were, `halves` of a step away."""
    off = np.abs(kept.astype(np.float64) - rows)
    if precision == "INT8":
        # A step is a share of the greatest value; in subnormal numbers scales are coarse, too.
        largest = np.abs(rows).max(axis=1, initial=0, keepdims=True)
        allowed = largest / 127 * 0.501 * halves + 130 * _LEAST
    elif precision == "BFLOAT16":
        allowed = np.abs(rows) * 2.0**-8 * halves + 2**16 * _LEAST
    else:
        allowed = np.abs(rows) * 2.0**-23 * halves + _LEAST
    if (off <= allowed).all():
        return ""
    row, column = np.unravel_index(int((off - allowed).argmax()), off.shape)
    was = rows[row, column]
    return f"row {row} is kept as {kept[row, column]!r} in dimension {column}, not {was!r}"

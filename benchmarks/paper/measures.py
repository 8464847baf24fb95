"""What codes are judged by: the rank they give the true neighbour, and the error of its score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.paper.lab import Data, Floats, Ids

_SCORES = 1 << 25
"""Scores held at once: 128 MB."""


def ranks(data: Data, decoded: Floats, queries: Floats | None = None) -> Ids:
    """Rank (from 0) that each query's true nearest datapoint has among the decoded ones.

    Scores are float32 matrix products; of equal scores the lower id comes first. Cost: ``queries n
    d`` multiplications. `queries` replaces the data set's own: decoded ones, for symmetric scores.

    Examples
    --------
    >>> from pathlib import Path
    >>> rows = np.eye(3, dtype=np.float32)
    >>> data = Data(rows, rows[:1], np.array([[0]]), "dot_product", Path())
    >>> ranks(data, rows), ranks(data, rows * np.float32([[0], [1], [1]]))
    (array([0]), array([0]))
    >>> ranks(data, rows[[1, 0, 2]])
    array([1])
    """
    asked = data.queries if queries is None else queries
    true = data.neighbors[:, 0]
    found = np.empty(len(asked), np.int64)
    half_norms = _half_norms(data, decoded)
    block = max(1, _SCORES // len(decoded))
    for start in range(0, len(asked), block):
        scores = asked[start : start + block] @ decoded.T
        if half_norms is not None:
            scores -= half_norms
        for i, row in enumerate(scores, start):
            wanted = row[true[i]]
            before = np.count_nonzero(row[: true[i]] == wanted)
            found[i] = np.count_nonzero(row > wanted) + before
    return found


def _half_norms(data: Data, decoded: Floats) -> Floats | None:
    if data.distance_measure != "squared_l2":
        return None
    halves: Floats = np.einsum("ij,ij->i", decoded, decoded) / np.float32(2)
    return halves


def recall_at(found: npt.NDArray[np.integer], counts: Sequence[int]) -> list[float]:
    """Recall 1@N of these ranks for each N.

    Examples
    --------
    >>> recall_at(np.array([0, 3, 12, 0]), (1, 10))
    [0.5, 0.75]
    """
    return [round(float(np.mean(found < count)), 4) for count in counts]


def significantly_lower(
    found: npt.NDArray[np.integer], beside: npt.NDArray[np.integer], counts: Sequence[int]
) -> list[bool]:
    """Whether Recall 1@N of `found` is below that of `beside`, and not by chance.

    The difference over the same queries must be more than two of its standard errors.

    Examples
    --------
    >>> many, few = np.zeros(100), np.arange(100)
    >>> significantly_lower(few, many, (1, 99)), significantly_lower(many, few, (1, 99))
    ([True, False], [False, False])
    """
    lower = []
    for count in counts:
        change = (found < count).astype(float) - (beside < count)
        lower.append(bool(change.mean() < -2 * change.std() / np.sqrt(len(change))))
    return lower


def beyond_chance(lower: float, higher: float, queries: int) -> bool:
    """Whether one recall is below another by more than two standard errors of their difference.

    For recalls alone: both are taken as shares of independent queries.

    Examples
    --------
    >>> beyond_chance(0.999, 1.0, 1000), beyond_chance(0.4, 0.5, 1000)
    (False, True)
    """
    variance = (lower * (1 - lower) + higher * (1 - higher)) / queries
    return higher - lower > 2 * float(np.sqrt(variance))


def relative_error(data: Data, decoded: Floats) -> float:
    """Mean of |<q, x> - <q, x~>| / |<q, x>| over queries, x being the true nearest datapoint."""
    true = data.neighbors[:, 0]
    exact = np.einsum("ij,ij->i", data.queries, data.rows[true], dtype=np.float64)
    coded = np.einsum("ij,ij->i", data.queries, decoded[true], dtype=np.float64)
    return float(np.mean(np.abs(exact - coded) / np.abs(exact)))

"""The score-aware loss of a known query distribution: errors count in the directions of queries.

Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", ICML 2020,
assume queries of any direction; "the expectation can be recomputed if Q is known or estimated
empirically". For queries with the second moments M = E[q q^T] and a weight function that depends on
the score only, an error e of a datapoint x changes the scores that matter by, on average,

    <e, M e> + (eta - 1) <e, u>^2,    u = M x / sqrt(<x, M x>),

which in the space of M^(1/2) x is Theorem 3.2 again, exactly so where queries are elliptical
(normal, say). Queries near a datapoint are more alike than all queries are, and a few directions
that all queries share say little of which datapoint is the best: powers of M below 1 are often
better, and where queries look like the datapoints the power 0, plain l2, is. Which, is measured
(`swann.index.building.learned`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swann import kernels

__all__ = ["SHAPED_SWEEPS", "QueryModel", "map_rows", "unmap_rows"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

SHAPED_SWEEPS = 2
"""Passes over the blocks of a datapoint where codes are chosen by a metric."""

_LEAST_SHRINKAGE = 0.02
"""What queries of other kinds than the sample get at least; it bounds the condition of M."""

_MOST_AT_ONCE = 4096


class QueryModel:
    """Second moments of a sample of queries, shrunk towards those of queries of any direction.

    Parameters
    ----------
    queries : float32 array of shape (m, d)
        Of unit length, so that each counts alike; reduced ones may be shorter.
    threads : int
        The result does not depend on it.
    shrinkage : float, optional
        In place of the estimate.

    Attributes
    ----------
    shrinkage : float
        The share of the identity in M: Ledoit and Wolf's estimate, at least .02. It is 1, and
        nothing is learned, for fewer than two queries.

    Notes
    -----
    ``m d^2 + 8 d^3`` operations. Ledoit and Wolf, "A well-conditioned estimator for
    large-dimensional covariance matrices", 2004: the fewer queries for their dimension, the more
    of the identity.
    """

    def __init__(self, queries: F32, threads: int = 1, shrinkage: float | None = None) -> None:
        count, dimension = queries.shape
        nowhere = np.zeros(dimension)
        products = np.zeros((dimension, dimension))
        fourth = 0.0  # moment of the lengths
        for first in range(0, count, _MOST_AT_ONCE):
            part = queries[first : first + _MOST_AT_ONCE]
            kernels.add_moments(part, nowhere, 1.0, nowhere.copy(), products, threads)
            fourth += float((kernels.check_rows(part, threads)[1].astype(np.float64) ** 4).sum())
        moments = (np.tril(products) + np.tril(products, -1).T) / max(count, 1)
        mean = float(np.trace(moments)) / dimension
        square = float((moments**2).sum())
        if shrinkage is None:
            shrinkage = _shrinkage(count, square, dimension * mean**2, fourth)
        self.shrinkage = shrinkage
        self._threads = threads
        self._axes = moments
        values = kernels.symmetric_eigen(self._axes, threads)
        least = self.shrinkage * (mean if mean > 0.0 else 1.0)
        self._values: F64 = (1.0 - self.shrinkage) * np.maximum(values, 0.0) + least

    def tree_map(self, power: float) -> F32:
        """Return A with A^T A = M^power, of trace d: distances are those of queries' scores.

        Returns
        -------
        float32 array of shape (d, d)
            Its rows are orthogonal.
        """
        scales = self._values**power
        scales *= len(scales) / scales.sum()
        return np.asarray(np.sqrt(scales)[:, None] * self._axes, np.float32)

    def code_metric(self, power: float, rows: F32) -> F32:
        """Return M^power, scaled so that ``<x, G x>`` is ``|x|^2`` for rows x on average.

        Thresholds then mean what they do without a metric.

        Parameters
        ----------
        power : float
            Of M.
        rows : float32 array of shape (n, d)
            Some datapoints.

        Returns
        -------
        float32 array of shape (d, d)
            Symmetric.
        """
        across = np.ascontiguousarray(self.tree_map(power).T)
        metric = kernels.project_rows(across, across, len(across), self._threads)
        _, lengths = kernels.metric_directions(rows, metric, self._threads)
        _, plain = kernels.check_rows(rows, self._threads)
        wanted = float((plain.astype(np.float64) ** 2).sum())
        found = float((lengths.astype(np.float64) ** 2).sum())
        if wanted > 0.0 and found > 0.0:
            metric *= np.float32(wanted / found)
        return metric


def _shrinkage(count: int, square: float, of_identity: float, fourth: float) -> float:
    """Ledoit and Wolf's share of the identity; of M and its part the squared Frobenius norms."""
    off = square - of_identity
    if count < 2 or off <= 0.0:
        return 1.0
    noise = (fourth / count - square) / (count - 1)
    return min(1.0, max(_LEAST_SHRINKAGE, noise / off))


def map_rows(rows: F32, tree_map: F32 | None, threads: int = 1) -> F32:
    """Return ``A x`` of rows x (n, d): the space in which a tree is trained and assigned."""
    if tree_map is None:
        return rows
    return kernels.project_rows(rows, tree_map, len(tree_map), threads)


def unmap_rows(rows: F32, tree_map: F32 | None, threads: int = 1) -> F32:
    """Return the rows that `map_rows` maps to these, up to rounding."""
    if tree_map is None:
        return rows
    squares = np.einsum("ij,ij->i", tree_map, tree_map, dtype=np.float64)
    scaled = np.asarray(rows / squares, np.float32)
    return kernels.project_rows(
        scaled, np.ascontiguousarray(tree_map.T), tree_map.shape[1], threads
    )

"""Fewer dimensions for the tree and the codes: principal components, or the first dimensions.

A projection is an orthonormal basis of shape (reduced_dim, d), or None for the first dimensions as
they are. Nothing is centred: an orthogonal projection keeps inner products and distances as they
are within its space, whatever the origin, so queries are treated as datapoints are.

The space is that of the leading eigenvectors of the covariance, under every distance measure. Under
dot product too: an error that is the same for all datapoints, as that along their mean, changes no
ranking. (Eigenvectors of the second moments keep the mean, and lose: on the output embeddings of a
language model, at half of the dimensions, exact scores in the reduced space put .30 of the 10
nearest among the best 100, with the covariance .59.)

Within the space the basis is turned, so that every dimension has about the same variance: codes
give every block as many bits, and lookup tables have one scale. (fashion-mnist, 784 dimensions
reduced to 196, 2 a block: the codes' best 10 hold .76 of the 10 nearest; with the components in
order .56. Random turns, and turns that make variances exactly equal, are alike.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import ProjectionConfig

__all__ = ["TRAINING_SAMPLE_SIZE", "principal_components", "project", "train_projection"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

TRAINING_SAMPLE_SIZE = 100_000
"""Datapoints that a covariance is estimated from, at most."""


_ROUNDED_FROM = 4096
"""Values of a basis from where a search gains by integers."""


def train_projection(
    chunks: Iterable[F32],
    config: ProjectionConfig,
    dimension: int,
    longest: float,
    *,
    least: int = 1,
    threads: int = 1,
) -> F32 | None:
    """Find the principal components that `config` asks for.

    Parameters
    ----------
    chunks : iterable of float32 arrays of shape (m, d)
        The training sample, normalised where the distance measure asks for it.
    config : ProjectionConfig
        Of kind ``"pca"``.
    dimension : int
        d.
    longest : float
        A bound on the norms of the sample: products are scaled by it, so that none overflows.
    least : int
        Components to keep at least, where thresholds decide how many.
    threads : int
        The result does not depend on it.

    Returns
    -------
    float32 array of shape (reduced_dim, d), or None
        Orthonormal rows, up to rounding: where there are 4,096 values or more, these are whole
        numbers of steps, from -127 to 127. None where the thresholds say that nothing is to be
        projected away.

    Notes
    -----
    About ``m d^2 + 8 d^3`` operations and ``32 d^2`` bytes.
    """
    variances, directions = principal_components(chunks, dimension, longest, threads)
    kept = config.reduction_dim
    if kept is None:
        kept = _components_to_keep(variances, config, least)
    if kept is None:
        return None
    by_dimension = np.ascontiguousarray(directions[:kept].T, np.float32)
    turned = kernels.project_rows(by_dimension, _hartley(kept), kept, threads)
    return _in_steps(np.ascontiguousarray(turned.T))


def project(rows: F32, basis: F32 | None, reduced_dim: int, threads: int = 1) -> F32:
    """Return rows in the reduced space, shape (m, reduced_dim).

    Parameters
    ----------
    rows : float32 array of shape (m, d)
        Normalised where the distance measure asks for it.
    basis : float32 array of shape (reduced_dim, d), or None
        What `train_projection` returned; None for the first `reduced_dim` dimensions.
    threads : int
        A row's result depends on nothing but the row.

    Returns
    -------
    float32 array
        `rows` itself where there is nothing to project.
    """
    if basis is None and reduced_dim == rows.shape[1]:
        return rows
    return kernels.project_rows(rows, basis, reduced_dim, threads)


def principal_components(
    chunks: Iterable[F32], dimension: int, longest: float, threads: int = 1
) -> tuple[F64, F64]:
    """Return the principal components of a sample; see `train_projection` for the parameters.

    Returns
    -------
    tuple of (float64 array of shape (d,), float64 array of shape (d, d))
        Variances up to a common factor, descending, and the directions: orthonormal rows, each
        with a positive value where it is greatest in magnitude.
    """
    scale = 2.0 ** -math.frexp(longest)[1]
    sums = np.zeros(dimension)
    products = np.zeros((dimension, dimension))
    shift: F64 | None = None  # near the mean: no digits are lost where it is far from 0
    count = 0
    for rows in chunks:
        if shift is None:
            shift = rows.mean(axis=0, dtype=np.float64)
        kernels.add_moments(rows, shift, scale, sums, products, threads)
        count += len(rows)
    products -= np.outer(sums, sums / max(count, 1))
    directions = np.tril(products) + np.tril(products, -1).T
    variances = kernels.symmetric_eigen(directions, threads)
    greatest = np.take_along_axis(
        directions, np.abs(directions).argmax(axis=1, keepdims=True), axis=1
    )
    directions *= np.where(greatest < 0, -1.0, 1.0)
    return np.maximum(variances, 0.0), directions


def _in_steps(basis: F32) -> F32:
    """Round a basis of some size to whole numbers of steps, 127 at most.

    A search then multiplies integers. The step has 16 digits, so that its multiples are exact.
    """
    if basis.size < _ROUNDED_FROM:
        return basis
    fraction, exponent = math.frexp(float(np.abs(basis).max()) / 127)
    step = math.ldexp(math.ceil(math.ldexp(fraction, 16)), exponent - 16)
    rounded: F32 = (np.rint(basis / np.float32(step)) * np.float32(step)).astype(np.float32)
    return rounded


def _hartley(size: int) -> F32:
    """Return the matrix of the Hartley transform: orthonormal, and no entry is above the others."""
    # cos + sin has the period that integers modulo `size` have: no digits are lost.
    turn = np.arange(size) * (2.0 * math.pi / size)
    values = (np.cos(turn) + np.sin(turn)) / math.sqrt(size)
    steps = np.arange(size)
    matrix: F32 = values[np.outer(steps, steps) % size].astype(np.float32)
    return matrix


def _components_to_keep(variances: F64, config: ProjectionConfig, least: int) -> int | None:
    """Return how many components the thresholds keep, as ScaNN counts; None for all of them."""
    assert config.pca_significance_threshold is not None
    explained = np.cumsum(variances)
    below = explained <= config.pca_significance_threshold * explained[-1]
    kept = max(int(below.sum()) + 1, least)
    limit = config.pca_truncation_threshold
    most = len(variances) * (1.0 if limit is None else limit)
    return kept if kept < most else None

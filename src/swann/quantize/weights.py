"""The score-aware loss for any weight function: how much an error counts, by the scores it changes.

An error e of a datapoint x changes the score <q, x> of a query q by <q, e>. With w(t) saying how
much a score of t matters, and queries uniform on the unit sphere, the expected damage is
(Guo et al. 2020, Theorem 3.2)

    E[w(<q, x>) <q, e>^2] = h_par |e_par|^2 + h_perp |e_perp|^2,

e_par being the part of e along x, and, with t the angle between q and x in d dimensions,

    h_par = E[w(|x| cos t) cos^2 t],    h_perp = E[w(|x| cos t) sin^2 t] / (d - 1).

Where w is 0 for negative scores and does not fall above, h_par >= h_perp (Theorem 3.3): errors
along the datapoint matter more. (What counts is w(t) + w(-t), since errors are squared.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swann.config.checks import check_count
from swann.errors import ConfigError, NonFiniteError, ShapeError
from swann.quantize.sphere import log_moments
from swann.quantize.weight_functions import as_weight
from swann.vectors import as_numbers

__all__ = [
    "as_norms",
    "relative_weights",
    "score_aware_loss",
    "score_aware_weights",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_STEPS = 128
"""Norms at which weights are computed, of which there are so many between 1 and 2."""


def score_aware_weights(
    norms: ArrayLike, dimension: int, weight: Callable[[F64], ArrayLike]
) -> tuple[F64, F64]:
    """Return h_par and h_perp of datapoints, by numerical integration (Theorem 3.2).

    Parameters
    ----------
    norms : array_like of shape (n,)
        Their Euclidean norms. A datapoint of norm 0 has no direction: both are w(0) / d.
    dimension : int
        Of the datapoints, at least 1. In one dimension there is no error across: both are alike.
    weight : Weight or callable
        How much a score matters.

    Returns
    -------
    tuple of (float64 array of shape (n,), float64 array of shape (n,))
        The expectations themselves: with w = 1 both are 1 / d. Relative error about 1e-9, or 1e-6
        where jumps must be found. Where no query can reach a score that matters both are 0. What
        is below 1e-308 becomes 0, and above 1e308 infinity; `relative_weights` has no such limits.

    Raises
    ------
    ConfigError, ShapeError
        If a norm or `dimension` is out of range; what `weight` returns cannot be weights, or jumps
        too often to be integrated.

    Notes
    -----
    Costs some hundred values of `weight` for each norm that is different, some thousand where
    jumps must be found. Narrower features of `weight` than a hundredth of ``|x| / sqrt(d)`` may be
    missed.

    Examples
    --------
    >>> from swann.quantize import threshold_weight
    >>> along, across = score_aware_weights([1.0], 100, threshold_weight(0.2))
    >>> (along / across).round(2)
    array([5.95])
    """
    lengths = as_norms(norms)
    distinct, place = np.unique(lengths, return_inverse=True)
    check_count("dimension", dimension)
    logs = log_moments(distinct, dimension, *_log_and_jumps(weight))
    with np.errstate(over="ignore", under="ignore"):
        along, across = (np.exp(part)[place] for part in logs)
    return along, across


def relative_weights(
    norms: ArrayLike, dimension: int, weight: Callable[[F64], ArrayLike]
) -> tuple[F32, F32]:
    """Return what training needs: eta = h_par / h_perp, and h_perp relative to the largest.

    Parameters
    ----------
    norms, dimension, weight
        As for `score_aware_weights`.

    Returns
    -------
    tuple of (float32 array of shape (n,), float32 array of shape (n,))
        ``eta``, and ``scale`` in [0, 1]: the loss of a datapoint is
        ``scale (|e|^2 + (eta - 1) <e, x / |x|>^2)`` times a number that all have in common. Where
        no query can reach a score that matters, eta is 1 and scale 0.

    Raises
    ------
    ConfigError, ShapeError
        As for `score_aware_weights`.

    Notes
    -----
    Computed at 128 norms to each factor of two, where there are datapoints, and interpolated in
    between, logarithm by logarithm: within .1 % where scale is above 1e-10. So the cost hardly
    depends on n, and a datapoint's eta not at all on the others.
    """
    lengths = as_norms(norms)
    check_count("dimension", dimension)
    log, jumps = _log_and_jumps(weight)
    positive = lengths > 0.0
    along, across = np.empty_like(lengths), np.empty_like(lengths)
    along[~positive], across[~positive] = log_moments(np.zeros(1), dimension, log, jumps)
    steps = np.log2(lengths[positive]) * _STEPS
    cells = np.floor(steps)
    ends, place = np.unique(np.concatenate([cells, cells + 1.0]), return_inverse=True)
    low, high = place.reshape(2, -1)
    at_ends = log_moments(np.exp2(ends / _STEPS), dimension, log, jumps)
    with np.errstate(invalid="ignore"):  # minus infinity plus infinity, replaced below
        for out, values in zip((along, across), at_ends, strict=True):
            share = steps - cells
            out[positive] = values[low] * (1.0 - share) + values[high] * share
    # Where datapoints are only just long enough to matter, logarithms begin at minus infinity.
    edge = np.isneginf(at_ends[0]) | np.isneginf(at_ends[1])
    exact = np.flatnonzero(positive)[edge[low] | edge[high]]
    along[exact], across[exact] = log_moments(lengths[exact], dimension, log, jumps)
    counts = np.isfinite(along) & np.isfinite(across)
    eta, scale = np.ones(len(lengths), np.float32), np.zeros(len(lengths), np.float32)
    if counts.any():
        with np.errstate(under="ignore"):
            eta[counts] = np.exp(along[counts] - across[counts])
            scale[counts] = np.exp(across[counts] - across[counts].max())
    return eta, scale


def score_aware_loss(x: ArrayLike, x_tilde: ArrayLike, h_par: ArrayLike, h_perp: ArrayLike) -> F64:
    """Return the loss of replacing datapoints by others (Theorem 3.2).

    Parameters
    ----------
    x : array_like of shape (n, d), or (d,)
        The datapoints. One of zeros has no direction: all of its error is across.
    x_tilde : array_like of the same shape
        What stands for them.
    h_par, h_perp : array_like of shape (n,), or numbers
        How much errors along and across the datapoint cost, as `score_aware_weights` says.

    Returns
    -------
    float64 array of shape (n,)
        Or a number, for one datapoint.

    Raises
    ------
    ShapeError
        If the shapes do not go together.

    Examples
    --------
    >>> float(score_aware_loss([2.0, 0.0], [1.5, 0.5], h_par=4.0, h_perp=1.0))
    1.25
    """
    points, given = as_numbers(x, "x"), as_numbers(x_tilde, "x_tilde")
    if points.ndim not in (1, 2) or points.shape != given.shape:
        raise ShapeError(
            f"x has shape {points.shape} and x_tilde {given.shape}; expected both (n, d), or (d,)"
        )
    costs = as_numbers(h_par, "h_par"), as_numbers(h_perp, "h_perp")
    for name, cost in zip(("h_par", "h_perp"), costs, strict=True):
        if cost.shape not in ((), points.shape[:-1]):
            raise ShapeError(
                f"{name} has shape {cost.shape}; expected a number or shape {points.shape[:-1]}"
            )
    error = points - given
    norms = np.linalg.norm(points, axis=-1, keepdims=True)
    units = np.divide(points, norms, out=np.zeros_like(points), where=norms > 0.0)
    along = np.sum(error * units, axis=-1)
    across = error - along[..., None] * units
    loss: F64 = costs[0] * along**2 + costs[1] * np.sum(across**2, axis=-1)
    return loss


def _log_and_jumps(
    weight: Callable[[F64], ArrayLike],
) -> tuple[Callable[[F64], F64], tuple[float, ...]]:
    checked = as_weight(weight)

    def log(scores: F64) -> F64:
        logs = np.asarray(checked.log(scores), np.float64)
        if logs.shape != scores.shape:
            raise ConfigError(
                f"{checked.name}: log returned shape {logs.shape} for scores of shape "
                f"{scores.shape}; expected the same"
            )
        bad = ~(logs < np.inf)
        if bad.any():
            at = int(np.argmax(bad))
            raise ConfigError(
                f"{checked.name}: log({scores.flat[at]:g}) is {logs.flat[at]}; expected a number "
                "below infinity"
            )
        return logs

    return log, checked.jumps


def as_norms(norms: ArrayLike) -> F64:
    """Return Euclidean norms as float64.

    Raises
    ------
    ConfigError, ShapeError
        If they are no numbers, below 0 or not finite; another shape than (n,).
    """
    try:
        lengths = as_numbers(norms, "norms")
    except NonFiniteError:
        raise ConfigError("norms must be finite and at least 0") from None
    if lengths.ndim != 1:
        raise ShapeError(f"norms has shape {lengths.shape}; expected (n,)")
    if not (lengths >= 0.0).all():
        raise ConfigError("norms must be finite and at least 0")
    return lengths

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

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swann.config.checks import check_count
from swann.errors import ConfigError, NonFiniteError, ShapeError
from swann.quantize.sphere import log_moments
from swann.vectors import as_numbers

__all__ = [
    "Weight",
    "as_norms",
    "as_weight",
    "constant_weight",
    "exponential_weight",
    "relative_weights",
    "score_aware_loss",
    "score_aware_weights",
    "threshold_weight",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_STEPS = 128
"""Norms at which weights are computed, of which there are so many between 1 and 2."""


@dataclass(frozen=True)
class Weight:
    """How much a score matters: a weight function w(t), called with an array of scores.

    Any callable that takes and returns an array may stand for one; `Weight` adds what makes
    integrals of it exact and safe from overflow.

    Parameters
    ----------
    name : str
        How it is shown.
    log : callable
        The logarithm of w, of a float64 array; minus infinity where w is 0.
    jumps : tuple of float
        The scores at which w is not continuous.
    """

    name: str
    log: Callable[[F64], F64]
    jumps: tuple[float, ...] = ()

    def __call__(self, scores: ArrayLike) -> F64:
        """Return w of every score."""
        return np.exp(self.log(np.asarray(scores, np.float64)))

    def __repr__(self) -> str:
        return self.name


def constant_weight() -> Weight:
    """Return w(t) = 1: all scores matter alike, and the loss is plain squared error.

    Returns
    -------
    Weight
        The only one, up to a factor, under which h_par and h_perp are equal at any norm (Guo et al.
        2020, Theorem 3.3).

    Examples
    --------
    >>> score_aware_weights([1.0], 4, constant_weight())
    (array([0.25]), array([0.25]))
    """
    return Weight("constant_weight()", np.zeros_like)


def threshold_weight(threshold: float) -> Weight:
    """Return w(t) = 1 from `threshold` on, and 0 below: the weight that ScaNN trains with.

    Parameters
    ----------
    threshold : float
        T, of any sign.

    Returns
    -------
    Weight
        Datapoints no longer than T then do not count at all (Guo et al. 2020, section 3.2), unlike
        with the setting ``threshold`` of a quantizer.

    Raises
    ------
    ConfigError
        If `threshold` is no finite number.

    Examples
    --------
    >>> threshold_weight(0.2)([0.1, 0.2, 0.3])
    array([0., 1., 1.])
    """
    at = _finite("threshold", threshold)

    def log(scores: F64) -> F64:
        return np.where(scores >= at, 0.0, -np.inf)

    return Weight(f"threshold_weight({at:g})", log, (at,))


def exponential_weight(rate: float) -> Weight:
    """Return w(t) = exp(rate t): every score matters, the higher the more.

    Parameters
    ----------
    rate : float
        How fast it grows. The sign does not matter: errors are squared, so w(t) + w(-t) counts.

    Returns
    -------
    Weight
        Long datapoints then count more than short ones.

    Raises
    ------
    ConfigError
        If `rate` is no finite number.

    Examples
    --------
    >>> exponential_weight(2.0)([0.0, 0.5])
    array([1.        , 2.71828183])
    """
    by = _finite("rate", rate)
    return Weight(f"exponential_weight({by:g})", lambda scores: by * scores)


def as_weight(weight: object) -> Weight:
    """Return a weight function: `weight` itself, or a wrapper that checks what a callable returns.

    Parameters
    ----------
    weight : Weight or callable
        A callable gets a float64 array of scores and returns finite numbers of at least 0, as an
        array of the same shape or as one number. The scores at which it jumps are taken from its
        attribute ``jumps``, where it has one; other jumps are found, at some cost.

    Raises
    ------
    ConfigError
        If `weight` is not callable; when called, if what it returns cannot be weights.
    """
    if isinstance(weight, Weight):
        return weight
    if not callable(weight):
        raise ConfigError(f"weight is {weight!r}; expected a function of an array of scores")
    name = getattr(weight, "__name__", repr(weight))

    def log(scores: F64) -> F64:
        try:
            values = np.asarray(weight(scores), np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"weight returned no numbers: {error}") from error
        if values.shape not in (scores.shape, ()):
            raise ConfigError(
                f"weight returned shape {values.shape} for scores of shape {scores.shape}; "
                "expected the same"
            )
        values = np.broadcast_to(values, scores.shape)
        good = (values >= 0.0) & (values < np.inf)
        if not good.all():
            at = int(np.argmin(good))
            raise ConfigError(
                f"weight({scores.flat[at]:g}) is {values.flat[at]}; expected a finite number of at "
                "least 0"
            )
        with np.errstate(divide="ignore"):
            return np.log(values)

    jumps = tuple(_finite("weight.jumps", jump) for jump in getattr(weight, "jumps", ()))
    return Weight(name, log, jumps)


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


def _finite(name: str, value: float) -> float:
    try:
        number = math.nan if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name} is {value!r}; expected a finite number")
    return number

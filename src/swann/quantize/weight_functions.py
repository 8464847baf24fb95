"""Weight functions: how much a score matters. What they make of errors: `weights.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swann.errors import ConfigError

__all__ = ["Weight", "as_weight", "constant_weight", "exponential_weight", "threshold_weight"]

F64 = NDArray[np.float64]


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
    >>> from swann.quantize import score_aware_weights
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


def _finite(name: str, value: float) -> float:
    try:
        number = math.nan if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name} is {value!r}; expected a finite number")
    return number

"""The score-aware loss: how much more an error along the datapoint costs than one across it.

Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", ICML 2020.
An error e of a datapoint x changes the scores <q, x> of the queries q; only the queries that score
x highly matter. With queries uniform on the unit sphere and weight w(t) = I(t >= T), the expected
weighted square error is (Theorem 3.2)

    h_par |e_par|^2 + h_perp |e_perp|^2,

e_par being the part of e along x. Only the ratio eta = h_par / h_perp shapes a codebook.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swann.config.checks import check_count, check_number, check_threshold
from swann.errors import ConfigError
from swann.quantize.weights import as_norms

__all__ = [
    "LARGEST_RATIO",
    "anisotropic_weights",
    "eta",
    "eta_limit",
    "eta_recursion",
    "ratio_for_eta",
    "weight_steps",
]

LARGEST_RATIO = 0.99
"""Datapoints shorter than the threshold cannot reach it; they count as barely reaching it."""


_UPWARD = 8.0
"""The recursion on the integrals is run upward while ``d r^2`` is below: it then loses 2 digits."""


_NODES, _NEWTON_STEPS = 128, 4


@functools.cache
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Gauss-Legendre nodes and weights on [-1, 1].

    By Newton's method. NumPy's `leggauss` solves an eigenproblem, and the library that does it
    keeps a thread of its own busy for a while after: two of ours had one core and a half then.
    """
    n = _NODES
    nodes = -np.cos(np.pi * (np.arange(n) + 0.75) / (n + 0.5))
    for _ in range(_NEWTON_STEPS):
        before, value = np.ones(n), nodes  # Legendre polynomials of degrees 0 and 1
        for k in range(2, n + 1):
            before, value = value, ((2 * k - 1) * nodes * value - (k - 1) * before) / k
        slope = n * (before - nodes * value) / (1.0 - nodes**2)
        nodes = nodes - value / slope
    return nodes, 2.0 / ((1.0 - nodes**2) * slope**2)


def eta(ratio: float, dimension: int) -> float:
    """Return h_par / h_perp for the weight I(t >= T), exactly.

    Parameters
    ----------
    ratio : float
        T / |x|, in [0, 1).
    dimension : int
        Of the datapoints, at least 1.

    Returns
    -------
    float
        At least 1; 1 at `ratio` 0. For one dimension there is no error across: 1.

    Raises
    ------
    ConfigError
        If `ratio` or `dimension` is out of range.

    Notes
    -----
    Guo et al. 2020, Theorems 3.2 and 3.4. With I_d the integral of sin^d over [0, arccos(T / |x|)],
    eta = (d - 1) (I_{d-2} - I_d) / I_d. Instead of the recursion on I_d, which cancels badly, the
    integrals are summed numerically, scaled by the largest integrand, at 128 points.

    Examples
    --------
    >>> round(eta(0.2, 100), 2)
    5.95
    >>> eta(0.0, 100)
    1.0
    """
    ratio, dimension = _check(ratio, dimension)
    return float(_etas(np.array([ratio]), dimension)[0])


def _etas(ratios: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
    """Return `eta` of each ratio."""
    if dimension < 2:
        return np.ones(len(ratios))
    nodes, weights = _quadrature()
    top = np.arccos(ratios)
    # sin^d is all but zero far from its greatest value, at the end of the interval.
    bottom = np.maximum(0.0, top - 40.0 / (math.sqrt(dimension) + dimension * ratios))
    theta = bottom[:, None] + (nodes + 1.0) * ((top - bottom) / 2.0)[:, None]
    sine = np.sin(theta)
    log_sine = np.log(sine)
    mass = weights * np.exp((dimension - 2) * (log_sine - log_sine.max(axis=1)[:, None]))
    across = (mass * sine**2).sum(axis=1)
    along = (mass * np.cos(theta) ** 2).sum(axis=1)
    values: NDArray[np.float64] = (dimension - 1) * along / across
    values[ratios == 0.0] = 1.0  # not all but 1
    return values


def eta_recursion(ratio: float, dimension: int) -> float:
    """Return what `eta` does, by the recursion of Theorem 3.4 of Guo et al. 2020.

    Parameters
    ----------
    ratio : float
        T / |x|, in [0, 1).
    dimension : int
        Of the datapoints, at least 1.

    Returns
    -------
    float
        As `eta`, to ten digits.

    Raises
    ------
    ConfigError
        If `ratio` or `dimension` is out of range.

    Notes
    -----
    With s = sin(arccos(r)), integration by parts gives ``d I_d = (d - 1) I_{d-2} - r s^(d-1)``, and
    so ``eta = (d - 1) (I_{d-2} - I_d) / I_d = 1 + r s^(d-1) / I_d``, in which nothing cancels.
    Upward the recursion loses digits where ``s^-d`` is large; there it is run downward, from a
    dimension in which all but nothing of the integral is left, on ``J_d = I_d / (r s^(d+1))``, for
    which ``(d - 1) J_{d-2} = d s^2 J_d + 1``. Costs at most about ``d + 80 / r^2`` steps, and
    never more than ``9 d``.

    Examples
    --------
    >>> round(eta_recursion(0.2, 100), 10) == round(eta(0.2, 100), 10)
    True
    """
    ratio, dimension = _check(ratio, dimension)
    if dimension < 2 or ratio <= 0.0:
        return 1.0
    square = 1.0 - ratio * ratio  # s^2
    if dimension * -math.log(square) < _UPWARD:
        integral = math.acos(ratio) if dimension % 2 == 0 else 1.0 - ratio
        power = math.sqrt(square) if dimension % 2 == 0 else square  # s^(k-1)
        for k in range(dimension % 2 + 2, dimension + 1, 2):
            integral = ((k - 1) * integral - ratio * power) / k
            power *= square
        return 1.0 + ratio * power / (square * integral)
    k = dimension + 2 * math.ceil(40.0 / -math.log(square))
    scaled = 1.0 / (k * ratio * ratio)
    while k > dimension:
        scaled = (k * square * scaled + 1.0) / (k - 1)
        k -= 2
    return 1.0 + 1.0 / (square * scaled)


def eta_limit(ratio: float, dimension: int) -> float:
    """Return what `eta` tends to in high dimension: (d - 1) r^2 / (1 - r^2).

    Parameters
    ----------
    ratio : float
        T / |x|, in [0, 1): r.
    dimension : int
        Of the datapoints, at least 1: d.

    Returns
    -------
    float
        Always below `eta`, and below 1 for small ratios.

    Raises
    ------
    ConfigError
        If `ratio` or `dimension` is out of range.

    Notes
    -----
    Guo et al. 2020, Theorem 3.4; ScaNN uses this form.

    Examples
    --------
    >>> eta_limit(0.2, 100)
    4.125000000000001
    """
    ratio, dimension = _check(ratio, dimension)
    return (dimension - 1) * ratio**2 / (1.0 - ratio**2)


def ratio_for_eta(wanted: float, dimension: int) -> float:
    """Return the ratio T / |x| at which `eta` is `wanted`, up to `LARGEST_RATIO`.

    Parameters
    ----------
    wanted : float
        At least 1.
    dimension : int
        Of the datapoints, at least 2: in one dimension `eta` is always 1.

    Examples
    --------
    >>> round(ratio_for_eta(4.0, 100), 3), round(ratio_for_eta(4.0, 768), 3)
    (0.151, 0.055)
    """
    low, high = 0.0, LARGEST_RATIO
    for _ in range(60):  # eta rises with the ratio
        middle = (low + high) / 2.0
        if eta(middle, dimension) < wanted:
            low = middle
        else:
            high = middle
    return high


def anisotropic_weights(norms: ArrayLike, dimension: int, threshold: float) -> NDArray[np.float32]:
    """Return eta - 1 of datapoints of the given norms, for the weight I(t >= T).

    Parameters
    ----------
    norms : array_like of shape (n,)
        Their Euclidean norms; zero is allowed (such a datapoint has no direction).
    dimension : int
        Of the datapoints, at least 1.
    threshold : float
        T, above 0: the inner products, with unit queries, from which accuracy matters. Datapoints
        too short to reach it count as barely reaching it (`LARGEST_RATIO`).

    Returns
    -------
    float32 array of shape (n,)
        Interpolated on a grid of 512 ratios: eta within 0.2 % up to a ratio of 0.9, within 1 %
        beyond.

    Raises
    ------
    ConfigError, ShapeError
        If a norm, `dimension` or `threshold` is out of range; or `norms` is no row of numbers.

    Notes
    -----
    Guo et al. 2020, Theorem 3.4; the loss of a datapoint is ``|e|^2 + (eta - 1) <e, x / |x|>^2``.
    The grid of a dimension costs some milliseconds, once; then a datapoint costs an interpolation.

    Examples
    --------
    >>> anisotropic_weights([1.0, 2.0], 100, 0.2).round(2)
    array([4.95, 1.54], dtype=float32)
    """
    lengths = as_norms(norms)
    if math.isnan(check_threshold("threshold", threshold)):
        raise ConfigError("threshold is None or NaN; expected a finite number above 0")
    values = weight_steps(check_count("dimension", dimension))
    with np.errstate(divide="ignore"):
        ratios = np.minimum(threshold / lengths, LARGEST_RATIO)
    grid = np.linspace(0.0, LARGEST_RATIO, len(values))
    return np.interp(ratios, grid, values).astype(np.float32)


@functools.lru_cache(maxsize=16)
def weight_steps(dimension: int) -> NDArray[np.float64]:
    """Return eta - 1 at 512 even steps of T / |x| from 0 to `LARGEST_RATIO`."""
    grid = np.linspace(0.0, LARGEST_RATIO, 512)
    values = _etas(grid, dimension) - 1.0
    values.flags.writeable = False
    return values


def _check(ratio: object, dimension: object) -> tuple[float, int]:
    checked = check_number("ratio", ratio, most=1.0, open_ends=(False, True))
    return checked, check_count("dimension", dimension)

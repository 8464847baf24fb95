"""The score-aware loss: eta against its definition, by integration and by throwing dice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from swann.errors import ConfigError, DTypeError, ShapeError
from swann.quantize import anisotropic
from swann.quantize.anisotropic import anisotropic_weights, eta, eta_limit, eta_recursion

DIMENSIONS = [2, 3, 4, 10, 25, 100, 784, 3072, 100_000]
RATIOS = [1e-6, 0.01, 0.1, 0.2, 0.5, 0.8, 0.99]


def integral(power: int, top: float) -> float:
    """The logarithm of the integral of sin^power over [0, top], by Simpson's rule."""
    # All but nothing of it lies within some widths 1 / sqrt(power) of the peak.
    theta = np.linspace(max(0.0, top - 60 / math.sqrt(power + 1)), top, 200_001)
    with np.errstate(divide="ignore"):
        log = power * np.log(np.sin(theta)) if power else np.zeros_like(theta)
    value = np.exp(log - log.max())
    simpson = value[0] + value[-1] + 4 * value[1:-1:2].sum() + 2 * value[2:-1:2].sum()
    return float(log.max() + math.log(simpson * (theta[1] - theta[0]) / 3))


def test_the_quadrature_is_that_of_gauss_and_legendre() -> None:
    nodes, weights = anisotropic._quadrature()
    of_numpy = np.polynomial.legendre.leggauss(len(nodes))
    assert np.allclose(nodes, of_numpy[0], rtol=0.0, atol=1e-15)
    assert np.allclose(weights, of_numpy[1], rtol=1e-10)
    for degree in (0, 2, 40, 254):  # exact up to 255
        assert weights @ nodes**degree == pytest.approx(2.0 / (degree + 1), rel=1e-12)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_eta_is_the_ratio_of_its_integrals(ratio: float, dimension: int) -> None:
    """h_par ~ I_{d-2} - I_d, h_perp ~ I_d / (d - 1), the I by brute force."""
    top = math.acos(ratio)
    quotient = math.exp(integral(dimension - 2, top) - integral(dimension, top))
    expected = (dimension - 1) * (quotient - 1)
    # The difference cancels: quotient - 1 is about eta / d.
    tolerance = 1e-6 + 1e-9 * dimension
    assert eta(ratio, dimension) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_recursion_gives_the_same(ratio: float, dimension: int) -> None:
    """Theorem 3.4: a recursion from I_0 and I_1, here without cancellation in any dimension."""
    assert eta_recursion(ratio, dimension) == pytest.approx(eta(ratio, dimension), rel=1e-10)


@given(ratio=st.floats(1e-4, 0.999), dimension=st.integers(2, 2000))
@example(ratio=0.999, dimension=8)
@settings(max_examples=100)
def test_the_recursion_holds_everywhere(ratio: float, dimension: int) -> None:
    value = eta_recursion(ratio, dimension)
    assert value == pytest.approx(eta(ratio, dimension), rel=1e-10)
    assert value > max(1.0, eta_limit(ratio, dimension))


@pytest.mark.parametrize("dimension", [2, 3, 5, 8])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
def test_eta_is_what_uniform_queries_see(ratio: float, dimension: int) -> None:
    """The definition itself: queries uniform on the sphere, of which those that score x at least
    T count; the square error in their scores from a unit error along x, and across it."""
    rng = np.random.default_rng(dimension)
    queries = rng.standard_normal((400_000, dimension))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    counted = queries[queries[:, 0] >= ratio]  # x is the first axis
    along, across = (counted[:, 0] ** 2).mean(), (counted[:, 1:] ** 2).mean()
    assert eta(ratio, dimension) == pytest.approx(along / across, rel=0.03)


@given(ratio=st.floats(0, 0.999), dimension=st.integers(1, 5000))
@settings(max_examples=300)
def test_an_error_along_never_costs_less_than_one_across(ratio: float, dimension: int) -> None:
    value = eta(ratio, dimension)
    assert 1.0 - 1e-9 <= value < math.inf
    assert value <= eta(min(0.9995, ratio + 0.0005), dimension) * (1 + 1e-9)
    assert value >= eta_limit(ratio, dimension) * (1 - 1e-9)


def test_known_values() -> None:
    assert eta_limit(0.2, 100) == pytest.approx(4.125, rel=1e-15)
    assert eta(0.0, 100) == 1.0
    assert eta(0.7, 1) == 1.0
    # In the plane and in space the integrals are elementary.
    t, r = math.acos(0.5), 0.5
    flat = (t + r * math.sqrt(1 - r * r)) / (t - r * math.sqrt(1 - r * r))
    assert eta(0.5, 2) == pytest.approx(flat, rel=1e-12)
    low, high = (1 - r**3) / 3, (1 - r) - (1 - r**3) / 3  # of cos^2 and sin^2 in dt
    assert eta(0.5, 3) == pytest.approx(2 * low / high, rel=1e-12)


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.5])
def test_eta_tends_to_its_limit(ratio: float) -> None:
    gaps = [eta(ratio, d) / eta_limit(ratio, d) - 1 for d in (100, 1000, 10_000, 100_000)]
    assert all(a > b > 0 for a, b in itertools.pairwise(gaps))
    assert gaps[-1] < 0.01


# ---- Weights of datapoints


def exact_weights(norms: NDArray[np.float32], dimension: int, t: float) -> NDArray[np.float64]:
    return np.array([eta(min(t / float(norm), 0.99), dimension) - 1 for norm in norms])


@pytest.mark.parametrize("dimension", [1, 2, 10, 100, 784, 3072])
def test_interpolation_is_close(dimension: int) -> None:
    ratios = np.random.default_rng(0).uniform(0.001, 0.9, 500)
    for low, high, tolerance in ((0.001, 0.9, 2e-3), (0.9, 0.99, 1e-2)):
        norms = (0.2 / np.interp(ratios, (0.001, 0.9), (low, high))).astype(np.float32)
        error = anisotropic_weights(norms, dimension, 0.2) - exact_weights(norms, dimension, 0.2)
        assert (np.abs(error) <= tolerance * (1 + exact_weights(norms, dimension, 0.2))).all()


@pytest.mark.parametrize("dimension", [2, 100, 784])
def test_weights_grow_with_the_ratio(dimension: int) -> None:
    norms = np.linspace(0.01, 50, 3000, dtype=np.float32)
    weights = anisotropic_weights(norms, dimension, 0.2)
    assert weights.dtype == np.float32
    assert (np.diff(weights) <= 0).all()
    assert weights[0] > weights[-1] >= 0
    assert (anisotropic_weights(norms, dimension, 0.3) >= weights).all()


def test_datapoints_that_cannot_reach_the_threshold_count_as_just_reaching_it() -> None:
    norms = np.array([0.0, 1e-30, 0.05, 0.2, 0.2001], np.float32)
    weights = anisotropic_weights(norms, 50, 0.2)
    assert np.isfinite(weights).all()
    assert len(set(weights.tolist())) == 1
    assert weights[0] == pytest.approx(eta(0.99, 50) - 1, rel=1e-6)


def test_only_the_ratio_matters() -> None:
    norms = np.array([0.5, 1.0, 2.0], np.float32)
    np.testing.assert_allclose(
        anisotropic_weights(norms, 100, 0.2), anisotropic_weights(2 * norms, 100, 0.4), rtol=1e-6
    )


# ---- What cannot be


@pytest.mark.parametrize("function", [eta, eta_recursion, eta_limit])
def test_ratios_and_dimensions_out_of_range_are_refused(function: Callable[..., float]) -> None:
    for ratio in (-0.1, 1.0, 2.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match=r"ratio is .*; expected .* at least 0, below 1"):
            function(ratio, 100)
    for dimension in (0, -3, 1.5):
        with pytest.raises(ConfigError, match="dimension is"):
            function(0.2, dimension)


def test_weights_of_no_datapoints_are_refused() -> None:
    for norms in ([-1.0], [math.nan], [math.inf]):
        with pytest.raises(ConfigError, match="norms"):
            anisotropic_weights(norms, 10, 0.2)
    with pytest.raises(DTypeError, match="norms"):
        anisotropic_weights(["long"], 10, 0.2)  # type: ignore[arg-type]
    for threshold in (0.0, -1.0, math.nan, math.inf, None):
        with pytest.raises(ConfigError, match="threshold is"):
            anisotropic_weights([1.0], 10, threshold)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="dimension is 0"):
        anisotropic_weights([1.0], 0, 0.2)
    with pytest.raises(ShapeError, match="norms has shape"):
        anisotropic_weights([[1.0]], 10, 0.2)

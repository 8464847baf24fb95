"""The score-aware loss for any weight function: against dice and theorems, in any dimension."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import swann.quantize
from swann.errors import ConfigError, DTypeError, ShapeError
from swann.quantize import (
    Weight,
    constant_weight,
    eta,
    eta_recursion,
    exponential_weight,
    relative_weights,
    score_aware_loss,
    score_aware_weights,
    threshold_weight,
)

F64 = NDArray[np.float64]
RNG = np.random.default_rng(0)

some = settings(max_examples=60)


def test_the_names() -> None:
    names = swann.quantize.__all__
    assert names == sorted(names)
    assert {
        "BinaryQuantizer",
        "ProductQuantizer",
        "VectorQuantizer",
        "Weight",
        "anisotropic_weights",
        "constant_weight",
        "eta",
        "eta_limit",
        "eta_recursion",
        "exponential_weight",
        "hamming_distances",
        "hamming_search",
        "relative_weights",
        "score_aware_loss",
        "score_aware_weights",
        "threshold_weight",
    } <= set(names)
    for name in names:
        assert getattr(swann.quantize, name).__doc__, f"{name} has no docstring"


# ---- The definition


def staircase(scores: F64) -> F64:
    return 0.2 + 1.0 * (scores > 0.1) + 3.0 * (scores > 0.35)


@pytest.mark.parametrize("dimension", [2, 3, 8, 30])
@pytest.mark.parametrize(
    "weight",
    [
        constant_weight(),
        threshold_weight(0.3),
        exponential_weight(4.0),
        staircase,
        lambda scores: scores**2,
    ],
)
def test_dice_agree(weight: Callable[[F64], F64], dimension: int) -> None:
    """E[w(<q, x>) <q, e>^2] over queries on the sphere, for any datapoint and error."""
    rng = np.random.default_rng(dimension)
    queries = rng.standard_normal((100_000, dimension))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    x, error = 1.2 * queries[0], rng.standard_normal(dimension)
    seen = weight(queries @ x) * (queries @ error) ** 2
    along, across = score_aware_weights([np.linalg.norm(x)], dimension, weight)
    expected = score_aware_loss(x, x - error, along[0], across[0])
    assert expected == pytest.approx(seen.mean(), abs=5 * seen.std() / math.sqrt(len(seen)))
    assert expected == pytest.approx(seen.mean(), rel=0.1)


def test_in_one_dimension_there_is_no_error_across() -> None:
    along, across = score_aware_weights([0.0, 0.5, 3.0], 1, exponential_weight(2.0))
    np.testing.assert_allclose(along, np.cosh([0.0, 1.0, 6.0]), rtol=1e-14)
    np.testing.assert_array_equal(along, across)


@pytest.mark.parametrize("dimension", [2, 3, 17, 100, 784, 4096])
def test_constant_weights_are_plain_squared_error(dimension: int) -> None:
    """Theorem 3.3, the case of equality."""
    for part in score_aware_weights([0.0, 0.3, 7.0], dimension, lambda scores: 1.0):
        np.testing.assert_allclose(part, 1.0 / dimension, rtol=1e-9)


@pytest.mark.parametrize("dimension", [2, 5, 100, 784, 4096])
@pytest.mark.parametrize("threshold", [1e-3, 0.2, 0.5, 0.9, 0.999])
def test_a_threshold_is_the_eta_of_old(dimension: int, threshold: float) -> None:
    known, _ = relative_weights([1.0], dimension, threshold_weight(threshold))
    assert known[0] == pytest.approx(eta(threshold, dimension), rel=1e-6)
    # A callable that does not say where it jumps: the place is found.
    found, _ = relative_weights([1.0], dimension, lambda scores: scores >= threshold)
    assert found[0] == pytest.approx(eta(threshold, dimension), rel=1e-6)


def test_a_jump_that_is_known_is_cheap_and_exact() -> None:
    class Counted:
        values = 0

        def __call__(self, scores: F64) -> F64:
            self.values += scores.size
            return 1.0 * (scores >= 0.2)

    class Told(Counted):
        jumps = (0.2,)

    told, left_alone = Told(), Counted()
    for weight, tolerance in ((told, 1e-9), (left_alone, 1e-6)):
        along, across = score_aware_weights([1.0], 100, weight)
        assert along[0] / across[0] == pytest.approx(eta_recursion(0.2, 100), rel=tolerance)
    assert told.values < 1500
    assert told.values < 0.5 * left_alone.values


@pytest.mark.parametrize("dimension", [3, 100, 4096])
@pytest.mark.parametrize("rate", [-3.0, 0.5, 30.0, 2000.0])
def test_exponential_weights_are_ratios_of_series(rate: float, dimension: int) -> None:
    """E exp(r cos t) = sum of (r^2/4)^k Gamma(d/2) / (k! Gamma(d/2 + k)), and its derivatives."""
    k = np.arange(4000)
    half = dimension / 2
    log_gamma = np.vectorize(math.lgamma)
    terms = 2 * k * math.log(abs(rate) / 2) - log_gamma(k + 1) - log_gamma(half + k)
    share = np.exp(terms - terms.max())
    share /= share.sum()
    along = (share * 2 * k * (2 * k - 1)).sum() / rate**2  # second derivative over the value
    across = (1 - along) / (dimension - 1)
    value, _ = relative_weights([1.0], dimension, exponential_weight(rate))
    assert value[0] == pytest.approx(along / across, rel=1e-5)


# ---- Theorem 3.3


@st.composite
def monotone(draw: st.DrawFn) -> Callable[[F64], F64]:
    """A weight that is 0 for negative scores and rises from there: steps, a power, an exponential.

    What counts is w(t) + w(-t), so a rise at negative scores would count the other way.
    """
    steps = draw(st.lists(st.floats(0, 0.9), max_size=2))
    rate, power = draw(st.floats(0, 8)), draw(st.integers(0, 4))

    def weight(scores: F64) -> F64:
        positive = np.maximum(scores, 0.0)
        value = np.exp(rate * positive) + positive**power
        return (scores >= 0.0) * (value + sum(1.0 * (scores > step) for step in steps))

    return weight


@given(weight=monotone(), norm=st.floats(0.5, 2.0), dimension=st.integers(2, 300))
@settings(max_examples=20)
def test_rising_weights_count_errors_along_more(
    weight: Callable[[F64], F64], norm: float, dimension: int
) -> None:
    along, across = score_aware_weights([norm], dimension, weight)
    rise = np.ptp(weight(np.linspace(0.02, 0.2, 9)))
    assert along[0] >= across[0] * (1 - 1e-6)
    if rise > 0.01 and dimension < 30:  # elsewhere nearly all queries see the same weight
        assert along[0] > across[0] * (1 + 1e-9)


@given(
    base=st.floats(0, 2),
    rise=st.floats(0.01, 2),
    step=st.floats(0.01, 1.5),
    norm=st.floats(0.1, 9),
    dimension=st.integers(2, 2000),
)
@settings(max_examples=40)
def test_only_constant_weights_count_all_errors_alike(
    base: float, rise: float, step: float, norm: float, dimension: int
) -> None:
    """Equality in Theorem 3.3, in any dimension: a step of any height on any constant breaks it,
    and by how much is known, since h_par and h_perp are linear in w."""
    ratio = min(0.9, step / math.sqrt(dimension))  # a part of the queries that is not next to none
    low, high = base, base + rise

    def stairs(scores: F64) -> F64:
        return np.where(scores >= ratio * norm, high, low)

    stairs.jumps = (ratio * norm,)  # type: ignore[attr-defined]
    along, across = score_aware_weights([norm], dimension, stairs)
    assert along[0] > across[0] * (1 + 1e-4 * rise / (1 + base))
    ours = (along[0] - base / dimension) / (across[0] - base / dimension)
    assert ours == pytest.approx(eta_recursion(ratio, dimension), rel=1e-5)
    flat = score_aware_weights([norm], dimension, lambda scores: high)
    assert flat[0][0] == pytest.approx(flat[1][0], rel=1e-9)


def test_falling_weights_count_errors_along_less() -> None:
    """Or the theorem would be one of the code, not of the weights: w highest at a right angle."""
    along, across = score_aware_weights([1.0], 10, lambda scores: np.exp(-30 * scores**2))
    assert along[0] < 0.7 * across[0]


# ---- Scales


def test_scales_are_relative_to_the_largest() -> None:
    norms = np.random.default_rng(0).uniform(0.4, 3.0, 500)
    for weight in (threshold_weight(0.5), exponential_weight(9.0), staircase):
        along, across = score_aware_weights(norms, 60, weight)
        value, scale = relative_weights(norms, 60, weight)
        assert value.dtype == scale.dtype == np.float32
        assert scale.max() == 1.0
        counts = scale > 1e-6
        np.testing.assert_allclose(scale, across / across.max(), rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose((value * across)[counts], along[counts], rtol=1e-3)


def test_a_datapoint_does_not_depend_on_the_others() -> None:
    norms = np.random.default_rng(1).uniform(0.0, 3.0, 100)
    together, _ = relative_weights(norms, 20, threshold_weight(0.5))
    alone = [relative_weights([norm], 20, threshold_weight(0.5))[0][0] for norm in norms]
    np.testing.assert_array_equal(together, alone)


def test_datapoints_that_no_query_scores_high_do_not_count() -> None:
    weight = threshold_weight(1.0)
    along, across = score_aware_weights([0.0, 0.5, 0.999], 20, weight)
    assert not along.any()
    assert not across.any()
    value, scale = relative_weights([0.0, 0.5, 0.999, 1.002, 1.5], 20, weight)
    np.testing.assert_array_equal(value[:3], 1.0)
    np.testing.assert_array_equal(scale[:3], 0.0)
    assert 0.0 < scale[3] < scale[4] == 1.0
    assert value[3] == pytest.approx(eta(1 / 1.002, 20), rel=1e-5)


def test_weights_beyond_the_range_of_floats() -> None:
    value, scale = relative_weights([1.0, 40.0], 4096, exponential_weight(1000.0))
    assert np.isfinite(value).all()
    assert scale.tolist() == [0.0, 1.0]
    tiny, _ = relative_weights([1.0], 4096, threshold_weight(0.99))
    assert tiny[0] == pytest.approx(eta(0.99, 4096), rel=1e-6)


# ---- The loss


@given(seed=st.integers(0, 2**32 - 1), dimension=st.integers(1, 6))
@some
def test_the_loss_splits_the_error(seed: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    x, other = rng.standard_normal((2, 5, dimension))
    equal = score_aware_loss(x, other, 2.0, 2.0)
    np.testing.assert_allclose(equal, 2.0 * ((x - other) ** 2).sum(axis=1), rtol=1e-9)
    stretched = score_aware_loss(x, 0.7 * x, 3.0, 100.0)
    np.testing.assert_allclose(stretched, 3.0 * 0.09 * (x**2).sum(axis=1), rtol=1e-9)
    h_par = rng.uniform(0, 2, 5)
    rows = score_aware_loss(x, other, h_par, 1.0)
    assert rows[2] == pytest.approx(float(score_aware_loss(x[2], other[2], h_par[2], 1.0)))


def test_zeros_have_no_direction() -> None:
    assert score_aware_loss([0.0, 0.0], [3.0, 4.0], 100.0, 2.0) == 50.0


# ---- What cannot be


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (3.0, "weight is 3.0; expected a function"),
        (lambda scores: scores, r"weight\(-.*\) is -.*; expected a finite number of at least 0"),
        (lambda scores: np.full(scores.shape, np.nan), r"is nan; expected a finite"),
        (lambda scores: np.ones(3), r"weight returned shape \(3,\) for scores of shape"),
        (
            Weight("odd", lambda scores: scores * np.nan),
            r"odd: log\(.*\) is nan; expected",
        ),
        (
            Weight("odd", lambda scores: scores + np.inf),
            r"odd: log\(.*\) is inf; expected",
        ),
        (Weight("odd", lambda scores: np.ones(3)), r"odd: log returned shape \(3,\) for scores"),
        (lambda scores: RNG.random(scores.shape), "weight jumps or turns too often"),
        (lambda scores: np.sin(1e7 * scores) ** 2, "weight jumps or turns too often"),
    ],
)
def test_what_is_no_weight(weight: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score_aware_weights([1.0], 10, weight)  # type: ignore[arg-type]


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match="dimension is 0; expected at least 1"):
        score_aware_weights([1.0], 0, constant_weight())
    with pytest.raises(ConfigError, match="threshold is nan; expected a finite number"):
        threshold_weight(math.nan)
    with pytest.raises(ConfigError, match="rate is 'fast'; expected a finite number"):
        exponential_weight("fast")  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="norms has dtype <U4; expected real numbers"):
        score_aware_weights(["long"], 4, constant_weight())  # type: ignore[list-item]
    for norms in ([-1.0], [math.nan], [math.inf]):
        with pytest.raises(ConfigError, match="norms must be finite and at least 0"):
            relative_weights(norms, 4, constant_weight())
    with pytest.raises(ShapeError, match=r"norms has shape \(\); expected \(n,\)"):
        score_aware_weights(1.0, 4, constant_weight())
    with pytest.raises(ShapeError, match=r"x has shape \(2,\) and x_tilde \(3,\)"):
        score_aware_loss([1.0, 2.0], [1.0, 2.0, 3.0], 1.0, 1.0)
    with pytest.raises(ShapeError, match=r"h_perp has shape \(3,\)"):
        score_aware_loss(np.ones((2, 4)), np.ones((2, 4)), 1.0, np.ones(3))


def test_weights_say_what_they_are() -> None:
    assert repr(threshold_weight(0.25)) == "threshold_weight(0.25)"
    assert repr(exponential_weight(2)) == "exponential_weight(2)"
    assert repr(constant_weight()) == "constant_weight()"

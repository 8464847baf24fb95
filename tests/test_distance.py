"""Sign, order and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swann import distance
from swann.errors import ConfigError, ZeroVectorError


@pytest.mark.parametrize(
    ("measure", "normalizes", "descending"),
    [("dot_product", False, True), ("squared_l2", False, False), ("cosine", True, True)],
)
def test_measures(measure: distance.DistanceMeasure, normalizes: bool, descending: bool) -> None:
    assert distance.check_distance_measure(measure) == measure
    assert distance.normalizes(measure) is normalizes
    assert distance.descending(measure) is descending


@pytest.mark.parametrize("measure", ["", "l2", "Cosine", None, 1, b"cosine", ["cosine"]])
def test_unknown_measures_are_refused(measure: object) -> None:
    with pytest.raises(ConfigError, match=r"distance_measure is .*; expected one of 'dot_product'"):
        distance.check_distance_measure(measure)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 70))
def test_rows_get_unit_length_whatever_their_chunk(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-30, 30, (n, 1))
    x = (scale * rng.standard_normal((n, d))).astype(np.float32)
    before = x.copy()
    whole = distance.normalize_rows(x)
    assert whole.dtype == np.float32
    assert np.array_equal(x, before)
    lengths = np.sqrt((whole.astype(np.float64) ** 2).sum(axis=1))
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-6)
    cut = int(rng.integers(0, n + 1))
    parts = np.concatenate([distance.normalize_rows(x[:cut]), distance.normalize_rows(x[cut:])])
    assert parts.tobytes() == whole.tobytes()
    one_by_one = np.concatenate([distance.normalize_rows(x[i : i + 1]) for i in range(n)])
    assert one_by_one.tobytes() == whole.tobytes()
    fortran = distance.normalize_rows(np.asfortranarray(x))
    assert fortran.tobytes() == whole.tobytes()


def test_large_inputs_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).standard_normal((101, 7)).astype(np.float32)
    whole = distance.normalize_rows(x)
    monkeypatch.setattr(distance, "_PIECE_VALUES", 64)
    assert np.array_equal(distance.normalize_rows(x), whole)
    x[97] = 0
    with pytest.raises(ZeroVectorError, match=r"db\[97\]"):
        distance.normalize_rows(x)


def test_extreme_but_finite_rows() -> None:
    largest = np.finfo(np.float32).max
    smallest = np.float32(1e-45)  # a subnormal: its square is zero in float32
    x = np.array([[largest, largest], [smallest, 0]], np.float32)
    np.testing.assert_allclose(
        distance.normalize_rows(x), np.array([[0.5**0.5, 0.5**0.5], [1, 0]]), rtol=1e-6
    )


def test_the_first_zero_row_is_named() -> None:
    x = np.ones((5, 3), np.float32)
    x[2] = 0
    x[4] = -0.0
    with pytest.raises(ZeroVectorError, match=r"^queries\[102\] is all zeros"):
        distance.normalize_rows(x, "queries", start=100)


def test_no_rows() -> None:
    assert distance.normalize_rows(np.empty((0, 3), np.float32)).shape == (0, 3)

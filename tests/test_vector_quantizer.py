"""`VectorQuantizer`: assignment and update, each the best there is, in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import LOSSES, each_loss, normal
from numpy.typing import NDArray

from swann import kernels
from swann.errors import ConfigError, DTypeError, InvalidInputError, NonFiniteError, ShapeError
from swann.quantize import VectorQuantizer, exponential_weight, threshold_weight

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

some = settings(max_examples=30)


def units(rows: F32) -> F64:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros(rows.shape), where=norms > 0)


def losses_of(rows: F32, words: F64 | F32, eta: F32, scale: F32) -> F64:
    """The loss of every row with every word, by the definition: shape (rows, words)."""
    error = rows[:, None, :].astype(np.float64) - words
    along = np.einsum("nkd,nd->nk", error, units(rows))
    losses: F64 = scale[:, None] * ((error**2).sum(axis=2) + (eta - 1.0)[:, None] * along**2)
    return losses


def weighed(seed: int, count: int, dimension: int) -> tuple[F32, F32, F32]:
    """Rows, etas from 0 to 20, scales from 0 to 1, some of each at the ends."""
    rng = np.random.default_rng(seed)
    rows = normal(seed, count, dimension) * rng.uniform(0.1, 4, (count, 1)).astype(np.float32)
    rows[:: max(2, count // 3)] = 0
    eta = rng.choice([0.0, 0.5, 1.0, 3.0, 20.0], count).astype(np.float32)
    scale = rng.choice([0.0, 1e-3, 0.4, 1.0], count).astype(np.float32)
    return rows, eta, scale


# ---- Assignment


@given(seed=st.integers(0, 2**32 - 1), dimension=st.integers(1, 12), words=st.integers(1, 700))
@some
def test_rows_go_where_they_lose_least(seed: int, dimension: int, words: int) -> None:
    rows, eta, scale = weighed(seed, 50, dimension)
    codebook = normal(seed + 1, words, dimension)
    labels, scores = kernels.assign_leaves(rows, codebook, 2, eta)
    losses = losses_of(rows, codebook, eta, np.ones_like(scale))
    chosen = losses[np.arange(50), labels]
    size = (rows.astype(np.float64) ** 2).sum(axis=1) + (codebook**2).sum(axis=1).max()
    assert (chosen <= losses.min(axis=1) + 1e-5 * (1 + eta) * size).all()
    word = codebook[labels].astype(np.float64)
    expected = (rows * word).sum(axis=1) - (word**2).sum(axis=1) / 2
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4 * size.max())


def test_one_eta_for_all_is_the_same_as_each_its_own() -> None:
    rows, codebook = normal(0, 300, 20), normal(1, 600, 20)
    for eta in (1.0, 2.5, 40.0):
        one, _ = kernels.assign_leaves(rows, codebook, 1, eta)
        each, _ = kernels.assign_leaves(rows, codebook, 3, np.full(300, eta, np.float32))
        assert (one == each).mean() > 0.99  # near ties may fall otherwise


# ---- Update (Theorem 4.2)


def descended(rows: F32, eta: F32, scale: F32, start: F64, steps: int = 4000) -> F64:
    """The best word by gradient descent, with nothing of the closed form in it."""
    word, u = start.copy(), units(rows)
    step = 0.5 / (scale * np.maximum(eta, 1.0)).sum()
    for _ in range(steps):
        error = rows - word
        along = (error * u).sum(axis=1)
        word += step * (scale[:, None] * (error + ((eta - 1.0) * along)[:, None] * u)).sum(axis=0)
    return word


@pytest.mark.parametrize("seed", range(6))
def test_the_update_is_what_gradient_descent_finds(seed: int) -> None:
    dimension = (1, 2, 3, 5, 8, 16)[seed]
    rows, eta, scale = weighed(seed, 60, dimension)
    labels = (np.arange(60) % 3).astype(np.uint32)
    order, starts = kernels.sort_by_leaf(labels, 3)
    codebook = normal(seed + 9, 3, dimension)
    kernels.anisotropic_centroids(rows, order, starts, eta, codebook, 2, scale)
    for k in range(3):
        mine = labels == k
        best = descended(rows[mine], eta[mine], scale[mine], np.zeros(dimension))
        reached = losses_of(rows[mine], codebook[k : k + 1], eta[mine], scale[mine]).sum()
        least = losses_of(rows[mine], best[None], eta[mine], scale[mine]).sum()
        assert reached <= least * (1 + 1e-5) + 1e-9
        if dimension > 1:  # and not by chance: words close by are worse
            nudged = codebook[k : k + 1] * np.float32(1.02)
            assert losses_of(rows[mine], nudged, eta[mine], scale[mine]).sum() > reached


def test_words_that_nobody_pulls_stay() -> None:
    rows, eta, scale = weighed(3, 40, 4)
    labels = np.repeat(np.array([0, 2], np.uint32), 20)  # nobody chose 1
    scale[20:] = 0.0  # those of 2 do not count
    order, starts = kernels.sort_by_leaf(labels, 3)
    start = normal(4, 3, 4)
    codebook = start.copy()
    kernels.anisotropic_centroids(rows, order, starts, eta, codebook, 1, scale)
    np.testing.assert_array_equal(codebook[1:], start[1:])
    assert (codebook[0] != start[0]).any()


def test_without_a_loss_the_update_is_the_mean() -> None:
    rows = normal(5, 90, 7)
    quantizer = VectorQuantizer(4).fit(rows)
    codes = quantizer.encode(rows)
    for k in range(4):
        np.testing.assert_allclose(
            quantizer.codebook[k], rows[codes == k].mean(axis=0), rtol=0.2, atol=0.2
        )
    one = VectorQuantizer(1).fit(rows)
    np.testing.assert_allclose(one.codebook[0], rows.mean(axis=0), rtol=1e-5, atol=1e-6)


# ---- Training


@each_loss
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_never_rises_and_is_what_it_says(loss: dict[str, Any], seed: int) -> None:
    rows = normal(seed, 2000, 10) * np.random.default_rng(seed).gamma(4, 0.25, (2000, 1))
    rows = rows.astype(np.float32)
    seen: list[tuple[int, float]] = []
    quantizer = VectorQuantizer(40, seed=seed, iterations=25, **loss)
    assert quantizer.fit(rows, on_iteration=lambda *told: seen.append(told)) is quantizer
    starts = [i for i, (number, _) in enumerate(seen) if number == 0]
    assert len(starts) == 1 + bool(loss)
    final = [value for _, value in seen[starts[-1] :]]
    assert (np.diff(final) <= 1e-6 * final[0]).all()
    assert final[-1] < 0.995 * final[0]
    eta, scale = quantizer.loss.weigh(np.linalg.norm(rows, axis=1), 10)
    eta = np.ones(2000, np.float32) if eta is None else eta
    scale = np.ones(2000, np.float32) if scale is None else scale
    least = losses_of(rows, quantizer.codebook, eta, scale).min(axis=1).sum() / scale.sum()
    assert 0.99 * final[-1] <= least <= final[-1] * (1 + 1e-6)
    codes = quantizer.encode(rows)
    reached = losses_of(rows, quantizer.codebook, eta, scale)[np.arange(2000), codes]
    assert reached.sum() / scale.sum() == pytest.approx(least, rel=1e-5)


def test_training_stops_where_nothing_is_won() -> None:
    seen: list[float] = []
    quantizer = VectorQuantizer(3, threshold=1.0, iterations=1000)
    quantizer.fit(normal(0, 200, 4), on_iteration=lambda _, loss: seen.append(loss))
    assert len(seen) < 100


def test_the_seed_decides_and_threads_do_not() -> None:
    rows = normal(4, 500, 10)
    one, *others = (
        VectorQuantizer(20, weight=exponential_weight(1.0), seed=seed, num_threads=threads).fit(
            rows
        )
        for seed, threads in ((0, 1), (0, 3), (1, 1))
    )
    assert one.codebook.tobytes() == others[0].codebook.tobytes()
    assert one.codebook.tobytes() != others[1].codebook.tobytes()


def test_codewords_reach_out_to_their_datapoints() -> None:
    """What the loss is for: scores of the datapoint's own direction are kept."""
    rows = normal(6, 4000, 20)
    u = units(rows)
    kept = []
    for quantizer in (VectorQuantizer(50), VectorQuantizer(50, threshold=3.0)):
        decoded = quantizer.fit(rows).decode(quantizer.encode(rows))
        kept.append(float(((rows - decoded) * u).sum(axis=1).std()))
        kept.append(float(((rows - decoded) * u).sum(axis=1).mean()))
    assert abs(kept[3]) < 0.5 * abs(kept[1])


def test_many_datapoints_are_as_good_as_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are encoded and their losses are summed in parts."""
    rows = normal(10, 200, 6)

    def told() -> tuple[list[float], NDArray[np.uint32]]:
        seen: list[float] = []
        quantizer = VectorQuantizer(9, weight=exponential_weight(1.0))
        quantizer.fit(rows, on_iteration=lambda _, loss: seen.append(loss))
        return seen, quantizer.encode(rows)

    losses, codes = told()
    monkeypatch.setattr("swann.quantize.vector._ROWS_AT_ONCE", 48)
    in_parts, same = told()
    np.testing.assert_array_equal(same, codes)
    np.testing.assert_allclose(in_parts, losses, rtol=1e-6)


# ---- Corners


@each_loss
def test_fewer_datapoints_than_codewords(loss: dict[str, Any]) -> None:
    rows = 2 * normal(7, 5, 4)
    quantizer = VectorQuantizer(8, **loss).fit(rows)
    assert quantizer.codebook.shape == (5, 4)
    np.testing.assert_allclose(quantizer.decode(quantizer.encode(rows)), rows, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "value"),
    [({}, 0.0), ({}, 1e15), ({"threshold": 1.5}, 0.0), ({"threshold": 1.5}, 1e15)]
    + [(loss, 2.0) for loss in LOSSES],
)
def test_identical_datapoints(loss: dict[str, Any], value: float) -> None:
    rows = np.full((40, 3), value, np.float32)
    quantizer = VectorQuantizer(4, **loss).fit(rows)
    np.testing.assert_allclose(quantizer.decode(quantizer.encode(rows)), rows, rtol=1e-5)


def test_a_saved_codebook_makes_a_fitted_quantizer() -> None:
    rows = normal(8, 100, 3)
    quantizer = VectorQuantizer(9, threshold=1.0).fit(rows)
    other = VectorQuantizer(9, threshold=1.0)
    other.codebook = quantizer.codebook.astype(np.float64)
    np.testing.assert_array_equal(other.encode(rows), quantizer.encode(rows))
    assert quantizer.encode(rows).dtype == np.uint32
    assert quantizer.encode(rows[:0]).shape == (0,)


def test_what_cannot_be_is_named() -> None:
    rows = normal(9, 30, 4)
    quantizer = VectorQuantizer(3).fit(rows)
    rows[2, 1] = np.inf
    with pytest.raises(NonFiniteError, match=r"datapoints\[2, 1\] is inf"):
        VectorQuantizer(3).fit(rows)
    with pytest.raises(NonFiniteError, match=r"datapoints\[2, 1\] is inf"):
        quantizer.encode(rows)
    with pytest.raises(ShapeError, match="datapoints have 3 dimensions, but this VectorQuantizer"):
        quantizer.encode(rows[:, :3])
    with pytest.raises(ShapeError, match="datapoints is empty"):
        quantizer.fit(rows[:0])
    with pytest.raises(InvalidInputError, match="codes has values from 0 to 3; expected 0 to 2"):
        quantizer.decode([0, 3])
    with pytest.raises(DTypeError, match="codes has dtype float64"):
        quantizer.decode([0.5])
    with pytest.raises(ConfigError, match="has no codebook; call fit first"):
        VectorQuantizer(3).decode([0])
    for settings_, message in (
        ({"codewords": 0}, "codewords is 0"),
        ({"codewords": 3, "iterations": 0}, "iterations is 0"),
        ({"codewords": 3, "threshold": -1.0}, "threshold is -1.0"),
        ({"codewords": 3, "seed": -1}, "seed is -1"),
        ({"codewords": 3, "weight": 7}, "weight is 7; expected a function"),
    ):
        with pytest.raises(ConfigError, match=message):
            VectorQuantizer(**settings_)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="weight is 0 for all scores"):
        VectorQuantizer(3, weight=threshold_weight(2.0)).fit(np.zeros((9, 3)))

"""Binary quantization: the gradients, training, codes, and both searches."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import normal
from numpy.typing import NDArray

from swann.errors import ConfigError, DTypeError, InvalidInputError, NonFiniteError, ShapeError
from swann.quantize import (
    BinaryQuantizer,
    constant_weight,
    hamming_distances,
    hamming_search,
    threshold_weight,
)
from swann.quantize import hamming as hamming_module
from swann.quantize.hashing import (
    HashModel,
    Target,
    _gradients,
    _solve_decoder,
    bit_differences,
    descend_codes,
    pull,
)

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

some = settings(max_examples=60)
D, BITS = 5, 3


def target_of(seed: int, n: int, d: int = D) -> Any:
    """Datapoints in float64, so that finite differences say something."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d))
    units = rows / np.linalg.norm(rows, axis=1)[:, None]
    return Target(rows, units, rng.uniform(0, 8, n), rng.uniform(0.1, 1, n))


def losses_of(target: Any, signs: F64, decoder: F64, shift: F64) -> F64:
    """The loss as it is written in the paper: along and across, separately."""
    residuals = target.rows - signs @ decoder - shift
    along = np.sum(residuals * target.units, axis=1)
    across = residuals - along[:, None] * target.units
    result: F64 = target.scale * ((target.extra + 1) * along**2 + np.sum(across**2, axis=1))
    return result


# ---- The loss and its derivatives


def test_the_pull_is_the_gradient_of_the_loss() -> None:
    target, rng = target_of(0, 4), np.random.default_rng(1)
    signs = rng.choice([-1.0, 1.0], (4, BITS))
    decoder, shift = rng.standard_normal((BITS, D)), rng.standard_normal(D)
    losses, pulled = pull(target.rows - signs @ decoder - shift, target)
    np.testing.assert_allclose(losses, losses_of(target, signs, decoder, shift))
    for j in range(D):
        step = np.eye(D)[j] * 1e-5
        above = losses_of(target, signs, decoder, shift + step)
        below = losses_of(target, signs, decoder, shift - step)
        np.testing.assert_allclose(-2 * pulled[:, j], (above - below) / 2e-5, rtol=1e-6, atol=1e-8)


def test_bit_differences_are_differences_of_losses() -> None:
    target, rng = target_of(2, 6), np.random.default_rng(3)
    signs = rng.choice([-1.0, 1.0], (6, BITS))
    decoder, shift = rng.standard_normal((BITS, D)), rng.standard_normal(D)
    _, pulled = pull(target.rows - signs @ decoder - shift, target)
    found = bit_differences(signs, pulled, target, decoder)
    for j in range(BITS):
        on, off = signs.copy(), signs.copy()
        on[:, j], off[:, j] = 1.0, -1.0
        expected = losses_of(target, on, decoder, shift) - losses_of(target, off, decoder, shift)
        np.testing.assert_allclose(found[:, j], expected, rtol=1e-9, atol=1e-9)


def objective(parameters: list[F64], target: Any, share: float) -> float:
    """E[L] + 2 share KL over all codes there are, averaged over the datapoints."""
    encoder, bias, decoder, shift = parameters
    chance = 1 / (1 + np.exp(-(target.rows @ encoder + bias)))
    total = np.zeros(len(target.rows))
    for bits in product([-1.0, 1.0], repeat=BITS):
        signs = np.array(bits)
        weight = np.where(signs > 0, chance, 1 - chance).prod(axis=1)
        total += weight * losses_of(target, np.tile(signs, (len(total), 1)), decoder, shift)
    kl = chance * np.log(2 * chance) + (1 - chance) * np.log(2 - 2 * chance)
    return float((total + 2 * share * kl.sum(axis=1)).mean())


def test_gradients_are_right_on_average() -> None:
    """One datapoint seen many times: the mean of its gradients is that of the expectation."""
    one, rng = target_of(4, 1), np.random.default_rng(5)
    many = one.take(np.zeros(200_000, np.int64))
    parameters: list[Any] = [
        0.3 * rng.standard_normal((D, BITS)),
        0.3 * rng.standard_normal(BITS),
        rng.standard_normal((BITS, D)),
        rng.standard_normal(D),
    ]
    _, gradients = _gradients(parameters, many, 0.7, np.random.default_rng(6))
    for part, gradient in zip(parameters, gradients, strict=True):
        expected = np.empty_like(part)
        for place in np.ndindex(*part.shape):
            ends = []
            for step in (1e-5, -1e-5):
                part[place] += step
                ends.append(objective(parameters, one, 0.7))
                part[place] -= step
            expected[place] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, atol=0.02 * np.abs(expected).max())


# ---- Training


def made(seed: int, n: int = 400, d: int = 12, bits: int = 16) -> tuple[HashModel, Any, F32]:
    rng = np.random.default_rng(seed)
    target = Target(*(part.astype(np.float32) for part in target_of(seed, n, d)))
    parts = [rng.standard_normal(shape) for shape in (d, (d, bits), bits, (bits, d), d)]
    model = HashModel(*(part.astype(np.float32) for part in parts))
    return model, target, rng.choice(np.float32([-1, 1]), (n, bits))


def test_the_decoder_is_solved_for() -> None:
    model, target, signs = made(0)
    solved = _solve_decoder(model, target, signs)
    before = losses_of(target, signs, model.decoder, model.shift).mean()
    best = losses_of(target, signs, solved.decoder, solved.shift).mean()
    assert best < before
    rng = np.random.default_rng(1)
    for _ in range(20):
        step = 0.05 * rng.standard_normal(solved.decoder.shape)
        assert losses_of(target, signs, solved.decoder + step, solved.shift).mean() > best


def test_turning_bits_over_never_raises_a_loss() -> None:
    model, target, signs = made(2)
    turned = signs.copy()
    descend_codes(model, target, turned, 50)
    before = losses_of(target, signs, model.decoder, model.shift)
    after = losses_of(target, turned, model.decoder, model.shift)
    assert (after <= before * (1 + 1e-5)).all()
    assert after.mean() < 0.9 * before.mean()
    # Nothing more is won by any one bit.
    _, pulled = pull(target.rows - turned @ model.decoder - model.shift, target)
    gains = turned * bit_differences(turned, pulled, target, model.decoder)
    assert gains.max() <= 1e-4 * before.mean()


def spread_rows(seed: int, n: int) -> F32:
    """Unit vectors around a common mean, most of their variance in a few directions."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 48)) / np.arange(1, 49) ** 0.7 + 0.4
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)


def test_training_lowers_the_loss() -> None:
    rows = spread_rows(0, 3000)
    losses: list[float] = []
    quantizer = BinaryQuantizer(32, threshold=0.4, epochs=6)
    quantizer.fit(rows, on_epoch=lambda number, loss: losses.append(loss))
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]


def test_the_score_aware_loss_finds_more() -> None:
    rows, queries = spread_rows(0, 3000), spread_rows(1, 200)
    true = np.argmax(queries @ rows.T, axis=1)
    recalls = []
    for threshold in (None, 0.4):
        quantizer = BinaryQuantizer(32, threshold=threshold).fit(rows)
        found, _ = quantizer.search_asymmetric(queries, quantizer.encode(rows), 10)
        recalls.append(float((found == true[:, None]).any(axis=1).mean()))
    assert recalls[1] > recalls[0] + 0.1, recalls


def test_a_constant_weight_is_the_plain_loss() -> None:
    rows = spread_rows(2, 600)
    plain = BinaryQuantizer(16, epochs=2).fit(rows)
    weighted = BinaryQuantizer(16, epochs=2, weight=constant_weight()).fit(rows)
    np.testing.assert_array_equal(plain.encode(rows), weighted.encode(rows))


def test_the_seed_decides() -> None:
    rows = spread_rows(3, 600)
    first, again, other = (
        BinaryQuantizer(16, epochs=2, seed=seed, training_sample_size=500).fit(rows).encode(rows)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_sample_is_of_all_rows() -> None:
    rows = np.repeat(np.array([[0.0], [1.0]]), 500, axis=0) + np.zeros(8)  # sorted
    quantizer = BinaryQuantizer(8, epochs=1, training_sample_size=200).fit(rows)
    np.testing.assert_allclose(quantizer.model.center, 0.5, atol=0.15)


@pytest.mark.parametrize("n", [1, 3, 70])
@pytest.mark.parametrize("d", [1, 9])
@pytest.mark.parametrize("kind", ["zeros", "alike", "normal", "long"])
def test_odd_data_trains(n: int, d: int, kind: str) -> None:
    rows = {
        "zeros": np.zeros((n, d)),
        "alike": np.ones((n, d)),
        "normal": normal(n, n, d),
        "long": 1e17 * normal(n, n, d),
    }[kind]
    quantizer = BinaryQuantizer(24, threshold=0.3, epochs=2, batch_size=16).fit(rows)
    codes = quantizer.encode(rows, sweeps=2)
    assert codes.shape == (n, 3)
    assert np.isfinite(quantizer.decode(codes)).all()


# ---- Codes and search


def test_bits_lie_lowest_first() -> None:
    rows = spread_rows(4, 300)
    quantizer = BinaryQuantizer(24, epochs=1).fit(rows)
    codes, model = quantizer.encode(rows), quantizer.model
    assert codes.dtype == np.uint8
    assert codes.shape == (300, 3)
    bits = codes[:, np.arange(24) // 8] >> (np.arange(24) % 8) & 1
    np.testing.assert_array_equal(bits, (rows - model.center) @ model.encoder + model.bias > 0)
    np.testing.assert_allclose(
        quantizer.decode(codes), (2.0 * bits - 1.0) @ model.decoder + model.shift, atol=1e-5
    )


def test_sweeps_bring_codes_nearer() -> None:
    rows = spread_rows(5, 500)
    quantizer = BinaryQuantizer(64, epochs=2).fit(rows)
    plain, swept = (quantizer.decode(quantizer.encode(rows, sweeps)) for sweeps in (0, 2))
    assert np.square(rows - swept).sum() < 0.95 * np.square(rows - plain).sum()


@st.composite
def packed(draw: st.DrawFn) -> tuple[U8, U8, int]:
    """Codes with many equal distances."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    width, most = draw(st.integers(1, 5)), draw(st.sampled_from([2, 256]))
    queries, n = draw(st.integers(0, 9)), draw(st.integers(0, 40))
    asked, codes = (rng.integers(0, most, (m, width), dtype=np.uint8) for m in (queries, n))
    return asked, codes, draw(st.integers(1, 45))


@some
@given(packed())
def test_hamming_search_is_exact(given_codes: tuple[U8, U8, int]) -> None:
    asked, codes, k = given_codes
    differing = np.unpackbits(asked[:, None] ^ codes, axis=2).sum(axis=2, dtype=np.int32)
    np.testing.assert_array_equal(hamming_distances(asked, codes), differing)
    best = np.argsort(differing, axis=1, kind="stable")[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming_module, "_QUERIES_AT_ONCE", 4)
        patch.setattr(hamming_module, "_FIRST_ROWS", 3)
        patch.setattr(hamming_module, "_MOST_ROWS", 7)
        rows, distances = hamming_search(asked, codes, k)
    np.testing.assert_array_equal(rows, best)
    np.testing.assert_array_equal(distances, np.take_along_axis(differing, best, axis=1))
    assert (rows.dtype, distances.dtype) == (np.int64, np.int32)


def test_hamming_search_of_many_codes() -> None:
    rng = np.random.default_rng(0)
    asked, codes = (rng.integers(0, 256, (n, 2), dtype=np.uint8) for n in (300, 20_000))
    differing = np.unpackbits(asked[:, None] ^ codes, axis=2).sum(axis=2, dtype=np.int32)
    best = np.argsort(differing, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(hamming_search(asked, codes, 20)[0], best)


def test_asymmetric_search_ranks_by_decoded_datapoints() -> None:
    rows, queries = spread_rows(6, 500), spread_rows(7, 20)
    quantizer = BinaryQuantizer(32, epochs=2).fit(rows)
    codes = quantizer.encode(rows)
    scores = queries.astype(np.float64) @ quantizer.decode(codes).astype(np.float64).T
    found, products = quantizer.search_asymmetric(queries, codes, 5)
    np.testing.assert_allclose(products, np.take_along_axis(scores, found, axis=1), atol=1e-5)
    np.testing.assert_allclose(products, -np.sort(-scores, axis=1)[:, :5], atol=1e-5)


def test_nothing_asked_and_nothing_to_find() -> None:
    rows = spread_rows(8, 100)
    quantizer = BinaryQuantizer(8, epochs=1).fit(rows)
    codes, none = quantizer.encode(rows), np.empty((0, 1), np.uint8)
    assert quantizer.encode(rows[:0]).shape == (0, 1)
    assert quantizer.decode(none).shape == (0, 48)
    assert quantizer.search(none, codes, 3)[0].shape == (0, 3)
    assert quantizer.search(codes, none, 3)[1].shape == (100, 0)
    assert quantizer.search_asymmetric(rows, none, 3)[0].shape == (100, 0)
    assert quantizer.search_asymmetric(rows, codes, 300)[0].shape == (100, 100)


# ---- Bad input


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bits": 12}, "bits is 12; expected a multiple of 8"),
        ({"bits": 0}, "bits is 0"),
        ({"threshold": -0.2}, "threshold is -0.2"),
        ({"threshold": 0.2, "weight": constant_weight()}, "threshold and weight are both given"),
        ({"weight": 3}, "weight is 3"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"prior_weight": -1.0}, "prior_weight is -1"),
        ({"prior_weight": None}, "prior_weight is None"),
        ({"training_sample_size": 1.5}, "training_sample_size is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_settings(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BinaryQuantizer(**({"bits": 8} | wrong))


def test_what_is_not_trained_says_so() -> None:
    with pytest.raises(ConfigError, match="call fit first"):
        BinaryQuantizer(8).encode([[1.0, 2.0]])


def test_bad_rows() -> None:
    rows = spread_rows(9, 50)
    quantizer = BinaryQuantizer(8, epochs=1)
    bad = rows.copy()
    bad[7, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"datapoints\[7, 3\] is nan"):
        quantizer.fit(bad)
    with pytest.raises(ShapeError, match="datapoints is empty"):
        quantizer.fit(rows[:0])
    with pytest.raises(InvalidInputError, match="weight is 0 for all scores"):
        BinaryQuantizer(8, weight=threshold_weight(2.0)).fit(rows)
    quantizer.fit(rows)
    with pytest.raises(ShapeError, match="47 dimensions, but this BinaryQuantizer expects 48"):
        quantizer.encode(rows[:, 1:])
    with pytest.raises(NonFiniteError, match=r"datapoints\[7, 3\] is nan"):
        quantizer.encode(bad)
    with pytest.raises(ConfigError, match="sweeps is -1"):
        quantizer.encode(rows, -1)


def test_bad_codes() -> None:
    rows = spread_rows(10, 50)
    quantizer = BinaryQuantizer(16, epochs=1).fit(rows)
    codes = quantizer.encode(rows)
    with pytest.raises(DTypeError, match="codes has dtype int64"):
        quantizer.decode(codes.astype(np.int64))
    with pytest.raises(ShapeError, match=r"query_codes has shape \(50, 1\); expected \(n, 2\)"):
        quantizer.search(codes[:, :1], codes, 1)
    with pytest.raises(ShapeError, match=r"codes has shape \(2,\); expected \(n, 2\)"):
        quantizer.search_asymmetric(rows, codes[0], 1)
    with pytest.raises(ShapeError, match="right has shape"):
        hamming_distances(codes, codes[:, :1])
    with pytest.raises(ConfigError, match="k is 0"):
        quantizer.search(codes, codes, 0)

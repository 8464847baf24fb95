"""`ProductQuantizer`: what it trains is what an index trains; codes, tables and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import each_loss, normal
from numpy.typing import NDArray

from swann.errors import (
    ConfigError,
    DTypeError,
    InvalidInputError,
    NonFiniteError,
    ShapeError,
    SwannError,
)
from swann.quantize import (
    ProductQuantizer,
    exponential_weight,
    score_aware_loss,
    score_aware_weights,
    threshold_weight,
)

F32 = NDArray[np.float32]

each_shape = pytest.mark.parametrize(("dimension", "width"), [(12, 2), (13, 4), (5, 1), (6, 6)])


def true_loss(quantizer: ProductQuantizer, rows: F32) -> float:
    """The mean loss of what the quantizer makes of rows, by its definition."""
    decoded, norms = quantizer.decode(quantizer.encode(rows)), np.linalg.norm(rows, axis=1)
    weight = quantizer.loss.weight
    assert weight is not None
    costs = score_aware_weights(norms, rows.shape[1], weight)
    return float(score_aware_loss(rows, decoded, *costs).mean())


# ---- Training


@each_loss
@each_shape
@pytest.mark.parametrize("codewords", [16, 256])
def test_codes_are_decoded_near_their_datapoints(
    codewords: int, dimension: int, width: int, loss: dict[str, Any]
) -> None:
    rows = normal(1, 1000, dimension)
    quantizer = ProductQuantizer(width, codewords=codewords, **loss).fit(rows)
    codes = quantizer.encode(rows)
    assert codes.shape == (1000, quantizer.num_blocks)
    assert codes.dtype == np.uint8
    assert quantizer.bits == -(-dimension // width) * (4 if codewords == 16 else 8)
    decoded = quantizer.decode(codes)
    assert decoded.dtype == np.float32
    by_dimension = codes[:, np.arange(dimension) // width]
    np.testing.assert_array_equal(decoded, quantizer.codebook[np.arange(dimension), by_dimension])
    share = ((rows - decoded) ** 2).sum() / (rows**2).sum()
    assert share < {1: 0.1, 2: 0.3, 4: 0.7, 6: 0.9}[width]


@pytest.mark.parametrize("weight", [threshold_weight(2.0), exponential_weight(2.0)])
def test_the_loss_that_was_asked_for_is_the_one_that_falls(weight: Any) -> None:
    """Datapoints of very different lengths, of which only the long ones matter much."""
    rows = normal(2, 3000, 16) * np.linspace(0.2, 2.0, 3000, dtype=np.float32)[:, None]
    tuned = ProductQuantizer(2, weight=weight).fit(rows)
    plain = ProductQuantizer(2).fit(rows)
    alike = ProductQuantizer(2, threshold=2.0).fit(rows)
    plain.loss = alike.loss = tuned.loss  # the same way to encode
    assert true_loss(tuned, rows) < 0.85 * true_loss(plain, rows)
    assert true_loss(tuned, rows) < 0.85 * true_loss(alike, rows)


def test_what_is_told_is_the_loss() -> None:
    seen: list[tuple[int, float]] = []
    rows = normal(3, 1600, 12)
    quantizer = ProductQuantizer(2, weight=exponential_weight(1.0))
    assert quantizer.fit(rows, on_iteration=lambda *told: seen.append(told)) is quantizer
    assert [number for number, _ in seen] == list(range(len(seen)))
    assert len(seen) <= 20
    eta, scale = quantizer.loss.weigh(np.linalg.norm(rows, axis=1), 12)
    assert eta is not None
    assert scale is not None
    losses = score_aware_loss(rows, quantizer.decode(quantizer.encode(rows)), eta, 1.0)
    # The codebook has moved since, and encoding makes more passes than training.
    assert 0.98 * seen[-1][1] < np.average(losses, weights=scale) <= seen[-1][1]


@each_loss
@pytest.mark.parametrize("update", ["blockwise", "joint"])
def test_the_loss_never_rises(update: str, loss: dict[str, Any]) -> None:
    """In either stage, for datapoints of any norms."""
    rows = normal(18, 1600, 12) * np.random.default_rng(18).gamma(4, 0.25, (1600, 1))
    seen: list[float] = []
    quantizer = ProductQuantizer(2, update=update, iterations=15, **loss)
    quantizer.fit(rows, on_iteration=lambda _, value: seen.append(value))
    drops = np.diff(seen)
    rises = np.flatnonzero(drops > 1e-5 * max(seen))
    assert len(rises) <= 1, seen  # where the loss changes from one to the other
    plain = seen[: rises[0] + 1] if len(rises) else seen
    assert plain[-1] < plain[0]
    assert len(seen) > 4


@each_loss
def test_no_other_code_of_a_block_is_better(loss: dict[str, Any]) -> None:
    """Coordinate descent ends where changing any one code of a datapoint costs."""
    rows = normal(19, 300, 8)
    quantizer = ProductQuantizer(2, **loss).fit(rows)
    codes = quantizer.encode(rows)
    eta, _ = quantizer.loss.weigh(np.linalg.norm(rows, axis=1), 8)
    costs = np.ones(300) if eta is None else eta

    def losses(chosen: Any) -> Any:
        return score_aware_loss(rows, quantizer.decode(chosen), costs, 1.0)

    reached, better = losses(codes), np.zeros(300, bool)
    for block in range(quantizer.num_blocks):
        for word in range(16):
            other = codes.copy()
            other[:, block] = word
            better |= losses(other) < reached * (1 - 1e-4) - 1e-6
    assert better.mean() < 0.02  # after prices two passes are nearly always enough


def test_the_seed_decides_and_threads_do_not() -> None:
    rows = normal(4, 500, 10)
    one, *others = (
        ProductQuantizer(2, threshold=1.0, seed=seed, num_threads=threads).fit(rows)
        for seed, threads in ((0, 1), (0, 3), (1, 1), ([0, 1], 1))
    )
    same, *different = (one.codebook.tobytes() == other.codebook.tobytes() for other in others)
    assert same
    assert not any(different)
    np.testing.assert_array_equal(one.encode(rows), others[0].encode(rows))


def test_joint_updates_are_another_way_to_as_good_a_codebook() -> None:
    rows = normal(15, 2000, 12)
    losses = []
    for update in ("blockwise", "joint"):
        seen: list[float] = []
        quantizer = ProductQuantizer(2, threshold=2.0, update=update)
        quantizer.fit(rows, on_iteration=lambda _, loss, seen=seen: seen.append(loss))
        losses.append(seen[-1])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_residuals_keep_the_direction_of_their_datapoints() -> None:
    rows, origins = normal(5, 2000, 12), 3 * normal(6, 4, 12)
    labels = np.arange(2000) % 4
    rows += origins[labels]
    quantizer = ProductQuantizer(2, threshold=8.0).fit(rows, origins=origins, labels=labels)
    codes = quantizer.encode(rows, origins=origins, labels=labels)
    decoded = quantizer.decode(codes) + origins[labels]
    other = ProductQuantizer(2, threshold=8.0).fit(rows - origins[labels])
    lost = other.decode(other.encode(rows - origins[labels])) + origins[labels]
    eta, _ = quantizer.loss.weigh(np.linalg.norm(rows, axis=1), 12)
    assert eta is not None
    mine = score_aware_loss(rows, decoded, eta, 1.0).mean()
    assert mine < 0.9 * score_aware_loss(rows, lost, eta, 1.0).mean()


def test_many_datapoints_are_as_good_as_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are encoded and scored in parts."""
    rows, origins, labels = normal(16, 200, 6), normal(17, 5, 6), np.arange(200) % 5
    quantizer = ProductQuantizer(2, threshold=1.0).fit(rows, origins=origins, labels=labels)
    codes = quantizer.encode(rows, origins=origins, labels=labels)
    scores = quantizer.asymmetric_scores(rows[:9], codes)
    monkeypatch.setattr("swann.quantize.product._ROWS_AT_ONCE", 48)
    np.testing.assert_array_equal(quantizer.encode(rows, origins=origins, labels=labels), codes)
    np.testing.assert_array_equal(quantizer.asymmetric_scores(rows[:9], codes), scores)


# ---- Scores


@each_shape
def test_scores_are_sums_of_table_entries(dimension: int, width: int) -> None:
    rows, queries = normal(7, 300, dimension), normal(8, 9, dimension)
    quantizer = ProductQuantizer(width, threshold=1.0).fit(rows)
    codes = quantizer.encode(rows)
    tables = quantizer.lookup_tables(queries)
    blocks = quantizer.num_blocks
    assert tables.shape == (9, blocks, 16)
    summed = tables[:, np.arange(blocks), codes].sum(axis=2)
    scores = quantizer.asymmetric_scores(queries, codes)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, summed, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores, queries @ quantizer.decode(codes).T, rtol=1e-4, atol=1e-4)
    query_codes = quantizer.encode(queries)
    both = quantizer.symmetric_scores(query_codes, codes)
    exact = quantizer.decode(query_codes) @ quantizer.decode(codes).T
    np.testing.assert_allclose(both, exact, rtol=1e-4, atol=1e-4)


def test_queries_as_they_are_score_better_than_their_codes() -> None:
    """Asymmetric beside symmetric distance."""
    rows, queries = normal(9, 2000, 32), normal(10, 50, 32)
    quantizer = ProductQuantizer(2).fit(rows)
    codes, exact = quantizer.encode(rows), queries @ rows.T
    asymmetric = quantizer.asymmetric_scores(queries, codes)
    symmetric = quantizer.symmetric_scores(quantizer.encode(queries), codes)
    assert 0 < ((asymmetric - exact) ** 2).mean() < 0.7 * ((symmetric - exact) ** 2).mean()


@given(seed=st.integers(0, 1000), count=st.integers(0, 40))
@settings(max_examples=20)
def test_no_answer_depends_on_the_others(seed: int, count: int) -> None:
    rows = normal(0, 200, 9)
    quantizer = ProductQuantizer(2, threshold=1.0, iterations=2).fit(rows)
    some = normal(seed, count, 9)
    codes, scores = (
        quantizer.encode(some),
        quantizer.asymmetric_scores(some, quantizer.encode(rows)),
    )
    assert codes.shape == (count, 5)
    for i in range(0, count, 7):
        np.testing.assert_array_equal(codes[i], quantizer.encode(some[i : i + 1])[0])
        alone = quantizer.asymmetric_scores(some[i : i + 1], quantizer.encode(rows[3:5]))
        np.testing.assert_array_equal(scores[i, 3:5], alone[0])


# ---- Saved and loaded


def test_a_saved_codebook_makes_a_fitted_quantizer() -> None:
    rows = normal(11, 400, 8)
    quantizer = ProductQuantizer(2, threshold=1.0).fit(rows)
    other = ProductQuantizer(2, threshold=1.0)
    other.codebook = quantizer.codebook.tolist()  # whatever it was saved as
    np.testing.assert_array_equal(other.encode(rows), quantizer.encode(rows))


# ---- Corners


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17])
@each_loss
def test_a_few_datapoints_are_met_exactly(count: int, loss: dict[str, Any]) -> None:
    rows = 2 * normal(12, count, 6)
    quantizer = ProductQuantizer(3, **loss).fit(rows)
    np.testing.assert_allclose(
        quantizer.decode(quantizer.encode(rows)), rows, rtol=1e-6, atol=2.0 * (count > 16)
    )


@each_loss
def test_zeros_have_no_direction(loss: dict[str, Any]) -> None:
    rows = np.concatenate([np.zeros((20, 4), np.float32), 2 * normal(13, 20, 4)])
    quantizer = ProductQuantizer(2, **loss).fit(rows)
    decoded = quantizer.decode(quantizer.encode(np.zeros((3, 4))))
    assert np.isfinite(decoded).all()
    assert (decoded == decoded[0]).all()


def test_what_cannot_be_is_named() -> None:
    rows = normal(14, 64, 6)
    fitted = ProductQuantizer(2).fit(rows)
    cases: list[tuple[type[SwannError], str, Any]] = [
        (ConfigError, "dimensions_per_block is 0; expected", lambda: ProductQuantizer(0)),
        (
            ConfigError,
            "codewords is 17; expected 16 or 256",
            lambda: ProductQuantizer(2, codewords=17),
        ),
        (ConfigError, "update is 'often'; expected", lambda: ProductQuantizer(2, update="often")),
        (
            ConfigError,
            "threshold and weight are both given",
            lambda: ProductQuantizer(2, threshold=1.0, weight=threshold_weight(1.0)),
        ),
        (ConfigError, "has no codebook; call fit first", lambda: ProductQuantizer(2).encode(rows)),
        (ConfigError, "dimensions_per_block is 7, but", lambda: ProductQuantizer(7).fit(rows)),
        (ConfigError, "origins and labels go together", lambda: fitted.encode(rows, origins=rows)),
        (
            ShapeError,
            r"labels has shape \(1,\); expected",
            lambda: fitted.encode(rows, origins=rows, labels=[0]),
        ),
        (
            InvalidInputError,
            "labels has values from 0 to 64",
            lambda: fitted.encode(rows[:2], origins=rows, labels=[0, 64]),
        ),
        (NonFiniteError, r"datapoints\[3, 1\] is nan", lambda: fitted.encode(broken(rows))),
        (
            NonFiniteError,
            r"datapoints\[3, 1\] is nan",
            lambda: ProductQuantizer(2).fit(broken(rows)),
        ),
        (
            InvalidInputError,
            r"datapoints\[0\] is longer",
            lambda: fitted.encode(rows * np.float32(1e19)),
        ),
        (
            ShapeError,
            "have 5 dimensions, but this ProductQuantizer",
            lambda: fitted.encode(rows[:, 1:]),
        ),
        (ShapeError, "datapoints is empty", lambda: ProductQuantizer(2).fit(rows[:0])),
        (
            ShapeError,
            r"codes has shape \(4,\); expected \(n, 3\)",
            lambda: fitted.decode([1, 2, 3, 4]),
        ),
        (InvalidInputError, "codes has values from 0 to 16", lambda: fitted.decode([[0, 1, 16]])),
        (DTypeError, "codes has dtype float64", lambda: fitted.decode([[0.0, 1.0, 2.0]])),
        (
            InvalidInputError,
            "weight is 0 for all scores",
            lambda: ProductQuantizer(2, weight=threshold_weight(1e6)).fit(rows),
        ),
    ]
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()
    with pytest.raises(ShapeError, match=r"codebook has shape \(6, 3\); expected \(d, 16\)"):
        fitted.codebook = rows[:6, :3]  # type: ignore[assignment]


def broken(rows: F32) -> F32:
    rows = rows.copy()
    rows[3, 1] = np.nan
    return rows

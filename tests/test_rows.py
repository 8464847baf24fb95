"""Rows in bfloat16 and int8: kernels against their twins, rounding, brute force and reordering."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import normal
from numpy.typing import NDArray

import swann
import swann.distributed
from swann import ReorderType, kernels, scann_ops_pybind
from swann.kernels import kernel_levels, reference
from swann.kernels.testing import call_kernel

MEASURES = ("dot_product", "squared_l2", "cosine")
SHORT = (ReorderType.INT8, ReorderType.BFLOAT16)
each_level = pytest.mark.parametrize("level", kernel_levels())
each_measure = pytest.mark.parametrize("measure", MEASURES)
each_short = pytest.mark.parametrize("quantize", SHORT, ids=lambda q: q.name)

F32 = NDArray[np.float32]


def to_bf16(rows: F32, weights: F32 | None = None) -> NDArray[np.uint16]:
    out = np.empty(rows.shape, np.uint16)
    kernels.round_to_bf16(rows, weights, out, 2)
    return out


def to_i8(rows: F32, weights: F32 | None = None) -> tuple[NDArray[np.int8], F32, F32]:
    out = np.empty(rows.shape, np.int8)
    scales, squares = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    kernels.round_to_i8(rows, weights, out, scales, squares, 2)
    return out, scales, squares


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int8])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_put_in_their_places(dtype: Any, threads: int) -> None:
    rng = np.random.default_rng(6)
    rows = rng.integers(0, 100, (700, 7)).astype(dtype)
    places = rng.permutation(800)[:700].astype(np.uint32)
    out, expected = np.zeros((800, 7), dtype), np.zeros((800, 7), dtype)
    kernels.put_rows(rows, places, out, threads)
    expected[places] = rows
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_taken_from_their_places(threads: int) -> None:
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((800, 7), dtype=np.float32)
    rows.flags.writeable = False
    ids = rng.integers(0, 800, 2000)
    out = np.zeros((2000, 7), np.float32)
    kernels.take_rows(rows, ids, out, threads)
    np.testing.assert_array_equal(out, rows[ids])


# ---- Kernels


@each_level
@pytest.mark.parametrize("dimension", [1, 2, 15, 16, 17, 31, 33, 64, 100, 129, 784])
def test_kernels_of_short_rows(level: str, dimension: int) -> None:
    """Exact where float32 is: small multiples of 1/4 and small integers."""
    rng = np.random.default_rng(dimension)
    queries = rng.integers(-8, 9, (9, dimension)).astype(np.float32) / 4
    bf16 = to_bf16(rng.integers(-8, 9, (21, dimension)).astype(np.float32) / 4)
    i8 = rng.integers(-128, 128, (21, dimension)).astype(np.int8)
    ids = rng.integers(0, 21, 13).astype(np.uint32)
    for name, rows in (("dot_bf16", bf16), ("squared_l2_bf16", bf16), ("dot_i8", i8)):
        together = call_kernel(name, level, queries, rows)
        np.testing.assert_array_equal(together, getattr(reference, name)(queries, rows))
        head, tail = name.rsplit("_", 1)
        fetched = call_kernel(f"{head}_gather_{tail}", level, queries[4], rows, ids)
        np.testing.assert_array_equal(fetched, together[4, ids])


@each_level
def test_keys_from_floats(level: str) -> None:
    rng = np.random.default_rng(0)
    special = np.array([0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 1.0, -1.0], np.float32)
    for count in (0, 1, 7, 8, 9, 33, 600):
        scores = np.resize(np.concatenate([special, normal(count, 40)]), count)
        reach = rng.random(count, dtype=np.float32)
        for r in (None, reach):
            got = call_kernel("keys_from_f32", level, scores, r, 0.5)
            # Half of a number is exact, so one rounding remains, whether fused or not.
            np.testing.assert_array_equal(got, reference.keys_from_f32(scores, r, 0.5))


def test_keys_order_as_floats_do() -> None:
    values = np.sort(np.concatenate([normal(1, 500), -normal(2, 500) * 1e-30]))
    keys = reference.keys_from_f32(values, None, 0.0)
    assert (np.diff(keys >> np.uint64(32)).astype(np.int64) >= 0).all()


# ---- Rounding


def test_bfloat16_rounds_to_the_nearest() -> None:
    rows = np.concatenate([normal(0, 40, 50), normal(1, 40, 50) * np.float32(1e-3)])
    error = np.abs(reference.from_bf16(to_bf16(rows)) - rows)
    assert (error <= np.abs(rows) * 2.0**-8).all()
    exact = np.array([[0.0, 1.0, -2.5, 0.0078125, 3.3895313892515355e38]], np.float32)
    np.testing.assert_array_equal(reference.from_bf16(to_bf16(exact)), exact)
    assert np.isfinite(reference.from_bf16(to_bf16(np.full((1, 3), 3.4e38, np.float32)))).all()


def test_int8_rounds_to_the_nearest_step() -> None:
    rows = normal(3, 60, 37)
    rows[5] = 0
    stored, scales, squares = to_i8(rows)
    decoded = stored * scales[:, None]
    assert (np.abs(decoded - rows) <= 0.5001 * scales[:, None]).all()
    np.testing.assert_allclose(scales, np.abs(rows).max(axis=1) / 127, rtol=1e-6)
    np.testing.assert_allclose(squares, (decoded.astype(np.float64) ** 2).sum(axis=1), rtol=1e-6)
    assert scales[5] == 0
    assert not stored[5].any()
    assert np.abs(stored).max() == 127


@pytest.mark.parametrize("kind", ["bf16", "i8"])
def test_anisotropic_rounding_lowers_the_anisotropic_loss(kind: str) -> None:
    rows = normal(4, 200, 40)
    weights = np.full(200, 9.0, np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def decode(w: F32 | None) -> F32:
        if kind == "bf16":
            return reference.from_bf16(to_bf16(rows, w))
        stored, scales, _ = to_i8(rows, w)
        return stored * scales[:, None]

    def losses(w: F32 | None) -> F32:
        error = (rows - decode(w)).astype(np.float64)
        along = (error * unit).sum(axis=1)
        return np.asarray((error**2).sum(axis=1) + 9.0 * along**2)

    plain, shaped = losses(None), losses(weights)
    assert (shaped <= plain * (1 + 1e-6)).all()
    assert shaped.mean() < 0.95 * plain.mean()


# ---- Search


@each_measure
@each_short
def test_short_brute_force_is_brute_force_over_what_is_stored(
    measure: Any, quantize: ReorderType
) -> None:
    db, queries = normal(5, 700, 30), normal(6, 50, 30)
    searcher = swann.builder(db, 8, measure).score_brute_force(quantize).build()
    got = searcher.search_batched(queries)
    exact = swann.builder(db, 8, measure).score_brute_force().build().search_batched(queries)
    scale = np.abs(exact.distances).max()
    assert np.abs(got.distances - exact.distances).max() < 0.02 * scale
    assert swann.recall(got.indices, exact.indices) > 0.93
    assert searcher.nbytes < 0.6 * db.nbytes
    for i in (0, 49):
        alone = searcher.search(queries[i])
        np.testing.assert_array_equal(alone.indices, got.indices[i])
        np.testing.assert_array_equal(alone.distances, got.distances[i])


@each_measure
@each_short
@pytest.mark.parametrize("threshold", [math.nan, 0.2])
def test_short_reordering(
    measure: Any, quantize: ReorderType, threshold: float, tmp_path: Any
) -> None:
    db, queries = normal(7, 2000, 24), normal(8, 60, 24)
    exact = swann.builder(db, 10, measure).score_brute_force().build().search_batched(queries)
    searcher = (
        swann.builder(db, 10, measure)
        .tree(20, 20)
        .score_ah(2, anisotropic_quantization_threshold=threshold)
        .reorder(200, quantize, threshold)
        .build()
    )
    got = searcher.search_batched(queries)
    assert swann.recall(got.indices, exact.indices) > 0.9
    searcher.serialize(tmp_path / "index")
    loaded = swann.load_searcher(tmp_path / "index", verify="full")
    assert loaded.config == searcher.config
    again = loaded.search_batched(queries)
    np.testing.assert_array_equal(again.indices, got.indices)
    np.testing.assert_array_equal(again.distances, got.distances)


@each_measure
def test_brute_force_by_coarse_rows_keeps_the_finer_ones_of_its_reordering(measure: Any) -> None:
    db, queries = normal(5, 700, 30), normal(6, 50, 30)

    def found(score: ReorderType, reorder: ReorderType | None) -> Any:
        builder = swann.builder(db, 8, measure).tree(7, 5).score_brute_force(score)
        if reorder is not None:
            builder.reorder(20, reorder)
        return builder.build().search_batched(queries)

    exact, coarse = found(ReorderType.FLOAT32, None), found(ReorderType.INT8, None)
    for score, reorder, same in (
        (ReorderType.INT8, ReorderType.FLOAT32, exact),
        (ReorderType.FLOAT32, ReorderType.INT8, exact),
        (ReorderType.INT8, ReorderType.INT8, coarse),
        (ReorderType.INT8, ReorderType.BFLOAT16, found(ReorderType.BFLOAT16, None)),
    ):
        np.testing.assert_array_equal(found(score, reorder).distances, same.distances)
    assert not np.array_equal(exact.distances, coarse.distances)


def test_settings_from_elsewhere_ask_for_the_finer_rows_too(tmp_path: Path) -> None:
    db = normal(5, 300, 8)
    config = swann.IndexConfig(
        num_neighbors=5,
        distance_measure="dot_product",
        score=swann.BruteForceConfig(quantize=ReorderType.INT8),
        reorder=swann.ReorderConfig(reordering_num_neighbors=20),
    )
    exact = swann.builder(db, 5, "dot_product").score_brute_force().build()
    text = json.dumps(config.to_dict())
    made = scann_ops_pybind.create_searcher(db, text, 1).searcher
    exact.rebalance(config)
    apart = swann.load(swann.distributed.build(db, config, tmp_path, num_shards=1))
    for searcher in (made, exact, apart):
        assert searcher.config.score == swann.BruteForceConfig(quantize=ReorderType.FLOAT32)
        assert searcher._live.view.packed.rows is not None


def test_scanns_text_asks_for_the_finer_rows_too() -> None:
    db = normal(5, 300, 8)
    builder = scann_ops_pybind.builder(db, 5, "dot_product").score_brute_force(True).reorder(20)
    text = builder.create_config()
    assert "enabled: true" not in text
    text = text.replace("enabled: false", "enabled: true", 1)  # as ScaNN writes it
    exact = swann.builder(db, 5, "dot_product").score_brute_force().build().search_batched(db)
    found = scann_ops_pybind.create_searcher(db, text, 1).search_batched(db)
    np.testing.assert_array_equal(found[1], exact.distances)


def test_true_means_int8_and_false_float32() -> None:
    db = normal(9, 50, 8)
    for given, meant in ((True, "INT8"), (False, "FLOAT32"), ("BFLOAT16", "BFLOAT16")):
        brute = swann.builder(db, 3, "dot_product").score_brute_force(given)  # type: ignore[arg-type]
        assert brute.create_config().score.quantize.name == meant  # type: ignore[union-attr]
    with pytest.raises(swann.ConfigError, match="quantize is 'INT4'; expected a ReorderType"):
        swann.builder(db, 3, "dot_product").score_ah(2).reorder(10, "INT4")  # type: ignore[arg-type]


@each_short
def test_the_same_rows_on_any_number_of_threads(quantize: ReorderType) -> None:
    db = normal(10, 3000, 20)
    arrays = []
    for threads in (1, 3):
        builder = swann.builder(db, 5, "squared_l2").score_ah(2).reorder(20, quantize, 0.2)
        arrays.append(builder.set_n_training_threads(threads).build()._index.arrays())
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name])


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
@pytest.mark.parametrize("precision", ["INT8", "BFLOAT16"])
def test_rows_stay_what_they_are_while_leaves_are_split(precision: str, measure: Any) -> None:
    """Rows that change leaves are encoded anew, and not rounded anew."""
    rng = np.random.default_rng(4)
    db = rng.standard_normal((1200, 7), dtype=np.float32)
    tree = swann.builder(db[:200], 5, measure).tree(
        8, 8, min_partition_size=1, soar_lambda=1.5, incremental_threshold=40
    )
    threshold = 0.2 if measure != "squared_l2" else 6.0
    searcher = (
        tree.score_ah(1, threshold)
        .reorder(
            100, quantize=swann.ReorderType[precision], anisotropic_quantization_threshold=threshold
        )
        .build()
    )
    kept = searcher._live.vectors(np.arange(200))
    for first in range(200, 1200, 50):
        searcher.upsert(None, db[first : first + 50])
        now = searcher._live.vectors(np.arange(first + 50))
        np.testing.assert_array_equal(now[: len(kept)], kept)
        kept = now
    assert searcher._index.num_leaves > 12

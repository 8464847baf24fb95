"""Rows of int8 that are counted from origins."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_updates import by_datapoint

import swann
from swann import IndexConfig, ReorderType
from swann.index.disk import leaves
from swann.index.packed import PackedIndex
from swann.index.rows import num_origins
from swann.index.updates import folded
from swann.plan.layout import array_bytes

INT8 = ReorderType.INT8
F32 = NDArray[np.float32]
each_measure = pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])


def clustered(count: int, dimension: int, seed: int) -> F32:
    """Vectors that lie closer to each other than to zero."""
    rng = np.random.default_rng(seed)
    middles = 3 * np.random.default_rng(1).standard_normal((9, dimension))
    noise = rng.standard_normal((count, dimension))
    return np.asarray(middles[rng.integers(9, size=count)] + noise, np.float32)


def decoded(packed: PackedIndex) -> NDArray[np.float64]:
    """What the rows stand for."""
    assert packed.rows_i8 is not None
    assert packed.row_scales is not None
    rows = packed.rows_i8 * packed.row_scales[:, None].astype(np.float64)
    if packed.row_origins is not None:
        rows += packed.row_origins[packed.row_labels]
    return rows


def scores_of(measure: str, queries: F32, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """As results tell them, in float64."""
    q = queries.astype(np.float64)
    if measure == "cosine":
        q /= np.linalg.norm(q, axis=1, keepdims=True)
    if measure == "squared_l2":
        return np.asarray(((q[:, None] - rows[None]) ** 2).sum(axis=2))
    return np.asarray(q @ rows.T)


def build(measure: Any, how: str, db: F32) -> swann.Searcher:
    builder = swann.builder(db, 8, measure)
    if how == "brute force":
        return builder.score_brute_force(INT8).build()
    tree = builder.tree(6, 6, soar_lambda=1.0 if "soar" in how else None)
    if "leaves" in how:
        return tree.score_brute_force(INT8).build()
    return tree.score_ah(2).reorder(len(db), INT8).build()


@each_measure
@pytest.mark.parametrize(
    "how", ["brute force", "leaves", "leaves, soar", "reordered", "reordered, soar"]
)
def test_scores_are_those_of_what_is_stored(measure: str, how: str) -> None:
    """Of built rows, of new ones and after a fold, one by one and together."""
    db, queries = clustered(700, 13, 2), clustered(40, 13, 3)
    searcher = build(measure, how, db)
    packed = searcher._live.state().packed
    assert packed.row_origins is not None
    assert len(packed.row_origins) == num_origins(700, 13) == 10
    assert not packed.row_origins[0].any()

    def check(rows: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
        found = searcher.search_batched(queries)
        scores = scores_of(measure, queries, rows)
        order = np.argsort(scores if measure == "squared_l2" else -scores, axis=1)[:, :8]
        np.testing.assert_allclose(
            found.distances, np.take_along_axis(scores, order, axis=1), rtol=1e-3, atol=2e-4
        )
        assert (found.indices == numbers[order]).mean() > 0.99  # ties within a rounding
        for i in (0, 39):
            alone = searcher.search(queries[i])
            np.testing.assert_array_equal(alone.indices, found.indices[i])
            np.testing.assert_array_equal(alone.distances, found.distances[i])

    check(decoded(packed), packed.numbers())
    searcher.upsert(None, clustered(300, 13, 4))
    searcher.delete(np.arange(0, 700, 3))
    now = folded(searcher._live.state().packed)
    check(decoded(now), now.numbers())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 20),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e15]),
    st.booleans(),
    st.integers(0, 9),
)
def test_no_row_is_further_off_than_half_a_step_of_its_own(
    count: int, dimension: int, size: float, repeated: bool, seed: int
) -> None:
    """And no step is longer than that of rows counted from zero, whatever the rows."""
    rng = np.random.default_rng(seed)
    db = (size * rng.standard_normal((count, dimension))).astype(np.float32)
    if repeated:
        db[:] = db[rng.integers(min(3, count), size=count)]
    packed = swann.builder(db, 1, "dot_product").score_brute_force(INT8).build()._index
    assert packed.row_scales is not None
    error = np.abs(decoded(packed) - db)
    scales = packed.row_scales.astype(np.float64)[:, None]
    assert (error <= 0.501 * scales + 1e-44).all()
    step = np.abs(db.astype(np.float64)).max(axis=1) / 127
    assert (packed.row_scales <= step * 1.00001 + 1e-44).all()


@each_measure
def test_origins_lower_the_error(measure: Any) -> None:
    db = clustered(3000, 24, 7)
    packed = swann.builder(db, 5, measure).score_brute_force(INT8).build()._index
    assert packed.row_scales is not None
    rows = db.astype(np.float64)
    if measure == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    from_zero = np.abs(rows).max(axis=1) / 127
    assert np.mean(packed.row_scales / from_zero) < 0.6
    assert np.abs(decoded(packed) - rows).mean() < 0.6 * from_zero.mean() / 4


@pytest.mark.parametrize(("count", "dimension"), [(1, 4), (127, 4), (128, 4), (300, 9000)])
def test_few_rows_and_long_ones_are_counted_from_zero(count: int, dimension: int) -> None:
    db = np.random.default_rng(0).standard_normal((count, dimension), dtype=np.float32)
    searcher = swann.builder(db, 1, "dot_product").score_brute_force(INT8).build()
    arrays = searcher._index.arrays()
    origins = 2 if count == 128 else 0
    assert num_origins(count, dimension) == origins
    assert {"row_origins", "row_labels"} <= arrays.keys() if origins else "row_labels" not in arrays
    config = IndexConfig(
        num_neighbors=1,
        distance_measure="dot_product",
        score=swann.config.BruteForceConfig(quantize=INT8),
    )
    told = {name: array.nbytes for name, array in arrays.items()}
    assert array_bytes(config, count, dimension) == told


@each_measure
def test_saved_and_loaded(measure: Any, tmp_path: Path) -> None:
    db, queries = clustered(500, 12, 8), clustered(30, 12, 9)
    searcher = build(measure, "reordered", db)
    searcher.upsert(None, clustered(40, 12, 10))
    found = searcher.search_batched(queries)
    searcher.serialize(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert "row_origins" in manifest["features"]
    loaded = swann.load_searcher(tmp_path / "index", verify="full")
    again = loaded.search_batched(queries)
    np.testing.assert_array_equal(again.indices, found.indices)
    np.testing.assert_array_equal(again.distances, found.distances)
    loaded.upsert(None, clustered(10, 12, 11))
    searcher.upsert(None, clustered(10, 12, 11))
    np.testing.assert_array_equal(
        loaded.search_batched(queries).distances, searcher.search_batched(queries).distances
    )


@pytest.mark.parametrize("soar_lambda", [None, 1.0])
def test_leaves_taken_apart_and_joined(soar_lambda: float | None) -> None:
    db = clustered(500, 12, 8)
    tree = swann.builder(db, 8, "dot_product").tree(6, 6, soar_lambda=soar_lambda)
    packed = tree.score_ah(2).reorder(50, INT8).build()._index
    owners = np.arange(packed.num_leaves, dtype=np.uint32) % 3
    parts = [leaves.take_leaves(packed, owners == shard) for shard in range(3)]
    joined = leaves.join(parts, owners)
    for name, array in by_datapoint(packed).items():
        np.testing.assert_array_equal(by_datapoint(joined)[name], array, err_msg=name)
    assert joined.row_origins is not None
    for part in parts:
        assert part.row_labels is not None
        assert len(part.row_labels) == part.num_datapoints


def test_a_label_without_an_origin_is_refused() -> None:
    packed = build("dot_product", "brute force", clustered(200, 6, 12))._index
    assert packed.row_origins is not None
    with pytest.raises(ValueError, match="row_labels must be below the number of origins"):
        dataclasses.replace(packed, row_origins=packed.row_origins[:1])

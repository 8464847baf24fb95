"""Health figures: ScaNN's formulas, and kept true by every change."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import swann
from swann import Searcher
from swann.index.health import Health

RNG = np.random.default_rng(11)
N, D, LEAVES = 400, 6, 12
DB = (RNG.standard_normal((N, D)) + 3 * RNG.standard_normal((8, D))[RNG.integers(0, 8, N)]).astype(
    np.float32
)
KEYS = [
    "avg_quantization_error",
    "partition_weighted_avg_relative_imbalance",
    "partition_avg_relative_positive_imbalance",
    "sum_partition_sizes",
]


def build(measure: Any = "dot_product", score: str = "reorder", **tree: Any) -> Searcher:
    builder = swann.builder(DB, 5, measure).tree(LEAVES, 3, min_partition_size=1, **tree)
    if score == "brute force":
        return builder.score_brute_force().build()
    builder.score_ah(2)
    if score == "int8":
        builder.reorder(50, swann.ReorderType.INT8)
    return (builder.reorder(50) if score == "reorder" else builder).build()


def expected(searcher: Searcher) -> dict[str, float]:
    """ScaNN's formulas, from the arrays of an index that has exact rows."""
    packed = searcher._live.state().packed
    starts = packed.leaf_starts.astype(int)
    centroids, rows = packed.centroids, packed.rows
    assert centroids is not None
    if rows is None:
        assert packed.rows_i8 is not None
        assert packed.row_scales is not None
        rows = packed.rows_i8.astype(np.float32) * packed.row_scales[:, None]
        if packed.row_origins is not None:
            rows += packed.row_origins[packed.row_labels]
    entries = np.arange(len(rows)) if packed.entry_rows is None else packed.entry_rows
    sizes = np.diff(starts)
    leaves = np.repeat(np.arange(len(sizes)), sizes)
    errors = ((rows[entries].astype(float) - centroids[leaves]) ** 2).sum(axis=1)
    relative = sizes / sizes.mean() - 1
    return {
        KEYS[0]: np.sqrt(errors.mean()),
        KEYS[1]: (sizes**2).sum() * len(sizes) / sizes.sum() ** 2 - 1,
        KEYS[2]: relative[relative > 0].mean(),
        KEYS[3]: sizes.sum(),
    }


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
@pytest.mark.parametrize(
    ("score", "tree"),
    [
        ("reorder", {}),
        ("brute force", {}),
        ("int8", {}),
        ("reorder", {"spherical": True}),
        ("reorder", {"avq": 2.0}),
        ("reorder", {"soar_lambda": 1.5}),
        ("brute force", {"soar_lambda": 1.5}),
    ],
)
def test_formulas(measure: str, score: str, tree: dict[str, Any]) -> None:
    searcher = build(measure, score, **tree)
    stats = searcher.get_health_stats()
    assert list(stats) == KEYS
    assert [type(value) for value in stats.values()] == [float, float, float, int]
    assert stats == pytest.approx(expected(searcher), rel=1e-9)
    assert stats["sum_partition_sizes"] == N * (2 if "soar_lambda" in tree else 1)
    searcher.initialize_health_stats()
    assert searcher.get_health_stats() == stats
    assert pickle.loads(pickle.dumps(searcher)).get_health_stats() == pytest.approx(stats)


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
@pytest.mark.parametrize("score", ["reorder", "brute force", "int8", "codes"])
@pytest.mark.parametrize("tree", [{}, {"soar_lambda": 1.0}, {"avq": 2.0}], ids=str)
def test_changes_keep_it_true(measure: str, score: str, tree: dict[str, Any]) -> None:
    searcher = build(measure, score, **tree)
    searcher.initialize_health_stats()
    rng = np.random.default_rng(1)
    live = searcher._live
    for step in range(12):
        count = int(rng.integers(1, 90))
        searcher.upsert(None, DB[rng.integers(0, N, count)] * rng.lognormal() + step)
        numbers = live.numbers()
        some = rng.permutation(numbers)[: rng.integers(1, 60)]
        searcher.upsert(some, DB[rng.integers(0, N, len(some))])
        searcher.delete(rng.permutation(numbers)[:70])
        if step % 4 == 3:
            live.state()  # folds
        packed = live.view.packed
        assert live.view.books.health is not None
        stats = searcher.get_health_stats()
        assert stats == pytest.approx(Health.of(packed).stats(packed), rel=1e-9, abs=1e-12)
        if score != "codes":
            assert stats == pytest.approx(expected(searcher), rel=1e-9, abs=1e-12)


def test_codes_stand_for_the_rows_that_are_not_kept() -> None:
    exact = build().get_health_stats()
    coded = build(score="codes").get_health_stats()
    assert coded[KEYS[0]] == pytest.approx(exact[KEYS[0]], rel=0.1)
    assert [coded[key] for key in KEYS[1:]] == [exact[key] for key in KEYS[1:]]


def test_figures_tell_of_wear_and_rebalancing_mends_it() -> None:
    searcher = build()
    before = searcher.get_health_stats()
    far = (DB[:300] + 20).astype(np.float32)
    searcher.upsert(None, far)
    worn = searcher.get_health_stats()
    assert worn[KEYS[0]] > 1.5 * before[KEYS[0]]
    assert worn[KEYS[1]] > before[KEYS[1]] + 0.5
    assert worn[KEYS[3]] == N + 300
    searcher.rebalance()
    mended = searcher.get_health_stats()
    assert mended[KEYS[0]] < worn[KEYS[0]] / 3
    assert mended[KEYS[1]] < worn[KEYS[1]] / 2


def test_nothing_to_measure() -> None:
    zeros = dict.fromkeys(KEYS, 0)
    assert swann.builder(DB, 3, "cosine").score_ah(2).build().get_health_stats() == zeros
    empty = swann.builder(DB[:0], 3, "cosine").tree(4, 2).score_ah(2).build()
    assert empty.get_health_stats() == zeros
    searcher = build()
    searcher.initialize_health_stats()
    searcher.delete(range(N))
    assert searcher.get_health_stats() == zeros
    searcher.upsert(None, DB[:9])
    assert searcher.get_health_stats() == pytest.approx(expected(searcher), rel=1e-9)
    assert searcher.get_health_stats()["sum_partition_sizes"] == 9

"""The order of leaves, and batches that go by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swann
from swann.partition.order import near_together


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 5), st.integers(0, 9))
def test_an_order_has_every_centroid_once(k: int, d: int, values: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centroids = rng.integers(0, values + 1, (k, d)).astype(np.float32)
    assert np.array_equal(np.sort(near_together(centroids)), np.arange(k))


def test_one_direction_is_followed() -> None:
    rng = np.random.default_rng(0)
    line = rng.permutation(300)
    centroids = np.outer(line, rng.standard_normal(7)).astype(np.float32)
    order = line[near_together(centroids)]
    assert abs(np.diff(order).sum()) == 299
    assert np.abs(np.diff(order)).max() == 1


def test_near_centroids_get_near_numbers() -> None:
    rng = np.random.default_rng(1)
    middles = 5 * rng.standard_normal((20, 8))
    of_middle = rng.integers(20, size=400)
    centroids = (middles[of_middle] + rng.standard_normal((400, 8))).astype(np.float32)
    order = near_together(centroids)
    assert (np.diff(of_middle[order]) == 0).mean() > 0.75  # at random .05


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
@pytest.mark.parametrize("soar_lambda", [None, 1.0])
def test_batches_of_several_blocks_answer_as_queries_alone(
    measure: Any, soar_lambda: float | None
) -> None:
    """In an index that was changed, on one thread and two."""
    rng = np.random.default_rng(2)
    db = rng.standard_normal((3000, 10)).astype(np.float32)
    queries = rng.standard_normal((2600, 10)).astype(np.float32)
    tree = swann.builder(db, 6, measure).tree(40, 5, soar_lambda=soar_lambda)
    searcher = tree.score_ah(2).reorder(30).build()
    searcher.upsert(None, rng.standard_normal((200, 10)).astype(np.float32))
    searcher.delete(np.arange(0, 3000, 7))
    together = searcher.search_batched(queries)
    threads = searcher.search_batched_parallel(queries)
    np.testing.assert_array_equal(together.indices, threads.indices)
    np.testing.assert_array_equal(together.distances, threads.distances)
    for i in range(0, 2600, 13):
        alone = searcher.search(queries[i])
        np.testing.assert_array_equal(alone.indices, together.indices[i])
        np.testing.assert_array_equal(alone.distances, together.distances[i])
    queries[2000, 3] = np.nan
    with pytest.raises(swann.NonFiniteError, match=r"queries\[2000, 3\] is nan"):
        searcher.search_batched(queries)


def test_a_build_numbers_near_leaves_alike() -> None:
    rng = np.random.default_rng(3)
    middles = 5 * rng.standard_normal((16, 8))
    db = (middles[rng.integers(16, size=4000)] + rng.standard_normal((4000, 8))).astype(np.float32)
    index = swann.builder(db, 5, "squared_l2").tree(80, 5).score_brute_force().build()._index
    assert index.centroids is not None
    steps = np.linalg.norm(np.diff(index.centroids, axis=0), axis=1)
    others = index.centroids[rng.permutation(index.num_leaves)]
    assert np.median(steps) < 0.6 * np.median(np.linalg.norm(np.diff(others, axis=0), axis=1))

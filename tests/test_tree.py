"""The tree: every datapoint in its nearest leaf, and what is known of each leaf."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made import normal
from numpy.typing import NDArray

from swann.config import BruteForceConfig, IndexConfig, TreeConfig
from swann.index.building.build import build_index
from swann.index.packed import PackedIndex
from swann.partition import tree

F32 = NDArray[np.float32]


def settings(num_leaves: int, **options: object) -> TreeConfig:
    return TreeConfig(num_leaves=num_leaves, num_leaves_to_search=1, **options)  # type: ignore[arg-type]


def train(sample: F32, config: TreeConfig, threads: int = 1) -> F32:
    return tree.train_tree(sample, config, rng=np.random.default_rng(0), threads=threads)


def partition(db: F32, measure: str, num_leaves: int = 12, **options: object) -> PackedIndex:
    config = IndexConfig(
        num_neighbors=1,
        distance_measure=measure,  # type: ignore[arg-type]
        tree=settings(num_leaves, **options),
        score=BruteForceConfig(),
    )
    return build_index(db, config, num_threads=1)


def test_never_more_leaves_than_datapoints() -> None:
    assert train(normal(0, 5, 3), settings(9)).shape == (5, 3)
    assert train(normal(0, 5, 3), settings(4)).shape == (4, 3)
    assert partition(normal(0, 5, 3), "squared_l2", 9).num_leaves == 5


def test_settings_reach_the_training() -> None:
    sample = normal(0, 300, 4)
    plain = train(sample, settings(8))
    np.testing.assert_array_equal(plain, train(sample, settings(8), threads=3))
    np.testing.assert_allclose(
        np.linalg.norm(train(sample, settings(8, spherical=True)), axis=1), 1, rtol=1e-6
    )
    for changed in ({"training_iterations": 1}, {"random_init": False}):
        assert not np.array_equal(plain, train(sample, settings(8, **changed)))


@pytest.mark.parametrize("cut", [1, 7, 64, 300])
def test_assignment_does_not_depend_on_chunks(cut: int) -> None:
    db, centroids = normal(1, 300, 5), normal(2, 9, 5)
    seen: list[int] = []
    chunks = ((first, db[first : first + cut]) for first in range(0, 300, cut))
    leaves, scores = tree.assign(chunks, 300, centroids, 2, on_rows=seen.append)
    whole = tree.assign([(0, db)], 300, centroids, 1)
    np.testing.assert_array_equal(leaves, whole[0])
    np.testing.assert_array_equal(scores, whole[1])
    assert seen == [min(300, first + cut) for first in range(0, 300, cut)]


def test_spreads_are_the_deviation_of_a_leaf() -> None:
    db = normal(3, 500, 6)
    centroids = train(db, settings(7))
    leaves, scores = tree.assign([(0, db)], 500, centroids, 1)
    norms = np.linalg.norm(db, axis=1)
    spreads = tree.leaf_spreads(tree.leaf_distances(leaves, scores, norms, 8), 6)
    for leaf in range(7):
        residuals = db[leaves == leaf] - centroids[leaf]
        expected = tree.SPREADS_ABOVE * np.sqrt((residuals**2).mean())
        np.testing.assert_allclose(spreads[leaf], expected, rtol=1e-4)
    assert spreads[7] == 0.0  # nobody lives there


@pytest.mark.parametrize("cut", [7, 500])
def test_centroids_move_to_the_means_of_all_datapoints(cut: int) -> None:
    db, seen = normal(8, 500, 6), list[int]()
    centroids = np.vstack([train(db[:60], settings(7)), np.full((1, 6), 99, np.float32)])
    chunks = ((first, db[first : first + cut]) for first in range(0, 500, cut))
    longest = float(np.linalg.norm(db, axis=1).max())
    means = tree.to_means(chunks, centroids, longest, 500, 2, on_rows=seen.append)
    assert seen[-1] == 500
    leaves, _ = tree.assign_rows(db, centroids, None)
    for leaf in range(7):
        np.testing.assert_allclose(means[leaf], db[leaves == leaf].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(means[7], centroids[7])  # nobody lives there


def test_what_a_projection_hides() -> None:
    whole, reduced = np.full(10, 5.0, np.float32), np.full(10, 3.0, np.float32)
    assert tree.left_out(whole, whole, 7, 7) == 0.0
    # Queries lose 16 of 25, that is 16/9 of what they keep; datapoints have 4 a hidden dimension.
    np.testing.assert_allclose(tree.left_out(whole, reduced, 7, 3), 16 / 9 * 4)
    np.testing.assert_allclose(
        tree.leaf_spreads(np.array([6.0]), 3, None, 7.0), tree.SPREADS_ABOVE * 3
    )


@pytest.mark.parametrize("changed", [{"spherical": True}, {"training_sample_size": 30}])
def test_centroids_are_near_the_means_whatever_they_were_trained_on(changed: Any) -> None:
    """Unit vectors, and means of two or three datapoints each, would be far from them."""
    index = partition(normal(9, 3000, 5) + np.float32(0.5), "dot_product", **changed)
    assert index.centroids is not None
    assert index.rows is not None
    spans = zip(index.leaf_starts[:-1], index.leaf_starts[1:], strict=True)
    means = np.array([index.rows[begin:end].mean(axis=0) for begin, end in spans])
    aside = np.linalg.norm(index.centroids - means, axis=1)
    assert np.median(aside) < 0.15 * np.median(np.linalg.norm(means, axis=1))
    assert index.spreads is not None


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
def test_every_datapoint_lies_once_in_its_nearest_leaf(measure: str) -> None:
    db = normal(4, 600, 7)
    index = partition(db, measure)
    assert index.ids is not None
    assert index.rows is not None
    assert index.centroids is not None
    np.testing.assert_array_equal(np.sort(index.ids), np.arange(600))
    points = db / np.linalg.norm(db, axis=1, keepdims=True) if measure == "cosine" else db
    np.testing.assert_allclose(index.rows, points[index.ids], rtol=1e-6)
    leaf_of = np.repeat(np.arange(index.num_leaves), np.diff(index.leaf_starts))
    distances = ((index.rows[:, None] - index.centroids) ** 2).sum(axis=2)
    np.testing.assert_allclose(
        distances[np.arange(600), leaf_of], distances.min(axis=1), rtol=1e-4, atol=1e-6
    )
    for begin, end in zip(index.leaf_starts[:-1], index.leaf_starts[1:], strict=True):
        assert (np.diff(index.ids[begin:end].astype(int)) > 0).all()  # in the order of the input
    assert (index.spreads is None) == (measure == "squared_l2")


def test_the_sample_may_be_smaller_than_the_database() -> None:
    db = normal(5, 900, 4)
    whole = partition(db, "squared_l2", 6)
    part = partition(db, "squared_l2", 6, training_sample_size=100)
    assert whole.centroids is not None
    assert part.centroids is not None
    assert not np.array_equal(whole.centroids, part.centroids)
    assert part.leaf_starts[-1] == 900
    # At least one datapoint a leaf is sampled, whatever was asked for.
    assert partition(db, "squared_l2", 50, training_sample_size=1).num_leaves == 50


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
def test_identical_datapoints_share_a_leaf(measure: str) -> None:
    index = partition(np.ones((40, 3), np.float32), measure)
    assert index.num_leaves == 12
    assert sorted(np.diff(index.leaf_starts).tolist()) == [0] * 11 + [40]
    assert index.ids is not None
    np.testing.assert_array_equal(index.ids, np.arange(40))

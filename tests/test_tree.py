"""The tree: every datapoint in its nearest leaf, and what is known of each leaf."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from swann.config import BruteForceConfig, IndexConfig, TreeConfig
from swann.index.build import build_index
from swann.index.packed import PackedIndex
from swann.partition import tree

F32 = NDArray[np.float32]


def normal(seed: int, n: int, d: int) -> F32:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


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

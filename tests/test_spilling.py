"""SOAR: a second leaf for every datapoint, chosen against the first, and each found once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made import normal
from numpy.typing import NDArray

import swann
from swann import Searcher, kernels

MEASURES = ("dot_product", "squared_l2", "cosine")
each_measure = pytest.mark.parametrize("measure", MEASURES)

F32 = NDArray[np.float32]


def build(db: F32, measure: Any, kind: str, leaves: int = 20, **tree: Any) -> Searcher:
    builder = swann.builder(db, 10, measure).tree(leaves, leaves, **({"soar_lambda": 1.0} | tree))
    if kind == "brute force":
        return builder.score_brute_force().build()
    builder.score_ah(2)
    return (builder.reorder(300) if kind == "reorder" else builder).build()


def test_the_second_leaf_minimises_the_spilling_loss() -> None:
    rows, centroids = normal(0, 300, 12), normal(1, 15, 12)
    labels, _ = kernels.assign_leaves(rows, centroids, 2)
    for soar_lambda in (0.0, 1.0, 4.0):
        spilled = kernels.spill_leaves(rows, centroids, labels, soar_lambda, 2)
        residual = (rows - centroids[labels]).astype(np.float64)
        unit = residual / np.linalg.norm(residual, axis=1, keepdims=True)
        second = rows[:, None].astype(np.float64) - centroids[None]
        along = np.einsum("icj,ij->ic", second, unit)
        loss = (second**2).sum(axis=2) + soar_lambda * along**2
        loss[np.arange(300), labels] = np.inf
        chosen = loss[np.arange(300), spilled]
        np.testing.assert_allclose(chosen, loss.min(axis=1), rtol=1e-4)
        assert (spilled != labels).all()
    # A datapoint that is its own centroid has no direction to avoid.
    assert kernels.spill_leaves(centroids, centroids, np.arange(15, dtype="u4"), 1.0, 1).max() < 15


def test_a_greater_lambda_makes_residuals_more_orthogonal() -> None:
    rows, centroids = normal(2, 2000, 8), normal(3, 60, 8)
    labels, _ = kernels.assign_leaves(rows, centroids, 1)
    first = rows - centroids[labels]
    cosines = []
    for soar_lambda in (0.0, 1.0, 8.0):
        second = rows - centroids[kernels.spill_leaves(rows, centroids, labels, soar_lambda, 1)]
        length = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        cosines.append(float(np.mean(np.abs((first * second).sum(axis=1)) / length)))
    assert cosines[0] > cosines[1] > cosines[2]


@each_measure
def test_entries(measure: Any) -> None:
    """Every datapoint has two entries, in two leaves; its own leaf's come first."""
    db = normal(4, 900, 10)
    index = build(db, measure, "codes")._index
    assert index.entry_rows is not None
    assert index.ids is not None
    leaf = np.repeat(np.arange(index.num_leaves), np.diff(index.leaf_starts.astype(int)))
    assert len(index.entry_rows) == 2 * len(db)
    for row in range(len(db)):
        places = np.flatnonzero(index.entry_rows == row)
        assert len(places) == 2
        assert leaf[places[0]] != leaf[places[1]]
    assert sorted(index.ids) == list(range(len(db)))


@each_measure
@pytest.mark.parametrize("kind", ["brute force", "codes", "reorder"])
def test_each_datapoint_is_found_once(measure: Any, kind: str) -> None:
    db, queries = normal(5, 900, 10), normal(6, 40, 10)
    searcher = build(db, measure, kind)
    for k in (1, 10, 900, 1000):
        result = searcher.search_batched(queries, final_num_neighbors=k)
        for row in result.indices:
            real = row[row >= 0]
            assert len(set(real)) == len(real)
            # All leaves are searched, so all that exist are found, of candidates all that are.
            if kind == "reorder" and k > 300:
                assert 300 <= len(real) <= min(k, 900)
            else:
                assert len(real) == min(k, 900)


@each_measure
def test_brute_force_over_all_leaves_is_exact(measure: Any) -> None:
    db, queries = normal(7, 900, 10), normal(8, 40, 10)
    exact = swann.builder(db, 10, measure).score_brute_force().build().search_batched(queries)
    for kind in ("brute force", "reorder"):
        got = build(db, measure, kind).search_batched(queries)
        np.testing.assert_array_equal(got.distances, exact.distances)
        np.testing.assert_array_equal(got.indices, exact.indices)


@each_measure
@pytest.mark.parametrize("kind", ["brute force", "codes", "reorder"])
def test_alone_batched_and_parallel_agree(measure: Any, kind: str, tmp_path: Any) -> None:
    db, queries = normal(9, 1500, 12), normal(10, 600, 12)
    searcher = build(db, measure, kind)
    batched = searcher.search_batched(queries, leaves_to_search=5)
    searcher.num_threads = 3
    parallel = searcher.search_batched_parallel(queries, leaves_to_search=5)
    searcher.serialize(tmp_path / "index")
    loaded = swann.load_searcher(tmp_path / "index", verify="full")
    again = loaded.search_batched(queries, leaves_to_search=5)
    for other in (parallel, again):
        np.testing.assert_array_equal(other.indices, batched.indices)
        np.testing.assert_array_equal(other.distances, batched.distances)
    for i in range(0, 600, 37):
        alone = searcher.search(queries[i], leaves_to_search=5)
        np.testing.assert_array_equal(alone.indices, batched.indices[i])


def test_spilling_finds_more_in_as_many_leaves() -> None:
    db, queries = normal(11, 4000, 16), normal(12, 200, 16)
    exact = swann.exact_neighbors(db, queries, 10, "dot_product")
    exact_ids = exact.indices
    recalls = []
    for tree in ({"soar_lambda": None}, {"soar_lambda": 1.0}):
        searcher = build(db, "dot_product", "reorder", leaves=60, **tree)
        found = searcher.search_batched(queries, leaves_to_search=6).indices
        recalls.append(swann.recall(found, exact_ids))
    assert recalls[1] > recalls[0] + 0.03


def test_settings() -> None:
    db = normal(13, 60, 4)
    with pytest.raises(swann.ConfigError, match="overretrieve_factor is given without soar_lambda"):
        build(db, "dot_product", "codes", soar_lambda=None, overretrieve_factor=2.0)
    with pytest.raises(swann.ConfigError, match="soar_lambda is -1"):
        build(db, "dot_product", "codes", soar_lambda=-1)
    with pytest.raises(swann.ConfigError, match=r"overretrieve_factor is 0\.5"):
        build(db, "dot_product", "codes", overretrieve_factor=0.5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_databases(n: int, tmp_path: Any) -> None:
    db = normal(14, n, 4)
    for kind in ("brute force", "codes", "reorder"):
        searcher = build(db, "dot_product", kind)
        result = searcher.search(db[0])
        assert sorted(result.indices[:n]) == list(range(n))
        assert (result.indices[n:] == -1).all()
        searcher.serialize(tmp_path / kind)
        assert len(swann.load_searcher(tmp_path / kind)) == n


def test_the_same_index_on_any_number_of_threads() -> None:
    db = normal(15, 3000, 12)
    arrays = []
    for threads in (1, 3):
        builder = swann.builder(db, 5, "cosine").tree(30, 5, soar_lambda=1.5).score_ah(2, 0.2)
        arrays.append(builder.set_n_training_threads(threads).build()._index.arrays())
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name])


def test_a_very_large_k_costs_no_square_of_it() -> None:
    db = normal(16, 60_000, 4)
    for kind in ("brute force", "codes"):
        result = build(db, "dot_product", kind).search(db[0], final_num_neighbors=len(db))
        assert len(np.unique(result.indices)) == len(db)


def test_entries_have_32_bit_numbers() -> None:
    db = np.broadcast_to(np.float32(1), (2**31, 1))
    with pytest.raises(swann.InvalidInputError, match="such an index holds 2147483647 at most"):
        build(db, "dot_product", "brute force")

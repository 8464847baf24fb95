"""Anisotropic centroids: the optimum of Theorem 4.2, and what follows from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import normal
from numpy.typing import NDArray

import swann
from swann import kernels
from swann.config import BruteForceConfig, IndexConfig, TreeConfig
from swann.index.building.build import build_index
from swann.partition import tree
from swann.partition.avq import move_to_datapoints, reach_out

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
MEASURES = ("dot_product", "squared_l2", "cosine")
some = settings(max_examples=40)


def losses(rows: F32, centroids: F32, eta: float) -> F64:
    """The loss of every pair of a row and a centroid, as the definition says."""
    x = rows.astype(np.float64)
    errors = x[:, None] - centroids.astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    units = x / np.where(norms > 0, norms, 1)
    along = np.einsum("icj,ij->ic", errors, units)
    return np.asarray((errors**2).sum(axis=2) + (eta - 1) * along**2)


def optimum(rows: F32, eta: float) -> F64:
    """The centroid of Theorem 4.2, by a dense solver."""
    x = rows.astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    units = x / np.where(norms > 0, norms, 1)
    matrix = len(x) * np.eye(x.shape[1]) + (eta - 1) * units.T @ units
    return np.asarray(np.linalg.solve(matrix, eta * x.sum(axis=0)))


def moved(rows: F32, labels: NDArray[Any], start: F32, eta: float, threads: int = 1) -> F32:
    centroids = start.copy()
    order, starts = kernels.sort_by_leaf(labels.astype(np.uint32), len(start))
    kernels.anisotropic_centroids(rows, order, starts, eta, centroids, threads)
    return centroids


@pytest.mark.parametrize("eta", [1.0, 1.5, 4.0, 60.0, 1e5])
@pytest.mark.parametrize("shape", [(1, 1), (3, 20), (200, 7), (90, 33), (40, 300)])
def test_the_update_is_the_optimum(eta: float, shape: tuple[int, int]) -> None:
    rows = normal(shape[0], *shape) + np.float32(0.5)
    rows[0] = 0  # no direction
    labels = np.arange(len(rows)) % 2 * 2  # the leaf between is empty
    start = normal(9, 3, shape[1])
    centroids = moved(rows, labels, start, eta)
    np.testing.assert_array_equal(centroids[1], start[1])
    for leaf in (0, 2) if len(rows) > 1 else (0,):
        members = rows[labels == leaf]
        want = optimum(members, eta)
        scale = np.abs(want).max() + 1e-30
        np.testing.assert_allclose(centroids[leaf] / scale, want / scale, atol=3e-6)
        best = losses(members, centroids[leaf : leaf + 1], eta).sum()
        rng = np.random.default_rng(0)
        for step in (1e-3, 1e-1):  # nowhere around is better
            for _ in range(5):
                aside = centroids[leaf] + step * scale * rng.standard_normal(shape[1])
                there = losses(members, aside[None].astype(np.float32), eta).sum()
                assert there >= best * (1 - 1e-6)


def test_eta_of_one_gives_means() -> None:
    rows = normal(0, 300, 6)
    labels = np.random.default_rng(1).integers(0, 5, 300)
    centroids = moved(rows, labels, normal(2, 5, 6), 1.0)
    for leaf in range(5):
        np.testing.assert_allclose(centroids[leaf], rows[labels == leaf].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("eta", [1.0, 1.3, 5.0, 1e6])
@pytest.mark.parametrize("shape", [(1, 1, 1), (63, 5, 3), (130, 40, 17), (20, 1100, 4)])
def test_assignment_minimises_the_loss(eta: float, shape: tuple[int, int, int]) -> None:
    n, k, d = shape
    rows, centroids = normal(n, n, d), normal(k + 1, k, d)
    rows[-1] = 0
    labels, scores = kernels.assign_leaves(rows, centroids, 2, eta)
    table = losses(rows, centroids, eta)
    chosen = table[np.arange(n), labels]
    np.testing.assert_allclose(chosen, table.min(axis=1), rtol=1e-4, atol=1e-4 * eta)
    exact = (rows.astype(float) * centroids[labels]).sum(axis=1)
    exact -= (centroids[labels].astype(float) ** 2).sum(axis=1) / 2
    np.testing.assert_allclose(scores, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (63, 5, 3), (130, 40, 17), (20, 1100, 4)])
def test_each_row_may_have_an_eta_of_its_own(shape: tuple[int, int, int]) -> None:
    n, k, d = shape
    rows, centroids = normal(n, n, d), normal(k + 1, k, d)
    rows[-1] = 0
    etas = np.random.default_rng(n).choice(np.array([0, 0.5, 1, 3, 100], np.float32), n)
    labels, scores = kernels.assign_leaves(rows, centroids, 2, etas)
    for i, eta in enumerate(etas):
        table = losses(rows[i : i + 1], centroids, float(eta))[0]
        assert table[labels[i]] <= table.min() + 1e-4 * max(eta, 1) + 1e-4 * abs(table.min())
    exact = (rows.astype(float) * centroids[labels]).sum(axis=1)
    exact -= (centroids[labels].astype(float) ** 2).sum(axis=1) / 2
    np.testing.assert_allclose(scores, exact, rtol=1e-4, atol=1e-5)


def test_no_length_overflows() -> None:
    rows = normal(3, 60, 5)
    rows *= np.float32(9.9e17) / np.linalg.norm(rows, axis=1, keepdims=True)
    labels, _ = kernels.assign_leaves(rows, rows[:7], 1, 1e9)
    np.testing.assert_array_equal(labels[:7], np.arange(7))
    index = swann.builder(rows, 1, "dot_product").tree(4, 4, avq=1e9).score_brute_force().build()
    assert len(np.unique(index.search(rows[0], 60).indices)) == 60


@some
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 200),
    k=st.integers(1, 20),
    d=st.integers(1, 12),
    eta=st.floats(1, 50),
    grid=st.booleans(),
)
def test_centroids_reach_out_from_their_nearest_datapoints(
    seed: int, n: int, k: int, d: int, eta: float, grid: bool
) -> None:
    rows = normal(seed, n, d)
    if grid:  # many ties, many zeros, empty leaves
        rows = np.rint(rows)
    start = rows[: min(n, k)].copy()
    kept = start.copy()
    centroids = reach_out(rows, start, eta)
    np.testing.assert_array_equal(start, kept)
    labels, _ = kernels.assign_leaves(rows, start, 1)
    for leaf in range(len(start)):
        if not (labels == leaf).any():
            np.testing.assert_array_equal(centroids[leaf], start[leaf])
            continue
        want = optimum(rows[labels == leaf], eta)
        np.testing.assert_allclose(centroids[leaf], want, atol=1e-5 * (1 + np.abs(want).max()))


@pytest.mark.parametrize("most_rows", [1000, 137, 64])
def test_centroids_of_all_datapoints_are_read_in_parts(most_rows: int) -> None:
    rows = normal(6, 500, 5) + np.float32(1)
    labels = np.random.default_rng(7).integers(0, 9, 500).astype(np.uint32)
    labels[labels == 4] = 2  # an empty leaf, and one beyond 64 rows
    order, starts = kernels.sort_by_leaf(labels, 9)
    asked: list[int] = []
    done: list[int] = []

    def read(ids: Any) -> F32:
        asked.append(len(ids))
        return rows[ids]

    start = normal(8, 9, 5)
    found, distances = move_to_datapoints(
        read, order, starts, start, 2.5, most_rows=most_rows, threads=2, on_rows=done.append
    )
    assert max(asked) <= most_rows
    assert done[-1] == 500
    np.testing.assert_array_equal(found[4], start[4])
    assert distances[4] == 0
    for leaf in set(range(9)) - {4}:
        members = rows[labels == leaf]
        if len(members) > most_rows:  # evenly spaced ones stand for all
            np.testing.assert_allclose(found[leaf], optimum(members, 2.5), atol=0.5)
            continue
        np.testing.assert_allclose(found[leaf], optimum(members, 2.5), rtol=1e-4)
        want = ((members - found[leaf]) ** 2).sum(axis=1).mean()
        np.testing.assert_allclose(distances[leaf], want, rtol=1e-4)


# ---- The index


def partition(db: F32, measure: Any, avq: float | None, threads: int = 1, **tree_: Any) -> Any:
    config = IndexConfig(
        num_neighbors=1,
        distance_measure=measure,
        tree=TreeConfig(num_leaves=12, num_leaves_to_search=1, avq=avq, **tree_),
        score=BruteForceConfig(),
    )
    return build_index(db, config, num_threads=threads)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("spherical", [True, False])
def test_centroids_are_best_for_the_datapoints_of_their_leaves(
    measure: Any, spherical: bool
) -> None:
    db = normal(10, 800, 7) + np.float32(0.3)
    index = partition(db, measure, 3.0, spherical=spherical)
    unit = db / np.linalg.norm(db, axis=1, keepdims=True)
    rows = (unit if measure == "cosine" else db)[index.ids]
    for leaf in range(index.num_leaves):
        members = rows[index.leaf_starts[leaf] : index.leaf_starts[leaf + 1]]
        np.testing.assert_allclose(index.centroids[leaf], optimum(members, 3.0), atol=1e-5)
    if measure == "squared_l2":
        assert index.spreads is None
        return
    leaf_of = np.repeat(np.arange(index.num_leaves), np.diff(index.leaf_starts.astype(int)))
    squares = ((rows - index.centroids[leaf_of]) ** 2).sum(axis=1)
    means = np.bincount(leaf_of, squares) / np.bincount(leaf_of)
    want = tree.SPREADS_ABOVE / 3.0 * np.sqrt(means / 7)
    np.testing.assert_allclose(index.spreads, want, rtol=1e-4)


def test_the_same_on_any_number_of_threads() -> None:
    db = normal(11, 2000, 9)
    one, three = (partition(db, "dot_product", 2.0, threads) for threads in (1, 3))
    for name, array in one.arrays().items():
        assert array.tobytes() == three.arrays()[name].tobytes(), name


def test_new_datapoints_go_where_they_would_have_been() -> None:
    """`assign_rows` puts nearly all into the leaves that the build chose for them."""
    db = normal(12, 2000, 9)
    index = partition(db, "dot_product", 2.0)
    leaf_of = np.repeat(np.arange(index.num_leaves), np.diff(index.leaf_starts.astype(int)))
    again, _ = tree.assign_rows(db[index.ids], index.centroids, 2.0)
    assert (again == leaf_of).mean() > 0.9
    by_l2, _ = tree.assign_rows(db[index.ids], index.centroids, None)
    np.testing.assert_array_equal(
        by_l2, kernels.assign_leaves(db[index.ids], index.centroids, 1)[0]
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_odd_databases(measure: Any) -> None:
    for db in (np.ones((40, 3), np.float32), normal(13, 5, 3), normal(14, 1, 1)):
        searcher = swann.builder(db, 3, measure).tree(12, 12, avq=4.0).score_ah(1).build()
        found = searcher.search_batched(db)
        assert np.isfinite(found.distances[:, 0]).all()
        assert (found.indices[:, 0] >= 0).all()
    if measure != "cosine":
        zeros = np.zeros((20, 4), np.float32)
        searcher = swann.builder(zeros, 3, measure).tree(4, 4, avq=4.0).score_brute_force().build()
        assert searcher.search(zeros[0]).distances.tolist() == [0, 0, 0]


def test_finds_more_where_lengths_differ() -> None:
    """Datapoints of wide leaves score above their mean: longer centroids say so."""
    rng = np.random.default_rng(15)
    db = normal(16, 6000, 24) * rng.lognormal(0, 0.4, (6000, 1)).astype(np.float32)
    queries = normal(17, 300, 24)
    exact = swann.exact_neighbors(db, queries, 10, "dot_product").indices
    recalls = []
    for avq in (None, 4.0):
        builder = swann.builder(db, 10, "dot_product")
        builder.tree(80, 6, avq=avq)
        searcher = builder.score_brute_force().build()
        recalls.append(swann.recall(searcher.search_batched(queries).indices, exact))
    assert recalls[1] > recalls[0] + 0.05


def test_a_saved_index_is_the_same(tmp_path: Any) -> None:
    db, queries = normal(18, 900, 8), normal(19, 30, 8)
    for measure in MEASURES:
        builder = swann.builder(db, 5, measure).tree(20, 4, avq=2.0, spherical=True).score_ah(2)
        searcher = builder.reorder(50).build()
        searcher.serialize(tmp_path / measure)
        loaded = swann.load_searcher(tmp_path / measure, verify="full")
        assert loaded.config == searcher.config
        for one, other in zip(
            searcher.search_batched(queries), loaded.search_batched(queries), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_progress_never_goes_back() -> None:
    seen: list[tuple[str, int, int]] = []
    builder = swann.builder(normal(20, 500, 4), 5, "dot_product").tree(10, 2, avq=2.0)
    builder.score_brute_force().build(progress=lambda *event: seen.append(event))
    for stage in {event[0] for event in seen}:
        counts = [done for name, done, _ in seen if name == stage]
        assert counts == sorted(counts)
        assert all(done <= total for _, done, total in seen)
    assert ("centroids", 500, 500) in seen


def test_upserted_datapoints_are_assigned_by_the_loss(tmp_path: Any) -> None:
    db, new = normal(21, 1500, 9), normal(22, 400, 9)
    searcher = swann.builder(db, 5, "dot_product").tree(12, 3, avq=4.0).score_brute_force().build()
    searcher.upsert(None, new)
    searcher.serialize(tmp_path / "index")
    index = swann.load_searcher(tmp_path / "index")._index
    assert index.ids is not None
    assert index.centroids is not None
    leaf_of = np.empty(1900, np.int64)
    sizes = np.diff(index.leaf_starts.astype(int))
    leaf_of[index.ids] = np.repeat(np.arange(index.num_leaves), sizes)
    want, _ = tree.assign_rows(new, index.centroids, 4.0)
    np.testing.assert_array_equal(leaf_of[1500:], want)


def test_grown_leaves_are_split_under_the_loss() -> None:
    searcher = (
        swann.builder(normal(23, 600, 9), 5, "dot_product")
        .tree(12, 12, avq=4.0, incremental_threshold=100)
        .score_brute_force()
        .build()
    )
    before = searcher._index.num_leaves
    new = normal(24, 2500, 9)
    searcher.upsert(None, new, batch_size=500)
    assert searcher._index.num_leaves > before
    everything = np.concatenate([normal(23, 600, 9), new])
    exact = swann.exact_neighbors(everything, new[:50], 5, "dot_product")
    found = searcher.search_batched(new[:50], leaves_to_search=10**6)
    np.testing.assert_array_equal(found.indices, exact.indices)

"""What must hold of any search, for every pipeline and distance measure.

The data are small and random; the truth is NumPy in float64.
"""

from __future__ import annotations

import copy
import functools
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import normal
from numpy.typing import NDArray
from pipelines import Pipeline, assert_same, check_sane, search_all

import swann
from swann import Searcher, SearchResult
from swann.index.packed import PackedIndex
from swann.kernels import reference
from swann.kernels.reference import ADDED, MAX_ENTRY

F32 = NDArray[np.float32]

N, D, LEAVES = 700, 13, 20
MEASURES = ["dot_product", "squared_l2", "cosine"]
PIPELINES = [
    Pipeline("tree+AH+reorder", tree=True, ah=True, reorder=True),
    Pipeline("AH+reorder", tree=False, ah=True, reorder=True),
    Pipeline("AH", tree=False, ah=True, reorder=False),
    Pipeline("tree+AH", tree=True, ah=True, reorder=False),
    Pipeline("brute force", tree=False, ah=False, reorder=False),
    Pipeline("tree+brute force", tree=True, ah=False, reorder=False),
    Pipeline("tree+AH256+reorder", tree=True, ah=True, reorder=True, hash_type="lut256"),
    Pipeline("AH256", tree=False, ah=True, reorder=False, hash_type="lut256"),
]

each_pipeline = pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda p: p.name)
each_measure = pytest.mark.parametrize("measure", MEASURES)
trees = pytest.mark.parametrize("pipeline", [p for p in PIPELINES if p.tree], ids=lambda p: p.name)
hashed = pytest.mark.parametrize("pipeline", [p for p in PIPELINES if p.ah], ids=lambda p: p.name)
exact = pytest.mark.parametrize("pipeline", [p for p in PIPELINES if p.exact], ids=lambda p: p.name)


@functools.cache
def database() -> F32:
    """Clustered, of different lengths, so that leaves and measures differ."""
    rng = np.random.default_rng(0)
    middles = 2 * rng.standard_normal((LEAVES, D))
    points = middles[rng.integers(LEAVES, size=N)] + rng.standard_normal((N, D))
    return points.astype(np.float32)


QUERIES = normal(1, 40, D) * 2


@functools.cache
def built(pipeline: Pipeline, measure: str) -> Searcher:
    return pipeline.build(
        database(),
        measure=measure,
        tree={"num_leaves": LEAVES, "num_leaves_to_search": 4},
        ah={"anisotropic_quantization_threshold": 0.2},
        reorder=60,
    )


def truth(db: NDArray[Any], queries: NDArray[Any], measure: str) -> NDArray[np.float64]:
    """The distances of all pairs."""
    db, queries = db.astype(np.float64), queries.astype(np.float64)
    if measure == "squared_l2":
        return np.asarray(((queries[:, None] - db) ** 2).sum(axis=2))
    if measure == "cosine":
        db = db / np.linalg.norm(db, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return np.asarray(queries @ db.T)


def order_of(distances: NDArray[Any], measure: str) -> NDArray[np.int64]:
    """Datapoints from the nearest; ties to the lowest id."""
    return np.argsort(distances if measure == "squared_l2" else -distances, axis=1, kind="stable")


def check_exact(result: SearchResult, distances: NDArray[np.float64], measure: str) -> None:
    """Right up to float32: distances are true, and nothing better was left out."""
    k = result.indices.shape[1]
    # Errors grow with the terms of a sum, not with the sum: orthogonal vectors sum to nearly 0.
    scale = np.maximum(np.abs(distances).max(axis=1, keepdims=True), 1.0)
    of_found = np.take_along_axis(distances, result.indices, axis=1)
    of_best = np.take_along_axis(distances, order_of(distances, measure)[:, :k], axis=1)
    assert (np.abs(result.distances - of_found) <= 1e-5 * np.maximum(np.abs(of_found), scale)).all()
    assert (np.abs(of_found - of_best) <= 2e-6 * scale).all()


# ---- The same answer whatever the company


@each_pipeline
@each_measure
def test_alone_or_in_any_batch(pipeline: Pipeline, measure: str) -> None:
    searcher = built(pipeline, measure)
    for k, leaves in ((1, 1), (10, 4), (100, LEAVES)):
        whole = search_all(searcher, QUERIES, k, leaves_to_search=leaves)
        for begin, end in ((0, 2), (3, 10), (17, 40)):
            part = searcher.search_batched(QUERIES[begin:end], k, leaves_to_search=leaves)
            assert_same(part, SearchResult(whole.indices[begin:end], whole.distances[begin:end]))


@each_pipeline
@each_measure
def test_many_blocks_of_queries_on_any_number_of_threads(pipeline: Pipeline, measure: str) -> None:
    searcher = built(pipeline, measure)
    queries = normal(5, 700, D)
    expected = searcher.search_batched(queries)
    check_sane(expected, N, searcher.config.num_neighbors, descending=measure != "squared_l2")
    try:
        for threads in (1, 2, 3, 16):
            searcher.set_num_threads(threads)
            for batch_size in (1, 300):
                found = searcher.search_batched_parallel(queries, batch_size=batch_size)
                assert_same(found, expected)
    finally:
        searcher.set_num_threads(2)
    for row in (0, 255, 256, 511, 512, 699):
        one = searcher.search(queries[row])
        assert_same(one, SearchResult(expected.indices[row], expected.distances[row]))


@settings(max_examples=300)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 150),
    d=st.integers(1, 20),
    k=st.integers(1, 160),
    leaves=st.integers(1, 30),
    visited=st.integers(1, 30),
    width=st.integers(1, 20),
    reorder=st.integers(1, 200),
    levels=st.sampled_from([2, 5, 1000]),
    pipeline=st.sampled_from(PIPELINES),
    measure=st.sampled_from(MEASURES),
)
def test_any_small_index(
    seed: int,
    n: int,
    d: int,
    k: int,
    leaves: int,
    visited: int,
    width: int,
    reorder: int,
    levels: int,
    pipeline: Pipeline,
    measure: str,
) -> None:
    """Three ways to search agree, results are sane, and all leaves give all there is."""
    rng = np.random.default_rng(seed)
    db = rng.integers(-levels, levels + 1, (n, d)).astype(np.float32)
    db[~db.any(axis=1), 0] = 1  # cosine wants directions
    queries = rng.integers(1, levels + 1, (5, d)).astype(np.float32)
    searcher = pipeline.build(
        db,
        k=k,
        measure=measure,
        tree={"num_leaves": leaves, "num_leaves_to_search": min(visited, leaves)},
        ah={"dimensions_per_block": min(width, d), "training_iterations": 2},
        reorder=reorder,
    )
    search_all(searcher, queries, k, pre_reorder_num_neighbors=reorder)
    everything = search_all(
        searcher, queries, k, leaves_to_search=leaves, pre_reorder_num_neighbors=n
    )
    assert ((everything.indices >= 0).sum(axis=1) == min(n, k)).all()
    if pipeline.exact:
        head = SearchResult(everything.indices[:, :n], everything.distances[:, :n])
        check_exact(head, truth(db, queries, measure), measure)


# ---- Exact answers


@exact
@each_measure
def test_everything_visited_and_reordered_is_exact(pipeline: Pipeline, measure: str) -> None:
    searcher = built(pipeline, measure)
    found = search_all(searcher, QUERIES, 25, leaves_to_search=LEAVES, pre_reorder_num_neighbors=N)
    check_exact(found, truth(database(), QUERIES, measure), measure)
    flat = built(PIPELINES[4], measure).search_batched(QUERIES, 25)
    assert_same(found, flat)


@each_measure
def test_brute_force_is_numpy(measure: str) -> None:
    for n, d in ((1, 1), (3, 200), (129, 7), (1000, 33)):
        db, queries = normal(n, n, d), normal(d, 6, d)
        searcher = swann.builder(db, 10, measure).score_brute_force().build()  # type: ignore[arg-type]
        found = search_all(searcher, queries, min(n, 10))
        check_exact(found, truth(db, queries, measure), measure)


@exact
@each_measure
def test_ties_go_to_the_lowest_id(pipeline: Pipeline, measure: str) -> None:
    """Every datapoint five times, far apart in the database and in the leaves."""
    db = np.tile(np.rint(database()[:60] * 4), (5, 1))
    queries = np.rint(QUERIES * 4)
    searcher = pipeline.build(
        db, measure=measure, tree={"num_leaves": 9, "num_leaves_to_search": 9}
    )
    found = search_all(searcher, queries, 40, pre_reorder_num_neighbors=len(db))
    if measure == "cosine":  # not exact in float32, but equal rows score equally
        for ids, values in zip(found.indices, found.distances, strict=True):
            ties = np.diff(values) == 0
            assert (np.diff(ids)[ties] > 0).all()
            assert ties.sum() >= 30
        return
    distances = truth(db, queries, measure)
    np.testing.assert_array_equal(found.indices, order_of(distances, measure)[:, :40])
    np.testing.assert_array_equal(
        found.distances, np.take_along_axis(distances, found.indices, axis=1)
    )


@each_measure
def test_cut_ties_go_to_the_lowest_id(measure: str) -> None:
    """More equal scores than candidates are kept, in blocks and alone."""
    db = np.ones((3000, 4), np.float32)
    for searcher in (
        swann.builder(db, 3, measure).score_brute_force().build(),  # type: ignore[arg-type]
        swann.builder(db, 3, measure).score_ah(2).build(),  # type: ignore[arg-type]
        swann.builder(db, 3, measure).score_ah(2).reorder(7).build(),  # type: ignore[arg-type]
        swann.builder(db, 3, measure).tree(5, 5).score_ah(2).reorder(7).build(),  # type: ignore[arg-type]
    ):
        found = search_all(searcher, np.ones((4, 4), np.float32), 3)
        assert found.indices.tolist() == [[0, 1, 2]] * 4


# ---- Leaves


@trees
@each_measure
def test_more_leaves_find_more(pipeline: Pipeline, measure: str) -> None:
    searcher = built(pipeline, measure)
    distances = truth(database(), QUERIES, measure)
    wanted = order_of(distances, measure)[:, :10]
    recalls = []
    for leaves in (1, 2, 4, 8, 14, LEAVES):
        found = search_all(
            searcher, QUERIES, 10, leaves_to_search=leaves, pre_reorder_num_neighbors=100
        )
        hits = [len(set(a) & set(b)) for a, b in zip(found.indices, wanted, strict=True)]
        recalls.append(hits)
    means = np.mean(recalls, axis=1)
    if not pipeline.ah:  # exact scores: a further leaf can lose no neighbor
        assert (np.diff(recalls, axis=0) >= 0).all()
        assert means[-1] == 10
    assert (np.diff(means) >= -0.1).all()
    assert means[0] < means[-1] - 1
    assert means[-1] > (9.5 if pipeline.exact else 5)


@trees
@each_measure
def test_a_search_sees_its_leaves_and_no_others(pipeline: Pipeline, measure: str) -> None:
    searcher = built(pipeline, measure)
    index = searcher._index
    assert index.ids is not None
    leaf_of = np.empty(N, int)
    leaf_of[index.ids] = np.repeat(np.arange(LEAVES), np.diff(index.leaf_starts))
    for leaves in (1, 3):
        found = searcher.search_batched(
            QUERIES, N, leaves_to_search=leaves, pre_reorder_num_neighbors=N
        )
        for query, ids in zip(QUERIES, found.indices, strict=True):
            seen = ids[ids >= 0]
            chosen = np.unique(leaf_of[seen])
            assert set(chosen) <= set(best_leaves(index, query, leaves).tolist())
            assert len(seen) == np.isin(leaf_of, chosen).sum()
            assert len(chosen) == leaves


def best_leaves(index: PackedIndex, query: F32, count: int) -> NDArray[np.int64]:
    assert index.centroids is not None
    q = query.astype(np.float64)
    if index.config.distance_measure == "squared_l2":
        return np.argsort(((q - index.centroids) ** 2).sum(axis=1))[:count]
    assert index.spreads is not None
    if index.config.distance_measure == "cosine":
        q /= np.linalg.norm(q)
    reach = index.centroids @ q + np.linalg.norm(q) * index.spreads
    return np.argsort(-reach)[:count]


def test_too_few_are_filled_up() -> None:
    db = normal(0, 50, 4)
    for pipeline in PIPELINES:
        searcher = pipeline.build(db, tree={"num_leaves": 10, "num_leaves_to_search": 1})
        found = search_all(searcher, normal(1, 300, 4), 60)  # checks -1 and NaN at the end
        counts = (found.indices >= 0).sum(axis=1)
        assert (counts < 50).all() if pipeline.tree else (counts == 50).all()
        assert (counts > 0).all()


# ---- Approximate scores


def reconstruct(index: PackedIndex) -> NDArray[np.float64]:
    """What the codes of an index stand for, in the order of the rows."""
    assert index.codes is not None
    assert index.codebook is not None
    width = index.config.score.dimensions_per_block  # type: ignore[union-attr]
    sizes = np.diff(index.leaf_starts.astype(int))
    unpacked = reference.unpack_codes(index.codes)
    every, rows, group = np.arange(index.dimension), [], 0
    for leaf, size in enumerate(sizes):
        count = -(-size // 32)
        codes = unpacked[group : group + count].reshape(-1, unpacked.shape[2])[:size]
        decoded = index.codebook[every, codes[:, every // width]].astype(np.float64)
        if index.centroids is not None:
            decoded += index.centroids[leaf]
        rows.append(decoded)
        group += count
    return np.concatenate(rows)


def rounding(index: PackedIndex, query: F32, reach: float) -> float:
    """The most that 8-bit tables, 16-bit corrections and whole scores change a distance."""
    assert index.codebook is not None
    width = index.config.score.dimensions_per_block  # type: ignore[union-attr]
    squared_l2 = index.config.distance_measure == "squared_l2"
    seen = query if index.code_center is None else query - index.code_center
    _, lows, highs = reference.lut_f32(seen, index.codebook, width, squared_l2)
    blocks, widths = len(lows), highs - lows
    padded, most = np.append(widths, np.zeros(2 * max(ADDED))), float(MAX_ENTRY)
    widest = widths.max()
    if index.codebook.shape[1] == 16:  # three entries and their roundings are added in 8 bits
        triples = [padded[:blocks] + padded[s:][:blocks] + padded[2 * s :][:blocks] for s in ADDED]
        widest = np.max(triples)
        most -= 1.5
    scale = min(
        most / widest,
        (65535 - blocks - 1) / (widths.sum() + index.correction_span),
        2**30 / (abs(lows.sum() + index.correction_low) + reach),
    )
    # Half a step a block; the bias is rounded; a correction is rounded down twice, and its
    # multiplier too.
    steps = 0.5 * blocks + 0.5 + (3 if index.corrections is not None else 0)
    return 1.001 * steps / scale + index.correction_span / 65535 / 2


@hashed
@each_measure
@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("threshold", [None, 0.2])
def test_approximate_distances_are_those_of_the_codes(
    pipeline: Pipeline, measure: str, width: int, threshold: float | None
) -> None:
    """Decoded, the codes give the distances of the search, up to the rounding of its tables."""
    searcher = replace(pipeline, reorder=False).build(
        database(),
        measure=measure,
        tree={"num_leaves": 6, "num_leaves_to_search": 6},
        ah={"dimensions_per_block": width, "anisotropic_quantization_threshold": threshold},
    )
    index = searcher._index
    assert (index.corrections is not None) == (pipeline.tree and measure == "squared_l2")
    points = reconstruct(index)
    queries = QUERIES
    if measure == "cosine":
        queries = QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)
    kind = "squared_l2" if measure == "squared_l2" else "dot_product"
    expected = truth(points, queries, kind)
    found = searcher.search_batched(QUERIES, N)
    ids = np.arange(N) if index.ids is None else index.ids
    row_of = np.empty(N, int)
    row_of[ids] = np.arange(N)
    for q, query in enumerate(queries):
        reach = 0.0
        if index.centroids is not None:
            reach = float(np.abs(truth(index.centroids, query[None], kind)).max())
        elif kind == "squared_l2":
            reach = float((query**2).sum())
        bound = rounding(index, query, reach)
        error = np.abs(found.distances[q] - expected[q, row_of[found.indices[q]]])
        assert error.max() <= bound + 1e-5 * (1 + reach)
        # The bound says something: it is small beside what the distances span.
        assert bound < 0.3 * np.ptp(expected[q])


@hashed
@each_measure
def test_approximate_distances_are_near_the_true_ones(pipeline: Pipeline, measure: str) -> None:
    searcher = replace(pipeline, reorder=False).build(
        database(), measure=measure, ah={"dimensions_per_block": 1}
    )
    found = searcher.search_batched(QUERIES, N)
    exact_distances = truth(database(), QUERIES, measure)
    error = found.distances - np.take_along_axis(exact_distances, found.indices, axis=1)
    assert np.sqrt((error**2).mean()) < 0.15 * exact_distances.std()
    assert abs(error.mean()) < 0.03 * exact_distances.std()  # no bias


@pytest.mark.parametrize("soar", [None, 1.5])
@pytest.mark.parametrize("dims", [None, 12])
@pytest.mark.parametrize("upserts", [False, True])
def test_squared_distances_do_not_depend_on_the_origin(
    soar: float | None, dims: int | None, upserts: bool
) -> None:
    """Tables of queries and corrections would be, were they not counted from the middle."""
    rng = np.random.default_rng(4)
    near = rng.standard_normal((3000, 16), dtype=np.float32)
    near *= np.linspace(2.0, 0.2, 16, dtype=np.float32)  # so that few dimensions hold most
    found = []
    for shift in (0, 2**10):  # no rounding but of the values themselves
        data = near.astype(np.float16).astype(np.float32) + np.float32(shift)
        db, queries = data[:-100], data[-100:]
        builder = swann.builder(db[: 1500 if upserts else None], 10, "squared_l2")
        builder.tree(40, 12, soar_lambda=soar).score_ah(2).reorder(12)
        if dims is not None:
            builder.pca(dims)
        searcher = builder.build()
        if upserts:
            searcher.upsert(None, db[1500:])
        assert searcher._index.corrections is not None
        wanted = swann.exact_neighbors(db, queries, 10, "squared_l2").indices
        found.append(swann.recall(searcher.search_batched(queries).indices, wanted))
    assert min(found) > 0.6
    assert abs(found[0] - found[1]) < 0.05


def test_as_many_blocks_as_there_may_be() -> None:
    """Sums of so many tables still tell the best from the rest; of more they might not."""
    db = normal(0, 32, 2**14 + 1)
    with pytest.raises(swann.ConfigError, match="16385 blocks; expected at least 2"):
        swann.builder(db, 1, "dot_product").score_ah(1)
    db = np.ascontiguousarray(db[:, 1:])
    for measure in MEASURES:
        builder = swann.builder(db, 1, measure).score_ah(1, training_iterations=2)  # type: ignore[arg-type]
        found = builder.build().search_batched(db)
        np.testing.assert_array_equal(found.indices[:, 0], np.arange(32))


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_copied_searcher_answers_the_same(again: Any) -> None:
    db = np.random.default_rng(0).standard_normal((400, 10), dtype=np.float32)
    searcher = swann.builder(db, 5, "cosine").tree(8, 3).score_ah(2, 0.2).reorder(20).build()
    searcher.num_threads = 3
    twin = again(searcher)
    assert twin.num_threads == 3
    assert twin.config == searcher.config
    np.testing.assert_array_equal(
        twin.search_batched(db[:50]).indices, searcher.search_batched(db[:50]).indices
    )


def test_limits_are_checked_however_often_they_come() -> None:
    db = np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32)
    searcher = swann.builder(db, 5, "dot_product").tree(10, 2).score_ah(2).reorder(20).build()
    want = searcher.search(db[0], 3, 10, 4)
    tries: list[Any] = [(3, 10, 4), (3, 10, np.int64(4)), (4, 10, 4), (3, 11, 4), (3, 10, 5)]
    worse: list[Any] = [(3.0, 10, 4), (3, True, 4), (3, 10, 0), (3, 10, 4.0)]
    for _ in range(2):
        for limits in tries:
            found = searcher.search(db[0], *limits)
            assert len(found.indices) == limits[0]
            np.testing.assert_array_equal(
                found.indices[:3], searcher.search(db[0], 3, *limits[1:])[0]
            )
        again = searcher.search(db[0], 3, 10, 4)
        np.testing.assert_array_equal(again.indices, want.indices)
        for bad in worse:
            with pytest.raises(swann.ConfigError):
                searcher.search(db[0], *bad)
    searcher.search(db[0], 1, 1, 1)
    assert searcher._resolve(1, 1, 1) == (1, 1, 1)
    changed = swann.builder(db, 5, "dot_product").tree(10, 2, soar_lambda=1.0).score_ah(2)
    searcher.rebalance(changed.reorder(20).create_config())
    assert searcher._resolve(1, 1, 1) == (1, 2, 1)  # twice as many, for twins


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2"])
def test_choice_of_leaves_for_queries_that_8_bits_cannot_tell_apart(measure: str) -> None:
    """One dimension far greater than the others: bounds of scores leave all, and are given up.

    After them come others, for which bounds are tried again: the answers are those of a batch,
    whose share of the leaves is too large for bounds.
    """
    rng = np.random.default_rng(5)
    database = rng.standard_normal((4_000, 24), np.float32)
    queries = rng.standard_normal((700, 24), np.float32)
    database[:, 0] *= 1e-4
    queries[:400, 0] = 1e4
    searcher = swann.builder(database, 5, measure).tree(160, 16).score_brute_force().build()  # type: ignore[arg-type]
    together = searcher.search_batched(queries)
    few = searcher.search_batched(queries, leaves_to_search=6)  # where they are tried
    for i, query in enumerate(queries):
        alone = searcher.search(query)
        np.testing.assert_array_equal(alone.indices, together.indices[i])
        np.testing.assert_array_equal(alone.distances, together.distances[i])
        alone = searcher.search(query, leaves_to_search=6)
        np.testing.assert_array_equal(alone.indices, few.indices[i])


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6, 1e7])
@pytest.mark.parametrize("codes", [False, True])
def test_far_queries_are_answered_alone_as_in_a_batch(scale: float, codes: bool) -> None:
    """Bounds of centroids know how coarse squared distances are there."""
    rng = np.random.default_rng(6)
    db = rng.standard_normal((8000, 32), dtype=np.float32)
    queries = rng.standard_normal((60, 32), dtype=np.float32) * np.float32(scale)
    builder = swann.builder(db, 10, "squared_l2").tree(160, 20)
    searcher = (builder.score_ah(2).reorder(40) if codes else builder.score_brute_force()).build()
    together = searcher.search_batched(queries)
    for i, query in enumerate(queries):
        alone = searcher.search(query)
        np.testing.assert_array_equal(alone.indices, together.indices[i])
        np.testing.assert_array_equal(alone.distances, together.distances[i])

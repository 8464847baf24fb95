"""Odd input that has a sensible answer: what that answer is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pipelines import (
    DB,
    LEAVES,
    QUERIES,
    D,
    Dlpack,
    K,
    N,
    Pipeline,
    assert_same,
    check_sane,
    search_all,
)

import swann


def with_value(array: NDArray[Any], row: int, column: int, value: float) -> NDArray[Any]:
    changed = array.copy()
    changed[row, column] = value
    return changed


def with_zero_row(array: NDArray[Any], row: int) -> NDArray[Any]:
    changed = array.copy()
    changed[row] = 0
    return changed


def same_as_float32_db(db: object) -> Callable[[Pipeline], None]:
    def check(p: Pipeline) -> None:
        assert_same(search_all(p.build(db)), search_all(p.build()))

    return check


def first_of(queries: Any) -> Any:
    """The first query, in the container that all of them came in."""
    if isinstance(queries, Dlpack):
        return Dlpack(queries.array[0])
    if isinstance(queries, memoryview):
        return np.asarray(queries)[0].data
    return queries[0]


def same_as_float32_queries(queries: Any) -> Callable[[Pipeline], None]:
    def check(p: Pipeline) -> None:
        searcher, one = p.build(), first_of(queries)
        assert_same(searcher.search_batched(queries), searcher.search_batched(QUERIES))
        assert_same(searcher.search_batched_parallel(queries), searcher.search_batched(QUERIES))
        assert_same(searcher.search(one), searcher.search(QUERIES[0]))

    return check


def finds_all_of_few(n: int, measure: str) -> Callable[[Pipeline], None]:
    """With few datapoints, fewer than leaves and codewords, all are found."""

    def check(p: Pipeline) -> None:
        result = search_all(p.build(DB[:n], measure=measure))
        expected = min(n, K)
        assert ((result.indices >= 0).sum(axis=1) == expected).all()
        if p.exact:
            exact = swann.exact_neighbors(DB[:n], QUERIES, K, measure)  # type: ignore[arg-type]
            np.testing.assert_allclose(result.distances, exact.distances, rtol=1e-5)

    return check


def identical(measure: str) -> Callable[[Pipeline], None]:
    """All datapoints are one point: any of them will do, but none twice."""

    def check(p: Pipeline) -> None:
        result = search_all(p.build(np.tile(DB[:1], (N, 1)), measure=measure))
        assert (result.indices >= 0).all()
        exact = swann.exact_neighbors(DB[:1], QUERIES, 1, measure).distances  # type: ignore[arg-type]
        np.testing.assert_allclose(
            result.distances, np.broadcast_to(exact, (len(QUERIES), K)), rtol=0.02, atol=1e-3
        )

    return check


def k_over_n(p: Pipeline) -> None:
    result = search_all(p.build(), k=N + 30)
    assert ((result.indices >= 0).sum(axis=1) == N).all()


def num_neighbors_over_n(p: Pipeline) -> None:
    result = p.build(k=N + 30).search(QUERIES[0])
    check_sane(result, N, N + 30)
    assert sorted(result.indices[:N].tolist()) == list(range(N))


def leaves_over_all(p: Pipeline) -> None:
    searcher = p.build(tree={"num_leaves_to_search": 1})
    everything = search_all(searcher, leaves_to_search=LEAVES)
    assert_same(search_all(searcher, leaves_to_search=10_000), everything)
    assert_same(search_all(searcher, leaves_to_search=2**40), everything)


def few_leaves(p: Pipeline) -> None:
    """Visiting one leaf of many may find fewer than k: padded, never invented."""
    searcher = p.build(tree={"num_leaves": 60, "num_leaves_to_search": 1})
    search_all(searcher, k=50)


def reorder_below_k(p: Pipeline) -> None:
    assert_same(search_all(p.build(reorder=1)), search_all(p.build(reorder=K)))
    searcher = p.build()
    raised = search_all(searcher, pre_reorder_num_neighbors=1)
    assert_same(raised, search_all(searcher, pre_reorder_num_neighbors=K))
    assert (raised.indices >= 0).all()


def reorder_over_n(p: Pipeline) -> None:
    assert_same(search_all(p.build(reorder=10 * N)), search_all(p.build(reorder=N)))
    searcher = p.build(reorder=K)
    many = search_all(searcher, pre_reorder_num_neighbors=2**40)
    assert_same(many, search_all(searcher, pre_reorder_num_neighbors=N))


def no_queries(p: Pipeline) -> None:
    searcher = p.build()
    nothing: list[Any] = [[], np.empty((0, D)), np.empty((0, D), ">i2"), QUERIES[:0]]
    for none in nothing:
        for search in (searcher.search_batched, searcher.search_batched_parallel):
            result = search(none)
            assert result.indices.shape == result.distances.shape == (0, K)
            assert result.indices.dtype == np.int64
            assert search(none, 3).indices.shape == (0, 3)


def zeros_where_they_are_fine(measure: str) -> Callable[[Pipeline], None]:
    def check(p: Pipeline) -> None:
        searcher = p.build(with_zero_row(DB, 3), measure=measure)
        result = search_all(searcher, with_zero_row(QUERIES, 0))
        assert (result.indices >= 0).all()
        everything = p.build(np.zeros((N, D)), measure=measure)
        result = search_all(everything, with_zero_row(QUERIES, 0))
        assert (result.indices >= 0).all()
        assert result.distances[0].tolist() == [0.0] * K

    return check


def one_dimension(p: Pipeline) -> None:
    searcher = p.build(DB[:, :1], ah={"dimensions_per_block": 1})
    result = search_all(searcher, QUERIES[:, :1])
    if p.exact:
        assert (result.distances[:, 0] == DB[:, 0].max() * QUERIES[:, 0]).all()


def short_last_block(p: Pipeline) -> None:
    search_all(p.build(ah={"dimensions_per_block": 3}))
    search_all(p.build(ah={"dimensions_per_block": D}))


def large_values(p: Pipeline) -> None:
    """Scores near the end of float32, and far from zero, order as small ones do."""
    for measure in ("dot_product", "squared_l2"):
        scale = np.float32(2.0**50)
        large = search_all(p.build(DB * scale, measure=measure), QUERIES * scale)
        small = search_all(p.build(DB, measure=measure), QUERIES)
        np.testing.assert_array_equal(large.indices, small.indices)
        np.testing.assert_array_equal(large.distances, small.distances * scale * scale)


def threads_do_not_matter(p: Pipeline) -> None:
    one = p.builder().set_n_training_threads(1).build()
    many = p.builder().set_n_training_threads(64).build()
    one.set_num_threads(1)
    many.num_threads = 64
    assert many.num_threads == 64
    assert_same(search_all(one), search_all(many))


def batch_sizes_do_not_matter(p: Pipeline) -> None:
    searcher = p.build()
    expected = searcher.search_batched(QUERIES)
    for batch_size in (1, 2, 2**40):
        assert_same(searcher.search_batched_parallel(QUERIES, batch_size=batch_size), expected)


def input_is_left_alone(p: Pipeline) -> None:
    db, queries = DB.copy(), QUERIES.copy()
    searcher = p.build(db, measure="cosine")
    expected = searcher.search_batched(queries)
    assert np.array_equal(db, DB)
    assert np.array_equal(queries, QUERIES)
    db[:] = 0  # nor does the searcher look at it again
    assert_same(searcher.search_batched(queries), expected)


def set_num_threads_attribute(p: Pipeline) -> None:
    p.build().num_threads = 0

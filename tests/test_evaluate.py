"""The yardsticks are themselves measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import swann
from swann import ConfigError, DTypeError, ShapeError
from swann.distance import DistanceMeasure

MEASURES: list[DistanceMeasure] = ["dot_product", "squared_l2", "cosine"]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_exact_neighbors_agree_with_numpy(measure: DistanceMeasure, threads: int) -> None:
    rng = np.random.default_rng(3)
    db = rng.standard_normal((300, 17))
    queries = rng.standard_normal((20, 17))
    if measure == "squared_l2":
        values = -((queries[:, None, :] - db[None, :, :]) ** 2).sum(axis=2)
    else:
        values = queries @ db.T
    if measure == "cosine":
        values /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(db, axis=1)
    order = np.argsort(-values, axis=1)[:, :7]
    best = np.take_along_axis(values, order, axis=1)
    found = swann.exact_neighbors(db, queries, 7, measure, num_threads=threads)
    assert np.array_equal(found.indices, order)
    expected = -best if measure == "squared_l2" else best
    np.testing.assert_allclose(found.distances, expected, rtol=1e-4, atol=1e-5)


def test_exact_neighbors_pad_and_refuse() -> None:
    found = swann.exact_neighbors(np.eye(2), np.eye(2)[:1], 3, "dot_product")
    assert found.indices.tolist() == [[0, 1, -1]]
    assert math.isnan(found.distances[0, 2])
    with pytest.raises(ConfigError, match=r"^k is 0"):
        swann.exact_neighbors(np.eye(2), np.eye(2), 0, "dot_product")
    with pytest.raises(ConfigError, match="num_threads is -1"):
        swann.exact_neighbors(np.eye(2), np.eye(2), 1, "dot_product", num_threads=-1)


@given(st.data())
def test_recall_is_the_mean_overlap(data: st.DataObject) -> None:
    nq, k, m = (data.draw(st.integers(1, 6)) for _ in range(3))
    ids = st.integers(-1, 12)
    true = data.draw(
        st.lists(
            st.lists(ids, min_size=k, max_size=k, unique=True), min_size=nq, max_size=nq
        ).filter(lambda rows: any(i >= 0 for row in rows for i in row))
    )
    found = data.draw(st.lists(st.lists(ids, min_size=m, max_size=m), min_size=nq, max_size=nq))
    hits = sum(len({i for i in t if i >= 0} & set(f)) for t, f in zip(true, found, strict=True))
    total = sum(i >= 0 for row in true for i in row)
    assert swann.recall(found, true) == pytest.approx(hits / total)


def test_recall_of_other_shapes() -> None:
    assert swann.recall([[1, 2, 3]], [[3]]) == 1.0  # 1@3
    assert swann.recall(np.empty((2, 0), np.int64), [[1], [2]]) == 0.0
    with pytest.raises(ShapeError, match=r"found has shape \(2, 1\) and true has shape \(1, 1\)"):
        swann.recall([[1], [2]], [[1]])
    with pytest.raises(ShapeError, match="two axes"):
        swann.recall([1], [1])
    with pytest.raises(ShapeError, match="true holds no ids"):
        swann.recall([[1]], [[-1]])


def test_recall_with_ties() -> None:
    # The second true neighbor ties with a datapoint that exact search happened not to return.
    assert swann.recall_with_ties([[1.0, 2.0]], [[1.0, 2.0]], "squared_l2") == 1.0
    assert swann.recall_with_ties([[1.0, 2.1]], [[1.0, 2.0]], "squared_l2") == 0.5
    assert swann.recall_with_ties([[2.0, 0.9]], [[2.0, 1.0]], "dot_product") == 0.5
    assert swann.recall_with_ties([[2.0, 0.9]], [[2.0, 1.0]], "dot_product", eps=0.1) == 1.0
    assert swann.recall_with_ties([[-1.0, -2.0]], [[-1.0, -2.0]], "cosine") == 1.0
    nan = math.nan
    assert swann.recall_with_ties([[1.0, nan]], [[1.0, 2.0]], "squared_l2") == 0.5
    assert swann.recall_with_ties([[1.0, 1.0]], [[1.0, nan]], "squared_l2") == 1.0
    # More candidates than true neighbors never give more than everything.
    assert swann.recall_with_ties([[3.0, 2.0, 1.0]], [[1.0]], "dot_product") == 1.0
    with pytest.raises(ShapeError, match="true_distances holds no distances"):
        swann.recall_with_ties([[1.0]], [[nan]], "cosine")
    with pytest.raises(ShapeError, match="found_distances has shape"):
        swann.recall_with_ties([1.0], [[1.0]], "cosine")
    with pytest.raises(ConfigError, match="distance_measure is 'l2'"):
        swann.recall_with_ties([[1.0]], [[1.0]], "l2")  # type: ignore[arg-type]


def test_leaf_ladder() -> None:
    assert swann.leaf_ladder(1) == [1]
    assert swann.leaf_ladder(2) == [1, 2]
    assert swann.leaf_ladder(600) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 600]


def test_speed_recall() -> None:
    rng = np.random.default_rng(5)
    db = rng.standard_normal((800, 8), dtype=np.float32)
    queries = rng.standard_normal((30, 8), dtype=np.float32)
    true = swann.exact_neighbors(db, queries, 5, "dot_product").indices
    searcher = (
        swann.builder(db, 3, "dot_product").tree(20, 1, min_partition_size=1).score_brute_force()
    ).build()
    settings = [(1, None), (5, None), (20, None)]
    points = swann.speed_recall(searcher, queries, true, settings, single_queries=10, repeats=1)
    assert [(p.leaves_to_search, p.pre_reorder_num_neighbors) for p in points] == settings
    recalls = [point.recall for point in points]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0
    for point in points:
        assert point.single_microseconds > 0
        assert point.batched_microseconds > 0


def test_recall_of_large_ids() -> None:
    # Row 4 times 2^62 is 0 modulo 2^64: what row 4 found is none of row 0.
    true = [[1], [2**62 - 1], [2], [2], [2]]
    assert swann.recall([[9], [9], [9], [9], [1]], true) == 0.0
    assert swann.recall(true, true) == 1.0
    assert swann.recall(true, [[2**63 - 1]] * 4 + [[2]]) == 0.2
    with pytest.raises(DTypeError, match="found has dtype float64; expected integers"):
        swann.recall([[1.5]], [[1]])


def test_speed_recall_refuses() -> None:
    searcher = swann.builder(np.eye(4), 1, "cosine").score_brute_force().build()
    with pytest.raises(ShapeError, match=r"queries has shape \(4, 4\) and true has shape \(1, 1\)"):
        swann.speed_recall(searcher, np.eye(4), [[1]], [(None, None)])
    with pytest.raises(ShapeError, match="queries have no rows"):
        swann.speed_recall(searcher, np.empty((0, 4)), np.empty((0, 1), int), [(None, None)])
    with pytest.raises(ConfigError, match="repeats is 0"):
        swann.speed_recall(searcher, np.eye(4), np.zeros((4, 1), int), [(None, None)], repeats=0)


def test_recall_of_docids() -> None:
    found = np.array([["a", "b", None], ["x", "y", "z"]], object)
    assert swann.recall(found, [["a", "c"], ["z", "y"]]) == 0.75
    assert swann.recall(found, np.array([["a", None], ["q", "r"]], object)) == pytest.approx(1 / 3)
    assert swann.recall(np.array([["é", "ö"]]), np.array([["ö", "é"]], object)) == 1.0
    for bad in ([[1, 2], [3, 4]], [["a"]], np.array([[None], [None]])):
        with pytest.raises((DTypeError, ShapeError)):
            swann.recall(found, bad)
    assert swann.recall([[], []], [["a"], ["b"]]) == 0.0
    assert swann.recall([[], []], [[1], [2]]) == 0.0
    with pytest.raises(ShapeError, match="holds no ids"):
        swann.recall([[], []], [[-1], [-1]])
    with pytest.raises(DTypeError):
        swann.recall([["1", 1]], [["1", "b"]])
    with pytest.raises(DTypeError, match="exact_neighbors takes docids"):
        swann.recall(found, [[1, 2], [3, 4]])


@pytest.mark.parametrize("names", [[f"d{i}" for i in range(60)], [3 * i for i in range(60)], None])
def test_an_index_is_measured_by_its_docids(names: list[str] | list[int] | None) -> None:
    db = np.random.default_rng(0).standard_normal((60, 5), dtype=np.float32)
    searcher = swann.builder(db, 4, "cosine").score_brute_force().build(docids=names)
    true = swann.exact_neighbors(db, db[:9], 4, "cosine", docids=names)
    assert swann.recall(searcher.search_batched(db[:9]).indices, true.indices) == 1.0
    assert swann.speed_recall(searcher, db[:9], true.indices, [(None, None)])[0].recall == 1.0
    with pytest.raises(ShapeError, match="60 datapoints"):
        swann.exact_neighbors(db, db, 4, "cosine", docids=[1, 2])


@pytest.mark.parametrize("k", [2**21, 2**31 - 1, 2**62])
def test_far_more_neighbors_than_datapoints_are_refused(k: int) -> None:
    """Room for them may be all the memory that there is."""
    with pytest.raises(ConfigError, match=f"k is {k}, of 3 datapoints"):
        swann.exact_neighbors(np.eye(3), np.eye(3), k, "dot_product")

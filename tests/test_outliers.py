"""A few datapoints that are far from all others take nothing from the rest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann.distributed import build

N, D = 20_000, 32


def some(n: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, D), dtype=np.float32)


def with_codes(db: NDArray[np.float32], measure: Any, tree: bool) -> swann.Searcher:
    builder = swann.builder(db, 10, measure)
    if tree:
        builder = builder.tree(100, 100)
    return builder.score_ah(2).reorder(200).build()


@pytest.mark.parametrize("tree", [True, False], ids=["tree", "no tree"])
@pytest.mark.parametrize("times", [30.0, 1e3, 1e6])
def test_a_few_long_rows(tree: bool, times: float) -> None:
    """Tables and corrections are rounded to steps of what they range over: .01 before."""
    db, queries = some(N, 0), some(200, 1)
    db[:5] *= np.float32(times)
    searcher = with_codes(db, "squared_l2", tree)
    true = swann.exact_neighbors(db, queries, 10, "squared_l2")
    assert swann.recall(searcher.search_batched(queries).indices, true.indices) >= 0.93
    found = searcher.search_batched(db[:5], 1).indices[:, 0]
    if tree:  # their leaves tell them from all others
        assert found.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("tree", [True, False], ids=["tree", "no tree"])
@pytest.mark.parametrize("times", [10.0, 100.0, 1e3, 1e6])
def test_a_few_long_rows_under_the_dot_product(tree: bool, times: float) -> None:
    """Codewords of their own made steps of tables so wide that all others were alike: .03."""
    db, queries = some(N, 0), some(200, 1)
    db[:5] *= np.float32(times)
    searcher = with_codes(db, "dot_product", tree)
    true = swann.exact_neighbors(db, queries, 10, "dot_product").indices
    found = searcher.search_batched(queries).indices
    there = (true[:, :, None] == found[:, None, :]).any(axis=2)
    assert there[true >= 5].mean() >= 0.93
    if tree and times > 10:  # else a code says too little of how long they are
        assert there[true < 5].mean() >= 0.4


@pytest.mark.parametrize("away", [0.0, 50.0])
@pytest.mark.parametrize("count", [100, 600])
def test_many_that_are_apart(count: int, away: float) -> None:
    """Neither kind takes codewords from the other: .01 for the many before, .02 for the few."""
    db, queries, others = some(N, 0), some(200, 1), 100 * some(50, 2)
    db[:count] *= 100
    db, queries, others = (
        db + np.float32(away),
        queries + np.float32(away),
        others + np.float32(away),
    )
    searcher = with_codes(db, "squared_l2", True)
    for asked, least in ((queries, 0.93), (others, 0.85)):
        true = swann.exact_neighbors(db, asked, 10, "squared_l2")
        assert swann.recall(searcher.search_batched(asked).indices, true.indices) >= least


@pytest.mark.parametrize("tree", [True, False], ids=["tree", "no tree"])
@pytest.mark.parametrize("copied", [0.0, 1.0])
def test_what_is_not_a_copy_keeps_its_codewords(tree: bool, copied: float) -> None:
    """Of copies there is nothing to learn, zeros or others."""
    db = some(N, 0)
    db[600:] = copied * some(1, 3)
    searcher = with_codes(db, "squared_l2", tree)
    found = searcher.search_batched(db[:600], 1, 20).indices[:, 0]
    assert (found == np.arange(600)).mean() >= 0.95


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2"])
def test_lengths_that_vary_much_are_one_kind(measure: Any) -> None:
    """Nothing between is left out of training: long rows here are neighbors like all others."""
    rng = np.random.default_rng(0)
    db, queries = (some(n, s) * np.exp(rng.standard_normal((n, 1))) for n, s in ((N, 0), (200, 1)))
    db, queries = db.astype(np.float32), queries.astype(np.float32)
    long = np.argsort(-np.linalg.norm(db, axis=1))[:200]
    searcher = with_codes(db, measure, True)
    found = searcher.search_batched(db[long], 1).indices[:, 0]
    if measure == "squared_l2":
        assert (found == long).mean() >= 0.95
    else:
        true = swann.exact_neighbors(db, queries, 10, measure)
        assert swann.recall(searcher.search_batched(queries).indices, true.indices) >= 0.95


def test_long_rows_that_come_later() -> None:
    db, queries = some(N, 0), some(200, 1)
    searcher = with_codes(db, "squared_l2", True)
    searcher.upsert(None, 1e3 * some(5, 2))
    true = swann.exact_neighbors(db, queries, 10, "squared_l2")
    assert swann.recall(searcher.search_batched(queries).indices, true.indices) >= 0.93


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2"])
@pytest.mark.parametrize("times", [1e-18, 1e-16, 1e-12, 1e12, 1e16])
def test_lengths_of_all_sizes(measure: Any, times: float) -> None:
    """Powers of two: the same answers at every length."""
    factor = np.float32(2.0 ** np.round(np.log2(times)))
    db, queries = some(N, 0), some(100, 1)
    usual = with_codes(db, measure, True).search_batched(queries).indices
    found = with_codes(db * factor, measure, True).search_batched(queries * factor).indices
    assert swann.recall(found, usual) >= 0.99


def test_few_of_a_sample_are_many_of_all(tmp_path: Path) -> None:
    """Long rows that are the answers keep their codewords, however few of them are trained on."""
    db = some(N, 0)
    db[::500] *= 100
    config = swann.builder(db, 10, "dot_product").score_ah(2).reorder(30).create_config()
    build(db, config, tmp_path / "index", memory_budget="1GB", sample_rows=2_000)
    codebook = swann.load(tmp_path / "index")._index.codebook
    assert codebook is not None
    assert np.abs(codebook).max() > 20
    few = some(N, 0)
    few[:5] *= 100
    few[:: N // 1_000][:2] *= 100
    codebook = swann.builder(few, 10, "dot_product").score_ah(2).reorder(30).build()._index.codebook
    assert codebook is not None
    assert np.abs(codebook).max() < 20


def test_tables_with_outliers_cost_no_more_than_others() -> None:
    """The usual width of entries was sought anew in each block for each query: 8 times as long."""
    db, queries = some(8_000, 0), some(400, 1)
    plain = with_codes(db, "squared_l2", True)
    db[::10] *= 100  # too many to be left out of training
    db[1::10] *= 5
    odd = with_codes(db, "squared_l2", True)

    def least(searcher: swann.Searcher) -> float:
        times = []
        for _ in range(7):
            begin = time.process_time()
            searcher.search_batched(queries, leaves_to_search=5)
            times.append(time.process_time() - begin)
        return min(times)

    assert least(odd) < 3 * least(plain)


@pytest.mark.parametrize("measure", ["squared_l2", "dot_product"])
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4])
@pytest.mark.parametrize("k", [1, 250])
def test_leaves_of_copies(measure: Any, noise: float, k: int) -> None:
    """Codes say nothing, and leaves everything: all but the best shared a score, .05 before."""
    few = np.abs(some(20, 0))
    db = few[np.random.default_rng(3).integers(0, 20, 5000)] + np.float32(noise) * some(5000, 1)
    queries = few + np.float32(0.01) * some(20, 2)
    if measure == "dot_product":
        queries = -queries  # the best score is below 0, as under squared l2
    searcher = swann.builder(db, k, measure).tree(32, 32).score_ah(2).reorder(k + 20).build()
    true = swann.exact_neighbors(db, queries, k, measure).distances
    found = searcher.search_batched(queries)
    assert found.distances == pytest.approx(true, rel=1e-3, abs=1e-3)
    again = searcher.search_batched(queries, leaves_to_search=8)
    assert again.distances[:, 0] == pytest.approx(true[:, 0], rel=1e-3, abs=1e-3)


def test_leaves_of_copies_behind_dead_ones() -> None:
    """The leaves that hold what is looked for are not those of datapoints that are gone."""
    few = some(20, 0)
    db = few[np.arange(2000) % 20]
    searcher = swann.builder(db, 10, "squared_l2").tree(32, 32).score_ah(2).build()
    order = np.argsort(((few - few[0]) ** 2).sum(axis=1))
    for near in order[:3].tolist():
        searcher.delete(np.flatnonzero(np.arange(2000) % 20 == near).tolist())
    found = searcher.search(few[0])
    expected = ((few[order[3]] - few[0]) ** 2).sum()
    assert found.distances == pytest.approx(np.full(10, expected), rel=1e-3)

"""A few datapoints that are far from all others take nothing from the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import swann

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

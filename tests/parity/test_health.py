"""Health figures: ScaNN's, kept up to date by every change."""

from __future__ import annotations

import numpy as np
import pytest
from parity.common import DB, QUERIES, UPDATABLE, Cell, N, named

from swann import Searcher

KEYS = [
    "avg_quantization_error",
    "partition_weighted_avg_relative_imbalance",
    "partition_avg_relative_positive_imbalance",
    "sum_partition_sizes",
]
TREES = [cell for cell in UPDATABLE if cell.tree]


def measured(searcher: Searcher) -> list[float]:
    stats = searcher.get_health_stats()
    assert list(stats) == KEYS
    return list(stats.values())


def check_kept(searcher: Searcher) -> None:
    kept = measured(searcher)
    searcher.initialize_health_stats()
    np.testing.assert_allclose(kept, measured(searcher), rtol=1e-9)


@pytest.mark.parametrize("cell", TREES, ids=str)
def test_incremental_values_equal_recomputed_ones(cell: Cell) -> None:
    searcher = cell.build(docids=named())
    built = measured(searcher)
    searcher.initialize_health_stats()
    np.testing.assert_allclose(built, measured(searcher), rtol=1e-9)
    for i in range(30):
        searcher.upsert(f"d{N + i}", QUERIES[i] * 2)
    check_kept(searcher)
    searcher.upsert(named(20, N + 30), QUERIES[30:50])
    searcher.upsert(["d3", "d4"], QUERIES[50:52])
    check_kept(searcher)
    searcher.delete(named(400, 7))
    check_kept(searcher)
    assert measured(searcher)[3] == (N - 350) * (2 if cell.soar else 1)
    searcher.rebalance()
    check_kept(searcher)
    searcher.delete(searcher.docids)
    assert measured(searcher) == [0, 0, 0, 0]
    searcher.upsert("again", DB[0])
    check_kept(searcher)


def test_figures_are_those_of_the_definitions() -> None:
    searcher = Cell().build()
    index = searcher._index
    assert index.centroids is not None
    assert index.ids is not None
    sizes = np.diff(index.leaf_starts.astype(np.float64))
    leaves = np.repeat(np.arange(len(sizes)), sizes.astype(int))
    squares = ((DB[index.ids].astype(np.float64) - index.centroids[leaves]) ** 2).sum(1)
    relative = sizes / sizes.mean() - 1
    expected = [
        np.sqrt(squares.mean()),
        (relative * sizes).sum() / N,
        relative[relative > 0].mean(),
        N,
    ]
    np.testing.assert_allclose(measured(searcher), expected, rtol=1e-5)


def test_without_a_tree_there_is_nothing_to_measure() -> None:
    searcher = Cell(tree=False).build()
    searcher.initialize_health_stats()
    assert measured(searcher) == [0, 0, 0, 0]

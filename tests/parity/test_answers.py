"""Widths, short rows, empty leaves, odd queries: what comes back, and in which shape."""

from __future__ import annotations

import numpy as np
import pytest
from parity.common import DB, MEASURES, QUERIES, Cell, D, K, Measure, N, points, recall, truth

from swann import scann_ops_pybind

FULL = Cell()


@pytest.mark.parametrize(
    "cell",
    [FULL, Cell(reorder=None), Cell(soar=(1.5, 1.2)), Cell(tree=False, ah=False)],
    ids=str,
)
@pytest.mark.parametrize("final", [1, 3, 25, 150, 600])
@pytest.mark.parametrize("candidates", [None, 1, 20, 400])
@pytest.mark.parametrize("leaves", [None, 25])
def test_widths_under_overrides(
    cell: Cell, final: int, candidates: int | None, leaves: int | None
) -> None:
    """As many as asked for, also where fewer are reordered: ScaNN would return fewer."""
    searcher = cell.build()
    found = searcher.search_batched(QUERIES[:3], final, candidates, leaves)
    assert found.indices.shape == found.distances.shape == (3, final)
    assert (found.indices >= 0).all()
    assert np.isfinite(found.distances).all()
    one = searcher.search(QUERIES[0], final, candidates, leaves)
    np.testing.assert_array_equal(one.indices, found.indices[0])


def test_more_candidates_never_find_less() -> None:
    ids, _ = truth(DB, QUERIES, "dot_product")
    searcher = FULL.build()
    found = [
        recall(searcher.search_batched(QUERIES, K, candidates).indices, ids)
        for candidates in (10, 40, 160, N)
    ]
    assert found == sorted(found)
    assert found[-1] == 1.0


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("cell", [FULL, Cell(soar=(1.5, 2.0)), Cell(ah=False)], ids=str)
def test_empty_leaves(cell: Cell, measure: Measure) -> None:
    """200 leaves for 1,234 points: of 100 kinds only, so that half the leaves have nothing."""
    db = np.repeat(points(100, 3), 13, axis=0)[:N]
    searcher = cell.build(db, measure, leaves=200)
    for leaves in (1, 5, 200):
        result = searcher.search_batched(db[::100], 13, 200, leaves)
        best = truth(db, db[::100], measure, 1)[1]
        np.testing.assert_allclose(result.distances[:, :1], best, rtol=1e-5, atol=1e-5)
        found = [row[row >= 0].tolist() for row in result.indices]
        assert all(len(set(row)) == len(row) for row in found)


@pytest.mark.parametrize("measure", MEASURES)
def test_as_many_leaves_as_datapoints(measure: Measure) -> None:
    result = FULL.build(DB[:60], measure, leaves=500).search_batched(QUERIES, 60)
    assert (np.sort(result.indices) == np.arange(60)).all()


def test_short_rows_are_padded_with_what_is_no_datapoint() -> None:
    searcher = FULL.build()
    result = searcher.search_batched(QUERIES, N, leaves_to_search=1)
    missing = result.indices == -1
    assert missing.any(axis=1).all()
    assert np.isnan(result.distances[missing]).all()
    assert np.isfinite(result.distances[~missing]).all()
    for row, gone in zip(result.indices, missing, strict=True):
        assert not gone[: (~gone).sum()].any()
        assert len(set(row[~gone].tolist())) == (~gone).sum()


def test_a_scann_program_gets_short_single_answers() -> None:
    builder = scann_ops_pybind.builder(DB, 500, "dot_product").tree(20, 1).score_brute_force()
    searcher = builder.build()
    indices, distances = searcher.search(QUERIES[0])
    assert len(indices) == len(distances) < 500
    assert np.isfinite(distances).all()
    rows, _ = searcher.search_batched(QUERIES[:1])
    assert (rows[0, : len(indices)] == indices).all()
    assert (rows[0, len(indices) :] == -1).all()


def test_no_queries_have_no_answers() -> None:
    result = FULL.build().search_batched(np.empty((0, D), np.float32))
    assert result.indices.shape == result.distances.shape == (0, K)


@pytest.mark.parametrize("factor", [0.2, 5.0])
@pytest.mark.parametrize("measure", ["dot_product", "squared_l2"])
def test_thresholds_belong_to_the_length_of_the_rows(measure: Measure, factor: float) -> None:
    """Rows five times as long want a T five times as high, also above 1."""

    def search(scale: float) -> np.ndarray:
        builder = scann_ops_pybind.builder(DB * np.float32(scale), K, measure)
        builder.score_ah(2, anisotropic_quantization_threshold=0.3 * scale)
        return np.asarray(builder.build().search_batched(QUERIES * np.float32(scale)).indices)

    assert recall(search(factor), search(1.0)) > 0.97

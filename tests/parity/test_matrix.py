"""Tree x AH x reordering x SOAR, under every measure: answers, and round trips to disk."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from parity.common import DB, MATRIX, MEASURES, QUERIES, Cell, K, Measure, N, recall, truth

import swann
from swann import Searcher, SearchResult

EVERYWHERE = pytest.mark.parametrize("measure", MEASURES)
CELLS = pytest.mark.parametrize("cell", MATRIX, ids=str)


@functools.cache
def built(cell: Cell, measure: Measure) -> Searcher:
    return cell.build(DB, measure)


@functools.cache
def true(measure: Measure) -> tuple[np.ndarray, np.ndarray]:
    return truth(DB, QUERIES, measure)


def assert_equal(a: SearchResult, b: SearchResult) -> None:
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_allclose(a.distances, b.distances, rtol=1e-6, atol=1e-6)


@EVERYWHERE
@CELLS
def test_answers(cell: Cell, measure: Measure) -> None:
    """All leaves are searched, so that only codes and precisions can miss a neighbor."""
    searcher = built(cell, measure)
    found = searcher.search_batched(QUERIES)
    assert found.indices.shape == found.distances.shape == (len(QUERIES), K)
    assert found.indices.dtype == np.int64
    assert found.distances.dtype == np.float32
    ids, distances = true(measure)
    # Codes alone; codes to choose 100 of 1,234; rows of 8 bits; rows of 16 or 32.
    least = 0.5 if cell.reorder is None else {"INT8": 0.95}.get(cell.reorder, 0.98)
    assert recall(found.indices, ids) >= least
    if cell.exact:
        hit = found.indices == ids
        np.testing.assert_allclose(found.distances[hit], distances[hit], rtol=1e-5, atol=1e-6)
    for row in found.indices.tolist():
        assert len(set(row)) == K


@EVERYWHERE
@CELLS
def test_a_batch_equals_single_queries(cell: Cell, measure: Measure) -> None:
    searcher = built(cell, measure)
    batch = searcher.search_batched(QUERIES)
    singles = [searcher.search(query) for query in QUERIES]
    assert_equal(batch, SearchResult(*(np.stack(part) for part in zip(*singles, strict=True))))
    for size in (1, 7, 256):
        assert_equal(batch, searcher.search_batched_parallel(QUERIES, batch_size=size))


@EVERYWHERE
@CELLS
def test_round_trip(cell: Cell, measure: Measure, tmp_path: Path) -> None:
    """Under an absolute path, a relative one, and in a directory that has moved."""
    searcher = built(cell, measure)
    before = searcher.search_batched(QUERIES)
    place = tmp_path / "a dir" / "index"
    searcher.serialize(place)
    assert_equal(before, swann.load_searcher(place).search_batched(QUERIES))

    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        relative = swann.load_searcher("a dir/index")
    finally:
        os.chdir(here)
    moved = tmp_path / "moved"
    shutil.move(place, moved)
    assert_equal(before, relative.search_batched(QUERIES))
    again = swann.load_searcher(moved, verify="full")
    assert_equal(before, again.search_batched(QUERIES))
    assert again.config == searcher.config
    assert len(again) == N


@EVERYWHERE
def test_brute_force_equals_numpy(measure: Measure) -> None:
    found = built(Cell(tree=False, ah=False), measure).search_batched(QUERIES)
    ids, distances = true(measure)
    np.testing.assert_array_equal(found.indices, ids)
    np.testing.assert_allclose(found.distances, distances, rtol=0, atol=1e-6)


@EVERYWHERE
@pytest.mark.parametrize("cell", [cell for cell in MATRIX if cell.tree], ids=str)
def test_fewer_leaves_find_less(cell: Cell, measure: Measure) -> None:
    """One leaf of 25 cannot hold everything; half of them nearly do."""
    searcher, (ids, _) = built(cell, measure), true(measure)
    recalls = [
        recall(searcher.search_batched(QUERIES, leaves_to_search=leaves).indices, ids)
        for leaves in (1, 12, 25, 1000)
    ]
    assert recalls[0] < recalls[1] <= recalls[2] + 0.02
    assert recalls[2] == recalls[3]
    assert recalls[1] >= 0.8 * recalls[2]

"""Where ScaNN 1.4.2 dies, or errs in silence: what swann does instead."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity.common import DB, MATRIX, QUERIES, Cell, D, K, N, named

import swann
from swann import ConfigError, NonFiniteError, ReorderType, Searcher, scann_ops_pybind

CELLS = pytest.mark.parametrize("cell", MATRIX, ids=str)
NOT_FINITE = pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
FULL = Cell()


@CELLS
@NOT_FINITE
def test_not_a_number_in_a_database(cell: Cell, value: float) -> None:
    """There: aborts under a tree, passes under brute force."""
    db = DB.copy()
    db[1111, 5] = value
    with pytest.raises(NonFiniteError, match=r"db\[1111, 5\]"):
        cell.build(db)


@CELLS
@NOT_FINITE
def test_not_a_number_in_a_query(cell: Cell, value: float) -> None:
    """There: passes in a batch, or aborts."""
    searcher = cell.build()
    before = searcher.search_batched(QUERIES).indices
    queries = QUERIES.copy()
    queries[7, 3] = value
    with pytest.raises(NonFiniteError, match=r"queries\[7, 3\]"):
        searcher.search_batched(queries)
    with pytest.raises(NonFiniteError, match=r"queries\[7, 3\]"):
        searcher.search_batched_parallel(queries)
    with pytest.raises(NonFiniteError, match=r"q\[3\]"):
        searcher.search(queries[7])
    np.testing.assert_array_equal(searcher.search_batched(QUERIES).indices, before)


@CELLS
@NOT_FINITE
def test_not_a_number_in_an_upsert(cell: Cell, value: float) -> None:
    """There: the process dies, or docids shift."""
    searcher = cell.build(docids=named())
    vectors = QUERIES[:3].copy()
    vectors[1, 4] = value
    with pytest.raises(NonFiniteError, match=r"vectors\[1, 4\]"):
        searcher.upsert(["new", "d4", "d5"], vectors)
    assert searcher.docids == named()


REFUSED: dict[str, tuple[Callable[[Searcher], Any], str]] = {
    "no threads": (lambda s: s.set_num_threads(0), "num_threads is 0"),
    "-1 threads": (lambda s: s.set_num_threads(-1), "num_threads is -1"),
    "batch_size 0": (
        lambda s: s.search_batched_parallel(QUERIES, batch_size=0),
        "batch_size is 0",
    ),
    "batch_size -1": (
        lambda s: s.search_batched_parallel(QUERIES, batch_size=-1),
        "batch_size is -1",
    ),
    "upserts of batch_size 0": (
        lambda s: s.upsert(None, QUERIES, batch_size=0),
        "batch_size is 0",
    ),
    "no neighbors": (lambda s: s.search(QUERIES[0], 0), "final_num_neighbors is 0"),
    "no candidates": (lambda s: s.search(QUERIES[0], 5, 0), "pre_reorder_num_neighbors is 0"),
    "no leaves": (lambda s: s.search(QUERIES[0], leaves_to_search=0), "leaves_to_search is 0"),
    "-5 leaves": (
        lambda s: s.search_batched(QUERIES, leaves_to_search=-5),
        "leaves_to_search is -5",
    ),
}


@pytest.mark.parametrize("call", REFUSED)
def test_counts_of_nothing_are_refused(call: str) -> None:
    """There: a division by zero, a hang, or what the default would give."""
    searcher = FULL.build()
    run, message = REFUSED[call]
    with pytest.raises(ConfigError, match=message):
        run(searcher)
    assert searcher.search_batched_parallel(QUERIES).indices.shape == (len(QUERIES), K)
    assert searcher.size() == N


@pytest.mark.parametrize("dimensions", [0, -1, D + 1])
def test_projections_onto_nothing_are_refused(dimensions: int) -> None:
    """There: pca(0) aborts."""
    builder = swann.builder(DB, K, "dot_product")
    with pytest.raises(ConfigError, match=f"reduction_dim is {dimensions}"):
        builder.pca(dimensions)
    with pytest.raises(ConfigError, match=f"reduction_dim is {dimensions}"):
        builder.truncate(dimensions)


@pytest.mark.parametrize("rows", list(ReorderType), ids=lambda rows: rows.name)
def test_leaves_to_search_where_there_are_none(rows: ReorderType) -> None:
    """There: int8 brute force dies of it."""
    searcher = swann.builder(DB, K, "dot_product").score_brute_force(rows).build()
    expected = searcher.search_batched(QUERIES)
    for leaves in (1, 7, 10**6):
        found = searcher.search_batched(QUERIES, leaves_to_search=leaves)
        np.testing.assert_array_equal(found.indices, expected.indices)


def test_missing_neighbors_are_not_datapoint_0() -> None:
    """There: short rows of a batch are padded with id 0."""
    for searcher, missing in ((FULL.build(), -1), (FULL.build(docids=named()), None)):
        rows = searcher.search_batched(QUERIES, N, leaves_to_search=1)
        short = np.isnan(rows.distances)
        assert short.any(axis=1).all()
        assert set(rows.indices[short].tolist()) == {missing}
        assert (rows.indices[~short] != missing).all()


def test_a_docid_twice_in_one_upsert_is_refused() -> None:
    """There: both are kept under one name."""
    searcher = scann_ops_pybind.builder(DB, K, "dot_product").score_brute_force().build(named())
    with pytest.raises(ValueError, match="'x' twice"):
        searcher.upsert(["x", "y", "x"], QUERIES[:3])
    assert searcher.size() == len(searcher.docids or []) == N


def test_an_unknown_docid_deletes_nothing() -> None:
    """There: those before it are gone from the names, not from the index."""
    searcher = scann_ops_pybind.builder(DB, K, "dot_product").score_brute_force().build(named())
    with pytest.raises(KeyError, match="unknown"):
        searcher.delete(["d0", "d1", "unknown"])
    assert searcher.docids == named()
    assert searcher.search(DB[0] * 9, 1)[0] == searcher.search(DB[0], 1)[0]
    assert searcher.size() == N


def test_the_callers_list_of_docids_is_not_touched() -> None:
    """There: it is the searcher's own, and changes with it."""
    mine = named()
    searcher = scann_ops_pybind.builder(DB, K, "dot_product").score_brute_force().build(mine)
    searcher.upsert("x", QUERIES[0])
    searcher.delete("d1")
    assert mine == named()


@pytest.mark.parametrize("relative_path", [False, True])
def test_deep_relative_and_moved_directories(tmp_path: Path, relative_path: bool) -> None:
    """There: a relative name or a moved directory cannot be loaded."""
    searcher = scann_ops_pybind.builder(DB, K, "dot_product").tree(20, 20).score_ah(2).build()
    expected = searcher.search_batched(QUERIES)[0]

    def check(place: str) -> None:
        found = scann_ops_pybind.load_searcher(place).search_batched(QUERIES)[0]
        np.testing.assert_array_equal(found, expected)

    deep = tmp_path.joinpath(*["ein tïefer Ordner"] * 10)
    searcher.serialize(str(deep), relative_path)  # made where it is missing
    check(str(deep))
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        searcher.serialize("by name", relative_path)
        check("by name")
        os.chdir(deep)
        check(".")
        check(os.path.relpath(tmp_path / "by name"))
    finally:
        os.chdir(here)
    shutil.move(tmp_path / "by name", tmp_path / "moved")
    check(str(tmp_path / "moved"))


def test_values_whose_squares_overflow_are_refused() -> None:
    """There: infinite distances."""
    db = DB.copy()
    db[3] *= 1e25
    with pytest.raises(ValueError, match=r"db\[3\]"):
        FULL.build(db)
    with pytest.raises(ValueError, match=r"queries\[3\]"):
        FULL.build().search_batched(db[:10])


@pytest.mark.parametrize(
    "settings",
    [{"num_leaves_to_search": 0}, {"soar_lambda": -1.0}, {"training_iterations": -1}],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    """There: taken in silence."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        swann.builder(DB, K, "dot_product").tree(
            **({"num_leaves": 20, "num_leaves_to_search": 5} | settings)
        )

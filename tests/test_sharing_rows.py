"""Indexes that score the caller's own rows (``copy=False``)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann import ConfigError, ReorderType

F32 = NDArray[np.float32]

N, D, K, LEAVES = 3000, 24, 7, 40
RNG = np.random.default_rng(11)
DB = RNG.standard_normal((N, D), dtype=np.float32) * RNG.uniform(0.5, 2, (N, 1)).astype(np.float32)
DB[100:140] = DB[60:100]  # equal datapoints: ties are resolved alike
QUERIES = RNG.standard_normal((64, D), dtype=np.float32)
NAMES = [f"name {i}" for i in range(N)]

STAGES = {
    "brute force": lambda b: b.score_brute_force(),
    "leaves of rows": lambda b: b.tree(LEAVES, 9).score_brute_force(),
    "codes": lambda b: b.score_ah(2, 0.2).reorder(30),
    "leaves of codes": lambda b: b.tree(LEAVES, 9).score_ah(2, 0.2).reorder(30),
    "SOAR": lambda b: b.tree(LEAVES, 9, soar_lambda=1.0).score_ah(2, 0.2).reorder(30),
    "SOAR, rows": lambda b: b.tree(LEAVES, 9, soar_lambda=1.0).score_brute_force(),
    "upper tree": lambda b: b.tree(LEAVES, 9).upper_tree(6, 3).score_ah(2).reorder(30),
    "pca": lambda b: b.pca(12).tree(LEAVES, 9).score_ah(2).reorder(30),
}
MEASURES = ("dot_product", "squared_l2")


def built(
    stages: str, copy: bool, measure: Any = "dot_product", db: Any = None, **rest: Any
) -> swann.Searcher:
    db = DB.copy() if db is None else db
    made: swann.Searcher = STAGES[stages](swann.builder(db, K, measure, copy=copy)).build(**rest)
    return made


def rows_of(searcher: swann.Searcher) -> F32:
    rows = searcher._index.rows
    assert rows is not None
    return rows


def same_answers(one: swann.Searcher, other: swann.Searcher) -> None:
    for limits in ((None, None, None), (1, 1, 1), (30, 30, 2), (K, K, 5), (90, 200, LEAVES)):
        found, expected = (s.search_batched(QUERIES, *limits) for s in (one, other))
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.distances, expected.distances)
    for q in QUERIES[:9]:
        found, expected = one.search(q), other.search(q)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.distances, expected.distances)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("stages", STAGES)
def test_answers_are_the_same_and_no_row_is_copied(stages: str, measure: str) -> None:
    db = DB.copy()
    shared, copied = built(stages, False, measure, db), built(stages, True, measure)
    assert np.shares_memory(rows_of(shared), db)
    assert not np.shares_memory(rows_of(copied), DB)
    same_answers(shared, copied)
    assert shared.nbytes - copied.nbytes <= 8 * N
    np.testing.assert_array_equal(db, DB)


def test_the_array_becomes_read_only_once_the_index_is_there() -> None:
    db = DB.copy()
    builder = swann.builder(db, K, "dot_product", copy=False).score_brute_force()
    assert db.flags.writeable
    builder.build()
    with pytest.raises(ValueError, match="read-only"):
        db[0] = 0


def test_a_copy_leaves_the_array_alone() -> None:
    db = DB.copy()
    searcher = built("leaves of codes", True, db=db)
    before = searcher.search_batched(QUERIES)
    assert db.flags.writeable
    db[...] = 1
    np.testing.assert_array_equal(searcher.search_batched(QUERIES).indices, before.indices)


@pytest.mark.parametrize(
    ("db", "measure", "stages", "says"),
    [
        (DB, "cosine", "leaves of codes", "unit length"),
        (DB.astype(np.float64), "dot_product", "codes", "dtype float64"),
        (DB.astype(np.float16), "squared_l2", "codes", "dtype float16"),
        (DB.astype(">f4"), "dot_product", "brute force", "dtype >f4"),
        (np.asfortranarray(DB), "dot_product", "brute force", "not C-contiguous"),
        (np.repeat(DB, 2, axis=1)[:, ::2], "dot_product", "SOAR", "not C-contiguous"),
        (DB[::2], "dot_product", "SOAR", "not C-contiguous"),
    ],
)
def test_what_needs_a_copy_is_refused(db: Any, measure: str, stages: str, says: str) -> None:
    seen: list[str] = []
    with pytest.raises(ConfigError, match=f"copy=False.*{says}"):
        built(stages, False, measure, db, progress=lambda stage, *_: seen.append(stage))
    assert not seen
    assert db.flags.writeable


def test_an_array_that_is_not_aligned_is_refused() -> None:
    memory = np.zeros(DB.nbytes + 1, np.uint8)
    db = memory[1:].view(np.float32).reshape(DB.shape)
    with pytest.raises(ConfigError, match="aligned"):
        built("codes", False, db=db)


@pytest.mark.parametrize("precision", [ReorderType.INT8, ReorderType.BFLOAT16])
def test_rounded_rows_are_refused(precision: ReorderType) -> None:
    builder = swann.builder(DB.copy(), K, "dot_product", copy=False).score_ah(2)
    with pytest.raises(ConfigError, match=f"copy=False.*{precision.name.lower()}"):
        builder.reorder(30, quantize=precision).build()


def test_an_index_of_codes_alone_keeps_no_rows() -> None:
    db = DB.copy()
    searcher = swann.builder(db, K, "dot_product", copy=False).tree(LEAVES, 9).score_ah(2).build()
    assert searcher._index.rows is None
    assert db.flags.writeable


@pytest.mark.parametrize("stages", ["brute force", "leaves of codes"])
def test_without_datapoints(stages: str) -> None:
    searcher = built(stages, False, db=np.empty((0, D), np.float32))
    searcher.upsert(None, DB[:5])
    assert sorted(searcher.search(QUERIES[0]).indices.tolist()) == [-1, -1, 0, 1, 2, 3, 4]


def test_rows_of_a_memory_map_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "db.npy"
    np.save(path, DB)
    db = np.load(path, mmap_mode="r")
    searcher = built("leaves of codes", False, db=db)
    assert np.shares_memory(rows_of(searcher), db)
    same_answers(searcher, built("leaves of codes", True))


def test_what_is_written_behind_its_back_ends_no_process() -> None:
    memory = DB.copy()
    for stages in STAGES:
        searcher = built(stages, False, db=memory[:])
        memory[::3] = np.nan
        memory[1::3] = np.inf
        assert searcher.search_batched(QUERIES, 50).indices.max() < N
        searcher.search(QUERIES[0])
        memory[...] = DB


# ---- Changes


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("stages", STAGES)
def test_it_changes_as_a_copy_does(stages: str, measure: str, named: bool) -> None:
    db, given = DB.copy(), {"docids": NAMES} if named else {}
    both = built(stages, False, measure, db, **given), built(stages, True, measure, **given)
    names: Any = np.array(NAMES) if named else np.arange(N)
    new = np.random.default_rng(3).standard_normal((150, D), dtype=np.float32)
    for searcher in both:
        searcher.upsert(names[40:90].tolist(), new[:50])
        searcher.delete(names[200:700].tolist())
        searcher.upsert([f"new {i}" for i in range(100)] if named else None, new[50:])
    same_answers(*both)
    assert both[0].get_health_stats() == both[1].get_health_stats()
    assert both[0].docids == both[1].docids
    restored = [pickle.loads(pickle.dumps(searcher)) for searcher in both]
    same_answers(*restored)
    for searcher in both:
        searcher.rebalance()
    same_answers(*both)
    assert not np.shares_memory(rows_of(both[0]), db)
    np.testing.assert_array_equal(db, DB)


def test_leaves_are_kept_in_shape() -> None:
    """What splits them sees rows in another order; every leaf searched, answers are the same."""
    both = []
    for copy in (False, True):
        builder = swann.builder(DB.copy(), K, "dot_product", copy=copy)
        builder.tree(LEAVES, LEAVES, incremental_threshold=0.02).score_ah(2).reorder(1000)
        searcher = builder.build()
        searcher.delete(list(range(200, 700)))
        searcher.upsert(None, np.tile(DB[:150] * np.float32(1.25), (4, 1)))
        assert searcher._index.num_leaves != LEAVES
        both.append(searcher.search_batched(QUERIES, leaves_to_search=1000))
    np.testing.assert_array_equal(*(found.distances for found in both))


def test_dead_rows_are_folded_away() -> None:
    """Most of it deleted, it keeps what is left in arrays of its own."""
    db = np.repeat(DB, 4, axis=0) + np.float32(0.01) * np.arange(4 * N, dtype=np.float32)[:, None]
    both = built("leaves of codes", False, db=db), built("leaves of codes", True, db=db)
    for searcher in both:
        searcher.delete(list(range(0, 3 * N)))
    assert not np.shares_memory(rows_of(both[0]), db)
    same_answers(*both)


# ---- Keeping it


@pytest.mark.parametrize("stages", STAGES)
def test_it_is_saved_as_a_copy_would_be(stages: str, tmp_path: Path) -> None:
    db = DB.copy()
    shared, copied = built(stages, False, db=db), built(stages, True)
    for searcher, name in ((shared, "shared"), (copied, "copied")):
        searcher.save(tmp_path / name)
        searcher.save(tmp_path / f"{name}.swann")
    assert np.shares_memory(rows_of(shared), db)
    for name in ("shared", "shared.swann"):
        same_answers(swann.load(tmp_path / name), copied)
    if "SOAR" not in stages:
        one, other = ((tmp_path / f"{name}.swann").read_bytes() for name in ("shared", "copied"))
        assert one == other


# ---- Autopilot


@pytest.mark.parametrize("count", [500, 24_000])
def test_autopilot(count: int) -> None:
    db = np.random.default_rng(5).standard_normal((count, 32), dtype=np.float32)
    shared = swann.build(db.copy(), copy=False)
    copied = swann.build(db)
    queries = np.random.default_rng(6).standard_normal((20, 32), dtype=np.float32)
    assert (shared._index.centroids is not None) == (count > 20_000)
    found, expected = (s.search_batched(queries) for s in (shared, copied))
    np.testing.assert_array_equal(found.indices, expected.indices)
    # Leaves and candidates, as they were measured.
    assert shared._limits.defaults == copied._limits.defaults
    with pytest.raises(ConfigError, match=r"copy=False.*int8"):
        swann.build(db, quantize=ReorderType.INT8, copy=False)


def test_autopilot_scans_no_rows_that_lie_anywhere() -> None:
    """Where rows of the leaves alone would be cheapest, one that shares rows keeps its codes."""
    db = np.random.default_rng(5).standard_normal((24_000, 8), dtype=np.float32)
    copied, shared = (swann.build(db.copy(), 400, copy=copy) for copy in (True, False))
    assert copied._index.codes is None
    assert shared._index.codes is not None


@pytest.mark.parametrize("writeable", [True, False])
def test_rows_are_given_back_where_tuning_ends_early(writeable: bool) -> None:
    db = np.random.default_rng(5).standard_normal((24_000, 8), dtype=np.float32)
    db.flags.writeable = writeable

    def stop(stage: str, *_: int) -> None:
        if stage == "measure":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swann.build(db, copy=False, progress=stop)
    assert db.flags.writeable == writeable

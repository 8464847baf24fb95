"""Updates: what the model of test_updates_model.py is too small for."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann import InvalidInputError, Searcher, UnknownDocidError
from swann.index import updates
from swann.index.building.build import build_index
from swann.index.changing.live import LiveIndex
from swann.index.packed import PackedIndex
from swann.index.state import State

RNG = np.random.default_rng(2)
N, D = 500, 8
DB = (RNG.standard_normal((N, D)) * RNG.lognormal(0, 0.5, (N, 1))).astype(np.float32)

MAKE: dict[str, Callable[[swann.Builder], swann.Builder]] = {
    "brute force": lambda b: b.score_brute_force(),
    "int8": lambda b: b.score_brute_force(swann.ReorderType.INT8),
    "codes": lambda b: b.score_ah(2),
    "tree": lambda b: b.tree(6, 6, min_partition_size=1).score_ah(2).reorder(10_000),
    "tree, codes": lambda b: b.tree(6, 6, min_partition_size=1).score_ah(2),
    "tree, brute force": lambda b: b.tree(6, 6, min_partition_size=1).score_brute_force(),
    "SOAR": lambda b: (
        b.tree(6, 6, min_partition_size=1, soar_lambda=1.5).score_ah(2).reorder(10_000)
    ),
}


def build(how: str, measure: Any = "dot_product", db: Any = DB, docids: Any = None) -> Searcher:
    return MAKE[how](swann.builder(db, 5, measure)).build(docids=docids)


# ---- Encoding


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
@pytest.mark.parametrize("threshold", [0.2, float("nan")], ids=["anisotropic", "l2"])
@pytest.mark.parametrize(
    ("tree", "reorder"),
    [
        (None, None),
        (None, swann.ReorderType.BFLOAT16),
        ({}, swann.ReorderType.FLOAT32),
        ({}, swann.ReorderType.INT8),
        ({"spherical": True}, None),
        ({"soar_lambda": 1.0}, swann.ReorderType.BFLOAT16),
        ({"soar_lambda": 1.0}, None),
    ],
    ids=str,
)
def test_new_datapoints_are_encoded_as_if_built(
    measure: Any, threshold: float, tree: Any, reorder: Any
) -> None:
    """An emptied index filled again by upserts of all sizes is the one that was built."""
    builder = swann.builder(DB, 5, measure)
    if tree is not None:
        builder.tree(7, 7, min_partition_size=1, **tree)
    builder.score_ah(3, threshold)
    if reorder is not None:
        rounds = reorder is not swann.ReorderType.FLOAT32
        builder.reorder(
            50, reorder, **({"anisotropic_quantization_threshold": threshold} if rounds else {})
        )
    built = build_index(DB, builder.create_config())
    updates.begin(built)
    empty = updates.folded(built, np.ones(N, np.uint8))
    assert empty.num_datapoints == 0
    live = LiveIndex(State(empty, None, 0, empty.config))
    first = 0
    for count in [1, 2, 3, 4, 5, 6, 15, 16, 17, 31, 33, 63, 64, 65, 128, N]:
        live.upsert(None, DB[first : first + count])
        first += count
    again = live.state().packed
    assert again.num_datapoints == N
    old, new = by_datapoint(built), by_datapoint(again)
    assert old.keys() == new.keys()
    for name in old:
        np.testing.assert_array_equal(old[name], new[name], err_msg=name)


def by_datapoint(packed: PackedIndex) -> dict[str, NDArray[Any]]:
    """The arrays of an index in an order that does not depend on that of rows and entries."""
    starts = packed.leaf_starts.astype(np.int64)
    leaves = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    rows = np.arange(len(leaves)) if packed.entry_rows is None else packed.entry_rows
    ids = packed.numbers()
    entries = np.lexsort((leaves, ids[rows]))
    arrays = {"leaves": leaves[entries], "datapoints": ids[rows][entries]}
    order = np.argsort(ids)
    for name in ("rows", "rows_bf16", "rows_i8", "row_scales", "row_squares", "row_labels"):
        if getattr(packed, name) is not None:
            arrays[name] = getattr(packed, name)[order]
    groups = np.concatenate([[0], np.cumsum(-(-np.diff(starts) // 32))])
    places = groups[leaves] * 32 + np.arange(len(leaves)) - starts[leaves]
    assert packed.codes is not None
    low, high = packed.codes & 15, packed.codes >> 4
    unpacked = np.concatenate([low, high], axis=2).swapaxes(1, 2).reshape(-1, low.shape[1])
    arrays["codes"] = unpacked[places[entries]]
    if packed.corrections is not None:
        arrays["corrections"] = packed.corrections[places[entries]]
    return arrays


# ---- Many at a time


@pytest.mark.parametrize("how", MAKE)
@pytest.mark.parametrize("measure", ["dot_product", "squared_l2"])
def test_more_than_a_chunk_and_a_page(how: str, measure: Any) -> None:
    """Leaves with several chunks of new datapoints, row numbers beyond 2^16, all ways to search."""
    rng = np.random.default_rng(7)
    searcher = build(how, measure, DB[:50])
    new = rng.standard_normal((70_000 if how == "brute force" else 9000, D)).astype(np.float32)
    for part in np.split(new, [1, 3, 900, 3000, 3001]):
        searcher.upsert(None, part)
    everything = np.vstack([DB[:50], new])
    alive = np.ones(len(everything), bool)
    gone = rng.permutation(len(everything))[: len(everything) // 3]
    searcher.delete(gone)
    alive[gone] = False
    swapped = np.flatnonzero(alive)[::50]
    everything[swapped] = rng.standard_normal((len(swapped), D))
    searcher.upsert(swapped, everything[swapped])
    assert searcher.size() == alive.sum()
    queries = rng.standard_normal((7, D)).astype(np.float32)
    found = searcher.search_batched(queries, 30)
    parallel = searcher.search_batched_parallel(queries, 30)
    np.testing.assert_array_equal(found.indices, parallel.indices)
    np.testing.assert_array_equal(found.distances, parallel.distances)
    for row, query in enumerate(queries):
        one = searcher.search(query, 30)
        np.testing.assert_array_equal(one.indices, found.indices[row])
        np.testing.assert_array_equal(one.distances, found.distances[row])
    assert alive[found.indices].all()
    assert all(len(set(ids)) == 30 for ids in found.indices.tolist())
    if "codes" in how or how == "int8":
        return
    if measure == "squared_l2":
        scores = ((queries[:, None] - everything[None]) ** 2).sum(-1)
        scores[:, ~alive] = np.inf
    else:
        scores = -(queries @ everything.T)
        scores[:, ~alive] = np.inf
    np.testing.assert_array_equal(found.indices[:, :5], np.argsort(scores, axis=1)[:, :5])


def test_a_folded_index_answers_as_before() -> None:
    for how in MAKE:
        searcher = build(how, docids=[f"d{i}" for i in range(N)])
        searcher.upsert([f"n{i}" for i in range(200)], DB[:200] + 1)
        searcher.delete([f"d{i}" for i in range(0, N, 3)])
        before = searcher.search_batched(DB[:50], 3)
        assert searcher._index.changed
        searcher._live.state()
        assert not searcher._index.changed
        after = searcher.search_batched(DB[:50], 3)
        np.testing.assert_array_equal(before.distances, after.distances)
        np.testing.assert_array_equal(before.indices, after.indices)


def test_datapoints_of_leaves_that_are_gone_are_saved_no_more(tmp_path: Path) -> None:
    """Nothing is left to fold but their docids."""
    names = [f"d{i}" for i in range(625)]
    db = np.repeat(np.eye(25, dtype=np.float32) * 100, 25, axis=0)
    db += np.random.default_rng(2).standard_normal(db.shape)
    builder = swann.builder(db, 5, "squared_l2").tree(25, 25, min_partition_size=1)
    made = builder.score_ah(2).reorder(50).build(docids=names)
    made.delete(names[50:75])
    assert made._live.keep_shape(1)
    assert made._index.num_leaves == 24
    assert not made._index.changed
    made.save(tmp_path)
    loaded = swann.load(tmp_path, verify="full")
    assert loaded.docids == names[:50] + names[75:]
    assert loaded.search(db[80]).indices[0] == "d80"


@pytest.mark.parametrize("named", [False, True])
def test_datapoints_in_their_order_are_saved_without_numbers(named: bool, tmp_path: Path) -> None:
    docids = [f"d{i}" for i in range(N)] if named else None
    searcher = build("brute force", docids=docids)
    if docids is None:
        built = build("brute force", db=np.concatenate([DB, DB[:100]]))
        searcher.upsert(None, DB[:100])
    else:
        built = build(
            "brute force", db=np.roll(DB, -100, axis=0), docids=docids[100:] + docids[:100]
        )
        searcher.delete(docids[:100])
        searcher.upsert(docids[:100], DB[:100])
    for which, made in (("changed", searcher), ("built", built)):
        made.save(tmp_path / which)
    # It lists all files by their digests.
    manifests = [
        (tmp_path / which / "manifest.json").read_bytes() for which in ("changed", "built")
    ]
    assert manifests[0] == manifests[1]


def test_a_vector_may_change_after_the_call() -> None:
    searcher = build("brute force", "squared_l2")
    new, docids = DB[:1].copy() + 30, [3]
    searcher.upsert(docids, new)
    expected = searcher.search(new[0])
    query = new[0].copy()
    new[:] = 0
    docids[0] = 5
    np.testing.assert_array_equal(searcher.search(query).distances, expected.distances)
    assert searcher.search(query).indices[0] == 3


@pytest.mark.parametrize("how", MAKE)
def test_emptied_and_filled_again(how: str) -> None:
    searcher = build(how, db=DB[:100], docids=list(range(100)))
    for round in range(3):
        searcher.delete(list(range(100)))
        assert searcher.size() == 0
        assert searcher.docids == []
        found = searcher.search_batched(DB[:3])
        assert (found.indices == -1).all()
        assert np.isnan(found.distances).all()
        if round == 1:
            searcher = pickle.loads(pickle.dumps(searcher))
        searcher.upsert(list(range(100)), DB[100:200])
        if "codes" not in how:
            assert searcher.search(DB[150]).indices.tolist()[0] in range(100)
        assert searcher.size() == 100


def test_reserved_room_is_used() -> None:
    searcher = build("tree")
    searcher.reserve(N)
    before = searcher.nbytes
    searcher.reserve(N + 3000)
    reserved = searcher.nbytes
    assert reserved >= before + 3000 * D * 4
    view = searcher._live.view
    for first in range(0, 3000, 300):
        searcher.upsert(None, np.repeat(DB[:300], 1, axis=0) + first)
    assert searcher._live.view is view
    # Codes and slots of the new come on top, and the pages that lead to them.
    assert searcher.nbytes < reserved + 3000 * (D // 2 + 4) * 2 + 20_000


def test_a_row_id_is_given_once() -> None:
    searcher = build("tree", db=DB[:3])
    assert searcher.upsert(None, DB[:2]).tolist() == [3, 4]
    searcher.delete([4, 1])
    assert searcher.upsert(None, DB[0]).tolist() == [5]
    searcher.delete(5)
    searcher = pickle.loads(pickle.dumps(searcher))
    assert searcher.upsert(None, DB[0]).tolist() == [6]
    searcher.rebalance()
    assert searcher._live.numbers().tolist() == [0, 2, 3, 6]
    assert searcher.upsert(None, DB[0]).tolist() == [7]
    for gone in (1, 4, 5, 8, 2**32 - 1, 2**32, 2**63 - 1):
        with pytest.raises(UnknownDocidError, match=f"row id {gone} is not in the index"):
            searcher.delete([0, gone])
        with pytest.raises(UnknownDocidError, match=f"row id {gone} is not in the index"):
            searcher.upsert([0, gone], DB[:2])
    assert searcher.size() == 5


def test_numbers_end() -> None:
    last = 2**32 - 2
    state = build("brute force", db=DB[:3])._live.state()
    full = LiveIndex(dataclasses.replace(state, next_number=last))
    with pytest.raises(InvalidInputError, match=f"an index gives {last} numbers at most"):
        full.upsert(None, DB[0])
    assert full.upsert([0], DB[:1]).tolist() == [0]  # needs no new number
    assert full.state().next_number == last
    searcher = Searcher(state)
    with pytest.raises(InvalidInputError, match=f"num_datapoints is {last + 1}; an index holds"):
        searcher.reserve(last + 1)
    assert searcher.size() == 3


def test_old_rows_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swann.index.changing.live._TIDY", 100)
    for docids in (None, list(range(N))):
        searcher = build("tree", docids=docids)
        for _ in range(20):
            searcher.upsert(range(N), DB)
        assert searcher._index.native.num_rows() <= 2 * N + 100
        searcher.delete(range(N - 10))
        assert searcher._index.native.num_rows() <= 2 * 10 + 100
        if docids is not None:
            names = searcher._live.view.docids
            assert names is not None
            assert len(names) <= 2 * 10 + 100


def test_a_loaded_index_changes_beside_its_files(tmp_path: Path) -> None:
    searcher = build("SOAR", docids=[f"d{i}" for i in range(N)])
    searcher.serialize(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    one, two = swann.load_searcher(tmp_path), swann.load_searcher(tmp_path)
    one.upsert(["new", "d3"], DB[:2])
    one.delete("d7")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert two.docids == searcher.docids
    one.serialize(tmp_path)  # over the files that both are mapped from
    three = swann.load_searcher(tmp_path, verify="full")
    assert three.docids == one.docids != two.docids
    for old, new in ((one, three), (searcher, two)):
        a, b = old.search_batched(DB[:20]), new.search_batched(DB[:20])
        np.testing.assert_array_equal(a.distances, b.distances)
        np.testing.assert_array_equal(a.indices, b.indices)


def test_from_nothing_to_brute_force_to_a_tree_and_back() -> None:
    builder = swann.builder(DB[:0], 3, "squared_l2").tree(5, 5, min_partition_size=1)
    searcher = builder.score_ah(2).reorder(N).build(docids=[])
    plan = searcher.config
    assert searcher._index.config.tree is None
    searcher.rebalance()  # of nothing
    searcher.upsert([f"d{i}" for i in range(N)], DB)
    exact = searcher.search_batched(DB[:40])
    searcher.rebalance()
    assert searcher._index.num_leaves == 5
    assert searcher.config == searcher._index.config == plan
    in_tree = searcher.search_batched(DB[:40])
    flat = swann.builder(DB, 2, "squared_l2").score_brute_force().create_config()
    searcher.rebalance(flat)
    assert searcher.config == flat
    back = searcher.search_batched(DB[:40], 3)
    assert searcher.search(DB[0]).indices.shape == (2,)  # as its config says
    for found in (in_tree, back):
        np.testing.assert_array_equal(found.indices, exact.indices)
        np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-6)
    searcher.delete(searcher.docids)
    searcher.rebalance()
    assert searcher.config == flat


def test_copies_go_their_own_ways() -> None:
    for how, duplicate in [("tree", copy.copy), ("SOAR", copy.deepcopy)]:
        first = build(how, docids=[f"d{i}" for i in range(N)])
        first.upsert("new", DB[0])
        second = duplicate(first)
        first.upsert("mine", DB[1])
        second.delete("new")
        second.upsert(["theirs", "mine"], DB[:2] + 1)
        assert first.docids == [*(f"d{i}" for i in range(N)), "new", "mine"]
        assert second.docids == [*(f"d{i}" for i in range(N)), "theirs", "mine"]
        for searcher in (first, second):
            searcher.rebalance()
            found = set(searcher.search(DB[3], N + 9).indices.tolist())
            assert found - {None} == set(searcher.docids or [])


@pytest.mark.parametrize("error", [MemoryError, swann.InvalidInputError])
def test_a_change_stays_done_where_leaves_cannot_be_kept_up(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows by itself may fail; then the next change tries again."""

    def fails(*_: object) -> None:
        raise error("not now")

    db = np.random.default_rng(3).standard_normal((600, D), dtype=np.float32)
    builder = swann.builder(db[:500], 10, "squared_l2")
    searcher = builder.tree(10, 10, incremental_threshold=20).score_ah(2).reorder(50).build()
    leaves = searcher._index.num_leaves
    with monkeypatch.context() as patched:
        patched.setattr("swann.index.changing.live.reshape", fails)
        for count in (540, 580):
            rows = searcher.upsert(None, db[count - 40 : count])
            assert rows.tolist() == list(range(count - 40, count))
            assert searcher.size() == count
        searcher.delete(rows[:5].tolist())
        assert searcher.size() == 575
    assert searcher._index.num_leaves == leaves
    searcher.upsert(None, db[:300] + np.float32(9))
    assert searcher._index.num_leaves > leaves


@pytest.mark.parametrize("how", ["brute force", "tree"])
def test_a_row_id_is_in_the_index_or_not(how: str) -> None:
    searcher = build(how)
    assert 0 in searcher
    assert np.uint32(N - 1) in searcher
    searcher.delete([0])
    (added,) = searcher.upsert(None, DB[:1]).tolist()
    assert added in searcher
    for other in (0, N + 1, -1, 2**32, 2**32 - 1, 10**30, "0", 1.0, None, True):
        assert other not in searcher

"""An index that keeps itself in shape notices when it misses what comes into it."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann import IncrementalMode, ReorderType
from swann.autopilot import choose_config, outgrown, sizes_that_fit, tune
from swann.autopilot.newest import Newest, found_share
from swann.index.changing import live
from swann.upkeep import Upkeep

F32 = NDArray[np.float32]
DIMENSION = 96


def draw(n: int, seed: int, away: float = 0.0) -> F32:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, DIMENSION), dtype=np.float32) + np.float32(away)


def online(rows: F32, measure: Any, mode: IncrementalMode) -> swann.Searcher:
    return swann.builder(rows, 10, measure).autopilot(mode).build()


@pytest.fixture
def rebuilt(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes at which an index was built anew."""
    sizes: list[int] = []
    rebuild = Upkeep._rebuild

    def noted(self: Upkeep, *rest: Any, **more: Any) -> bool:
        sizes.append(self._live.size())
        return rebuild(self, *rest, **more)

    monkeypatch.setattr(Upkeep, "_rebuild", noted)
    return sizes


@pytest.mark.parametrize("mode", [IncrementalMode.ONLINE, IncrementalMode.ONLINE_INCREMENTAL])
@pytest.mark.parametrize("measure", ["squared_l2", "dot_product"])
def test_datapoints_of_another_kind_are_found(
    measure: Any, mode: IncrementalMode, rebuilt: list[int]
) -> None:
    old, new = draw(12_000, 0), draw(12_000, 1, away=5.0)
    searcher = online(old, measure, mode)
    for first in range(0, len(new), 500):
        searcher.upsert(None, new[first : first + 500])
    assert rebuilt[0] <= 14_000
    assert len(rebuilt) <= 3
    queries = draw(200, 2, away=5.0)
    true = swann.exact_neighbors(np.concatenate([old, new]), queries, 10, measure)
    assert swann.recall(searcher.search_batched(queries).indices, true.indices) >= 0.9


def test_datapoints_of_the_same_kind_have_nothing_built_anew(rebuilt: list[int]) -> None:
    searcher = online(draw(12_000, 0), "squared_l2", IncrementalMode.ONLINE)
    rows = draw(12_000, 1)
    for first in range(0, len(rows), 500):
        searcher.upsert(None, rows[first : first + 500])
    assert rebuilt == []


def test_nothing_is_built_anew_where_nobody_asked_for_it(rebuilt: list[int]) -> None:
    searcher = online(draw(12_000, 0), "squared_l2", IncrementalMode.NONE)
    searcher.upsert(None, draw(6_000, 1, away=5.0))
    assert rebuilt == []


def test_one_by_one_by_docid_and_in_other_dtypes(rebuilt: list[int]) -> None:
    old, new = draw(12_000, 0), draw(1_500, 1, away=5.0)
    builder = swann.builder(old, 10, "squared_l2").autopilot(IncrementalMode.ONLINE)
    searcher = builder.build(docids=[f"old{i}" for i in range(len(old))])
    for i, row in enumerate(new):
        searcher.upsert(f"new{i}", row.tolist() if i % 3 else row.astype(np.float64))
    assert len(rebuilt) == 1
    assert 13_300 <= rebuilt[0] <= 13_400
    assert searcher.search(new[-1]).indices[0] == "new1499"


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
def test_some_of_the_newest_are_kept(step: int) -> None:
    newest, names, size = Newest(), np.arange(100_000, 400_000), 2_000_000
    for first in range(0, len(names), step):
        part = names[first : first + step]
        size += len(part)
        if newest.add(part, size):
            break
    came = size - 2_000_000
    assert 200_000 <= came <= 224_000
    kept, share = newest.take()
    assert share == pytest.approx(len(kept) / came)
    assert 4_000 <= len(kept) <= 8_192
    assert kept == sorted(set(kept))
    assert kept[-1] > 100_000 + 0.99 * came
    assert newest.take()[0] == []


def test_where_building_does_not_help_it_is_done_less_and_less_often() -> None:
    newest = Newest()

    def came_until_due() -> int:
        for count in range(1, 2_000):
            if newest.add(np.array([count]), 1_000):
                newest.take()
                return count
        raise AssertionError

    for missed, following in (
        (False, 100),
        (True, 200),
        (True, 400),
        (True, 800),
        (True, 1_000),
        (True, 1_000),
        (False, 100),
    ):
        newest.looked(missed=missed)
        assert came_until_due() == following


Found = tuple[NDArray[np.int64], F32]


def searching(rows: F32, numbers: NDArray[np.int64], measure: Any, k: int, share: float) -> Any:
    """A search for `k` and the query itself that loses all but a share of what is near."""
    exact = swann.builder(rows, k + 1, measure).score_brute_force().build()
    rng = np.random.default_rng(3)

    def search(queries: F32) -> Found:
        ids, distances = exact.search_batched(queries, len(rows))
        kept = rng.random(ids.shape) < share
        kept[:, 0] = True  # itself
        order = np.argsort(
            np.where(kept, np.arange(len(rows)), 2 * len(rows) - np.arange(len(rows)))
        )
        order = order[:, : k + 1]
        return numbers[np.take_along_axis(ids, order, 1)], np.take_along_axis(distances, order, 1)

    return search


@pytest.mark.parametrize("measure", ["dot_product", "cosine", "squared_l2"])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.0])
@pytest.mark.parametrize("k", [1, 10])
def test_the_share_that_is_found_is_measured(measure: Any, share: float, k: int) -> None:
    rows = draw(600, 0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    numbers = np.random.default_rng(1).permutation(10_000)[:600]
    # Without anything near a search returns the farthest there are.
    search = searching(rows, numbers, measure, k, share)
    found = found_share(numbers, rows, 1.0, measure, search)
    assert share - 0.02 <= found <= min(1.0, share + 0.08)


@pytest.mark.parametrize("share", [1.0, 0.85, 0.7])
def test_what_was_kept_stands_for_all_that_came(share: float) -> None:
    rows = draw(1200, 0)
    numbers = np.arange(1200)
    search = searching(rows, numbers, "squared_l2", 10, share)
    found = found_share(numbers[::2], rows[::2], 0.5, "squared_l2", search)
    assert found == pytest.approx(share, abs=0.06)


def test_what_is_found_of_copies_and_of_few() -> None:
    rows = np.repeat(draw(30, 0), 20, axis=0)
    numbers = np.arange(600)
    search = searching(rows, numbers, "squared_l2", 30, 1.0)
    assert found_share(numbers, rows, 1.0, "squared_l2", search) == 1.0
    # Copies of the query are not missed, and ten of them say nothing of others.
    search = searching(rows, numbers, "squared_l2", 10, 1.0)
    assert found_share(numbers, rows, 1.0, "squared_l2", search) == 1.0
    assert found_share(numbers[:0], rows[:0], 1.0, "squared_l2", search) == 1.0


def test_a_search_that_finds_fewer_than_there_are() -> None:
    rows, numbers = draw(600, 0), np.arange(600)

    def search(queries: F32) -> Found:
        ids = np.full((len(queries), 11), -1)
        return ids, np.full(ids.shape, np.nan, np.float32)

    assert found_share(numbers, rows, 1.0, "squared_l2", search) < 0.01


@pytest.mark.parametrize("measure", ["squared_l2", "cosine", "dot_product"])
def test_what_does_not_find_itself_finds_nothing(measure: Any) -> None:
    """Whatever else it finds; but under the dot product others may be better than itself."""
    rows = draw(200, 0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def search(queries: F32) -> Found:
        ids = np.tile(np.arange(1_000, 1_011), (len(queries), 1))
        value = 0.1 if measure == "squared_l2" else 0.95  # nearer than the others of these
        return ids, np.full(ids.shape, value, np.float32)

    found = found_share(np.arange(200), rows, 1.0, measure, search)
    assert found == (1.0 if measure == "dot_product" else 0.0)


def test_codes_that_see_nothing_of_the_new_kind(rebuilt: list[int]) -> None:
    """They find, and miss, the same with default limits and in all leaves: recall was 0."""
    rng = np.random.default_rng(0)

    def low(n: int, basis: NDArray[np.float64]) -> F32:
        rows = rng.standard_normal((n, 10)) @ basis + 0.01 * rng.standard_normal((n, 200))
        return rows.astype(np.float32)

    first, second = rng.standard_normal((2, 10, 200))
    old, new, queries = low(12_000, first), low(8_000, second), low(200, second)
    searcher = online(old, "cosine", IncrementalMode.ONLINE)
    for begin in range(0, len(new), 500):
        searcher.upsert(None, new[begin : begin + 500])
    assert rebuilt
    true = swann.exact_neighbors(np.concatenate([old, new]), queries, 10, "cosine")
    assert swann.recall(searcher.search_batched(queries).indices, true.indices) >= 0.85


def test_one_neighbor_and_not_only_itself(rebuilt: list[int]) -> None:
    old, new = draw(12_000, 0), draw(6_000, 1, away=5.0)
    searcher = swann.builder(old, 1, "squared_l2").autopilot(IncrementalMode.ONLINE).build()
    searcher.upsert(None, new)
    assert rebuilt == [18_000]


def test_a_tree_without_codes_is_looked_at(rebuilt: list[int]) -> None:
    rng = np.random.default_rng(0)
    centers = 10 * rng.standard_normal((100, 64))
    old = centers[rng.integers(100, size=20_000)] + 0.1 * rng.standard_normal((20_000, 64))
    searcher = online(old.astype(np.float32), "cosine", IncrementalMode.ONLINE)
    assert isinstance(searcher.config.score, swann.BruteForceConfig)
    new = 10 * rng.standard_normal((4_000, 64), dtype=np.float32)
    searcher.upsert(None, new)
    assert rebuilt == [24_000]


def test_rows_in_8_bits_are_not_rounded_again(rebuilt: list[int]) -> None:
    builder = swann.builder(draw(12_000, 0), 10, "squared_l2")
    searcher = builder.autopilot(IncrementalMode.ONLINE, ReorderType.INT8).build()
    searcher.upsert(None, draw(6_000, 1, away=5.0))
    assert rebuilt == []


def test_a_build_that_fails_is_not_tried_at_every_upsert(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = online(draw(12_000, 0), "squared_l2", IncrementalMode.ONLINE)
    tried: list[int] = []

    def no_memory(self: Upkeep, *rest: Any, **more: Any) -> None:
        tried.append(self._live.size())
        raise MemoryError

    monkeypatch.setattr(Upkeep, "_rebuild", no_memory)
    for row in draw(6_000, 1, away=5.0):
        searcher.upsert(None, row)
    assert len(tried) == 2
    assert len(searcher) == 18_000


def test_nor_where_an_index_has_outgrown_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = online(draw(9_000, 0), "squared_l2", IncrementalMode.ONLINE)
    assert searcher.config.tree is None
    tried: list[int] = []

    def no_memory(*rest: Any, **more: Any) -> None:
        tried.append(len(searcher))
        raise MemoryError

    monkeypatch.setattr("swann.upkeep.build_tuned", no_memory)
    rows = draw(9_000, 1)
    for first in range(0, len(rows), 50):
        searcher.upsert(None, rows[first : first + 50])
    assert 2 <= len(tried) <= 3
    assert all(later > 1.09 * tried[0] for later in tried[1:])
    monkeypatch.undo()
    searcher.upsert(None, draw(2_000, 2))
    assert searcher.config.tree is not None


def test_threads_build_once(rebuilt: list[int]) -> None:
    searcher = online(draw(12_000, 0), "squared_l2", IncrementalMode.ONLINE)
    rows = draw(1_600, 1, away=5.0)

    def some(begin: int) -> None:
        for row in rows[begin::8]:
            searcher.upsert(None, row)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(some, range(8)))
    assert len(rebuilt) == 1
    assert len(searcher) == 13_600


def test_settings_that_are_given_meanwhile_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = draw(12_000, 0)
    searcher = online(rows, "squared_l2", IncrementalMode.ONLINE)
    mine = swann.builder(rows, 10, "squared_l2").tree(50, 9).score_ah(2).reorder(77).create_config()

    def meanwhile(self: Upkeep, plan: swann.IndexConfig, threads: int) -> bool:
        searcher.rebalance(mine)
        return True

    monkeypatch.setattr(Upkeep, "_misses", meanwhile)
    searcher.upsert(None, draw(1_500, 1))
    assert searcher.config == mine
    assert searcher._limits.defaults == (10, 77, 9)
    searcher.upsert(None, draw(20_000, 2))  # nothing happens by itself any more
    assert searcher.config == mine


@pytest.mark.parametrize("measure", ["squared_l2", "cosine", "dot_product"])
@pytest.mark.parametrize("seed", [1, 2])
def test_sparse_datapoints_of_the_same_kind(measure: Any, seed: int, rebuilt: list[int]) -> None:
    """Where a search goes to other leaves it misses many that are near, and all counted once."""
    rng = np.random.default_rng(seed)

    def sparse(n: int) -> F32:
        rows = rng.exponential(size=(n, 64)) * (rng.random((n, 64)) < 0.1)
        rows[:, 0] += 1e-3
        return rows.astype(np.float32)

    searcher = swann.builder(sparse(30_000), 10, measure).autopilot(IncrementalMode.ONLINE).build()
    for _ in range(10):
        searcher.upsert(None, sparse(1_500))
    assert rebuilt == []


@pytest.mark.parametrize("kind", ["far away", "clusters"])
def test_scores_that_differ_by_little_are_different(kind: str, rebuilt: list[int]) -> None:
    """By less than 1e-4 of 1, under cosine: recall was .006."""
    if kind == "far away":
        new = draw(4_000, 1, away=100.0)
    else:
        new = np.repeat(draw(3, 1), 1_400, axis=0)[:4_000] + np.float32(0.01) * draw(4_000, 2)
    searcher = online(draw(20_000, 0), "cosine", IncrementalMode.ONLINE)
    searcher.upsert(None, new)
    assert rebuilt == [24_000]


@pytest.mark.parametrize("measure", ["squared_l2", "cosine", "dot_product"])
def test_copies_that_come_are_found(measure: Any) -> None:
    """All that is near them are themselves, and yet they can be missed."""
    old, new = draw(20_000, 0), np.repeat(draw(100, 1, away=5.0), 40, axis=0)
    searcher = online(old, measure, IncrementalMode.ONLINE)
    searcher.upsert(None, new)
    true = swann.exact_neighbors(np.concatenate([old, new]), new[::7], 10, measure)
    found = searcher.search_batched(new[::7])
    assert swann.recall_with_ties(found.distances, true.distances, measure) >= 0.9


def test_an_index_that_builds_itself_does_not_warn(
    monkeypatch: pytest.MonkeyPatch, rebuilt: list[int]
) -> None:
    monkeypatch.setattr(tune._Tuning, "what_is_missing", lambda self, attempt: "much")
    rows = draw(14_000, 0)
    builder = swann.builder(rows[:0], 10, "squared_l2").autopilot(IncrementalMode.ONLINE)
    searcher = builder.build()
    searcher.upsert(None, rows)
    assert rebuilt == [14_000]
    with pytest.warns(swann.RecallWarning, match="much"):
        searcher.rebalance()


def test_a_log_has_the_same_consequences(tmp_path: Path, rebuilt: list[int]) -> None:
    online(draw(12_000, 0), "squared_l2", IncrementalMode.ONLINE).save(tmp_path / "index")
    with swann.open(tmp_path / "index", checkpoint_at=None) as index:
        for part in np.split(draw(3_000, 1, away=5.0), 6):
            index.upsert(None, part)
        loaded = swann.load(tmp_path / "index")
        assert rebuilt == 2 * [13_500]
        for name, array in index._index.arrays().items():
            np.testing.assert_array_equal(array, loaded._index.arrays()[name])


@pytest.mark.parametrize("n", [0, 3, 900, 5_000, 12_000, 10**6])
@pytest.mark.parametrize("d", [2, 96])
def test_sizes_that_fit_are_those_that_are_not_outgrown(n: int, d: int) -> None:
    config = choose_config(n, d, "cosine")
    fit = sizes_that_fit(config, n, d)
    assert n in fit
    for size in {fit.start, *range(fit.start, 4 * n, max(1, n // 50)), fit.stop - 1}:
        if size in fit:
            assert not outgrown(config, size, d)
    assert outgrown(config, fit.stop, d)
    assert fit.start == 0 or outgrown(config, fit.start - 1, d)
    assert len(sizes_that_fit(config, 100 * n + 10**7, d)) == 0
    assert 10**9 in sizes_that_fit(dataclasses.replace(config, autopilot=None), n, d)


def test_deletions_count_and_a_save_forgets_no_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    monkeypatch.setattr(live, "reshape", lambda *_: looks.append(1))
    builder = swann.builder(np.random.default_rng(4).standard_normal((100, 8)), 3, "squared_l2")
    builder.tree(10, 5, min_partition_size=1, incremental_threshold=20)
    searcher = builder.score_brute_force().build()
    searcher.delete(list(range(10)))
    searcher.save(tmp_path)
    searcher.delete(10)
    searcher.delete(list(range(11, 19)))
    assert not looks
    searcher.delete(19)
    assert looks == [1]
    searcher.delete(list(range(20, 39)))
    assert looks == [1]  # counted anew
    searcher.upsert(None, np.ones(8))
    assert looks == [1, 1]


@pytest.mark.parametrize("named", [False, True])
def test_what_is_not_there_any_more_is_not_looked_at(named: bool) -> None:
    rows = draw(20, 3)
    searcher = (
        swann.builder(rows, 3, "squared_l2")
        .score_brute_force()
        .build(docids=[f"d{i}" for i in range(20)] if named else None)
    )
    names: list[Any] = [f"d{i}" for i in (2, 9, 4)] if named else [2, 9, 4]
    searcher.delete(names[1])
    _, numbers, found = searcher._live.present(names)
    assert numbers.tolist() == [2, 4]
    np.testing.assert_array_equal(found, rows[[2, 4]])

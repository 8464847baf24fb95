"""An index that keeps itself in shape notices when it misses what comes into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann import IncrementalMode
from swann.autopilot.newest import Newest
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
    rebuild = Upkeep.rebuild

    def noted(self: Upkeep, *rest: Any) -> None:
        sizes.append(self._live.size())
        rebuild(self, *rest)

    monkeypatch.setattr(Upkeep, "rebuild", noted)
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


class Index:
    """Finds a share of what there is."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.asked: list[F32] = []

    def __call__(self, queries: F32, everything: bool) -> F32:
        self.asked.append(queries)
        distances = np.tile(np.arange(10, dtype=np.float32), (len(queries), 1))
        if not everything:
            distances[:, round(10 * self.share) :] += 100
        return distances


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
def test_a_few_of_the_newest_are_asked_for(step: int) -> None:
    newest, rows, size = Newest("squared_l2"), draw(3_000, 0), 10_000
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        size += len(part)
        if newest.add(part, size):
            break
    assert 1_000 <= size - 10_000 <= 2_000
    index = Index(1.0)
    assert not newest.missed(0.95, index)
    asked = index.asked[0]
    assert 30 <= len(asked) <= 64
    places = [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in asked]
    assert places == sorted(set(places))
    assert places[-1] > 0.9 * (size - 10_000)
    # From now on others are.
    assert not newest.add(rows[:1], size + 1)
    assert newest.missed(0.95, Index(0.0))


def test_what_a_new_build_misses_is_not_built_for_again() -> None:
    newest = Newest("squared_l2")
    for share, missed in ((0.9, False), (0.8, True)):
        newest.add(draw(500, 0), 1_000)
        assert newest.missed(0.95, Index(share)) is missed
    newest.rebuilt(0.95, Index(0.7))
    for share, missed in ((0.7, False), (0.6, False), (0.5, True)):
        newest.add(draw(500, 0), 1_000)
        assert newest.missed(0.95, Index(share)) is missed
    newest.rebuilt(0.95, Index(0.9))
    newest.add(draw(500, 0), 1_000)
    assert newest.missed(0.95, Index(0.7))


@pytest.mark.parametrize("measure", ["dot_product", "cosine"])
def test_greater_is_nearer_but_under_squared_l2(measure: Any) -> None:
    newest = Newest(measure)
    newest.add(draw(500, 0), 1_000)
    assert not newest.missed(0.95, lambda q, everything: np.full((len(q), 3), 2.0 - everything))
    newest.add(draw(500, 0), 1_000)
    assert newest.missed(0.95, lambda q, everything: np.full((len(q), 3), 1.0 + everything))

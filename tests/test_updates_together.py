"""Searching, changing, folding, rebalancing and keeping an index, all at the same time."""

from __future__ import annotations

import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swann
from swann import Searcher, SearchResult

RNG = np.random.default_rng(6)
N, D = 200, 8
DB = RNG.standard_normal((N, D)).astype(np.float32)
# A pair of datapoints that moves from one place to the other, in one call.
PLACES = np.full((2, 2, D), 50, np.float32)
PLACES[1] *= -1
PLACES[:, 1] += 0.25
NEAR = 1.0
PAIRS = {"str": ["x", "y"], "int": [10_001, 10_002]}
MAKE: dict[str, Callable[[swann.Builder], swann.Builder]] = {
    "brute force": lambda b: b.score_brute_force(),
    "tree": lambda b: b.tree(5, 5, min_partition_size=1).score_ah(2).reorder(10_000),
    "SOAR": lambda b: (
        b.tree(5, 5, min_partition_size=1, soar_lambda=1.0, incremental_threshold=40)
        .score_ah(2)
        .reorder(10_000)
    ),
}


@pytest.fixture(autouse=True)
def _turns_are_short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("swann.index.changing.live._TIDY", 30)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Together:
    """Threads that each do one thing over and over until every one has done it often enough."""

    def __init__(self, searcher: Searcher, names: Callable[[int], Any], pair: list[Any]) -> None:
        self.searcher, self.names, self.pair = searcher, names, pair
        self.errors: list[BaseException] = []
        self.done: dict[str, int] = {}
        self.seen: set[int] = set()
        self.stop = threading.Event()

    def run(self, tasks: dict[str, tuple[Callable[[int], None], int]]) -> None:
        def loop(name: str, task: Callable[[int], None]) -> None:
            try:
                while not self.stop.is_set():
                    task(self.done[name])
                    self.done[name] += 1
            except BaseException as error:
                self.errors.append(error)
                self.stop.set()

        self.done = dict.fromkeys(tasks, 0)
        threads = [
            threading.Thread(target=loop, args=(name, task)) for name, (task, _) in tasks.items()
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60
        while not self.stop.wait(0.01) and time.monotonic() < end:
            if all(self.done[name] >= least for name, (_, least) in tasks.items()):
                break
        self.stop.set()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        assert all(self.done[name] >= least for name, (_, least) in tasks.items()), self.done
        assert self.seen == {0, 1}

    # ---- Looking

    def where(self, found: SearchResult) -> int:
        """The place of the pair, from searches at both; it is at one, both halves of it."""
        at = []
        for place in (0, 1):
            near = found.distances[place] < NEAR
            named = found.indices[place][near].tolist()
            assert sorted(named) in ([], self.pair), named
            if named:
                at.append(place)
        assert len(at) == 1, at
        return at[0]

    def look(self, searcher: Searcher, how: str, copies: int) -> None:
        queries = np.tile(PLACES[:, 0], (copies, 1))
        found = getattr(searcher, how)(queries, 4, leaves_to_search=1000)
        places = {
            self.where(SearchResult(found.indices[i : i + 2], found.distances[i : i + 2]))
            for i in range(0, 2 * copies, 2)
        }
        assert len(places) == 1, "one batch saw two states"
        self.seen |= places

    def look_one(self, i: int) -> None:
        row = i % N
        indices, distances = self.searcher.search(DB[row], 1, leaves_to_search=1000)
        assert (indices[0], distances[0]) == (self.names(row), 0), row
        near = self.searcher.search(PLACES[i % 2, 0], 3, leaves_to_search=1000)
        assert sorted(near.indices[near.distances < NEAR].tolist()) in ([], self.pair)

    # ---- Changing

    def move(self, i: int) -> None:
        self.searcher.upsert(self.pair[:: 1 - 2 * (i // 2 % 2)], PLACES[i % 2])

    def churn(self, i: int) -> None:
        """Datapoints come and go, many at a time, far from all that is looked at."""
        first = N + 100 * (i % 3)
        new = np.random.default_rng(i).standard_normal((80, D)).astype(np.float32) + 500
        self.searcher.upsert([self.names(first + j) for j in range(80)], new)
        self.searcher.delete([self.names(first + j) for j in range(80)])

    def keep(self, i: int) -> None:
        kept = pickle.loads(pickle.dumps(self.searcher))
        assert len(kept) == len(kept.docids)
        self.look(kept, "search_batched", 1)
        kept.upsert(self.pair, PLACES[1])
        self.look(kept, "search_batched", 1)
        assert len(kept) == len(set(kept.docids))

    def save(self, folder: Path) -> None:
        self.searcher.serialize(folder)
        kept = swann.load_searcher(folder, verify="full")
        assert len(kept) == len(kept.docids or [])
        self.look(kept, "search_batched_parallel", 1)


@pytest.mark.parametrize("kind", ["str", "int"])
@pytest.mark.parametrize("how", MAKE)
def test_every_search_sees_one_state(how: str, kind: str, tmp_path: Path) -> None:
    names: Callable[[int], Any] = (lambda i: f"b{i}") if kind == "str" else (lambda i: i)
    pair = PAIRS[kind]
    db = np.vstack([DB, PLACES[0]])
    builder = MAKE[how](swann.builder(db, 5, "squared_l2"))
    searcher = builder.build(docids=[*(names(i) for i in range(N)), *pair])
    searcher.initialize_health_stats()
    together = Together(searcher, names, pair)
    together.run(
        {
            "move": (together.move, 60),
            "churn": (together.churn, 12),
            "rebalance": (lambda _: searcher.rebalance(), 2),
            "keep": (together.keep, 3),
            "save": (lambda _: together.save(tmp_path), 1),
            "look at one": (together.look_one, 60),
            "batches": (lambda _: together.look(searcher, "search_batched", 60), 12),
            "parallel": (lambda _: together.look(searcher, "search_batched_parallel", 400), 6),
            "docids": (lambda _: consistent(searcher), 12),
        }
    )
    assert set(searcher.docids or []) >= {*(names(i) for i in range(N)), *pair}


def consistent(searcher: Searcher) -> None:
    listed = searcher.docids
    assert listed is not None
    assert len(listed) == len(set(listed))
    assert searcher.size() >= N + 2
    assert searcher.nbytes > 0
    entries = searcher.get_health_stats()["sum_partition_sizes"]
    assert entries == 0 if searcher.config.tree is None else entries >= N + 2


def test_writers_take_turns() -> None:
    """What several threads write is all there, each row id given once."""
    searcher = swann.builder(DB, 5, "squared_l2").tree(5, 5).score_ah(2).reorder(10_000).build()
    given: list[list[int]] = []

    def write(thread: int) -> None:
        for i in range(40):
            ids = searcher.upsert(None, np.full((3, D), 100 * thread + i, np.float32)).tolist()
            given.append(ids[:2])
            searcher.delete(ids[2])

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [row for rows in given for row in rows]
    assert len(set(ids)) == len(ids) == 4 * 40 * 2
    assert searcher._live.numbers().tolist() == sorted([*range(N), *ids])
    assert searcher.size() == N + len(ids)

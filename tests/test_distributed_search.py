"""Searching an index in shards on workers: answers, workers that go, manifests that change."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import FORK, end_of, fork
from sharded import CONFIGS, check_equality, every_config, same, save, tree, vectors, wait_until

import swann
from swann import WorkerError
from swann.distributed import DistributedSearcher
from swann.distributed.metrics import Metrics
from swann.distributed.opening import open_shard
from swann.distributed.searching.fanout import Fanout, Pace
from swann.distributed.wire import Message
from swann.distributed.workers.placement import place
from swann.distributed.workers.pools import CONCURRENCY


def kill(searcher: DistributedSearcher, place: int = 0) -> None:
    """Kill a worker process as nothing can be refused."""
    members = searcher._fleet.members()
    os.kill(members[place % len(members)].handle.process.pid, signal.SIGKILL)


def made_fanout(searcher: DistributedSearcher, queries: Any) -> Fanout:
    """A search that has asked nobody yet."""
    generation = searcher._generation
    choices = generation.head.choose(queries, 10)
    limits = generation.limits.resolve(None, None, None)
    return Fanout(generation, queries, choices, limits, 1, Pace(), Metrics(), None)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, swann.Searcher]:
    folder = tmp_path_factory.mktemp("index")
    built = CONFIGS["soar"](vectors(3000)).build(docids=[f"d{i}" for i in range(3000)])
    return folder, save(folder, 4, built)


@pytest.mark.parametrize("name", CONFIGS)
def test_answers_are_those_of_one_machine(name: str, tmp_path: Path) -> None:
    built = CONFIGS[name](vectors(2000)).build()
    queries = vectors(64, seed=1)
    for shards in (1, 2, 4, 8, 16):
        save(tmp_path / str(shards), shards, built)
        with DistributedSearcher.open(
            tmp_path / str(shards), 1, workers=2, pool="local"
        ) as searcher:
            for limits in ((), (3, 30, 4), (40, 100, 40)):
                wanted = built.search_batched(queries, *limits)
                assert same(searcher.search_batched(queries, *limits), wanted)
                assert same(searcher.search_batched_parallel(queries, *limits), wanted)
            found = searcher.search(queries[0])
            assert same(found, built.search(queries[0]))
            assert found.coverage == 1.0


def test_processes_answer_as_one_machine(tmp_path: Path) -> None:
    check_equality(tmp_path, "process", list(every_config())[::16])  # all of them: on Ray


@FORK
def test_a_forked_child_does_not_take_its_parents_answers(
    index: tuple[Path, swann.Searcher],
) -> None:
    folder, built = index
    queries = vectors(2, seed=4)
    wanted = built.search(queries[0])
    with DistributedSearcher.open(folder, 1, workers=1) as searcher:

        def search() -> None:
            with pytest.raises(WorkerError, match="open it again"):
                searcher.search(queries[1])

        for _ in range(10):
            child = fork(search)
            assert same(searcher.search(queries[0]), wanted)
            assert end_of(child) == 0


@FORK
def test_a_forked_child_leaves_the_workers_to_its_parent(
    index: tuple[Path, swann.Searcher],
) -> None:
    folder, built = index
    query = vectors(1, seed=4)[0]
    with DistributedSearcher.open(folder, 1, workers=1) as searcher:

        def try_all() -> None:
            with searcher:
                for call in (
                    lambda: searcher.roll(folder),
                    lambda: searcher.add_workers(wait=0),
                    lambda: searcher.remove_workers(wait=0),
                ):
                    with pytest.raises(WorkerError):
                        call()

        assert end_of(fork(try_all)) == 0
        assert same(searcher.search(query), built.search(query))
        assert searcher.metrics().lost_workers == 0


def test_answers_of_processes(index: tuple[Path, swann.Searcher]) -> None:
    folder, built = index
    queries = vectors(500, seed=2)
    with DistributedSearcher.open(folder, 2, workers=2) as searcher:
        found = searcher.search_batched(queries)
        assert same(found, built.search_batched(queries))
        assert (found.coverage == 1).all()
        indices, _ = searcher.search(queries[0])
        assert indices.tolist() == built.search(queries[0]).indices.tolist()
        assert len(searcher) == 3000
        assert searcher.health()["ready_replicas"] == [2] * 4
        assert searcher.search_batched(queries[:0]).indices.shape == (0, 10)


def test_workers_import_from_where_their_parent_does(
    index: tuple[Path, swann.Searcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path(random.__file__).read_text()
    for folder in ("here", "path"):
        (tmp_path / folder).mkdir()
        note = f"open({str(tmp_path / f'{folder} ran')!r}, 'w').close()\n"
        (tmp_path / folder / "random.py").write_text(note + real)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "path")
    with DistributedSearcher.open(index[0], 1, workers=1) as searcher:
        assert searcher.search(vectors(1)[0]).coverage == 1
    assert (tmp_path / "path ran").exists()
    assert not (tmp_path / "here ran").exists()


def test_only_shards_that_own_leaves_are_asked(index: tuple[Path, swann.Searcher]) -> None:
    folder, _ = index
    with DistributedSearcher.open(folder, 1, workers=1, pool="local") as searcher:
        asked: list[list[int]] = []
        handle = searcher._fleet.members()[0].handle
        call = handle.call

        def watch(method: str, message: Any, done: Any) -> None:
            if method == "search":
                asked.append(message.fields["shards"])
            call(method, message, done)

        handle.call = watch  # type: ignore[method-assign]
        searcher.search(vectors(1)[0], leaves_to_search=1)
        searcher.search(vectors(1)[0], leaves_to_search=40)
    assert [len(shards) for shards in asked] == [1, 4]


def test_bad_arguments(index: tuple[Path, swann.Searcher], tmp_path: Path) -> None:
    folder, _ = index
    with DistributedSearcher.open(folder, 1, workers=1, pool="local") as searcher:
        with pytest.raises(swann.NonFiniteError, match="q"):
            searcher.search(np.full(16, np.nan, np.float32))
        with pytest.raises(swann.NonFiniteError, match="queries"):
            searcher.search_batched(np.full((2, 16), np.nan, np.float32))
        with pytest.raises(swann.ShapeError):
            searcher.search_batched(vectors(3, 5))
        with pytest.raises(swann.ConfigError, match="leaves_to_search"):
            searcher.search(vectors(1)[0], leaves_to_search=0)
        for neighbors in (10**8, 2**60, 2**63 - 1):
            with pytest.raises(swann.ConfigError, match="final_num_neighbors"):
                searcher.search_batched(vectors(2), neighbors)
            with pytest.raises(swann.ConfigError, match="final_num_neighbors"):
                searcher.search(vectors(1)[0], neighbors)
        with pytest.raises(swann.ReadOnlyError, match="mode='r'"):
            searcher.upsert("x", vectors(1)[0])
        health = searcher.health()
        assert health["complete"]
        assert not health["closed"]
    with pytest.raises(swann.ReadOnlyError, match="closed"):
        searcher.search(vectors(1)[0])
    with pytest.raises(swann.ReadOnlyError, match="closed"):
        searcher.roll(folder)
    health = searcher.health()
    assert health["closed"]
    assert not health["complete"]
    assert (health["workers"], health["workers_wanted"]) == ([], 0)
    assert not any(health["ready_replicas"])
    with pytest.raises(swann.IndexFormatError):
        DistributedSearcher.open(tmp_path)
    with pytest.raises(swann.ConfigError, match="pool"):
        DistributedSearcher.open(folder, pool="threads")  # type: ignore[arg-type]
    with pytest.raises(swann.ConfigError, match="deadline"):
        DistributedSearcher.open(folder, deadline=0)


def test_a_system_without_such_sockets_is_told_at_once(
    index: tuple[Path, swann.Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swann.distributed.searching.settings.SOCKETS", False)
    with pytest.raises(swann.ConfigError, match="expected pool='local'"):
        DistributedSearcher.open(index[0])
    DistributedSearcher.open(index[0], 1, workers=1, pool="local").close()


def test_workers_that_are_killed_are_not_noticed(index: tuple[Path, swann.Searcher]) -> None:
    folder, built = index
    queries = vectors(300, seed=3)
    wanted = built.search_batched(queries)
    with DistributedSearcher.open(folder, 2, workers=3, deadline=20) as searcher:
        for i, query in enumerate(queries):
            if i % 60 == 30:
                assert wait_until(lambda: searcher.health()["ready_replicas"] == [2] * 4)
                kill(searcher, i)
            found = searcher.search(query)
            assert found.coverage == 1.0
            assert found.indices.tolist() == wanted.indices[i].tolist()
            assert np.array_equal(found.distances, wanted.distances[i])
        assert wait_until(lambda: searcher.health()["ready_replicas"] == [2] * 4)
        assert searcher.metrics().lost_workers == 5


def test_a_worker_that_hangs_is_hedged(index: tuple[Path, swann.Searcher]) -> None:
    folder, built = index
    query = vectors(1, seed=4)[0]
    with DistributedSearcher.open(folder, 2, workers=2, deadline=20, hedge_after=0.05) as searcher:
        pid = searcher._fleet.members()[0].handle.process.pid  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(5):
                assert same(searcher.search(query), built.search(query))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert searcher.metrics().hedges > 0


def test_who_did_not_answer_is_not_asked_again(index: tuple[Path, swann.Searcher]) -> None:
    folder, built = index
    with DistributedSearcher.open(folder, 2, workers=2, pool="local", deadline=20) as searcher:
        refused: list[list[int]] = []
        handle = searcher._fleet.members()[0].handle
        call = handle.call

        def refuse(method: str, message: Any, done: Any) -> None:
            if method == "search":
                refused.append(message.fields["shards"])
                done(Message({"shards": []}, []))
            else:
                call(method, message, done)

        handle.call = refuse  # type: ignore[method-assign]
        for query in vectors(30, seed=8):
            before = len(refused)
            assert same(searcher.search(query), built.search(query))
            assert len(refused) <= before + 1
        assert refused


def test_the_least_busy_replica_is_asked_and_idle_ones_in_turns(
    index: tuple[Path, swann.Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    with DistributedSearcher.open(index[0], 2, workers=2, pool="local") as searcher:
        fanout = made_fanout(searcher, vectors(100, seed=6))
        asked: list[list[str]] = []
        monkeypatch.setattr(
            fanout, "_send", lambda replicas, _: asked.append([r.member.name for r in replicas])
        )
        every = [0, 1, 2, 3]
        assert sorted(fanout._dispatch(every, 0)) == every
        assert [len(names) for names in asked] == [2, 2]  # each has some of them to answer
        asked.clear()
        for _ in every:
            fanout._dispatch([2], 0)
        names = [name for (name,) in asked]
        assert names[0] != names[1]
        assert names == names[:2] * 2
        for busy, idle in itertools.permutations(searcher._fleet.members()):
            for searches, wanted in ((4, {idle.name}), (1, {idle.name, busy.name})):
                asked.clear()
                busy.running.update(range(searches))
                fanout._dispatch(every, 0)
                busy.running.clear()
                assert {name for names in asked for name in names} == wanted


def test_coverage_is_exact_where_a_shard_is_gone(index: tuple[Path, swann.Searcher]) -> None:
    folder, built = index
    queries = vectors(50, seed=5)
    with DistributedSearcher.open(folder, 1, workers=1, pool="local", deadline=0.2) as searcher:
        generation = searcher._generation
        with searcher._fleet._lock:  # nobody brings it back
            lost = 2
            kept, generation.ready[lost] = generation.ready[lost], ()
            began = time.monotonic()
            found = searcher.search_batched(queries)
            assert time.monotonic() - began < 2
            one = searcher.search(queries[7])
            searcher._querying.strict = True
            began = time.monotonic()
            with pytest.raises(swann.IncompleteError, match="coverage"):
                searcher.search_batched(queries)
            assert time.monotonic() - began < 2
            searcher._querying.strict = False
            generation.ready[lost] = kept
        choices = generation.head.choose(queries, 10)
        sizes = generation.sizes[choices.leaves]
        here = generation.owners[choices.leaves] != lost
        wanted = (sizes * here).sum(axis=1) / sizes.sum(axis=1)
        assert np.array_equal(found.coverage, wanted)
        assert one.coverage == wanted[7]
        assert 0 < wanted.min() < 1
        full = searcher.search_batched(queries)
        assert same(full, built.search_batched(queries))
        assert searcher.metrics().incomplete == (wanted < 1).sum() * 2 + (wanted[7] < 1)


def test_a_deadline_is_for_each_thousand_queries(index: tuple[Path, swann.Searcher]) -> None:
    with DistributedSearcher.open(
        index[0], 1, workers=1, pool="local", deadline=0.1, hedge_after=10
    ) as searcher:
        generation = searcher._generation
        with searcher._fleet._lock:  # nobody brings it back
            kept, generation.ready[2] = generation.ready[2], ()
            began = time.monotonic()
            found = searcher.search_batched(vectors(4000, seed=7))
            took = time.monotonic() - began
            generation.ready[2] = kept
        assert found.coverage.min() < 1
        assert took > 0.3


def test_nothing_is_lacking_of_leaves_that_are_empty(index: tuple[Path, swann.Searcher]) -> None:
    queries = vectors(5, seed=6)
    with DistributedSearcher.open(index[0], 1, workers=1, pool="local") as searcher:
        fanout = made_fanout(searcher, queries)
        sizes = np.zeros_like(searcher._generation.sizes)
        assert fanout.coverage(sizes).tolist() == [1.0] * 5  # though nobody was asked
        sizes[fanout._choices.leaves[2, 3]] = 7
        assert fanout.coverage(sizes)[2] == 0.0


def test_one_worker_stays_and_the_same_manifest_too(index: tuple[Path, swann.Searcher]) -> None:
    with DistributedSearcher.open(index[0], 1, workers=2, pool="local") as searcher:
        assert searcher.remove_workers(5)
        assert searcher.health()["workers_wanted"] == len(searcher.health()["workers"]) == 1
        generation = searcher._generation
        searcher.roll(index[0])
        assert searcher._generation is generation


def test_an_answer_is_late_beyond_what_answers_vary() -> None:
    pace = Pace()
    assert pace.late(1, 7.0) == 7.0  # nothing is known
    pace.note(1, 1.0)
    assert pace.late(1, 7.0) == 1.0 + 4 * 0.5
    assert pace.late(100, 7.0) == 7.0  # of other sizes
    for _ in range(200):
        pace.note(1, 1.0)
    assert pace.late(1, 7.0) == pytest.approx(1.0)
    for seconds in [0.5, 1.5] * 100:
        pace.note(1, seconds)
    assert pace.late(1, 7.0) == pytest.approx(1.0 + 4 * 0.5, rel=0.1)
    for _ in range(300):
        pace.note(1, 1e-5)
    assert 1e-3 < pace.late(1, 7.0) < 0.1  # who is quick is not asked twice at once


def test_workers_come_and_go_while_searches_go_on(index: tuple[Path, swann.Searcher]) -> None:
    folder, built = index
    queries = vectors(20, seed=6)
    wanted = built.search_batched(queries)
    with DistributedSearcher.open(folder, 2, workers=2, pool="local", deadline=20) as searcher:
        stop, wrong = threading.Event(), []

        def search() -> None:
            while not stop.is_set():
                found = searcher.search_batched(queries)
                if not same(found, wanted) or found.coverage.min() < 1:
                    wrong.append(found)

        thread = threading.Thread(target=search)
        thread.start()
        try:
            assert searcher.add_workers(3)
            assert len(searcher.health()["workers"]) == 5
            loads = [0] * 5
            for _, name in searcher._generation.replicas:
                loads[searcher.health()["workers"].index(name)] += 1
            assert max(loads) - min(loads) <= 1
            assert searcher.remove_workers(4)
            assert len(searcher.health()["workers"]) == 1
        finally:
            stop.set()
            thread.join()
        assert not wrong


def test_rolling_to_another_manifest(tmp_path: Path) -> None:
    queries = vectors(5, seed=7)
    built = [tree(vectors(1500, seed=s)).score_ah(2, 0.2).reorder(40).build() for s in (0, 1)]
    folders = [tmp_path / "a", tmp_path / "b"]
    for number, (folder, one) in enumerate(zip(folders, built, strict=True)):
        save(folder, 3 + number, one)
    wanted = [one.search_batched(queries) for one in built]
    with DistributedSearcher.open(folders[0], 2, workers=2, deadline=20) as searcher:
        stop, seen, wrong = threading.Event(), [0, 0], []

        def search() -> None:
            while not stop.is_set():
                found = searcher.search_batched(queries)
                fits = [same(found, answer) for answer in wanted]
                if sum(fits) != 1 or found.coverage.min() < 1:
                    wrong.append(found)
                else:
                    seen[fits.index(True)] += 1

        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(6):
                searcher.roll(folders[(turn + 1) % 2])
                assert same(searcher.search_batched(queries), wanted[(turn + 1) % 2])
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not wrong
        assert min(seen) > 0
        shards = searcher._fleet.members()[0].handle
        assert len(searcher._fleet._generations) == 1
        assert shards.alive


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    save(tmp_path, 2, tree(vectors(500)).score_brute_force().build())
    next(tmp_path.glob("rows-*")).write_bytes(b"nothing")
    with pytest.raises(swann.WorkerError, match=r"shards \[\d\].*damaged"):
        DistributedSearcher.open(tmp_path, 1, workers=1, pool="local", wait=1)


def test_one_index_takes_the_place_of_another(tmp_path: Path) -> None:
    first = tree(vectors(500)).score_brute_force().build()
    second = tree(vectors(500, seed=1)).score_brute_force().build()
    save(tmp_path, 2, first)
    query = vectors(1, seed=2)[0]
    with DistributedSearcher.open(tmp_path, 1, workers=1, pool="local") as searcher:
        assert same(searcher.search(query), first.search(query))
        save(tmp_path, 3, second)
        searcher.roll(tmp_path / "manifest.json")
        assert same(searcher.search(query), second.search(query))


def test_workers_that_open_slow_shards_stay_and_answer(
    index: tuple[Path, swann.Searcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swann.distributed.workers.fleet._SILENT", 0.5)
    monkeypatch.setattr("swann.distributed.workers.fleet._WATCH", 0.1)
    folder, built = index
    query = vectors(1, seed=9)[0]
    other = save(tmp_path, 8, tree(vectors(900)).score_brute_force().build())
    slow, lock = [0, 0], threading.Lock()

    def opens(*given: Any) -> Any:
        with lock:
            slow[0] += 1
            slow[1] = max(slow)
        time.sleep(1.0)
        with lock:
            slow[0] -= 1
        return open_shard(*given)

    with DistributedSearcher.open(folder, 1, workers=1, pool="local", deadline=20) as searcher:
        monkeypatch.setattr("swann.distributed.workers.worker.open_shard", opens)
        rolling = threading.Thread(target=searcher.roll, args=[tmp_path])
        rolling.start()
        try:
            assert wait_until(lambda: slow[0] > 0)
            assert same(searcher.search(query), built.search(query))
            assert slow[0] > 0
        finally:
            rolling.join()
        assert same(searcher.search(query), other.search(query))
        assert searcher.metrics().lost_workers == 0
    assert slow[1] == CONCURRENCY - 1


def test_shards_that_are_open_too_late_are_closed(
    index: tuple[Path, swann.Searcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = index
    save(tmp_path, 2, tree(vectors(900)).score_brute_force().build())
    go, opened = threading.Event(), []

    def opens(*given: Any) -> Any:
        go.wait(30)
        opened.append(open_shard(*given))
        return opened[-1]

    with DistributedSearcher.open(folder, 1, workers=1, pool="local", wait=0.5) as searcher:
        monkeypatch.setattr("swann.distributed.workers.worker.open_shard", opens)
        with pytest.raises(WorkerError, match="within"):
            searcher.roll(tmp_path)
        go.set()
        copies = searcher._fleet.members()[0].handle._worker._copies  # type: ignore[attr-defined]
        assert wait_until(lambda: len(opened) == 2)
        assert wait_until(lambda: {key for key, _ in list(copies)} == {searcher._generation.key})


def test_placement_moves_little() -> None:
    workers = [f"w{i}" for i in range(6)]
    before = place({}, 10, workers[:5], 2)
    assert all(len(names) == 2 for names in before.values())
    after = place(before, 10, workers, 2)
    moved = sum(len(after[s] - before[s]) for s in range(10))
    load = [sum(name in names for names in after.values()) for name in workers]
    assert max(load) - min(load) <= 1
    assert moved == min(load)
    assert place(before, 10, workers[:1], 2) == {s: {"w0"} for s in range(10)}
    assert place(before, 10, [], 2) == {s: set() for s in range(10)}

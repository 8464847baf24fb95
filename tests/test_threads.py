"""Many Python threads on one searcher, forks, and work cut short by an exception."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pipelines import PIPELINES, Pipeline, assert_same

import swann
from swann import NonFiniteError, Searcher

RNG = np.random.default_rng(0)
DB = RNG.standard_normal((3000, 16), dtype=np.float32)
QUERIES = RNG.standard_normal((300, 16), dtype=np.float32)


def build(pipeline: Pipeline) -> Searcher:
    searcher = pipeline.build(
        DB, k=10, tree={"num_leaves": 30, "num_leaves_to_search": 5}, reorder=50
    )
    searcher.num_threads = 3
    return searcher


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda p: p.name)
def test_many_threads_search_one_searcher(pipeline: Pipeline) -> None:
    searcher = build(pipeline)
    expected = searcher.search_batched(QUERIES)
    ready = threading.Barrier(12)

    def work(number: int) -> None:
        ready.wait()
        for _ in range(3):
            if number % 3 == 0:
                assert_same(searcher.search_batched(QUERIES), expected)
            elif number % 3 == 1:
                assert_same(searcher.search_batched_parallel(QUERIES), expected)
            else:
                for row in range(number, 300, 12):
                    found = searcher.search(QUERIES[row])
                    np.testing.assert_array_equal(found.indices, expected.indices[row])
                    np.testing.assert_array_equal(found.distances, expected.distances[row])

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(work, number) for number in range(12)]:
            future.result()


def test_building_and_searching_at_once() -> None:
    searcher = build(PIPELINES[0])
    expected = searcher.search_batched(QUERIES)
    with ThreadPoolExecutor(4) as pool:
        builds = [pool.submit(build, PIPELINES[0]) for _ in range(4)]
        for _ in range(10):
            assert_same(searcher.search_batched_parallel(QUERIES), expected)
        for future in builds:
            assert_same(future.result().search_batched(QUERIES), expected)


def test_a_search_releases_the_gil() -> None:
    """A thread that looks at the clock goes on doing so while one native call is under way."""
    searcher = build(PIPELINES[2])  # brute force, which takes a while
    queries = np.tile(QUERIES, (200, 1))
    ticks: list[float] = []
    running = threading.Event()

    def watch() -> None:
        running.set()
        while running.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    running.wait()
    start = time.perf_counter()
    searcher.search_batched(queries)
    end = time.perf_counter()
    running.clear()
    watcher.join()
    inside = np.array([start, *(tick for tick in ticks if start < tick < end), end])
    assert np.diff(inside).max() < 0.5 * (end - start)


def test_the_searcher_stays_after_an_error() -> None:
    searcher = build(PIPELINES[0])
    expected = searcher.search_batched(QUERIES)
    bad = QUERIES.copy()
    bad[299, 3] = np.nan
    for _ in range(3):
        with pytest.raises(NonFiniteError):
            searcher.search_batched_parallel(bad)
        assert_same(searcher.search_batched_parallel(QUERIES), expected)


def test_an_exception_of_progress_ends_the_build() -> None:
    class StopHere(Exception):
        pass

    builder = swann.builder(DB, 5, "dot_product").tree(10, 2).score_ah(2)
    for stage in ("check", "tree", "assign", "codebook", "encode"):

        def stop(now: str, done: int, total: int, stage: str = stage) -> None:
            if now == stage:
                raise StopHere

        with pytest.raises(StopHere):
            builder.build(progress=stop)
    assert len(builder.build()) == len(DB)


FORK = """
import os, signal
import numpy as np
import swann

rng = np.random.default_rng(0)
db = rng.standard_normal((2000, 8), dtype=np.float32)
queries = rng.standard_normal((600, 8), dtype=np.float32)
builder = swann.builder(db, 5, "dot_product").tree(10, 3).score_ah(2).reorder(20)
searcher = builder.build()
searcher.num_threads = 4
expected = searcher.search_batched_parallel(queries).indices
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs is ended, and seen
        found = searcher.search_batched_parallel(queries).indices
        again = builder.build().search_batched(queries).indices
        grandchild = os.fork()
        if grandchild == 0:
            signal.alarm(30)
            same = searcher.search_batched_parallel(queries).indices
            os._exit(0 if np.array_equal(same, expected) else 3)
        _, status = os.waitpid(grandchild, 0)
        good = np.array_equal(found, expected) and np.array_equal(again, expected)
        os._exit(os.waitstatus_to_exitcode(status) if good else 4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    assert np.array_equal(searcher.search_batched_parallel(queries).indices, expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_searches_and_builds_with_threads() -> None:
    # From Python 3.12 on, forking a process with threads warns: here that is the point.
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=120)


FORK_WHILE_CHANGING = """
import os, signal, threading
import numpy as np, swann

db = np.random.default_rng(0).standard_normal((2000, 16), dtype=np.float32)
searcher = swann.builder(db, 5, "squared_l2").tree(20, 8).score_ah(2).reorder(50).build()
stop = threading.Event()

def change():
    while not stop.is_set():
        searcher.delete(searcher.upsert(None, db))

thread = threading.Thread(target=change)
thread.start()
statuses = []
for _ in range(80):
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # a child that hangs is ended, and seen
        searcher.search(db[0])
        searcher.search_batched_parallel(db[:300])
        os._exit(0 if len(searcher) in (2000, 4000) else 3)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    if statuses[-1] != 0:
        break
stop.set()
thread.join()
assert set(statuses) == {0}, statuses
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_during_a_change_searches() -> None:
    """The change is there as a whole or not at all, and nothing that it locked stays locked."""
    script = [sys.executable, "-W", "ignore", "-c", FORK_WHILE_CHANGING]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "searcher.search(db[0])",
        "searcher.search_batched_parallel(db)",
        "searcher.upsert([0, 1], db[:2])",
        "builder.build()",
    ],
)
def test_a_process_ends_while_a_daemon_thread_works(call: str) -> None:
    """Up to Python 3.13 a thread that comes back to an interpreter that has ended is unwound."""
    script = f"""
import threading, time
import numpy as np, swann

db = np.random.default_rng(0).standard_normal((5000, 32), dtype=np.float32)
builder = swann.builder(db, 5, "dot_product").tree(50, 5).score_brute_force()
searcher = builder.build()
begun = threading.Event()

def work():
    while True:
        {call}
        begun.set()

threading.Thread(target=work, daemon=True).start()
begun.wait()
time.sleep(0.05)
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [2**40, 2**61, 2**62, 2**63 - 1])
def test_any_number_of_threads_may_be_asked_for(threads: int) -> None:
    """In a process of its own: numbers that overflow once divided by zero."""
    script = f"""
import numpy as np
import swann

db = np.random.default_rng(0).standard_normal((90, 4), dtype=np.float32)
builder = swann.builder(db, 5, "squared_l2").tree(4, 2).score_ah(2).reorder(20)
searcher = builder.set_n_training_threads({threads}).build()
expected = searcher.search_batched(db)
searcher.set_num_threads({threads})
found = searcher.search_batched_parallel(db)
np.testing.assert_array_equal(found.indices, expected.indices)
swann.exact_neighbors(db, db, 5, "squared_l2", num_threads={threads})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

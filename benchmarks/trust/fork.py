"""A process forks while its threads search: parent and child go on."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings

import numpy as np

import swann
from benchmarks.trust.experiment import Experiment, Options, Report

_N, _D = 4_000, 8
_PATIENCE = 20.0  # seconds that a child may take


def _child(searcher: swann.Searcher, queries: np.ndarray, expected: bytes, i: int) -> int:
    """Search and change the index as nobody forked; return 0 if all is well."""
    found = searcher.search_batched_parallel(queries)
    if found.indices.tobytes() + found.distances.tobytes() != expected:
        return 1
    made = searcher.upsert(None, queries[:1] + np.float32(100))
    if searcher.search(queries[0] + np.float32(100), 1).indices[0] != made[0]:
        return 2
    if i % 10 == 0:
        searcher.rebalance()
        if searcher.search(queries[0] + np.float32(100), 1).indices[0] != made[0]:
            return 3
    return 0


def _wait(child: int) -> str:
    """Return what became of a child; nothing if all is well."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "" if status == 0 else f"status {status}"
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hang"


def run(options: Options) -> Report:
    """Fork so often, while another thread searches on all of the pool's threads."""
    rng = np.random.default_rng(options.seed)
    db = rng.standard_normal((_N, _D), np.float32)
    queries = rng.standard_normal((300, _D), np.float32)
    builder = swann.builder(db, 5, "squared_l2").tree(40, 8).score_ah(2).reorder(50)
    searcher = builder.set_n_training_threads(2).build()
    searcher.num_threads = 4
    found = searcher.search_batched_parallel(queries)
    expected = found.indices.tobytes() + found.distances.tobytes()
    stop = threading.Event()
    searched = 0

    def search() -> None:
        nonlocal searched
        while not stop.is_set():
            searcher.search_batched_parallel(queries)
            searched += 1

    busy = threading.Thread(target=search)
    busy.start()
    failures: list[str] = []
    try:
        for i in range(options.n):
            time.sleep(float(rng.random()) * 0.002)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
                child = os.fork()
            if child == 0:
                status = 9
                try:
                    status = _child(searcher, queries, expected, i)
                finally:
                    os._exit(status)
            told = _wait(child)
            if told:
                failures.append(f"fork {i}: {told}")
    finally:
        stop.set()
        busy.join()
    return Report({"forks": options.n, "searches meanwhile": searched}, failures)


EXPERIMENT = Experiment("fork", "fork while threads search", 20, 500, run)

"""Ctrl-C at random moments: heard soon, and nothing is damaged."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import swann
from benchmarks.trust.experiment import Experiment, Options, Report
from swann import Searcher

_N, _D = 8_000, 16
_SOON = 0.2  # seconds of CPU time from the signal to the exception
_RNG = np.random.default_rng(7)
_DB = _RNG.standard_normal((_N, _D)).astype(np.float32)
_QUERIES = _RNG.standard_normal((20_000, _D)).astype(np.float32)


def _build() -> Searcher:
    builder = swann.builder(_DB, 5, "dot_product").tree(80, 8, soar_lambda=1.0)
    return builder.score_ah(2, 0.2).reorder(50).set_n_training_threads(1).build()


def _answers(searcher: Searcher) -> bytes:
    found = searcher.search_batched(_QUERIES[:20], leaves_to_search=80)
    return found.indices.tobytes() + found.distances.tobytes()


class _Interrupted:
    """What is interrupted, on a copy of one index each time, and what may be there afterwards."""

    def __init__(self, folder: Path) -> None:
        self.start = _build()
        self.start.num_threads = 1
        self.start.upsert(None, _DB[:500] + np.float32(0.1))
        self.folder = folder
        self.searcher = copy.deepcopy(self.start)
        self.calls: dict[str, Callable[[], Any]] = {
            "build": _build,
            "batch": lambda: self.searcher.search_batched(_QUERIES),
            "upsert": lambda: self.searcher.upsert(None, _QUERIES[:5000]),
            "rebalance": lambda: self.searcher.rebalance(),
            "save": lambda: self.searcher.save(self.folder / "index"),
        }
        self.before = _answers(self.start)
        self.after: dict[str, bytes] = {}
        self.seconds: dict[str, float] = {}
        for name, call in self.calls.items():
            self.searcher = copy.deepcopy(self.start)
            begin = time.perf_counter()
            call()
            self.seconds[name] = time.perf_counter() - begin
            self.after[name] = _answers(self.searcher)
        self.saved = _answers(swann.load(folder / "index", verify="full"))

    def interrupt(self, name: str, delay: float) -> float | None:
        """Interrupt a call; return the CPU time until it ended, None if it was over before."""
        self.searcher = copy.deepcopy(self.start)
        sent: list[float] = []
        over: list[float] = []

        def send() -> None:
            time.sleep(delay)
            sent.append(time.process_time())
            os.kill(os.getpid(), signal.SIGINT)

        sender = threading.Thread(target=send)
        try:
            sender.start()
            self.calls[name]()
            over.append(time.process_time())
            sender.join()
            while True:
                time.sleep(0.1)
        except KeyboardInterrupt:
            heard = time.process_time()
        sender.join()
        return None if over and over[0] < sent[0] else heard - sent[0]

    def wrong(self, name: str) -> str:
        """Say what is wrong with the index now; nothing, if all is well."""
        if _answers(self.searcher) not in (self.before, self.after[name]):
            return "neither the index before nor after"
        if name == "save":
            if _answers(swann.load(self.folder / "index", verify="full")) != self.saved:
                return "the saved index is another"
            if list(self.folder.glob("index/.*.tmp")):
                return "temporary files are left"
        made = self.searcher.upsert(None, _DB[:1] + np.float32(9))
        self.searcher.delete(made)
        return ""


def run(options: Options) -> Report:
    """Interrupt each of the calls in turn."""
    rng = Random(options.seed)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        return _run(options, rng)
    finally:
        signal.signal(signal.SIGINT, before)


def _run(options: Options, rng: Random) -> Report:
    state = _Interrupted(options.folder)
    heard: dict[str, list[float]] = {name: [] for name in state.calls}
    failures: list[str] = []
    for i in range(options.n):
        name = list(state.calls)[i % len(state.calls)]
        seconds = state.interrupt(name, rng.random() * state.seconds[name])
        if seconds is not None:
            heard[name].append(seconds)
            if seconds > _SOON:
                failures.append(f"{i}: {name} went on for {seconds:.3f} s")
        if told := state.wrong(name):
            failures.append(f"{i}: {name}: {told}")
    figures = {
        "interrupts": options.n,
        "heard during the call": {name: len(times) for name, times in heard.items()},
        "longest, CPU ms": {n: round(1e3 * max(t, default=0), 1) for n, t in heard.items()},
    }
    return Report(figures, failures)


EXPERIMENT = Experiment("interrupt", "Ctrl-C at random moments", 20, 500, run)

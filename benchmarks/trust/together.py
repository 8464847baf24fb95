"""Readers, writers, rebalances and saves at the same time: every answer is of a committed state.

Each writer owns some docids that all lie at one place, and moves them on together, one version a
call. A reader finds all of them at the place of one version, which is no older than the last one
acknowledged before its search, and no newer than the last one begun when it had ended.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import swann
from benchmarks.trust.experiment import Experiment, Options, Report
from swann import Searcher, SearchResult

_READERS, _WRITERS = 16, 2
_SLOTS = 6  # docids of a writer
_STILL, _D = 300, 6
_PLACES = 2000  # versions before places come again; their squares are exact in float32
_FAR = np.float32(1e4)  # from one writer's places to the other's


class _Together:
    def __init__(self, folder: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.folder = folder
        self.errors: list[str] = []
        self.done: Counter[str] = Counter()
        self.stop = threading.Event()
        self.begun, self.committed = [0] * _WRITERS, [0] * _WRITERS
        self.docids = [[f"w{w}-{slot}" for slot in range(_SLOTS)] for w in range(_WRITERS)]
        self.origins = np.zeros((_WRITERS, _D), np.float32)
        self.origins[:, 1] = _FAR * np.arange(1, _WRITERS + 1)
        still = rng.standard_normal((_STILL, _D), np.float32)
        moving = np.concatenate([self.place(w, 0) for w in range(_WRITERS)])
        builder = swann.builder(np.concatenate([still, moving]), _SLOTS, "squared_l2")
        builder.tree(6, 6, min_partition_size=1).score_ah(2).reorder(10_000)
        names = [f"still {i}" for i in range(_STILL)]
        self.searcher = builder.build(docids=names + [d for ids in self.docids for d in ids])

    def place(self, writer: int, version: int) -> np.ndarray:
        """Return the rows of a writer's version: nothing in them rounds."""
        rows = np.tile(self.origins[writer], (_SLOTS, 1))
        rows[:, 0] = version % _PLACES
        return rows

    def check(self, found: SearchResult, lows: list[int], highs: list[int]) -> None:
        """Compare the answers for all origins with what may have been there."""
        for w in range(_WRITERS):
            if sorted(found.indices[w].tolist()) != self.docids[w]:
                raise ValueError(f"writer {w}: found {found.indices[w].tolist()}")
            distances = set(found.distances[w].tolist())
            if len(distances) != 1:
                raise ValueError(f"writer {w}: two versions in one answer: {distances}")
            seen = round(distances.pop() ** 0.5)
            if (seen - lows[w]) % _PLACES > highs[w] - lows[w]:
                raise ValueError(f"writer {w}: version {seen}, not from {lows[w]} to {highs[w]}")

    def read(self, reader: int) -> None:
        lows = list(self.committed)
        search = self.searcher.search_batched
        if reader % 4 == 1:
            search = self.searcher.search_batched_parallel
        found = search(self.origins, _SLOTS, leaves_to_search=10_000)
        self.check(found, lows, list(self.begun))

    def write(self, writer: int) -> None:
        version = self.begun[writer] = self.begun[writer] + 1
        ids = self.docids[writer]
        self.searcher.upsert(ids[:: 1 - 2 * (version % 2)], self.place(writer, version))
        self.committed[writer] = version
        if version % 5 == 0:  # others come and go, too
            extra = [f"extra {writer}-{i}" for i in range(20)]
            self.searcher.upsert(extra, -self.place(writer, version)[0] - np.ones((20, _D)))
            self.searcher.delete(extra)

    def save(self, _: int) -> None:
        lows = list(self.committed)
        self.searcher.save(self.folder / "index")
        highs = list(self.begun)
        kept: Searcher = swann.load(self.folder / "index", verify="full")
        self.check(kept.search_batched(self.origins, _SLOTS, leaves_to_search=10_000), lows, highs)
        self.stop.wait(0.05)

    def rebalance(self, _: int) -> None:
        self.searcher.rebalance()
        self.stop.wait(0.05)

    def loop(self, name: str, task: Callable[[int], None], number: int) -> None:
        try:
            while not self.stop.is_set():
                task(number)
                self.done[name] += 1
        except BaseException as error:
            self.errors.append(f"{name}: {error!r}")
            self.stop.set()

    def run(self, seconds: float) -> None:
        tasks: list[tuple[str, Callable[[int], None], int]]
        tasks = [("searches", self.read, i) for i in range(_READERS)]
        tasks += [("writes", self.write, i) for i in range(_WRITERS)]
        tasks += [("rebalances", self.rebalance, 0), ("saves", self.save, 0)]
        threads = [threading.Thread(target=self.loop, args=task) for task in tasks]
        for thread in threads:
            thread.start()
        self.stop.wait(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()


def run(options: Options) -> Report:
    """Let all of them go on for `options.n` seconds."""
    together = _Together(options.folder, options.seed)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    begin = time.monotonic()
    try:
        together.run(options.n)
    finally:
        sys.setswitchinterval(before)
    figures = {"seconds": round(time.monotonic() - begin, 1), **together.done}
    return Report(figures, together.errors)


EXPERIMENT = Experiment("together", "16 readers, 2 writers, rebalances, saves", 5, 600, run)

"""What the workers do while allocations fail."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import swann
from benchmarks.trust.worker import Subject
from swann import Searcher

_N, _D = 400, 8
_RNG = np.random.default_rng(3)
_DB = _RNG.standard_normal((_N, _D)).astype(np.float32)
_QUERIES = _RNG.standard_normal((40, _D)).astype(np.float32)
_NAMES = [f"n{i}" for i in range(_N)]
CALLS = ("build", "search", "batch", "parallel", "upsert", "delete", "rebalance", "save", "load")


def _build() -> Searcher:
    builder = swann.builder(_DB, 5, "squared_l2").tree(8, 4, min_partition_size=1)
    return builder.score_ah(2).reorder(50).set_n_training_threads(2).build(docids=_NAMES)


def _answers(searcher: Searcher) -> Any:
    found = searcher.search_batched(_QUERIES)
    return found.indices.tolist(), found.distances.tobytes()


def _native_code() -> tuple[int, int]:
    """Return between which addresses the native module is."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if "swann/_native" in line]
    return int(spans[0][0], 16), int(spans[-1][1], 16)


class Failing(Subject):
    """Case i is call ``i % len(CALLS)``; then the n-th allocation fails, or all from there on."""

    allowed = dict.fromkeys(CALLS, frozenset(("memory", "same")))
    margin = 4 << 30

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir()
        self.path = folder / "index"
        process = ctypes.CDLL(None)
        process.fail_within.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
        process.fail_within(*_native_code())
        self.fail = process.fail_allocation
        self.fail.argtypes, self.fail.restype = (ctypes.c_long, ctypes.c_int), ctypes.c_long
        self.start = _build()
        self.start.num_threads = 2
        self.start.upsert(["n1", "x"], _DB[:2] + 1)
        self.start.save(self.path)
        self.whole = _answers(self.start)
        self.after: dict[str, Any] = {}
        for name in CALLS:
            self.searcher = copy.deepcopy(self.start)
            self.calls()[name]()
            self.after[name] = _answers(self.searcher)

    def calls(self) -> dict[str, Callable[[], Any]]:
        """Return what is tried, on the present copy."""
        s = self.searcher
        calls = (
            _build,
            lambda: s.search(_QUERIES[0]),
            lambda: s.search_batched(_QUERIES),
            lambda: s.search_batched_parallel(_QUERIES),
            lambda: s.upsert(["n2", "y"], _DB[:2] + 2),
            lambda: s.delete(["n3", "n4"]),
            lambda: s.rebalance(),
            lambda: s.save(self.path),
            lambda: swann.load(self.path, verify="full").search(_QUERIES[0]),
        )
        return dict(zip(CALLS, calls, strict=True))

    def run(self, number: int) -> tuple[str, str, str]:
        """Let an allocation of a call fail; look at what is left."""
        name, turn = CALLS[number % len(CALLS)], number // len(CALLS)
        nth, others = turn // 2, turn % 2
        what = f"{name}, allocation {nth}{' and all others' * others}"
        self.searcher = copy.deepcopy(self.start)
        call = self.calls()[name]
        error: BaseException | None = None
        self.fail(nth, others)
        try:
            call()
        except BaseException as raised:
            error = raised
        failed = self.fail(-1, 0)
        if error is not None and not isinstance(error, MemoryError):
            return name, "untyped", f"{what}: {error!r}"
        if error is not None and not failed:
            return name, "untyped", f"{what}: MemoryError though nothing failed"
        if _answers(self.searcher) not in (self.whole, self.after[name]):
            return name, "different", what
        saved = _answers(swann.load(self.path, verify="full"))
        if saved != self.whole:
            return name, "different", f"{what}: saved"
        if _answers(self.searcher) == self.whole:
            call()  # and it works now
        if _answers(self.searcher) != self.after[name]:
            return name, "different", f"{what}: tried again"
        return name, "same" if error is None else "memory", what


def subject(argument: str, folder: Path, seed: int) -> Subject:
    """Return the subject."""
    return Failing(folder, seed)

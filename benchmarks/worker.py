"""The process a system runs in, started with its environment's Python.

Reads one JSON request a line from standard input and answers each with one JSON line. Only NumPy
and the system itself are imported here, and nothing else runs while it measures.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks import systems
from benchmarks.exact import recall

K = 10
AGREE = 100  # queries whose answers are compared between the two modes


class Worker:
    """Answers requests for one system on one data set."""

    def __init__(self, system: str, threads: int, data: str) -> None:
        self.system = systems.find(system)
        self.threads = threads
        self.data = Path(data)
        sample = self.data / "sample.npy"
        self.system.sample = sample if sample.exists() else None
        self.test = np.load(self.data / "test.npy")
        self.neighbors = np.load(self.data / "neighbors.npy")[:, :K]
        self.indices: dict[str, Any] = {}

    def idle(self) -> dict[str, str]:
        """Say why there is nothing to measure on this machine, if so."""
        return {"reason": self.system.idle()}

    def level(self) -> dict[str, str]:
        """Name the instruction set in use, where the system tells."""
        return {"level": self.system.level()}

    def versions(self) -> dict[str, str]:
        """Version of every distribution the system requires; a source tree has none."""
        required = [re.split(r"[<>=!~\[]", r)[0] for r in self.system.requirements]
        names = ["swann" if name == "{root}" else name for name in required]
        return {name: _version(name) for name in names}

    def build(self, settings: dict[str, Any], measure: str, into: str) -> dict[str, float]:
        """Build and save an index; ask a fresh process, for the memory to mean something."""
        train = np.load(self.data / "train.npy")
        importlib.import_module(self.system.module)
        before = _reset_peak()
        cpu, start = time.process_time(), time.perf_counter()
        index = self.system.build(train, measure, settings, self.threads)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        extra = _status("VmHWM") - before
        self.system.save(index, Path(into))
        disk = sum(f.stat().st_size for f in Path(into).rglob("*") if f.is_file())
        return {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "vector_bytes": train.nbytes,
            "extra_bytes": extra,
            "disk_bytes": disk,
        }

    def open(self, key: str, folder: str, settings: dict[str, Any]) -> dict[str, float]:
        """Load a saved index and keep it under this key."""
        start = time.perf_counter()
        train = self.data / "train.npy"
        index = self.system.load(Path(folder), train, settings, self.threads)
        seconds = time.perf_counter() - start
        self.indices[key] = index
        return {"seconds": seconds, "bytes": self.system.resident(index, Path(folder))}

    def warm(self, key: str, settings: dict[str, Any], queries: int) -> dict[str, float]:
        """Answer queries untimed: the pages of a memory-mapped index come in on first touch."""
        self.system.search(self.indices[key], K, settings, self.threads).batch(self.test[:queries])
        return {}

    def one(self, key: str, settings: dict[str, Any], queries: int) -> dict[str, float]:
        """Time queries one call at a time."""
        ask = self.system.search(self.indices[key], K, settings, self.threads).one
        rows = list(self.test[:queries])
        for row in rows[:50]:
            ask(row)
        gc.collect()
        cpu, start = time.process_time(), time.perf_counter()
        for row in rows:
            ask(row)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {"qps": len(rows) / seconds, "cpu": cpu / seconds}

    def latency(
        self, key: str, settings: dict[str, Any], queries: int, clock: str
    ) -> dict[str, float]:
        """Time each query by itself: quantiles, in microseconds."""
        ask = self.system.search(self.indices[key], K, settings, self.threads).one
        now = time.perf_counter_ns if clock == "wall" else time.process_time_ns
        rows = list(self.test[:queries])
        for row in rows[:50]:
            ask(row)
        taken = np.empty(len(rows))
        gc.collect()
        for i, row in enumerate(rows):
            start = now()
            ask(row)
            taken[i] = now() - start
        return {f"p{q}": float(np.percentile(taken, q)) / 1000 for q in (50, 99)}

    def batch(self, key: str, settings: dict[str, Any], queries: int) -> dict[str, float]:
        """Time queries in one call."""
        ask = self.system.search(self.indices[key], K, settings, self.threads).batch
        rows = self.test[:queries]
        ask(rows[:64])
        gc.collect()
        cpu, start = time.process_time(), time.perf_counter()
        found = ask(rows)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {
            "qps": len(rows) / seconds,
            "cpu": cpu / seconds,
            "recall": recall(np.asarray(found).astype(np.int64), self.neighbors, K),
        }

    def recall(self, key: str, settings: dict[str, Any], true: int) -> dict[str, float]:
        """Recall true@10 over all queries, without timing."""
        ask = self.system.search(self.indices[key], K, settings, self.threads).batch
        found = np.asarray(ask(self.test)).astype(np.int64)
        return {"recall": recall(found, self.neighbors, true)}

    def agree(self, key: str, settings: dict[str, Any]) -> dict[str, float]:
        """Share of equal ids between the answers to single queries and to a batch of them."""
        search = self.system.search(self.indices[key], K, settings, self.threads)
        rows = self.test[:AGREE]
        found = np.asarray(search.batch(rows)).astype(np.int64)
        same = [len(np.intersect1d(search.one(q), f)) / K for q, f in zip(rows, found, strict=True)]
        return {"agree": float(np.mean(same))}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of the source tree"


def _status(field: str) -> int:
    """Bytes that /proc says this process has (VmRSS) or had at most (VmHWM)."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) * 1024


def _reset_peak() -> int:
    """Start the peak memory anew; return what the process has now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _limit_cpus(threads: int) -> None:
    # Some libraries keep pools as wide as the machine whatever they are told; this binds them all.
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[-threads:])


def serve(worker: Worker, answers: TextIO) -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Run as ``python -m benchmarks.worker SYSTEM THREADS DATA_FOLDER``."""
    system, threads, data = sys.argv[1:4]
    _limit_cpus(int(threads))
    # Libraries print as they like: their standard output becomes standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(Worker(system, int(threads), data), answers)


if __name__ == "__main__":
    main()

"""What tests of distributed searches share: indexes in shards, and file systems with faults."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import swann
from swann.index.sharded import save_sharded


def vectors(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def tree(db: np.ndarray, measure: str = "dot_product", **settings: Any) -> swann.Builder:
    return swann.builder(db, 10, measure).tree(40, 10, **settings)


CONFIGS: dict[str, Callable[[np.ndarray], swann.Builder]] = {
    "dot": lambda db: tree(db).score_ah(2, 0.2).reorder(60),
    "cosine": lambda db: tree(db, "cosine").score_ah(2, 0.2).reorder(60),
    "l2": lambda db: tree(db, "squared_l2").score_ah(2).reorder(60),
    "soar": lambda db: tree(db, soar_lambda=1.0).score_ah(2, 0.2).reorder(60),
    "no reorder": lambda db: tree(db, "squared_l2").score_ah(2),
    "soar, no reorder": lambda db: tree(db, soar_lambda=1.5).score_ah(2, 0.2),
    "brute force": lambda db: tree(db, "cosine").score_brute_force(),
    "int8": lambda db: tree(db).score_ah(2, 0.2).reorder(60, quantize=True),
    "bf16": lambda db: (
        tree(db, "squared_l2").score_ah(2).reorder(60, quantize=swann.ReorderType.BFLOAT16)
    ),
    "pca": lambda db: tree(db).score_ah(2, 0.2).reorder(60).pca(8),
}


def save(folder: Path, shards: int, searcher: swann.Searcher) -> swann.Searcher:
    """Write an index in shards; return it as it is on one machine."""
    save_sharded(searcher._live.state(), folder, shards)
    return searcher


def same(found: Any, wanted: Any) -> bool:
    return np.array_equal(found.indices, wanted.indices) and np.array_equal(
        found.distances, wanted.distances, equal_nan=True
    )


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Faults:
    """Decides what goes wrong with a read, and counts it."""

    def __init__(self, rate: float, seed: int = 0) -> None:
        self.rate = rate
        self.count = 0
        self.stale: dict[str, bytes] = {}
        self._random, self._lock = random.Random(seed), threading.Lock()

    def spoil(self, path: str, data: bytes) -> bytes:
        with self._lock:
            if self._random.random() >= self.rate:
                return data
            self.count += 1
            kind = self._random.choice(["fail", "truncate", "stale", "flip", "longer"])
            place = self._random.randrange(max(1, len(data)))
        if kind == "fail":
            raise OSError(f"connection reset while reading {path}")
        if kind == "truncate":
            return data[:place]
        if kind == "stale":
            return self.stale.get(path.rsplit("/", 1)[-1], bytes(len(data)))
        if kind == "longer":
            return data + b"\0"
        return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]

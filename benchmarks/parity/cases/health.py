"""Health figures: what they are, and that updates keep them true."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.parity.case import Answer, Case, Lib
from benchmarks.parity.small import PIPELINES, QUERIES, N, build, named

KEYS = [
    "avg_quantization_error",
    "partition_weighted_avg_relative_imbalance",
    "partition_avg_relative_positive_imbalance",
    "sum_partition_sizes",
]


def _shown(stats: dict[str, float]) -> str:
    return ", ".join(f"{value:.4g}" for value in stats.values())


def _same(a: dict[str, float], b: dict[str, float]) -> bool:
    return all(np.isclose(a[key], b[key], rtol=1e-6, atol=1e-9) for key in KEYS)


def _case(pipeline: str, entries: int = 1) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        searcher = build(lib, PIPELINES[pipeline], docids=named())
        built = searcher.get_health_stats()
        seen = Answer(says=_shown(built))
        seen.check(list(built) == KEYS, f"keys {list(built)}")
        searcher.initialize_health_stats()
        seen.check(_same(built, searcher.get_health_stats()), "not the same when initialized")
        full = built["sum_partition_sizes"]
        seen.check(N <= full <= entries * N, f"sum_partition_sizes {full}")
        for i in range(60):
            searcher.upsert(f"new{i}", QUERIES[i] * 2)
        searcher.upsert("d3", QUERIES[70])
        searcher.delete("new7")
        kept = searcher.get_health_stats()
        searcher.initialize_health_stats()
        anew = searcher.get_health_stats()
        difference = f"kept {_shown(kept)}; measured anew {_shown(anew)}"
        return seen.check(_same(kept, anew), difference)

    return Case(f"health/{pipeline}", run, deadly=True)


def without_a_tree(lib: Lib, cut: Any) -> Answer:
    """Nothing is partitioned, and no error."""
    searcher = build(lib, PIPELINES["brute force"], docids=named())
    searcher.initialize_health_stats()
    stats = searcher.get_health_stats()
    return Answer(says=_shown(stats)).check(list(stats) == KEYS, f"keys {list(stats)}")


CASES = [
    *(_case(name) for name in ("tree brute force", "tree AH reorder", "tree AH reorder int8")),
    _case("SOAR AH reorder", entries=2),
    Case("health/without a tree", without_a_tree),
]

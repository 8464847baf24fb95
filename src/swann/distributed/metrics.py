"""What a searcher counts while it answers."""

from __future__ import annotations

import bisect
import threading
from typing import Any

__all__ = ["Metrics"]

BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Milliseconds: upper ends of the histogram's classes; what is longer has a class of its own."""


class Metrics:
    """Counts since a searcher was opened.

    Attributes
    ----------
    calls, queries : int
        Calls of search methods, and the queries in them.
    incomplete : int
        Queries whose answer did not cover all that they visit.
    hedges, failovers : int
        Shards asked a second time because the answer was late, or because it did not come.
    lost_workers, failed_opens : int
        Workers that went, and shards that could not be opened or changed at first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = self.queries = self.incomplete = 0
        self.hedges = self.failovers = self.lost_workers = self.failed_opens = 0
        self.seconds = 0.0
        self.coverage = 0.0  # summed over queries
        self.histogram = [0] * (len(BOUNDS) + 1)

    def answered(self, queries: int, seconds: float, coverage: float, incomplete: int) -> None:
        """Count a call: its queries, their summed coverage, how many were not complete."""
        with self._lock:
            self.calls += 1
            self.queries += queries
            self.seconds += seconds
            self.coverage += coverage
            self.incomplete += incomplete
            self.histogram[bisect.bisect_left(BOUNDS, 1e3 * seconds)] += 1

    def asked_again(self, hedges: int = 0, failovers: int = 0) -> None:
        """Count shards that are asked once more."""
        with self._lock:
            self.hedges += hedges
            self.failovers += failovers

    def figures(self) -> dict[str, Any]:
        """Return them all; ``latency_ms`` holds the calls up to each number of milliseconds."""
        with self._lock:
            total, running = 0, {}
            for bound, count in zip([*BOUNDS, "inf"], self.histogram, strict=True):
                total += count
                running[str(bound)] = total
            return {
                "calls": self.calls,
                "queries": self.queries,
                "incomplete": self.incomplete,
                "hedges": self.hedges,
                "failovers": self.failovers,
                "lost_workers": self.lost_workers,
                "failed_opens": self.failed_opens,
                "seconds": self.seconds,
                "mean_coverage": self.coverage / self.queries if self.queries else 1.0,
                "latency_ms": running,
            }

    def prometheus(self) -> str:
        """Return them in the text format that Prometheus reads."""
        figures = self.figures()
        lines = []
        for name in (
            "calls",
            "queries",
            "incomplete",
            "hedges",
            "failovers",
            "lost_workers",
            "failed_opens",
        ):
            lines += [f"# TYPE swann_{name}_total counter", f"swann_{name}_total {figures[name]}"]
        lines += ["# TYPE swann_mean_coverage gauge"]
        lines += [f"swann_mean_coverage {figures['mean_coverage']:.6f}"]
        lines += ["# TYPE swann_latency_seconds histogram"]
        for bound, count in figures["latency_ms"].items():
            end = "+Inf" if bound == "inf" else f"{int(bound) / 1e3:g}"
            lines.append(f'swann_latency_seconds_bucket{{le="{end}"}} {count}')
        lines.append(f"swann_latency_seconds_sum {figures['seconds']:.6f}")
        lines.append(f"swann_latency_seconds_count {figures['calls']}")
        return "\n".join(lines) + "\n"

"""What a run leaves: plain records, to and from JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.front import Curve, pareto

MODES = ("one", "batch")
"""One query a call, and all queries in one call."""
NEAR = 0.95
"""The recall nearest to which latency and threads are compared."""


@dataclasses.dataclass
class Build:
    """An index: its settings and what making it took.

    ``extra_bytes`` is the peak memory of the build beyond what the process held before, the vectors
    among it; ``memory`` therefore counts the vectors once, as 1.
    """

    settings: dict[str, Any]
    seconds: float
    cpu_seconds: float
    vector_bytes: int
    extra_bytes: int
    disk_bytes: int
    resident_bytes: int = 0
    """What a search needs in memory, once the index was opened."""

    @property
    def memory(self) -> float:
        """Peak memory with the vectors, as a multiple of the vectors."""
        return 1 + self.extra_bytes / self.vector_bytes


@dataclasses.dataclass
class Point:
    """One setting of one index: its recall, and its queries a second in each round and mode."""

    build: int
    settings: dict[str, Any]
    recall: float
    agree: float
    qps: dict[str, list[float]]
    cpu: dict[str, list[float]]

    def speed(self, mode: str, clock: str) -> float:
        """Median queries a second by a clock on the wall, or a CPU second by the process's own.

        On a quiet machine both say the same of one thread; where others compute, the latter does
        not count the time that the process had to wait.
        """
        if clock == "wall":
            return statistics.median(self.qps[mode])
        return statistics.median(q / c for q, c in zip(self.qps[mode], self.cpu[mode], strict=True))


@dataclasses.dataclass
class Latency:
    """Microseconds of single queries at one setting, by quantile (``p50``), one for each round."""

    point: int
    microseconds: dict[str, list[float]]

    def median(self, quantile: str) -> float:
        """Median over the rounds."""
        return statistics.median(self.microseconds[quantile])

    @property
    def tail(self) -> float:
        """p99 over p50, the median of the rounds."""
        pairs = zip(self.microseconds["p99"], self.microseconds["p50"], strict=True)
        return statistics.median(p99 / p50 for p99, p50 in pairs)


@dataclasses.dataclass
class Scaling:
    """One and two threads, in this order: the fastest build, the median of the batches."""

    build: dict[str, Any]
    settings: dict[str, Any]
    build_seconds: list[float]
    qps: list[float]

    @property
    def builds(self) -> float:
        """How many times faster two threads build."""
        return self.build_seconds[0] / self.build_seconds[1]

    @property
    def batches(self) -> float:
        """How many times faster two threads answer a batch."""
        return self.qps[1] / self.qps[0]


@dataclasses.dataclass
class SystemResult:
    """All of a system; ``error`` says why there is nothing, if so."""

    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    builds: list[Build] = dataclasses.field(default_factory=list)
    points: list[Point] = dataclasses.field(default_factory=list)
    error: str = ""
    level: str = ""
    """The instruction set in use, where the system tells."""
    latency: Latency | None = None
    scaling: Scaling | None = None

    def front(self, mode: str, clock: str) -> Curve:
        """Pareto front (recall, queries a second) over all settings timed in this mode."""
        timed = [point for point in self.points if point.qps[mode]]
        return pareto((point.recall, point.speed(mode, clock)) for point in timed)

    def nearest(self, mode: str, clock: str, recall: float) -> int | None:
        """Return the number of the setting on the front whose recall is nearest to this one."""
        front = set(self.front(mode, clock))
        on_front = [
            (abs(point.recall - recall), number)
            for number, point in enumerate(self.points)
            if point.qps[mode] and (point.recall, point.speed(mode, clock)) in front
        ]
        return min(on_front)[1] if on_front else None


@dataclasses.dataclass
class Results:
    """A run over one data set."""

    data: dict[str, Any]
    machine: dict[str, Any]
    systems: dict[str, SystemResult]
    check: dict[str, Any] = dataclasses.field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rounded(dataclasses.asdict(self)), indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> Results:
        """Read what :meth:`write` wrote."""
        content = json.loads(path.read_text())
        systems = {name: _system(entry) for name, entry in content["systems"].items()}
        return Results(content["data"], content["machine"], systems, content["check"])


def _system(entry: dict[str, Any]) -> SystemResult:
    latency, scaling = entry.get("latency"), entry.get("scaling")
    return SystemResult(
        versions=entry["versions"],
        builds=[Build(**build) for build in entry["builds"]],
        points=[Point(**point) for point in entry["points"]],
        error=entry["error"],
        level=entry.get("level", ""),
        latency=Latency(**latency) if latency else None,
        scaling=Scaling(**scaling) if scaling else None,
    )


def rounded(value: Any) -> Any:
    """Round the numbers in a tree of lists and dictionaries to six digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value

"""What a run leaves: plain records, to and from JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

MODES = ("one", "batch")
"""One query a call, and all queries in one call."""


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
class SystemResult:
    """All of a system; ``error`` says why there is nothing, if so."""

    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    builds: list[Build] = dataclasses.field(default_factory=list)
    points: list[Point] = dataclasses.field(default_factory=list)
    error: str = ""


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
        path.write_text(json.dumps(_rounded(dataclasses.asdict(self)), indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> Results:
        """Read what :meth:`write` wrote."""
        content = json.loads(path.read_text())
        systems = {
            name: SystemResult(
                versions=entry["versions"],
                builds=[Build(**build) for build in entry["builds"]],
                points=[Point(**point) for point in entry["points"]],
                error=entry["error"],
            )
            for name, entry in content["systems"].items()
        }
        return Results(content["data"], content["machine"], systems, content["check"])


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value

"""What swann must show, beside what a run measured: ``python -m benchmarks goals``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.front import speed_at
from benchmarks.results import Results
from benchmarks.tables import Row, short, table

RECALLS = (0.90, 0.95, 0.99)
HIGH = 0.99
"""The recall at which memory is counted."""

Measured = dict[str, float]
"""Values by what they were measured at; the worst of them is what counts."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """A row: what is measured, what is hoped for, and what must be reached."""

    text: str
    goal: float
    floor: float
    measure: Callable[[Results], Measured]
    less: bool = False
    """Whether less is better."""

    def verdict(self, measured: Measured) -> str:
        """Say which of the two marks the worst value reaches."""
        if not measured:
            return "not measured"
        sign = -1 if self.less else 1
        worst = min(sign * value for value in measured.values())
        if worst >= sign * self.goal:
            return "goal"
        return "floor" if worst >= sign * self.floor else "**below**"


def markdown(results: Results) -> str:
    """Write the table."""
    rows: list[Row] = []
    for goal in GOALS:
        measured = goal.measure(results)
        values = ", ".join(f"{label}: {short(value)}" for label, value in measured.items())
        bounds = [f"{goal.goal:g}", f"{goal.floor:g}"]
        rows.append([goal.text, *bounds, values or "–", goal.verdict(measured)])
    note = (
        "How many times better swann is, where nothing else is said; at each recall, by the Pareto "
        "fronts. The worst value of a row decides. A recall that either system's sweep does not "
        "reach is left out."
    )
    return f"{table(['', 'goal', 'floor', 'measured', 'reached'], rows)}\n\n{note}"


def _speeds(results: Results, names: Iterable[str], mode: str) -> dict[float, float]:
    """Find the speed of the fastest of these systems at each recall that one of them reaches."""
    clock = results.machine["clock"]
    fronts = [results.systems[n].front(mode, clock) for n in names if n in results.systems]
    found = {r: [s for front in fronts if (s := speed_at(front, r))] for r in RECALLS}
    return {recall: max(speeds) for recall, speeds in found.items() if speeds}


def _over(ours: dict[float, float], theirs: dict[float, float]) -> Measured:
    return {f"{r:.2f}": ours[r] / theirs[r] for r in RECALLS if r in ours and r in theirs}


def _one(peer: str) -> Callable[[Results], Measured]:
    return lambda results: _over(
        _speeds(results, ["swann"], "one"), _speeds(results, [peer], "one")
    )


def _one_over_all(results: Results) -> Measured:
    """Compare with the fastest of all peers at each recall, and name it."""
    peers = [name for name in results.systems if not name.startswith("swann")]
    speeds = {name: _speeds(results, [name], "one") for name in peers}
    measured = {}
    for recall, ours in _speeds(results, ["swann"], "one").items():
        reached = {name: found[recall] for name, found in speeds.items() if recall in found}
        if reached:
            fastest = max(reached, key=lambda name: reached[name])
            measured[f"{recall:.2f} ({fastest})"] = ours / reached[fastest]
    return measured


def _batch(family: str) -> Callable[[Results], Measured]:
    """Batches over scann's, swann at the level of this family: forced, or the best there is."""

    def measure(results: Results) -> Measured:
        at_level = [
            name
            for name in ("swann", f"swann-{family}")
            if name in results.systems and results.systems[name].level.startswith(family)
        ]
        return _over(_speeds(results, at_level, "batch"), _speeds(results, ["scann"], "batch"))

    return measure


def _exact(peer: str) -> Callable[[Results], Measured]:
    def measure(results: Results) -> Measured:
        ours, theirs = (_speeds(results, [n], "batch") for n in ("swann-exact", peer))
        return {"exact": ours[HIGH] / theirs[HIGH]} if HIGH in ours and HIGH in theirs else {}

    return measure


def _build(results: Results) -> Measured:
    """Compare builds of equal settings, and say by how much recall differs at worst."""
    check, seconds = (
        results.check,
        "cpu_seconds" if results.machine["clock"] == "cpu" else "seconds",
    )
    measured = {}
    for label, builds in check.get("builds", {}).items():
        grid = check["grids"][label]
        if {"swann", "scann"} <= set(builds):
            worst = min(a - b for a, b in zip(grid["swann"], grid["scann"], strict=True))
            label = f"{label}, recall {worst:+.3f} at worst"
            measured[label] = builds["scann"][seconds] / builds["swann"][seconds]
    return measured


def _bytes(results: Results) -> Measured:
    """Find the smallest index of which some setting reaches the recall."""
    swann = results.systems.get("swann")
    if swann is None:
        return {}
    reached = [swann.builds[p.build] for p in swann.points if p.recall >= HIGH]
    sizes = [build.resident_bytes for build in reached if build.resident_bytes]
    return {f"{HIGH:.2f}": min(sizes) / results.data["n"]} if sizes else {}


def _memory(results: Results) -> Measured:
    swann = results.systems.get("swann")
    if swann is None or not swann.builds:
        return {}
    return {
        "largest": max(b.memory for b in swann.builds),
        "smallest": min(b.memory for b in swann.builds),
    }


def _of_swann(part: str, name: str) -> Callable[[Results], Measured]:
    """One figure of swann's latency or scaling."""

    def measure(results: Results) -> Measured:
        found: Any = getattr(results.systems.get("swann"), part, None)
        return {name: getattr(found, name)} if found else {}

    return measure


GOALS = (
    Goal("one query at a time, over scann", 6, 4, _one("scann")),
    Goal("the same, over scann-core", 5, 3, _one("scann-core")),
    Goal("the same, over the fastest of all peers at that recall", 2, 1.2, _one_over_all),
    Goal("batches, over scann's, with AMX", 15, 8, _batch("amx")),
    Goal("the same with `SWANN_SIMD=avx512`", 6, 4, _batch("avx512")),
    Goal("the same with `SWANN_SIMD=avx2`", 3, 2, _batch("avx2")),
    Goal("build time at equal settings, over scann", 6, 3, _build),
    Goal("exhaustive exact search in batches, over faiss", 4, 2, _exact("faiss-flat")),
    Goal("the same, over NumPy", 4, 2, _exact("numpy-exact")),
    Goal("bytes a datapoint at recall .99 (meant for GloVe-100)", 90, 130, _bytes, less=True),
    Goal("peak memory while building, in multiples of the vectors", 1.3, 1.6, _memory, less=True),
    Goal("two threads over one, builds", 1.95, 1.8, _of_swann("scaling", "builds")),
    Goal("two threads over one, batches", 1.95, 1.8, _of_swann("scaling", "batches")),
    Goal("p99 over p50 latency, one at a time", 1.5, 2, _of_swann("latency", "tail"), less=True),
)

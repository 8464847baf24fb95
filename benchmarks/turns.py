"""The run: build or reopen every index, then measure the systems in turns, round after round."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.datasets import PreparedData
from benchmarks.remote import Remote, WorkerError
from benchmarks.results import MODES, Build, Point, SystemResult
from benchmarks.systems import System

Say = Callable[[str], None]

ONE_QUERIES = 2_000
SLOW_QUERIES = {"one": 100, "batch": 1_000}
BEATEN = 1.3
"""A setting is measured no further when another of its system is this much faster and as good."""


class Contender:
    """A system in the run: its interpreter, its worker and what was measured of it."""

    def __init__(
        self, system: System, python: Path, data: PreparedData, threads: int, quick: bool
    ) -> None:
        self.system, self.python, self.data, self.threads = system, python, data, threads
        self.quick = quick
        self.result = SystemResult()
        self.worker: Remote | None = None

    def folder(self, settings: dict[str, Any]) -> Path:
        """Where the index of these build settings is kept."""
        system = self.system
        key = json.dumps([system.requirements, settings, self.threads], sort_keys=True)
        name = f"{system.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        return self.data.folder / "built" / name

    def build(self, settings: dict[str, Any], rebuild: bool, say: Say) -> Build:
        """Build in a fresh process, or take what an earlier run built."""
        folder = self.folder(settings)
        record = folder.with_suffix(".json")
        if record.exists() and self.system.keep_builds and not rebuild:
            return Build(**json.loads(record.read_text()))
        shutil.rmtree(folder, ignore_errors=True)
        record.unlink(missing_ok=True)
        folder.mkdir(parents=True)
        with Remote(self.python, self.system.name, self.data, self.threads) as worker:
            answer = worker.ask(
                "build", settings=settings, measure=self.data.distance_measure, into=str(folder)
            )
        build = Build(settings=settings, **answer)
        record.write_text(json.dumps({"settings": settings, **answer}, indent=1) + "\n")
        say(
            f"{self.system.name}: built in {build.seconds:.1f} s "
            f"(CPU {build.cpu_seconds:.1f}), memory x{build.memory:.2f} {settings}"
        )
        return build

    def open(self, rebuild: bool, say: Say) -> None:
        """Build everything, then load it all into the one process that will be measured."""
        n = len(self.data.train)
        wanted = self.system.builds(n, self.data.distance_measure, self.quick)
        self.result.builds = [self.build(settings, rebuild, say) for settings in wanted]
        self.worker = Remote(self.python, self.system.name, self.data, self.threads)
        self.result.versions = self.worker.ask("versions")
        for number, build in enumerate(self.result.builds):
            folder = str(self.folder(build.settings))
            self.worker.ask("open", key=str(number), folder=folder, settings=build.settings)
            for settings in self.system.searches(build.settings, self.quick):
                empty: dict[str, list[float]] = {mode: [] for mode in MODES}
                self.result.points.append(
                    Point(number, settings, 0.0, 0.0, empty, {mode: [] for mode in MODES})
                )

    def measure(self, point: Point, first: bool) -> None:
        """Measure one setting once in each mode where it still matters."""
        assert self.worker is not None
        request = {"key": str(point.build), "settings": point.settings}
        queries = len(self.data.test)
        asked = {"one": min(ONE_QUERIES // (2 if self.quick else 1), queries), "batch": queries}
        if self.system.slow:
            asked = {mode: min(SLOW_QUERIES[mode], queries) for mode in MODES}
        if first:
            point.agree = self.worker.ask("agree", **request)["agree"]
        for mode in MODES:
            if first or not self._beaten(point, mode):
                answer = self.worker.ask(mode, **request, queries=asked[mode])
                point.qps[mode].append(answer["qps"])
                point.cpu[mode].append(answer["cpu"])
                point.recall = answer.get("recall", point.recall)

    def _beaten(self, point: Point, mode: str) -> bool:
        if self.system.slow:
            return True
        clock = "cpu" if self.threads == 1 else "wall"  # less noisy, and good enough to choose
        speed = BEATEN * point.speed(mode, clock)
        return any(
            other.recall >= point.recall and other.speed(mode, clock) > speed
            for other in self.result.points
        )

    def close(self) -> None:
        """End the worker."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def failed(self, error: WorkerError) -> None:
        """Leave the run, saying why."""
        self.close()
        self.result = SystemResult(error=str(error), versions=self.result.versions)


def take_turns(contenders: list[Contender], rounds: int, rebuild: bool, say: Say) -> None:
    """Measure all contenders, interleaved setting by setting; results are left in them.

    A system that fails drops out with its error; the others go on.
    """
    for contender in contenders:
        try:
            contender.open(rebuild, say)
        except WorkerError as error:
            say(str(error))
            contender.failed(error)
    for round_ in range(rounds):
        start = time.perf_counter()
        for row in itertools.zip_longest(*(c.result.points for c in contenders)):
            for contender, point in zip(contenders, row, strict=True):
                if point is None or contender.worker is None:
                    continue
                try:
                    contender.measure(point, round_ == 0)
                except WorkerError as error:
                    say(str(error))
                    contender.failed(error)
        say(f"round {round_ + 1} of {rounds}: {time.perf_counter() - start:.0f} s")


@contextlib.contextmanager
def closing(contenders: list[Contender]) -> Any:
    """End all workers, whatever happens."""
    try:
        yield
    finally:
        for contender in contenders:
            contender.close()

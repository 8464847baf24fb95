"""The run: build or reopen every index, then measure the systems in turns, round after round."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.datasets import PreparedData
from benchmarks.remote import Remote, WorkerError
from benchmarks.results import MODES, NEAR, Build, Latency, Point, SystemResult
from benchmarks.systems import System, find

Say = Callable[[str], None]

ONE_QUERIES = 2_000
SLOW_QUERIES = {"one": 100, "batch": 1_000}
WARM_QUERIES = 2_000
BEATEN = 1.3
"""A setting is measured no further when another of its system is this much faster and as good."""


class Idle(Exception):
    """A system has nothing to show on this machine."""


class Contender:
    """A system in the run: its interpreter, its worker and what was measured of it.

    Parameters
    ----------
    system, python, data, threads
        What is measured, its interpreter, on what and with how many threads.
    quick : bool
        Whether to try fewer settings.
    made : dict, optional
        What this run has built, by folder, shared by its contenders: never built twice.
    first_only : bool
        Whether to try only the build settings that stand for the system.
    """

    def __init__(
        self,
        system: System,
        python: Path,
        data: PreparedData,
        threads: int,
        quick: bool,
        made: dict[Path, Build] | None = None,
        first_only: bool = False,
    ) -> None:
        self.system, self.python, self.data, self.threads = system, python, data, threads
        self.quick, self.first_only = quick, first_only
        self.made = {} if made is None else made
        self.result = SystemResult()
        self.worker: Remote | None = None

    def folder(self, settings: dict[str, Any]) -> Path:
        """Where the index of these build settings is kept."""
        system = find(self.system.like or self.system.name)
        key = json.dumps([system.requirements, settings, self.threads], sort_keys=True)
        name = f"{system.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        return self.data.folder / "built" / name

    def build(self, settings: dict[str, Any], rebuild: bool, say: Say) -> Build:
        """Build in a fresh process, or take what an earlier run built."""
        folder = self.folder(settings)
        if folder not in self.made:
            self.made[folder] = self._build(folder, settings, rebuild, say)
        return self.made[folder]

    def _build(self, folder: Path, settings: dict[str, Any], rebuild: bool, say: Say) -> Build:
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
        self.worker = Remote(self.python, self.system.name, self.data, self.threads)
        reason = self.worker.ask("idle")["reason"]
        if reason:
            raise Idle(reason)
        self.result.versions = self.worker.ask("versions")
        self.result.level = self.worker.ask("level")["level"]
        wanted = self.system.builds(n, self.data.distance_measure, self.quick)
        wanted = wanted[:1] if self.first_only else wanted
        self.result.builds = [self.build(settings, rebuild, say) for settings in wanted]
        for number, build in enumerate(self.result.builds):
            searches = self.system.searches(build.settings, self.quick)
            build.resident_bytes = self._load(self.worker, number, build, searches[-1])
            for settings in searches:
                empty: dict[str, list[float]] = {mode: [] for mode in MODES}
                self.result.points.append(
                    Point(number, settings, 0.0, 0.0, empty, {mode: [] for mode in MODES})
                )

    def _load(self, worker: Remote, number: int, build: Build, widest: dict[str, Any]) -> int:
        """Open an index and touch all of it; return the bytes that it takes."""
        key, folder = str(number), str(self.folder(build.settings))
        opened = worker.ask("open", key=key, folder=folder, settings=build.settings)
        queries = SLOW_QUERIES["one"] if self.system.slow else WARM_QUERIES
        worker.ask("warm", key=key, settings=widest, queries=queries)
        return int(opened["bytes"])

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
        for mode in self.system.modes:
            if first or not self._beaten(point, mode):
                answer = self.worker.ask(mode, **request, queries=asked[mode])
                point.qps[mode].append(answer["qps"])
                point.cpu[mode].append(answer["cpu"])
                point.recall = answer.get("recall", point.recall)

    def measure_latency(self, clock: str) -> None:
        """Time single queries by themselves at the setting nearest to the recall compared."""
        number = self.result.nearest("one", clock, NEAR)
        if self.worker is None or self.system.slow or number is None:
            return
        point = self.result.points[number]
        request = {"key": str(point.build), "settings": point.settings, "clock": clock}
        queries = ONE_QUERIES if self.quick else len(self.data.test)
        answer = self.worker.ask("latency", **request, queries=queries)
        if self.result.latency is None:
            self.result.latency = Latency(number, {quantile: [] for quantile in answer})
        for quantile, value in answer.items():
            self.result.latency.microseconds[quantile].append(value)

    def _beaten(self, point: Point, mode: str) -> bool:
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

    def failed(self, error: WorkerError | Idle) -> None:
        """Leave the run, saying why."""
        self.close()
        self.result = SystemResult(error=str(error), versions=self.result.versions)


def take_turns(
    contenders: list[Contender], rounds: int, rebuild: bool, clock: str, say: Say
) -> None:
    """Measure all contenders, interleaved setting by setting; results are left in them.

    A system that fails drops out with its error; the others go on.
    """
    for contender in contenders:
        with _dropping_out(contender, say):
            contender.open(rebuild, say)
    for round_ in range(rounds):
        start = time.perf_counter()
        for row in itertools.zip_longest(*(c.result.points for c in contenders)):
            for contender, point in zip(contenders, row, strict=True):
                if point is None or contender.worker is None:
                    continue
                with _dropping_out(contender, say):
                    contender.measure(point, round_ == 0)
        say(f"round {round_ + 1} of {rounds}: {time.perf_counter() - start:.0f} s")
    for _ in range(rounds):
        for contender in contenders:
            with _dropping_out(contender, say):
                contender.measure_latency(clock)


@contextlib.contextmanager
def _dropping_out(contender: Contender, say: Say) -> Iterator[None]:
    """Let a system that fails drop out, saying why."""
    try:
        yield
    except (WorkerError, Idle) as error:
        say(f"{contender.system.name}: {error}" if isinstance(error, Idle) else str(error))
        contender.failed(error)


@contextlib.contextmanager
def closing(contenders: list[Contender]) -> Any:
    """End all workers, whatever happens."""
    try:
        yield
    finally:
        for contender in contenders:
            contender.close()

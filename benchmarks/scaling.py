"""What a second thread brings: builds and batches on one and on two, by the clock on the wall."""

from __future__ import annotations

import contextlib
import statistics

from benchmarks.remote import Remote
from benchmarks.results import NEAR, Point, Scaling
from benchmarks.turns import WARM_QUERIES, Contender, Say

SYSTEMS = ("swann", "scann")
THREADS = (1, 2)
BUILDS = 2
"""Builds on each number of threads, in turns; the fastest counts."""
BATCHES = 5
"""Batches on each number of threads, in turns; the median counts."""


def measure(contender: Contender, say: Say) -> Scaling | None:
    """Compare one and two threads, for the build that stands for the system.

    Batches are asked at its setting whose recall is nearest to the one compared.
    """
    points = [point for point in contender.result.points if point.build == 0]
    if not points:
        return None
    settings = contender.result.builds[0].settings
    point = min(points, key=lambda p: abs(p.recall - NEAR))
    both = [
        Contender(contender.system, contender.python, contender.data, threads, contender.quick)
        for threads in THREADS
    ]
    say(f"{contender.system.name}: one and two threads")
    seconds = [
        min(turn)
        for turn in zip(*(_builds(both, settings, say) for _ in range(BUILDS)), strict=True)
    ]
    return Scaling(settings, point.settings, seconds, _batches(both, settings, point))


def _builds(both: list[Contender], settings: dict[str, object], say: Say) -> list[float]:
    """Seconds of a fresh build by each."""
    for one in both:
        one.made.clear()
    return [one.build(settings, True, say).seconds for one in both]


def _batches(both: list[Contender], settings: dict[str, object], point: Point) -> list[float]:
    """Ask each in turns; return their queries a second."""
    speeds: list[list[float]] = [[] for _ in both]
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Remote(c.python, c.system.name, c.data, c.threads)) for c in both
        ]
        asked = {"key": "0", "settings": point.settings}
        for one, worker in zip(both, workers, strict=True):
            worker.ask("open", key="0", folder=str(one.folder(settings)), settings=settings)
            worker.ask("warm", **asked, queries=WARM_QUERIES)
        for _ in range(BATCHES):
            for taken, one, worker in zip(speeds, both, workers, strict=True):
                # A core that has idled gets its thread only after some milliseconds: the first of
                # two batches wakes it.
                for _ in range(2):
                    answer = worker.ask("batch", **asked, queries=len(one.data.test))
                taken.append(answer["qps"])
    return [statistics.median(taken) for taken in speeds]

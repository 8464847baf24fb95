"""Watching workers: what ends or hangs one of them is noted, and the next one goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.paths import ROOT
from benchmarks.trust.worker import OUTCOMES, Board, is_sanitized

HANG = 2.0  # seconds of CPU time that a case may take
SANITIZED_HANG = 10.0  # the same under a sanitizer
STUCK = 20.0  # seconds that it may wait, unless it is stopped
_TELLING = re.compile("^Fatal|ERROR: AddressSanitizer|: runtime error: ")  # of what is on stderr
_TICK = os.sysconf("SC_CLK_TCK")
_POLL = 0.05
_PAUSE = 2.0  # seconds between two looks that say that somebody stopped us


@dataclasses.dataclass
class Tally:
    """Outcomes by lane, the most kilobytes that memory grew, and what failed."""

    counts: dict[str, dict[str, int]]
    peak: int = 0
    seconds: float = 0.0
    failures: list[str] = dataclasses.field(default_factory=list)

    def total(self, outcome: str) -> int:
        """Return how often that came, in all lanes."""
        return sum(lane[outcome] for lane in self.counts.values())


class _Process:
    """One worker at a time, for its share of the cases."""

    def __init__(self, python: Path, subject: str, lanes: list[str], asked: dict[str, int],
                 folder: Path, variables: dict[str, str], hang: float) -> None:  # fmt: skip
        self.hang = hang
        self.python, self.subject, self.asked, self.folder = python, subject, asked, folder
        self.variables = variables
        folder.mkdir()
        self.board = Board(folder / "board", lanes)
        self.lost: list[str] = []
        self.outcomes: list[str] = []
        self._start(asked["first"])

    def _start(self, first: int) -> None:
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        self.board.begin(-1)
        asked = self.asked | {"first": first, "subject": self.subject, "folder": str(self.folder)}
        command = [str(self.python), "-m", "benchmarks.trust.worker", json.dumps(asked)]
        known = [] if self.python != Path(sys.executable) else [os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, [*known, str(ROOT)]))
        with open(self.folder / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                command, env=os.environ | {"PYTHONPATH": path} | self.variables, stderr=stderr,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self._seen, self._looked = (-1, 0.0, 0.0), time.monotonic()

    def look(self) -> bool:
        """Return whether there is something left to do."""
        status = self.process.poll()
        if status == 0:
            return False
        if status is not None:
            return self._lose("crash", _reason(status, self.folder / "stderr"))
        number = self.board.number
        cpu, stopped = _cpu_seconds(self.process.pid)
        now = time.monotonic()
        stopped |= now - self._looked > _PAUSE  # all of us were
        self._looked = now
        if number != self._seen[0] or stopped:
            self._seen = (number, cpu, now)
        elif number >= 0 and (
            cpu - self._seen[1] > self.hang or now - self._seen[2] > max(STUCK, 10 * self.hang)
        ):
            self.process.kill()
            self.process.wait()
            used = cpu - self._seen[1]
            return self._lose("hang", f"{used:.1f} s of CPU time, {now - self._seen[2]:.0f} s")
        return True

    def _lose(self, outcome: str, why: str) -> bool:
        number = self.board.number
        if number < 0:
            raise RuntimeError(f"the worker of {self.subject} does not start: {why}")
        self.lost.append(f"{number}: {outcome}: {why}")
        self.outcomes.append(outcome)
        following = number + self.asked["step"]
        if following >= self.asked["end"]:
            return False
        self._start(following)
        return True


def _cpu_seconds(pid: int) -> tuple[float, bool]:
    """Return what a process has used, and whether it is stopped or gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0, True
    return (int(fields[11]) + int(fields[12])) / _TICK, fields[0] in "TtZ"


def _reason(status: int, stderr: Path) -> str:
    lines = [line for line in stderr.read_text(errors="replace").splitlines() if line.strip()]
    told = next(filter(_TELLING.search, lines), lines[-1] if lines else "")
    return f"status {status}, {told[:200]}"


def try_all(
    subject: str,
    lanes: list[str],
    n: int,
    *,
    seed: int,
    first: int = 0,
    workers: int,
    folder: Path,
    python: Path | None = None,
    variables: dict[str, str] | None = None,
    hang: float | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Tally:
    """Try n cases of a subject, from `first` on, in so many processes.

    Parameters
    ----------
    subject : str
        ``module:argument`` of what has a function ``subject``.
    lanes : list of str
        Those of the subject's `allowed`.
    n, seed, first, workers : int
        How many, of which seed, from which number on, in how many processes.
    folder : path
        For their files; workers get directories of their own below it.
    python : path, optional
        That of another environment.
    variables : dict, optional
        More environment variables of the workers.
    hang : float, optional
        Seconds of CPU time that a case may take; `HANG` or `SANITIZED_HANG` unless given.
    on_progress : callable
        Told how many are done.
    """
    begin = time.monotonic()
    if hang is None:
        hang = SANITIZED_HANG if is_sanitized() else HANG
    processes = [
        _Process(
            python or Path(sys.executable), subject, lanes,
            {"first": first + i, "step": workers, "end": first + n, "seed": seed},
            folder / f"worker{i}", variables or {}, hang,
        )
        for i in range(min(workers, n))
    ]  # fmt: skip
    try:
        running = list(processes)
        while running:
            time.sleep(_POLL)
            running = [process for process in running if process.look()]
            on_progress(sum(process.board.done + len(process.lost) for process in processes))
    finally:
        for process in processes:
            process.process.kill()
            process.process.wait()
    counts = {lane: dict.fromkeys(OUTCOMES, 0) for lane in lanes}
    tally = Tally(counts)
    for process in processes:
        for lane, found in process.board.counts().items():
            for outcome, number in found.items():
                counts[lane][outcome] += number
        for outcome in process.outcomes:
            counts[lanes[0]][outcome] += 1
        tally.peak = max(tally.peak, process.board.peak)
        failed = process.folder / "failures"
        tally.failures += failed.read_text().splitlines() if failed.exists() else []
        tally.failures += process.lost
    tally.seconds = time.monotonic() - begin
    return tally

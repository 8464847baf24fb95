"""The experiment: the power fails, and what was not flushed is on the disk or not."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.trust import watch
from benchmarks.trust.experiment import Experiment, Options, Report
from benchmarks.trust.storage.disk_model import Disk, Event, Files, events_of
from benchmarks.trust.storage.library import Watched, compile_library
from benchmarks.trust.storage.operations import KINDS, OPERATIONS, Operation, make, view_of
from benchmarks.trust.worker import Subject

_FEW, _SAMPLES = 5, 24
_LANES = tuple(title for title in OPERATIONS if title != "load")
LANES = dict.fromkeys(_LANES, frozenset(("same", "earlier")))


class _Session:
    """An operation that was recorded, with a moment before and after each step."""

    def __init__(self, operation: Operation, folder: Path, watched: Watched) -> None:
        self.operation = operation
        operation.start(folder)
        self.before = files_of(folder)
        watched.record()
        session = operation.begin(folder)
        for i, step in enumerate(session.steps):
            watched.note(2 * i)
            step()
            watched.note(2 * i + 1)
        self.events = events_of(watched.recorded(), str(folder))
        session.close()
        self.check(folder)

    def check(self, folder: Path) -> None:
        """Raise a RuntimeError unless the model of the disk agrees with the disk."""
        disk = self.disk(len(self.events))
        after = files_of(folder)
        seen = {path: disk.data[file] for path, file in disk.names.items() if file >= 0}
        closing = {path for path in seen if path.endswith(".lock") or "log-" in path}
        if any(seen[path] != after[path] for path in seen if path not in closing):
            raise RuntimeError(f"{self.operation.title}: the record is not whole")

    def disk(self, count: int) -> Disk:
        """Return the disk after so many events."""
        disk = Disk(self.before)
        for event in self.events[:count]:
            disk.apply(event)
        return disk

    def allowed(self, count: int) -> list[Any]:
        """Return the states that may be there, the oldest first."""
        moments = [event.numbers[0] for event in self.events[:count] if event.what == "m"]
        done = sum(moment % 2 for moment in moments)
        return self.operation.states[self.operation.flushed[done] : len(moments) - done + 1]

    def cases(self, rng: Random) -> list[tuple[int, int]]:
        """Return pairs of how many events there were, and what reached the disk."""
        found = []
        disk = Disk(self.before)
        for count, event in enumerate([None, *self.events]):
            if event is not None:
                disk.apply(event)
            if event is None or _tells(event):
                choices = dict.fromkeys(disk.choices(rng, _FEW, _SAMPLES))
                found += [(count, choice) for choice in choices]
        return found


def _tells(event: Event) -> bool:
    """Whether something else may be there after it."""
    return event.what != "c" and (event.what != "o" or event.numbers[1] == 1)


def files_of(folder: Path) -> Files:
    """Return what is below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class Power(Subject):
    """Case i is the i-th of all, in the seed's order."""

    allowed = LANES
    margin = 4 << 30

    def __init__(self, folder: Path, seed: int) -> None:
        warnings.simplefilter("ignore")
        folder.mkdir()
        self.folder = folder / "index"
        watched = Watched(folder)
        self.sessions = [
            _Session(make(title, kind, folder), self.folder, watched)
            for title in _LANES
            for kind in KINDS
        ]
        self.cases = [
            (i, *case)
            for i, session in enumerate(self.sessions)
            for case in session.cases(Random(f"{seed}/{i}"))
        ]
        Random(seed).shuffle(self.cases)
        counts = {"cases": len(self.cases), "events": sum(len(s.events) for s in self.sessions)}
        (folder.parent / "counts.json").write_text(json.dumps(counts))

    def run(self, number: int) -> tuple[str, str, str]:
        """Make what is on the disk, open it, and use it."""
        place, count, choice = self.cases[number % len(self.cases)]
        session = self.sessions[place]
        operation = session.operation
        self._write(session.disk(count).left(choice))
        what = f"{operation.kind}, after {count} events, {choice:b}"
        try:
            found = view_of(operation.path(self.folder))
            allowed = session.allowed(count)
            if found not in allowed:
                return operation.title, "different", f"{what}: another index"
            told = operation.go_on(self.folder)
        except Exception as error:
            return operation.title, "different", f"{what}: {error!r}"
        if told:
            return operation.title, "different", f"{what}: {told}"
        return operation.title, "same" if found == allowed[-1] else "earlier", what

    def _write(self, files: Files) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for path, data in files.items():
            (self.folder / path).parent.mkdir(exist_ok=True)
            (self.folder / path).write_bytes(data)


def subject(argument: str, folder: Path, seed: int) -> Subject:
    """Return the subject."""
    os.environ.pop("LD_PRELOAD", None)
    return Power(folder, seed)


def run(options: Options) -> Report:
    """Let the power fail in so many ways."""
    library = compile_library(options.folder)
    tally = watch.try_all(
        "benchmarks.trust.storage.power:", list(LANES), options.n, seed=options.seed,
        first=options.first, workers=options.workers, folder=options.folder,
        variables={"LD_PRELOAD": str(library)},
    )  # fmt: skip
    counts = json.loads((options.folder / "worker0" / "counts.json").read_text())
    figures = {
        "cases": options.n,
        "of": counts["cases"],
        "events recorded": counts["events"],
        "seconds": round(tally.seconds, 1),
        "outcomes": tally.counts,
    }
    return Report(figures, tally.failures)


EXPERIMENT = Experiment("power", "unflushed writes in any order, or lost", 150, 100_000, run)

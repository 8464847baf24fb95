"""The comparison: every library in an environment of its own, the same questions to each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.envs import ensure
from benchmarks.paths import ROOT
from benchmarks.trust import watch
from benchmarks.trust.experiment import Experiment, Options, Report
from benchmarks.trust.peers.adapter import NAMES, adapter
from benchmarks.trust.peers.subject import LANE

PARTS = tuple(part / 10 for part in range(10))
DELAY = 0.5  # seconds from the beginning of a build to its interrupt
ENOUGH = 3.0  # times the largest file: no full disk
PATIENCE = 20.0  # seconds after which nobody waits for an interrupted build any more


class _Library:
    """A library, and the processes that ask it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        library = adapter(name)
        self.python = ensure(library) if library.requirements else Path(sys.executable)
        known = [] if library.requirements else [os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, [*known, str(ROOT)]))
        self.variables = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.index = library.index

    def start(self, question: str, folder: Path, *more: str) -> subprocess.Popen[str]:
        folder.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [
            self.python,
            "-m",
            "benchmarks.trust.peers.probe",
            self.name,
            question,
        ]
        return subprocess.Popen(
            [*command, folder, *more], env=self.variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, question: str, folder: Path, *more: str) -> str:
        with self.start(question, folder, *more) as process:
            out, _ = process.communicate(timeout=120)
        return str(json.loads(out.splitlines()[-1])) if process.returncode == 0 else "crash"


def _damage(library: _Library, options: Options) -> dict[str, int]:
    tally = watch.try_all(
        f"benchmarks.trust.peers.subject:{library.name}", [LANE], options.n,
        seed=options.seed, workers=1, folder=library.folder, python=library.python,
    )  # fmt: skip
    return tally.counts[LANE]


def _interrupt(library: _Library) -> str:
    """Return how many seconds pass from Ctrl-C until the program goes on."""
    folder = library.folder / "interrupt"
    with library.start("build", folder) as process:
        while not (folder / "begun").exists():
            time.sleep(0.01)
            if process.poll() is not None:
                return "crash"
        time.sleep(DELAY)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"over {PATIENCE:g} s"
        seconds = time.monotonic() - begin
    words = str(json.loads(out.splitlines()[-1])).split() if process.returncode == 0 else [""]
    if words[0] != "interrupted":
        return " ".join(words) or "crash"
    # The end of the process takes time too: the build's own clock counts from its beginning.
    return f"{max(0.0, min(float(words[1]) - DELAY, seconds)):.2f} s"


def _full_disk(library: _Library) -> dict[str, int]:
    found: Counter[str] = Counter()
    for part in (*PARTS, ENOUGH):
        folder = library.folder / f"full{part}"
        library.ask("begin", folder)
        before = library.ask("look", folder)
        said = library.ask("save", folder, str(part))
        left = library.ask("look", folder)
        if part == ENOUGH:
            if (before, said, left) != ("old", "said nothing", "new"):
                raise RuntimeError(f"{library.name}, disk not full: {before}, {said}, {left}")
            break
        found[left] += 1
        if said == "said nothing" and left != "new":
            found["and said nothing"] += 1
    return dict(found)


def run(options: Options) -> Report:
    """Ask every library everything."""
    figures: dict[str, Any] = {}
    failures: list[str] = []
    for name in NAMES:
        folder = options.folder / name
        folder.mkdir()
        library = _Library(name, folder)
        figures[name] = {
            "version": library.ask("version", folder),
            "index": library.index,
            "damage": _damage(library, options),
            "NaN query": library.ask("nan", folder / "nan"),
            "Ctrl-C": _interrupt(library),
            "full disk": _full_disk(library),
        }
        print(name, json.dumps(figures[name]), file=sys.stderr, flush=True)
    own = figures["swann"]
    bad = sum(own["damage"][k] for k in ("different", "memory", "crash", "hang"))
    if bad or own["NaN query"] == "answered" or own["full disk"] != {"old": len(PARTS)}:
        failures.append(f"swann: {own}")
    return Report(figures, failures)


EXPERIMENT = Experiment("peers", "the same for other libraries", 20, 400, run)

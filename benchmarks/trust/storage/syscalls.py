"""The experiment: whatever call of the system fails or is the last, an index is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

from benchmarks.paths import ROOT
from benchmarks.trust import watch
from benchmarks.trust.experiment import Experiment, Options, Report
from benchmarks.trust.storage.cases import cases_of
from benchmarks.trust.storage.library import compile_library
from benchmarks.trust.storage.operations import KINDS, OPERATIONS
from benchmarks.trust.storage.subject import LANES


def run(options: Options) -> Report:
    """Spoil the calls of all operations, each in all ways."""
    library = compile_library(options.folder)
    counted = options.folder / "calls.json"
    variables = {"LD_PRELOAD": str(library)}
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH", "")]), str(ROOT)])
    subprocess.run(
        [sys.executable, "-m", "benchmarks.trust.storage.cases", options.folder / "all", counted],
        check=True, env=os.environ | variables | {"PYTHONPATH": path},
    )  # fmt: skip
    calls: list[list[str]] = json.loads(counted.read_text())
    total = len(cases_of(calls, options.seed))
    n = max(0, min(options.n, total - options.first))
    tally = watch.try_all(
        "benchmarks.trust.storage.subject:", list(LANES), n, seed=options.seed,
        first=options.first, workers=options.workers, folder=options.folder, variables=variables,
    )  # fmt: skip
    figures: dict[str, Any] = {
        "cases": n,
        "of": total,
        "seconds": round(tally.seconds, 1),
        "calls": {
            title: [len(names) for names in calls[i * len(KINDS) : (i + 1) * len(KINDS)]]
            for i, title in enumerate(OPERATIONS)
        },
        "kinds of calls": dict(Counter(name.strip("+") for names in calls for name in names)),
        "outcomes": tally.counts,
    }
    return Report(figures, tally.failures)


EXPERIMENT = Experiment("syscalls", "every call of a save fails or is the last", 100, 100_000, run)

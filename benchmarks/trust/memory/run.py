"""The experiment: compiles what lets allocations fail, then lets them fail."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.trust import watch
from benchmarks.trust.experiment import Experiment, Options, Report
from benchmarks.trust.memory.subject import CALLS

_SOURCE = Path(__file__).with_name("failing.cpp")


def run(options: Options) -> Report:
    """Let the first ``n / calls / 2`` allocations of each call fail, alone and with all others."""
    library = options.folder / "failing.so"
    subprocess.run(
        ["c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-o", library, _SOURCE], check=True
    )
    tally = watch.try_all(
        "benchmarks.trust.memory.subject:", list(CALLS), options.n,
        seed=options.seed, first=options.first, workers=options.workers, folder=options.folder,
        variables={"LD_PRELOAD": str(library)},
    )  # fmt: skip
    figures = {"cases": options.n, "seconds": round(tally.seconds, 1), "outcomes": tally.counts}
    return Report(figures, tally.failures)


EXPERIMENT = Experiment("memory", "every n-th native allocation fails", 300, 20_000, run)

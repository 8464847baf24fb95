"""The experiment: as many cases as asked for."""

from __future__ import annotations

from benchmarks.trust import watch
from benchmarks.trust.experiment import Experiment, Options, Report
from benchmarks.trust.oracle.settings import MEASURES

_SLOW = 60.0  # seconds of CPU time; a case may train for some


def run(options: Options) -> Report:
    """Let workers try the cases."""
    tally = watch.try_all(
        "benchmarks.trust.oracle.subject:", list(MEASURES), options.n,
        seed=options.seed, first=options.first, workers=options.workers, folder=options.folder,
        hang=_SLOW,
    )  # fmt: skip
    figures = {"cases": options.n, "seconds": round(tally.seconds, 1), "outcomes": tally.counts}
    return Report(figures, tally.failures)


EXPERIMENT = Experiment("oracle", "random indexes beside NumPy", 300, 100_000, run)

"""The experiment: as many mutants as asked for."""

from __future__ import annotations

import json

from benchmarks.trust import watch
from benchmarks.trust.damage import configurations
from benchmarks.trust.damage.subject import LANES
from benchmarks.trust.experiment import Experiment, Options, Report
from benchmarks.trust.worker import MARGIN

_SUBJECT = "benchmarks.trust.damage.subject"


def run(options: Options) -> Report:
    """Save every kind of index, then let workers damage them."""
    saved = options.folder / "saved"
    saved.mkdir()
    paths = configurations.save_all(saved)
    for closed in (False, True):
        configurations.save_with_log(saved, closed)
    (saved / "saved.json").write_text(json.dumps([path.name for path in paths.values()]))
    tally = watch.try_all(
        f"{_SUBJECT}:{saved}", list(LANES), options.n,
        seed=options.seed, first=options.first, workers=options.workers, folder=options.folder,
    )  # fmt: skip
    largest = max(sum(f.stat().st_size for f in p.rglob("*")) for p in saved.iterdir())
    failures = list(tally.failures)
    if tally.peak * 1024 > MARGIN + 2 * largest:
        failures.append(f"memory grew by {tally.peak} KB")
    figures = {
        "mutants": options.n,
        "configurations": len(paths) + 2,
        "seconds": round(tally.seconds, 1),
        "memory grew by at most (KB)": tally.peak,
        "outcomes": tally.counts,
    }
    return Report(figures, failures)


EXPERIMENT = Experiment("damage", "damaged and lying indexes", 20_000, 1_000_000, run)

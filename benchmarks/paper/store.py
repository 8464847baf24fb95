"""Results on disk, one JSON file an experiment, and the pictures beside them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.paper.experiment import Experiment, Results
from benchmarks.paper.lab import Lab
from benchmarks.paths import ROOT

FOLDER = ROOT / "docs" / "paper"

Record = dict[str, Any]
"""``results``, ``verdict``, ``seconds``, ``machine`` and ``seed`` of a run."""


def perform(experiment: Experiment, lab: Lab, folder: Path) -> Record:
    """Run an experiment, judge it, and store what came of it.

    ``seconds`` are those of the clock on the wall, ``cpu_seconds`` those that this process and the
    ones it started used: the former say little where others compute, as ``load_before`` tells.
    """
    about = machine.describe(lab.threads, 1, "wall")
    cpu, start = _cpu_seconds(), time.perf_counter()
    results = experiment.run(lab)
    record = {
        "name": experiment.name,
        "claim": experiment.claim,
        "verdict": _verdict(experiment, results),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(_cpu_seconds() - cpu, 1),
        "seed": lab.seed,
        "machine": about,
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{experiment.name}.json"
    path.write_text(json.dumps(_rounded(record), indent=1) + "\n")
    return read(experiment, folder) or record


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def read(experiment: Experiment, folder: Path) -> Record | None:
    """Return what is stored of an experiment, judged anew; None where there is nothing."""
    path = folder / f"{experiment.name}.json"
    if not path.exists():
        return None
    record: Record = json.loads(path.read_text())
    record["verdict"] = _verdict(experiment, record["results"])
    return record


def _verdict(experiment: Experiment, results: Results) -> dict[str, object]:
    verdict = experiment.judge(results)
    return {"came_out": bool(verdict.came_out), "because": verdict.because}


def _rounded(value: Any) -> Any:
    """Six digits of every number: more would only be noise in the history."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value


def draw(experiment: Experiment, results: Results, folder: Path) -> str | None:
    """Write the picture of an experiment; return its file name, None where it has none.

    Raises
    ------
    SystemExit
        When matplotlib is not installed.
    """
    if experiment.draw is None:
        return None
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise SystemExit("plots need matplotlib: pip install matplotlib") from error
    figure = pyplot.figure(figsize=(8, 3.8), layout="constrained")
    experiment.draw(figure, results)
    for axes in figure.axes:
        axes.grid(True, alpha=0.25)
    name = f"{experiment.name}.png"
    # No software version in the file: the same results give the same bytes.
    figure.savefig(folder / name, dpi=80, metadata={"Software": None})
    pyplot.close(figure)
    return name

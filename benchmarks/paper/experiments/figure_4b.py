"""Figure 4b: speed against recall, from the results of ``make bench``."""

from __future__ import annotations

from typing import Any

from benchmarks.front import speed_at
from benchmarks.paper.experiment import Experiment, Results, Verdict
from benchmarks.paper.lab import Lab, Unavailable
from benchmarks.paths import PUBLISHED, RESULTS
from benchmarks.results import Results as Measured
from benchmarks.tables import short, table

DATA = "glove-100"
RECALLS = (0.8, 0.9, 0.95, 0.99)
MODE = "one"


def run(lab: Lab) -> Results:
    """Read the fronts of all systems, one query a call; the last run's, or those published."""
    sources = [folder / f"{DATA}.json" for folder in (PUBLISHED, RESULTS)]
    found = next((source for source in sources if source.exists()), None)
    if found is None:
        raise Unavailable("no results yet: make bench, then python -m benchmarks report --publish")
    return from_bench(Measured.read(found))


def from_bench(measured: Measured) -> Results:
    """Take the fronts out of a comparison's results."""
    clock = measured.machine["clock"]
    fronts = {
        name: [list(point) for point in system.front(MODE, clock)]
        for name, system in measured.systems.items()
    }
    return {
        "date": measured.machine["date"],
        "cpu": measured.machine["cpu"],
        "recalls": list(RECALLS),
        "fronts": {name: front for name, front in fronts.items() if front},
    }


def _speeds(results: Results) -> dict[str, list[float | None]]:
    return {
        name: [speed_at([(r, s) for r, s in front], recall) for recall in results["recalls"]]
        for name, front in results["fronts"].items()
    }


def judge(results: Results) -> Verdict:
    """Compare with the fastest of the peers that reach each recall."""
    speeds = _speeds(results)
    ours = speeds["swann"]
    peers = {name: values for name, values in speeds.items() if not name.startswith("swann")}
    said, least = [], float("inf")
    for i, recall in enumerate(results["recalls"]):
        reached = {name: s for name, values in peers.items() if (s := values[i]) is not None}
        mine = ours[i]
        if mine is None or not reached:
            continue
        best = max(reached, key=lambda name: reached[name])
        least = min(least, mine / reached[best])
        said.append(f"{mine / reached[best]:.2f} times as many queries as {best} ({recall:g})")
    return Verdict(1 < least < float("inf"), "at equal recall swann answers " + ", ".join(said))


def write(results: Results) -> str:
    """One row a system."""
    rows = [
        [name, *("–" if value is None else short(value) for value in values)]
        for name, values in _speeds(results).items()
    ]
    head = ["queries a second at recall", *(f"{r:g}" for r in results["recalls"])]
    return table(head, rows) + f"\n\nMeasured on {results['date']}, {results['cpu']}."


def draw(figure: Any, results: Results) -> None:
    """One curve a system."""
    axes = figure.subplots()
    for name, front in results["fronts"].items():
        shown = [point for point in front if point[0] >= 0.7]
        if shown:
            recalls, speeds = zip(*shown, strict=True)
            wide = 2.5 if name == "swann" else 1.2
            axes.semilogy(recalls, speeds, label=name, linewidth=wide, marker=".")
    axes.set_xlabel("Recall 10@10")
    axes.set_ylabel("queries a second")
    axes.legend(fontsize=7)


EXPERIMENT = Experiment(
    name="figure-4b",
    title="Figure 4b: speed against recall",
    claim="At equal recall it answers more queries a second than every peer, one query a call.",
    paper="A plot of ann-benchmarks.com, Glove1.2M: ScaNN is the highest curve, about twice as "
    "fast as the next library.",
    how="taken from `docs/bench`, where `make bench` measures all systems in turns "
    "(`benchmarks/README.md`); nothing is timed here. swann stands where the paper has ScaNN, and "
    "ScaNN is among the peers.",
    cost="under a second",
    run=run,
    judge=judge,
    table=write,
    draw=draw,
)

"""How cost grows with the number of datapoints: ``python -m benchmarks.growth``.

From 20,000 to a million vectors of GloVe-100 (``expand.py`` says how there come to be so many),
swann beside scann: build time, memory, and the time of a query at recall .95, alone and in a batch,
as tables, a log-log picture and the exponents of fitted powers of n. Each system builds the index
that stands for it, about sqrt(n) leaves, and sweeps its settings of a search.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import envs, expand, machine
from benchmarks.front import speed_at
from benchmarks.paths import PUBLISHED, RESULTS
from benchmarks.results import NEAR, rounded
from benchmarks.systems import find
from benchmarks.tables import short, table
from benchmarks.turns import Contender, closing, take_turns

FOLDER = RESULTS / "growth"  # not among the results of data sets
SIZES = (20_000, 60_000, 200_000, 600_000, 1_000_000)
NEEDED = 6
"""Free memory that a size needs, in multiples of its vectors."""
COSTS = {
    "build_seconds": "build, s",
    "peak_megabytes": "peak memory while building, MB",
    "resident_megabytes": "memory of a search, MB",
    "one_microseconds": "a query alone, µs",
    "batch_microseconds": "a query in a batch, µs",
}
Costs = dict[str, dict[str, dict[str, float]]]
"""Costs by system, size (as text) and name; a cost that was not reached is missing."""


def measure(n: int, pythons: dict[str, Path], options: argparse.Namespace) -> Costs:
    """Measure all systems at one size."""
    data = expand.expanded(n)
    contenders = [
        Contender(find(name), python, data, options.threads, False, first_only=True)
        for name, python in pythons.items()
    ]
    with closing(contenders):
        take_turns(contenders, options.rounds, True, options.clock, _say)
    shutil.rmtree(data.folder / "built", ignore_errors=True)
    return {c.system.name: {str(n): _costs(c, options.clock)} for c in contenders}


def _costs(contender: Contender, clock: str) -> dict[str, float]:
    if not contender.result.builds:
        return {}
    (build,) = contender.result.builds
    costs = {
        "build_seconds": build.cpu_seconds if clock == "cpu" else build.seconds,
        "peak_megabytes": build.memory * build.vector_bytes / 1e6,
        "resident_megabytes": build.resident_bytes / 1e6,
    }
    for mode in ("one", "batch"):
        speed = speed_at(contender.result.front(mode, clock), NEAR)
        if speed:
            costs[f"{mode}_microseconds"] = 1e6 / speed
    return costs


def exponent(sizes: list[int], values: list[float]) -> float:
    """Fit ``values ~ sizes ** exponent`` by least squares of the logarithms.

    Examples
    --------
    >>> round(exponent([10, 100, 1000], [3, 30, 300]), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _series(costs: Costs, system: str, cost: str) -> tuple[list[int], list[float]]:
    pairs = [(int(n), found[cost]) for n, found in costs[system].items() if cost in found]
    return [n for n, _ in pairs], [value for _, value in pairs]


def markdown(content: dict[str, Any]) -> str:
    """Write the page."""
    costs: Costs = content["costs"]
    about = content["machine"]
    clock = "CPU time" if about["clock"] == "cpu" else "time on the wall"
    parts = [
        "# How cost grows",
        f"GloVe-100, cosine, recall 10@10 of {NEAR}; {about['cpu']}, threads: {about['threads']}, "
        f"{clock}, {about['date']}. `python -m benchmarks.growth`; its `expand.py` says how the "
        "331,479 real vectors become more.",
        "![Cost and size](growth.png)",
    ]
    for cost, title in COSTS.items():
        rows = []
        for system in costs:
            sizes, values = _series(costs, system, cost)
            found = dict(zip(sizes, values, strict=True))
            shown = [short(found[n]) if n in found else "–" for n in content["sizes"]]
            rows.append(
                [system, *shown, f"{exponent(sizes, values):.2f}" if len(sizes) > 1 else "–"]
            )
        head = [title, *(f"{n:,}" for n in content["sizes"]), "exponent"]
        parts.append(table(head, rows))
    shares = ", ".join(
        f"{n:,}: {share:.2f} and {found:.2f}"
        for n, (share, found) in zip(content["sizes"], content["made"], strict=True)
        if share
    )
    if shares:
        parts.append(
            "Share of made vectors among the datapoints and among the true neighbours of the "
            f"queries, which are real (the same where made ones are like real ones): {shares}."
        )
    return "\n\n".join(parts) + "\n"


def draw(content: dict[str, Any], path: Path) -> None:
    """Draw every cost against the size, both in logarithms."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(2, 3, figsize=(12, 7), layout="constrained")
    for axes, (cost, title) in zip(grid.flat, COSTS.items(), strict=False):
        for color, system in zip(("#0072b2", "#e69f00", "#009e73"), content["costs"], strict=False):
            sizes, values = _series(content["costs"], system, cost)
            power = f", n^{exponent(sizes, values):.2f}" if len(sizes) > 1 else ""
            axes.loglog(sizes, values, marker="o", color=color, label=f"{system}{power}")
        axes.set_title(title)
        axes.set_xlabel("datapoints")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend()
    grid.flat[-1].axis("off")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def report(content: dict[str, Any], folder: Path) -> None:
    """Write ``growth.json``, ``growth.md`` and ``growth.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "growth.json").write_text(json.dumps(rounded(content), indent=1) + "\n")
    (folder / "growth.md").write_text(markdown(content))
    draw(content, folder / "growth.png")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fits(n: int) -> bool:
    needed = NEEDED * n * 100 * 4
    if needed <= machine.free_bytes():
        return True
    _say(f"{n:,} datapoints are left out: they need {needed / 1e9:.1f} GB of free memory")
    return False


def run(options: argparse.Namespace) -> None:
    """Measure size after size; each is written as soon as it is there."""
    names = options.systems.split(",")
    pythons = {
        name: Path(sys.executable)
        if name == "swann" and options.swann_env == "current"
        else envs.ensure(find(name))
        for name in names
    }
    content: dict[str, Any] = {
        "machine": machine.describe(options.threads, options.rounds, options.clock),
        "sizes": [],
        "made": [],
        "costs": {name: {} for name in names},
    }
    for n in sorted(int(size) for size in options.sizes.split(",")):
        if not _fits(n):
            continue
        _say(f"{n:,} datapoints")
        for name, found in measure(n, pythons, options).items():
            content["costs"][name] |= found
        content["sizes"].append(n)
        content["made"].append(expand.made_shares(n))
        report(content, FOLDER)
    print((FOLDER / "growth.md").read_text())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--sizes", default=",".join(str(n) for n in SIZES))
    parser.add_argument("--systems", default="swann,scann")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--swann-env", choices=("own", "current"), default="own")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="the last results into docs/bench; nothing is measured",
    )
    options = parser.parse_args()
    if options.publish:
        report(json.loads((FOLDER / "growth.json").read_text()), PUBLISHED)
    else:
        run(options)


if __name__ == "__main__":
    main()

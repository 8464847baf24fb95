"""Results as Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks import goals
from benchmarks.front import speed_at
from benchmarks.results import NEAR, Build, Results, SystemResult
from benchmarks.tables import Row, table

RECALLS = (0.80, 0.90, 0.95, 0.99)
ENOUGH = 0.8
"""Share of its CPUs below which a measurement is called disturbed."""
TITLES = {"one": "One query a call", "batch": "All queries in one call"}
_CLOCKS = {
    "wall": "queries a second",
    "cpu": "queries a second of the process's CPU time",
}
_COSTS = ("build, s", "CPU, s", "peak memory", "on disk, MB")


def markdown(results: Results, plots: dict[str, str]) -> str:
    """Write the page of one data set; ``plots`` names the picture of each mode."""
    data, machine = results.data, results.machine
    cpus, threads = _counted(machine["threads"], "CPU"), _counted(machine["threads"], "thread")
    intro = [
        f"# {data['name']}",
        f"{data['about']}: {data['n']:,} datapoints of {data['d']} dimensions, "
        f"{data['queries']:,} queries. Recall is 10@10.",
        f"{machine['cpu']}, {threads}, Python {machine['python']}, {machine['date']}. All systems "
        f"were measured in turns, {_counted(machine['rounds'], 'round')}, each in a process of its "
        f"own bound to {cpus}; speeds are medians, {_CLOCKS[machine['clock']]}. Absolute figures "
        "depend on the machine and its mood: compare within the table.",
        "Speeds are read off each system's Pareto front over all its settings; between two "
        "measured points the logarithm of speed is taken as linear in recall. A dash: no setting "
        "of the sweep reached this recall. A recall below that of its fastest setting gets that "
        "setting's speed.",
    ]
    sections = ["\n\n".join(intro)]
    for mode, title in TITLES.items():
        sections.append(f"## {title}: queries a second\n\n{_speeds(results, mode)}")
        if mode in plots:
            sections.append(f"![Speed and recall: {title.lower()}]({plots[mode]})")
        ratios = _ratios(results, mode)
        if ratios:
            sections.append(ratios)
    sections += _latencies(results) + _scalings(results)
    sections.append(f"## Building and keeping\n\n{_builds(results)}")
    if results.check:
        sections.append(f"## swann and scann at equal settings\n\n{_check(results.check)}")
    if "swann" in _measured(results):
        sections.append(f"## Goals\n\n{goals.markdown(results)}")
    sections.append(f"## Versions\n\n{_versions(results)}")
    notes = _notes(results)
    if notes:
        sections.append("## Notes\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(sections) + "\n"


def _measured(results: Results) -> dict[str, SystemResult]:
    return {name: result for name, result in results.systems.items() if result.points}


def _speeds(results: Results, mode: str) -> str:
    rows = []
    for name, result in _measured(results).items():
        front = result.front(mode, results.machine["clock"])
        if not front:
            continue
        speeds = [speed_at(front, recall) for recall in RECALLS]
        rows.append([name, *("–" if s is None else f"{_three_digits(s):,}" for s in speeds)])
    return table(["recall", *(f"{recall:.2f}" for recall in RECALLS)], rows)


def _ratios(results: Results, mode: str) -> str:
    measured = _measured(results)
    if "swann" not in measured or len(measured) < 2:
        return ""
    swann = measured.pop("swann").front(mode, results.machine["clock"])
    rows = []
    for name, result in measured.items():
        front = result.front(mode, results.machine["clock"])
        if not front:
            continue
        row = [name]
        for recall in RECALLS:
            ours, theirs = speed_at(swann, recall), speed_at(front, recall)
            row.append(f"{ours / theirs:.3g}" if ours and theirs else "–")
        rows.append(row)
    head = ["swann is faster than ... by", *(f"{recall:.2f}" for recall in RECALLS)]
    return table(head, rows)


def _latencies(results: Results) -> list[str]:
    rows = [
        [
            name,
            f"{result.points[result.latency.point].recall:.3f}",
            f"{result.latency.median('p50'):.0f}",
            f"{result.latency.median('p99'):.0f}",
            f"{result.latency.tail:.2f}",
        ]
        for name, result in _measured(results).items()
        if result.latency
    ]
    if not rows:
        return []
    head = ["system", "recall", "p50, µs", "p99, µs", "p99 / p50"]
    note = f"Each query timed by itself, at the setting of the front nearest to recall {NEAR}."
    return [f"## Latency of single queries\n\n{table(head, rows)}\n\n{note}"]


def _scalings(results: Results) -> list[str]:
    rows = [
        [
            name,
            *(f"{seconds:.1f}" for seconds in result.scaling.build_seconds),
            f"{result.scaling.builds:.2f}",
            *(f"{_three_digits(speed):,}" for speed in result.scaling.qps),
            f"{result.scaling.batches:.2f}",
        ]
        for name, result in _measured(results).items()
        if result.scaling
    ]
    if not rows:
        return []
    head = ["system", "build on 1, s", "on 2, s", "ratio", "batch on 1, qps", "on 2, qps", "ratio"]
    note = (
        "By the clock on the wall, in turns: the first build settings of each system, and their "
        f"setting nearest to recall {NEAR}."
    )
    return [f"## One and two threads\n\n{table(head, rows)}\n\n{note}"]


def _builds(results: Results) -> str:
    rows = []
    shown: list[list[Build]] = []
    for name, result in _measured(results).items():
        if result.builds in shown:  # another system's indices
            continue
        shown.append(result.builds)
        rows += [
            [name, _settings(build.settings), *_costs(build), _megabytes(build.resident_bytes)]
            for build in result.builds
        ]
    head = ["system", "settings", *_COSTS, "in memory, MB"]
    note = (
        "Peak memory while building, the vectors included, as a multiple of the vectors' bytes: "
        "what the process grew by during the build, plus the vectors once. On disk: all that a "
        "search needs. In memory: the arrays that a search reads, or the files where the system "
        "does not tell."
    )
    return f"{table(head, rows)}\n\n{note}"


def _costs(build: Build) -> Row:
    return [
        f"{build.seconds:.1f}",
        f"{build.cpu_seconds:.1f}",
        f"{build.memory:.2f}",
        f"{build.disk_bytes / 1e6:.0f}",
    ]


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f}" if count else "–"


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _check(check: dict[str, Any]) -> str:
    leaves, threshold = check["num_leaves"], check["threshold"]
    loss = f", T = {threshold}" if threshold else ""
    parts = [f"{leaves} leaves, 2 dimensions a block{loss}; recall 10@10."]
    for label, grid in check["grids"].items():
        parts.append(f"{label[0].upper()}{label[1:]}:\n\n{_grid(check['settings'], grid)}")
        costs = {name: Build(**build) for name, build in check["builds"][label].items()}
        rows = [[name, *_costs(build)] for name, build in costs.items()]
        parts.append(table(["system", *_COSTS], rows))
    before = check["without_reordering"]
    losses = [
        [label, *(f"{before[name][key]:.4f}" for name in before)]
        for key, label in (("threshold", f"T = {threshold}"), ("plain", "plain l2"))
        if all(key in losses_of for losses_of in before.values())
    ]
    parts.append(table(["recall 1@10 without reordering, all leaves", *before], losses))
    return "\n\n".join(parts)


def _grid(settings: list[dict[str, int]], grid: dict[str, list[float]]) -> str:
    rows = []
    for asked, *recalls in zip(settings, *grid.values(), strict=True):
        row = [str(asked["leaves_to_search"]), str(asked["pre_reorder_num_neighbors"])]
        row += [f"{value:.4f}" for value in recalls]
        if len(recalls) == 2:
            row.append(f"{recalls[0] - recalls[1]:+.4f}")
        rows.append(row)
    difference = ["difference"] if len(grid) == 2 else []
    return table(["leaves searched", "reordered", *grid, *difference], rows)


def _versions(results: Results) -> str:
    rows = [
        [
            name,
            ", ".join(f"{package} {version}" for package, version in r.versions.items())
            + (f", {r.level}" if r.level else ""),
        ]
        for name, r in _measured(results).items()
    ]
    return table(["system", "versions"], rows)


def _notes(results: Results) -> list[str]:
    notes = []
    wanted = {"one": 1, "batch": results.machine["threads"]}  # one query keeps one thread busy
    for name, result in results.systems.items():
        if result.error:
            notes.append(f"{name} is missing: {result.error.strip().splitlines()[-1]}")
        shares = [c / wanted[mode] for p in result.points for mode in wanted for c in p.cpu[mode]]
        starved = sum(share < ENOUGH for share in shares)
        if starved and results.machine["clock"] == "wall":
            notes.append(
                f"{name} had less than {ENOUGH:.0%} of its CPU time in {starved} of {len(shares)} "
                "measurements: the machine was busy, or the system did not use all its threads."
            )
        differing = min((point.agree for point in result.points), default=1.0)
        if differing < 0.98:
            notes.append(f"{name}: one at a time and batched agree on {differing:.1%} at worst.")
    return notes


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _three_digits(speed: float) -> int:
    """Round to three significant digits: the machine allows no more."""
    return int(float(f"{speed:.3g}"))

"""Results as pictures: speed against recall, one curve a system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.report import TITLES
from benchmarks.results import Results

# Colors for all eyes; together with as many markers as make every pair another.
_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
_MARKERS = "osD^vPX*<>"
_SINGLE_FILE_NAMES = {"one": "single", "batch": "batch"}
LOWEST = 0.7


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Write ``<data>-single.png`` and ``<data>-batch.png``; return their names by mode.

    Raises
    ------
    SystemExit
        When matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise SystemExit("plots need matplotlib: pip install matplotlib") from error

    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for mode, title in TITLES.items():
        figure, axes = pyplot.subplots(figsize=(7.5, 5), layout="constrained")
        _curves(axes, results, mode)
        data, threads = results.data, results.machine["threads"]
        counted = f"{threads} thread{'s' if threads != 1 else ''}"
        axes.set_title(f"{data['name']}: {title.lower()}, {counted}")
        names[mode] = f"{data['name']}-{_SINGLE_FILE_NAMES[mode]}.png"
        figure.savefig(folder / names[mode], dpi=120)
        pyplot.close(figure)
    return names


def _curves(axes: Any, results: Results, mode: str) -> None:
    number = 0
    for name, result in results.systems.items():
        front = [
            point for point in result.front(mode, results.machine["clock"]) if point[0] >= LOWEST
        ]
        if not front:
            continue
        recalls, speeds = zip(*front, strict=True)
        axes.plot(
            recalls,
            speeds,
            marker=_MARKERS[number % len(_MARKERS)],
            color=_COLORS[number % len(_COLORS)],
            linewidth=2.5 if name == "swann" else 1.5,
            markersize=5,
            label=name,
        )
        number += 1
    axes.set_yscale("log")
    axes.set_xlim(LOWEST, 1.003)
    axes.set_xlabel("recall 10@10")
    axes.set_ylabel("queries a second (higher is better)")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend()

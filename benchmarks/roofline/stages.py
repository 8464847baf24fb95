"""Where the time of a search goes: samples of perf by the functions they are in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.paths import ENVS, ROOT

STAGES = ("call", "projection", "leaves", "tables", "scan", "selection", "reordering", "rest")
"""In the order of a search; `call` is Python and NumPy, `rest` what no pattern names."""
FUNCTIONS = {
    "projection": r"reduce|project|rotate",
    "leaves": r"choose_leaves|[Cc]entroid|product|round_i8|Bounds|bounds_f32|\btile<|lone_strip",
    "tables": r"lut_f32|lookup_table|lut_quantize|build_table|saturate",
    "scan": r"scan|append|find_outliers|forget|codes_of|unpack",
    "selection": r"least_of|keep_best|cut_to|trim|introselect|at_least|Candidates|sort|heap",
    "reordering": r"gather|score_|rescore|write_result|candidate_rows|drop_twins|distance_of",
}
SAMPLES = 4999
"""A second."""


def install() -> Path:
    """Install the working tree with the names of its functions; return where to import it from."""
    site = ENVS / "roofline"
    shutil.rmtree(site, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    named = ["install.strip=false", "cmake.build-type=RelWithDebInfo"]
    settings = [f"--config-settings={setting}" for setting in named]
    subprocess.run([*pip, "--no-deps", "--target", site, *settings, ROOT], check=True)
    return site


def stage_of(library: str, function: str) -> str:
    """Return the stage of a function.

    >>> stage_of("_native.cpython-311.so", "swann::scan<1ul, 8ul>"), stage_of("python3.11", "main")
    ('scan', 'call')
    """
    if "_native" not in library:
        return "call"
    for stage, names in FUNCTIONS.items():
        if re.search(names, function):
            return stage
    return "rest"


def shares(report: str) -> dict[str, float]:
    """Add up the lines of a report of perf: percentage, library, function.

    >>> shares("  60.00%  _native.so  [.] scan<1ul>")
    {'scan': 0.6}
    """
    found: dict[str, float] = {}
    for line in report.splitlines():
        match = re.match(r"\s*([\d.]+)%\s+(\S+)\s+\[.\]\s+(.*)", line)
        if match is None:
            continue
        stage = stage_of(match[2], match[3])
        found[stage] = found.get(stage, 0) + float(match[1]) / 100
    return found


def measure(site: Path, folder: Path, mode: str, seconds: float) -> tuple[float, dict[str, float]]:
    """Search in a process of its own; return microseconds a query and the share of each stage."""
    worker = [sys.executable, str(Path(__file__).with_name("worker.py"))]
    with subprocess.Popen(
        [*worker, str(folder), mode, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(site)},
    ) as process:
        asked, told = process.stdin, process.stdout
        assert asked is not None
        assert told is not None
        with asked:
            if told.readline().strip() != "ready":
                raise RuntimeError("the worker did not start")

            def search() -> float:
                asked.write("\n")
                asked.flush()
                return float(told.readline())

            microseconds = min(search() for _ in range(3))
            return microseconds, _sampled(process.pid, folder / "perf.data", search)


def _sampled(process: int, samples: Path, search: Callable[[], float]) -> dict[str, float]:
    record = ["perf", "record", "-q", "-F", str(SAMPLES), "-e", "cpu-clock", "-o", str(samples)]
    with subprocess.Popen([*record, "-p", str(process)]) as perf:
        time.sleep(0.5)  # until it listens
        search()
        perf.send_signal(signal.SIGINT)
    report = ["perf", "report", "-i", str(samples), "--stdio", "--no-children", "-g", "none"]
    told = subprocess.run(
        [*report, "--sort", "dso,symbol"], check=True, stdout=subprocess.PIPE, text=True
    )
    return shares(told.stdout)

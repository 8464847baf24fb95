"""Builds whose processes are killed at random moments: the files must stay the same.

A process of its own builds, with workers of its own; now and then `SIGKILL` ends one of these, or
it itself, and then the build is begun again. Every file is compared with those of a build that
nobody disturbed, in one process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import swann
from benchmarks.paths import ROOT
from swann.distributed import Executor, LocalExecutor, ProcessExecutor, build
from swann.distributed.building.build import WORK

ROWS, DIMENSION = 30_000, 32
BUDGET = 6_000_000
"""Bytes; makes some sixty spans."""
DRIVERS = 0.3
"""Share of the kills that hit the process that builds."""
LIMIT = 300.0
"""Seconds that a build may take."""


def write_vectors(folder: Path, rows: int = ROWS) -> None:
    """Write what is built of, in three files."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((50, DIMENSION)) * 2
    made = centers[rng.integers(0, 50, rows)] + rng.standard_normal((rows, DIMENSION))
    for number, part in enumerate(np.array_split(made.astype(np.float32), 3)):
        np.save(folder / f"part-{number}.npy", part)


def run(folder: Path, out: Path, shards: int, executor: Executor) -> None:
    """Build."""
    shape = np.zeros((1, DIMENSION), np.float32)
    builder = swann.builder(shape, 10, "dot_product").tree(60, 6, soar_lambda=1.0)
    build(
        f"{folder}/part-*.npy",
        builder.score_ah(2, 0.2).reorder(50).create_config(),
        out,
        num_shards=shards,
        memory_budget=BUDGET,
        sample_rows=10_000,
        executor=executor,
    )


def run_here(asked: dict[str, Any]) -> None:
    """Build with processes; what a driver does."""
    faulthandler.register(signal.SIGUSR1)
    with ProcessExecutor(2, tries=10_000) as executor:
        run(Path(asked["folder"]), Path(asked["out"]), asked["shards"], executor)


def files(out: Path) -> dict[str, bytes]:
    """Return all files of a directory, by their paths."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def disturbed(
    folder: Path, out: Path, shards: int, pause: float, most: int, seed: int
) -> list[int]:
    """Build once; return how many workers and how many drivers were killed.

    A process is killed, then another when some result has come since and a random pause, of up to
    `pause` seconds, is over: on a busy machine nothing would ever be done otherwise. No more than
    `most` are killed.
    """
    rng, kills = np.random.default_rng(seed), [0, 0]
    asked = json.dumps({"folder": str(folder), "out": str(out), "shards": shards})
    program = "import json, sys; from benchmarks.cluster import builds; "
    command = [sys.executable, "-c", program + "builds.run_here(json.loads(sys.argv[1]))", asked]
    began = time.monotonic()
    driver = subprocess.Popen(command, cwd=ROOT)
    before = results(out)
    try:
        while True:
            came = sum(kills) < most and results(out) != before
            with suppress(subprocess.TimeoutExpired):
                driver.wait(float(rng.uniform(0, pause)) if came else 0.01)
            if driver.poll() == 0:
                return kills
            if driver.poll() is not None or time.monotonic() - began > LIMIT:
                driver.send_signal(signal.SIGUSR1)  # tells where it is
                time.sleep(1)
                raise SystemExit(f"a build ended with {driver.poll()}, or took over {LIMIT:.0f} s")
            if not came:
                continue
            before = results(out)
            if rng.random() < DRIVERS:
                driver.kill()
                driver.wait()
                kills[1] += 1
                driver = subprocess.Popen(command, cwd=ROOT)
            elif workers := workers_of(driver.pid):
                with suppress(ProcessLookupError):
                    os.kill(int(rng.choice(workers)), signal.SIGKILL)
                    kills[0] += 1
    finally:
        driver.kill()
        driver.wait()


def results(out: Path) -> set[str]:
    """Return the files that are whole, of the build and of the index."""
    return {p.name for f in (out, out / WORK) for p in f.glob("[a-z]*") if f.is_dir()}


def workers_of(pid: int) -> list[int]:
    """Return the processes that a pool of a process has started."""
    found = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def chaos(
    folder: Path,
    count: int,
    shards: tuple[int, ...] = (1, 4),
    pause: float = 2.5,
    most: int = 5,
    rows: int = ROWS,
) -> dict[str, int]:
    """Build so many times with each number of shards; return what was killed, and what differed."""
    write_vectors(folder, rows)
    told = {"builds": 0, "workers": 0, "drivers": 0, "others": 0}
    for number in shards:
        run(folder, folder / "expected", number, LocalExecutor())
        expected = files(folder / "expected")
        shutil.rmtree(folder / "expected")
        for turn in range(count):
            out = folder / "out"
            workers, drivers = disturbed(folder, out, number, pause, most, 1000 * number + turn)
            told["builds"] += 1
            told["workers"] += workers
            told["drivers"] += drivers
            told["others"] += files(out) != expected
            shutil.rmtree(out)
    return told

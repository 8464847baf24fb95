"""What building costs, beside ScaNN: ``python -m benchmarks.building [--data glove-100]``.

The stages of a build by CPU time and peak memory; then builds by both libraries at equal settings,
on one thread and on two, with their recall. Every build has a process of its own, in its library's
environment, bound to as many CPUs as it has threads. Memory is the growth of the process while it
builds, and the vectors: 1 is what the caller's array takes, 0 where it is a memory-mapped file.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

MODULES = {"scann": "scann.scann_ops.py.scann_ops_pybind", "swann": "swann"}
K = 10
MAPPED = "from a memory-mapped file"
SHARED = "the caller's own rows"
PRECISIONS = {"rows in bfloat16": "BFLOAT16", "rows in int8": "INT8"}
LEAVES_TO_SEARCH = (10, 20, 40, 80)  # of 600
CANDIDATES = 100


@dataclasses.dataclass(frozen=True)
class Setting:
    """A data set and what to build of it."""

    measure: str
    num_leaves: int
    threshold: float


SETTINGS = {
    "glove-100": Setting("cosine", 600, 0.2),
    "glove-50": Setting("cosine", 600, 0.2),
    "fashion-mnist-784": Setting("squared_l2", 240, math.nan),
    "lm-head-smollm2": Setting("dot_product", 250, 0.1),
}


class Memory:
    """Peaks of this process since the last look, in units of the vectors, which count as 1."""

    def __init__(self, vector_bytes: int, held: bool) -> None:
        self.vector_bytes = vector_bytes
        self.held = held
        gc.collect()
        self._forget()
        self.before = self._status("VmRSS")

    def peak(self) -> float:
        """Return the peak, and start anew."""
        grown = self._status("VmHWM") - self.before
        self._forget()
        return self.held + grown / self.vector_bytes

    @staticmethod
    def _forget() -> None:
        Path("/proc/self/clear_refs").write_text("5")

    @staticmethod
    def _status(field: str) -> int:
        text = Path("/proc/self/status").read_text()
        return int(text.split(f"{field}:")[1].split()[0]) * 1024


def _builder(library: str, data: str, train: Any, threads: int, kind: str | None) -> Any:
    setting = SETTINGS[data]
    module: Any = importlib.import_module(MODULES[library])
    measure = setting.measure
    shares = {"copy": False} if kind == SHARED else {}
    if measure == "cosine" and (library == "scann" or shares):  # the rows are of unit length
        measure = "dot_product"
    builder = module.builder(train, K, measure, **shares)
    builder.tree(setting.num_leaves, setting.num_leaves // 20)
    builder.score_ah(2, anisotropic_quantization_threshold=setting.threshold)
    precision = {}
    if kind in PRECISIONS:
        precision = {"quantize": getattr(module.ReorderType, PRECISIONS[kind])}
    builder.reorder(CANDIDATES, **precision)
    return builder.set_n_training_threads(threads)


def run(library: str, data: str, folder: Path, threads: int, kind: str | None) -> Any:
    """Build once in this process: figures, stages and recall."""
    mapped = kind == MAPPED
    train = np.load(folder / "train.npy", mmap_mode="r" if mapped else None)
    builder = _builder(library, data, train, threads, kind)
    memory = Memory(train.nbytes, not mapped)
    stages: dict[str, list[float]] = {}
    start, cpu = time.perf_counter(), time.process_time()
    last = cpu

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.process_time()
        seconds, peak = stages.get(stage, (0.0, 0.0))
        stages[stage] = [seconds + now - last, max(peak, memory.peak())]
        last = now

    index = builder.build(progress=progress) if library == "swann" else builder.build()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = max([memory.peak(), *(p for _, p in stages.values())])
    queries = np.load(folder / "test.npy")[:2000]
    true = np.load(folder / "neighbors.npy")[:2000, :K]
    recalls = []
    for searched in LEAVES_TO_SEARCH:
        leaves = max(1, round(searched * SETTINGS[data].num_leaves / 600))
        found = np.asarray(index.search_batched(queries, K, CANDIDATES, leaves)[0])
        recalls.append(float((found[:, :, None] == true[:, None, :]).any(axis=2).mean()))
    return {
        "seconds": seconds,
        "CPU seconds": cpu,
        "peak": peak,
        "recall": recalls,
        "stages": stages,
    }


def _measure(
    python: Path, library: str, data: str, folder: Path, threads: int, kind: str | None
) -> Any:
    from benchmarks.paths import ROOT

    asked = [library, data, str(folder), str(threads), kind or ""]
    done = subprocess.run(
        [str(python), "-m", "benchmarks.building", "--run", *asked],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _table(head: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(head) + " |\n|---" + "|---" * (len(head) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def main() -> None:
    """Build with every library and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        default="glove-100,fashion-mnist-784",
        help="names of data sets, or paths of lm-head-smollm2.npz",
    )
    parser.add_argument("--libraries", default="scann,swann")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=2, help="builds, of which the best counts")
    parser.add_argument("--swann-env", choices=("own", "current"), default="own")
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        library, data, folder, threads, kind = arguments.run
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-int(threads) :])
        print(json.dumps(run(library, data, Path(folder), int(threads), kind or None)))
        return
    from benchmarks import datasets, envs, systems
    from benchmarks.datasets.base import prepare
    from benchmarks.paths import DATA

    libraries = arguments.libraries.split(",")
    pythons = {
        name: Path(sys.executable)
        if name == "swann" and arguments.swann_env == "current"
        else envs.ensure(systems.find(name))
        for name in libraries
    }
    for name in arguments.data.split(","):
        data = Path(name).stem
        folder = DATA / data
        if not (folder / "train.npy").exists():
            folder = prepare(datasets.find(name)).folder
        rows = []
        stages: dict[str, list[float]] = {}
        kinds = [(name, None) for name in libraries] + [
            ("swann", kind) for kind in (SHARED, *PRECISIONS, MAPPED)
        ]
        for library, kind in kinds:
            for threads in map(int, arguments.threads.split(",")):
                built = [
                    _measure(pythons[library], library, data, folder, threads, kind)
                    for _ in range(arguments.rounds)
                ]
                best = min(built, key=lambda b: float(b["seconds"]))
                rows.append(
                    [
                        library + (f", {kind}" if kind else ""),
                        str(threads),
                        *(f"{min(b[c] for b in built):.2f}" for c in ("seconds", "CPU seconds")),
                        f"{best['peak']:.2f}",
                        ", ".join(f"{r:.4f}" for r in best["recall"]),
                    ]
                )
                if library == "swann" and threads == 1 and kind is None:
                    stages = best["stages"]
        print(f"### {data}\n")
        _table(["library", "threads", "seconds", "CPU seconds", "peak memory", "recall"], rows)
        _table(
            ["stage", "CPU seconds", "peak memory"],
            [[stage, f"{s:.2f}", f"{peak:.2f}"] for stage, (s, peak) in stages.items()],
        )


if __name__ == "__main__":
    main()

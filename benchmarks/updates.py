"""Rates of updates beside ScaNN's: ``python -m benchmarks.updates [--scale 0.1]``.

GloVe-100, two thirds of it indexed, then datapoints inserted one by one, as many in batches of 256,
overwritten, deleted; recall afterwards beside that of an index built of all of them. Each library
runs the same program in a process and an environment of its own, one after the other, on one CPU;
rates are by CPU time, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODULES = {"scann": "scann.scann_ops.py.scann_ops_pybind", "swann": "swann.compat.scann_ops_pybind"}
BATCH = 256
K = 10


def run(library: str, folder: Path, scale: float) -> dict[str, float]:
    """Measure one library in this process; rates are datapoints a second of CPU time."""
    rows = np.load(folder / "train.npy", mmap_mode="r")
    count = int(100_000 * scale)
    start = min(len(rows) - 2 * count, int(200_000 * scale))
    vectors = np.array(rows[: start + 2 * count], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = np.load(folder / "test.npy")[:1000].astype(np.float32)
    names = [f"word {i}" for i in range(len(vectors))]
    module: Any = importlib.import_module(MODULES[library])

    def build(n: int) -> Any:
        builder = module.builder(vectors[:n], K, "dot_product")
        builder.tree(600, 40, training_sample_size=n // 2)
        builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        return builder.build(docids=names[:n])

    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :K]

    def recall(searcher: Any) -> float:
        found, _ = searcher.search_batched(queries)
        hits = [
            len({names[i] for i in true} & set(ids)) for ids, true in zip(found, exact, strict=True)
        ]
        return sum(hits) / exact.size

    def rate(work: Callable[[int, int], None], first: int, step: int) -> float:
        begin = time.process_time()
        for i in range(first, first + count, step):
            work(i, min(i + step, first + count))
        return count / (time.process_time() - begin)

    searcher = build(start)

    def one(i: int, _: int) -> None:
        searcher.upsert(names[i], vectors[i])

    def many(i: int, j: int) -> None:
        searcher.upsert(names[i:j], vectors[i:j], batch_size=BATCH)

    figures = {
        "inserts one by one": rate(one, start, 1),
        f"inserts in batches of {BATCH}": rate(many, start + count, BATCH),
        "overwrites one by one": rate(one, start, 1),
    }
    figures["recall after the updates"] = recall(searcher)
    figures["recall of a fresh build"] = recall(build(start + 2 * count))
    figures["deletions one by one"] = rate(lambda i, _: searcher.delete(names[i]), start, 1)
    return figures


def main() -> None:
    """Measure every library and print the figures side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of 100,000 datapoints")
    parser.add_argument("--libraries", default="scann,swann")
    parser.add_argument("--run", nargs=2, metavar=("LIBRARY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        library, folder = arguments.run
        print(json.dumps(run(library, Path(folder), arguments.scale)))
        return
    from benchmarks import datasets, envs, systems
    from benchmarks.datasets.base import prepare
    from benchmarks.paths import ROOT

    folder = prepare(datasets.find("glove-100")).folder
    results = {}
    for library in arguments.libraries.split(","):
        python = envs.ensure(systems.find(library))
        command = [str(python), "-m", "benchmarks.updates", "--scale", str(arguments.scale)]
        done = subprocess.run(
            [*command, "--run", library, str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        results[library] = json.loads(done.stdout.splitlines()[-1])
    print("| | " + " | ".join(results) + " |\n|---|" + "---|" * len(results))
    for name in next(iter(results.values())):
        values = [f[name] for f in results.values()]
        shown = [f"{v:.4f}" if name.startswith("recall") else f"{v:,.0f}/s" for v in values]
        print(f"| {name} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()

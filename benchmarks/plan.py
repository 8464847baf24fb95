"""What the cost model of `swann.plan` is worth: ``python -m benchmarks.plan``.

Indexes of growing parts of GloVe-100 (``expand.py``), and of other data, are built and searched,
each in a process of its own on one thread. The model's constants are fitted to some of them; the
others, which the fit never sees, are predicted: memory, build time, what a recall takes, time of a
query alone and in a batch. Times are CPU time.

``--measure CASE`` measures one case, ``--report`` fits and reports what is there, ``--publish``
also writes the fitted constants into the package and the page into docs/bench.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks import expand, machine
from benchmarks.building import Memory
from benchmarks.datasets import PreparedData, find, prepare
from benchmarks.paths import DATA, RESULTS, ROOT

FOLDER = RESULTS / "plan"
QUERIES = 1_000
RECALLS = [0.8, 0.9, 0.95, 0.98, 0.99]
TIMED = (0.9, 0.95, 0.98)
SHARDS = (2, 4, 8, 16, 32, 64)
SAMPLE = 10_000
LM_HEAD = "lm-head-smollm2"


@dataclasses.dataclass(frozen=True)
class Case:
    """An index to build: of what, how many datapoints, how many times sqrt(n) leaves."""

    data: str
    n: int
    times: float = 1.0
    fitted: bool = False

    @property
    def name(self) -> str:
        """Of its results."""
        return f"{self.data}-{self.n}-{self.times:g}"


CASES = [
    Case("glove-100", 20_000, fitted=True),
    Case("glove-100", 100_000, fitted=True),
    Case("glove-100", 100_000, 4.0, fitted=True),
    Case("glove-100", 331_479, fitted=True),
    Case("glove-100", 331_479, 0.5, fitted=True),
    Case("glove-100", 1_000_000, fitted=True),
    Case("glove-100", 1_000_000, 4.0, fitted=True),
    Case("glove-100", 2_000_000, fitted=True),
    Case("glove-100", 50_000),
    Case("glove-100", 200_000),
    Case("glove-100", 200_000, 2.0),
    Case("glove-100", 600_000),
    Case("glove-50", 100_000),
    Case("glove-50", 390_000),
    Case("fashion-mnist-784", 60_000),
    Case(LM_HEAD, 49_152),
]


# ---- Measuring, in a process of its own


def prepared(case: Case) -> PreparedData:
    """Return the data of a case; a part of a set is its beginning in a random order."""
    if case.data == "glove-100":
        return expand.expanded(case.n)
    if (DATA / case.data / "meta.json").exists():  # one that a path named before
        meta = json.loads((DATA / case.data / "meta.json").read_text())
        measure = "dot_product" if case.data == LM_HEAD else find(case.data).distance_measure
        whole = PreparedData(case.data, meta["about"], measure, DATA / case.data)
    else:
        whole = prepare(find(case.data))
    if case.n == len(whole.train):
        return whole
    folder = DATA / "growth" / f"{case.data}-{case.n}"
    if not (folder / "neighbors.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng(0).permutation(len(whole.train))[: case.n]
        train = np.asarray(whole.train)[order]
        test = whole.test[: expand.QUERIES]
        from benchmarks.exact import exact_neighbors

        np.save(folder / "train.npy", train)
        np.save(folder / "test.npy", test)
        found = exact_neighbors(train, test, expand.K, whole.distance_measure)
        np.save(folder / "neighbors.npy", found)
    return PreparedData(folder.name, whole.about, whole.distance_measure, folder)


def measure(case: Case) -> dict[str, Any]:
    """Build, search and time one case in this process."""
    from swann.autopilot import choose_for
    from swann.config import AutopilotConfig
    from swann.index.building.build import build_index
    from swann.plan.calibrate import StageTimer, time_query
    from swann.plan.profile import look_at, sample_look
    from swann.searcher import Searcher

    data = prepared(case)
    db = np.array(data.train)
    measure: Any = data.distance_measure
    config = choose_for(db, measure, expand.K, AutopilotConfig())
    assert config.tree is not None
    leaves = round(config.tree.num_leaves * case.times)
    tree = dataclasses.replace(config.tree, num_leaves=leaves, num_leaves_to_search=1)
    config = dataclasses.replace(config, tree=tree)

    memory = Memory(db.nbytes, False)
    peaks: list[float] = []
    timer = StageTimer()

    def progress(stage: str, done: int, total: int) -> None:
        timer.progress(stage, done, total)
        peaks.append(memory.peak())

    start = time.perf_counter()
    packed = build_index(db, config, num_threads=1, progress=progress)
    wall = time.perf_counter() - start
    peak = max([*peaks, memory.peak()]) * db.nbytes
    start = time.perf_counter()
    build_index(db, config, num_threads=2)
    wall_two = time.perf_counter() - start

    queries, others = split(data)
    looks, larger = look_at(packed, db, [_panel(data)], RECALLS, 2)
    searcher = Searcher(packed)
    batch = np.ascontiguousarray(data.test[:1024])
    some = np.sort(np.random.default_rng(1).choice(len(db), SAMPLE, replace=False))
    sample = np.ascontiguousarray(db[some])
    sampled = sample_look(
        sample,
        config,
        0.95,
        others,
        2,
    )
    times = {}
    true = data.neighbors[: 2 * QUERIES : 2, : expand.K]
    for recall, look in zip(RECALLS, looks, strict=True):
        if look is None or recall not in TIMED:
            continue
        found = searcher.search_batched(queries, None, look.candidates, look.leaves).indices
        times[str(recall)] = [
            *time_query(searcher, batch, look.leaves, look.candidates),
            float((found[:, :, None] == true[:, None, :]).any(axis=2).mean()),
        ]
    return {
        "config": config.to_dict(),
        "dimension": db.shape[1],
        "arrays": {name: array.nbytes for name, array in packed.arrays().items()},
        "residual": packed.residual,
        "corrected": packed.corrections is not None,
        "groups": packed.native.num_groups,
        "stages": timer.stages,
        "wall": [wall, wall_two],
        "peak": peak,
        "looks": [None if look is None else list(look) for look in looks],
        "larger": larger,
        "sample": [list(sampled[0]), *sampled[1:]],
        "times": times,
        "spread": spread(packed, queries) if case.n >= 100_000 and case.times == 1.0 else None,
    }


def split(data: PreparedData) -> tuple[Any, Any]:
    """Part queries to measure with and others, for the sample: every second one.

    GloVe's are in the order of their words' frequency, and frequent words are found more easily.
    """
    test = data.test[: 2 * QUERIES]
    return np.ascontiguousarray(test[::2]), np.ascontiguousarray(test[1::2])


def _panel(data: PreparedData) -> Any:
    from swann.autopilot.sample import Panel

    queries, _ = split(data)
    count = len(queries)
    return Panel(
        "real queries",
        1.0,
        queries,
        np.zeros(count, np.int64),
        data.neighbors[: 2 * QUERIES : 2, : expand.K].astype(np.int64),
        np.zeros(count, np.bool_),
        np.zeros(count),
    )


def spread(packed: Any, queries: Any) -> list[list[float]]:
    """Return (shards, leaves, shards visited, share of the busiest), leaves bisected."""
    from swann.autopilot.sample import Panel

    sizes = np.diff(packed.leaf_starts.astype(np.int64))
    panel = Panel("", 1.0, queries, queries[:0], queries[:0], queries[:0], queries[:0])
    from swann.autopilot.measure import leaf_ranks

    _, order = leaf_ranks(packed, panel, 2)
    rows = []
    for shards in SHARDS:
        owner = bisect(packed.centroids, sizes, shards)
        for leaves in (10, 30, 100):
            owners = owner[order[:, :leaves]]
            work = np.zeros((len(queries), shards))
            np.add.at(work, (np.arange(len(queries))[:, None], owners), sizes[order[:, :leaves]])
            busiest = work.max(axis=1) / work.sum(axis=1)
            rows.append([shards, leaves, float((work > 0).sum(axis=1).mean()), busiest.mean()])
    return rows


def bisect(centroids: Any, sizes: Any, shards: int) -> Any:
    """Return a shard of each leaf: halves along the principal direction, of equal entries."""
    owner = np.zeros(len(centroids), np.int64)
    step = shards
    while step > 1:
        step //= 2
        for first in range(0, shards, 2 * step):
            own = np.flatnonzero(owner == first)
            rows = centroids[own] - centroids[own].mean(axis=0)
            direction = np.linalg.svd(rows, full_matrices=False)[2][0]
            order = own[np.argsort(rows @ direction, kind="stable")]
            far = np.cumsum(sizes[order]) > sizes[order].sum() / 2
            owner[order[far]] = first + step
    return owner


# ---- The run


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(cases: list[Case], quietly: list[str]) -> None:
    """Measure each case in a fresh process; what was measured before is kept."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, case in {"calibration": None, **{case.name: case for case in cases}}.items():
        if (FOLDER / f"{name}.json").exists():
            continue
        if case is not None:
            prepared(case)
        _say(name)
        subprocess.run(
            [*quietly, sys.executable, "-m", "benchmarks.plan", "--measure", name],
            cwd=ROOT,
            check=True,
        )


def calibration() -> dict[str, Any]:
    """Measure this machine as `swann plan --calibrate` does, and keep what it saw."""
    from swann.plan.calibrate import measured_machine

    machine_seen, searches = measured_machine()
    seen = [
        [o.config.to_dict(), o.n, o.dimension, list(o.look), o.code_bytes, o.alone, o.batch]
        for o in searches
    ]
    return {"machine": machine_seen.to_dict(), "searches": seen}


def measure_into_file(name: str) -> None:
    """Measure one case, or "calibration"; written whole or not at all."""
    if name == "calibration":
        found = calibration()
    else:
        (case,) = (case for case in CASES if case.name == name)
        found = measure(case) | {"machine": machine.describe(1, 1, "cpu")}
    beside = FOLDER / f"{name}.part"
    beside.write_text(json.dumps(found))
    beside.replace(FOLDER / f"{name}.json")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--measure", metavar="CASE")
    parser.add_argument("--cases", default="", help="only those whose names contain this")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--publish", action="store_true", help="write constants and page")
    parser.add_argument("--quietly", default="", help="a command to run each measurement under")
    options = parser.parse_args()
    if options.measure:
        return measure_into_file(options.measure)
    if not options.report:
        run([case for case in CASES if options.cases in case.name], options.quietly.split())
    from benchmarks.plan_report import report

    report(FOLDER, publish=options.publish)
    return None


if __name__ == "__main__":
    main()

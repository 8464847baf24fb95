"""The share of the core's limits that a search reaches, by stage.

``python -m benchmarks.roofline [--data glove-100,fashion-mnist-784] [--publish]``

For each data set `swann.build` makes an index with its defaults, which is searched on one thread,
one query a call and all in one call. perf samples where the time goes; how many bytes and
operations a query needs follows from the index and the kernels (``work.py``); what the core can do
is measured by a program that does nothing else (``limits.cpp``). Needs an x86 processor with AVX2,
g++ and perf (Debian: linux-perf).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import cast

import numpy as np

import swann
from benchmarks import datasets, machine
from benchmarks.datasets.base import Floats, PreparedData, prepare
from benchmarks.paths import PUBLISHED
from benchmarks.roofline import limits, stages, work
from benchmarks.soar import entries_scored
from benchmarks.tables import short, table
from swann.distance import DistanceMeasure

K = 10
QUERIES = 5000
TITLE = "What the core could do"
EXPLAINED = (
    "For each stage: how long it takes, how many bytes it reads and how many vector operations it "
    "issues, and how long either takes at least: bytes as fast as a loop reads them that does "
    "nothing else, from memory of that size and in such pieces, operations as their ports allow. "
    "Queries that share rows or codes reach more than 100 %. What has no limit here (the call, "
    "selection) counts as nothing in the last row, which is what could be reached at best."
)
MODES = {"one": "one query a call", "batch": "all in one call"}
HEAD = [
    "stage",
    "us a query",
    "%",
    "bytes",
    "operations",
    "us by bytes",
    "by operations",
    "% reached",
]


def sizes_of(searcher: swann.Searcher, queries: Floats) -> work.Sizes | None:
    """Return what a query searches, or None where the index has no tree or no codes."""
    index, config = searcher._index, searcher.config
    if index.centroids is None or index.codes is None or config.reorder is None:
        return None
    assert config.tree is not None
    assert isinstance(config.score, swann.AHConfig)
    leaves, dimension = index.centroids.shape
    entries = entries_scored(searcher, index.reduce(queries), config.tree.num_leaves_to_search)
    return work.Sizes(
        leaves=leaves,
        dimension=dimension,
        entries=entries,
        leaf_bytes=index.codes.nbytes // leaves,
        code_bytes=index.codes.nbytes,
        blocks=-(-dimension // config.score.dimensions_per_block),
        candidates=config.reorder.reordering_num_neighbors,
        row_bytes=4 * index.dimension,
        rows=index.num_datapoints,
    )


def _width(found: limits.Limits) -> str:
    return max(found.operations, key=int)


def of_mode(
    sizes: work.Sizes,
    found: limits.Limits,
    mode: str,
    microseconds: float,
    shares: dict[str, float],
) -> str:
    """Write the table of one way to search."""
    width = _width(found)
    needed = work.of_query(sizes, width, mode == "batch")
    rows, limited = [], 0.0
    for stage in stages.STAGES:
        took = microseconds * shares.get(stage, 0.0)
        row = [stage, short(took), f"{100 * shares.get(stage, 0.0):.0f}"]
        if stage in needed:
            one = needed[stage]
            by_bytes, by_operations = one.by_bytes(found), one.by_operations(found, width)
            limited += max(by_bytes, by_operations)
            reached = f"{100 * max(by_bytes, by_operations) / took:.0f}" if took > 0 else ""
            row += [
                short(one.bytes),
                short(one.all),
                short(by_bytes),
                short(by_operations),
                reached,
            ]
        rows.append(row + [""] * (len(HEAD) - len(row)))
    total = ["all", short(microseconds), "100", "", "", "", short(limited)]
    rows.append([*total, f"{100 * limited / microseconds:.0f}"])
    return f"{MODES[mode]}:\n\n{table(HEAD, rows)}"


def of_data(data: PreparedData, site: Path, seconds: float) -> str:
    """Build an index, search it, and write its section."""
    train, queries = np.asarray(data.train), data.test[:QUERIES]
    measure = cast(DistanceMeasure, data.distance_measure)
    searcher = swann.build(train, K, measure)
    sizes = sizes_of(searcher, queries)
    if sizes is None:
        return f"## {data.name}\n\nThe defaults have no tree or no codes: not measured.\n"
    recall = swann.recall(searcher.search_batched(queries).indices, data.neighbors[:QUERIES, :K])
    needed = [
        one
        for width in work.TOGETHER
        for mode in MODES
        for one in work.of_query(sizes, width, mode == "batch").values()
    ]
    found = limits.measure(sorted({one.pattern for one in needed}))
    width = _width(found)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        searcher.save(folder / "index")
        np.save(folder / "queries.npy", queries)
        tables = [
            of_mode(sizes, found, mode, *stages.measure(site, folder, mode, seconds))
            for mode in MODES
        ]
    can = ", ".join(f"{name} {rate:.1f}" for name, rate in found.operations[width].items())
    about = (
        f"{len(train):,} x {train.shape[1]}, {measure}: {sizes.candidates} candidates of "
        f"{sizes.entries:,.0f} entries scored, recall {recall:.3f}. The core: {found.clock:.2f} "
        f"GHz; operations of {width} bits a nanosecond: {can}."
    )
    return "\n\n".join([f"## {data.name}", about, *tables]) + "\n"


def main() -> None:
    """Measure and print; publish when asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.roofline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="glove-100,fashion-mnist-784", help="names or files")
    parser.add_argument("--seconds", type=float, default=5, help="of each turn (default 5)")
    parser.add_argument("--publish", action="store_true", help="write docs/bench/roofline.md")
    given = parser.parse_args()
    if shutil.which("perf") is None or shutil.which("g++") is None:
        raise SystemExit("needs g++ and perf (Debian: g++, linux-perf)")
    found = [prepare(datasets.find(name)) for name in given.data.split(",")]
    site = stages.install()
    sections = [of_data(data, site, given.seconds) for data in found]
    told = machine.describe(1, 1, "wall")
    names = ",".join(Path(name).name for name in given.data.split(","))
    about = f"{told['cpu']}, {told['date']}: `python -m benchmarks.roofline --data {names}`."
    page = "\n".join([f"# {TITLE}\n\n{about} {EXPLAINED}\n", *sections])
    print(page)
    if given.publish:
        (PUBLISHED / "roofline.md").write_text(page)


if __name__ == "__main__":
    main()

"""Build an index in shards on Ray, and search it while a worker is killed: `make cluster-demo`.

Word vectors lie in four files. Tasks of Ray make an index of four shards of them, which three
actors search that have two replicas of each shard. One actor is killed in the middle. Every answer
is compared with that of the same directory, opened in this process as a plain index.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import glove
import numpy as np
import ray
from rich.console import Console
from rich.table import Table

import swann
from swann.distributed import DistributedSearcher, RayExecutor, build
from swann.distributed.ray_pool import RayPool

FILES, SHARDS, WORKERS, REPLICAS = 4, 4, 3, 2
SAMPLE = 30_000  # vectors to train on
QUERIES = 600

console = Console(highlight=False)


def main() -> None:
    """Build, search, kill, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=Path, help="a .npy file; the demo's words unless given")
    asked = parser.parse_args()
    vectors = np.load(asked.vectors) if asked.vectors else glove.load()[1]
    queries, database = vectors[:QUERIES], vectors[QUERIES:]
    leaves = max(40, int(len(database) ** 0.5))
    config = (
        swann.builder(database, 10, "cosine")
        .tree(leaves, leaves // 20)
        .score_ah(2, 0.2)
        .reorder(100)
        .create_config()
    )
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        for number, part in enumerate(np.array_split(database, FILES)):
            np.save(Path(folder) / f"part-{number}.npy", part)
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        try:
            began = time.monotonic()
            files = f"{folder}/part-*.npy"
            build(
                files, config, index, num_shards=SHARDS, executor=RayExecutor(), sample_rows=SAMPLE
            )
            seconds = time.monotonic() - began
            console.print(
                f"{len(database):,} vectors of {FILES} files, in {SHARDS} shards by tasks of Ray: "
                f"{seconds:.1f} s"
            )
            search(str(index), swann.load(index), queries)
        finally:
            ray.shutdown()


def search(folder: str, built: swann.Searcher, queries: Any) -> None:
    """Search while an actor is killed, and print what happened."""
    wanted = built.search_batched(queries)
    pool = RayPool(num_cpus=0)
    with DistributedSearcher.open(folder, REPLICAS, workers=WORKERS, pool=pool) as searcher:
        console.print(f"{WORKERS} actors of Ray have {REPLICAS} replicas of each shard")
        table = Table("queries", "median ms", "longest ms", "complete", "as one machine", "what")
        third = len(queries) // 3
        for begin in range(0, 3 * third, third):
            what = "all is well"
            if begin == third:
                victim: Any = searcher._fleet.members()[0].handle
                os.kill(victim.pid, signal.SIGKILL)
                what = f"{victim.name} was killed at the first query"
            times, complete, equal = [], 0, 0
            for number in range(begin, begin + third):
                start = time.perf_counter()
                found = searcher.search(queries[number])
                times.append(1e3 * (time.perf_counter() - start))
                complete += found.coverage == 1
                equal += np.array_equal(found.indices, wanted.indices[number])
            if begin == third:
                searcher._fleet.wait_settled(60)
                what += "; another took its place: " + ", ".join(searcher.health()["workers"])
            table.add_row(
                f"{begin} to {begin + third - 1}",
                f"{np.median(times):.2f}",
                f"{max(times):.1f}",
                f"{complete} of {third}",
                f"{equal} of {third}",
                what,
            )
        console.print(table)
        figures = searcher.metrics().figures()
        console.print(
            f"{figures['hedges']} hedged requests, {figures['failovers']} fail-overs, "
            f"{figures['lost_workers']} worker replaced"
        )


if __name__ == "__main__":
    main()

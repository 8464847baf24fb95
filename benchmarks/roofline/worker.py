"""Searches for some seconds when told to, on one CPU: ``worker.py FOLDER one|batch SECONDS``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

import swann

ALONE = 2000
"""Queries of a turn, one a call."""


def main(folder: Path, mode: str, seconds: float) -> None:
    """Say "ready"; search when a line comes; say how many microseconds a query took."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    searcher = swann.load(folder / "index")
    searcher.set_num_threads(1)
    queries = np.load(folder / "queries.npy")
    searcher.search_batched(queries)
    print("ready", flush=True)
    while sys.stdin.readline():
        done, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            if mode == "batch":
                searcher.search_batched(queries)
                done += len(queries)
            else:
                for query in queries[:ALONE]:
                    searcher.search(query)
                done += len(queries[:ALONE])
        print(1e6 * passed / done, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))

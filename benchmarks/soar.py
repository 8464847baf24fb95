"""Datapoints scored for a recall of .95, with and without SOAR: ``python -m benchmarks.soar``.

GloVe-100, cosine, 600 leaves, 200 candidates reordered. For each index the fewest leaves are found
that reach the recall, interpolated between whole numbers, and the entries in them are counted.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import swann
from benchmarks import datasets
from benchmarks.datasets.base import Floats, prepare

TARGET = 0.95
CANDIDATES = 200
LEAVES = (8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 57, 68, 80, 96)


def entries_scored(searcher: swann.Searcher, queries: Floats, leaves: int) -> float:
    """Return the mean number of entries in the leaves that queries visit."""
    index = searcher._index
    assert index.centroids is not None
    scores = queries @ index.centroids.T
    if index.spreads is not None:
        scores = scores + index.spreads
    visited = np.argpartition(-scores, leaves - 1, axis=1)[:, :leaves]
    sizes = np.diff(index.leaf_starts.astype(np.int64))
    return float(sizes[visited].sum(axis=1).mean())


def scored_for(searcher: swann.Searcher, queries: Floats, true: Any) -> float:
    """Return the entries scored where recall reaches the target, interpolated."""
    points = []
    for leaves in LEAVES:
        found = searcher.search_batched(queries, 10, CANDIDATES, leaves).indices
        points.append((swann.recall(found, true), entries_scored(searcher, queries, leaves)))
        print(f"  {leaves:3} leaves: recall {points[-1][0]:.4f}, {points[-1][1]:,.0f} scored")
        if points[-1][0] >= TARGET:
            break
    if points[-1][0] < TARGET:
        return float("nan")
    recalls, scored = zip(*points, strict=True)
    return float(np.interp(TARGET, recalls, scored))


def main() -> None:
    """Build the indexes and print what each scores."""
    argparse.ArgumentParser(prog="python -m benchmarks.soar", description=__doc__).parse_args()
    data = prepare(datasets.find("glove-100"))
    queries, true = data.test, data.neighbors[:, :10]
    results = {}
    spillings: dict[str, dict[str, Any]] = {
        "without SOAR": {},
        "SOAR, lambda 1.0": {"soar_lambda": 1.0},
        "SOAR, lambda 1.5": {"soar_lambda": 1.5},
    }
    for name, spilling in spillings.items():
        print(name)
        builder = swann.builder(data.train, 10, "cosine")
        builder.tree(600, 30, **spilling).score_ah(2, 0.2).reorder(CANDIDATES)
        results[name] = scored_for(builder.build(), queries, true)
    print(f"\nentries scored a query for recall 10@10 of {TARGET}:")
    for name, scored in results.items():
        print(f"  {name:18} {scored:10,.0f}")


if __name__ == "__main__":
    main()

"""swann: tree, anisotropic hashing, reordering."""

# The methods are documented where they are declared, in adapter.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.systems.base import peer
from benchmarks.trust.peers.adapter import Adapter, Answers, Floats, K


class Swann(Adapter):
    """From the tree that runs the campaign."""

    index = "tree, AH, reorder; verify=full"
    is_folder = True

    def build(self, rows: Floats) -> Any:
        leaves = max(4, int(len(rows) ** 0.5))
        builder = peer("swann").builder(rows, K, "squared_l2")
        builder.tree(leaves, max(2, leaves // 4), training_sample_size=len(rows))
        return builder.score_ah(2).reorder(50).set_n_training_threads(1).build()

    def save(self, index: Any, path: Path) -> None:
        index.save(path)

    def load(self, path: Path, dimension: int) -> Any:
        searcher = peer("swann").load(path, verify="full")
        searcher.num_threads = 1
        return searcher

    def search(self, index: Any, queries: Floats) -> Answers:
        return Answers(*index.search_batched(queries, K))


ADAPTER = Swann()

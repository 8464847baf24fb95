"""ScaNN: tree, anisotropic hashing, reordering."""

# The methods are documented where they are declared, in adapter.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.base import peer
from benchmarks.trust.peers.adapter import Adapter, Answers, Floats, K


class Scann(Adapter):
    """As its authors release it."""

    environment = "scann"
    requirements = ("numpy", "scann==1.4.2")
    index = "tree, AH, reorder"
    is_folder = True
    module = "scann.scann_ops.py.scann_ops_pybind"

    def build(self, rows: Floats) -> Any:
        leaves = max(4, int(len(rows) ** 0.5))
        builder = peer(self.module).builder(rows, K, "squared_l2")
        builder.tree(leaves, max(2, leaves // 4), training_sample_size=len(rows))
        return builder.score_ah(2).reorder(50).set_n_training_threads(1).build()

    def save(self, index: Any, path: Path) -> None:
        index.serialize(str(path))

    def load(self, path: Path, dimension: int) -> Any:
        return peer(self.module).load_searcher(str(path))

    def search(self, index: Any, queries: Floats) -> Answers:
        return Answers(*map(np.asarray, index.search_batched(queries, K)))


ADAPTER = Scann()

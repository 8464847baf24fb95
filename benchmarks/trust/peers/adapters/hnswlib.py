"""hnswlib: HNSW."""

# The methods are documented where they are declared, in adapter.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.systems.base import peer
from benchmarks.trust.peers.adapter import Adapter, Answers, Floats, K


class Hnswlib(Adapter):
    """With M = 16."""

    environment = "hnswlib"
    requirements = ("numpy", "hnswlib==0.8.0")
    index = "HNSW"

    def build(self, rows: Floats) -> Any:
        index = peer("hnswlib").Index(space="l2", dim=rows.shape[1])
        index.init_index(max_elements=len(rows), M=16, ef_construction=200, random_seed=100)
        index.add_items(rows, num_threads=1)
        return index

    def save(self, index: Any, path: Path) -> None:
        index.save_index(str(path))

    def load(self, path: Path, dimension: int) -> Any:
        index = peer("hnswlib").Index(space="l2", dim=dimension)
        index.load_index(str(path))
        return index

    def search(self, index: Any, queries: Floats) -> Answers:
        return Answers(*index.knn_query(queries, K, num_threads=1))


ADAPTER = Hnswlib()

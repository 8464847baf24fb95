"""voyager: HNSW."""

# The methods are documented where they are declared, in adapter.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.systems.base import peer
from benchmarks.trust.peers.adapter import Adapter, Answers, Floats, K


class Voyager(Adapter):
    """In float32."""

    environment = "voyager"
    requirements = ("numpy", "voyager==2.2.3")
    index = "HNSW"

    def build(self, rows: Floats) -> Any:
        voyager = peer("voyager")
        index = voyager.Index(voyager.Space.Euclidean, num_dimensions=rows.shape[1])
        index.add_items(rows, num_threads=1)
        return index

    def save(self, index: Any, path: Path) -> None:
        index.save(str(path))

    def load(self, path: Path, dimension: int) -> Any:
        return peer("voyager").Index.load(str(path))

    def search(self, index: Any, queries: Floats) -> Answers:
        return Answers(*index.query(queries, K, num_threads=1))


ADAPTER = Voyager()

"""usearch: HNSW."""

# The methods are documented where they are declared, in adapter.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.base import peer
from benchmarks.trust.peers.adapter import Adapter, Answers, Floats, K


class Usearch(Adapter):
    """In float32."""

    environment = "usearch"
    requirements = ("numpy", "usearch==2.26.6")
    index = "HNSW"

    def build(self, rows: Floats) -> Any:
        index = peer("usearch.index").Index(ndim=rows.shape[1], metric="l2sq", dtype="f32")
        index.add(np.arange(len(rows)), rows, threads=1)
        return index

    def save(self, index: Any, path: Path) -> None:
        index.save(str(path))

    def load(self, path: Path, dimension: int) -> Any:
        index = peer("usearch.index").Index.restore(str(path))
        if index is None:
            raise ValueError("restore returned None")
        return index

    def search(self, index: Any, queries: Floats) -> Answers:
        found = index.search(queries, K, threads=1)
        return Answers(np.array(found.keys), np.array(found.distances))


ADAPTER = Usearch()

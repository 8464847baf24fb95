"""faiss: IVF, fast-scan product quantization, refinement."""

# The methods are documented where they are declared, in adapter.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.systems.base import peer
from benchmarks.trust.peers.adapter import Adapter, Answers, Floats, K


class Faiss(Adapter):
    """The index that is nearest to ScaNN's."""

    environment = "faiss-ivfpq"
    requirements = ("numpy", "faiss-cpu==1.15.1")
    index = "IVF, PQ x4fsr, RFlat"

    def build(self, rows: Floats) -> Any:
        faiss = peer("faiss")
        faiss.omp_set_num_threads(1)
        lists = max(4, int(len(rows) ** 0.5))
        index = faiss.index_factory(rows.shape[1], f"IVF{lists},PQ{rows.shape[1] // 2}x4fsr,RFlat")
        index.train(rows)
        index.add(rows)
        return index

    def save(self, index: Any, path: Path) -> None:
        peer("faiss").write_index(index, str(path))

    def load(self, path: Path, dimension: int) -> Any:
        faiss = peer("faiss")
        faiss.omp_set_num_threads(1)
        return faiss.read_index(str(path))

    def search(self, index: Any, queries: Floats) -> Answers:
        distances, ids = index.search(queries, K)
        return Answers(ids, distances)


ADAPTER = Faiss()

"""faiss: its navigable small-world graph over the float32 vectors."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from typing import Any

from benchmarks.systems.base import Floats, Search, Settings, peer
from benchmarks.systems.faiss_ivfpq import FaissIvfPq


class FaissHnsw(FaissIvfPq):
    """``IndexHNSWFlat``."""

    name = "faiss-hnsw"
    like = "faiss-ivfpq"

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        metric = "METRIC_L2" if distance_measure == "squared_l2" else "METRIC_INNER_PRODUCT"
        return [{"M": 16 if quick else 24, "efConstruction": 200, "metric": metric}]

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        efs = (80, 200) if quick else (20, 40, 80, 140, 240, 400, 600)
        return [{"efSearch": ef} for ef in efs]

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        faiss = peer(self.module)
        faiss.omp_set_num_threads(threads)
        metric = getattr(faiss, settings["metric"])
        index = faiss.IndexHNSWFlat(train.shape[1], settings["M"], metric)
        index.hnsw.efConstruction = settings["efConstruction"]
        index.add(train)
        return index

    def search(self, index: Any, k: int, settings: Settings, threads: int) -> Search:
        index.hnsw.efSearch = max(k, settings["efSearch"])
        ask = index.search
        return Search(lambda q: ask(q[None], k)[1][0], lambda queries: ask(queries, k)[1])


SYSTEM = FaissHnsw()

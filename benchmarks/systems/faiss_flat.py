"""faiss: exhaustive search over the float32 vectors, batches only."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from typing import Any

from benchmarks.systems.base import Floats, Search, Settings, peer
from benchmarks.systems.faiss_ivfpq import FaissIvfPq


class FaissFlat(FaissIvfPq):
    """``IndexFlatIP`` and ``IndexFlatL2``."""

    name = "faiss-flat"
    like = "faiss-ivfpq"
    modes = ("batch",)

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        kind = "IndexFlatL2" if distance_measure == "squared_l2" else "IndexFlatIP"
        return [{"index": kind}]

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        return [{}]

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        index = getattr(peer(self.module), settings["index"])(train.shape[1])
        index.add(train)
        return index

    def search(self, index: Any, k: int, settings: Settings, threads: int) -> Search:
        ask = index.search
        return Search(lambda q: ask(q[None], k)[1][0], lambda queries: ask(queries, k)[1])


SYSTEM = FaissFlat()

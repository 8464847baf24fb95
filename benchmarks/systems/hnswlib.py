"""hnswlib: a navigable small-world graph over the float32 vectors."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.base import Floats, Search, Settings, System, peer


class Hnswlib(System):
    """The graph everybody compares with."""

    name = "hnswlib"
    requirements = ("numpy", "hnswlib==0.8.0")
    module = "hnswlib"

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        common = {"space": "l2" if distance_measure == "squared_l2" else "ip"}
        degrees = [16] if quick else [24, 16]
        return [{"M": m, "ef_construction": 200, **common} for m in degrees]

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        efs = (80, 200) if quick else (20, 40, 80, 140, 240, 400, 600)
        return [{"ef": ef} for ef in efs]

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        index = peer(self.module).Index(space=settings["space"], dim=train.shape[1])
        index.init_index(
            max_elements=len(train),
            M=settings["M"],
            ef_construction=settings["ef_construction"],
            random_seed=100,
        )
        index.set_num_threads(threads)
        index.add_items(train, num_threads=threads)
        return index

    def save(self, index: Any, folder: Path) -> None:
        index.save_index(str(folder / "index.bin"))

    def load(self, folder: Path, train: Path, build: Settings, threads: int) -> Any:
        dim = np.load(train, mmap_mode="r").shape[1]
        index = peer(self.module).Index(space=build["space"], dim=dim)
        index.load_index(str(folder / "index.bin"))
        index.set_num_threads(threads)
        return index

    def search(self, index: Any, k: int, settings: Settings, threads: int) -> Search:
        index.set_ef(max(k, settings["ef"]))
        ask = index.knn_query
        return Search(
            lambda q: ask(q, k, num_threads=1)[0][0],
            lambda queries: ask(queries, k, num_threads=threads)[0],
        )


SYSTEM = Hnswlib()

"""swann, of this working tree."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.systems.base import Floats, Search, Settings, System, leaves_near, peer

THRESHOLD = 0.2


class Swann(System):
    """Tree, anisotropic hashing and float32 reordering."""

    name = "swann"
    requirements = ("numpy", "{root}")
    module = "swann"
    keep_builds = False

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        leaves = leaves_near(n, 1) if quick else leaves_near(n, 1, 1.66, 3.3)
        threshold = {"anisotropic_quantization_threshold": THRESHOLD}
        loss = threshold if distance_measure == "dot_product" else {}
        return [{"num_leaves": count, **loss} for count in leaves]

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        scale = build["num_leaves"] / 600
        pairs = [(30, 60), (50, 100), (120, 200)] if quick else [
            (5, 20), (8, 30), (12, 30), (12, 40), (20, 40), (20, 60), (30, 60), (30, 100),
            (50, 60), (50, 100), (80, 120), (80, 200), (120, 200), (200, 300), (300, 400),
        ]  # fmt: skip
        return [
            {"leaves_to_search": max(1, round(a * scale)), "pre_reorder_num_neighbors": b}
            for a, b in pairs
        ]

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        swann = peer(self.module)
        leaves = settings["num_leaves"]
        threshold = settings.get("anisotropic_quantization_threshold", float("nan"))
        builder = swann.builder(train, 10, distance_measure).tree(leaves, max(1, leaves // 20))
        builder = builder.score_ah(2, anisotropic_quantization_threshold=threshold)
        if settings.get("reorder", True):
            builder = builder.reorder(100)
        return builder.set_n_training_threads(threads).build()

    def save(self, index: Any, folder: Path) -> None:
        index.serialize(str(folder))

    def load(self, folder: Path, train: Path, build: Settings, threads: int) -> Any:
        index = peer(self.module).load_searcher(str(folder))
        index.set_num_threads(threads)
        return index

    def search(self, index: Any, k: int, settings: Settings, threads: int) -> Search:
        leaves = settings["leaves_to_search"]
        before = settings.get("pre_reorder_num_neighbors")
        one = index.search
        batch = index.search_batched if threads == 1 else index.search_batched_parallel
        return Search(
            lambda q: one(q, k, before, leaves)[0],
            lambda queries: batch(queries, k, before, leaves)[0],
        )


SYSTEM = Swann()

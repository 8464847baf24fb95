"""ScaNN as released by its authors."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.systems.base import Floats, Search, Settings, System, leaves_near, peer

THRESHOLD = 0.2


class Scann(System):
    """Tree, anisotropic hashing and float32 reordering, with and without SOAR."""

    name = "scann"
    requirements = ("numpy", "scann==1.4.2")
    module = "scann.scann_ops.py.scann_ops_pybind"

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        middle, fewer, more = leaves_near(n, 1, 0.66, 1.66)
        plain: list[Settings] = [{"num_leaves": leaves} for leaves in (middle, more, fewer)]
        # Anisotropic loss and SOAR are for dot products only.
        if distance_measure != "dot_product":
            return plain[:1] if quick else plain
        plain = [{**p, "anisotropic_quantization_threshold": THRESHOLD} for p in plain]
        soar = [{**p, "soar_lambda": 1.5, "overretrieve_factor": 2.0} for p in plain[:2]]
        return [plain[0], soar[0]] if quick else plain + soar

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        scale = build["num_leaves"] / 600
        pairs = [(30, 60), (50, 100), (120, 200)] if quick else [
            (5, 20), (8, 30), (12, 30), (12, 40), (20, 40), (20, 60), (30, 60), (30, 100),
            (50, 100), (80, 120), (80, 200), (120, 200), (200, 300), (300, 400),
        ]  # fmt: skip
        if "soar_lambda" in build:  # reaches the same recall with fewer leaves
            scale *= 0.7
        return [
            {"leaves_to_search": max(1, round(a * scale)), "pre_reorder_num_neighbors": b}
            for a, b in pairs
        ]

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        api = peer(self.module)
        tree = {**settings}
        threshold = tree.pop("anisotropic_quantization_threshold", float("nan"))
        reorder = tree.pop("reorder", True)
        leaves = tree.pop("num_leaves")
        builder = api.builder(train, 10, distance_measure)
        builder.tree(leaves, max(1, leaves // 20), **tree)
        builder.score_ah(2, anisotropic_quantization_threshold=threshold)
        if reorder:
            builder.reorder(100)
        return builder.set_n_training_threads(threads).build()

    def save(self, index: Any, folder: Path) -> None:
        index.serialize(str(folder))

    def load(self, folder: Path, train: Path, build: Settings, threads: int) -> Any:
        index = peer(self.module).load_searcher(str(folder))
        index.set_num_threads(threads)
        return index

    def search(self, index: Any, k: int, settings: Settings, threads: int) -> Search:
        leaves = settings["leaves_to_search"]
        before = settings.get("pre_reorder_num_neighbors", k)
        one, batch = index.search, index.search_batched_parallel
        # The parallel call works through pieces of 256 queries, which is faster than the plain
        # batched call even on one thread.
        return Search(
            lambda q: one(q, k, before, leaves)[0],
            lambda queries: batch(queries, k, before, leaves)[0],
        )


SYSTEM = Scann()

"""ScaNN as released by its authors."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.systems.base import Floats, Search, Settings, System, leaves_near, peer, scored

THRESHOLD = 0.2


class Scann(System):
    """Tree, anisotropic hashing and float32 reordering, with and without SOAR."""

    name = "scann"
    requirements = ("numpy", "scann==1.4.2")
    module = "scann.scann_ops.py.scann_ops_pybind"

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        middle, more, most = leaves_near(n, 1, 1.66, 3.33)
        trained = {"training_sample_size": n}  # the default of 100,000 costs recall
        if distance_measure == "squared_l2":  # the other settings are for dot products only
            plain = [{"num_leaves": leaves, **trained} for leaves in (middle, more, most)]
            return plain[:1] if quick else plain
        threshold = {"anisotropic_quantization_threshold": THRESHOLD}
        tree = trained | threshold | ({"spherical": True} if distance_measure == "cosine" else {})
        soar = {"soar_lambda": 1.5, "overretrieve_factor": 2.0}
        tried = [
            {"num_leaves": middle, **tree},
            {"num_leaves": most, **tree, "avq": 4.0, **soar},
            {"num_leaves": more, **tree},
            {"num_leaves": more, **tree, **soar},
            {"num_leaves": most, **tree, "avq": 4.0},
        ]
        return tried[:2] if quick else tried

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        scale = build["num_leaves"] / 600
        if "soar_lambda" in build:  # reaches the same recall with fewer leaves
            scale *= 0.6
        pairs = [(20, 60), (45, 80), (120, 200)] if quick else [
            (6, 20), (10, 30), (20, 60), (30, 60), (45, 80), (70, 120), (100, 150), (120, 200),
            (200, 300),
        ]  # fmt: skip
        return [
            {"leaves_to_search": max(1, round(a * scale)), "pre_reorder_num_neighbors": b}
            for a, b in pairs
        ]

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        tree = dict(settings)
        threshold = tree.pop("anisotropic_quantization_threshold", float("nan"))
        reorder = tree.pop("reorder", True)
        leaves = tree.pop("num_leaves")
        builder = peer(self.module).builder(train, 10, scored(distance_measure))
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

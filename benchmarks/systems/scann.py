"""ScaNN as released by its authors."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.systems.base import (
    BRUTE_FORCE,
    Floats,
    Search,
    Settings,
    System,
    leaves_near,
    peer,
    scored,
    tree_searches,
)

THRESHOLD = 0.2


class Scann(System):
    """Tree, anisotropic hashing and reordering, with and without SOAR."""

    name = "scann"
    requirements = ("numpy", "scann==1.4.2")
    module = "scann.scann_ops.py.scann_ops_pybind"

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        middle, more, most = leaves_near(n, 1, 1.66, 3.33)
        trained: Settings = {"training_sample_size": n}  # the default of 100,000 costs recall
        if distance_measure == "squared_l2":  # the other settings are for dot products only
            short: Settings = {"dimensions_per_block": 4, "reorder": "BFLOAT16"}
            plain: list[Settings] = [
                {"num_leaves": leaves, **trained, **codes}
                for leaves in (middle, more)
                for codes in (Settings(), short)
            ]
            rows = {"num_leaves": middle, **trained, "score": BRUTE_FORCE}
            return plain[:2] if quick else [*plain, rows]
        threshold = {"anisotropic_quantization_threshold": THRESHOLD}
        trained |= {"spherical": True} if distance_measure == "cosine" else {}
        tree = trained | threshold
        soar = {"soar_lambda": 1.5, "overretrieve_factor": 2.0}
        tried: list[Settings] = [
            {"num_leaves": middle, **tree},
            {"num_leaves": most, **tree, "avq": 4.0, **soar},
            {"num_leaves": more, **tree},
            {"num_leaves": more, **tree, **soar},
            {"num_leaves": most, **tree, "avq": 4.0},
            {"num_leaves": middle, **tree, **soar},
            {"num_leaves": more, **tree, **soar, "reorder": "BFLOAT16"},
            {"num_leaves": middle, **trained, "score": BRUTE_FORCE},
        ]
        return tried[:2] if quick else tried

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        return tree_searches(build, quick)

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        tree = dict(settings)
        threshold = tree.pop("anisotropic_quantization_threshold", float("nan"))
        reorder = tree.pop("reorder", "FLOAT32")
        leaves = tree.pop("num_leaves")
        block = tree.pop("dimensions_per_block", 2)
        builder = peer(self.module).builder(train, 10, scored(distance_measure))
        if tree.pop("score", None) == BRUTE_FORCE:
            builder.tree(leaves, max(1, leaves // 20), **tree).score_brute_force()
            return builder.set_n_training_threads(threads).build()
        builder.tree(leaves, max(1, leaves // 20), **tree)
        builder.score_ah(block, anisotropic_quantization_threshold=threshold)
        if reorder:
            types = importlib.import_module("scann.scann_ops.py.scann_builder").ReorderType
            builder.reorder(100, quantize=types[reorder])
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

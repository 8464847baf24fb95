"""swann, of this working tree."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

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


class Swann(System):
    """Tree, anisotropic hashing and reordering, in float32 unless ``reorder`` says less."""

    name = "swann"
    requirements = ("numpy", "{root}")
    module = "swann"
    keep_builds = False

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        middle, more, most = leaves_near(n, 1, 1.66, 3.33)
        if distance_measure == "squared_l2":
            short: Settings = {"dimensions_per_block": 4, "reorder": "BFLOAT16"}
            plain = [{"num_leaves": middle}, {"num_leaves": middle, **short}]
            # Peers gain nothing by it: scann refuses, scann-core scans all dimensions as before.
            # Nor by rows in int8, which cost them .02 of recall and are no faster.
            fewer = {"pca_significance_threshold": 0.92}
            return plain if quick else [
                *plain,
                {"num_leaves": more},
                {"num_leaves": more, **short},
                {"num_leaves": middle, **fewer, "reorder": "BFLOAT16"},
                {"num_leaves": middle, **fewer, "reorder": "INT8"},
                {"num_leaves": middle, "pca_significance_threshold": 0.88, "reorder": "INT8"},
                {"num_leaves": middle, "score": BRUTE_FORCE},
            ]  # fmt: skip
        threshold = {"anisotropic_quantization_threshold": THRESHOLD}
        soar = {"soar_lambda": 1.5, "overretrieve_factor": 1.5, "training_sample_size": n}
        tried: list[Settings] = [
            {"num_leaves": middle, **threshold},
            {"num_leaves": most, **threshold, **soar},
            {"num_leaves": middle, **threshold, **soar},
            {"num_leaves": more, **threshold, **soar},
            {"num_leaves": more, **threshold, "dimensions_per_block": 3, "reorder": "INT8"},
            {"num_leaves": more, **threshold, **soar, "reorder": "BFLOAT16"},
            {"num_leaves": middle, **threshold, **soar, "reorder": "BFLOAT16"},
            {"num_leaves": middle, "training_sample_size": n, "score": BRUTE_FORCE},
        ]
        return tried[:2] if quick else tried

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        found = tree_searches(build, quick)
        if build.get("reorder") == "INT8" and build.get("dimensions_per_block") == 3:
            # Made for few bytes: short codes take many candidates.
            leaves = build["num_leaves"]
            found += [
                {"leaves_to_search": round(leaves * share), "pre_reorder_num_neighbors": kept}
                for share, kept in ((0.4, 800), (0.4, 1600), (0.5, 2400))
            ]
        return found

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        return self.builder(train, distance_measure, settings, threads).build()

    def builder(
        self, train: Floats, distance_measure: str, settings: Settings, threads: int
    ) -> Any:
        """Return what builds an index of these settings."""
        tree = dict(settings)
        threshold = tree.pop("anisotropic_quantization_threshold", float("nan"))
        reorder = tree.pop("reorder", "FLOAT32")
        leaves = tree.pop("num_leaves")
        block = tree.pop("dimensions_per_block", 2)
        variance = tree.pop("pca_significance_threshold", None)
        swann = peer(self.module)
        builder = swann.builder(train, 10, scored(distance_measure))
        if tree.pop("score", None) == BRUTE_FORCE:
            builder.tree(leaves, max(1, leaves // 20), **tree).score_brute_force()
            return builder.set_n_training_threads(threads)
        builder.tree(leaves, max(1, leaves // 20), **tree)
        if variance is not None:
            builder.pca(None, variance, 0.6)
        builder.score_ah(block, anisotropic_quantization_threshold=threshold)
        if reorder:
            # Rows in int8 are rounded by the same loss; others cannot be.
            loss = threshold if reorder == "INT8" else float("nan")
            builder.reorder(100, swann.ReorderType[reorder], loss)
        return builder.set_n_training_threads(threads)

    def save(self, index: Any, folder: Path) -> None:
        index.serialize(str(folder))

    def load(self, folder: Path, train: Path, build: Settings, threads: int) -> Any:
        index = peer(self.module).load_searcher(str(folder), memory_map=False)
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

    def resident(self, index: Any, folder: Path) -> int:
        return int(index.nbytes)

    def level(self) -> str:
        return str(peer("swann.kernels").active_level())


SYSTEM = Swann()

"""Every other argument of the builder, on real data: recall at equal settings."""

from __future__ import annotations

from typing import Any

from benchmarks.parity.case import Answer, Case, Lib
from benchmarks.parity.cases.matrix import cell
from benchmarks.parity.data import NAMES

# What to change, and whether ScaNN's tree needs dot products for it.
TREES: dict[str, dict[str, Any]] = {
    "spherical": {"spherical": True},
    "quantize_centroids": {"quantize_centroids": True},
    "random_init=False": {"random_init": False},
    "training_sample_size=2000": {"training_sample_size": 2000},
    "training_iterations=3": {"training_iterations": 3},
    "min_partition_size=1": {"min_partition_size": 1},
    "incremental_threshold=500": {"incremental_threshold": 500},
    "avq=2": {"avq": 2.0},
    "avq=4, SOAR": {"avq": 4.0, "soar": (1.5, 2.0)},
}
AH: dict[str, dict[str, Any]] = {
    "lut256": {"hash_type": "lut256"},
    "lut256 without a tree": {"hash_type": "lut256", "tree": False},
    "lut256, reorder": {"hash_type": "lut256", "reorder": "FLOAT32"},
    "3 dimensions a block": {"dimensions_per_block": 3},
    "4 dimensions a block, reorder": {"dimensions_per_block": 4, "reorder": "FLOAT32"},
    "1 dimension a block": {"dimensions_per_block": 1},
}
REORDERS: dict[str, dict[str, Any]] = {
    "int8 with a threshold": {"reorder": "INT8", "reorder_threshold": 0.2},
    "bf16 with a threshold": {"reorder": "BFLOAT16", "reorder_threshold": 0.2},
}
PROJECTIONS: dict[str, dict[str, Any]] = {
    "pca(32)": {"pca": 32, "reorder": "FLOAT32"},
    "pca by significance": {"pca": None, "reorder": "FLOAT32"},
    "truncate(32)": {"truncate": 32, "reorder": "FLOAT32"},
    "pca(32) without a tree": {"pca": 32, "reorder": "FLOAT32", "tree": False},
    "truncate(32) without a tree": {"truncate": 32, "reorder": "FLOAT32", "tree": False},
    "pca(32), brute force": {"pca": 32, "ah": False},
}
UPPER: dict[str, dict[str, Any]] = {
    "upper_tree": {"upper": {}},
    "upper_tree, SOAR": {"upper": {}, "soar": (1.5, 2.0)},
    "upper_tree with SOAR": {"upper": {"soar_lambda": 1.5}},
    "upper_tree float32": {"upper": {"scoring_mode": "FLOAT32"}},
    "upper_tree bf16": {"upper": {"scoring_mode": "BFLOAT16"}},
}


def _cases(kind: str, data: str, options: dict[str, dict[str, Any]]) -> list[Case]:
    def make(name: str, stages: dict[str, Any]) -> Case:
        def run(lib: Lib, cut: Any) -> Answer:
            return cell(
                lib, cut, **({"reorder": "FLOAT32"} if kind in ("tree", "upper") else {}) | stages
            )

        return Case(f"{kind}/{data}/{name}", run, data, quick=data == "glove-100")

    # Training 256 codewords a block in hundreds of dimensions takes ScaNN most of a minute.
    slow = data in ("fashion-mnist-784", "lm-head-smollm2")
    return [
        make(name, stages)
        for name, stages in options.items()
        if not (slow and name.startswith(("lut256 ", "lut256,")))
    ]


CASES = [
    case
    for kind, options in {
        "tree": TREES,
        "score_ah": AH,
        "reorder": REORDERS,
        "projection": PROJECTIONS,
        "upper": UPPER,
    }.items()
    for data in NAMES
    for case in _cases(kind, data, options)
]

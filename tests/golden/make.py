"""Saves the golden indexes of the format version that this swann writes.

They stay in the repository for as long as swann reads that version; `test_store.py` loads them.
``python tests/golden/make.py`` makes those that are missing: of a new version, or of a new feature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import swann
from swann import ReorderType
from swann.index import rows
from swann.index.disk.store import FORMAT_VERSION


def main() -> None:
    root = Path(__file__).parent / f"v{FORMAT_VERSION}"
    rng = np.random.default_rng(0)
    middles = 3 * rng.standard_normal((8, 6))
    db = (middles[rng.integers(8, size=90)] + rng.standard_normal((90, 6))).astype(np.float32)
    queries = (middles + rng.standard_normal((8, 6))).astype(np.float32)
    tree: dict[str, Any] = {"num_leaves": 5, "num_leaves_to_search": 3, "min_partition_size": 1}
    builders = {
        "tree_ah_reorder_dot_product": swann.builder(db, 4, "dot_product")
        .tree(**tree)
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(30),
        "tree_ah_squared_l2": swann.builder(db, 4, "squared_l2").tree(**tree).score_ah(4),
        "ah_cosine": swann.builder(db, 4, "cosine").score_ah(1),
        "brute_force_squared_l2": swann.builder(db, 4, "squared_l2").score_brute_force(),
    }
    many = (middles[rng.integers(8, size=200)] + rng.standard_normal((200, 6))).astype(np.float32)
    short = swann.builder(many, 4, "squared_l2").tree(**tree).score_ah(2)
    short.reorder(30, ReorderType.INT8)
    builders["tree_ah_int8_squared_l2"] = builders["tree_ah_int8_from_zero_squared_l2"] = short
    for name, builder in builders.items():
        if (root / name).exists():
            continue  # a golden index never changes
        if "from_zero" in name:  # as versions did that knew no origins
            rows._ROWS_AN_ORIGIN = len(many)
        searcher = builder.build()
        found = searcher.search_batched(queries)
        searcher.serialize(root / name)
        np.savez(
            root / name / "answers.npz",
            queries=queries,
            indices=found.indices,
            distances=found.distances,
        )


if __name__ == "__main__":
    main()

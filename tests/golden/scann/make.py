"""Saves small indexes that ScaNN 1.4.2 serialized, with its answers, for `test_load_scann.py`.

Needs the `scann` wheel, not swann: ``python tests/golden/scann/make.py [directory]``. Without a
directory, the indexes are written beside this file, where they stay for as long as swann reads
what ScaNN 1.4.2 wrote. With one, all is written there, from other random numbers.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scann
from scann.scann_ops.py import scann_ops_pybind

N, D, K, LEAVES = 150, 10, 5, 7

Make = Callable[[np.ndarray, str], Any]
BF16 = scann.ReorderType.BFLOAT16


def tree(b: Any, **options: Any) -> Any:
    return b.tree(LEAVES, 3, min_partition_size=1, **options)


def hashed(b: Any, width: int = 2, **options: Any) -> Any:
    return b.score_ah(width, 0.2, **options)


DOT: dict[str, Callable[[Any], Any]] = {
    "brute_force": lambda b: b.score_brute_force(),
    "brute_force_int8": lambda b: b.score_brute_force(True),
    "brute_force_int8_reorder": lambda b: b.score_brute_force(True).reorder(40),
    "brute_force_int8_reorder_bf16": lambda b: b.score_brute_force(True).reorder(40, BF16),
    "brute_force_bf16": lambda b: b.score_brute_force(BF16),
    "ah": lambda b: hashed(b),
    "ah_reorder": lambda b: hashed(b, 3).reorder(40),
    "ah_lut256": lambda b: hashed(b, 4, hash_type="lut256").reorder(20),
    "tree_ah": lambda b: hashed(tree(b), 4),
    "tree_ah_datapoints": lambda b: hashed(tree(b), residual_quantization=False),
    "tree_ah_reorder": lambda b: hashed(tree(b)).reorder(40),
    "tree_ah_int8": lambda b: hashed(tree(b)).reorder(40, True),
    "tree_ah_bf16": lambda b: hashed(tree(b)).reorder(40, BF16),
    "tree_brute_force": lambda b: tree(b).score_brute_force(),
    "tree_brute_force_int8": lambda b: tree(b).score_brute_force(True),
    "tree_lut256": lambda b: hashed(tree(b), 4, hash_type="lut256"),
    "tree_spherical_int8_centroids": lambda b: hashed(
        tree(b, spherical=True, quantize_centroids=True)
    ),
    "tree_avq": lambda b: hashed(tree(b, avq=2.0)),
    "soar": lambda b: hashed(tree(b, soar_lambda=1.5)),
    "soar_reorder": lambda b: hashed(
        tree(b, soar_lambda=1.2, overretrieve_factor=1.4, incremental_threshold=0.1), 3
    ).reorder(40),
    "soar_brute_force": lambda b: tree(b, soar_lambda=1.5).score_brute_force(),
    "soar_lut256": lambda b: hashed(tree(b, soar_lambda=1.5), 5, hash_type="lut256"),
    "docids": lambda b: hashed(tree(b)).reorder(40),
    "updated": lambda b: hashed(tree(b)).reorder(40),
    "upper_tree": lambda b: hashed(tree(b).upper_tree(3, 3)).reorder(40),
    "truncate": lambda b: hashed(tree(b).truncate(6)).reorder(40),
    "pca": lambda b: hashed(tree(b).pca(reduction_dim=6, pca_significance_threshold=None)).reorder(
        40
    ),
    "pca_threshold": lambda b: hashed(tree(b).pca()),
    "few": lambda b: hashed(b),
}
L2: dict[str, Callable[[Any], Any]] = {
    "brute_force_l2": lambda b: b.score_brute_force(),
    "brute_force_int8_l2": lambda b: b.score_brute_force(True),
    "ah_reorder_l2": lambda b: hashed(b).reorder(40),
    "tree_ah_l2": lambda b: hashed(tree(b)),
    "tree_ah_reorder_l2": lambda b: hashed(tree(b)).reorder(40),
    "tree_ah_int8_l2": lambda b: hashed(tree(b)).reorder(40, True),
    "tree_lut256_l2": lambda b: hashed(tree(b), 4, hash_type="lut256"),
}


def main(root: Path, seed: int) -> None:
    for measure, makers in (("dot_product", DOT), ("squared_l2", L2)):
        for number, (name, make) in enumerate(makers.items()):
            if (root / name).exists():
                continue  # a golden index never changes; ScaNN would not make the same one again
            rng = np.random.default_rng([seed, *name.encode()])
            middles = 3 * rng.standard_normal((12, D))
            count = 10 if name == "few" else 2 * N if "lut256" in name else N
            db = middles[rng.integers(12, size=count)] + rng.standard_normal((count, D))
            queries = (middles + rng.standard_normal((12, D)))[:6].astype(np.float32)
            save(root / name, name, make, db.astype(np.float32), queries, measure, number % 2 == 0)


def save(
    out: Path,
    name: str,
    make: Callable[[Any], Any],
    db: np.ndarray,
    queries: np.ndarray,
    measure: str,
    relative: bool,
) -> None:
    docids = None
    if name in ("docids", "updated"):
        docids = [f"döc {i}" for i in range(len(db))]
    searcher = make(scann_ops_pybind.builder(db, K, measure)).build(docids=docids)
    if name == "updated":
        searcher.upsert(["new", "döc 5"], db[:2] + np.float32(0.25))
        db = np.concatenate([db, db[:1] + np.float32(0.25)])
        db[5] = db[1] + np.float32(0.25)
        searcher.delete(["döc 7"])
        db[7], db = db[-1], db[:-1]
    # A plain path, whatever machine this runs on: it stands in the list of assets.
    with tempfile.TemporaryDirectory(prefix="scann-") as made:
        moved = Path(made) / "index"
        moved.mkdir()
        searcher.serialize(str(moved), relative_path=relative)
        shutil.copytree(moved, out, dirs_exist_ok=True)
    raw = searcher.searcher
    default = raw.search_batched(queries, -1, -1, -1, False, 0)
    # Everything: all datapoints of all leaves, so that no score is missed. Told how many leaves to
    # search, ScaNN dies where there is no tree, or rows of int8 and no codes.
    leaves = LEAVES if "partitioning" in searcher.config() and "brute_force" not in name else -1
    full = raw.search_batched(queries, len(db), 2 * len(db), leaves, False, 0)
    np.savez_compressed(
        out / "answers.npz",
        queries=queries,
        indices=default[0].astype(np.int16),
        distances=default[1],
        full_indices=full[0].astype(np.int16),
        full_distances=full[1],
    )
    if searcher.docids is not None:
        (out / "docids.json").write_text(json.dumps(searcher.docids))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), seed=int(np.random.SeedSequence().generate_state(1)[0]))
    else:
        main(Path(__file__).parent, seed=0)

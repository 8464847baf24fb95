"""Small indexes of every kind, saved: what mutants are made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import swann
from swann import Builder, ReorderType, Searcher

N, D = 130, 6  # enough rows for int8 ones to have origins
_RNG = np.random.default_rng(1)
DB = _RNG.standard_normal((N, D)).astype(np.float32)
QUERIES = _RNG.standard_normal((3, D)).astype(np.float32)
NAMES = [f"ä{i}" for i in range(N)]
INTS = list(range(5, N + 5))

_TREE: dict[str, Any] = {"num_leaves": 6, "num_leaves_to_search": 3, "min_partition_size": 1}

BUILDERS: dict[str, Callable[[Builder], Builder]] = {
    "brute force": lambda b: b.score_brute_force(),
    "brute force, bfloat16": lambda b: b.score_brute_force(ReorderType.BFLOAT16),
    "brute force, int8": lambda b: b.score_brute_force(ReorderType.INT8),
    "tree": lambda b: b.tree(**_TREE).score_brute_force(),
    "AH 16": lambda b: b.score_ah(2).reorder(20),
    "AH 256": lambda b: b.score_ah(3, hash_type="lut256").reorder(20),
    "tree, AH 16": lambda b: b.tree(**_TREE).score_ah(2).reorder(20),
    "tree, AH 16, no reordering": lambda b: b.tree(**_TREE).score_ah(2),
    "SOAR, int8": lambda b: (
        b.tree(**_TREE, soar_lambda=1.0)
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(20, ReorderType.INT8)
    ),
    "upper tree, AH 256": lambda b: (
        b.tree(**_TREE).upper_tree(2, 2).score_ah(3, hash_type="lut256")
    ),
    "upper tree, SOAR": lambda b: (
        b.tree(**_TREE).upper_tree(3, 2, soar_lambda=1.0).score_ah(2).reorder(20)
    ),
    "int8 centroids, avq": lambda b: (
        b.tree(**_TREE, avq=2.0, quantize_centroids=True).score_ah(2).reorder(20)
    ),
    "pca, bfloat16": lambda b: b.pca(4).tree(**_TREE).score_ah(2).reorder(20, ReorderType.BFLOAT16),
}
_MEASURES = ("dot_product", "squared_l2", "cosine")


def save_all(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Build and save one index a name: each builder, with measures, docids and forms in turn."""
    saved: dict[str, Path] = {}
    for i, (name, prepare) in enumerate(BUILDERS.items()):
        for j, form in enumerate(("directory", "file")):
            measure = _MEASURES[(i + j) % 3]
            if "SOAR" in name:
                measure = "dot_product"
            if name in ("tree, AH 16", "pca, bfloat16"):
                measure = ("squared_l2", "dot_product")[j]
            docids = (None, NAMES, INTS)[(i + 2 * j) % 3]
            searcher = prepare(swann.builder(DB, 4, measure).seed(seed)).build(docids=docids)  # type: ignore[arg-type]
            if docids is None:  # row ids that have gaps are kept, too
                searcher.delete([3, N - 1])
                searcher.upsert(None, DB[:2])
            path = folder / f"{i}-{j}{'.swann' * j}"
            searcher.save(path)
            saved[f"{name}, {measure}, {form}"] = path
    return saved


def steps(searcher: Searcher) -> Iterator[None]:
    """Change an index with docids, change by change."""
    for i in range(6):
        searcher.upsert([NAMES[i], f"new {i}"], DB[:2] + np.float32(i))
        yield
        searcher.delete(NAMES[10 + i])
        yield


def save_with_log(folder: Path, closed: bool) -> Path:
    """Save an index that has a log; one that was not closed is as a killed process leaves it."""
    path = folder / ("closed" if closed else "killed")
    begun = folder / "begun"
    swann.builder(DB, 4, "squared_l2").tree(**_TREE).score_ah(2).reorder(20).build(
        docids=NAMES
    ).save(begun)
    with swann.open(begun, durability="none") as searcher:
        for _ in steps(searcher):
            pass
        if not closed:
            searcher.flush()
            shutil.copytree(begun, path)
    if closed:
        shutil.copytree(begun, path)
    shutil.rmtree(begun)
    return path


def answers(searcher: Searcher) -> Any:
    """Return all that can be seen of an index, to be compared."""
    found = searcher.search_batched(QUERIES, 4, 20, 6)
    return found.indices.tolist(), found.distances.tobytes(), searcher.docids, searcher.config


def states_with_log() -> list[Any]:
    """Return the answers of all states that the log leads through, the last one last."""
    searcher = (
        swann.builder(DB, 4, "squared_l2").tree(**_TREE).score_ah(2).reorder(20)
    ).build(docids=NAMES)  # fmt: skip
    found = [answers(searcher)]
    for _ in steps(searcher):
        found.append(answers(searcher))
    return found

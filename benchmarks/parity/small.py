"""Small made-up data, and the pipelines that most cases run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.parity.case import K, Lib

Floats = npt.NDArray[np.float32]

N, D = 1234, 16
MEASURES = ("dot_product", "squared_l2")

Stages = Callable[[Lib, Any], Any]


def unit(rows: Floats) -> Floats:
    """Rows of length one."""
    scaled: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def points(n: int = N, seed: int = 0, d: int = D) -> Floats:
    """Datapoints of shape (n, d) in loose clusters, of unit length."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((20, d))
    rows = centers[random.integers(20, size=n)] + random.standard_normal((n, d))
    return unit(rows.astype(np.float32))


DB = points()
QUERIES = points(300, seed=1)


def true_neighbors(
    db: Floats, queries: Floats, measure: str, k: int = K
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Ids and distances of the k nearest rows, in float64."""
    rows, asked = db.astype(np.float64), queries.astype(np.float64)
    if measure == "squared_l2":
        distances = ((asked[:, None] - rows[None]) ** 2).sum(-1)
    else:
        distances = -(asked @ rows.T)
    ids = np.argsort(distances, axis=1, kind="stable")[:, :k]
    nearest = np.take_along_axis(distances, ids, axis=1)
    return ids, nearest if measure == "squared_l2" else -nearest


def tree(leaves: int = 20, searched: int = 20, **more: Any) -> Stages:
    """Add a tree of these leaves, without a least size of leaves."""
    return lambda lib, b: b.tree(leaves, searched, min_partition_size=1, **more)


def ah(lib: Lib, b: Any) -> Any:
    """Codes of two dimensions a block under the anisotropic loss."""
    return b.score_ah(2, anisotropic_quantization_threshold=0.2)


def brute(quantize: str = "FLOAT32") -> Stages:
    """Whole datapoints."""
    return lambda lib, b: b.score_brute_force(getattr(lib.ReorderType, quantize))


def reorder(quantize: str = "FLOAT32", candidates: int = 60) -> Stages:
    """Rows to reorder by."""
    return lambda lib, b: b.reorder(candidates, getattr(lib.ReorderType, quantize))


PIPELINES: dict[str, tuple[Stages, ...]] = {
    "brute force": (brute(),),
    "brute force int8": (brute("INT8"),),
    "brute force bf16": (brute("BFLOAT16"),),
    "AH": (ah,),
    "AH reorder": (ah, reorder()),
    "tree brute force": (tree(), brute()),
    "tree brute force int8": (tree(), brute("INT8")),
    "tree AH": (tree(), ah),
    "tree AH reorder": (tree(), ah, reorder()),
    "tree AH reorder int8": (tree(), ah, reorder("INT8")),
    "tree AH reorder bf16": (tree(), ah, reorder("BFLOAT16")),
    "SOAR AH reorder": (tree(soar_lambda=1.5), ah, reorder()),
    "SOAR(1.5, 1.2) AH reorder": (tree(soar_lambda=1.5, overretrieve_factor=1.2), ah, reorder()),
}


def build(
    lib: Lib,
    stages: tuple[Stages, ...],
    db: Any = DB,
    measure: str = "dot_product",
    docids: list[str] | None = None,
) -> Any:
    """Build an index of these stages."""
    builder = lib.builder(db, measure)
    for stage in stages:
        stage(lib, builder)
    return builder.build(docids=docids) if docids is not None else builder.build()


def named(n: int = N) -> list[str]:
    """Docids "d0", "d1", ..."""
    return [f"d{i}" for i in range(n)]

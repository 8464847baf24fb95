"""Small data and the configurations of the conformance tests."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import swann
from swann import Builder, ReorderType, Searcher

Measure = Literal["dot_product", "squared_l2", "cosine"]

N, D, K = 1234, 16, 10
MEASURES: tuple[Measure, ...] = ("dot_product", "squared_l2", "cosine")


def points(n: int, seed: int) -> NDArray[np.float32]:
    """Loose clusters, of lengths around 1: all three measures have something to do."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((20, D))[random.integers(20, size=n)]
    rows += random.standard_normal((n, D))
    rows *= random.uniform(0.7, 1.4, (n, 1)) / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


DB = points(N, 0)
QUERIES = points(60, 1)


def truth(
    db: NDArray[np.float32], queries: NDArray[np.float32], measure: Measure, k: int = K
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids and distances of the k nearest rows, in float64."""
    rows, asked = db.astype(np.float64), queries.astype(np.float64)
    if measure == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    if measure == "squared_l2":
        keys = ((asked[:, None] - rows[None]) ** 2).sum(-1)
    else:
        keys = -(asked @ rows.T)
    ids = np.argsort(keys, axis=1, kind="stable")[:, :k]
    nearest = np.take_along_axis(keys, ids, axis=1)
    return ids, nearest if measure == "squared_l2" else -nearest


@dataclass(frozen=True)
class Cell:
    """One configuration of the matrix."""

    tree: bool = True
    ah: bool = True
    reorder: str | None = "FLOAT32"  # or, without AH, the precision of brute force
    soar: tuple[float, float] | None = None
    upper: bool = False

    def __str__(self) -> str:
        tree = ["tree"] if self.tree else []
        soar = [f"soar{self.soar[0]}-{self.soar[1]}"] if self.soar else []
        upper = ["upper"] if self.upper else []
        return "+".join(
            [*tree, *upper, *soar, "ah" if self.ah else "bf", str(self.reorder).lower()]
        )

    def builder(self, db: Any, measure: Measure, leaves: int = 25, k: int = K) -> Builder:
        """A builder of this configuration; every leaf is searched, 100 candidates reordered."""
        builder = swann.builder(db, k, measure)
        if self.tree:
            soar_lambda, factor = self.soar or (None, None)
            builder.tree(
                leaves,
                leaves,
                min_partition_size=1,
                soar_lambda=soar_lambda,
                overretrieve_factor=factor,
            )
            if self.upper:
                builder.upper_tree(5, 5)
        if not self.ah:
            return builder.score_brute_force(ReorderType[self.reorder or "FLOAT32"])
        builder.score_ah(2, anisotropic_quantization_threshold=0.2)
        return builder.reorder(100, ReorderType[self.reorder]) if self.reorder else builder

    def build(
        self, db: Any = DB, measure: Measure = "dot_product", docids: Any = None, **rest: Any
    ) -> Searcher:
        """A searcher of this configuration."""
        return self.builder(db, measure, **rest).build(docids)

    @property
    def exact(self) -> bool:
        """Whether the distances are those of float32 rows."""
        return self.reorder == "FLOAT32"


ROWS = ("FLOAT32", "BFLOAT16", "INT8")
SOARS = (None, (1.5, 2.0), (1.5, 1.2))

MATRIX = [
    *(Cell(tree=False, ah=False, reorder=rows) for rows in ROWS),
    *(Cell(tree=False, reorder=rows) for rows in (None, *ROWS)),
    *(
        Cell(ah=ah, reorder=rows, soar=soar, upper=upper)
        for upper, soar, ah, rows in itertools.product(
            (False, True), SOARS, (True, False), (None, *ROWS)
        )
        if ah or rows
    ),
]
"""Tree x AH x reordering x SOAR x upper tree."""

UPDATABLE = [
    Cell(tree=False, ah=False),
    Cell(ah=False, reorder="INT8"),
    Cell(reorder=None),
    Cell(),
    Cell(reorder="BFLOAT16"),
    Cell(soar=(1.5, 2.0)),
]
"""Configurations that the tests of updates go through."""


def named(n: int = N, first: int = 0) -> list[str]:
    """Docids "d0", "d1", ..."""
    return [f"d{i}" for i in range(first, first + n)]


def recall(found: Any, true: NDArray[np.int64]) -> float:
    """Recall of row ids, or of docids as `named` makes them."""
    rows = np.asarray(found)
    if rows.dtype.kind != "i":
        rows = np.array([[int(docid[1:]) for docid in row] for row in rows])
    return float((rows[:, :, None] == true[:, None, :]).any(axis=1).mean())

"""Rows that are scored one by one, in one of three precisions.

Rows in int8 are counted from the nearest of some origins where there are many of them: what is
left of a row has a smaller range, and its rounding a smaller step. An origin takes a byte a row,
and a query one more dot product for each candidate, or for each origin where these are fewer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import ReorderType
from swann.distance import SQUARED_L2
from swann.index.source import Source
from swann.partition.kmeans import train_centroids

__all__ = ["RowArrays", "num_origins", "row_shapes", "train_origins"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

_MOST_ORIGINS = 256  # their numbers have a byte
_ORIGIN_BYTES = 1 << 16  # that all of them take: they stay in the near caches
_ROWS_AN_ORIGIN = 64
_ROWS_TO_TRAIN = 128  # an origin
_ITERATIONS = 8


def num_origins(count: int, dimension: int) -> int:
    """Return how many origins int8 rows have; 0: they are counted from zero.

    Examples
    --------
    >>> num_origins(1_000_000, 100), num_origins(1_000_000, 1536), num_origins(50, 100)
    (163, 10, 0)
    """
    most = min(_MOST_ORIGINS, _ORIGIN_BYTES // (4 * dimension), count // _ROWS_AN_ORIGIN)
    return most if most > 1 else 0


def train_origins(source: Source, precision: ReorderType) -> F32 | None:
    """Train what int8 rows are counted from; None for other rows, or few.

    Returns
    -------
    float32 array of shape (origins, d), or None
        Centroids by k-means, the first of them zero: no row has a longer step than from there,
        whatever comes later.
    """
    count = num_origins(source.n, source.dimension)
    if precision is not ReorderType.INT8 or count == 0:
        return None
    ids = source.sample_ids(_ROWS_TO_TRAIN * count, stream=6)
    origins = np.zeros((count, source.dimension), np.float32)
    origins[1:] = train_centroids(
        source.take(ids),
        count - 1,
        iterations=_ITERATIONS,
        min_partition_size=1,
        rng=np.random.default_rng([source.config.seed, 6]),
        threads=source.threads,
    )
    return origins


class RowArrays:
    """The rows of an index in one precision, filled chunk by chunk."""

    def __init__(
        self,
        precision: ReorderType,
        count: int,
        dimension: int,
        origins: F32 | None = None,
    ) -> None:
        self.precision = precision
        self.origins = origins
        self._held = None if origins is None else kernels.Centroids(origins, 1)
        dtypes = {
            ReorderType.FLOAT32: np.float32,
            ReorderType.BFLOAT16: np.uint16,
            ReorderType.INT8: np.int8,
        }
        self.rows: NDArray[Any] = np.empty((count, dimension), dtypes[precision])
        of_rows = count if precision is ReorderType.INT8 else 0
        self.scales = np.empty(of_rows, np.float32)
        self.squares = np.empty(of_rows, np.float32)
        self.labels = np.empty(0 if origins is None else count, np.uint8)

    def put(self, places: U32, rows: F32, weights: F32 | None, threads: int) -> None:
        """Store `rows` in these places; with `weights` (eta - 1) rounded anisotropically."""
        if self.precision is ReorderType.FLOAT32:
            kernels.put_rows(rows, places, self.rows, threads)
            return
        rounded = np.empty(rows.shape, self.rows.dtype)
        if self.precision is ReorderType.BFLOAT16:
            kernels.round_to_bf16(rows, weights, rounded, threads)
        else:
            scales, squares = (np.empty(len(rows), np.float32) for _ in range(2))
            labels = None
            if self._held is not None:
                nearest, _ = kernels.assign_leaves(rows, self._held, threads)
                labels = nearest.astype(np.uint8)
            kernels.round_to_i8(
                rows, weights, rounded, scales, squares, threads, self.origins, labels
            )
            if labels is not None:
                self.labels[places] = labels
            self.scales[places] = scales
            self.squares[places] = squares
        kernels.put_rows(rounded, places, self.rows, threads)

    def arrays(self, distance_measure: str) -> dict[str, Any]:
        """Return what was stored, by the names of `row_shapes`."""
        match self.precision:
            case ReorderType.FLOAT32:
                return {"rows": self.rows}
            case ReorderType.BFLOAT16:
                return {"rows_bf16": self.rows}
        kept = {"rows_i8": self.rows, "row_scales": self.scales}
        if distance_measure == SQUARED_L2:
            kept["row_squares"] = self.squares
        if self.origins is not None:
            kept["row_labels"] = self.labels
        return kept


def row_shapes(
    precision: ReorderType,
    count: int | None,
    dimension: int,
    distance_measure: str,
    *,
    origins: bool = False,
) -> dict[str, tuple[int | None, ...]]:
    """Return the arrays that rows of a precision are kept in, and their shapes.

    `origins` says whether int8 rows are counted from origins, of which there is an array more.
    """
    match precision:
        case ReorderType.FLOAT32:
            return {"rows": (count, dimension)}
        case ReorderType.BFLOAT16:
            return {"rows_bf16": (count, dimension)}
    shapes: dict[str, tuple[int | None, ...]] = {
        "rows_i8": (count, dimension),
        "row_scales": (count,),
    }
    if distance_measure == SQUARED_L2:
        shapes["row_squares"] = (count,)
    if origins:
        shapes["row_labels"] = (count,)
    return shapes

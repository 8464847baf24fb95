"""Rows that are scored one by one, in one of three precisions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import ReorderType
from swann.distance import SQUARED_L2

__all__ = ["RowArrays", "row_shapes"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]


class RowArrays:
    """The rows of an index in one precision, filled chunk by chunk."""

    def __init__(self, precision: ReorderType, count: int, dimension: int) -> None:
        self.precision = precision
        dtypes = {
            ReorderType.FLOAT32: np.float32,
            ReorderType.BFLOAT16: np.uint16,
            ReorderType.INT8: np.int8,
        }
        self.rows: NDArray[Any] = np.empty((count, dimension), dtypes[precision])
        of_rows = count if precision is ReorderType.INT8 else 0
        self.scales = np.empty(of_rows, np.float32)
        self.squares = np.empty(of_rows, np.float32)

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
            kernels.round_to_i8(rows, weights, rounded, scales, squares, threads)
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
        return kept


def row_shapes(
    precision: ReorderType, count: int | None, dimension: int, distance_measure: str
) -> dict[str, tuple[int | None, ...]]:
    """Return the arrays that rows of a precision are kept in, and their shapes."""
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
    return shapes

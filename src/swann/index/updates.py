"""The native side of changes: how new datapoints are encoded, and folding them into new arrays."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from swann.config import AHConfig, IndexConfig, ReorderConfig, ReorderType
from swann.index.packed import PackedIndex
from swann.kernels import GROUP, NativeIndex
from swann.quantize.anisotropic import LARGEST_RATIO, weight_steps
from swann.quantize.codebook import MAX_SWEEPS
from swann.quantize.metric import SHAPED_SWEEPS

__all__ = ["NOWHERE", "begin", "folded", "live_numbers", "rows_of", "vectors"]

NOWHERE = 0xFFFFFFFF
"""Row of a number that no live datapoint has."""


def begin(packed: PackedIndex) -> NativeIndex:
    """Make an index ready for changes, if it is not yet, and return its native view."""
    native = packed.native
    if native.begun():
        return native
    code_steps, code_threshold = _loss(packed.config, codes=True, dimension=packed.reduced_dim)
    row_steps, row_threshold = _loss(packed.config, codes=False, dimension=packed.dimension)
    tree = packed.config.tree
    soar_lambda = 0.0 if tree is None or tree.soar_lambda is None else tree.soar_lambda
    avq = 1.0 if tree is None or tree.avq is None else tree.avq
    native.begin_updates(
        code_steps,
        code_threshold,
        row_steps,
        row_threshold,
        LARGEST_RATIO,
        soar_lambda,
        avq,
        MAX_SWEEPS if packed.code_metric is None else SHAPED_SWEEPS,
        packed.tree_map,
        packed.code_metric,
    )
    return native


def _loss(
    config: IndexConfig, *, codes: bool, dimension: int
) -> tuple[NDArray[np.float64] | None, float]:
    """Return eta - 1 by norm and the threshold, of the codes or of the rows; None: plain l2."""
    threshold = math.nan
    if codes and isinstance(config.score, AHConfig):
        threshold = config.score.anisotropic_quantization_threshold
    elif isinstance(config.score, AHConfig) and _rounds(config.reorder):
        threshold = config.reorder.anisotropic_quantization_threshold
    if math.isnan(threshold):
        return None, 0.0
    return weight_steps(dimension), threshold


def _rounds(reorder: ReorderConfig | None) -> TypeGuard[ReorderConfig]:
    return reorder is not None and reorder.quantize is not ReorderType.FLOAT32


def rows_of(packed: PackedIndex, numbers: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
    """Return the rows of datapoints, `NOWHERE` for those that are not there."""
    rows = np.empty(len(numbers), np.uint32)
    begin(packed).rows_of(numbers.astype(np.uint32), rows)
    return rows


def vectors(packed: PackedIndex, numbers: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Return the vectors of live datapoints, as exact as they are kept, shape (m, d)."""
    rows = rows_of(packed, numbers)
    out = np.empty((len(rows), packed.dimension), np.float32)
    begin(packed).vectors(rows, out)
    return out


def live_numbers(packed: PackedIndex) -> NDArray[np.int64]:
    """Return the numbers of all live datapoints, ascending."""
    if not packed.native.changed():
        return np.sort(packed.numbers())
    numbers = np.empty(packed.native.num_rows(), np.uint32)
    packed.native.numbers(numbers)
    return np.sort(numbers[numbers != NOWHERE]).astype(np.int64)


def folded(packed: PackedIndex, skip: NDArray[np.uint8] | None = None) -> PackedIndex:
    """Make an index of all live datapoints.

    Parameters
    ----------
    packed : PackedIndex
        With its changes.
    skip : uint8 array of shape (rows,), optional
        1 for rows to leave out.

    Returns
    -------
    PackedIndex
        New arrays; centroids and codebook are shared with `packed`.
    """
    native = begin(packed)
    starts = np.empty_like(packed.leaf_starts)
    count = native.fold_starts(skip, starts)
    groups = int(-(-np.diff(starts.astype(np.int64)) // GROUP).sum())
    lengths = {
        "ids": count,
        "entry_rows": int(starts[-1]),
        "codes": groups,
        "corrections": groups * GROUP,
        "rows": count,
        "rows_bf16": count,
        "rows_i8": count,
        "row_scales": count,
        "row_squares": count,
        "row_labels": count,
    }
    made: dict[str, Any] = {}
    if not packed.spills:
        del lengths["entry_rows"]
        made["entry_rows"] = None
    for name, length in lengths.items():
        old = getattr(packed, name)
        if old is not None:
            made[name] = np.zeros((length, *old.shape[1:]), old.dtype)
    made["ids"] = np.empty(count, np.uint32)
    native.fold(
        skip,
        starts,
        made["ids"],
        made.get("entry_rows"),
        made.get("codes"),
        made.get("corrections"),
        made.get("rows"),
        made.get("rows_bf16"),
        made.get("rows_i8"),
        made.get("row_scales"),
        made.get("row_squares"),
        made.get("row_labels"),
    )
    return dataclasses.replace(packed, num_datapoints=count, leaf_starts=starts, **made)

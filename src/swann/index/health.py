"""Figures that tell when an updated index wants a rebalance; by ScaNN's formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.index import updates
from swann.index.packed import PackedIndex

__all__ = ["Health"]


class Health:
    """What is known of every live datapoint: squared distances to the centroids of its leaves.

    They are kept by the number of the datapoint and added up when asked for, so that they never
    drift from what measuring anew would give.
    """

    def __init__(self) -> None:
        self._errors: NDArray[np.float64] = np.full(0, np.nan)  # by number; NaN: not there

    @classmethod
    def of(cls, packed: PackedIndex) -> Health:
        """Measure all datapoints."""
        health = cls()
        native = updates.begin(packed)
        errors = np.empty(native.num_rows(), np.float64)
        native.errors(0, errors)
        numbers = np.empty(len(errors), np.uint32)
        native.numbers(numbers)
        alive = numbers != updates.NOWHERE
        health._set(numbers[alive].astype(np.int64), errors[alive])
        return health

    def put(self, numbers: list[int], first_row: int, packed: PackedIndex) -> None:
        """Measure the newest datapoints, in place of what was known of these numbers.

        Parameters
        ----------
        numbers : list of int
            Theirs, in the order in which they came.
        first_row : int
            Of the first of them.
        packed : PackedIndex
            What they were put into.
        """
        errors = np.empty(len(numbers), np.float64)
        packed.native.errors(first_row, errors)
        self._set(np.array(numbers, np.int64), errors)

    def _set(self, numbers: NDArray[np.integer[Any]], errors: NDArray[np.float64]) -> None:
        most = int(numbers.max()) + 1 if len(numbers) else 0
        if most > len(self._errors):
            grown = np.full(max(most, 2 * len(self._errors)), np.nan)
            grown[: len(self._errors)] = self._errors
            self._errors = grown
        self._errors[numbers] = errors

    def drop(self, numbers: list[int]) -> None:
        """Forget datapoints."""
        self._errors[numbers] = np.nan

    def stats(self, packed: PackedIndex) -> dict[str, float]:
        """Return the figures; see `Searcher.get_health_stats`."""
        sizes = _leaf_sizes(packed)
        total = int(sizes.sum())
        error, weighted, positive = 0.0, 0.0, 0.0
        if total:
            known = self._errors[~np.isnan(self._errors)]
            error = float(np.sqrt(known.sum() / total))
            relative = sizes * (len(sizes) / total) - 1.0
            weighted = float((relative * sizes).sum() / total)
            above = relative[relative > 0.0]
            positive = float(above.mean()) if len(above) else 0.0
        return {
            "avg_quantization_error": error,
            "partition_weighted_avg_relative_imbalance": weighted,
            "partition_avg_relative_positive_imbalance": positive,
            "sum_partition_sizes": total,
        }


def _leaf_sizes(packed: PackedIndex) -> NDArray[np.int64]:
    """Return the entries of each leaf; none where there is no tree."""
    if packed.centroids is None:
        return np.zeros(1, np.int64)
    starts = np.empty_like(packed.leaf_starts)
    updates.begin(packed).fold_starts(None, starts)
    sizes: NDArray[np.int64] = starts[1:].astype(np.int64) - starts[:-1]
    return sizes

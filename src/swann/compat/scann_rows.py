"""The rows of a ScaNN index that are scored one by one, in ScaNN's three precisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.compat.scann_files import ScannFiles
from swann.config import BruteForceConfig, IndexConfig, ReorderType
from swann.errors import CorruptIndexError

__all__ = ["Rows", "map_rows"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

_CHUNK_VALUES = 1 << 22


class Rows(NamedTuple):
    """Rows that are scored one by one.

    Attributes
    ----------
    stored : array of shape (n, d)
        As in the file.
    kept : ReorderType
        What the index keeps them as.
    to_float : callable
        From some stored rows to what they stand for.
    where : str
        The directory, for errors.
    """

    stored: NDArray[Any]
    kept: ReorderType
    to_float: Callable[[NDArray[Any]], F32]
    where: str

    def read(self, ids: U32 | None) -> dict[str, Any]:
        """Return the array of an index, in the order of `ids`."""
        n, dimension = self.stored.shape
        narrow = self.kept is ReorderType.BFLOAT16
        out = np.empty((n, dimension), np.uint16 if narrow else np.float32)
        threads = kernels.hardware_threads()
        step = max(1, _CHUNK_VALUES // dimension)
        for first in range(0, n, step):
            span = slice(first, min(n, first + step))
            rows = self.to_float(np.asarray(self.stored[span if ids is None else ids[span]]))
            bad, _ = kernels.check_rows(rows, threads)
            if bad < len(rows):
                row = first + bad if ids is None else ids[first + bad]
                raise CorruptIndexError(
                    f"{self.where}: datapoint {row} is not finite, or longer than 1e18"
                )
            if narrow:
                kernels.round_to_bf16(rows, None, out[span], threads)
            else:
                out[span] = rows
        return {"rows_bf16" if narrow else "rows": out}


def map_rows(files: ScannFiles, config: IndexConfig, n: int | None) -> Rows | None:
    """Map the rows that `config` asks for; None where it asks for none.

    Raises
    ------
    CorruptIndexError
        If they are missing, damaged, or not `n` where that is known.
    """
    exact = config.score if isinstance(config.score, BruteForceConfig) else config.reorder
    where = str(files.root)
    match exact.quantize if exact is not None else None:
        case None:
            return None
        case ReorderType.FLOAT32:
            rows = files.array("DATASET_NPY", "<f4", n, None)
            return Rows(rows, ReorderType.FLOAT32, np.ascontiguousarray, where)
        case ReorderType.BFLOAT16:
            rows = files.array("BF16_DATASET_NPY", "<i2", n, None)
            return Rows(rows, ReorderType.BFLOAT16, _from_bf16, where)
    rows = files.array("INT8_DATASET_NPY", "i1", n, None)
    multipliers = files.array("INT8_MULTIPLIERS_NPY", "<f4", rows.shape[1])
    if not (np.isfinite(multipliers) & (multipliers > 0)).all():
        raise CorruptIndexError(f"{where} has int8 multipliers that are not positive and finite")

    def from_int8(rows: NDArray[Any]) -> F32:
        with np.errstate(over="ignore"):  # what is not finite is refused by `Rows.read`
            floats: F32 = np.divide(rows, multipliers, dtype=np.float32)
        return floats

    return Rows(rows, ReorderType.BFLOAT16, from_int8, where)


def _from_bf16(rows: NDArray[Any]) -> F32:
    bits = np.ascontiguousarray(rows).view(np.uint16).astype(np.uint32) << np.uint32(16)
    return bits.view(np.float32)

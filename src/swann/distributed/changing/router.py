"""Which shards own the leaves of new vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from swann.distributed.opening import Description
from swann.index import updates
from swann.index.changing.incoming import bad_vector
from swann.index.packed import PackedIndex

__all__ = ["Router"]

_MOST = 4096  # vectors that are put into one scratch index


class Router:
    """Asks the code that will put vectors into leaves: an index without datapoints gets them.

    Parameters
    ----------
    description : Description
        Of the index.
    owners : uint32 array of shape (num_leaves,)
        The shard of each leaf.
    """

    def __init__(self, description: Description, owners: NDArray[np.uint32]) -> None:
        self._empty = description.open_head().packed
        shards = np.arange(len(description.shards))
        self._masks = (owners[None] == shards[:, None]).astype(np.uint8)
        self._scratch: PackedIndex | None = None

    def route(
        self, rows: NDArray[np.float32], threads: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return who owns a leaf of each vector, (num_shards, m), and entries that leaves get.

        Raises
        ------
        NonFiniteError, ZeroVectorError, InvalidInputError
            If a vector is no datapoint.
        """
        scratch = self._scratch
        if scratch is None or scratch.native.num_rows() + len(rows) > _MOST:
            scratch = self._scratch = dataclasses.replace(self._empty)
        native = updates.begin(scratch)
        first = native.num_rows()
        bad = native.upsert(rows, np.arange(first, first + len(rows), dtype=np.uint32), threads)
        if bad < len(rows):
            raise bad_vector(rows, bad)
        owned = np.zeros((len(self._masks), first + len(rows)), np.uint8)
        for mask, marks in zip(self._masks, owned, strict=True):
            native.mark_rows(mask, marks)
        old = np.zeros(first + len(rows), np.uint8)
        old[:first] = 1
        starts = np.empty(scratch.num_leaves + 1, np.uint32)
        native.fold_starts(old, starts)
        whole = starts.astype(np.int64)
        return owned[:, first:].astype(bool), whole[1:] - whole[:-1]

"""Where every datapoint goes: its row, and the places of its codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.kernels import GROUP
from swann.partition.tree import spill_entries

__all__ = ["Layout"]

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]


class Layout:
    """Rows in the order of the leaves, codes in groups of 32 entries of a leaf.

    A database is read once, in its own order, and everything made of a datapoint is put where it
    belongs. That is why the places are known by datapoint.

    Parameters
    ----------
    leaves : uint32 array of shape (n,)
        Of the datapoints.
    num_leaves : int
        How many there are.
    spilled : uint32 array of shape (n,), optional
        Second leaves of the datapoints.

    Attributes
    ----------
    order : uint32 array of shape (n,)
        The datapoint of each row.
    starts : uint32 array of shape (num_leaves + 1,)
        Where the entries of each leaf begin.
    entry_rows : uint32 array of shape (entries,), or None
        The row of each entry, where datapoints have second leaves or rows follow the database.
    num_groups : int
        Of codes.
    """

    def __init__(self, leaves: U32, num_leaves: int, spilled: U32 | None = None) -> None:
        self._leaves = [leaves]
        self.order, own_starts = kernels.sort_by_leaf(leaves, num_leaves)
        self.starts, self.entry_rows = own_starts, None
        self._rows = _inverse(self.order)
        # A place in the codes is a number in the leaf's order, and what its leaf adds to that.
        self._numbers = [self._rows]
        own = own_starts.astype(np.int64)
        host = np.zeros(num_leaves + 1, np.int64)
        if spilled is not None:
            of_rows = spilled[self.order]
            self.starts, self.entry_rows = spill_entries(own_starts, of_rows)
            guests, guest_starts = kernels.sort_by_leaf(of_rows, num_leaves)
            self._leaves.append(spilled)
            self._numbers.append(_inverse(guests)[self._rows])
            host = guest_starts.astype(np.int64)
        sizes = np.diff(own + host)
        groups = np.concatenate([np.zeros(1, np.int64), np.cumsum(-(-sizes // GROUP))])
        self.num_groups = int(groups[-1])
        first = groups[:-1] * GROUP
        # A leaf has its own entries first.
        self._added = [first - own[:-1], first + np.diff(own) - host[:-1]]

    def follow_database(self) -> None:
        """Let rows be in the order of the database, not in that of the leaves."""
        self.entry_rows = self.order if self.entry_rows is None else self.order[self.entry_rows]
        self.order = np.arange(len(self.order), dtype=np.uint32)

    def rows(self, first: int, last: int) -> U32:
        """Return the rows of datapoints."""
        return self._rows[first:last]

    def entries(self, first: int, last: int) -> list[tuple[U32, U64]]:
        """Return the leaves of datapoints and the places of their codes there; once a copy."""
        entries = []
        for copy, leaves in enumerate(self._leaves):
            part = leaves[first:last]
            places = self._numbers[copy][first:last] + self._added[copy][part]
            entries.append((part, places.astype(np.uint64)))
        return entries


def _inverse(order: U32) -> U32:
    places = np.empty_like(order)
    places[order] = np.arange(len(order), dtype=np.uint32)
    return places

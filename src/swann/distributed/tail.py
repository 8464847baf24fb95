"""The changes behind a manifest, as the replicas of its shards make them."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann.distributed.wire import Message

__all__ = ["Part", "Record", "Tail", "message_of", "parts_of"]

_MOST = 1 << 24  # bytes of changes in a message, as long as one of them fits
_HEAD = 24  # bytes that tell of a change besides its datapoints


class Record(NamedTuple):
    """A change: datapoints that get vectors, or are removed.

    Attributes
    ----------
    sequence : int
        Its number in the log.
    numbers : uint32 array of shape (m,)
        Of the datapoints.
    known : bool array of shape (m,)
        Which of them may be in the index already: shards that do not get the vector forget them.
    owners : bool array of shape (num_shards, m)
        Which shards own a leaf of the new vector.
    rows : float32 array of shape (m, d), or None
        The vectors; None: they are removed.
    added : int64 array of shape (num_leaves,), or None
        Entries that leaves get.
    """

    sequence: int
    numbers: NDArray[np.uint32]
    known: NDArray[np.bool_]
    owners: NDArray[np.bool_]
    rows: NDArray[np.float32] | None
    added: NDArray[np.int64] | None = None

    @property
    def more(self) -> int:
        """How many more datapoints there are after it."""
        if self.rows is None:
            return -len(self.numbers)
        return len(self.numbers) - int(np.count_nonzero(self.known))

    @property
    def nbytes(self) -> int:
        """About what it takes in a message."""
        rows = 0 if self.rows is None else self.rows.nbytes
        return _HEAD + self.numbers.nbytes + rows


class Part(NamedTuple):
    """What a shard does for a change: forget datapoints, if it has them, and write others."""

    sequence: int
    gone: NDArray[np.uint32]
    mine: NDArray[np.uint32]
    rows: NDArray[np.float32]


class Tail:
    """The changes behind a manifest, in order.

    Parameters
    ----------
    base : int
        The number of the last change that the manifest holds.
    """

    def __init__(self, base: int) -> None:
        self.base = base
        self._records: list[Record] = []
        self._lock = threading.Lock()

    @property
    def last(self) -> int:
        """The number of the last change."""
        return self.base + len(self._records)

    def append(self, record: Record) -> None:
        """Add the next change."""
        with self._lock:
            if record.sequence != self.last + 1:
                raise AssertionError(f"change {record.sequence} after {self.last}")
            self._records.append(record)

    def after(self, sequence: int, most: int = _MOST) -> list[Record]:
        """Return the changes that follow a number, as many as fit a message."""
        found: list[Record] = []
        size = 0
        with self._lock:
            for record in self._records[max(0, sequence - self.base) :]:
                size += record.nbytes
                if found and size > most:
                    break
                found.append(record)
        return found

    def upto(self, sequence: int) -> list[Record]:
        """Return the changes up to a number."""
        with self._lock:
            return self._records[: sequence - self.base]


def message_of(records: list[Record], shard: int, dimension: int) -> Message:
    """Return what the replicas of a shard are told of changes."""
    gone, mine = [], []
    described = np.empty((len(records), 3), np.int64)
    rows = [np.empty((0, dimension), np.float32)]
    for place, record in enumerate(records):
        own = record.owners[shard]
        gone.append(record.numbers[record.known & ~own])
        mine.append(record.numbers[own])
        if record.rows is not None:
            rows.append(record.rows[own])
        described[place] = record.sequence, len(gone[-1]), len(mine[-1])
    none = np.empty(0, np.uint32)
    arrays: list[NDArray[Any]] = [described]  # not in the header, whose length has a limit
    arrays += [np.concatenate([none, *some]) for some in (gone, mine)]
    return Message({}, [*arrays, np.concatenate(rows)])


def parts_of(arrays: list[NDArray[Any]]) -> list[Part]:
    """Return what the arrays of a message say, change by change."""
    described, gone, mine, rows = arrays
    parts, g, m = [], 0, 0
    for sequence, forgotten, written in described.tolist():
        own = slice(m, m + written)
        parts.append(Part(sequence, gone[g : g + forgotten], mine[own], rows[own]))
        g, m = g + forgotten, m + written
    return parts

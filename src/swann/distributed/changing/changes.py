"""Changes to an index in shards: checked, numbered, logged, and handed to the shards they concern.

One log has all changes in their order; it is what makes a change durable, as on one machine. What
the log says of docids is turned into numbers of datapoints here, in the same way whenever the log
is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.distributed.changing.router import Router
from swann.distributed.tail import Record
from swann.distributed.workers.generation import Generation
from swann.errors import InvalidInputError, UnknownDocidError
from swann.index.changing.incoming import as_upsert
from swann.index.changing.numbering import numbers_of
from swann.index.docids import check_docids, check_row_ids
from swann.index.log.format import Change
from swann.index.log.journal import Journal
from swann.index.packed import MOST_ENTRIES
from swann.kernels import hardware_threads

__all__ = ["Changes"]

_MANY = 64  # new datapoints that are worth more than one thread


class Changes:
    """The changes of a generation. One thread at a time makes them; the callers see to it.

    Parameters
    ----------
    generation : Generation
        What is changed; its tail gets the changes.

    Attributes
    ----------
    journal : Journal or None
        Where they are noted first; None while those in the log are made once more.
    count : int
        Live datapoints.
    following : int
        The number that the next datapoint gets.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.journal: Journal | None = None
        self._router = Router(generation.description, generation.owners)
        self.following = generation.description.index.next_number
        self.count = generation.description.index.num_datapoints
        self._alive = generation.description.alive()
        self._tail = generation.tail
        self._settled = self._tail.last

    def live_numbers(self) -> NDArray[np.int64]:
        """Return the numbers of all live datapoints, ascending."""
        return np.flatnonzero(self._alive[: self.following])

    def repeat(self, change: Change) -> None:
        """Make a change that is in the log."""
        docids, first, rows = change
        if rows is None:
            self.delete(docids)
        elif docids is None and first != self.following:
            raise InvalidInputError(f"it gives row ids from {first} on; expected {self.following}")
        else:
            self.upsert(docids, rows)

    def upsert(self, docids: object, vectors: object) -> tuple[NDArray[Any], int]:
        """Do what `Searcher.upsert` does; return its docids and the number of the change."""
        names, dimension = self.generation.docids, self.generation.description.dimension
        given, rows = as_upsert(docids, vectors, dimension, names is not None)
        self._settle()
        tail, count, first = self._tail, len(rows), self.following
        fresh: list[Any] = []
        if given is None:
            listed = list(range(first, first + count))
        elif names is None:
            listed = self._present(given)
        else:
            listed, fresh = numbers_of(names, given, first)
        if max(first, *listed, 0) > MOST_ENTRIES:
            raise InvalidInputError(
                f"an index gives {MOST_ENTRIES} numbers at most; build a new one"
            )
        if count == 0:
            return np.array([], object if names is not None else np.int64), tail.last
        owners, added = self._router.route(rows, 1 if count < _MANY else hardware_threads())
        numbers = np.array(listed, np.uint32)
        known = np.array([number < first and bool(self._alive[number]) for number in listed])
        # The caller may change its array while replicas are still to get it.
        record = Record(tail.last + 1, numbers, known, owners, rows.copy(), added)
        kind = None if names is None else names.kind

        def note() -> None:
            if names is not None and fresh:
                names.prepare(fresh)
            if self.journal is not None:
                self.journal.upsert(given, first if given is None else 0, rows)

        def undo() -> None:
            if names is not None and fresh:
                names.cancel(fresh, first, kind)

        self._make(record, note, undo)
        numbered = numbers.astype(np.int64)
        return (numbered if names is None else names.names(numbered)), record.sequence

    def delete(self, docids: object) -> int:
        """Do what `Searcher.delete` does; return the number of the change."""
        named = self.generation.docids is not None
        given = (check_docids if named else check_row_ids)(docids)
        self._settle()
        tail, names = self._tail, self.generation.docids
        if not given:
            return tail.last
        listed = self._present(given) if names is None else names.known(given)
        numbers = np.array(listed, np.uint32)
        nobody = np.zeros((self.generation.num_shards, len(numbers)), bool)
        record = Record(tail.last + 1, numbers, np.ones(len(numbers), bool), nobody, None)

        def note() -> None:
            if self.journal is not None:
                self.journal.delete(given)

        self._make(record, note, lambda: None)
        return record.sequence

    def _make(self, record: Record, note: Callable[[], None], undo: Callable[[], None]) -> None:
        """Note a change and add it to the tail; neither where an error or an interrupt comes."""
        take_back = None if self.journal is None else self.journal.begin()
        try:
            note()
            self._tail.append(record)
            self._settle()
        except BaseException:
            if self._tail.last < record.sequence:
                undo()
                if take_back is not None:
                    take_back()
            self._settle()  # what is in the tail is made, whatever came then
            raise

    def _settle(self) -> None:
        """Note down here what the changes in the tail did, and have every search show them.

        An interrupt may put it off to the next call, which does again what this one did not end.
        """
        generation = self.generation
        for record in self._tail.after(self._settled, most=1 << 62):
            following = max(self.following, int(record.numbers.max()) + 1)
            if following > len(self._alive):
                more = np.zeros(max(64, following * 3 // 2) - len(self._alive), bool)
                self._alive = np.concatenate([self._alive, more])
            self._alive[record.numbers] = record.rows is not None
            names = generation.docids
            if names is not None and record.rows is None:
                names.forget(names.names(record.numbers.astype(np.int64)).tolist())
            sizes = generation.sizes if record.added is None else generation.sizes + record.added
            count, last = self.count + record.more, record.sequence
            # No calls in this: an interrupt comes before or after all of it.
            generation.sizes, generation.acknowledged, self.count, self.following, self._settled = (
                sizes,
                last,
                count,
                following,
                last,
            )

    def _present(self, row_ids: list[int]) -> list[int]:
        for number in row_ids:
            if number >= self.following or not self._alive[number]:
                raise UnknownDocidError(f"row id {number} is not in the index")
        return row_ids

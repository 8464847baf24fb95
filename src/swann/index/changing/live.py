"""An index that changes while it is searched.

The arrays of a `PackedIndex` never change. New datapoints lie beside them, in the native code,
encoded with the same centroids and codebook; the dead are marked. A search takes a snapshot of
both. *Folding* makes one `PackedIndex` of everything that is alive; *rebalancing* trains a new one.

::

    LiveIndex
    ├── view: View         replaced in one step when the index is folded, rebalanced or kept in
    │   ├── packed         shape
    │   ├── docids
    │   └── plan, books    the writer's: what a rebalance builds, numbers of datapoints, health
    └── a lock: writers take turns
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import IndexConfig
from swann.errors import DTypeError, InvalidInputError
from swann.index import updates
from swann.index.building.build import Progress
from swann.index.changing.folding import folded, measured, rebuilt, state_of
from swann.index.changing.incoming import as_row, as_upsert, bad_vector, check_before_log
from swann.index.changing.numbering import check_room, numbers_of, present
from swann.index.changing.settle import settle_delete, settle_upsert
from swann.index.changing.shape import reshape
from swann.index.changing.turns import Turns, in_turn
from swann.index.docids import check_docids, check_row_ids, is_plain
from swann.index.health import Health
from swann.index.log.journal import Journal, NoJournal
from swann.index.packed import MOST_ENTRIES, PackedIndex
from swann.index.state import Books, State, View

__all__ = ["LiveIndex"]

_MANY = 64  # new datapoints that are worth more than one thread
_TIDY = 4096  # dead rows that are worth folding


class LiveIndex(Turns):
    """An index with its changes. Any number of threads may search it and change it at once.

    Changes take turns. Each is done entirely or not at all: what can be refused is refused before
    anything happens, and the native call that does the rest either happened or did not. What then
    remains to be noted down is done again by the next turn where an interrupt kept it from being
    done.

    Parameters
    ----------
    state : State
        Where to begin.

    Attributes
    ----------
    journal : Journal or None
        Where changes are noted down before they are made.
    """

    def __init__(self, state: State) -> None:
        super().__init__()
        self.journal: Journal | None = None
        self.view = View(state.packed, state.docids, state.plan, Books(state.next_number))

    # ---- What it is

    def size(self) -> int:
        """Return the number of live datapoints."""
        return self.view.packed.native.live_rows()

    @property
    def plan(self) -> IndexConfig:
        """What a rebalance builds."""
        return self.view.plan

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays and of what lies beside them."""
        packed = self.view.packed
        return packed.nbytes + packed.native.changes_nbytes()

    def docids(self) -> list[Any] | None:
        """Return the docids of all live datapoints, oldest first; None where there are none."""
        with self._lock:
            view = self._settled()
            if view.docids is None:
                return None
            listed: list[Any] = view.docids.names(updates.live_numbers(view.packed)).tolist()
            return listed

    def number_of(self, docid: object) -> int | None:
        """Return the number of the datapoint of a docid or row id; None if it is not there."""
        if isinstance(docid, np.generic):
            docid = docid.item()
        if not is_plain(docid):
            return None
        with self._lock:
            view = self._settled()
            if view.docids is None:
                return _row_id(view.packed, docid)
            try:
                return view.docids.number_of(docid)
            except DTypeError:  # docids are of the other kind
                return None

    def place_of(self, docid: object) -> int:
        """Return how many datapoints are older than one; a KeyError if it is not there."""
        with self._lock:
            number = self.number_of(docid)
            if number is None:
                raise KeyError(docid)
            return int(np.searchsorted(updates.live_numbers(self.view.packed), number))

    def numbers(self) -> NDArray[np.int64]:
        """Return the numbers of all live datapoints, ascending."""
        with self._lock:
            return updates.live_numbers(self.view.packed)

    def vectors(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return the vectors of live datapoints, as exact as they are kept, shape (m, d).

        Under cosine they are of unit length. Without rows to reorder by they are decoded.
        """
        with self._lock:
            return updates.vectors(self.view.packed, numbers)

    # ---- Changes

    def upsert(self, docids: object, vectors: object) -> NDArray[Any]:
        """Insert datapoints, or give those that are there new vectors.

        Parameters
        ----------
        docids : str, int, sequence of either, or None
            See `Searcher.upsert`.
        vectors : array_like of shape (m, d) or (d,)

        Returns
        -------
        array of shape (m,)
            The docids, or the row ids of an index without.
        """
        view = self.view
        named = view.docids is not None
        if is_plain(docids) if named else docids is None:
            row = as_row(vectors, view.packed.dimension)
            if row is not None:
                return self._write_one(docids, row)
        return self._write(*as_upsert(docids, vectors, view.packed.dimension, named))

    @in_turn
    def _write(self, given: list[Any] | None, rows: NDArray[np.float32]) -> NDArray[Any]:
        view = self.view
        names, first, count = view.docids, view.books.following, len(rows)
        fresh: list[Any] = []
        if given is None:
            numbers = list(range(first, first + count))
        elif names is None:
            numbers = present(view, given)
        else:
            numbers, fresh = numbers_of(names, given, first)
        following = max(first, max(numbers, default=0) + 1)
        native = updates.begin(view.packed)
        check_room(view, following, count)
        ids = np.array(numbers, np.uint32)
        kind = None if names is None else names.kind
        before = native.num_rows(), view.books.changes
        journal = self.journal if count else None
        take_back = None if journal is None else journal.begin()
        if journal is not None:
            check_before_log(rows)

        def write() -> NDArray[Any]:
            if names is not None and fresh:
                names.prepare(fresh)
            result = ids.astype(np.int64) if names is None else names.names(ids)
            if journal is not None:
                journal.upsert(given, first if given is None else 0, rows)
            threads = 1 if count < _MANY else kernels.hardware_threads()
            bad = native.upsert(rows, ids, threads) if count else 0
            if bad < count:
                raise bad_vector(rows, bad)
            return result

        note = partial(settle_upsert, view, numbers, following, fresh, kind, before, take_back)
        result = self._noted(note, write)
        if len(fresh) < count:  # others have died
            self._tidy()
        return result

    @in_turn
    def _write_one(self, docid: Any, row: NDArray[np.float32]) -> NDArray[Any]:
        """Do the same for one vector (d,): that of a docid, or where there are none a new one."""
        view = self.view
        names, books = view.docids, view.books
        number = following = books.following
        known = None if names is None else names.number_of(docid)
        if known is None:
            following += 1
        else:
            number = known
        native = updates.begin(view.packed)
        check_room(view, following, 1)
        fresh = [docid] if names is not None and known is None else []
        kind = None if names is None else names.kind
        before = native.num_rows(), books.changes
        journal = self.journal
        take_back = None if journal is None else journal.begin()
        if journal is not None:
            check_before_log(row)

        def write() -> NDArray[Any]:
            if fresh and names is not None:
                names.prepare(fresh)
            result = np.array([number]) if names is None else names.name(number)
            if journal is not None:
                journal.upsert(None if names is None else [docid], number, row[None])
            if not native.upsert_one(row, number):
                raise bad_vector(row[None], 0)
            return result

        note = partial(settle_upsert, view, [number], following, fresh, kind, before, take_back)
        result = self._noted(note, write)
        if known is not None:
            self._tidy()
        return result

    def delete(self, docids: object) -> None:
        """Remove datapoints: those named by `docids`, or by row ids in an index without."""
        named = self.view.docids is not None
        if is_plain(docids) and (named or type(docids) is int):
            self._erase_one(docids)
        else:
            self._erase((check_docids if named else check_row_ids)(docids))

    @in_turn
    def _erase_one(self, docid: Any) -> None:
        view = self.view
        number = present(view, [docid])[0] if view.docids is None else view.docids.known_one(docid)
        native = updates.begin(view.packed)
        changes, journal = view.books.changes, self.journal
        take_back = None if journal is None else journal.begin()

        def erase() -> None:
            if journal is not None:
                journal.delete([docid])
            native.erase_one(number)

        self._noted(partial(settle_delete, view, [number], [docid], changes, take_back), erase)
        self._tidy()

    @in_turn
    def _erase(self, given: list[Any]) -> None:
        if not given:
            return
        view = self.view
        names = view.docids
        numbers = present(view, given) if names is None else names.known(given)
        native = updates.begin(view.packed)
        changes, journal = view.books.changes, self.journal
        take_back = None if journal is None else journal.begin()

        def erase() -> None:
            if journal is not None:
                journal.delete(given)
            native.erase(np.array(numbers, np.uint32))

        self._noted(partial(settle_delete, view, numbers, given, changes, take_back), erase)
        self._tidy()

    @in_turn
    def reserve(self, num_datapoints: int) -> None:
        """Make room for `num_datapoints` in all."""
        more = num_datapoints - self.size()
        if num_datapoints > MOST_ENTRIES:
            raise InvalidInputError(
                f"num_datapoints is {num_datapoints}; an index holds {MOST_ENTRIES} at most"
            )
        if more > 0:
            updates.begin(self.view.packed).reserve(more)

    @in_turn
    def rebalance(
        self,
        config: IndexConfig | None = None,
        threads: int = 0,
        progress: Progress | None = None,
        build: Callable[..., PackedIndex] | None = None,
        in_place_of: IndexConfig | None = None,
    ) -> bool:
        """Build the index anew from its live datapoints, with the plan or with `config`.

        Or by what ``build(vectors, learned=...)`` makes of them, whose settings are then the plan.
        What sample queries taught stays.

        Searches go on in the old one until the new one is there. Nothing is done, and False
        returned, if the plan is another one than `in_place_of`.
        """
        view = self.view
        if in_place_of is not None and view.plan is not in_place_of:
            return False
        plan = view.plan if config is None else config
        self.view = rebuilt(view, plan, threads, progress, build)
        return True

    @in_turn
    def state(self) -> State:
        """Return all that is to be kept, with the changes folded in.

        Later changes of this index do not show in it.
        """
        self.view = folded(self.view)
        return state_of(self.view)

    @in_turn
    def cut(self) -> State:
        """Return the same, and let the journal go on in a new file from there."""
        self.view = folded(self.view)
        kept = state_of(self.view)
        if self.journal is None:
            return kept
        return dataclasses.replace(kept, log=self.journal.rotate())

    @in_turn
    def close(self, journal: NoJournal) -> None:
        """Refuse changes from now on, as `journal` says; the last one is noted down."""
        self.journal = journal

    @in_turn
    def keep_shape(self, fraction_or_count: float, threads: int = 0) -> bool:
        """Split the leaves that have grown and merge those that emptied, if it is time.

        Returns
        -------
        bool
            Whether anything was done.
        """
        view = self.view
        due = fraction_or_count
        if isinstance(due, float):
            due = max(1.0, due * self.size())
        if view.books.changes < due or view.packed.centroids is None:
            return False
        packed = reshape(view.packed, threads or kernels.hardware_threads())
        if packed is None:
            view.books.changes = 0
            return False
        books = Books(view.books.following, 0, measured(view.books, packed))
        self.view = dataclasses.replace(view, packed=packed, books=books)
        return True

    def present(
        self, names: list[Any]
    ) -> tuple[PackedIndex, NDArray[np.int64], NDArray[np.float32]]:
        """Return the index, and the numbers and vectors of those docids or row ids that it has."""
        with self._lock:
            view = self._settled()
            known = names if view.docids is None else view.docids.numbers_of(names)
            numbers = np.array([number for number in known if number is not None], np.int64)
            numbers = numbers[updates.rows_of(view.packed, numbers) != updates.NOWHERE]
            return view.packed, numbers, updates.vectors(view.packed, numbers)

    # ---- Health

    def initialize_health_stats(self) -> None:
        """Measure every datapoint; from then on changes keep the figures up to date."""
        with self._lock:
            view = self._settled()
            view.books.health = Health.of(view.packed)

    def health_stats(self) -> dict[str, float]:
        """Return the figures; see `Searcher.get_health_stats`."""
        with self._lock:
            view = self._settled()
            if view.books.health is None:
                view.books.health = Health.of(view.packed)
            return view.books.health.stats(view.packed)

    # ---- Parts

    def _settled(self) -> View:
        """Return the view, for reading with the lock held; within a change, as it is then."""
        if not self._busy:
            self._settle()
        return self.view

    def _tidy(self) -> None:
        """Fold once more is dead than alive."""
        native = self.view.packed.native
        dead = native.dead_rows()
        if dead <= _TIDY or 2 * dead <= native.num_rows():
            return
        with suppress(MemoryError):  # what was asked for is done; this can wait
            self.view = folded(self.view)


def _row_id(packed: PackedIndex, given: object) -> int | None:
    """Return a row id that there is, else None."""
    if not isinstance(given, int) or given >= updates.NOWHERE:
        return None
    return None if updates.begin(packed).row_of(given) == updates.NOWHERE else given

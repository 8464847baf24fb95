"""Docids: what users call their datapoints, strings or ints, beside the numbers that we use."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from swann.errors import DTypeError, InvalidInputError, ShapeError, UnknownDocidError

__all__ = ["Docids", "Kind", "Stored", "check_docids", "check_row_ids", "is_plain"]

Kind = Literal["str", "int"]

_EXPECTED = "expected strings, or ints from 0 on"
_LARGEST = 2**63 - 1


def check_docids(docids: object, name: str = "docids") -> list[Any]:
    """Return docids as a new list of plain strings or plain ints.

    Parameters
    ----------
    docids : str, int, or a sequence or array of either
        A single one counts as a list of one.

    Raises
    ------
    DTypeError
        If one is neither, or there are both.
    InvalidInputError
        If an int is negative or beyond 64 bits, or a docid comes twice.
    """
    if type(docids) is str:
        return [docids]
    given: list[Any] = _as_list(docids, name)
    if not given:
        return given
    kind: Any = str if isinstance(given[0], str) else int
    docid: Any
    for place, docid in enumerate(given):
        if not isinstance(docid, kind) or isinstance(docid, bool):
            raise DTypeError(
                f"{name}[{place}] is {docid!r} ({type(docid).__name__}); {_EXPECTED}, all of a kind"
            )
        if kind is int and not 0 <= docid <= _LARGEST:
            raise InvalidInputError(
                f"{name}[{place}] is {docid}; {_EXPECTED} (-1 stands for none in results)"
            )
    if len(given) > 1 and len(set(given)) < len(given):
        raise InvalidInputError(f"{name} hold {_first_repeat(given)!r} twice; expected unique ones")
    return given


def _as_list(docids: object, name: str) -> list[Any]:
    if isinstance(docids, (str, int, np.integer)):
        docids = [docids]
    if isinstance(docids, np.ndarray):
        if docids.ndim > 1:
            raise ShapeError(f"{name} has shape {docids.shape}; expected one axis")
        if docids.dtype.kind in "mM":  # tolist would make ints of some of them
            raise DTypeError(f"{name} are of dtype {docids.dtype}; {_EXPECTED}")
        docids = docids.tolist() if docids.ndim else [docids.item()]
    if isinstance(docids, (bytes, bytearray, dict, set, frozenset)):
        raise DTypeError(f"{name} is of type {type(docids).__name__}; expected a list of docids")
    if isinstance(docids, memoryview) and docids.ndim != 1:
        raise ShapeError(f"{name} has shape {docids.shape}; expected one axis")
    try:
        given = list(docids)  # type: ignore[call-overload]
    except (TypeError, NotImplementedError):  # a memoryview may be of anything
        raise DTypeError(f"{name} is {docids!r} ({type(docids).__name__}); {_EXPECTED}") from None
    return [x if type(x) is str or type(x) is int else _plain(x) for x in given]


def _plain(docid: object) -> object:
    """Make plain values of subclasses, whatever those call themselves, and of NumPy's scalars."""
    if isinstance(docid, str):
        return str.__str__(docid)
    if isinstance(docid, np.integer):
        return int(docid)
    if isinstance(docid, int) and not isinstance(docid, bool):
        return int.__int__(docid)
    return docid


def _first_repeat(docids: list[Hashable]) -> Hashable:
    seen: set[Hashable] = set()
    for docid in docids:
        if docid in seen:
            return docid
        seen.add(docid)
    raise AssertionError("no docid repeats")


def is_plain(docid: object) -> bool:
    """Whether this is a single docid that `check_docids` would return as it is."""
    return type(docid) is str or (type(docid) is int and 0 <= docid <= _LARGEST)


def _unknown(docid: object) -> UnknownDocidError:
    return UnknownDocidError(f"docid {docid!r} is not in the index")


def check_row_ids(ids: object, name: str = "docids") -> list[int]:
    """Return row ids of an index without docids as a list of ints.

    Raises
    ------
    DTypeError
        If one is not an int.
    InvalidInputError
        If one is negative or comes twice.
    """
    checked = check_docids(ids, name)
    if checked and isinstance(checked[0], str):
        raise DTypeError(
            f"{name} are strings, but this index was built without docids: its datapoints have "
            "row ids, which are ints"
        )
    return checked


class Stored(Protocol):
    """Docids in a file; see `swann.index.docid_arrays.StoredDocids`."""

    kind: Kind
    arrays: dict[str, NDArray[Any]]

    def __len__(self) -> int: ...
    def in_memory(self) -> Stored: ...  # noqa: D102
    def names(self, numbers: NDArray[np.integer[Any]]) -> NDArray[Any]: ...  # noqa: D102
    def tolist(self) -> list[Any]: ...  # noqa: D102


class Docids:
    """The docids of an index, by the number of the datapoint, and back.

    A number once given keeps its docid for good, so that a search that began before a change can
    still name what it found.

    Parameters
    ----------
    docids : sequence of str or of int
        Of the datapoints 0, 1, 2, ..., as `check_docids` returns them.
    kind : {"str", "int"}, optional
        What they are where there are none yet; None: what the first ones will be.
    stored : Stored, optional
        Docids in a file, in place of `docids`. They stay there until they change.
    """

    def __init__(
        self, docids: Sequence[Any] = (), kind: Kind | None = None, stored: Stored | None = None
    ) -> None:
        self._numbers: dict[Any, int] | None = None
        self._stored = stored
        self._own: NDArray[Any] | None = None  # where it is set, it holds the stored ones too
        if stored is not None:
            self.kind: Kind | None = stored.kind
            self._count = len(stored)
            return
        self._begin(kind)
        if len(docids):
            self._append(docids)

    def _begin(self, kind: Kind | None) -> None:
        self.kind = kind
        self._count = 0
        self._own = self._nothing(1)

    @property
    def stored(self) -> Stored | None:
        """The file that these docids are in, as long as they have not changed."""
        return self._stored if self._own is None else None

    def check(self) -> None:
        """Read docids that are in a file.

        Raises
        ------
        CorruptIndexError
            If they are damaged.
        """
        if self.stored is not None:
            self.stored.tolist()

    @property
    def _table(self) -> NDArray[Any]:
        """The docids by number, then none. Only the writer may ask for it: it reads the file."""
        if self._own is None:
            assert self._stored is not None
            table = self._nothing(self._count + 1)
            table[: self._count] = self._stored.tolist()
            self._own = table
        return self._own

    def _nothing(self, length: int) -> NDArray[Any]:
        """Return a table of no docids, as results show them."""
        return np.full(length, -1) if self.kind == "int" else np.full(length, None, object)

    def __len__(self) -> int:
        """Return how many numbers have been given."""
        return self._count

    def names(self, numbers: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return the docids of `numbers`; None (of ints: -1) for -1."""
        if self._own is None:
            assert self._stored is not None
            return self._stored.names(numbers)
        named: NDArray[Any] = self._own.take(numbers)  # indexing crashes where memory is short
        return named

    def tolist(self) -> list[Any]:
        """Return all docids, in the order of their numbers."""
        listed: list[Any] = self._table[: self._count].tolist()
        return listed

    def copy(self) -> Docids:
        """Return the same docids, which do not change with these."""
        if self.stored is not None:
            return Docids(stored=self.stored)
        made = Docids(kind=self.kind)
        made._count = self._count
        made._own = self._table[: self._count + 1].copy()
        made._own[self._count :] = made._nothing(1)
        return made

    def in_memory(self) -> Docids:
        """Return the same docids without the file that they are in."""
        return self if self.stored is None else Docids(stored=self.stored.in_memory())

    def name(self, number: int) -> NDArray[Any]:
        """Return the docid of one number, shape (1,)."""
        return self._table[number : number + 1].copy()

    def number_of(self, docid: Any) -> int | None:
        """Return the number of a plain docid, None if it is not there."""
        if (type(docid) is str) is not (self.kind == "str"):
            self._check_kind([docid])
        return (self._numbers or self._lookup()).get(docid)

    def known_one(self, docid: Any) -> int:
        """Return the number of a plain docid; an UnknownDocidError if it is not there."""
        number = self.number_of(docid)
        if number is None:
            raise _unknown(docid)
        return number

    def numbers_of(self, docids: list[Any]) -> list[int | None]:
        """Return the numbers of `docids`, None for those that are not there."""
        self._check_kind(docids)
        known = self._lookup()
        return [known.get(docid) for docid in docids]

    def known(self, docids: list[Any]) -> list[int]:
        """Return the numbers of `docids`.

        Raises
        ------
        UnknownDocidError
            If one is not there.
        """
        numbers = self.numbers_of(docids)
        for docid, number in zip(docids, numbers, strict=True):
            if number is None:
                raise _unknown(docid)
        return numbers  # type: ignore[return-value]

    def prepare(self, docids: list[Any]) -> None:
        """Give the next numbers to new `docids`."""
        known, first = self._lookup(), self._count
        self._append(docids)
        for number, docid in enumerate(docids, first):
            known[docid] = number

    def cancel(self, docids: list[Any], first: int, kind: Kind | None) -> None:
        """Take back new `docids`, which no search has seen: numbers from `first` on.

        `kind` is what docids were of before.
        """
        self.forget(docids)
        self._count = first
        if self.kind != kind:
            self._begin(kind)

    def forget(self, docids: list[Any]) -> None:
        """Find these no more; searches that began before may still name them."""
        known = self._lookup()
        for docid in docids:
            known.pop(docid, None)

    def kept(self, numbers: NDArray[np.integer[Any]]) -> Docids:
        """Return the docids of `numbers` only, numbered anew in that order."""
        return Docids(self._table[numbers].tolist(), self.kind)

    def _lookup(self) -> dict[Any, int]:
        if self._numbers is None:
            self._numbers = {docid: i for i, docid in enumerate(self.tolist())}
        return self._numbers

    def _check_kind(self, docids: list[Any]) -> None:
        given = "str" if isinstance(docids[0], str) else "int"
        if self.kind is not None and given != self.kind:
            raise DTypeError(f"docids are of type {given}, but those of this index are {self.kind}")

    def _append(self, docids: Sequence[Any]) -> None:
        """Put docids at the end of the table; its last place stands for no datapoint."""
        if self.kind is None:
            self._begin("str" if isinstance(docids[0], str) else "int")
        count = self._count + len(docids)
        if count >= len(self._table):
            table = self._nothing(max(count + 1, len(self._table) * 3 // 2, 64))
            table[: self._count] = self._table[: self._count]
            table[self._count : count] = docids
            self._own = table
        elif len(docids) == 1:
            self._table[self._count] = docids[0]
        else:
            self._table[self._count : count] = docids
        self._count = count

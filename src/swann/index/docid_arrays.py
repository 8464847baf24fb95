"""Docids as they are kept: ints, or UTF-8 one after the other and where each ends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.errors import CorruptIndexError
from swann.index.docids import Docids, Kind

__all__ = ["DOCID_ARRAYS", "StoredDocids", "docid_arrays"]

DOCID_ARRAYS: dict[str, np.dtype[Any]] = {
    "docid_ints": np.dtype("<i8"),
    "docid_bytes": np.dtype("u1"),  # UTF-8, one after the other
    "docid_ends": np.dtype("<u8"),  # in docid_bytes
}


class StoredDocids:
    """Docids in mapped arrays. Each is read when it is asked for.

    Parameters
    ----------
    arrays : dict
        ``docid_ints``, or ``docid_bytes`` and ``docid_ends``.
    where : object
        What errors name.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], where: object) -> None:
        self.arrays = arrays
        self._where = where
        self._ints = arrays.get("docid_ints")
        self.kind: Kind = "str" if self._ints is None else "int"
        if self._ints is None:
            self._ends = arrays["docid_ends"]
            self._data = arrays["docid_bytes"]
            self._known: dict[int, str | None] = {-1: None}  # strings made before
            self._all: NDArray[Any] | None = None  # all of them, then None

    def __len__(self) -> int:
        return len(self._ends if self._ints is None else self._ints)

    def in_memory(self) -> StoredDocids:
        """Return the same with copies of the arrays."""
        copies = {name: np.array(array) for name, array in self.arrays.items()}
        return StoredDocids(copies, self._where)

    def names(self, numbers: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return the docids of `numbers`; None (of ints: -1) for -1."""
        if self._ints is not None:
            found = np.full(numbers.shape, -1)
            some = numbers >= 0
            found[some] = self._ints.take(numbers[some])
            return found
        if self._all is None and 8 * numbers.size > len(self):
            table = np.full(len(self) + 1, None, object)
            table[:-1] = self.tolist()
            self._all = table
        if self._all is not None:
            named: NDArray[Any] = self._all.take(numbers)
            return named
        known, wanted = self._known, numbers.ravel().tolist()
        try:
            named = np.fromiter(map(known.__getitem__, wanted), object, len(wanted))
        except KeyError:
            made = [known[n] if n in known else self._string(n) for n in wanted]
            named = np.fromiter(made, object, len(wanted))
        return named.reshape(numbers.shape)

    def _string(self, number: int) -> str:
        begin = int(self._ends[number - 1]) if number else 0
        end = int(self._ends[number])
        if not begin <= end <= len(self._data):
            raise self._damaged()
        made = self._known[number] = self._decode(self._data[begin:end].tobytes())
        return made

    def _decode(self, data: bytes) -> str:
        try:  # lone surrogates, which some file names hold, survive
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self._damaged() from None

    def tolist(self) -> list[Any]:
        """Return all of them.

        Raises
        ------
        CorruptIndexError
            If they are not unique, if ints are negative or strings are not UTF-8.
        """
        if self._ints is not None:
            listed: list[Any] = self._ints.tolist()
            sound = not listed or int(self._ints.min()) >= 0
        else:
            ends = self._ends
            ordered = not len(ends) or bool((ends[1:] >= ends[:-1]).all())
            sound = ordered and (int(ends[-1]) if len(ends) else 0) == len(self._data)
            data, places = self._data.tobytes() if sound else b"", [0, *ends.tolist()]
            listed = [self._decode(data[a:b]) for a, b in pairwise(places)]
        if not sound or len(set(listed)) < len(listed):
            raise self._damaged()
        return listed

    def _damaged(self) -> CorruptIndexError:
        return CorruptIndexError(f"the docids of {self._where} are damaged")


def docid_arrays(docids: Docids | None) -> dict[str, NDArray[Any]]:
    """Return the arrays that keep docids."""
    if docids is None or docids.kind is None:  # an index that never had one has no arrays
        return {}
    if docids.stored is not None:
        return docids.stored.arrays
    listed = docids.tolist()
    if docids.kind == "int":
        return {"docid_ints": np.array(listed, np.int64)}
    encoded = [docid.encode("utf-8", "surrogatepass") for docid in listed]
    ends = np.cumsum([len(docid) for docid in encoded], dtype=np.uint64)
    return {"docid_bytes": np.frombuffer(b"".join(encoded), np.uint8), "docid_ends": ends}

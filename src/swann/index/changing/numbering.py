"""The numbers of datapoints that an update names; see `swann.index.state`."""

from __future__ import annotations

from typing import Any

import numpy as np

from swann.errors import InvalidInputError, UnknownDocidError
from swann.index import updates
from swann.index.docids import Docids
from swann.index.packed import MOST_ENTRIES
from swann.index.state import View

__all__ = ["check_room", "numbers_of", "present"]


def check_room(view: View, following: int, count: int) -> None:
    """Raise an InvalidInputError unless `count` rows more fit, and numbers below `following`."""
    if following > MOST_ENTRIES or not view.packed.native.has_room(count):
        raise InvalidInputError(
            f"an index gives {MOST_ENTRIES} numbers at most, to entries of leaves and to "
            "datapoints that it ever had; build a new one"
        )


def numbers_of(names: Docids, given: list[Any], first: int) -> tuple[list[int], list[Any]]:
    """Return the numbers of docids, new ones from `first` on, and those that are new."""
    if not given:
        return [], []
    numbers = names.numbers_of(given)
    if numbers == [None]:
        return [first], given
    fresh = [docid for docid, number in zip(given, numbers, strict=True) if number is None]
    following = iter(range(first, first + len(fresh)))
    return [next(following) if n is None else n for n in numbers], fresh


def present(view: View, row_ids: list[int]) -> list[int]:
    """Return row ids; an UnknownDocidError unless every one is alive."""
    following = min(view.books.following, MOST_ENTRIES)
    if len(row_ids) == 1:
        native = updates.begin(view.packed)
        gone = row_ids[0] >= following or native.row_of(row_ids[0]) == updates.NOWHERE
        missing = row_ids[:gone]
    else:
        ids = np.array(row_ids, np.int64)
        known = ids < following
        known[known] = updates.rows_of(view.packed, ids[known]) != updates.NOWHERE
        missing = ids[~known].tolist()
    if missing:
        raise UnknownDocidError(f"row id {missing[0]} is not in the index")
    return row_ids

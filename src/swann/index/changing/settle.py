"""Noting down what the native code did, right after it or, where an interrupt came between, later.

Each of these looks first whether it did anything, so that they may also follow a call that failed
or never began.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swann.index import updates
from swann.index.state import View

__all__ = ["settle_delete", "settle_upsert"]


def settle_upsert(
    view: View,
    numbers: list[int],
    following: int,
    fresh: list[Any],
    kind: Any,
    before: tuple[int, int],
    take_back: Callable[[], None] | None,
) -> None:
    """Note that datapoints were written, or take back their docids.

    Parameters
    ----------
    view : View
        Where.
    numbers : list of int
        Of the datapoints.
    following : int
        The number of the next new datapoint, afterwards.
    fresh : list
        Docids that were new.
    kind : {"str", "int", None}
        What docids were of before.
    before : (int, int)
        Rows and changes before.
    take_back : callable or None
        Removes the change from the journal.
    """
    rows, changes = before
    books = view.books
    if view.packed.native.num_rows() == rows:  # it did nothing
        if view.docids is not None and fresh:
            view.docids.cancel(fresh, books.following, kind)
        if take_back is not None:
            take_back()
        return
    books.following = following
    books.changes = changes + len(numbers)
    health, books.health = books.health, None  # measured anew if this fails
    if health is not None:
        health.put(numbers, rows, view.packed)
        books.health = health


def settle_delete(
    view: View,
    numbers: list[int],
    given: list[Any],
    changes: int,
    take_back: Callable[[], None] | None,
) -> None:
    """Note that datapoints of these numbers and docids (or row ids) were removed."""
    if view.packed.native.row_of(numbers[0]) != updates.NOWHERE:  # it did nothing
        if take_back is not None:
            take_back()
        return
    if view.docids is not None:
        view.docids.forget(given)
    view.books.changes = changes + len(given)
    if view.books.health is not None:
        view.books.health.drop(numbers)

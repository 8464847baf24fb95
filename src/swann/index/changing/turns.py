"""Changes of an index take turns, and what an interrupt left over is done first."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeVar

from swann.errors import ReadOnlyError, SwannError

__all__ = ["Turns", "in_turn"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="Turns")


class Turns:
    """What has methods `in_turn`: a lock, and what remains to be noted down of the last of them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._busy = 0  # the thread whose turn it is
        self._orphaned = False
        self._unsettled: Callable[[], None] | None = None
        _all.add(self)

    def check_outside(self) -> None:
        """Raise a SwannError if this thread is within a change, which others may wait for."""
        if self._busy == threading.get_ident():
            raise SwannError(
                "an index was to be changed, saved or closed from within another change of it, or "
                "a checkpoint (by a progress callback, or a signal handler); expected it after that"
            )

    def _after_fork(self) -> None:
        """Let nobody wait, in a child, for a thread that only its parent has."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._orphaned = self._busy != 0  # else somebody was only reading
            self._lock, self._busy = threading.RLock(), 0

    def _settle(self) -> None:
        """Note down what the native code did; does nothing the second time."""
        if self._unsettled is not None:
            self._unsettled()
            self._unsettled = None

    def _noted(self, note: Callable[[], None], change: Callable[[], R]) -> R:
        """Make a change and note it down, however it ends.

        A function of its own, and a short one: where no memory at all is left, CPython 3.11 never
        leaves a `finally` that lies behind the first 256 instructions of its function.
        """
        self._unsettled = note
        try:
            return change()
        finally:
            self._settle()


def in_turn(method: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """Let one change of an index wait for the other; what runs within one cannot begin another."""

    def alone(self: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            self.check_outside()
            if self._orphaned:
                raise ReadOnlyError(
                    "this index cannot be changed or saved: the process was forked while another "
                    "thread was changing it; fork between changes, or load it after the fork"
                )
            try:
                self._busy = threading.get_ident()
                if self._unsettled is not None:
                    self._settle()
                return method(self, *args, **kwargs)
            finally:
                self._busy = 0

    update_wrapper(alone, method)
    return alone


_all: weakref.WeakSet[Turns] = weakref.WeakSet()


def _after_fork() -> None:
    for turns in list(_all):
        turns._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

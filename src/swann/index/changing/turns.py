"""Changes of an index take turns, and what an interrupt left over is done first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeVar

from swann.errors import SwannError

__all__ = ["Turns", "in_turn"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="Turns")


class Turns:
    """What has methods `in_turn`: a lock, and what remains to be noted down of the last of them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._busy = False
        self._unsettled: Callable[[], None] | None = None

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
            if self._busy:
                raise SwannError(
                    "an index was to be changed or saved from within another change of it (by a "
                    "progress callback, or a signal handler); expected it after that"
                )
            try:
                self._busy = True
                if self._unsettled is not None:
                    self._settle()
                return method(self, *args, **kwargs)
            finally:
                self._busy = False

    update_wrapper(alone, method)
    return alone

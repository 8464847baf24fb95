"""Waiting for something to become true, on a thread that an interrupt may reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

__all__ = ["News"]


class News:
    """Wakes those that wait.

    It has no lock, and none of theirs is held meanwhile: where Ctrl-C comes while it waits,
    `threading.Condition` leaves its lock held, or lets go of one that it does not hold.
    """

    def __init__(self) -> None:
        self._bells: set[SimpleQueue[None]] = set()  # one of each that waits

    def tell(self) -> None:
        """Have all that wait look again."""
        for bell in tuple(self._bells):
            bell.put(None)

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until `condition` is true, so long at most; return whether it is."""
        end = time.monotonic() + seconds
        bell: SimpleQueue[None] = SimpleQueue()
        try:
            self._bells.add(bell)  # before the first look, so that nothing is missed
            while not (met := condition()) and (left := end - time.monotonic()) > 0:
                with suppress(Empty):
                    bell.get(timeout=left)
            return met
        finally:
            self._bells.discard(bell)

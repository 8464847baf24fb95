"""Where workers run. A pool starts them; a handle asks one and hears when it is gone."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

from swann.distributed.wire import Message
from swann.distributed.workers.worker import Worker

__all__ = ["Done", "Handle", "LocalPool", "LostError", "Pool"]

CONCURRENCY = 4
"""Messages that a worker answers at a time, but for those about its health: these at once."""


class LostError(Exception):
    """The worker is gone, or went before it answered."""


Done = Callable[["Message | Exception"], None]
"""Gets an answer, or a `LostError`; called once, by any thread."""


class Handle(Protocol):
    """A worker from outside.

    Attributes
    ----------
    name : str
        For people.
    alive : bool
        Whether nothing says that it is gone.
    on_death : callable
        Called once it is known to be gone, by any thread; it may be set.
    """

    name: str
    alive: bool
    on_death: Callable[[], None]

    def call(self, method: str, message: Message, done: Done) -> None:
        """Ask; does not wait, and raises nothing: what goes wrong, `done` hears."""

    def stop(self) -> None:
        """End it, whatever it does."""


class Pool(Protocol):
    """Starts workers."""

    def start(self) -> Handle:
        """Start a worker; returns when it can be asked. Raises a WorkerError if that fails."""

    def close(self) -> None:
        """Let go of what the pool itself holds."""


class LocalPool:
    """Workers that are threads of this process.

    Parameters
    ----------
    cache : str, optional
        See `swann.distributed.storage.Storage`.
    """

    def __init__(self, cache: str | None = None) -> None:
        self._cache = cache
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # of the numbers: the fleet starts workers on many threads

    def start(self) -> Handle:  # noqa: D102
        with self._lock:
            name = f"thread-{next(self._numbers)}"
        return _LocalHandle(name, Worker(self._cache))

    def close(self) -> None:  # noqa: D102
        pass


class _LocalHandle:
    def __init__(self, name: str, worker: Worker) -> None:
        self.name, self.alive = name, True
        self.on_death: Callable[[], None] = lambda: None
        self._worker = worker
        self._threads = ThreadPoolExecutor(CONCURRENCY, name)
        self._lock = threading.Lock()

    def call(self, method: str, message: Message, done: Done) -> None:
        def answer() -> None:
            reply = self._worker.handle(method, message)
            done(reply if self.alive else LostError(self.name))

        if method == "health":
            answer()
            return
        with self._lock, suppress(RuntimeError):  # there are no threads where Python ends
            if self.alive:
                self._threads.submit(answer)
                return
        done(LostError(self.name))

    def stop(self) -> None:
        with self._lock:
            was, self.alive = self.alive, False
        self._threads.shutdown(wait=False)  # what was asked is answered, as lost
        if was:
            self.on_death()

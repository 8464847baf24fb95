"""Which manifest is searched now; searches end in the one that they began in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from swann.distributed.workers.generation import Generation
from swann.errors import ReadOnlyError

__all__ = ["Current"]


class Current:
    """Holds a generation, until another takes its place.

    Attributes
    ----------
    generation : Generation
        Where searches that begin now go.
    closed : bool
        Whether no search may begin any more.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.closed = False
        self._lock = threading.Lock()  # held for a moment

    @contextmanager
    def entered(self) -> Iterator[Generation]:
        """Keep the generation that there is open.

        Raises
        ------
        ReadOnlyError
            If the searcher was closed.
        """
        user, generation = object(), self.generation
        try:
            with self._lock:
                if self.closed:
                    raise ReadOnlyError("this searcher was closed")
                generation = self.generation
                generation.users.add(user)
            yield generation
        finally:
            generation.users.discard(user)

    def swap(self, generation: Generation) -> Generation:
        """Let searches that begin from now on go to another one, and return the one before."""
        with self._lock:
            before, self.generation = self.generation, generation
        return before

    def close(self) -> bool:
        """Let no search begin any more; whether that is news."""
        with self._lock:
            before, self.closed = self.closed, True
        return not before

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
    lock : Lock
        Held for a moment, by who puts another generation there too.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.closed = False
        self.lock = threading.Lock()

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
            with self.lock:
                if self.closed:
                    raise ReadOnlyError("this searcher was closed")
                generation = self.generation
                generation.users.add(user)
            yield generation
        finally:
            generation.users.discard(user)

    def close(self) -> bool:
        """Let no search begin any more; whether that is news."""
        with self.lock:
            before, self.closed = self.closed, True
        return not before

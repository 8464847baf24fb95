"""One manifest, as it is searched: an answer comes from one of these, from beginning to end."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.distributed.opening import Description
from swann.distributed.tail import Tail
from swann.distributed.workers.pools import Handle
from swann.index.docids import Docids
from swann.index.shards import Head
from swann.limits import Limits

__all__ = ["Generation", "Member", "Replica"]

_POLL = 0.002  # seconds between looks whether a search uses it


@dataclasses.dataclass(eq=False)
class Member:
    """A worker that is there.

    Attributes
    ----------
    running : set of object
        One of each search that it has not answered. Sets add and discard in one step.
    opening : int
        Shards that it was asked to open, and has not. Guarded by the fleet's lock.
    leaving : bool
        It gets no more shards, and ends when it has none.
    heard : float
        When it last answered a question about its health.
    """

    handle: Handle
    heard: float
    running: set[object] = dataclasses.field(default_factory=set)
    opening: int = 0
    leaving: bool = False
    asked: bool = False

    @property
    def name(self) -> str:
        """That of the handle."""
        return self.handle.name

    @property
    def busy(self) -> int:
        """Searches it has not answered."""
        return len(self.running)


@dataclasses.dataclass(eq=False)
class Replica:
    """A shard of a generation on a worker.

    Attributes
    ----------
    turn : int
        Of its last opening. Later ones have a greater one: what a worker is told of an earlier one
        does not concern it, however late it hears of it.
    opened : bool
        Whether the worker has it.
    ready : bool
        Whether queries may go there.
    upto : int
        The last change that it is known to have made.
    feeding : bool
        Whether changes are on their way to it.
    due : float or None
        When to open it, again if it failed; None from when that was asked.
    """

    member: Member
    shard: int
    turn: int = 0
    opened: bool = False
    ready: bool = False
    upto: int = 0
    feeding: bool = False
    due: float | None = 0.0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class Generation:
    """A manifest that is open: its head, its shards and who has them, the changes behind it.

    Parameters
    ----------
    description : Description
        What the manifest says.
    log : object
        What tells the log behind it from the same one with other changes.

    Attributes
    ----------
    key : str
        Of this generation and no other, also where one of the same manifest is open.
    origin : object
        Where it comes from: equal where there is nothing new in another.
    tail : Tail
        The changes behind the manifest.
    acknowledged : int
        The number of the last change that every later answer shows.
    sizes : int64 array of shape (num_leaves,)
        Entries of each leaf, those that came later too.
    replicas : dict of (shard, name of the worker) to Replica
        Guarded by the fleet's lock.
    ready : list of tuple of Replica
        By shard, those that can be asked. A tuple is replaced, never changed.
    users : set of object
        One of each search in it. Sets add and discard in one step, whatever interrupt comes.
    dropped : bool
        Whether the fleet is to close it, once it has no users.
    """

    def __init__(self, description: Description, log: object = None) -> None:
        self.description = description
        self.key = f"{description.key}-{os.urandom(4).hex()}"
        self.origin = description.storage.location, description.key, log
        self.head: Head = description.open_head()
        self.docids: Docids | None = description.docids
        self.owners: NDArray[np.uint32] = description.index.owners
        starts = description.index.whole_starts.astype(np.int64)
        self.sizes = starts[1:] - starts[:-1]
        self.limits = Limits(description.plan, description.num_leaves)
        self.tail = Tail(description.base)
        self.acknowledged = description.base
        self.num_shards = len(description.shards)
        self.replicas: dict[tuple[int, str], Replica] = {}
        self.ready: list[tuple[Replica, ...]] = [()] * self.num_shards
        self.last_error: str | None = None
        self.users: set[object] = set()
        self.dropped = False

    @property
    def twins(self) -> int:
        """How many entries of a datapoint shards may find, as a multiple of a single index's.

        A spilled datapoint that came later has both of its entries in each shard that owns one.
        """
        tree = self.description.plan.tree
        spills = tree is not None and tree.soar_lambda is not None
        return 2 if spills and self.tail.last > self.description.base else 1

    def names(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return the docids of numbers; the numbers where there are no docids."""
        return numbers if self.docids is None else self.docids.names(numbers)

    def wait_unused(self, seconds: float) -> None:
        """Wait until no search uses it."""
        end = time.monotonic() + seconds
        while self.users and time.monotonic() < end:
            time.sleep(_POLL)

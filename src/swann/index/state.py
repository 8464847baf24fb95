"""What is kept of an index, and what a search reads of one that changes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from swann.config import IndexConfig
from swann.index.docids import Docids
from swann.index.health import Health
from swann.index.packed import PackedIndex

__all__ = ["Books", "LogPoint", "State", "View"]


@dataclass(frozen=True)
class LogPoint:
    """Where the log of changes goes on from a saved state.

    Attributes
    ----------
    id : str
        32 hexadecimal digits that the directory's logs have too: no other log belongs to it.
    sequence : int
        The number of the last change that the state holds.
    """

    id: str
    sequence: int


@dataclass(frozen=True)
class State:
    """All that is kept of an index: what is saved, loaded, pickled and copied.

    Attributes
    ----------
    packed : PackedIndex
        Every live datapoint.
    docids : Docids or None
        By datapoint, where the index has docids.
    next_number : int
        The number of the next new datapoint; at least the number of datapoints.
    plan : IndexConfig
        What `LiveIndex.rebalance` builds. It differs from ``packed.config`` as long as there is
        nothing to train on: an empty index is scored by brute force.
    log : LogPoint or None
        Where changes after it are, of the checkpoint of a durable index.
    """

    packed: PackedIndex
    docids: Docids | None
    next_number: int
    plan: IndexConfig
    log: LogPoint | None = None

    @property
    def numbered(self) -> bool:
        """Whether datapoints have other numbers than their place in the database gave them."""
        packed = self.packed
        return self.next_number != packed.num_datapoints or (
            packed.config.tree is None and packed.ids is not None
        )

    def in_memory(self) -> State:
        """Return the same with all arrays in memory of their own."""
        docids = None if self.docids is None else self.docids.in_memory()
        return dataclasses.replace(self, packed=self.packed.in_memory(), docids=docids)

    @classmethod
    def of(cls, packed: PackedIndex, docids: Docids | None = None) -> State:
        """Return the state of an index as it was built."""
        return cls(packed, docids, packed.num_datapoints, packed.config)


@dataclass
class Books:
    """What the writer knows beside what searches read.

    Attributes
    ----------
    following : int
        The number of the next new datapoint.
    changes : int
        Datapoints written or removed since the leaves were last kept in shape.
    health : Health or None
        Kept up to date once it was asked for.
    """

    following: int
    changes: int = 0
    health: Health | None = None


@dataclass(frozen=True)
class View:
    """One set of arrays and what belongs to it, replaced in one step."""

    packed: PackedIndex
    docids: Docids | None
    plan: IndexConfig
    books: Books = field(repr=False)

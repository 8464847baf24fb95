"""A shard that is open, with the changes made to it."""

from __future__ import annotations

from swann.distributed.tail import Part
from swann.distributed.workers.gate import Gate
from swann.index import updates
from swann.index.shards import Shard

__all__ = ["Copy"]


class Copy:
    """A shard that is open here, and how far its changes have come.

    Attributes
    ----------
    shard : Shard
    upto : int
        The number of the last change that was made.
    since : int
        The number of the last change that made a difference: from there to `upto` it is the same.
    turn : int
        Of the last replica that it was opened for; see `Replica`.
    """

    def __init__(self, shard: Shard, base: int) -> None:
        self.shard = shard
        self.gate = Gate()
        self.upto = self.since = base
        self.turn = 0

    def apply(self, parts: list[Part]) -> None:
        """Make changes, those that were made before left out; none after a gap."""
        for part in parts:
            with self.gate.write():
                if part.sequence == self.upto + 1:
                    if self._make(part):
                        self.since = part.sequence
                    self.upto = part.sequence

    def _make(self, part: Part) -> bool:
        packed = self.shard.packed
        gone = part.gone
        if len(gone):
            gone = gone[updates.rows_of(packed, gone) != updates.NOWHERE]
        native = updates.begin(packed) if len(gone) or len(part.mine) else packed.native
        if len(gone):
            native.erase(gone)
        if len(part.mine):
            bad = native.upsert(part.rows, part.mine, 1)
            if bad != len(part.mine):  # whoever wrote the log has checked them
                raise ValueError(f"change {part.sequence} has a bad vector")
        return bool(len(gone) or len(part.mine))

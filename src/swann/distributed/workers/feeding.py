"""Changes on their way to the replicas of a generation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

from swann.distributed.tail import message_of
from swann.distributed.wire import Message
from swann.distributed.workers.generation import Generation, Replica
from swann.distributed.workers.pools import LostError

__all__ = ["Feeder"]


class Feeder:
    """Sends replicas the changes that they lack, one message at a time to each.

    Nothing is sent by the thread that makes a change: an interrupt (Ctrl-C) reaches the main thread
    only, and would leave a replica that counts as fed and is not.

    Parameters
    ----------
    replicas_of : callable
        Returns the replicas of a generation.
    whole : callable
        Called when a replica lacks nothing.
    more : callable
        Called when one has made changes.
    failed : callable
        Called with the answer of one that could not make them.
    """

    def __init__(
        self,
        replicas_of: Callable[[Generation], list[Replica]],
        whole: Callable[[Generation, Replica], None],
        more: Callable[[], None],
        failed: Callable[[Generation, Replica, Message | Exception], None],
    ) -> None:
        self._replicas_of = replicas_of
        self._whole, self._more, self._failed = whole, more, failed
        self._behind: SimpleQueue[Generation | None] = SimpleQueue()
        threading.Thread(target=self._work, name="swann-feeder", daemon=True).start()

    def feed(self, generation: Generation) -> None:
        """Have the replicas of a generation sent what they lack; does not wait."""
        self._behind.put(generation)

    def close(self) -> None:
        """End the thread."""
        self._behind.put(None)

    def _work(self) -> None:
        while (generation := self._behind.get()) is not None:
            for replica in self._replicas_of(generation):
                with suppress(Exception):  # no memory, say; it is tried again
                    self.pump(generation, replica)

    def pump(self, generation: Generation, replica: Replica) -> None:
        """Send what a replica lacks, unless it is being sent some; say so where that is nothing."""
        with replica.lock:
            if replica.feeding or not replica.opened:
                return
            records = generation.tail.after(replica.upto)
            replica.feeding = bool(records)
        if not records:
            self._whole(generation, replica)
            return
        try:
            message = message_of(records, replica.shard, generation.description.dimension)
            message.fields.update(key=generation.key, shard=replica.shard)
            replica.member.handle.call("apply", message, partial(self._fed, generation, replica))
        except BaseException:
            replica.feeding = False
            raise

    def _fed(self, generation: Generation, replica: Replica, reply: Message | Exception) -> None:
        replica.feeding = False
        if isinstance(reply, LostError):
            return
        if isinstance(reply, Exception) or "error" in reply.fields:
            self._failed(generation, replica, reply)
            return
        replica.upto = reply.fields["upto"]
        self._more()
        self.pump(generation, replica)

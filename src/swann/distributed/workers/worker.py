"""A worker: maps shards, searches them, makes changes to them. It keeps nothing of its own."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from swann.distributed.opening import open_shard
from swann.distributed.tail import parts_of
from swann.distributed.wire import Message
from swann.distributed.workers.copies import Copy
from swann.distributed.workers.folding import fold
from swann.index.shards import Choices

__all__ = ["Worker"]


class Worker:
    """Answers messages about shards; any number of threads may ask.

    Parameters
    ----------
    cache : str, optional
        Directory of files that come from elsewhere, see `swann.distributed.storage`.
    """

    def __init__(self, cache: str | None = None) -> None:
        self._cache = cache
        self._copies: dict[tuple[str, int], Copy] = {}
        self._lock = threading.Lock()
        self._began = time.time()
        self._searches = 0

    def handle(self, method: str, message: Message) -> Message:
        """Do what a message asks; what goes wrong is in the answer, as ``"error"``."""
        try:
            work = {
                "open": self._open,
                "close": self._close,
                "search": self._search,
                "apply": self._apply,
                "fold": self._fold,
                "health": self._health,
            }[method]
            return work(message)
        except Exception as error:
            return Message({"error": f"{type(error).__name__}: {error}"}, [])

    def _open(self, message: Message) -> Message:
        """Open a shard; where it is open already, tell how far it has come."""
        fields = message.fields
        key = fields["key"], fields["shard"]
        shard = None
        while True:
            with self._lock:
                copy = self._copies.get(key)
                if copy is None and shard is not None:
                    copy = self._copies[key] = Copy(shard, fields["base"])
                if copy is not None:
                    copy.turn = max(copy.turn, fields["turn"])
                    break
            shard = open_shard(message, self._cache)
        return Message({"upto": copy.upto}, [])

    def _close(self, message: Message) -> Message:
        """Close a shard, unless it was opened again by what was sent later."""
        key = message.fields["key"], message.fields["shard"]
        with self._lock:
            copy = self._copies.get(key)
            if copy is not None and copy.turn <= message.fields["turn"]:
                del self._copies[key]
        return Message({}, [])

    def _search(self, message: Message) -> Message:
        """Search shards; those that are not here, or behind, are not in the answer."""
        fields, arrays = message.fields, message.arrays
        queries, choices = arrays[0], Choices(arrays[1], arrays[2])
        answered: list[list[int]] = []
        found: list[Any] = []
        for place, shard in enumerate(fields["shards"]):
            copy = self._copies.get((fields["key"], shard))
            if copy is None:
                continue
            own, some = queries, choices
            if fields["selected"]:
                selected = arrays[3 + place]
                own, some = queries[selected], choices.of(selected)
            with copy.gate.read():
                if copy.upto < fields["least"]:
                    continue
                found += copy.shard.gather(
                    own, some, fields["k"], fields["candidates"], fields["threads"]
                )
                answered.append([shard, copy.since, copy.upto])
        self._searches += 1
        return Message({"shards": answered}, found)

    def _apply(self, message: Message) -> Message:
        copy = self._copies[message.fields["key"], message.fields["shard"]]
        copy.apply(parts_of(message.arrays))
        return Message({"upto": copy.upto}, [])

    def _fold(self, message: Message) -> Message:
        """Make new files of a shard with changes; what is open here stays as it is."""
        return fold(message, self._cache)

    def _health(self, _: Message) -> Message:
        with self._lock:
            copies = {f"{key}/{shard}": copy.upto for (key, shard), copy in self._copies.items()}
        figures = {
            "pid": os.getpid(),
            "seconds": time.time() - self._began,
            "searches": self._searches,
            "shards": copies,
        }
        return Message(figures, [])

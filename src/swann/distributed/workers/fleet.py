"""Keeps workers alive and shards on them: starts, replaces, spreads, feeds changes, watches.

One thread does it, woken when something happened. Queries read `Generation.ready` and never wait
for it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from swann.distributed.metrics import Metrics
from swann.distributed.opening import open_message
from swann.distributed.wire import Message
from swann.distributed.workers.feeding import Feeder
from swann.distributed.workers.generation import Generation, Member, Replica
from swann.distributed.workers.news import News
from swann.distributed.workers.placement import place
from swann.distributed.workers.pools import CONCURRENCY, LostError, Pool
from swann.errors import WorkerError

__all__ = ["Fleet"]

_WATCH = 1.0  # seconds between looks when nothing happens
_SILENT = 30.0  # seconds without an answer after which a worker counts as gone
_TRIES = 5
_RETRY = 0.5  # seconds after which a shard that could not be opened is tried again
_PATIENCE = 120.0  # seconds for searches in a generation that is dropped
_OPENS = CONCURRENCY - 1  # shards that a worker opens at a time: searches need a thread, too


class Fleet:
    """The workers of a searcher.

    Parameters
    ----------
    pool : Pool
        Starts them.
    workers : int
        How many there are to be.
    replicas : int
        Workers a shard.
    metrics : Metrics
        Counts what happens.
    """

    def __init__(self, pool: Pool, workers: int, replicas: int, metrics: Metrics) -> None:
        self._pool, self._replicas, self._metrics = pool, replicas, metrics
        self._wanted = workers
        self._starting = 0
        self._members: dict[str, Member] = {}
        self._generations: list[Generation] = []
        self._lock = threading.RLock()
        self._news = News()
        self._wake = threading.Event()
        self._turns = itertools.count(1)  # of openings
        self._closed = False
        self._problem: str | None = None
        self._pause_until = 0.0  # no worker is started before
        self._feeder = Feeder(self._replicas_of, self._ready, self._news.tell, self._failed)
        self._keeper = threading.Thread(target=self._keep, name="swann-fleet", daemon=True)
        self._keeper.start()

    # ---- What others ask for

    def members(self) -> list[Member]:
        """Return the workers that are there."""
        with self._lock:
            return list(self._members.values())

    @property
    def wanted(self) -> int:
        """How many workers there are to be."""
        return self._wanted

    def resize(self, workers: int) -> None:
        """Have more workers, or fewer; shards move in the background, queries go on."""
        with self._lock:
            self._wanted = workers
        self._wake.set()

    def wait_settled(self, seconds: float) -> bool:
        """Wait until there are as many workers as wanted and each shard is where it is to be."""
        return self._wait(self._is_settled, seconds)

    def add(self, generation: Generation, seconds: float) -> None:
        """Open a generation's shards; returns when each can be asked wherever it is to be.

        Whoever goes on without it, after an error too, says so by `Generation.dropped`.

        Raises
        ------
        WorkerError
            If a shard cannot be asked anywhere when the time is over.
        """
        with self._lock:
            self._generations.append(generation)
        self._wake.set()
        if self._wait(self._is_settled, seconds) or all(generation.ready):
            return
        missing = [shard for shard, ready in enumerate(generation.ready) if not ready]
        raise WorkerError(
            f"shards {missing} could not be opened by any worker within {seconds:g} seconds; the "
            f"last error: {generation.last_error or self._problem}"
        )

    def drop(self, generation: Generation) -> None:
        """Close a generation's shards; returns when no search uses it and they are closed.

        The keeper closes them, whatever keeps the caller from waiting.
        """
        generation.dropped = True
        generation.wait_unused(_PATIENCE)
        self._wake.set()
        self._wait(lambda: bool(generation.users) or generation not in self._generations, _PATIENCE)

    def feed(self, generation: Generation) -> None:
        """Have changes that were added to a generation's tail sent to its replicas."""
        self._feeder.feed(generation)

    def wait_fed(self, generation: Generation, sequence: int, seconds: float) -> bool:
        """Wait until a replica of each shard has made the changes up to a number."""

        def fed() -> bool:
            return all(
                any(replica.upto >= sequence for replica in ready) for ready in generation.ready
            )

        return fed() or self._wait(fed, seconds)

    def ask(self, method: str, message: Message) -> Message:
        """Let any worker do some work, another where it goes before it is done.

        Raises
        ------
        WorkerError
            If it fails.
        """
        problem: object = "there are no workers"
        for _ in range(_TRIES):
            members = [member for member in self.members() if member.handle.alive]
            if not members:
                time.sleep(_RETRY)
                continue
            replies: SimpleQueue[Message | Exception] = SimpleQueue()
            member = min(members, key=lambda member: member.busy)
            member.running.add(replies)
            try:
                member.handle.call(method, message, replies.put)
                reply = replies.get()
            finally:
                member.running.discard(replies)
            if isinstance(reply, Message) and "error" not in reply.fields:
                return reply
            problem = reply if isinstance(reply, Exception) else reply.fields["error"]
        raise WorkerError(f"{method} failed in {_TRIES} tries; the last: {problem}")

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            self._closed = True
            members = list(self._members.values())
            self._news.tell()
        self._wake.set()
        for member in members:
            member.handle.stop()
        if self._keeper is not threading.current_thread():
            self._keeper.join(10)
        self._feeder.close()
        self._pool.close()

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        def met() -> bool:
            with self._lock:
                return condition()

        return self._news.wait(lambda: self._closed or met(), seconds) and met()

    def _is_settled(self) -> bool:
        members = list(self._members.values())
        if len(members) != self._wanted or any(not m.handle.alive for m in members):
            return False
        staying = [name for name, member in self._members.items() if not member.leaving]
        return all(self._is_spread(generation, staying) for generation in self._generations)

    def _is_spread(self, generation: Generation, staying: list[str]) -> bool:
        """Whether all replicas are ready, and where they are to be."""
        wanted = min(self._replicas, self._wanted)
        current = _placed(generation)
        return all(len(ready) == wanted for ready in generation.ready) and current == place(
            current, generation.num_shards, staying, self._replicas
        )

    # ---- The keeper

    def _keep(self) -> None:
        while not self._closed:
            try:
                with self._lock:
                    self._forget()
                    self._bury()
                    self._hire()
                    for generation in self._generations:
                        self._spread(generation)
                        self._feeder.feed(generation)  # where an interrupt kept others from it
                    self._dismiss()
                    self._news.tell()
                self._watch()
            except Exception as error:  # goes on with the next look
                self._problem = f"{type(error).__name__}: {error}"
            self._wake.wait(_WATCH)
            self._wake.clear()

    def _forget(self) -> None:
        """Close the shards of generations that nobody uses any more."""
        for generation in [g for g in self._generations if g.dropped and not g.users]:
            self._generations.remove(generation)
            for replica in generation.replicas.values():
                _close(generation, replica)

    def _bury(self) -> None:
        """Forget workers that are gone, and what they had."""
        for name in [name for name, m in self._members.items() if not m.handle.alive]:
            member = self._members.pop(name)
            if not member.leaving:
                self._metrics.lost_workers += 1
            for generation in self._generations:
                for key in [key for key in generation.replicas if key[1] == name]:
                    self._retire(generation, generation.replicas.pop(key))

    def _hire(self) -> None:
        """Start workers that are missing; let those go that are too many."""
        staying = [m for m in self._members.values() if not m.leaving]
        missing = self._wanted - len(staying) - self._starting
        if time.monotonic() >= self._pause_until:
            for _ in range(missing):
                self._starting += 1
                threading.Thread(target=self._start_one, daemon=True).start()
        for member in staying[self._wanted :]:
            member.leaving = True

    def _start_one(self) -> None:
        handle = None
        try:
            handle = self._pool.start()
        except Exception as error:
            self._problem = str(error)
            self._pause_until = time.monotonic() + _RETRY
        with self._lock:
            self._starting -= 1
            if handle is not None and not self._closed:
                handle.on_death = self._wake.set
                self._members[handle.name] = Member(handle, time.monotonic())
        if handle is not None and self._closed:
            handle.stop()
        self._wake.set()

    def _spread(self, generation: Generation) -> None:
        """Open shards where they are missing, close them where they are no more to be."""
        current = _placed(generation)
        staying = [name for name, member in self._members.items() if not member.leaving]
        placed = place(current, generation.num_shards, staying, self._replicas)
        for shard, names in placed.items():
            for name in names:
                if (shard, name) not in generation.replicas:
                    generation.replicas[shard, name] = Replica(self._members[name], shard)
                replica = generation.replicas[shard, name]
                due = replica.due is not None and time.monotonic() >= replica.due
                if due and replica.member.opening < _OPENS:
                    self._open(generation, replica)
            ready = {replica.member.name for replica in generation.ready[shard]}
            for name in current.get(shard, set()) - names:
                if ready >= names and names:
                    replica = generation.replicas.pop((shard, name))
                    self._retire(generation, replica)
                    _close(generation, replica)

    def _dismiss(self) -> None:
        """End workers that were to leave and have nothing to do any more."""
        for name, member in list(self._members.items()):
            has = any(key[1] == name for g in self._generations for key in g.replicas)
            if member.leaving and not has and member.busy == 0:
                del self._members[name]
                member.handle.stop()

    def _watch(self) -> None:
        """Ask workers whether they are well; those that never answer are replaced."""
        now = time.monotonic()
        for member in self.members():
            if member.asked and now - member.heard > _SILENT:
                member.handle.stop()
            elif not member.asked and now - member.heard > _WATCH:
                member.asked, member.heard = True, now
                member.handle.call("health", Message({}, []), partial(_heard, member))

    # ---- One replica

    def _replicas_of(self, generation: Generation) -> list[Replica]:
        with self._lock:
            return list(generation.replicas.values())

    def _open(self, generation: Generation, replica: Replica) -> None:
        """Have a worker open a shard. The lock is held."""
        replica.due, replica.turn = None, next(self._turns)
        replica.member.opening += 1
        message = open_message(generation.description, replica.shard)
        message.fields.update(key=generation.key, shard=replica.shard, turn=replica.turn)

        def done(reply: Message | Exception) -> None:
            if isinstance(reply, LostError):
                return  # the keeper sees it
            with self._lock:
                replica.member.opening -= 1
                wanted = generation in self._generations and _has(generation, replica)
            self._wake.set()
            if not wanted:
                _close(generation, replica)  # what was told before came before it was open
                return
            if isinstance(reply, Exception) or "error" in reply.fields:
                self._failed(generation, replica, reply)
                return
            replica.opened, replica.upto = True, reply.fields["upto"]
            self._feeder.pump(generation, replica)

        replica.member.handle.call("open", message, done)

    def _ready(self, generation: Generation, replica: Replica) -> None:
        with self._lock:
            if replica.ready or not _has(generation, replica):
                return
            replica.ready = True
            generation.ready[replica.shard] += (replica,)
            self._news.tell()
        self._wake.set()

    def _retire(self, generation: Generation, replica: Replica) -> None:
        """Ask a replica no more. The lock is held."""
        replica.ready = False
        kept = tuple(other for other in generation.ready[replica.shard] if other is not replica)
        generation.ready[replica.shard] = kept

    def _failed(self, generation: Generation, replica: Replica, reply: Message | Exception) -> None:
        """Note that a worker cannot open a shard, or make a change to it; it is tried again."""
        text = str(reply) if isinstance(reply, Exception) else reply.fields["error"]
        generation.last_error = f"shard {replica.shard} on {replica.member.name}: {text}"
        self._metrics.failed_opens += 1
        with self._lock:
            self._retire(generation, replica)
            replica.opened = False
            replica.due = time.monotonic() + _RETRY
        _close(generation, replica)


def _close(generation: Generation, replica: Replica) -> None:
    fields = {"key": generation.key, "shard": replica.shard, "turn": replica.turn}
    replica.member.handle.call("close", Message(fields, []), _ignore)


def _has(generation: Generation, replica: Replica) -> bool:
    return generation.replicas.get((replica.shard, replica.member.name)) is replica


def _placed(generation: Generation) -> dict[int, set[str]]:
    """Return which workers have, or are about to have, each shard."""
    current: dict[int, set[str]] = {}
    for shard, name in generation.replicas:
        current.setdefault(shard, set()).add(name)
    return current


def _heard(member: Member, reply: Message | Exception) -> None:
    if isinstance(reply, Message):
        member.heard, member.asked = time.monotonic(), False


def _ignore(_: Message | Exception) -> None:
    pass

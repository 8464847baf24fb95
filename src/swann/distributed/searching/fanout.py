"""One query, or one batch, to many shards: whom to ask, whom to ask again, and when to stop.

A shard is asked at one replica. It is asked at another when the first is late (a hedge) or does not
answer (a fail-over); what comes first counts. Answers of shards must all be of one moment between
two changes; one that is of an earlier moment than another is asked for again.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann.distributed.metrics import Metrics
from swann.distributed.wire import Message
from swann.distributed.workers.generation import Generation, Replica
from swann.index.shards import Choices, Found
from swann.limits import Resolved

__all__ = ["Fanout", "Pace"]

U32 = NDArray[np.uint32]

_POLL = 0.002  # seconds between looks for a replica where there is none
_LEAST_HEDGE = 0.02  # seconds


class Pace:
    """How long answers take, to tell which are late: mean and deviation, by size of the batch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, tuple[float, float]] = {}

    def note(self, queries: int, seconds: float) -> None:
        """Learn from an answer."""
        size = queries.bit_length()
        with self._lock:
            if size not in self._known:
                self._known[size] = seconds, seconds / 2
                return
            mean, deviation = self._known[size]
            deviation += (abs(seconds - mean) - deviation) / 4
            self._known[size] = mean + (seconds - mean) / 8, deviation

    def late(self, queries: int, otherwise: float) -> float:
        """Return the seconds after which an answer is late."""
        known = self._known.get(queries.bit_length())
        if known is None:
            return otherwise
        return max(_LEAST_HEDGE, known[0] + 4 * known[1])


class Answer(NamedTuple):
    """What a shard found, the same from one change to another."""

    found: Found
    since: int
    upto: int


@dataclass(eq=False)
class _Call:
    replicas: list[Replica]
    shards: list[int]
    began: float
    hedged: bool = False  # others were asked, too, since it is late


class Fanout:
    """A search of some queries in all the shards that own leaves they visit.

    Parameters
    ----------
    generation : Generation
        Where.
    queries : float32 array of shape (num_queries, d)
        They passed `Head.choose`.
    choices : Choices
        What it chose.
    limits : Resolved
        What is asked for.
    threads : int
        Threads of each worker.
    pace, metrics : Pace, Metrics
        Of the searcher.
    hedge : float or None
        Seconds after which another replica is asked; None: as `pace` says.
    """

    def __init__(
        self,
        generation: Generation,
        queries: NDArray[np.float32],
        choices: Choices,
        limits: Resolved,
        threads: int,
        pace: Pace,
        metrics: Metrics,
        hedge: float | None,
    ) -> None:
        self._generation, self._queries, self._choices = generation, queries, choices
        self._limits, self._threads = limits, threads
        self._pace, self._metrics, self._hedge = pace, metrics, hedge
        self._inbox: SimpleQueue[tuple[_Call, Message | Exception]] = SimpleQueue()
        self.owners = generation.owners[choices.leaves]
        self.selected = self._select()
        self.answers: dict[int, Answer] = {}
        self._calls: list[_Call] = []  # that are not answered
        self._failed: dict[int, set[str]] = {}  # by shard: who did not answer
        self._again: set[int] = set()  # shards that are asked once more after a failure

    def _select(self) -> dict[int, U32]:
        """Return the queries that each shard is asked, by shard."""
        count = len(self._queries)
        if count == 1:
            every = np.zeros(1, np.uint32)
            return {int(shard): every for shard in np.unique(self.owners)}
        asked = np.zeros((count, self._generation.num_shards), bool)
        asked[np.arange(count)[:, None], self.owners] = True
        chosen = {shard: np.flatnonzero(column) for shard, column in enumerate(asked.T)}
        return {shard: rows.astype(np.uint32) for shard, rows in chosen.items() if len(rows)}

    # ---- The course of it

    def run(self, deadline: float, least: int, rounds: int = 8) -> bool:
        """Ask until all have answered, of one moment; whether that came to be.

        Parameters
        ----------
        deadline : float
            Of `time.monotonic`.
        least : int
            The change that answers must show.
        rounds : int
            How often answers of different moments are asked for again.
        """
        while True:
            self._collect(deadline, least)
            least = max([least, *(answer.since for answer in self.answers.values())])
            behind = [shard for shard, answer in self.answers.items() if answer.upto < least]
            for shard in behind:
                del self.answers[shard]
            if not behind or time.monotonic() >= deadline:
                return len(self.answers) == len(self.selected)
            rounds -= 1
            if rounds == 0:
                return False

    def _collect(self, deadline: float, least: int) -> None:
        """Ask the shards that have not answered until all have, or the deadline comes."""
        late = self._hedge
        if late is None:
            late = self._pace.late(len(self._queries), (deadline - time.monotonic()) / 5)
        while len(self.answers) < len(self.selected):
            self._ask(least)
            now = time.monotonic()
            if now >= deadline:
                return
            wait = deadline - now
            if len(self._waiting()) + len(self.answers) < len(self.selected):
                wait = min(wait, _POLL)  # for a replica to come
            fresh = [call.began for call in self._calls if not call.hedged]
            if fresh:
                wait = min(wait, max(0.0, min(fresh) + late - now))
            try:
                call, reply = (
                    self._inbox.get(timeout=wait) if wait > 0 else self._inbox.get_nowait()
                )
            except Empty:
                self._ask_late_ones(late, least)
                continue
            self._hear(call, reply, least)

    def _waiting(self) -> set[int]:
        """Return the shards without an answer that somebody is asked for."""
        return {s for call in self._calls for s in call.shards if s not in self.answers}

    def _ask(self, least: int) -> None:
        """Ask for the shards that nobody is asked for."""
        waiting = self._waiting()
        todo = [s for s in self.selected if s not in self.answers and s not in waiting]
        if not todo:
            return
        asked = self._dispatch(todo, least)
        again = [shard for shard in asked if shard in self._again]
        if again:
            self._metrics.asked_again(failovers=len(again))
            self._again.difference_update(again)
        for shard in set(todo) - set(asked):
            self._failed.pop(shard, None)  # nobody else has it: whoever failed may try again

    def _ask_late_ones(self, late: float, least: int) -> None:
        now = time.monotonic()
        for call in list(self._calls):
            if call.hedged or now - call.began < late:
                continue
            call.hedged = True
            shards = [shard for shard in call.shards if shard not in self.answers]
            self._metrics.asked_again(hedges=len(self._dispatch(shards, least)))

    def _dispatch(self, shards: list[int], least: int) -> list[int]:
        """Ask for shards at replicas that were not asked for them; return those that have one."""
        groups: dict[str, list[Replica]] = {}
        for shard in shards:
            avoid = self._failed.get(shard, set()) | {
                replica.member.name
                for call in self._calls
                for replica in call.replicas
                if replica.shard == shard
            }
            able = [r for r in self._generation.ready[shard] if r.member.name not in avoid]
            if able:
                load = [r.member.busy + len(groups.get(r.member.name, ())) for r in able]
                first = next(_turns) % len(able)
                order = [*range(first, len(able)), *range(first)]
                chosen = able[min(order, key=load.__getitem__)]
                groups.setdefault(chosen.member.name, []).append(chosen)
        for replicas in groups.values():
            self._send(replicas, least)
        return [replica.shard for replicas in groups.values() for replica in replicas]

    def _send(self, replicas: list[Replica], least: int) -> None:
        shards = [replica.shard for replica in replicas]
        rows = [self.selected[shard] for shard in shards]
        count = len(self._queries)
        arrays: list[NDArray[Any]] = [self._queries, *self._choices]
        selected = any(len(some) < count for some in rows)
        if selected:
            # Only what one of them needs is sent.
            needed = np.unique(np.concatenate(rows)) if len(rows) > 1 else rows[0]
            if len(needed) < count:
                arrays = [self._queries[needed], *self._choices.of(needed)]
                rows = [np.searchsorted(needed, some).astype(np.uint32) for some in rows]
            arrays += rows
        fields = {
            "key": self._generation.key,
            "shards": shards,
            "least": least,
            "k": self._limits.neighbors,
            "candidates": self._limits.candidates,
            "threads": self._threads,
            "selected": selected,
        }
        call = _Call(replicas, shards, time.monotonic())
        self._calls.append(call)
        member, inbox = replicas[0].member, self._inbox

        def done(reply: Message | Exception) -> None:
            member.running.discard(call)
            inbox.put((call, reply))

        try:
            member.running.add(call)
            member.handle.call("search", Message(fields, arrays), done)
        except BaseException:  # an interrupt: nobody may hear of its end
            member.running.discard(call)
            raise

    def _hear(self, call: _Call, reply: Message | Exception, least: int) -> None:
        self._calls = [other for other in self._calls if other is not call]
        name = call.replicas[0].member.name
        answered: set[int] = set()
        if isinstance(reply, Message) and "error" not in reply.fields:
            self._pace.note(len(self._queries), time.monotonic() - call.began)
            for place, (shard, since, upto) in enumerate(reply.fields["shards"]):
                answered.add(shard)
                if upto >= least:  # else it was asked for something earlier
                    found = Found(*reply.arrays[3 * place : 3 * place + 3])
                    self.answers.setdefault(shard, Answer(found, since, upto))
        for shard in set(call.shards) - answered - self.answers.keys():
            self._failed.setdefault(shard, set()).add(name)
            self._again.add(shard)

    # ---- What came of it

    def parts(self) -> list[tuple[U32, Found]]:
        """Return what was found, and for which queries."""
        return [(self.selected[shard], answer.found) for shard, answer in self.answers.items()]

    def coverage(self, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the share of the entries in each query's leaves that was searched."""
        if len(self.answers) == len(self.selected):
            return np.ones(len(self._queries))
        searched = np.zeros(self._generation.num_shards, bool)
        searched[list(self.answers)] = True
        visited = sizes[self._choices.leaves]
        total = visited.sum(axis=1)
        found = np.where(searched[self.owners], visited, 0).sum(axis=1)
        return np.where(total == 0, 1.0, found / np.maximum(total, 1))


# Numbers by which replicas take turns; it matters little who gets which.
_turns = itertools.count(1)

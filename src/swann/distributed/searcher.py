"""Searching an index whose shards are on many workers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swann.config import check_count, check_flag, check_number, check_path
from swann.distributed.fanout import Fanout, Pace
from swann.distributed.fleet import Fleet
from swann.distributed.generation import Generation
from swann.distributed.limits import Resolved
from swann.distributed.logged import Logged, open_logged
from swann.distributed.metrics import Metrics
from swann.distributed.pools import LocalPool, Pool
from swann.distributed.process_pool import ProcessPool
from swann.distributed.storage import Storage
from swann.errors import ConfigError, IncompleteError, InvalidInputError, ReadOnlyError
from swann.index.journal import Durability
from swann.index.shards import merge
from swann.kernels import hardware_threads
from swann.searcher import SearchResult
from swann.vectors import as_queries, bad_query

__all__ = ["DistributedResult", "DistributedSearcher"]

_BLOCK = 4096  # queries that go out together
_PER_DEADLINE = 1000  # queries of a batch that have one deadline
_SPARE = 0.03  # seconds of a deadline that are for putting the answer together
_LONGEST = 1e6  # seconds that anything may take
_PATIENCE = 120.0  # seconds for workers to open an index

Where = str | os.PathLike[str]


class DistributedResult(SearchResult):
    """Neighbors, and how much of what the queries visit was searched.

    Attributes
    ----------
    indices, distances : arrays
        As in `swann.SearchResult`.
    coverage : float, or float64 array of shape (num_queries,)
        The share of the entries in the leaves visited that was searched: 1 unless all replicas of a
        shard were late or gone.
    """

    coverage: Any

    def __new__(
        cls, indices: NDArray[Any], distances: NDArray[np.float32], coverage: Any
    ) -> DistributedResult:
        """Return neighbors with their coverage."""
        made = super().__new__(cls, indices, distances)
        made.coverage = coverage
        return made


class DistributedSearcher:
    """Finds the nearest datapoints of queries, on workers. Made by `open`.

    Answers are, bit for bit, those of the whole index on one machine. Any number of threads may
    search, change the index and change the workers at the same time.
    """

    def __init__(
        self,
        generation: Generation,
        fleet: Fleet,
        metrics: Metrics,
        logged: Logged | None,
        *,
        deadline: float,
        strict: bool,
        hedge_after: float | None,
        cache: Where | None,
    ) -> None:
        self._generation, self._fleet, self._logged = generation, fleet, logged
        self._metrics, self._pace = metrics, Pace()
        self._deadline, self._strict, self._hedge = deadline, strict, hedge_after
        self._cache = cache
        self._threads = hardware_threads()
        self._swapping = threading.Lock()  # held for a moment
        self._rolling = threading.Lock()  # held for a whole roll or checkpoint
        self._closed = False

    @classmethod
    def open(
        cls,
        manifest: Where,
        replicas: int = 2,
        *,
        workers: int | None = None,
        pool: Literal["process", "local", "ray"] | Pool | None = None,
        ray_address: str | None = None,
        deadline: float = 1.0,
        strict: bool = False,
        hedge_after: float | None = None,
        mode: Literal["r", "rw"] = "r",
        log: Where | None = None,
        durability: Durability = "always",
        cache: Where | None = None,
    ) -> DistributedSearcher:
        """Open an index in shards and start workers for it.

        Parameters
        ----------
        manifest : str or path
            The directory of the index, or its URL on a file system that fsspec knows.
        replicas : int
            Workers that have each shard.
        workers : int, optional
            Workers in all; unless given as many as there are processors, at least `replicas`, at
            most one for each replica of a shard.
        pool : {"process", "local", "ray"} or Pool, optional
            Where workers run: processes of this machine, threads of this process, actors of Ray.
            ``"ray"`` if there is a `ray_address`, else ``"process"``.
        ray_address : str, optional
            As ``ray.init`` takes it.
        deadline : float
            Seconds until an answer is given, complete or not; of batches, for each 1,000 queries.
        strict : bool
            Whether an answer that is not complete is an error.
        hedge_after : float, optional
            Seconds after which another replica is asked too. Unless given, once an answer takes
            longer than the mean of such answers and four times their deviation.
        mode : {"r", "rw"}
            ``"rw"`` allows changes, and keeps other writers out.
        log : path, optional
            Local directory of the log of changes; that of the index unless given. An index that is
            elsewhere needs one.
        durability : {"always", "batch", "none"}
            As in `swann.open`.
        cache : path, optional
            Where workers keep files that come from elsewhere.

        Raises
        ------
        IndexFormatError
            If there is no index in shards, it is of another version, or it is damaged.
        StorageError
            If files could not be read.
        WorkerError
            If there are no workers, or none that can open the index.
        LockedError
            If it is open for changes elsewhere.
        """
        check_count("replicas", replicas)
        if not isinstance(mode, str) or mode not in ("r", "rw"):
            raise ConfigError(f"mode is {mode!r}; expected 'r' or 'rw'")
        strict = check_flag("strict", strict)
        deadline = _seconds("deadline", deadline)
        if hedge_after is not None:
            hedge_after = _seconds("hedge_after", hedge_after)
        if log is not None:
            log = check_path("log", log)
        generation, logged = open_logged(Storage(manifest, cache), mode, log, durability)
        fleet = None
        try:
            count = _workers(workers, replicas, generation.num_shards)
            metrics = Metrics()
            fleet = Fleet(_pool(pool, ray_address, cache), count, replicas, metrics)
            fleet.add(generation, _PATIENCE)
        except BaseException:
            if fleet is not None:
                fleet.close()
            if logged is not None:
                logged.close()
            raise
        return cls(
            generation,
            fleet,
            metrics,
            logged,
            deadline=deadline,
            strict=strict,
            hedge_after=hedge_after,
            cache=cache,
        )

    # ---- Searching

    def search(
        self,
        q: object,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> DistributedResult:
        """Find the nearest datapoints of one query.

        Parameters and errors are those of `swann.Searcher.search`.

        Raises
        ------
        IncompleteError
            If the searcher is strict, and not all that it visits was searched within the deadline.
        """
        limits = (final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
        indices, distances = found = self._search(q, 1, limits, 1)
        return DistributedResult(indices[0], distances[0], float(found.coverage[0]))

    def search_batched(
        self,
        queries: object,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> DistributedResult:
        """Find the nearest datapoints of many queries; each worker uses one thread."""
        limits = (final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
        return self._search(queries, 2, limits, 1)

    def search_batched_parallel(
        self,
        queries: object,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
        batch_size: int = 256,
    ) -> DistributedResult:
        """Do what `search_batched` does with `num_threads` threads in each worker."""
        check_count("batch_size", batch_size)
        limits = (final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
        return self._search(queries, 2, limits, self._threads)

    def _search(
        self, given: object, axes: Literal[1, 2], asked: tuple[Any, Any, Any], threads: int
    ) -> DistributedResult:
        began = time.monotonic()
        with self._entered() as generation:
            name = "q" if axes == 1 else "queries"
            queries = as_queries(given, generation.description.dimension, axes, name)
            queries = queries.reshape(-1, generation.description.dimension)
            limits = generation.limits.resolve(*asked)
            count = len(queries)
            ids = np.empty((count, limits.k), np.int64)
            distances = np.empty((count, limits.k), np.float32)
            coverage = np.ones(count)
            for first in range(0, count, _BLOCK):
                block = slice(first, first + _BLOCK)
                ids[block], distances[block], coverage[block] = self._search_block(
                    generation, queries[block], limits, threads, name
                )
            incomplete = int((coverage < 1).sum())
            self._metrics.answered(
                count, time.monotonic() - began, float(coverage.sum()), incomplete
            )
            if incomplete and self._strict:
                least = float(coverage.min())
                raise IncompleteError(
                    f"{incomplete} of {count} queries were not searched in all shards that they "
                    f"visit within {self._deadline:g} seconds; the least coverage is {least:.4f}",
                    least,
                )
            return DistributedResult(generation.names(ids), distances, coverage)

    def _search_block(
        self,
        generation: Generation,
        queries: NDArray[np.float32],
        limits: Resolved,
        threads: int,
        name: str,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
        seconds = self._deadline * max(1.0, len(queries) / _PER_DEADLINE)
        deadline = time.monotonic() + seconds - min(_SPARE, seconds / 20)
        try:
            choices = generation.head.choose(queries, limits.leaves, threads)
        except InvalidInputError:
            if name == "q":
                raise bad_query(queries[0], name) from None
            raise
        fanout = Fanout(
            generation, queries, choices, limits, threads, self._pace, self._metrics, self._hedge
        )
        whole = fanout.run(deadline, generation.acknowledged)
        if not whole and self._logged is not None and time.monotonic() < deadline:
            with self._logged.lock:  # changes come too fast to see one moment
                fanout.run(deadline, generation.tail.last)
        ids, distances = merge(
            generation.head.packed,
            fanout.parts(),
            len(queries),
            limits.k,
            limits.candidates * generation.twins,
            threads,
        )
        return ids, distances, fanout.coverage(generation.sizes)

    @contextmanager
    def _entered(self) -> Iterator[Generation]:
        """Keep the generation that there is open."""
        with self._swapping:
            if self._closed:
                raise ReadOnlyError("this searcher was closed")
            generation = self._generation
            generation.enter()
        try:
            yield generation
        finally:
            generation.leave()

    # ---- Changing

    def upsert(self, docids: object, vectors: object, batch_size: int = 1) -> NDArray[Any]:
        """Insert datapoints, or give those that are there new vectors.

        Durable when it returns, and seen by every later search. Parameters and errors are those of
        `swann.DurableSearcher.upsert`.
        """
        check_count("batch_size", batch_size)
        logged = self._writable()
        with logged.lock:
            changes = logged.changes
            written, sequence = changes.upsert(docids, vectors)
            self._acknowledge(changes.generation, sequence)
        self._fleet.wait_fed(changes.generation, sequence, self._deadline)
        return written

    def delete(self, docids: object) -> None:
        """Remove datapoints; all of them, or none where one is not there."""
        logged = self._writable()
        with logged.lock:
            changes = logged.changes
            sequence = changes.delete(docids)
            self._acknowledge(changes.generation, sequence)
        self._fleet.wait_fed(changes.generation, sequence, self._deadline)

    def _acknowledge(self, generation: Generation, sequence: int) -> None:
        generation.acknowledged = sequence
        self._fleet.feed(generation)

    def flush(self) -> None:
        """Bring all changes that were acknowledged to disk."""
        if self._logged is not None:
            self._logged.flush()

    def checkpoint(self) -> None:
        """Write new files of all shards with their changes, and go on from there.

        Searches go on; changes wait while the new files are opened.

        Raises
        ------
        OSError
            If they cannot be written; nothing is lost.
        WorkerError
            If they cannot be opened; nothing is lost.
        """
        with self._rolling:
            logged = self._writable()
            with logged.lock:
                old = self._generation
                if logged.changes.generation.tail.last == old.description.base:
                    return
                cut = logged.cut()
            description = logged.fold(cut, self._fleet)
            with logged.lock:
                changes = logged.follow(description)
                self._fleet.add(changes.generation, _PATIENCE)
                self._swap(changes.generation)
                logged.changes = changes
            self._retire(old)
            logged.forget(old.description, description)

    def _writable(self) -> Logged:
        if self._closed or self._logged is None or self._logged.journal is None:
            why = "it was closed" if self._closed else "it was opened with mode='r'"
            raise ReadOnlyError(f"this index cannot be changed: {why}")
        return self._logged

    # ---- Another manifest, other workers

    def roll(self, manifest: Where) -> None:
        """Go over to another manifest, while searches go on.

        An answer comes from the old or from the new one, as a whole. Returns when all come from the
        new one and the old one is closed.

        Raises
        ------
        ReadOnlyError
            If this searcher is open for changes: they would be lost.
        IndexFormatError, StorageError, WorkerError
            As `open` does; the old one stays.
        """
        if self._logged is not None and self._logged.journal is not None:
            raise ReadOnlyError("a searcher that is open for changes rolls by checkpoint() only")
        with self._rolling:
            storage = Storage(manifest, self._cache)
            generation, logged = open_logged(storage, "r", None, "none")
            if generation.key == self._generation.key:
                return
            self._fleet.add(generation, _PATIENCE)
            old = self._generation
            self._swap(generation)
            self._logged = logged
            self._retire(old)

    def _swap(self, generation: Generation) -> None:
        """Let searches that begin from now on go to a generation that is open."""
        with self._swapping:
            self._generation = generation

    def _retire(self, generation: Generation) -> None:
        """Close a generation when the searches that began in it have ended."""
        generation.wait_unused(_PATIENCE)
        self._fleet.drop(generation)

    def add_workers(self, count: int = 1, *, wait: float = 60.0) -> bool:
        """Have more workers; shards move to them while searches go on.

        Returns
        -------
        bool
            Whether they have their shards within `wait` seconds.
        """
        wait = check_number("wait", wait, most=_LONGEST)
        self._fleet.resize(self._fleet.wanted + check_count("count", count))
        return self._fleet.wait_settled(wait)

    def remove_workers(self, count: int = 1, *, wait: float = 60.0) -> bool:
        """Have fewer workers, one at least; they end when others have their shards."""
        wait = check_number("wait", wait, most=_LONGEST)
        count = min(check_count("count", count), self._fleet.wanted - 1)
        self._fleet.resize(self._fleet.wanted - count)
        return self._fleet.wait_settled(wait)

    # ---- What it is

    @property
    def config(self) -> Any:
        """The settings of the index."""
        return self._generation.description.plan

    @property
    def dimension(self) -> int:
        """Dimension of datapoints and queries."""
        return self._generation.description.dimension

    @property
    def num_datapoints(self) -> int:
        """Datapoints in the index."""
        if self._logged is not None:
            return self._logged.changes.count
        return self._generation.description.index.num_datapoints

    @property
    def num_shards(self) -> int:
        """Shards of the index."""
        return self._generation.num_shards

    @property
    def num_threads(self) -> int:
        """Threads that `search_batched_parallel` uses in each worker."""
        return self._threads

    @num_threads.setter
    def num_threads(self, threads: int) -> None:
        self._threads = check_count("num_threads", threads)

    def __len__(self) -> int:
        return self.num_datapoints

    def health(self) -> dict[str, Any]:
        """Return what there is: workers, and how many can be asked for each shard."""
        generation = self._generation
        ready = [len(replicas) for replicas in generation.ready]
        return {
            "complete": all(ready),
            "manifest": generation.key,
            "shards": self.num_shards,
            "ready_replicas": ready,
            "workers": [member.name for member in self._fleet.members()],
            "workers_wanted": self._fleet.wanted,
            "change": generation.acknowledged,
            "last_error": generation.last_error,
        }

    def metrics(self) -> Metrics:
        """Return what was counted: queries, latencies, coverage, hedges, fail-overs."""
        return self._metrics

    # ---- The end

    def close(self) -> None:
        """End the workers, and let other writers in; does nothing the second time."""
        with self._swapping:
            was, self._closed = self._closed, True
        if was:
            return
        try:
            if self._logged is not None:
                self._logged.close()
        finally:
            self._fleet.close()

    def __enter__(self) -> DistributedSearcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _workers(workers: int | None, replicas: int, shards: int) -> int:
    if workers is not None:
        return check_count("workers", workers)
    return max(replicas, min(shards * replicas, os.cpu_count() or 1))


def _seconds(name: str, value: object) -> float:
    return check_number(name, value, most=_LONGEST, open_ends=(True, False))


def _pool(pool: Any, ray_address: str | None, cache: Where | None) -> Pool:
    kept = None if cache is None else os.fspath(cache)
    kind = pool if pool is not None else ("process" if ray_address is None else "ray")
    named = kind if isinstance(kind, str) else ""
    if named == "process":
        return ProcessPool(kept)
    if named == "local":
        return LocalPool(kept)
    if named == "ray":
        from swann.distributed.ray_pool import RayPool

        return RayPool(kept, ray_address)
    if not (hasattr(kind, "start") and hasattr(kind, "close")) or isinstance(kind, type):
        raise ConfigError(f"pool is {kind!r}; expected 'process', 'local', 'ray' or a Pool")
    made: Pool = kind
    return made

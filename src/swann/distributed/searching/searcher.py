"""Searching an index whose shards are on many workers."""

from __future__ import annotations

import os
import threading
from typing import Any, Literal

from numpy.typing import NDArray

from swann.config import check_count, check_flag, check_path
from swann.distributed.changing.logged import Logged, open_logged
from swann.distributed.metrics import Metrics
from swann.distributed.opening import Description
from swann.distributed.results import DistributedResult
from swann.distributed.searching.current import Current
from swann.distributed.searching.querying import Querying
from swann.distributed.searching.settings import (
    Where,
    check_seconds,
    check_wait,
    make_pool,
    number_of_workers,
)
from swann.distributed.storage import Storage
from swann.distributed.workers.fleet import Fleet
from swann.distributed.workers.generation import Generation
from swann.distributed.workers.pools import Pool
from swann.errors import ConfigError, ReadOnlyError, WorkerError
from swann.index.log.journal import Durability
from swann.kernels import hardware_threads

__all__ = ["DistributedResult", "DistributedSearcher"]


class DistributedSearcher:
    """Finds the nearest datapoints of queries, on workers. Made by `open`.

    Answers are, bit for bit, those of the whole index on one machine. Any number of threads may
    search, change the index and change the workers at the same time.
    """

    def __init__(
        self,
        generation: Generation,
        fleet: Fleet,
        logged: Logged | None,
        querying: Querying,
        metrics: Metrics,
        deadline: float,
        cache: Where | None,
        log: Where | None,
        wait: float,
    ) -> None:
        self._current, self._fleet, self._logged = Current(generation), fleet, logged
        self._querying, self._metrics, self._deadline = querying, metrics, deadline
        self._cache, self._log, self._wait = cache, log, wait
        self._threads = hardware_threads()
        self._process = os.getpid()
        self._rolling = threading.Lock()  # held for a whole roll or checkpoint

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
        wait: float = 120.0,
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
            ``"ray"`` if there is a `ray_address`, else ``"process"``, which Windows cannot run.
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
            Where workers keep files that come from elsewhere: unless given, where ``SWANN_CACHE``
            says, or in ``indexes`` of the user's cache of swann (``$XDG_CACHE_HOME/swann`` or
            ``~/.cache/swann``). Who can write there decides what is searched.
        wait : float
            Seconds for workers to open all shards, here, in `roll` and in `checkpoint`; they fetch
            what is not in the cache yet. What was fetched stays there if that was too short.

        Returns
        -------
        DistributedSearcher
            To be closed, as by ``with``.

        Raises
        ------
        IndexFormatError
            If there is no index in shards, it is of another version, or it is damaged.
        StorageError
            If files could not be read.
        WorkerError
            If there are no workers, or none that can open the index, within `wait` seconds.
        LockedError
            If it is open for changes elsewhere.
        """
        check_count("replicas", replicas)
        if not isinstance(mode, str) or mode not in ("r", "rw"):
            raise ConfigError(f"mode is {mode!r}; expected 'r' or 'rw'")
        strict = check_flag("strict", strict)
        deadline = check_seconds("deadline", deadline)
        if hedge_after is not None:
            hedge_after = check_seconds("hedge_after", hedge_after)
        wait = check_seconds("wait", wait)
        if log is not None:
            log = check_path("log", log)
        generation, logged = open_logged(Storage(manifest, cache), mode, log, durability)
        fleet = None
        try:
            count = number_of_workers(workers, replicas, generation.num_shards)
            metrics = Metrics()
            fleet = Fleet(make_pool(pool, ray_address, cache), count, replicas, metrics)
            fleet.add(generation, wait)
        except BaseException:
            if fleet is not None:
                fleet.close()
            if logged is not None:
                logged.close()
            raise
        querying = Querying(metrics, deadline, strict, hedge_after)
        return cls(generation, fleet, logged, querying, metrics, deadline, cache, log, wait)

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

        Returns
        -------
        DistributedResult
            Arrays of shape (k,), and the coverage, a float.

        Raises
        ------
        IncompleteError
            If the searcher is strict, and not all that it visits was searched within the deadline.
        WorkerError
            In a forked child of the process that opened it.
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
        """Find the nearest datapoints of many queries; each worker uses one thread.

        Parameters are those of `swann.Searcher.search_batched`, errors those of `search`.

        Returns
        -------
        DistributedResult
            Arrays of shape (num_queries, k), and the coverage of each query, (num_queries,).
        """
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
        self._check_process()
        own = max(threads, min(self._fleet.wanted, hardware_threads()))
        with self._current.entered() as generation:
            return self._querying.search(generation, self._logged, given, axes, asked, threads, own)

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise WorkerError(
                "this index was opened by another process, whose workers answer that one; open it "
                "again after a fork"
            )

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
            try:
                written, sequence = changes.upsert(docids, vectors)
            finally:  # an interrupt may come when it is made
                self._fleet.feed(changes.generation)
        self._fleet.wait_fed(changes.generation, sequence, self._deadline)
        return written

    def delete(self, docids: object) -> None:
        """Remove datapoints; all of them, or none where one is not there.

        Durable when it returns. Parameters and errors are those of `swann.DurableSearcher.delete`.
        """
        logged = self._writable()
        with logged.lock:
            changes = logged.changes
            try:
                sequence = changes.delete(docids)
            finally:
                self._fleet.feed(changes.generation)
        self._fleet.wait_fed(changes.generation, sequence, self._deadline)

    def flush(self) -> None:
        """Bring all changes that were acknowledged to disk."""
        if self._logged is not None:
            self._logged.flush()

    def checkpoint(self) -> None:
        """Write new files of all shards with their changes, and go on from there.

        Searches go on; changes wait while the new files are opened.

        Raises
        ------
        WorkerError
            If a worker cannot write them (no space is left, say) or open them; nothing is lost.
        OSError
            If their manifest cannot be written; nothing is lost.
        """
        with self._rolling:
            logged = self._writable()
            with logged.lock:
                old = self._generation
                if logged.changes.generation.tail.last == old.description.base:
                    return
                cut = logged.cut()
            try:
                description = logged.fold(cut, self._fleet)
                with logged.lock:
                    self._follow(logged, description)
            except BaseException:
                logged.clean(old.description)
                raise
            self._fleet.drop(old)
            logged.forget(old.description, description)

    def _follow(self, logged: Logged, description: Description) -> None:
        """Go over to a manifest that holds the changes up to a cut. The lock is held."""
        changes = logged.follow(description)
        old, new = self._generation, changes.generation
        try:
            self._fleet.add(new, self._wait)
            with self._current.lock:
                # No calls in this: an interrupt comes before or after all of it.
                self._current.generation, logged.changes, old.dropped = new, changes, True
        except BaseException:
            new.dropped = not old.dropped
            raise

    def _writable(self) -> Logged:
        closed = self._current.closed
        if closed or self._logged is None or self._logged.journal is None:
            why = "it was closed" if closed else "it was opened with mode='r'"
            raise ReadOnlyError(f"this index cannot be changed: {why}")
        return self._logged

    # ---- Another manifest, other workers

    def roll(self, manifest: Where, *, log: Where | None = None) -> None:
        """Go over to another manifest, while searches go on.

        An answer comes from the old or from the new one, as a whole. Returns when all come from the
        new one and the old one is closed.

        Parameters
        ----------
        manifest : str or path
            As `open` takes it: of the same index, to see what has changed, or of another one.
        log : path, optional
            As `open` takes it. Unless given, where the present log is if the index lies where the
            present one does; else that of the index.

        Raises
        ------
        ReadOnlyError
            If this searcher is open for changes: they would be lost. If it was closed.
        IndexFormatError, StorageError, WorkerError
            As `open` does; the old one stays.
        """
        self._check_process()
        if self._current.closed:
            raise ReadOnlyError("this searcher was closed")
        if self._logged is not None and self._logged.journal is not None:
            raise ReadOnlyError("a searcher that is open for changes rolls by checkpoint() only")
        if log is not None:
            log = check_path("log", log)
        with self._rolling:
            storage = Storage(manifest, self._cache)
            if log is None and storage.location == self._generation.description.storage.location:
                log = self._log
            new, logged = open_logged(storage, "r", log, "none")
            old, current = self._generation, self._current
            if new.origin == old.origin:
                return
            try:
                self._fleet.add(new, self._wait)
                with current.lock:
                    # No calls in this: an interrupt comes before or after all of it.
                    current.generation, self._logged, self._log, old.dropped = (
                        new,
                        logged,
                        log,
                        True,
                    )
            except BaseException:
                new.dropped = not old.dropped
                raise
            self._fleet.drop(old)

    def add_workers(self, count: int = 1, *, wait: float = 60.0) -> bool:
        """Have more workers; shards move to them while searches go on.

        Parameters
        ----------
        count : int
            How many more.
        wait : float
            Seconds to wait for them; 0: not at all.

        Returns
        -------
        bool
            Whether they have their shards within `wait` seconds.

        Raises
        ------
        ConfigError
            If `count` is below 1, or `wait` is no number of seconds.
        """
        self._check_process()
        wait = check_wait(wait)
        self._fleet.resize(self._fleet.wanted + check_count("count", count))
        return self._fleet.wait_settled(wait)

    def remove_workers(self, count: int = 1, *, wait: float = 60.0) -> bool:
        """Have fewer workers; they end when others have their shards.

        One stays at least: where there are not so many, all others end. Parameters, what is
        returned, and errors are those of `add_workers`.
        """
        self._check_process()
        wait = check_wait(wait)
        count = min(check_count("count", count), self._fleet.wanted - 1)
        self._fleet.resize(self._fleet.wanted - count)
        return self._fleet.wait_settled(wait)

    # ---- What it is

    @property
    def _generation(self) -> Generation:
        return self._current.generation

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
        """Return what there is: workers, and how many can be asked for each shard.

        Returns
        -------
        dict
            ``complete``: whether each shard has a replica that can be asked. ``closed``: whether
            the searcher was; then it is not complete, and there are no workers. ``manifest``: its
            key. ``shards``: how many. ``ready_replicas``: of each shard, how many. ``workers``:
            their names. ``workers_wanted``: how many there should be. ``change``: the number of the
            last one that every answer shows. ``last_error``: a worker's, or None.
        """
        generation, closed = self._generation, self._current.closed
        ready = [0 if closed else len(replicas) for replicas in generation.ready]
        return {
            "complete": all(ready),
            "closed": closed,
            "manifest": generation.description.key,
            "shards": self.num_shards,
            "ready_replicas": ready,
            "workers": [] if closed else [member.name for member in self._fleet.members()],
            "workers_wanted": 0 if closed else self._fleet.wanted,
            "change": generation.acknowledged,
            "last_error": generation.last_error,
        }

    def metrics(self) -> Metrics:
        """Return what was counted until now, or until it was closed: queries, latencies, ..."""
        return self._metrics

    # ---- The end

    def close(self) -> None:
        """End the workers, and let other writers in; does nothing the second time.

        No search begins any more: a ReadOnlyError. What it counted can still be asked for. A forked
        child leaves all to its parent.
        """
        if self._process != os.getpid() or not self._current.close():
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

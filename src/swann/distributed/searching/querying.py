"""Queries of a caller: checked, sent out in blocks, put together, counted."""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swann.distributed.changing.logged import Logged
from swann.distributed.metrics import Metrics
from swann.distributed.results import DistributedResult
from swann.distributed.searching.fanout import Fanout, Pace
from swann.distributed.workers.generation import Generation
from swann.errors import IncompleteError, InvalidInputError
from swann.index.shards import merge
from swann.limits import Resolved, check_many, room
from swann.vectors import as_queries, bad_query

__all__ = ["Querying"]

_BLOCK = 4096  # queries that go out together
_PER_DEADLINE = 1000  # queries of a batch that have one deadline
_SPARE = 0.03  # seconds of a deadline that are for putting the answer together


class Querying:
    """Searches a generation; any number of threads may.

    Parameters
    ----------
    metrics : Metrics
        Counts what happens.
    deadline, strict, hedge_after
        As `DistributedSearcher.open` takes them.
    """

    def __init__(
        self, metrics: Metrics, deadline: float, strict: bool, hedge_after: float | None
    ) -> None:
        self._metrics, self._pace = metrics, Pace()
        self._deadline, self._hedge = deadline, hedge_after
        self.strict = strict

    def search(
        self,
        generation: Generation,
        logged: Logged | None,
        given: object,
        axes: Literal[1, 2],
        asked: tuple[Any, Any, Any],
        threads: int,
        own_threads: int,
    ) -> DistributedResult:
        """Return the neighbors of one query or of many, always as those of many.

        Parameters
        ----------
        generation : Generation
            Where to search; it is kept open meanwhile.
        logged : Logged, optional
            Holds the lock of changes.
        given : array_like
            One query or many, by `axes`.
        asked : tuple
            Neighbors, candidates and leaves, or None for those of the index.
        threads : int
            Threads of each worker.
        own_threads : int
            Threads that choose leaves and put answers together; workers wait meanwhile.
        """
        began = time.monotonic()
        name = "q" if axes == 1 else "queries"
        dimension = generation.description.dimension
        queries = as_queries(given, dimension, axes, name).reshape(-1, dimension)
        limits = generation.limits.resolve(*asked)
        whole = generation.description.index
        check_many(
            limits.neighbors, whole.num_datapoints if logged is None else logged.changes.count
        )
        count = len(queries)
        ids, distances = room((count, limits.neighbors))
        coverage = np.ones(count)
        for first in range(0, count, _BLOCK):
            block = slice(first, first + _BLOCK)
            ids[block], distances[block], coverage[block] = self._search_block(
                generation, logged, queries[block], limits, (threads, own_threads), name
            )
        incomplete = int((coverage < 1).sum())
        self._metrics.answered(count, time.monotonic() - began, float(coverage.sum()), incomplete)
        if incomplete and self.strict:
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
        logged: Logged | None,
        queries: NDArray[np.float32],
        limits: Resolved,
        threads: tuple[int, int],
        name: str,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
        theirs, own = threads
        seconds = self._deadline * max(1.0, len(queries) / _PER_DEADLINE)
        deadline = time.monotonic() + seconds - min(_SPARE, seconds / 20)
        try:
            choices = generation.head.choose(queries, limits.leaves, own)
        except InvalidInputError:
            if name == "q":
                raise bad_query(queries[0], name) from None
            raise
        fanout = Fanout(
            generation, queries, choices, limits, theirs, self._pace, self._metrics, self._hedge
        )
        whole = fanout.run(deadline, generation.acknowledged)
        if not whole and logged is not None and time.monotonic() < deadline:
            with logged.lock:  # changes come too fast to see one moment
                fanout.run(deadline, generation.tail.last)
        ids, distances = merge(
            generation.head.packed,
            fanout.parts(),
            len(queries),
            limits.neighbors,
            limits.candidates * generation.twins,
            own,
        )
        return ids, distances, fanout.coverage(generation.sizes)

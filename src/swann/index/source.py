"""The database of a build, as the index sees it: checked, in chunks, at unit length under cosine.

Nothing here holds more than a chunk. Pages of a memory-mapped file are given back chunk by chunk:
a process that builds from one is no larger than its index and its training samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig, IndexConfig
from swann.distance import normalize_rows, normalizes
from swann.quantize.base import LONGEST, checked_norms
from swann.quantize.metric import map_rows
from swann.quantize.projection import TRAINING_SAMPLE_SIZE, project, train_projection
from swann.vectors import PageReleaser, slice_rows, take

__all__ = ["LONGEST", "Progress", "Source", "most_rows"]

F32 = NDArray[np.float32]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""

_CHUNK_VALUES = 512 * 1024

_MAPPED_ROWS = 128
"""Rows that are read at a time from here and there in a file: each brings 64 KB around it."""


def _chunk_rows(dimension: int) -> int:
    return max(kernels.LANES, _CHUNK_VALUES // dimension)


def most_rows(dimension: int) -> int:
    """Return how many of a leaf's datapoints are looked at together where it has many."""
    return 4 * _chunk_rows(dimension)


class Source:
    """Rows of a database, and the reduced space of its centroids and codes.

    Parameters
    ----------
    db : array of shape (n, d)
        As `swann.vectors.as_database` returns it.
    config : IndexConfig
        What is built.
    threads : int
        How many to use.
    progress : callable, optional
        Told what was done.
    name, start : str and int
        What errors call the rows, and the number of the first one there.
    """

    def __init__(
        self,
        db: NDArray[Any],
        config: IndexConfig,
        threads: int,
        progress: Progress | None,
        name: str = "db",
        start: int = 0,
    ) -> None:
        self.db = db
        self.name = name
        self.start = start
        self.config = config
        self.threads = threads
        self.progress = progress
        self.n, self.dimension = db.shape
        self.unit = normalizes(config.distance_measure)
        self.chunk_rows = _chunk_rows(self.dimension)
        self.basis: F32 | None = None
        self.reduced_dim = self.dimension
        self.tree_map: F32 | None = None  # of the reduced space, for assignment
        self._pages = PageReleaser(db)
        self._is_plain = db.dtype == np.float32 and db.flags.c_contiguous

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage is."""
        if self.progress is not None:
            self.progress(stage, done, total)

    def check(self) -> F32:
        """Refuse bad rows before any work; return all norms as the index sees them."""
        norms = np.empty(self.n, np.float32)
        for first, last in self.spans():
            rows = slice_rows(self.db, first, last)
            number = self.start + first
            norms[first:last] = checked_norms(
                rows, self.name, self.threads, start=number, source=_Numbered(self.db, self.start)
            )
            if self.unit and not norms[first:last].all():
                normalize_rows(rows, self.name, number)  # raises, naming the row
            self.report("check", last, self.n)
        return np.broadcast_to(np.float32(1.0), norms.shape) if self.unit else norms

    # ---- Rows

    def spans(self) -> Iterator[tuple[int, int]]:
        """Cut the rows into chunks: pairs of the first row and the one after the last."""
        for first in range(0, self.n, self.chunk_rows):
            yield first, min(self.n, first + self.chunk_rows)
            self._pages.release()

    def rows(self, first: int, last: int) -> F32:
        """Return some rows."""
        return self._finish(slice_rows(self.db, first, last), first)

    def take(self, ids: NDArray[np.integer[Any]]) -> F32:
        """Return the rows that `ids` names; all of them in their order are not copied."""
        if self._is_plain and not self.unit and not self._pages.mapped and self._all_of(ids):
            every = self.db.view()
            every.flags.writeable = False
            return every
        out = np.empty((len(ids), self.dimension), np.float32)
        for part in self._parts(len(ids)):
            self._take_into(out[part], ids[part])
        return out

    def _all_of(self, ids: NDArray[np.integer[Any]]) -> bool:
        return len(ids) == self.n and bool((ids[1:] > ids[:-1]).all())

    def picked(self, ids: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return the rows that `ids` names as they are in the database."""
        out = np.empty((len(ids), self.dimension), self.db.dtype)
        for part in self._parts(len(ids)):
            out[part] = self.db[ids[part]]
        return out

    def sample_ids(self, size: int, stream: int) -> NDArray[np.int64]:
        """Draw distinct datapoints, ascending: the same for the same seed and stream."""
        if size >= self.n:
            return np.arange(self.n)
        rng = np.random.default_rng([self.config.seed, stream])
        return np.sort(rng.choice(self.n, size, replace=False, shuffle=False))

    def _parts(self, count: int) -> Iterator[slice]:
        step = _MAPPED_ROWS if self._pages.mapped else self.chunk_rows
        for first in range(0, count, step):
            yield slice(first, min(count, first + step))
            self._pages.release()

    def _take_into(self, out: F32, ids: NDArray[np.integer[Any]]) -> None:
        if self._is_plain:
            kernels.take_rows(self.db, np.asarray(ids, np.int64), out, self.threads)
        else:
            out[...] = take(self.db, ids)
        self._finish(out, out=out)

    def _finish(self, rows: F32, first: int = 0, out: F32 | None = None) -> F32:
        if not self.unit:
            return rows
        zero, scaled = kernels.normalize_rows(rows, self.threads, out)
        if zero < len(rows):
            normalize_rows(rows, self.name, self.start + first)  # raises
        return scaled

    # ---- The reduced space

    def adopt(self, projection: F32 | None, reduced_dim: int, tree_map: F32 | None) -> None:
        """Take the spaces that were learned before."""
        self.basis, self.reduced_dim, self.tree_map = projection, reduced_dim, tree_map

    @property
    def projects(self) -> bool:
        """Whether the reduced space is another."""
        return self.basis is not None or self.reduced_dim != self.dimension

    def choose_projection(self, norms: F32) -> None:
        """Train what the settings ask for; `norms` are of all rows."""
        config = self.config
        if config.projection is None or not config.projects:
            return
        if config.projection.kind == "truncate":
            assert config.projection.reduction_dim is not None
            self.reduced_dim = config.projection.reduction_dim
            return
        ids = self.sample_ids(TRAINING_SAMPLE_SIZE, stream=3)
        self.basis = train_projection(
            self._sampled_chunks(ids),
            config.projection,
            self.dimension,
            float(norms.max()),
            least=config.score.dimensions_per_block if isinstance(config.score, AHConfig) else 1,
            threads=self.threads,
        )
        if self.basis is not None:
            self.reduced_dim = len(self.basis)

    def _sampled_chunks(self, ids: NDArray[np.int64]) -> Iterator[F32]:
        # As many at a time whether they are mapped or not: sums depend on that.
        for first in range(0, len(ids), self.chunk_rows):
            part = ids[first : first + self.chunk_rows]
            yield self.take(part)
            self.report("projection", first + len(part), len(ids))

    def reduce(self, rows: F32) -> F32:
        """Return rows in the space of the centroids and codes."""
        return project(rows, self.basis, self.reduced_dim, self.threads)

    def reduced_take(self, ids: NDArray[np.integer[Any]]) -> F32:
        """Return the rows that `ids` names, reduced."""
        return self._changed_take(ids, self.reduce) if self.projects else self.take(ids)

    def _changed_take(self, ids: NDArray[np.integer[Any]], change: Callable[[F32], F32]) -> F32:
        out = np.empty((len(ids), self.reduced_dim), np.float32)
        for part in self._parts(len(ids)):
            out[part] = change(self._finish(take(self.db, ids[part])))
        return out

    # ---- The space of assignment

    def to_tree(self, rows: F32) -> F32:
        """Return reduced rows in the space in which leaves are chosen for them."""
        return map_rows(rows, self.tree_map, self.threads)

    def tree_take(self, ids: NDArray[np.integer[Any]]) -> F32:
        """Return the rows that `ids` names, in the space of assignment."""
        if self.tree_map is None:
            return self.reduced_take(ids)
        return self._changed_take(ids, lambda rows: self.to_tree(self.reduce(rows)))

    def tree_chunks(
        self, reduced_norms: F32 | None = None, tree_norms: F32 | None = None
    ) -> Iterator[tuple[int, F32]]:
        """Walk through all rows in the space of assignment; norms are filled where they change."""
        for first, reduced in self.reduced_chunks(reduced_norms):
            rows = self.to_tree(reduced)
            if self.tree_map is not None and tree_norms is not None:
                part = slice(first, first + len(rows))
                _, tree_norms[part] = kernels.check_rows(rows, self.threads)
            yield first, rows

    # ---- Chunks

    def reduced_chunks(self, norms: F32 | None = None) -> Iterator[tuple[int, F32]]:
        """Walk through all rows, reduced; where that changes them, `norms` gets what is left."""
        for first, last in self.spans():
            rows = self.reduce(self.rows(first, last))
            if self.projects and norms is not None:
                _, norms[first:last] = kernels.check_rows(rows, self.threads)
            yield first, rows


class _Numbered:
    """Values by their place, rows counted from `start` on."""

    def __init__(self, db: NDArray[Any], start: int) -> None:
        self._db = db
        self._start = start

    def __getitem__(self, place: tuple[int, ...]) -> Any:
        return self._db[(place[0] - self._start, *place[1:])]

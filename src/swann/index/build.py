"""From a database to a packed index: check, train, assign, order, encode.

The database is read in chunks and never converted as a whole. The largest things made are those
that stay (exact rows, codes) and the training sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig, BruteForceConfig, IndexConfig, ReorderConfig, ReorderType
from swann.distance import SQUARED_L2, normalize_rows, normalizes
from swann.errors import InvalidInputError
from swann.index.packed import PackedIndex, ranks_by_reach
from swann.index.routes import build_routes
from swann.index.rows import RowArrays
from swann.kernels import GROUP, LANES, Tiles
from swann.partition import tree
from swann.partition.avq import move_to_datapoints
from swann.quantize.anisotropic import anisotropic_weights
from swann.quantize.product import MAX_SWEEPS, train_codebook
from swann.quantize.projection import TRAINING_SAMPLE_SIZE, project, train_projection
from swann.vectors import check_finite, slice_rows, take

__all__ = ["LONGEST", "Progress", "build_index"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""

_CHUNK_VALUES = 4 * 1024 * 1024
_ENOUGH_TO_TRAIN, _ENOUGH_FOR_A_CODEWORD = 16384, 1024
_ENOUGH_TO_COMPARE, _ITERATIONS_TO_COMPARE = 4096, 3
_MAX_ROWS = 2**32 - 2
LONGEST = 1e18
"""Rows and queries longer than this are refused: float32 scores would overflow."""


def build_index(
    db: NDArray[Any],
    config: IndexConfig,
    *,
    num_threads: int = 0,
    progress: Progress | None = None,
) -> PackedIndex:
    """Build an index.

    Parameters
    ----------
    db : array of shape (n, d)
        As `swann.vectors.as_database` returns it.
    config : IndexConfig
        What to build. With the same database, config and seed the index is the same, byte for
        byte, whatever the number of threads.
    num_threads : int
        0 means all cores.
    progress : callable, optional
        Called as ``progress(stage, done, total)`` as the stages go on.

    Returns
    -------
    PackedIndex
        Without datapoints there is nothing to train on: then one that scores by brute force.

    Raises
    ------
    NonFiniteError
        If the database holds a NaN, an infinity, or a value that overflows float32.
    ZeroVectorError
        If a row is all zeros under cosine.
    InvalidInputError
        If a row is longer than 1e18, or there are 2^32 - 1 rows or more.
    """
    return _Build(db, config, num_threads or kernels.hardware_threads(), progress).run()


class _Build:
    def __init__(
        self, db: NDArray[Any], config: IndexConfig, threads: int, progress: Progress | None
    ) -> None:
        self.db = db
        self.config = config
        self.threads = threads
        self.progress = progress
        self.n, self.dimension = db.shape
        self.unit = normalizes(config.distance_measure)
        self.chunk_rows = max(GROUP, _CHUNK_VALUES // self.dimension // GROUP * GROUP)
        self.basis: F32 | None = None
        self.reduced_dim = self.dimension  # of the centroids and codes
        config.check_dimension(self.dimension)
        if self.n == 0:
            self.config = config = _untrained(config)
        spills = config.tree is not None and config.tree.soar_lambda is not None
        most = _MAX_ROWS // 2 if spills else _MAX_ROWS  # entries have 32-bit numbers
        if self.n > most:
            raise InvalidInputError(f"db has {self.n} rows; such an index holds {most} at most")

    def run(self) -> PackedIndex:
        norms = self.check()
        config = self.config
        self.choose_projection(norms)
        reduced_norms = np.empty_like(norms) if self.projects else norms
        centroids, spreads = None, None
        leaves = np.zeros(self.n, np.uint32)
        if config.tree is not None:
            centroids, leaves, spreads = self.partition(reduced_norms)
        elif self.projects:
            for _ in self.reduced_chunks(reduced_norms):
                pass
        ah = config.score if isinstance(config.score, AHConfig) else None
        weights = self.loss_weights(ah, reduced_norms)
        codebook, origins = None, centroids  # what codes are counted from
        if ah is not None:
            if centroids is not None and not self.residuals_pay(ah, centroids, leaves, weights):
                origins = None
            codebook = self.train(ah, origins, leaves, weights)
        order: U32 | None = None
        entry_rows: U32 | None = None
        starts = np.array([0, self.n], np.uint32)
        if centroids is not None:
            order, starts = kernels.sort_by_leaf(leaves, len(centroids))
            if config.tree is not None and config.tree.soar_lambda is not None:
                spilled = self.spill(centroids, leaves, config.tree.soar_lambda)
                starts, entry_rows = tree.spill_entries(starts, spilled[order])
        del leaves
        rows = self.keep_rows(order, norms)
        codes, corrections = None, None
        if ah is not None:
            assert codebook is not None
            datapoints = order if entry_rows is None or order is None else order[entry_rows]
            codes, corrections = self.encode(
                ah,
                origins,
                datapoints,
                starts,
                weights,
                codebook,
                rows.get("rows") if entry_rows is None else None,
            )
        packed, low, span = _pack_corrections(corrections)
        return PackedIndex(
            config=config,
            num_datapoints=self.n,
            dimension=self.dimension,
            projection=self.basis,
            leaf_starts=starts,
            ids=order,
            entry_rows=entry_rows,
            centroids=centroids,
            spreads=spreads,
            routes={} if centroids is None else self.routes(centroids),
            **rows,
            codes=codes,
            codebook=codebook,
            corrections=packed,
            correction_low=low,
            correction_span=span,
            residual=origins is centroids,
        )

    # ---- Reading

    def row_spans(self) -> Iterator[tuple[int, int]]:
        for first in range(0, self.n, self.chunk_rows):
            yield first, min(self.n, first + self.chunk_rows)

    def finish(self, rows: F32, first: int = 0) -> F32:
        """Rows as the index sees them: of unit length under cosine."""
        return normalize_rows(rows, "db", first) if self.unit else rows

    def ordered_rows(self, order: U32 | None, first: int, last: int) -> F32:
        if order is None:
            return self.finish(slice_rows(self.db, first, last))
        return self.finish(take(self.db, order[first:last]))

    def sample(self, ids: NDArray[np.int64]) -> F32:
        everything = len(ids) == self.n and bool((ids == np.arange(self.n)).all())
        return self.finish(slice_rows(self.db, 0, self.n) if everything else take(self.db, ids))

    def sample_ids(self, size: int, stream: int) -> NDArray[np.int64]:
        """Distinct datapoints, ascending; streams draw independently of each other."""
        if size >= self.n:
            return np.arange(self.n)
        rng = np.random.default_rng([self.config.seed, stream])
        return np.sort(rng.choice(self.n, size, replace=False, shuffle=False))

    def report(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)

    def check(self) -> F32:
        """Refuse bad rows before any work; return all norms as the index sees them."""
        norms = np.empty(self.n, np.float32)
        for first, last in self.row_spans():
            rows = slice_rows(self.db, first, last)
            bad, norms[first:last] = kernels.check_rows(rows, self.threads)
            if bad < len(rows):
                check_finite(rows, "db", first, source=self.db)
                raise InvalidInputError(
                    f"db[{first + bad}] is longer than {LONGEST:g}; float32 scores would overflow"
                )
            if self.unit and not norms[first:last].all():
                normalize_rows(rows, "db", first)  # raises, naming the row
            self.report("check", last, self.n)
        if self.unit:
            norms.fill(1.0)
        return norms

    # ---- Projecting

    @property
    def projects(self) -> bool:
        return self.basis is not None or self.reduced_dim != self.dimension

    def choose_projection(self, norms: F32) -> None:
        config = self.config
        if config.projection is None or not config.projects:
            return
        if config.projection.kind == "truncate":
            assert config.projection.reduction_dim is not None
            self.reduced_dim = config.projection.reduction_dim
            return
        ids = self.sample_ids(TRAINING_SAMPLE_SIZE, stream=3)
        self.basis = train_projection(
            self.sampled_chunks(ids),
            config.projection,
            self.dimension,
            float(norms.max()),
            least=config.score.dimensions_per_block if isinstance(config.score, AHConfig) else 1,
            threads=self.threads,
        )
        if self.basis is not None:
            self.reduced_dim = len(self.basis)

    def sampled_chunks(self, ids: NDArray[np.int64]) -> Iterator[F32]:
        for first in range(0, len(ids), self.chunk_rows):
            yield self.finish(take(self.db, ids[first : first + self.chunk_rows]))
            self.report("projection", min(len(ids), first + self.chunk_rows), len(ids))

    def reduce(self, rows: F32) -> F32:
        """Rows in the space of the centroids and codes."""
        return project(rows, self.basis, self.reduced_dim, self.threads)

    def reduced_chunks(self, norms: F32) -> Iterator[tuple[int, F32]]:
        """All rows, reduced; where that changes them, `norms` is filled with what is left."""
        for first, last in self.row_spans():
            rows = self.reduce(self.finish(slice_rows(self.db, first, last), first))
            if self.projects:
                _, norms[first:last] = kernels.check_rows(rows, self.threads)
            yield first, rows

    def reduced_sample(self, ids: NDArray[np.int64]) -> F32:
        if not self.projects:
            return self.sample(ids)
        rows = np.empty((len(ids), self.reduced_dim), np.float32)
        for first in range(0, len(ids), self.chunk_rows):
            part = slice(first, first + self.chunk_rows)
            rows[part] = self.reduce(self.finish(take(self.db, ids[part])))
        return rows

    # ---- Training

    def partition(self, norms: F32) -> tuple[F32, U32, F32 | None]:
        config = self.config.tree
        assert config is not None
        ids = self.sample_ids(max(config.training_sample_size, config.num_leaves), stream=0)
        total = config.training_iterations + tree.anisotropic_iterations(config)
        centroids = tree.train_tree(
            self.reduced_sample(ids),
            config,
            rng=np.random.default_rng([self.config.seed, 1]),
            threads=self.threads,
            on_iteration=lambda i, _: self.report("tree", i + 1, total),
        )
        self.report("tree", total, total)
        leaves, scores = tree.assign(
            self.reduced_chunks(norms),
            self.n,
            centroids,
            self.threads,
            on_rows=lambda done: self.report("assign", done, self.n),
            avq=config.avq,
        )
        if config.avq is None:
            distances = tree.leaf_distances(leaves, scores, norms, len(centroids))
        else:
            order, starts = kernels.sort_by_leaf(leaves, len(centroids))
            centroids, distances = move_to_datapoints(
                lambda ids: self.reduce(self.finish(take(self.db, ids))),
                order,
                starts,
                centroids,
                config.avq,
                most_rows=self.chunk_rows,
                threads=self.threads,
                on_rows=lambda done: self.report("centroids", done, self.n),
            )
        if not ranks_by_reach(self.config):
            return centroids, leaves, None
        return centroids, leaves, tree.leaf_spreads(distances, self.reduced_dim, config.avq)

    def routes(self, centroids: F32) -> dict[str, NDArray[Any]]:
        def report(done: int, total: int) -> None:
            self.report("upper tree", done, total)

        return build_routes(self.config, centroids, self.threads, report)

    def spill(self, centroids: F32, leaves: U32, soar_lambda: float) -> U32:
        """Return a second leaf of every datapoint; its own where there is only one."""
        if len(centroids) < 2:
            return leaves
        spilled = np.empty(self.n, np.uint32)
        for first, last in self.row_spans():
            rows = self.reduce(self.finish(slice_rows(self.db, first, last), first))
            spilled[first:last] = kernels.spill_leaves(
                rows, centroids, leaves[first:last], soar_lambda, self.threads
            )
            self.report("spill", last, self.n)
        return spilled

    def loss_weights(self, ah: AHConfig | None, norms: F32) -> F32 | None:
        if ah is None or not ah.anisotropic:
            return None
        return anisotropic_weights(norms, self.reduced_dim, ah.anisotropic_quantization_threshold)

    def residuals_pay(self, ah: AHConfig, centroids: F32, leaves: U32, weights: F32 | None) -> bool:
        """Whether codes of residuals lose less than codes of whole datapoints, on a small sample.

        They nearly always do. Where many values of the datapoints are alike (zeros, say), codewords
        hit these exactly, and centroids only blur them. Under dot products residuals always pay:
        what a centroid scores is then exact, and tables have less to span.
        """
        if self.config.distance_measure != SQUARED_L2:
            return True
        ids = self.sample_ids(_ENOUGH_TO_COMPARE, stream=2)

        def loss(origins: F32 | None) -> float:
            seen: list[float] = []
            train_codebook(
                self.tiles(ids, origins, leaves, weights),
                ah.dimensions_per_block,
                codewords=ah.codewords,
                iterations=_ITERATIONS_TO_COMPARE,
                rng=np.random.default_rng([self.config.seed, 4]),
                threads=self.threads,
                on_iteration=lambda _, reached: seen.append(reached),
            )
            return seen[-1]

        return loss(centroids) <= loss(None)

    def train(self, ah: AHConfig, origins: F32 | None, leaves: U32, weights: F32 | None) -> F32:
        # More changes no recall. A third of the database at most: tiles take up to two floats a
        # value.
        enough = _ENOUGH_FOR_A_CODEWORD * ah.codewords
        size = min(ah.training_sample_size, enough, max(_ENOUGH_TO_TRAIN, self.n // 3))
        tiles = self.tiles(self.sample_ids(size, stream=0), origins, leaves, weights)
        total = ah.training_iterations * (1 if weights is None else 2)
        codebook = train_codebook(
            tiles,
            ah.dimensions_per_block,
            codewords=ah.codewords,
            iterations=ah.training_iterations,
            rng=np.random.default_rng([self.config.seed, 2]),
            threads=self.threads,
            on_iteration=lambda i, _: self.report("codebook", i + 1, total),
        )
        self.report("codebook", total, total)
        return codebook

    def tiles(
        self, ids: NDArray[np.int64], origins: F32 | None, leaves: U32, weights: F32 | None
    ) -> Tiles:
        """Training data of some datapoints; a few come twice, since tiles are full."""
        ids = np.resize(ids, -(-len(ids) // LANES) * LANES)
        return kernels.make_tiles(
            self.reduced_sample(ids),
            origins,
            None if origins is None else leaves[ids],
            None if weights is None else weights[ids],
            self.threads,
        )

    # ---- Encoding

    def keep_rows(self, order: U32 | None, norms: F32) -> dict[str, Any]:
        """Return the arrays of rows that are scored one by one, by name; none without a need."""
        config = self.config
        exact: BruteForceConfig | ReorderConfig | None = config.reorder
        if isinstance(config.score, BruteForceConfig):
            exact = config.score
        if exact is None:
            return {}
        kept = RowArrays(exact.quantize, self.n, self.dimension)
        weights = None
        if isinstance(exact, ReorderConfig) and exact.quantize is not ReorderType.FLOAT32:
            threshold = exact.anisotropic_quantization_threshold
            if not math.isnan(threshold):
                weights = anisotropic_weights(norms, self.dimension, threshold)
        for first, last in self.row_spans():
            span = slice(first, last)
            chunk_weights = None
            if weights is not None:
                chunk_weights = weights[span if order is None else order[span]]
            kept.put(span, self.ordered_rows(order, first, last), chunk_weights, self.threads)
            self.report("rows", last, self.n)
        return kept.arrays(self.config.distance_measure)

    def encode(
        self,
        ah: AHConfig,
        centroids: F32 | None,
        datapoints: U32 | None,
        starts: U32,
        weights: F32 | None,
        codebook: F32,
        rows: F32 | None,
    ) -> tuple[NDArray[np.uint8], F32 | None]:
        """Encode all entries, a run of groups at a time.

        `datapoints` are those of the entries (None: 0, 1, 2, ...); `rows`, where given, are the
        entries' vectors already in order.
        """
        group_starts = _group_starts(starts)
        groups = int(group_starts[-1])
        blocks = kernels.num_blocks(self.reduced_dim, ah.dimensions_per_block)
        codes = np.empty((groups, blocks, kernels.block_bytes(ah.codewords)), np.uint8)
        residual_l2 = centroids is not None and self.config.distance_measure == SQUARED_L2
        corrections = np.empty(groups * GROUP, np.float32) if residual_l2 else None
        step = self.chunk_rows // GROUP
        for begin in range(0, groups, step):
            end = min(groups, begin + step)
            first = _first_row(starts, group_starts, begin)
            last = _first_row(starts, group_starts, end)
            chunk_weights = None
            if weights is not None:
                chunk_weights = weights[
                    slice(first, last) if datapoints is None else datapoints[first:last]
                ]
            chunk = self.ordered_rows(datapoints, first, last) if rows is None else rows[first:last]
            kernels.pack_codes(
                self.reduce(chunk),
                chunk_weights,
                centroids,
                starts,
                (begin, end),
                codebook,
                ah.dimensions_per_block,
                MAX_SWEEPS,
                codes,
                corrections,
                self.threads,
            )
            self.report("encode", last, int(starts[-1]))
        return codes, corrections


def _untrained(config: IndexConfig) -> IndexConfig:
    """Return settings for an empty index, as close to `config` as can be without training."""
    if config.tree is None and isinstance(config.score, BruteForceConfig):
        return config
    exact = config.score if isinstance(config.score, BruteForceConfig) else BruteForceConfig()
    return IndexConfig(
        num_neighbors=config.num_neighbors,
        distance_measure=config.distance_measure,
        score=exact,
        seed=config.seed,
    )


def _group_starts(leaf_starts: U32) -> NDArray[np.int64]:
    """Return the first group of each leaf."""
    sizes = np.diff(leaf_starts.astype(np.int64))
    return np.concatenate([[0], np.cumsum(-(-sizes // GROUP))])


def _first_row(leaf_starts: U32, group_starts: NDArray[np.int64], group: int) -> int:
    leaf = int(np.searchsorted(group_starts, group, side="right")) - 1
    if leaf == len(leaf_starts) - 1:
        return int(leaf_starts[leaf])
    return int(leaf_starts[leaf]) + (group - int(group_starts[leaf])) * GROUP


def _pack_corrections(
    corrections: F32 | None,
) -> tuple[NDArray[np.uint16] | None, float, float]:
    """Store corrections in 16 bits over their range."""
    if corrections is None:
        return None, 0.0, 0.0
    low, high = float(corrections.min()), float(corrections.max())
    span = high - low
    if span == 0.0:
        return np.zeros(len(corrections), np.uint16), low, 0.0
    packed = np.empty(len(corrections), np.uint16)
    step = 1 << 20
    for begin in range(0, len(corrections), step):
        part = corrections[begin : begin + step].astype(np.float64)
        packed[begin : begin + step] = np.rint((part - low) * (65535.0 / span))
    return packed, low, span

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
from swann.kernels import GROUP, LANES
from swann.partition import tree
from swann.quantize.anisotropic import anisotropic_weights
from swann.quantize.product import MAX_SWEEPS, train_codebook
from swann.vectors import check_finite, slice_rows, take

__all__ = ["Progress", "build_index"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""

_CHUNK_VALUES = 4 * 1024 * 1024
_ENOUGH_TO_TRAIN = 16384
_MAX_ROWS = 2**32 - 2
_LONGEST = 1e18


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
        if isinstance(config.score, AHConfig):
            config.score.check_dimension(self.dimension)
        spills = config.tree is not None and config.tree.soar_lambda is not None
        most = _MAX_ROWS // 2 if spills else _MAX_ROWS  # entries have 32-bit numbers
        if self.n > most:
            raise InvalidInputError(f"db has {self.n} rows; such an index holds {most} at most")

    def run(self) -> PackedIndex:
        norms = self.check()
        config = self.config
        centroids, spreads = None, None
        leaves = np.zeros(self.n, np.uint32)
        if config.tree is not None:
            centroids, leaves, spreads = self.partition(norms)
        ah = config.score if isinstance(config.score, AHConfig) else None
        weights = self.loss_weights(ah, norms)
        codebook = None if ah is None else self.train(ah, centroids, leaves, weights)
        order: U32 | None = None
        entry_rows: U32 | None = None
        starts = np.array([0, self.n], np.uint32)
        if centroids is not None:
            order, starts = kernels.sort_by_leaf(leaves, len(centroids))
            if config.tree is not None and config.tree.soar_lambda is not None:
                spilled = self.spill(centroids, leaves, config.tree.soar_lambda)
                starts, entry_rows = _entries(starts, spilled[order])
        del leaves
        rows = self.keep_rows(order, norms)
        codes, corrections = None, None
        if ah is not None:
            assert codebook is not None
            datapoints = order if entry_rows is None or order is None else order[entry_rows]
            codes, corrections = self.encode(
                ah,
                centroids,
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
            leaf_starts=starts,
            ids=order,
            entry_rows=entry_rows,
            centroids=centroids,
            spreads=spreads,
            **rows,
            codes=codes,
            codebook=codebook,
            corrections=packed,
            correction_low=low,
            correction_span=span,
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
                    f"db[{first + bad}] is longer than {_LONGEST:g}; float32 scores would overflow"
                )
            if self.unit and not norms[first:last].all():
                normalize_rows(rows, "db", first)  # raises, naming the row
            self.report("check", last, self.n)
        if self.unit:
            norms.fill(1.0)
        return norms

    # ---- Training

    def partition(self, norms: F32) -> tuple[F32, U32, F32 | None]:
        config = self.config.tree
        assert config is not None
        ids = self.sample_ids(max(config.training_sample_size, config.num_leaves), stream=0)
        total = config.training_iterations
        centroids = tree.train_tree(
            self.sample(ids),
            config,
            rng=np.random.default_rng([self.config.seed, 1]),
            threads=self.threads,
            on_iteration=lambda i, _: self.report("tree", i + 1, total),
        )
        self.report("tree", total, total)
        leaves, scores = tree.assign(
            (
                (first, self.finish(slice_rows(self.db, first, last), first))
                for first, last in self.row_spans()
            ),
            self.n,
            centroids,
            self.threads,
            on_rows=lambda done: self.report("assign", done, self.n),
        )
        if not ranks_by_reach(self.config):
            return centroids, leaves, None
        spreads = tree.leaf_spreads(leaves, scores, norms, len(centroids), self.dimension)
        return centroids, leaves, spreads

    def spill(self, centroids: F32, leaves: U32, soar_lambda: float) -> U32:
        """Return a second leaf of every datapoint; its own where there is only one."""
        if len(centroids) < 2:
            return leaves
        spilled = np.empty(self.n, np.uint32)
        for first, last in self.row_spans():
            rows = self.finish(slice_rows(self.db, first, last), first)
            spilled[first:last] = kernels.spill_leaves(
                rows, centroids, leaves[first:last], soar_lambda, self.threads
            )
            self.report("spill", last, self.n)
        return spilled

    def loss_weights(self, ah: AHConfig | None, norms: F32) -> F32 | None:
        if ah is None or not ah.anisotropic:
            return None
        return anisotropic_weights(norms, self.dimension, ah.anisotropic_quantization_threshold)

    def train(self, ah: AHConfig, centroids: F32 | None, leaves: U32, weights: F32 | None) -> F32:
        # A third of the database is plenty, and keeps the tiles (up to two floats a value) small
        # beside it.
        size = min(ah.training_sample_size, max(_ENOUGH_TO_TRAIN, self.n // 3))
        ids = self.sample_ids(size, stream=0)
        # Tiles are full: a few datapoints of the sample come twice.
        ids = np.resize(ids, -(-len(ids) // LANES) * LANES)
        tiles = kernels.make_tiles(
            self.sample(ids),
            centroids,
            None if centroids is None else leaves[ids],
            None if weights is None else weights[ids],
            self.threads,
        )
        total = ah.training_iterations * (1 if weights is None else 2)
        codebook = train_codebook(
            tiles,
            ah.dimensions_per_block,
            iterations=ah.training_iterations,
            rng=np.random.default_rng([self.config.seed, 2]),
            threads=self.threads,
            on_iteration=lambda i, _: self.report("codebook", i + 1, total),
        )
        self.report("codebook", total, total)
        return codebook

    # ---- Encoding

    def keep_rows(self, order: U32 | None, norms: F32) -> dict[str, Any]:
        """Return the arrays of rows that are scored one by one, by name; none without a need."""
        config = self.config
        exact: BruteForceConfig | ReorderConfig | None = config.reorder
        if isinstance(config.score, BruteForceConfig):
            exact = config.score
        if exact is None:
            return {}
        kept = _RowArrays(exact.quantize, self.n, self.dimension)
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
        blocks = kernels.num_blocks(self.dimension, ah.dimensions_per_block)
        codes = np.empty((groups, blocks, 16), np.uint8)
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
            kernels.pack_codes(
                self.ordered_rows(datapoints, first, last) if rows is None else rows[first:last],
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


class _RowArrays:
    """The rows of an index in one precision, filled chunk by chunk."""

    def __init__(self, precision: ReorderType, count: int, dimension: int) -> None:
        self.precision = precision
        dtypes = {
            ReorderType.FLOAT32: np.float32,
            ReorderType.BFLOAT16: np.uint16,
            ReorderType.INT8: np.int8,
        }
        self.rows: NDArray[Any] = np.empty((count, dimension), dtypes[precision])
        of_rows = count if precision is ReorderType.INT8 else 0
        self.scales = np.empty(of_rows, np.float32)
        self.squares = np.empty(of_rows, np.float32)

    def put(self, span: slice, rows: F32, weights: F32 | None, threads: int) -> None:
        match self.precision:
            case ReorderType.FLOAT32:
                self.rows[span] = rows
            case ReorderType.BFLOAT16:
                kernels.round_to_bf16(rows, weights, self.rows[span], threads)
            case ReorderType.INT8:
                kernels.round_to_i8(
                    rows, weights, self.rows[span], self.scales[span], self.squares[span], threads
                )

    def arrays(self, distance_measure: str) -> dict[str, Any]:
        match self.precision:
            case ReorderType.FLOAT32:
                return {"rows": self.rows}
            case ReorderType.BFLOAT16:
                return {"rows_bf16": self.rows}
        kept = {"rows_i8": self.rows, "row_scales": self.scales}
        if distance_measure == SQUARED_L2:
            kept["row_squares"] = self.squares
        return kept


def _entries(starts: U32, spilled: U32) -> tuple[U32, U32]:
    """Give every row a second entry, in the leaf that `spilled` names.

    Returns
    -------
    tuple of (uint32 array of shape (leaves + 1,), uint32 array of shape (2 n,))
        Where each leaf's entries start, its own rows first; and the row of each entry.
    """
    leaves = len(starts) - 1
    guests, guest_starts = kernels.sort_by_leaf(spilled, leaves)
    rows = np.empty(2 * len(spilled), np.uint32)
    for leaf in range(leaves):
        own, end = int(starts[leaf]), int(starts[leaf + 1])
        guest, last = int(guest_starts[leaf]), int(guest_starts[leaf + 1])
        place = own + guest
        rows[place : place + end - own] = np.arange(own, end)
        rows[place + end - own : end + last] = guests[guest:last]
    return starts + guest_starts, rows


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

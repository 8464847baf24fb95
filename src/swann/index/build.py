"""From a database to a packed index: check, train, assign, then one pass that keeps and encodes.

The database is read in chunks, in its own order, and never converted as a whole. The largest things
made are those that stay (exact rows, codes) and the training samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig, BruteForceConfig, IndexConfig, ReorderConfig, ReorderType
from swann.distance import SQUARED_L2, normalize_rows
from swann.errors import InvalidInputError
from swann.index.coding import Coder
from swann.index.layout import Layout
from swann.index.learned import TREE_SAMPLE, Learned, Teacher
from swann.index.packed import PackedIndex, ranks_by_reach
from swann.index.routes import build_routes
from swann.index.rows import RowArrays
from swann.index.source import LONGEST, Progress, Source
from swann.partition import tree
from swann.partition.avq import move_to_datapoints
from swann.quantize.anisotropic import anisotropic_weights
from swann.quantize.metric import unmap_rows

__all__ = ["LONGEST", "Progress", "build_index"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

_ENOUGH_A_LEAF = 64
"""Datapoints of the sample a leaf from which their mean stands for that of the whole leaf."""
_MAX_ROWS = 2**32 - 2


def build_index(
    db: NDArray[Any],
    config: IndexConfig,
    *,
    num_threads: int = 0,
    progress: Progress | None = None,
    training_queries: F32 | None = None,
    learned: Learned | None = None,
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
    training_queries : float32 array of shape (m, d), optional
        Queries like those to come, finite: the loss is built from them where that pays
        (`swann.index.learned`). Nothing is learned under squared l2.
    learned : Learned, optional
        What queries taught an index before, of all d dimensions; not with `training_queries`.

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
    build = _Build(db, config, num_threads or kernels.hardware_threads(), progress)
    if config.distance_measure == SQUARED_L2:
        return build.run()
    return build.run(training_queries, learned or Learned())


class _Build:
    def __init__(
        self, db: NDArray[Any], config: IndexConfig, threads: int, progress: Progress | None
    ) -> None:
        n, dimension = db.shape
        config.check_dimension(dimension)
        if n == 0:
            config = _untrained(config)
        spills = config.tree is not None and config.tree.soar_lambda is not None
        most = _MAX_ROWS // 2 if spills else _MAX_ROWS  # entries have 32-bit numbers
        if n > most:
            raise InvalidInputError(f"db has {n} rows; such an index holds {most} at most")
        self.config = config
        self.source = Source(db, config, threads, progress)
        self.threads = threads
        self.teacher: Teacher | None = None
        self.learned = Learned()
        self.tree_centroids: F32 | None = None  # in the space of assignment

    def run(
        self, training_queries: F32 | None = None, learned: Learned | None = None
    ) -> PackedIndex:
        config, source = self.config, self.source
        norms = source.check()
        source.choose_projection(norms)
        self.listen(training_queries, learned or Learned())
        reduced_norms = np.empty(source.n, np.float32) if source.projects else norms
        centroids, spreads = None, None
        leaves = np.zeros(source.n, np.uint32)
        if config.tree is not None:
            centroids, leaves, spreads = self.partition(norms, reduced_norms)
        elif source.projects:
            for _ in source.reduced_chunks(reduced_norms):
                pass
        kernels.release_memory()
        coder = None
        if isinstance(config.score, AHConfig):
            coder = Coder(
                source, config.score, reduced_norms, self.learned.code_metric, self.teacher
            )
            coder.train(centroids, leaves)
        spilled = None
        if config.tree is not None and config.tree.soar_lambda is not None:
            assert self.tree_centroids is not None
            spilled = self.spill(self.tree_centroids, leaves, config.tree.soar_lambda)
        layout = Layout(leaves, 1 if centroids is None else len(centroids), spilled)
        del leaves, spilled
        kernels.release_memory()
        rows = self.write(layout, coder, norms, reduced_norms)
        return PackedIndex(
            config=config,
            num_datapoints=source.n,
            dimension=source.dimension,
            projection=source.basis,
            leaf_starts=layout.starts,
            ids=None if centroids is None else layout.order,
            entry_rows=layout.entry_rows,
            centroids=centroids,
            spreads=spreads,
            tree_map=source.tree_map,
            routes={} if centroids is None else self.routes(centroids),
            **rows,
            **({} if coder is None else coder.packed()),
            residual=coder is None or coder.origins is centroids,
        )

    # ---- Training

    def listen(self, queries: F32 | None, learned: Learned) -> None:
        """Take what queries taught before, or prepare to learn it."""
        source = self.source
        if queries is not None and (self.config.tree or isinstance(self.config.score, AHConfig)):
            self.teacher = Teacher(source.reduce(_unit(queries)), self.threads)
        elif source.projects:
            self.learned = learned.reduced(source.reduce)
        else:
            self.learned = learned
        if self.config.tree is not None:
            source.tree_map = self.learned.tree_map

    def partition(self, norms: F32, reduced_norms: F32) -> tuple[F32, U32, F32 | None]:
        config, source = self.config.tree, self.source
        assert config is not None
        ids = source.sample_ids(max(config.training_sample_size, config.num_leaves), stream=0)
        total = config.training_iterations
        if self.teacher is not None:
            some = ids[:: max(1, len(ids) // TREE_SAMPLE)][:TREE_SAMPLE]
            source.tree_map = self.teacher.choose_tree_map(
                source.reduced_take(some),
                source.n,
                config,
                lambda: np.random.default_rng([self.config.seed, 5]),
            )
        mapped = source.tree_map is not None
        tree_norms = np.empty(source.n, np.float32) if mapped else reduced_norms
        stretch = 1.0 if source.tree_map is None else float(np.sqrt(source.reduced_dim))
        centroids = tree.train_tree(
            source.tree_take(ids),
            config,
            rng=np.random.default_rng([self.config.seed, 1]),
            threads=self.threads,
            on_iteration=lambda i, _: source.report("tree", i + 1, total),
        )
        source.report("tree", total, total)
        few = len(ids) < min(source.n, _ENOUGH_A_LEAF * len(centroids))
        if config.avq is None and (few or config.spherical):
            centroids = tree.to_means(
                source.tree_chunks(),
                centroids,
                float(norms.max()) * stretch,
                source.n,
                self.threads,
                on_rows=lambda done: source.report("centroids", done, source.n),
            )
        flat = unmap_rows(centroids, source.tree_map, self.threads)
        centroids = source.to_tree(flat)
        leaves, scores = tree.assign(
            source.tree_chunks(reduced_norms, tree_norms),
            source.n,
            centroids,
            self.threads,
            on_rows=lambda done: source.report("assign", done, source.n),
            avq=config.avq,
        )
        if config.avq is None:
            distances = tree.leaf_distances(leaves, scores, tree_norms, len(centroids))
        else:
            order, starts = kernels.sort_by_leaf(leaves, len(centroids))
            centroids, distances = move_to_datapoints(
                source.tree_take,
                order,
                starts,
                centroids,
                config.avq,
                most_rows=4 * source.chunk_rows,
                threads=self.threads,
                on_rows=lambda done: source.report("centroids", done, source.n),
            )
            flat = unmap_rows(centroids, source.tree_map, self.threads)
        self.tree_centroids = source.to_tree(flat)
        if not ranks_by_reach(self.config):
            return flat, leaves, None
        hidden = tree.left_out(norms, reduced_norms, source.dimension, source.reduced_dim)
        spreads = tree.leaf_spreads(distances, source.reduced_dim, config.avq, hidden)
        return flat, leaves, spreads

    def routes(self, centroids: F32) -> dict[str, NDArray[Any]]:
        def report(done: int, total: int) -> None:
            self.source.report("upper tree", done, total)

        return build_routes(self.config, centroids, self.threads, report)

    def spill(self, centroids: F32, leaves: U32, soar_lambda: float) -> U32:
        """Return a second leaf of every datapoint; its own where there is only one."""
        if len(centroids) < 2:
            return leaves
        spilled = np.empty_like(leaves)
        for first, rows in self.source.tree_chunks():
            part = slice(first, first + len(rows))
            spilled[part] = kernels.spill_leaves(
                rows, centroids, leaves[part], soar_lambda, self.threads
            )
            self.source.report("spill", part.stop, self.source.n)
        return spilled

    # ---- Writing

    def write(
        self, layout: Layout, coder: Coder | None, norms: F32, reduced_norms: F32
    ) -> dict[str, Any]:
        """Read every datapoint once more: keep its row where one is needed, encode it.

        Returns the arrays of rows by name; codes are in the coder.
        """
        source = self.source
        exact = self.exact()
        kept = None if exact is None else RowArrays(exact.quantize, source.n, source.dimension)
        if coder is not None:
            coder.begin(layout.num_groups)
        for first, last in source.spans():
            rows = source.rows(first, last)
            if kept is not None:
                weights = self.row_weights(norms[first:last])
                kept.put(layout.rows(first, last), rows, weights, self.threads)
            if coder is not None:
                reduced = source.reduce(rows)
                for leaves, places in layout.entries(first, last):
                    coder.put(reduced, reduced_norms[first:last], leaves, places)
            source.report("rows" if coder is None else "encode", last, source.n)
        return {} if kept is None else kept.arrays(self.config.distance_measure)

    def exact(self) -> BruteForceConfig | ReorderConfig | None:
        """Return how rows that are scored one by one are kept; None: none are."""
        if isinstance(self.config.score, BruteForceConfig):
            return self.config.score
        return self.config.reorder

    def row_weights(self, norms: F32) -> F32 | None:
        exact = self.exact()
        if not isinstance(exact, ReorderConfig) or exact.quantize is ReorderType.FLOAT32:
            return None
        threshold = exact.anisotropic_quantization_threshold
        if math.isnan(threshold):
            return None
        return anisotropic_weights(norms, self.source.dimension, threshold)


def _unit(queries: F32) -> F32:
    """Return queries at unit length, each then counts alike; those of zeros rank nothing."""
    _, norms = kernels.check_rows(queries)
    return normalize_rows(queries[norms > 0.0], "training_queries")


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

"""From a database to a packed index: check, train, assign, then one pass that keeps and encodes.

The database is read in chunks, in its own order, and never converted as a whole. The largest things
made are those that stay (exact rows, codes) and the training samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig, BruteForceConfig, IndexConfig, TreeConfig
from swann.distance import SQUARED_L2, normalize_rows
from swann.errors import InvalidInputError
from swann.index.building.coding import Coder
from swann.index.building.encoding import Encoder
from swann.index.building.layout import Layout
from swann.index.building.learned import TREE_SAMPLE, Learned, Teacher
from swann.index.building.trained import Trained, spill
from swann.index.building.writing import check_shareable, exact_rows, write
from swann.index.packed import MOST_ENTRIES, PackedIndex, ranks_by_reach
from swann.index.routes import build_routes
from swann.index.rows import train_origins
from swann.index.source import LONGEST, Progress, Source, most_rows
from swann.partition import tree
from swann.partition.avq import move_to_datapoints
from swann.partition.order import near_together
from swann.quantize.metric import unmap_rows

__all__ = [
    "ENOUGH_AT_FIRST",
    "ENOUGH_A_LEAF",
    "LONGEST",
    "Progress",
    "build_index",
    "check_count_of_rows",
    "train_index",
]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

ENOUGH_A_LEAF = 64
"""Datapoints of the sample a leaf from which their mean stands for that of the whole leaf."""
ENOUGH_AT_FIRST = 320
"""Datapoints of the sample a leaf that the first half of its training sees."""


def build_index(
    db: NDArray[Any],
    config: IndexConfig,
    *,
    num_threads: int = 0,
    progress: Progress | None = None,
    training_queries: F32 | None = None,
    learned: Learned | None = None,
    copy: bool = True,
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
        (`swann.index.building.learned`). Nothing is learned under squared l2.
    learned : Learned, optional
        What queries taught an index before, of all d dimensions; not with `training_queries`.
    copy : bool
        Whether exact rows are; if not, they are `db` itself, which is then read-only.

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
    ConfigError
        If rows need a copy and `copy` is False.
    """
    if not copy:
        check_shareable(db, config)
    build = _Build(db, config, num_threads or kernels.hardware_threads(), progress)
    build.train(training_queries, learned)
    return build.finish(copy)


def train_index(
    db: NDArray[Any],
    config: IndexConfig,
    *,
    num_threads: int = 0,
    progress: Progress | None = None,
    training_queries: F32 | None = None,
    total: int,
) -> Trained:
    """Learn what `build_index` learns, and stop there; parameters and errors are its own.

    `db` may be a sample of the `total` datapoints that the index will hold.
    """
    build = _Build(db, config, num_threads or kernels.hardware_threads(), progress)
    build.total = total
    build.train(training_queries, None)
    return build.trained()


def check_count_of_rows(n: int, config: IndexConfig) -> None:
    """Raise an InvalidInputError if an index cannot hold so many rows."""
    spills = config.tree is not None and config.tree.soar_lambda is not None
    most = MOST_ENTRIES // 2 if spills else MOST_ENTRIES  # entries have 32-bit numbers
    if n > most:
        raise InvalidInputError(f"db has {n} rows; such an index holds {most} at most")


class _Build:
    def __init__(
        self, db: NDArray[Any], config: IndexConfig, threads: int, progress: Progress | None
    ) -> None:
        n, dimension = db.shape
        config.check_dimension(dimension)
        if n == 0:
            config = _untrained(config)
        check_count_of_rows(n, config)
        self.config = config
        self.source = Source(db, config, threads, progress)
        self.threads = threads
        self.teacher: Teacher | None = None
        self.learned = Learned()
        self.total = n
        self.norms = self.reduced_norms = self.residual_norms = np.empty(0, np.float32)
        self.leaves = np.zeros(n, np.uint32)
        self.centroids: F32 | None = None
        self.assigned_by: F32 | None = None  # in the space of assignment
        self.reach_from: F32 | None = None
        self.spreads: F32 | None = None
        self.encoder: Encoder | None = None
        self.row_origins: F32 | None = None

    def train(self, training_queries: F32 | None, learned: Learned | None) -> None:
        """Learn all that is learned; it is in the attributes."""
        config, source = self.config, self.source
        norms = self.norms = source.check()
        source.choose_projection(norms)
        if config.distance_measure == SQUARED_L2:
            training_queries = learned = None
        self.listen(training_queries, learned or Learned())
        self.reduced_norms = np.empty(source.n, np.float32) if source.projects else norms
        self.residual_norms = self.reduced_norms  # until there are centroids
        if config.tree is not None:
            self.partition()
        elif source.projects:
            for _ in source.reduced_chunks(self.reduced_norms):
                pass
        kernels.release_memory()
        if isinstance(config.score, AHConfig):
            coder = Coder(
                source,
                config.score,
                self.reduced_norms,
                self.residual_norms,
                self.total,
                self.learned.code_metric,
                self.teacher,
            )
            self.encoder = coder.train(self.centroids, self.leaves)
        self.residual_norms = np.empty(0, np.float32)
        exact = exact_rows(config)
        if exact is not None:
            self.row_origins = train_origins(source, exact.quantize)

    def trained(self) -> Trained:
        """Return what was learned."""
        source, encoder = self.source, self.encoder
        return Trained(
            self.config,
            source.dimension,
            source.reduced_dim,
            projection=source.basis,
            tree_map=source.tree_map,
            code_metric=None if encoder is None else encoder.metric,
            centroids=self.centroids,
            assigned_by=self.assigned_by,
            reach_from=self.reach_from,
            row_origins=self.row_origins,
            codebook=None if encoder is None else encoder.codebook,
            code_center=None if encoder is None else encoder.center,
            residual=self.residual,
            routes=self.routes(),
        )

    def finish(self, copy: bool) -> PackedIndex:
        """Write the datapoints and return the index."""
        config, source = self.config, self.source
        centroids, encoder = self.centroids, self.encoder
        spilled = None
        soar_lambda = None if config.tree is None else config.tree.soar_lambda
        if centroids is not None and soar_lambda is not None:
            spilled = spill(source, centroids, self.leaves, soar_lambda)
        layout = Layout(self.leaves, 1 if centroids is None else len(centroids), spilled)
        self.leaves = np.empty(0, np.uint32)
        del spilled
        kernels.release_memory()
        if not copy and centroids is not None and exact_rows(config) is not None:
            layout.follow_database()
        rows = write(
            source, layout, encoder, self.row_origins, self.norms, self.reduced_norms, copy=copy
        )
        return PackedIndex(
            config=config,
            num_datapoints=source.n,
            dimension=source.dimension,
            projection=source.basis,
            leaf_starts=layout.starts,
            ids=None if centroids is None else layout.order,
            entry_rows=layout.entry_rows,
            centroids=centroids,
            spreads=self.spreads,
            row_origins=self.row_origins,
            tree_map=source.tree_map,
            routes=self.routes(),
            **rows,
            **({} if encoder is None else encoder.packed()),
            residual=self.residual,
        )

    @property
    def residual(self) -> bool:
        return self.encoder is None or self.encoder.origins is self.centroids

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

    def partition(self) -> None:
        """Train the centroids, assign every datapoint, and measure how far leaves reach."""
        config, source = self.config.tree, self.source
        assert config is not None
        centroids = self.train_centroids(config)
        self.centroids = unmap_rows(centroids, source.tree_map, self.threads)
        self.assigned_by = source.to_tree(self.centroids)
        distances = self.assign(config, self.assigned_by)
        if ranks_by_reach(self.config):
            norms, reduced_norms = self.norms, self.reduced_norms
            hidden = tree.left_out(norms, reduced_norms, source.dimension, source.reduced_dim)
            self.spreads = tree.leaf_spreads(distances, source.reduced_dim, config.avq, hidden)

    def train_centroids(self, config: TreeConfig) -> F32:
        """Train the centroids, in the space of assignment; near ones have near numbers."""
        source = self.source
        ids = source.sample_ids(max(config.training_sample_size, config.num_leaves), stream=0)
        if self.teacher is not None:
            some = ids[:: max(1, len(ids) // TREE_SAMPLE)][:TREE_SAMPLE]
            source.tree_map = self.teacher.choose_tree_map(
                source.reduced_take(some),
                source.n,
                config,
                lambda: np.random.default_rng([self.config.seed, 5]),
            )
        at_first = ENOUGH_AT_FIRST * min(config.num_leaves, len(ids))
        total = config.training_iterations
        centroids = tree.train_tree(
            source.tree_take(_some_first(ids, at_first)),
            config,
            rng=np.random.default_rng([self.config.seed, 1]),
            threads=self.threads,
            at_first=at_first,
            end_at_means=config.avq is None and len(ids) == source.n,
            on_iteration=lambda i, _: source.report("tree", i + 1, total),
        )
        source.report("tree", total, total)
        few = len(ids) < ENOUGH_A_LEAF * len(centroids)
        if config.avq is None and len(ids) < source.n and (few or config.spherical):
            stretch = 1.0 if source.tree_map is None else float(np.sqrt(source.reduced_dim))
            centroids = tree.to_means(
                source.tree_chunks(),
                centroids,
                float(self.norms.max()) * stretch,
                source.n,
                self.threads,
                on_rows=lambda done: source.report("centroids", done, source.n),
            )
        return centroids[near_together(centroids)]

    def assign(self, config: TreeConfig, centroids: F32) -> NDArray[np.float64]:
        """Assign every datapoint; return the mean squared distance to the centroid of each leaf.

        Anisotropic centroids then move to where they are best for their datapoints.
        """
        source = self.source
        mapped = source.tree_map is not None
        tree_norms = np.empty(source.n, np.float32) if mapped else self.reduced_norms
        self.leaves, scores = tree.assign(
            source.tree_chunks(self.reduced_norms, tree_norms),
            source.n,
            centroids,
            self.threads,
            on_rows=lambda done: source.report("assign", done, source.n),
            avq=config.avq,
        )
        if config.avq is None:
            squares = tree.squared_distances(scores, tree_norms)
            if not mapped:
                self.residual_norms = np.sqrt(squares).astype(np.float32)
            return tree.leaf_means(self.leaves, squares, len(centroids))
        order, starts = kernels.sort_by_leaf(self.leaves, len(centroids))
        self.reach_from, distances = move_to_datapoints(
            source.tree_take,
            order,
            starts,
            centroids,
            config.avq,
            most_rows=most_rows(source.dimension),
            threads=self.threads,
            on_rows=lambda done: source.report("centroids", done, source.n),
        )
        self.centroids = unmap_rows(self.reach_from, source.tree_map, self.threads)
        return distances

    def routes(self) -> dict[str, NDArray[Any]]:
        if self.centroids is None:
            return {}

        def report(done: int, total: int) -> None:
            self.source.report("upper tree", done, total)

        return build_routes(self.config, self.centroids, self.threads, report)


def _some_first(ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Bring so many of the ids, evenly spaced, to the front; each part stays in order."""
    chosen = np.zeros(len(ids), bool)
    chosen[np.arange(count) * len(ids) // count if count < len(ids) else slice(None)] = True
    return np.concatenate([ids[chosen], ids[~chosen]])


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

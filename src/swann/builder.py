"""The fluent builder: settings in ScaNN's words, then `build` makes a `Searcher`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from swann.autopilot import build_tuned, check_sample_queries, choose_for
from swann.building import build_searcher, checked_names
from swann.config import (
    AutopilotConfig,
    IncrementalMode,
    IndexConfig,
    ReorderType,
    check_count,
    check_progress,
    with_finer_rows,
)
from swann.config.checks import check_flag
from swann.distance import SQUARED_L2, DistanceMeasure
from swann.errors import ConfigError
from swann.index.building.build import Progress
from swann.index.state import State
from swann.searcher import Searcher
from swann.stages import Stages
from swann.vectors import as_database

__all__ = ["Builder", "build", "builder"]


class Builder(Stages):
    """Collects the settings of an index, each at most once, and builds it.

    Every method but `create_config` and `build` returns the builder itself. A bad setting is
    refused where it is given, before any work is done.

    Parameters
    ----------
    db : array_like of shape (n, d)
        The datapoints: float16, float32, float64 or integers, in any memory layout, or a memory
        map. It is read chunk by chunk in `build`, never converted as a whole, and not kept by the
        searcher unless `copy` is False. There may be none (shape (0, d)): such an index is filled
        by `Searcher.upsert`, scored by brute force, and trained by `Searcher.rebalance`.
    num_neighbors : int
        Neighbors that a search returns by default.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means. Under ``"cosine"`` rows and queries are normalised for you.
    copy : bool
        Whether the searcher keeps a copy of the rows that it scores exactly. False halves the
        memory of a large index: the searcher then reads the rows in `db` itself. A plain array
        becomes read-only when it is built; what changes the values all the same (another view,
        another process) makes answers wrong. Not for every index: rows must be scored in float32
        under ``"dot_product"`` or ``"squared_l2"``, and `db` be a C-contiguous float32 array or
        memory map. Results are the same; scoring whole leaves without codes is slower.
        `Searcher.rebalance` makes a copy after all, as do leaves that are split and changes that
        leave more dead rows than live ones, and `Searcher.save` for the time it takes, but not of
        an index with SOAR or without a tree.

    Raises
    ------
    ShapeError, DTypeError
        If `db` is not a matrix of real numbers, or has no columns.
    ConfigError
        If a setting is bad.

    Examples
    --------
    >>> import numpy as np
    >>> db = np.random.default_rng(0).standard_normal((2000, 16), dtype=np.float32)
    >>> searcher = (
    ...     Builder(db, num_neighbors=5, distance_measure="dot_product")
    ...     .tree(num_leaves=20, num_leaves_to_search=10)
    ...     .score_ah(dimensions_per_block=2, anisotropic_quantization_threshold=0.2)
    ...     .reorder(50)
    ...     .build()
    ... )
    >>> neighbors, distances = searcher.search(db[7])
    >>> neighbors.shape, distances.shape
    ((5,), (5,))
    """

    def __init__(
        self,
        db: object,
        num_neighbors: int,
        distance_measure: DistanceMeasure,
        *,
        copy: bool = True,
    ) -> None:
        super().__init__(as_database(db, allow_empty=True))
        self._training_threads = 0  # all cores
        self._sample_queries: NDArray[np.float32] | None = None
        self._copy = check_flag("copy", copy)
        self._base = IndexConfig(num_neighbors=num_neighbors, distance_measure=distance_measure)

    def autopilot(
        self,
        mode: IncrementalMode = IncrementalMode.NONE,
        quantize: ReorderType | bool = ReorderType.FLOAT32,
        target_recall: float = 0.95,
        sample_queries: object = None,
    ) -> Self:
        """Leave all stages to swann: by the size of the database, and by measuring.

        After training, `build` takes the cheapest numbers of leaves and candidates that find
        `target_recall` of the true neighbors. The result's `Searcher.config` holds what was
        chosen, and its ``autopilot.reasons`` say why.

        Parameters
        ----------
        mode : IncrementalMode
            What the index does by itself while it is updated.
        quantize : ReorderType
            Precision of the rows that are scored one by one.
        target_recall : float
            Share of the `num_neighbors` nearest that a search should find, on average.
        sample_queries : array_like of shape (m, d), optional
            Some hundred queries like those to come. Datapoints stand in for them unless given;
            under the dot product, where queries are often of another kind, so do queries of any
            direction, which costs time that sample queries save.

        Raises
        ------
        ConfigError
            If a setting is bad, or autopilot was already asked for.
        ShapeError, DTypeError, NonFiniteError, ZeroVectorError, InvalidInputError
            If the sample queries could not be searched for.
        """
        config = AutopilotConfig(
            mode=mode,
            quantize=quantize,  # type: ignore[arg-type]
            target_recall=target_recall,
        )
        queries = None
        if sample_queries is not None:
            measure = self._base.distance_measure
            queries = check_sample_queries(sample_queries, self._db.shape[1], measure)
        self._give("autopilot", "autopilot", config)
        self._sample_queries = queries
        return self

    def seed(self, seed: int) -> Self:
        """Seed all randomness in training; 0 by default.

        The same database, settings and seed give the same index, byte for byte, on any number of
        threads.

        Parameters
        ----------
        seed : int
            At least 0.

        Returns
        -------
        Builder
            This one.

        Raises
        ------
        ConfigError
            If the seed is negative or not an integer, or was already given.
        """
        return self._give("seed", "seed", check_count("seed", seed, minimum=0))

    def set_n_training_threads(self, threads: int) -> Self:
        """Train and encode on this many threads; on all cores unless told.

        Parameters
        ----------
        threads : int
            At least 1; the index does not depend on it.

        Returns
        -------
        Builder
            This one.

        Raises
        ------
        ConfigError
            If `threads` is below 1.
        """
        self._training_threads = check_count("threads", threads)
        return self

    def create_config(self) -> IndexConfig:
        """Return the settings given so far as one immutable object.

        Those that are left to `autopilot` are what suits a database of this size; `build` then
        settles by measuring how many leaves to search and candidates to reorder.

        Returns
        -------
        IndexConfig

        Raises
        ------
        ConfigError
            If none of `score_ah`, `score_brute_force` and `autopilot` was called.
        """
        if "autopilot" in self._settings:
            project = self._sample_queries is None
            return choose_for(self._db, **self._left_to_autopilot(), project=project)
        if "score" not in self._settings:
            raise ConfigError(
                "no scoring was chosen: call score_ah(...) for speed, score_brute_force() for "
                "exact scores, or autopilot() to leave everything to swann, before build()"
            )
        config = IndexConfig(
            num_neighbors=self._base.num_neighbors,
            distance_measure=self._base.distance_measure,
            **(self._settings | self._whole_tree()),
        )
        return with_finer_rows(config)

    def _left_to_autopilot(self) -> dict[str, Any]:
        return {
            "distance_measure": self._base.distance_measure,
            "num_neighbors": self._base.num_neighbors,
            "autopilot": self._settings["autopilot"],
            "seed": self._settings.get("seed", 0),
        }

    def build(
        self,
        docids: object = None,
        progress: Progress | None = None,
        *,
        training_queries: object = None,
    ) -> Searcher:
        """Train, encode and pack the index.

        Parameters
        ----------
        docids : sequence of str or of int, optional
            Names of the datapoints, unique; searches return them in place of row numbers. The
            sequence is copied. Ints are not negative.
        progress : callable, optional
            Called as ``progress(stage, done, total)`` while the work goes on.
        training_queries : array_like of shape (m, d), optional
            Some thousand queries like those to come, for where these do not look like the
            datapoints: hidden states over output embeddings, users over items. The loss of the
            tree and of the codes is built from them as far as that finds more, which is measured
            with some of them kept back; a search takes no longer for it. Fewer than 80 teach
            nothing. With `autopilot` recall is measured with them, unless it has sample queries.

        Returns
        -------
        Searcher
            Ready to search. The builder can be used again.

        Raises
        ------
        ConfigError
            If none of `score_ah`, `score_brute_force` and `autopilot` was called, or there are
            training queries under ``"squared_l2"`` and no autopilot to measure with them, or
            rows cannot be searched as they lie and `copy` is False, or `progress` cannot be called.
        NonFiniteError
            If the database holds a NaN, an infinity, or a value that overflows float32.
        ZeroVectorError
            If a row is all zeros under ``"cosine"``.
        ShapeError, DTypeError, InvalidInputError
            If there are not as many docids as datapoints, they are not all strings or all ints, or
            one comes twice; or if the training queries could not be searched for.
        """
        check_progress("progress", progress)
        queries = self._check_training_queries(training_queries)
        if "autopilot" not in self._settings:
            return build_searcher(
                self._db,
                self.create_config(),
                docids,
                num_threads=self._training_threads,
                progress=progress,
                training_queries=queries,
                copy=self._copy,
            )
        names = checked_names(docids, len(self._db))
        packed = build_tuned(
            self._db,
            **self._left_to_autopilot(),
            sample_queries=self._sample_queries,
            num_threads=self._training_threads,
            progress=progress,
            training_queries=queries,
            copy=self._copy,
        )
        return Searcher(State(packed, names, len(self._db), packed.config))

    def _check_training_queries(self, queries: object) -> NDArray[np.float32] | None:
        if queries is None:
            return None
        measure = self._base.distance_measure
        if measure == SQUARED_L2 and "autopilot" not in self._settings:
            raise ConfigError(
                "training_queries teach nothing under squared_l2, where errors count along "
                "q - x and not along q; leave them out, or call autopilot(), which measures "
                "recall with them"
            )
        return check_sample_queries(queries, self._db.shape[1], measure, "training_queries")

    def __repr__(self) -> str:
        n, d = self._db.shape
        given = "".join(f", {name}={value!r}" for name, value in self._settings.items())
        base = self._base
        return (
            f"Builder(db={n:,} x {d} {self._db.dtype}, num_neighbors={base.num_neighbors}, "
            f"distance_measure={base.distance_measure!r}{given})"
        )


def build(
    db: object,
    num_neighbors: int = 10,
    distance_measure: DistanceMeasure = "dot_product",
    docids: object = None,
    *,
    mode: IncrementalMode = IncrementalMode.NONE,
    quantize: ReorderType | bool = ReorderType.FLOAT32,
    target_recall: float = 0.95,
    sample_queries: object = None,
    seed: int = 0,
    num_threads: int | None = None,
    progress: Progress | None = None,
    training_queries: object = None,
    copy: bool = True,
) -> Searcher:
    """Build an index and leave its settings to swann.

    The same as ``builder(db, num_neighbors, distance_measure).autopilot(...).build(docids)``.

    Parameters
    ----------
    db : array_like of shape (n, d)
        The datapoints; see `Builder`.
    num_neighbors : int
        Neighbors that a search returns by default, and that the recall is measured of.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means: the largest inner product by default, as it is, whatever the lengths
        of the datapoints; `"cosine"` for directions, `"squared_l2"` for Euclidean distance.
    docids : sequence of str or of int, optional
        Names of the datapoints; see `Builder.build`.
    mode, quantize, target_recall, sample_queries
        See `Builder.autopilot`.
    seed : int
        See `Builder.seed`.
    num_threads : int, optional
        Threads to build on; all cores unless given.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    training_queries : array_like of shape (m, d), optional
        See `Builder.build`.
    copy : bool
        See `Builder`.

    Returns
    -------
    Searcher
        ``searcher.config`` holds what was chosen, ``searcher.config.autopilot.reasons`` why.

    Raises
    ------
    ShapeError, DTypeError, NonFiniteError, ZeroVectorError, InvalidInputError, ConfigError
        As `Builder` and its methods do.

    Examples
    --------
    >>> import numpy as np
    >>> db = np.random.default_rng(0).standard_normal((1000, 32), dtype=np.float32)
    >>> searcher = build(db, distance_measure="cosine")
    >>> neighbors, distances = searcher.search(db[7])
    >>> searcher.config.autopilot.reasons
    ('brute force: 1,000 x 32 values are scored in .2 ms or less',)
    """
    chosen = Builder(db, num_neighbors, distance_measure, copy=copy).seed(seed)
    chosen.autopilot(mode, quantize, target_recall, sample_queries)
    if num_threads is not None:
        chosen.set_n_training_threads(num_threads)
    return chosen.build(docids, progress, training_queries=training_queries)


def builder(
    db: object, num_neighbors: int, distance_measure: DistanceMeasure, *, copy: bool = True
) -> Builder:
    """Start building an index over `db`: the same as ``Builder(...)``.

    Parameters
    ----------
    db : array_like of shape (n, d)
        The datapoints.
    num_neighbors : int
        Neighbors that a search returns by default.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means.
    copy : bool
        Whether the searcher keeps a copy of the rows; see `Builder`.

    Returns
    -------
    Builder
        Choose the stages on it, then call its `build`.

    Examples
    --------
    >>> import numpy as np
    >>> searcher = builder(np.eye(4), 2, "squared_l2").score_brute_force().build()
    >>> searcher.search([1, 0, 0, 0]).indices[0]
    np.int64(0)
    """
    return Builder(db, num_neighbors, distance_measure, copy=copy)

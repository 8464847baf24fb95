"""The fluent builder: settings in ScaNN's words, then `build` makes a `Searcher`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from swann.autopilot import build_tuned, check_sample_queries, choose_for
from swann.config import (
    AHConfig,
    AutopilotConfig,
    BruteForceConfig,
    IncrementalMode,
    IndexConfig,
    ProjectionConfig,
    ReorderConfig,
    ReorderType,
    TreeConfig,
    UpperTreeConfig,
    check_count,
    with_finer_rows,
)
from swann.config.checks import check_flag
from swann.distance import SQUARED_L2, DistanceMeasure
from swann.errors import ConfigError, ShapeError
from swann.index.building.build import Progress, build_index
from swann.index.docids import Docids, check_docids
from swann.index.state import State
from swann.searcher import Searcher
from swann.vectors import as_database

__all__ = ["Builder", "build", "build_searcher", "builder"]


class Builder:
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
        self._db: NDArray[Any] = as_database(db, allow_empty=True)
        # The settings given so far, by the names of IndexConfig's fields.
        self._settings: dict[str, Any] = {}
        self._upper_trees: list[UpperTreeConfig] = []  # the lowest first
        self._training_threads = 0  # all cores
        self._sample_queries: NDArray[np.float32] | None = None
        self._copy = check_flag("copy", copy)
        self._base = IndexConfig(num_neighbors=num_neighbors, distance_measure=distance_measure)

    def tree(
        self,
        num_leaves: int,
        num_leaves_to_search: int,
        training_sample_size: int = 100_000,
        min_partition_size: int = 50,
        training_iterations: int = 12,
        spherical: bool = False,
        quantize_centroids: bool = False,
        random_init: bool = True,
        soar_lambda: float | None = None,
        overretrieve_factor: float | None = None,
        incremental_threshold: float | None = None,
        avq: float | None = None,
    ) -> Self:
        """Partition the datapoints into leaves, of which a search visits the nearest few.

        See `TreeConfig` for the parameters. The tree may end up with fewer leaves than
        `num_leaves`: there are never more leaves than datapoints.

        Raises
        ------
        ConfigError
            If a setting is bad, or a tree was already asked for.
        """
        return self._give(
            "tree",
            "tree",
            TreeConfig(
                num_leaves=num_leaves,
                num_leaves_to_search=num_leaves_to_search,
                training_sample_size=training_sample_size,
                min_partition_size=min_partition_size,
                training_iterations=training_iterations,
                spherical=spherical,
                quantize_centroids=quantize_centroids,
                random_init=random_init,
                soar_lambda=soar_lambda,
                overretrieve_factor=overretrieve_factor,
                incremental_threshold=incremental_threshold,
                avq=avq,
            ),
        )

    def upper_tree(
        self,
        num_leaves: int,
        num_leaves_to_search: int,
        avq: float | None = None,
        soar_lambda: float | None = None,
        overretrieve_factor: float | None = None,
        scoring_mode: ReorderType = ReorderType.INT8,
        anisotropic_quantization_threshold: float | None = math.nan,
    ) -> Self:
        """Search the centroids of the tree through a tree of their own.

        Worth it for many thousands of leaves: at 20,000, with a fifth of 300 upper leaves searched,
        a query takes a sixth of the time and loses .01 to .02 of recall. Called again, it adds a
        further level above. See `UpperTreeConfig` for the parameters; `tree` must be called too.

        Raises
        ------
        ConfigError
            If a setting is bad.
        """
        level = UpperTreeConfig(
            num_leaves=num_leaves,
            num_leaves_to_search=num_leaves_to_search,
            avq=avq,
            soar_lambda=soar_lambda,
            overretrieve_factor=overretrieve_factor,
            scoring_mode=scoring_mode,
            anisotropic_quantization_threshold=anisotropic_quantization_threshold,  # type: ignore[arg-type]
        )
        self._keep_hands_off("upper_tree", False)
        self._upper_trees.append(level)
        return self

    def pca(
        self,
        reduction_dim: int | None = None,
        pca_significance_threshold: float | None = None,
        pca_truncation_threshold: float | None = None,
    ) -> Self:
        """Project onto leading principal components, for the tree and the codes.

        Reordering and brute force keep all dimensions. Without `reduction_dim`, as many components
        as explain more than `pca_significance_threshold` (0.8 by default) of the variance are
        kept, if they are less than `pca_truncation_threshold` (0.6 by default) of the dimensions;
        else nothing is projected away. See `ProjectionConfig`.

        A smaller index and faster scans, at the price of recall and of ``d * reduction_dim``
        multiplications a query. Worth it where variance is concentrated and queries come from the
        distribution of the database; reorder to make up for the loss.

        Raises
        ------
        ConfigError
            If a setting is bad, both are given, `reduction_dim` is over the dimension of the
            database, or a projection was already asked for.
        """
        if reduction_dim is None:
            if pca_significance_threshold is None:
                pca_significance_threshold = 0.8
            if pca_truncation_threshold is None:
                pca_truncation_threshold = 0.6
        return self._project(
            "pca", reduction_dim, pca_significance_threshold, pca_truncation_threshold
        )

    def truncate(self, reduction_dim: int) -> Self:
        """Use the first `reduction_dim` dimensions only, for the tree and the codes.

        For matryoshka embeddings. Reordering and brute force keep all dimensions.

        Raises
        ------
        ConfigError
            If it is not below the dimension of the database, or a projection was already asked
            for.
        """
        return self._project("truncate", reduction_dim)

    def _project(self, kind: Any, *settings: Any) -> Self:
        names = ("reduction_dim", "pca_significance_threshold", "pca_truncation_threshold")
        projection = ProjectionConfig(kind=kind, **dict(zip(names, settings, strict=False)))
        projection.check_dimension(self._db.shape[1])
        self._check_blocks(self._settings.get("score"), projection)
        given = self._settings.get("projection")
        if given is not None and given.kind != kind:
            raise ConfigError("pca and truncate contradict each other: call one of them")
        return self._give("projection", kind, projection)

    def _check_blocks(self, score: object, projection: ProjectionConfig | None) -> None:
        if isinstance(score, AHConfig):
            reduced = None if projection is None else projection.reduction_dim
            score.check_dimension(self._db.shape[1], reduced)

    def score_ah(
        self,
        dimensions_per_block: int,
        anisotropic_quantization_threshold: float | None = math.nan,
        training_sample_size: int = 100_000,
        hash_type: str = "lut16",
        training_iterations: int = 10,
    ) -> Self:
        """Score datapoints approximately, from short codes by lookup tables.

        See `AHConfig` for the parameters. A datapoint costs 4 bits a block in memory (8 with
        "lut256"), and a search about one table lookup a block.

        Raises
        ------
        ConfigError
            If a setting is bad, scoring was already chosen, or `dimensions_per_block` is over
            the dimension of the database, or what a projection leaves of it.
        """
        score = AHConfig(
            dimensions_per_block=dimensions_per_block,
            anisotropic_quantization_threshold=(
                math.nan
                if anisotropic_quantization_threshold is None
                else anisotropic_quantization_threshold
            ),
            training_sample_size=training_sample_size,
            hash_type=hash_type,
            training_iterations=training_iterations,
        )
        self._check_blocks(score, self._settings.get("projection"))
        return self._give("score", "score_ah", score)

    def score_brute_force(self, quantize: ReorderType | bool = ReorderType.FLOAT32) -> Self:
        """Score whole datapoints, in float32 unless `quantize` says less.

        Where `reorder` asks for finer rows than `quantize`, these are kept, and scored.

        After some queries one by one, searches keep float32 and bfloat16 rows in 8 bits, too (a
        byte a value; two where `tree` has `soar_lambda`), and score only those exactly that may be
        among the best: the same answers in a fifth of the time.

        Raises
        ------
        ConfigError
            If `quantize` is bad or scoring was already chosen.
        """
        config = BruteForceConfig(quantize=quantize)  # type: ignore[arg-type]
        return self._give("score", "score_brute_force", config)

    def reorder(
        self,
        reordering_num_neighbors: int,
        quantize: ReorderType | bool = ReorderType.FLOAT32,
        anisotropic_quantization_threshold: float | None = math.nan,
    ) -> Self:
        """Score the best candidates again, exactly, and order them by that.

        Keeps the datapoints beside the codes, in float32 unless `quantize` says less. See
        `ReorderConfig`.

        Raises
        ------
        ConfigError
            If the number is bad, or reordering was already asked for.
        """
        return self._give(
            "reorder",
            "reorder",
            ReorderConfig(
                reordering_num_neighbors=reordering_num_neighbors,
                quantize=quantize,  # type: ignore[arg-type]
                anisotropic_quantization_threshold=anisotropic_quantization_threshold,  # type: ignore[arg-type]
            ),
        )

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

        Raises
        ------
        ConfigError
            If the seed is negative or not an integer, or was already given.
        """
        return self._give("seed", "seed", check_count("seed", seed, minimum=0))

    def set_n_training_threads(self, threads: int) -> Self:
        """Train and encode on this many threads; on all cores unless told.

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

    def _whole_tree(self) -> dict[str, TreeConfig]:
        """Return the tree with the levels above it."""
        upper: UpperTreeConfig | None = None
        for level in reversed(self._upper_trees):
            upper = dataclasses.replace(level, upper=upper)
        if upper is None:
            return {}
        if "tree" not in self._settings:
            raise ConfigError("upper_tree needs a tree below it: call tree(...) too")
        return {"tree": dataclasses.replace(self._settings["tree"], upper=upper)}

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
            rows cannot be searched as they lie and `copy` is False.
        NonFiniteError
            If the database holds a NaN, an infinity, or a value that overflows float32.
        ZeroVectorError
            If a row is all zeros under ``"cosine"``.
        ShapeError, DTypeError, InvalidInputError
            If there are not as many docids as datapoints, they are not all strings or all ints, or
            one comes twice; or if the training queries could not be searched for.
        """
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
        names = _names(docids, len(self._db))
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

    def _give(self, field: str, method: str, value: object) -> Self:
        if field in self._settings:
            if field == "score" and type(value) is not type(self._settings[field]):
                raise ConfigError(
                    "score_ah and score_brute_force contradict each other: call one of them"
                )
            raise ConfigError(f"{method} was already called on this builder; call it once")
        self._keep_hands_off(method, field == "autopilot")
        self._settings[field] = value
        return self

    def _keep_hands_off(self, method: str, autopilot: bool) -> None:
        """Refuse stages beside autopilot, whichever came first."""
        stages = ("tree", "score", "reorder", "projection")
        given: list[str] = [name for name in stages if name in self._settings]
        if self._upper_trees:
            given.append("upper_tree")
        if autopilot and given:
            raise ConfigError(
                f"autopilot chooses all stages, but {given[0]} was already chosen; leave it out"
            )
        if not autopilot and method != "seed" and "autopilot" in self._settings:
            raise ConfigError(f"autopilot chooses all stages: {method} contradicts it")


def build_searcher(
    db: NDArray[Any],
    config: IndexConfig,
    docids: object = None,
    *,
    num_threads: int = 0,
    progress: Progress | None = None,
    training_queries: NDArray[np.float32] | None = None,
    copy: bool = True,
) -> Searcher:
    """Build an index over `db`, an array as `as_database` returns it; see `Builder.build`."""
    names = _names(docids, len(db))
    config = with_finer_rows(config)
    if config.autopilot is None:
        packed = build_index(
            db,
            config,
            num_threads=num_threads,
            progress=progress,
            training_queries=training_queries,
            copy=copy,
        )
        return Searcher(State(packed, names, len(db), config))
    packed = build_tuned(
        db,
        config.distance_measure,
        config.num_neighbors,
        dataclasses.replace(config.autopilot, reasons=()),
        seed=config.seed,
        num_threads=num_threads,
        progress=progress,
        training_queries=training_queries,
        copy=copy,
    )
    return Searcher(State(packed, names, len(db), packed.config))


def _names(docids: object, count: int) -> Docids | None:
    if docids is None:
        return None
    given = check_docids(docids)
    if len(given) != count:
        raise ShapeError(f"{len(given)} docids for {count} datapoints; expected one for each")
    return Docids(given)


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

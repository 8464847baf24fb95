"""The fluent builder: settings in ScaNN's words, then `build` makes a `Searcher`."""

from __future__ import annotations

import math
from typing import Any, Self

from numpy.typing import NDArray

from swann.config import (
    AHConfig,
    BruteForceConfig,
    IndexConfig,
    ReorderConfig,
    ReorderType,
    TreeConfig,
    check_count,
)
from swann.distance import DistanceMeasure
from swann.errors import ConfigError
from swann.index.build import Progress, build_index
from swann.searcher import Searcher
from swann.vectors import as_database

__all__ = ["Builder", "builder"]


class Builder:
    """Collects the settings of an index, each at most once, and builds it.

    Every method but `create_config` and `build` returns the builder itself. A bad setting is
    refused where it is given, before any work is done.

    Parameters
    ----------
    db : array_like of shape (n, d)
        The datapoints: float16, float32, float64 or integers, in any memory layout, or a memory
        map. It is read chunk by chunk in `build`, never copied as a whole, and not kept by the
        searcher.
    num_neighbors : int
        Neighbors that a search returns by default.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means. Under ``"cosine"`` rows and queries are normalised for you.

    Raises
    ------
    ShapeError, DTypeError
        If `db` is not a matrix of real numbers, or is empty.
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

    def __init__(self, db: object, num_neighbors: int, distance_measure: DistanceMeasure) -> None:
        self._db: NDArray[Any] = as_database(db)
        # The settings given so far, by the names of IndexConfig's fields.
        self._settings: dict[str, Any] = {}
        self._training_threads = 0  # all cores
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
            ),
        )

    def score_ah(
        self,
        dimensions_per_block: int,
        anisotropic_quantization_threshold: float | None = math.nan,
        training_sample_size: int = 100_000,
        hash_type: str = "lut16",
        training_iterations: int = 10,
    ) -> Self:
        """Score datapoints approximately, from 4-bit codes by lookup tables.

        See `AHConfig` for the parameters. A datapoint costs 4 bits a block in memory, and a
        search about one table lookup a block.

        Raises
        ------
        ConfigError
            If a setting is bad, scoring was already chosen, or `dimensions_per_block` is over
            the dimension of the database.
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
        score.check_dimension(self._db.shape[1])
        return self._give("score", "score_ah", score)

    def score_brute_force(self, quantize: ReorderType | bool = ReorderType.FLOAT32) -> Self:
        """Score whole datapoints, in float32 unless `quantize` says less.

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

        Raises
        ------
        ConfigError
            If neither `score_ah` nor `score_brute_force` was called.
        """
        if "score" not in self._settings:
            raise ConfigError(
                "no scoring was chosen: call score_ah(...) for speed or score_brute_force() for "
                "exact scores before build()"
            )
        return IndexConfig(
            num_neighbors=self._base.num_neighbors,
            distance_measure=self._base.distance_measure,
            **self._settings,
        )

    def build(self, progress: Progress | None = None) -> Searcher:
        """Train, encode and pack the index.

        Parameters
        ----------
        progress : callable, optional
            Called as ``progress(stage, done, total)`` while the work goes on.

        Returns
        -------
        Searcher
            Ready to search. The builder can be used again.

        Raises
        ------
        ConfigError
            If neither `score_ah` nor `score_brute_force` was called.
        NonFiniteError
            If the database holds a NaN, an infinity, or a value that overflows float32.
        ZeroVectorError
            If a row is all zeros under ``"cosine"``.
        """
        config = self.create_config()
        return Searcher(
            build_index(self._db, config, num_threads=self._training_threads, progress=progress)
        )

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
        self._settings[field] = value
        return self


def builder(db: object, num_neighbors: int, distance_measure: DistanceMeasure) -> Builder:
    """Start building an index over `db`: the same as ``Builder(...)``.

    Parameters
    ----------
    db : array_like of shape (n, d)
        The datapoints.
    num_neighbors : int
        Neighbors that a search returns by default.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means.

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
    return Builder(db, num_neighbors, distance_measure)

"""The stages of an index: what a builder collects, each checked where it is given."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

from numpy.typing import NDArray

from swann.config import (
    AHConfig,
    BruteForceConfig,
    ProjectionConfig,
    ReorderConfig,
    ReorderType,
    TreeConfig,
    UpperTreeConfig,
)
from swann.errors import ConfigError

__all__ = ["Stages"]


class Stages:
    """What `Builder` inherits: a method for each stage, and the settings given so far."""

    def __init__(self, db: NDArray[Any]) -> None:
        self._db = db
        # The settings given so far, by the names of IndexConfig's fields.
        self._settings: dict[str, Any] = {}
        self._upper_trees: list[UpperTreeConfig] = []  # the lowest first

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

"""ScaNN's builder over swann's; see `swann.compat.scann_ops_pybind`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

from swann.builder import Builder
from swann.compat.scann_searcher import ScannSearcher, write_config
from swann.config import IncrementalMode, ReorderType, check_count
from swann.distance import DistanceMeasure
from swann.errors import ConfigError
from swann.vectors import as_database

__all__ = ["ScannBuilder", "refuse_unknown"]


class ScannBuilder:
    """ScaNN's builder; see `swann.Builder` for what its settings mean."""

    def __init__(self, db: Any, num_neighbors: int, distance_measure: DistanceMeasure) -> None:
        self.db = db
        self.num_neighbors = num_neighbors
        self.distance_measure = distance_measure
        self.training_threads = 0
        self.builder_lambda: Callable[..., Any] | None = None
        matrix = as_database(db, allow_empty=True)
        self._dimension = matrix.shape[1]
        self._builder = Builder(matrix, num_neighbors, distance_measure)

    def set_n_training_threads(self, threads: int) -> Self:
        """Train on this many threads; 0: on all cores."""
        self.training_threads = check_count("threads", threads, minimum=0)
        if threads:
            self._builder.set_n_training_threads(threads)
        return self

    def set_builder_lambda(self, builder_lambda: Callable[..., Any]) -> Self:
        """Let `build` return ``builder_lambda(db, config, training_threads, docids=..., ...)``.

        `config` is what `create_config` returns; keywords given to `build` are passed on.
        """
        if not callable(builder_lambda):
            raise ConfigError(f"builder_lambda is {builder_lambda!r}; expected a function")
        self.builder_lambda = builder_lambda
        return self

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
        incremental_threshold: float | None = None,
        avq: float | None = None,
        soar_lambda: float | None = None,
        overretrieve_factor: float | None = None,
        **unused: Any,
    ) -> Self:
        """Partition the datapoints; see `swann.Builder.tree`.

        More leaves to search than there are mean all of them.
        """
        refuse_unknown("tree", unused)
        leaves = check_count("num_leaves", num_leaves)
        self._builder.tree(
            leaves,
            min(leaves, check_count("num_leaves_to_search", num_leaves_to_search)),
            training_sample_size,
            min_partition_size,
            training_iterations,
            spherical,
            quantize_centroids,
            random_init,
            soar_lambda,
            overretrieve_factor,
            incremental_threshold,
            avq,
        )
        return self

    def upper_tree(
        self,
        num_leaves: int,
        num_leaves_to_search: int,
        avq: float | None = math.nan,
        soar_lambda: float | None = None,
        overretrieve_factor: float | None = None,
        scoring_mode: ReorderType = ReorderType.INT8,
        anisotropic_quantization_threshold: float | None = math.nan,
    ) -> Self:
        """Search the centroids through a tree; see `swann.Builder.upper_tree`."""
        leaves = check_count("num_leaves", num_leaves)
        self._builder.upper_tree(
            leaves,
            min(leaves, check_count("num_leaves_to_search", num_leaves_to_search)),
            avq,
            soar_lambda,
            overretrieve_factor,
            scoring_mode,
            anisotropic_quantization_threshold,
        )
        return self

    def pca(
        self,
        reduction_dim: int | None = None,
        pca_significance_threshold: float | None = 0.80,
        pca_truncation_threshold: float | None = 0.6,
    ) -> Self:
        """Project onto principal components; with `reduction_dim` the thresholds are ignored."""
        if reduction_dim is not None:
            pca_significance_threshold = pca_truncation_threshold = None
        elif pca_significance_threshold is None:
            raise ConfigError(
                "pca has neither reduction_dim nor pca_significance_threshold; expected one"
            )
        self._builder.pca(reduction_dim, pca_significance_threshold, pca_truncation_threshold)
        return self

    def truncate(self, reduction_dim: int) -> Self:
        """Use the first dimensions only; see `swann.Builder.truncate`."""
        self._builder.truncate(reduction_dim)
        return self

    def score_ah(
        self,
        dimensions_per_block: int,
        anisotropic_quantization_threshold: float | None = math.nan,
        training_sample_size: int = 100_000,
        min_cluster_size: int = 100,
        hash_type: str = "lut16",
        training_iterations: int = 10,
        **unused: Any,
    ) -> Self:
        """Score from codes; see `swann.Builder.score_ah`. `min_cluster_size` is ignored."""
        refuse_unknown("score_ah", unused)
        self._builder.score_ah(
            dimensions_per_block,
            anisotropic_quantization_threshold,
            training_sample_size,
            hash_type,
            training_iterations,
        )
        return self

    def score_brute_force(self, quantize: ReorderType | bool = ReorderType.FLOAT32) -> Self:
        """Score whole rows; see `swann.Builder.score_brute_force`."""
        self._builder.score_brute_force(quantize)
        return self

    def reorder(
        self,
        reordering_num_neighbors: int,
        quantize: ReorderType | bool = ReorderType.FLOAT32,
        anisotropic_quantization_threshold: float = math.nan,
    ) -> Self:
        """Order the best candidates exactly; see `swann.Builder.reorder`."""
        self._builder.reorder(
            reordering_num_neighbors, quantize, anisotropic_quantization_threshold
        )
        return self

    def create_config(self) -> str:
        """Return the settings as ScaNN's text proto, as `create_searcher` takes them."""
        return write_config(self._builder.create_config(), self._dimension)

    def build(self, docids: object = None, **kwargs: Any) -> Any:
        """Build the index, or return what `builder_lambda` makes of the settings.

        See `swann.Builder.build` for `docids`.
        """
        if self.builder_lambda is not None:
            return self.builder_lambda(
                self.db, self.create_config(), self.training_threads, docids=docids, **kwargs
            )
        refuse_unknown("build", kwargs)
        return ScannSearcher(self._builder.build(docids))

    def autopilot(
        self,
        mode: IncrementalMode = IncrementalMode.NONE,
        quantize: ReorderType | bool = ReorderType.FLOAT32,
    ) -> Self:
        """Leave all stages to swann; see `swann.Builder.autopilot`."""
        self._builder.autopilot(mode, quantize)
        return self


def _is_default(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def refuse_unknown(where: str, unused: dict[str, Any]) -> None:
    """Refuse every argument that swann does not know, unless it is given as nothing."""
    for name, value in unused.items():
        if not _is_default(value):
            raise ConfigError(f"{where}({name}={value!r}): {name} is not known; leave it out")

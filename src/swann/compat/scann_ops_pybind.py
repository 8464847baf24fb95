"""`scann.scann_ops_pybind` over swann: change the import, and a ScaNN program runs.

::

    from swann import scann_ops_pybind          # was: from scann import scann_ops_pybind

    searcher = (
        scann_ops_pybind.builder(db, 10, "dot_product")
        .tree(num_leaves=2000, num_leaves_to_search=100)
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(100)
        .build()
    )
    neighbors, distances = searcher.search(q)

Function and argument names are those of ScaNN 1.4.2. What swann does not do yet is refused with
a `ConfigError` that names it. Differences that a program may notice:

- Indices are int64, not uint32.
- A batched search pads with -1, not 0, where it finds fewer neighbors than asked for; as in
  ScaNN, a single search comes back shorter.
- A search that asks for more neighbors than it reorders gets as many as it asked for.
- ``distance_measure`` may also be ``"cosine"``, and residuals serve every measure.
- `ScannBuilder.create_config` and `ScannSearcher.config` give JSON, not a text proto.
- Files are swann's own: an index that ScaNN saved cannot be loaded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any, NoReturn, Self

from swann.builder import Builder
from swann.config import IndexConfig, ReorderType, check_count
from swann.distance import DistanceMeasure
from swann.errors import ConfigError
from swann.index.build import build_index
from swann.searcher import Searcher, SearchResult
from swann.searcher import load_searcher as _load_searcher
from swann.vectors import as_database

__all__ = [
    "ReorderType",
    "ScannBuilder",
    "ScannSearcher",
    "builder",
    "create_searcher",
    "load_searcher",
]

_NOT_YET = "is not supported by swann yet"


def _later(name: str) -> Callable[..., NoReturn]:
    """Make a method that says that it is not there yet."""

    def refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
        raise ConfigError(f"{type(self).__name__}.{name} {_NOT_YET}")

    refuse.__name__ = name
    refuse.__doc__ = f"Raise `ConfigError`: {name} {_NOT_YET}."
    return refuse


class ScannBuilder:
    """ScaNN's builder; see `swann.Builder` for what its settings mean."""

    def __init__(self, db: Any, num_neighbors: int, distance_measure: DistanceMeasure) -> None:
        self.db = db
        self.num_neighbors = num_neighbors
        self.distance_measure = distance_measure
        self.training_threads = 0
        self._builder = Builder(db, num_neighbors, distance_measure)

    def set_n_training_threads(self, threads: int) -> Self:
        """Train on this many threads; 0: on all cores."""
        self.training_threads = check_count("threads", threads, minimum=0)
        if threads:
            self._builder.set_n_training_threads(threads)
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
        """Partition the datapoints; see `swann.Builder.tree`."""
        _refuse(
            "tree",
            unused,
            incremental_threshold=incremental_threshold,
            avq=avq,
        )
        self._builder.tree(
            num_leaves,
            num_leaves_to_search,
            training_sample_size,
            min_partition_size,
            training_iterations,
            spherical,
            quantize_centroids,
            random_init,
            soar_lambda,
            overretrieve_factor,
        )
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
        _refuse("score_ah", unused)
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
        """Return the settings as JSON, as `create_searcher` takes them."""
        return json.dumps(self._builder.create_config().to_dict())

    def build(self, docids: object = None, **kwargs: Any) -> ScannSearcher:
        """Build the index."""
        _refuse("build", kwargs, docids=docids)
        return ScannSearcher(self._builder.build())

    autopilot = _later("autopilot")
    pca = _later("pca")
    set_builder_lambda = _later("set_builder_lambda")
    truncate = _later("truncate")
    upper_tree = _later("upper_tree")


class ScannSearcher:
    """ScaNN's searcher over a `swann.Searcher`, which is its attribute `searcher`.

    Where ScaNN's arguments may be None or -1, they mean the default given to the builder.
    """

    def __init__(self, searcher: Searcher, docids: object = None) -> None:
        _refuse("ScannSearcher", {}, docids=docids)
        self.searcher = searcher
        self.docids: None = None

    def search(
        self,
        q: Any,
        final_num_neighbors: int | None = -1,
        pre_reorder_num_neighbors: int | None = -1,
        leaves_to_search: int | None = -1,
    ) -> SearchResult:
        """Find the neighbors of one query; fewer come back where there are fewer."""
        found = self.searcher.search(
            q,
            _or_default(final_num_neighbors),
            _or_default(pre_reorder_num_neighbors),
            _or_default(leaves_to_search),
        )
        if len(found.indices) and found.indices[-1] < 0:
            count = int((found.indices >= 0).sum())
            return SearchResult(found.indices[:count], found.distances[:count])
        return found

    def search_batched(
        self,
        queries: Any,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> SearchResult:
        """Find the neighbors of many queries on one thread."""
        return self.searcher.search_batched(
            queries,
            _or_default(final_num_neighbors),
            _or_default(pre_reorder_num_neighbors),
            _or_default(leaves_to_search),
        )

    def search_batched_parallel(
        self,
        queries: Any,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
        batch_size: int = 256,
    ) -> SearchResult:
        """Find the neighbors of many queries on all threads."""
        return self.searcher.search_batched_parallel(
            queries,
            _or_default(final_num_neighbors),
            _or_default(pre_reorder_num_neighbors),
            _or_default(leaves_to_search),
            batch_size=batch_size,
        )

    def serialize(self, artifacts_dir: str | os.PathLike[str], relative_path: bool = False) -> None:
        """Save the index to a directory. It can be moved, whatever `relative_path` says."""
        self.searcher.serialize(artifacts_dir)

    def size(self) -> int:
        """Return the number of datapoints."""
        return self.searcher.num_datapoints

    def set_num_threads(self, num_threads: int) -> None:
        """Set the threads of `search_batched_parallel`."""
        self.searcher.set_num_threads(num_threads)

    def config(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(self.searcher.config.to_dict())

    def __len__(self) -> int:
        return self.size()

    def __repr__(self) -> str:
        return f"ScannSearcher({self.searcher!r})"

    delete = _later("delete")
    get_health_stats = _later("get_health_stats")
    initialize_health_stats = _later("initialize_health_stats")
    rebalance = _later("rebalance")
    reserve = _later("reserve")
    upsert = _later("upsert")


def builder(db: Any, num_neighbors: int, distance_measure: DistanceMeasure) -> ScannBuilder:
    """Start building an index, as `scann.scann_ops_pybind.builder` does.

    Examples
    --------
    >>> import numpy as np
    >>> searcher = builder(np.eye(3), 1, "dot_product").score_brute_force().build()
    >>> neighbors, distances = searcher.search(np.array([0, 0, 1.0]))
    >>> neighbors, distances
    (array([2]), array([1.], dtype=float32))
    """
    return ScannBuilder(db, num_neighbors, distance_measure)


def create_searcher(
    db: Any,
    scann_config: str,
    training_threads: int = 0,
    docids: object = None,
    **unused_kwargs: Any,
) -> ScannSearcher:
    """Build an index over `db` from what `ScannBuilder.create_config` returned.

    Raises
    ------
    ConfigError
        If `scann_config` is not that: ScaNN's text protos are not read.
    """
    _refuse("create_searcher", unused_kwargs, docids=docids)
    try:
        settings = json.loads(scann_config)
    except (TypeError, ValueError):
        raise ConfigError(
            f"scann_config is {str(scann_config)[:40]!r}...; expected the JSON that "
            "create_config() of this module returns (text protos of ScaNN are not read)"
        ) from None
    config = IndexConfig.from_dict(settings)
    threads = check_count("training_threads", training_threads, minimum=0)
    return ScannSearcher(Searcher(build_index(as_database(db), config, num_threads=threads)))


def load_searcher(
    artifacts_dir: str | os.PathLike[str], assets_backcompat_shim: bool = True
) -> ScannSearcher:
    """Load what `ScannSearcher.serialize` saved. `assets_backcompat_shim` is ignored."""
    return ScannSearcher(_load_searcher(artifacts_dir))


def _or_default(value: int | None) -> int | None:
    return None if value == -1 else value


def _is_default(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _refuse(where: str, unused: dict[str, Any], **later: object) -> None:
    """Refuse every argument that is given and means something that swann does not do."""
    for name, value in (later | unused).items():
        if not _is_default(value):
            raise ConfigError(f"{where}({name}={value!r}) {_NOT_YET}; leave {name} out")

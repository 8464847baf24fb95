"""`scann.scann_ops` over swann: ScaNN's module for TensorFlow, without TensorFlow.

::

    from swann import scann_ops                 # was: from scann import scann_ops

    searcher = scann_ops.builder(db, 10, "dot_product").score_ah(2).reorder(100).build()
    neighbors, distances = searcher.search_batched(queries)

Database and queries may be arrays or tensors of NumPy, JAX, PyTorch or TensorFlow; none of these
but NumPy is needed. Differences that a program may notice, besides those of
`swann.scann_ops_pybind`:

- Results are NumPy arrays. They have a method ``numpy()``, as tensors do.
- SOAR works; ScaNN's module refuses it.
- `container` and `shared_name` name resources of a TensorFlow graph, and do nothing.
- `ScannSearcher.serialize_to_module` gives a plain object that can be pickled, not a ``tf.Module``;
  `ScannSearcher.serialize` and `load_searcher`, which ScaNN's module lacks, use files.
"""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.compat import scann_ops_pybind
from swann.compat.scann_ops_pybind import ReorderType, ScannBuilder
from swann.distance import DistanceMeasure
from swann.errors import ConfigError
from swann.searcher import Searcher, SearchResult

__all__ = [
    "Neighbors",
    "ReorderType",
    "ScannBuilder",
    "ScannSearcher",
    "ScannState",
    "Tensor",
    "builder",
    "create_searcher",
    "load_searcher",
    "searcher_from_module",
]


class Tensor(np.ndarray[Any, Any]):
    """An array that has `numpy()`, so that programs written for TensorFlow go on working."""

    def numpy(self) -> NDArray[Any]:
        """Return the same memory as a plain ndarray."""
        return self.view(np.ndarray)


class Neighbors(SearchResult):
    """What a search found: `indices` and `distances`, which `search` of ScaNN calls otherwise."""

    __slots__ = ()

    @property
    def index(self) -> NDArray[np.int64]:  # type: ignore[override]
        """The same as `indices`."""
        return self.indices

    @property
    def distance(self) -> NDArray[np.float32]:
        """The same as `distances`."""
        return self.distances


class ScannSearcher:
    """ScaNN's searcher for TensorFlow over a `swann.Searcher`, its attribute `searcher_handle`.

    Where ScaNN's arguments may be None or -1, they mean the default given to the builder.
    """

    def __init__(self, searcher_handle: Searcher) -> None:
        if not isinstance(searcher_handle, Searcher):
            raise ConfigError(f"searcher_handle is {searcher_handle!r}; expected a swann.Searcher")
        self.searcher_handle = searcher_handle
        self._searcher = scann_ops_pybind.ScannSearcher(searcher_handle)

    def search(
        self,
        q: Any,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> Neighbors:
        """Find the neighbors of one query; fewer come back where there are fewer."""
        return _tensors(
            self._searcher.search(
                q, final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search
            )
        )

    def search_batched(
        self,
        q: Any,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> Neighbors:
        """Find the neighbors of many queries on one thread."""
        return _tensors(
            self._searcher.search_batched(
                q, final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search
            )
        )

    def search_batched_parallel(
        self,
        q: Any,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> Neighbors:
        """Find the neighbors of many queries on all threads."""
        return _tensors(
            self._searcher.search_batched_parallel(
                q, final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search
            )
        )

    def serialize_to_module(self) -> ScannState:
        """Return the index as an object that can be pickled; see `searcher_from_module`."""
        return ScannState(self.searcher_handle)

    def serialize(self, artifacts_dir: str | os.PathLike[str]) -> None:
        """Save the index to a directory, from which `load_searcher` opens it."""
        self.searcher_handle.serialize(artifacts_dir)

    def __len__(self) -> int:
        return len(self._searcher)

    def __repr__(self) -> str:
        return f"ScannSearcher({self.searcher_handle!r})"


class ScannState:
    """An index as it was when `ScannSearcher.serialize_to_module` was called."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = copy.copy(searcher)

    def recreate_handle(self) -> Searcher:
        """Return a searcher of this index."""
        return copy.copy(self._searcher)


def _tensors(found: SearchResult) -> Neighbors:
    # Docids, if a searcher that has some was wrapped, come in lists.
    return Neighbors(np.asarray(found.indices).view(Tensor), found.distances.view(Tensor))


def builder(db: Any, num_neighbors: int, distance_measure: DistanceMeasure) -> ScannBuilder:
    """Start building an index, as `scann.scann_ops.builder` does.

    Parameters
    ----------
    db : array_like or tensor of shape (n, d)
        The datapoints.
    num_neighbors : int
        Neighbors that a search returns by default.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means.

    Examples
    --------
    >>> import numpy as np
    >>> searcher = builder(np.eye(3), 1, "dot_product").score_brute_force().build(shared_name="s")
    >>> searcher.search_batched_parallel(np.eye(3)[1:]).indices.numpy()
    array([[1],
           [2]])
    """
    return ScannBuilder(db, num_neighbors, distance_measure).set_builder_lambda(create_searcher)


def create_searcher(
    db: Any,
    scann_config: str,
    training_threads: int = 0,
    container: str = "",
    shared_name: str | None = None,
    docids: object = None,
    **unused_kwargs: Any,
) -> ScannSearcher:
    """Build an index over `db` from a configuration text.

    See `swann.scann_ops_pybind.create_searcher`. `container` and `shared_name` do nothing.

    Raises
    ------
    ConfigError
        If the text cannot be used, or `docids` are given, which ScaNN's module drops in silence.
    """
    if docids is not None:
        raise ConfigError("scann_ops has no docids; scann_ops_pybind has")
    made = scann_ops_pybind.create_searcher(db, scann_config, training_threads, **unused_kwargs)
    return ScannSearcher(made.searcher)


def searcher_from_module(module: ScannState, db: object = None) -> ScannSearcher:
    """Return a searcher of what `ScannSearcher.serialize_to_module` gave. `db` is ignored.

    Examples
    --------
    >>> import numpy as np, pickle
    >>> searcher = builder(np.eye(3), 1, "squared_l2").score_brute_force().build()
    >>> module = pickle.loads(pickle.dumps(searcher.serialize_to_module()))
    >>> searcher_from_module(module).search(np.array([0, 1, 0])).indices.tolist()
    [1]
    """
    if not isinstance(module, ScannState):
        raise ConfigError(f"module is {module!r}; expected what serialize_to_module returned")
    return ScannSearcher(module.recreate_handle())


def load_searcher(artifacts_dir: str | os.PathLike[str]) -> ScannSearcher:
    """Open what `ScannSearcher.serialize` saved."""
    return ScannSearcher(scann_ops_pybind.load_searcher(artifacts_dir).searcher)

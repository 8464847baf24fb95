"""A retrieval layer for Keras 3 and Keras-RS over a swann index.

`ApproximateRetrieval` takes the place of ``keras_rs.layers.BruteForceRetrieval``: the same
arguments, methods and results, on the TensorFlow, JAX and PyTorch backends. Needs the extra
``keras``: ``pip install 'swann[keras]'``.

What a program may notice:

- Candidates are found approximately; scores are exact where the index reorders, as it does unless
  told otherwise. Fewer than k are never returned.
- Candidates are no weights. They live in the index, in the memory of the CPU; a query on a GPU is
  copied there, and the answer back. A model saved with ``model.save`` has them in its archive, as
  an asset; ``save_weights`` leaves them out.
- New candidates may be more or fewer than the old ones.
- No gradient flows through a search.
- Queries with NaN or infinities are refused.
- Inside ``jax.jit``, ``tf.function`` and ``torch.compile`` the search is a call back to Python. XLA
  on TensorFlow (``jit_compile=True``) and ``tf.saved_model`` have no such calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.config import check_count
from swann.config.checks import check_target
from swann.errors import ConfigError, MissingExtraError
from swann.integrations.candidates import Candidates, check_config
from swann.tensors import to_numpy

try:
    import keras
    import keras_rs
except ModuleNotFoundError as error:
    if error.name in ("keras", "keras_rs"):
        package = error.name.replace("_", "-")
        raise MissingExtraError(
            f"this layer needs {package}, which is not installed: pip install 'swann[keras]'"
        ) from error
    if error.name in ("tensorflow", "jax", "torch"):
        raise MissingExtraError(
            f"Keras's backend is {error.name}, which is not installed: install it, or set "
            "KERAS_BACKEND to tensorflow, jax or torch"
        ) from error
    raise

__all__ = ["ApproximateRetrieval"]

_DTYPES = (np.float32, np.int32)
"""Of scores and of ids."""


@keras.saving.register_keras_serializable(package="swann")
class ApproximateRetrieval(keras_rs.layers.Retrieval):  # type: ignore[misc]
    """Approximate top-k retrieval.

    The configuration of the layer holds its settings, not its candidates: call
    `update_candidates` after ``from_config``.

    Parameters
    ----------
    candidate_embeddings : tensor of shape (n, d), optional
        The candidates; unless given, `update_candidates` must be called before the layer is. They
        are read, not kept: the index has a copy in its own order.
    candidate_ids : integer tensor of shape (n,), optional
        What stands for the candidates in results, within the range of int32; their row numbers
        unless given.
    k : int
        Candidates to retrieve.
    return_scores : bool
        Whether to return (scores, ids), or ids only.
    config : IndexConfig, optional
        Settings of the index, of ``"dot_product"`` or ``"cosine"``; from a builder by
        ``create_config()``. Chosen by autopilot unless given.
    target_recall : float
        Share of the true best k that autopilot is to reach.
    sample_queries : tensor of shape (m, d), optional
        Some hundred queries like those to come, for autopilot. Without, it measures with
        candidates and with queries of any direction, which takes longer and settles for safer,
        slower searches.
    leaves_to_search, pre_reorder_num_neighbors : int, optional
        Of every search; the index's own unless given. May be set later.
    **kwargs
        Of `keras.layers.Layer`.

    Raises
    ------
    ConfigError
        If a setting is bad.
    ShapeError, DTypeError, NonFiniteError, InvalidInputError
        If the candidates cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> candidates = np.random.default_rng(0).standard_normal((1000, 8), dtype=np.float32)
    >>> retrieval = ApproximateRetrieval(candidates, k=5)
    >>> scores, ids = retrieval(candidates[:3])
    >>> tuple(scores.shape), tuple(ids.shape)
    ((3, 5), (3, 5))
    """

    def __init__(
        self,
        candidate_embeddings: Any = None,
        candidate_ids: Any = None,
        k: int = 10,
        return_scores: bool = True,
        *,
        config: Any = None,
        target_recall: float = 0.95,
        sample_queries: Any = None,
        leaves_to_search: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(k=check_count("k", k), return_scores=return_scores, **kwargs)
        self.config = check_config(config)
        self.target_recall = check_target("target_recall", target_recall)
        self.leaves_to_search = _count_or_none("leaves_to_search", leaves_to_search)
        self.pre_reorder_num_neighbors = _count_or_none(
            "pre_reorder_num_neighbors", pre_reorder_num_neighbors
        )
        self._candidates: Candidates | None = None
        # Keras then compiles a model that has this layer without XLA.
        self.supports_jit = keras.backend.backend() != "tensorflow"
        if candidate_embeddings is not None:
            self.update_candidates(candidate_embeddings, candidate_ids, sample_queries)
        elif candidate_ids is not None or sample_queries is not None:
            raise ConfigError(
                "candidate_ids or sample_queries are given without candidate_embeddings"
            )

    @property
    def searcher(self) -> Any:
        """The `Searcher` of the candidates, for its figures and `num_threads`; None without."""
        return None if self._candidates is None else self._candidates.searcher

    def update_candidates(
        self, candidate_embeddings: Any, candidate_ids: Any = None, sample_queries: Any = None
    ) -> None:
        """Build the index of new candidates, then put it in the place of the old one.

        Searches go on in the old one meanwhile; a search uses one of them from its beginning to its
        end. Functions that were compiled with this layer use the new candidates from then on.

        Parameters
        ----------
        candidate_embeddings : tensor of shape (n, d)
            The candidates.
        candidate_ids : integer tensor of shape (n,), optional
            As in the brute-force layer, the ids given before are kept unless there are new ones.
        sample_queries : tensor of shape (m, d), optional
            For autopilot.

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, InvalidInputError
            If they cannot be used, or their number has changed and no ids are given where there
            were some.
        """
        old = self._candidates
        if candidate_ids is None and old is not None:
            candidate_ids = old.ids
        self._candidates = Candidates.build(
            _on_cpu(candidate_embeddings),
            _on_cpu(candidate_ids),
            self.k,
            self.config,
            self.target_recall,
            _on_cpu(sample_queries),
        )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Retrieve the best candidates of queries.

        Parameters
        ----------
        inputs : tensor of shape (..., d)
            One query, or any number.

        Returns
        -------
        scores : tensor of shape (..., k), of the layer's compute dtype
            Highest first; only with `return_scores`.
        ids : int32 tensor of shape (..., k)
            Ids or row numbers of the candidates.

        Raises
        ------
        ConfigError
            If there are no candidates yet.
        ShapeError, DTypeError, NonFiniteError, InvalidInputError
            If the queries cannot be used.
        """
        self._there()
        found = _run_outside(
            self._search, inputs, (*inputs.shape[:-1], self.k), _DTYPES[-1 - self.return_scores :]
        )
        if not self.return_scores:
            return found[0]
        scores, ids = found
        return keras.ops.cast(scores, self.compute_dtype), ids

    def _there(self) -> Candidates:
        if self._candidates is None:
            raise ConfigError("there are no candidates yet; call update_candidates first")
        return self._candidates

    def _search(self, queries: Any) -> tuple[NDArray[Any], ...]:
        """Search for queries in the memory of the CPU; return scores, if asked for, and ids."""
        found = self._there().search(
            np.asarray(to_numpy(queries), np.float32),
            self.k,
            self.pre_reorder_num_neighbors,
            self.leaves_to_search,
        )
        return found[-1 - self.return_scores :]

    def compute_output_spec(self, inputs: Any) -> Any:
        """Say what `call` returns, for models that are put together before there are candidates."""
        shape = (*inputs.shape[:-1], self.k)
        ids = keras.KerasTensor(shape, "int32")
        if not self.return_scores:
            return ids
        return keras.KerasTensor(shape, self.compute_dtype), ids

    def get_config(self) -> dict[str, Any]:
        """Return the settings, as plain types."""
        return {
            **super().get_config(),
            "k": self.k,
            "return_scores": self.return_scores,
            "config": None if self.config is None else self.config.to_dict(),
            "target_recall": self.target_recall,
            "leaves_to_search": self.leaves_to_search,
            "pre_reorder_num_neighbors": self.pre_reorder_num_neighbors,
        }

    def save_assets(self, dir_path: str) -> None:
        """Save the candidates with the model."""
        if self._candidates is not None:
            self._candidates.save(dir_path)

    def load_assets(self, dir_path: str) -> None:
        """Open the candidates that were saved with the model."""
        self._candidates = Candidates.load(dir_path)
        self.built = self._candidates is not None


def _count_or_none(name: str, value: object) -> int | None:
    return None if value is None else check_count(name, value)


def _on_cpu(given: Any) -> Any:
    """Return a tensor that NumPy can read: PyTorch alone does not copy it from a GPU by itself."""
    if isinstance(given, keras.Variable):
        given = given.value
    if keras.backend.backend() == "torch" and keras.ops.is_tensor(given):
        return given.detach().cpu()
    return given


def _run_outside(
    search: Callable[[Any], tuple[NDArray[Any], ...]],
    inputs: Any,
    shape: tuple[Any, ...],
    dtypes: tuple[Any, ...],
) -> tuple[Any, ...]:
    """Run a search on a tensor, or call back to it from what a backend compiles.

    Parameters
    ----------
    search : callable
        Takes a tensor in the memory of the CPU and returns arrays of `shape` and `dtypes`.
    inputs : tensor
        The queries.
    shape : tuple
        Of every result; in a TensorFlow graph some of it may be None.
    dtypes : tuple of NumPy types
        Of the results.

    Returns
    -------
    tuple of tensors
        The results.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        if isinstance(inputs, jax.core.Tracer):
            results = tuple(jax.ShapeDtypeStruct(shape, dtype) for dtype in dtypes)
            queries = jax.lax.stop_gradient(inputs)
            found = jax.pure_callback(search, results, queries, vmap_method="broadcast_all")
            return tuple(found)
    elif backend == "tensorflow":
        import tensorflow as tf

        if not tf.executing_eagerly():
            queries = tf.cast(inputs, tf.float32)
            results = tf.numpy_function(search, [queries], dtypes)
            return tuple(tf.ensure_shape(result, shape) for result in results)
    elif backend == "torch":
        import torch

        if torch.compiler.is_compiling():
            search = torch.compiler.disable(search)
    return tuple(keras.ops.convert_to_tensor(found) for found in search(_on_cpu(inputs)))

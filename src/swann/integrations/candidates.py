"""Candidates of a retrieval model: an index, and the ids that stand for its rows.

What a retrieval layer needs besides its framework. NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swann.builder import build
from swann.building import build_searcher
from swann.config import IndexConfig, check_count, check_path
from swann.errors import ConfigError, CorruptIndexError, DTypeError, InvalidInputError, ShapeError
from swann.searcher import Searcher
from swann.storage import load_searcher
from swann.vectors import as_array, as_database

__all__ = ["Candidates", "check_config"]

_INDEX, _IDS = "index", "ids.npy"

_FEW = 8
"""So many queries are answered on the calling thread: waking others takes as long."""


def check_config(config: object) -> IndexConfig | None:
    """Return the settings of an index whose scores come highest first.

    Parameters
    ----------
    config : IndexConfig, dict or None
        A dict is what `IndexConfig.to_dict` returned.

    Raises
    ------
    ConfigError
        If it is something else, or its distances come lowest first.
    """
    if isinstance(config, dict):
        config = IndexConfig.from_dict(config)
    if config is None:
        return None
    if not isinstance(config, IndexConfig):
        raise ConfigError(f"config is {config!r}; expected an IndexConfig, its dict, or None")
    if config.distance_measure == "squared_l2":
        raise ConfigError(
            "config has distance_measure 'squared_l2', whose best scores are the lowest; expected "
            "'dot_product' or 'cosine'"
        )
    return config


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """An index of candidates and their ids. It does not change.

    Attributes
    ----------
    searcher : Searcher
        The index.
    ids : int32 array of shape (n,), optional
        What stands for the rows; None: their numbers.
    """

    searcher: Searcher
    ids: NDArray[np.int32] | None

    @classmethod
    def build(
        cls,
        embeddings: object,
        ids: object,
        k: int,
        config: IndexConfig | None = None,
        target_recall: float = 0.95,
        sample_queries: object = None,
    ) -> Candidates:
        """Index candidates.

        Parameters
        ----------
        embeddings : array_like or tensor of shape (n, d)
            One row a candidate; at least k rows.
        ids : array_like or tensor of shape (n,), optional
            Integers within the range of int32; several candidates may have the same.
        k : int
            Candidates that a search finds.
        config : IndexConfig, optional
            Settings of the index; chosen by autopilot unless given.
        target_recall : float
            What autopilot is to reach.
        sample_queries : array_like or tensor of shape (m, d), optional
            Queries for autopilot to measure with.

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, InvalidInputError
            If embeddings or ids cannot be used.
        ConfigError
            If `config` does not suit the embeddings, or `sample_queries` are given beside it.
        """
        if embeddings is None:
            raise InvalidInputError("candidate_embeddings is None; expected a matrix")
        db = as_database(embeddings, "candidate_embeddings")
        k = check_count("k", k)
        config = check_config(config)
        if len(db) < k:
            raise ShapeError(
                f"candidate_embeddings has {len(db)} rows, but k={k} candidates are to be "
                "retrieved; expected at least as many"
            )
        numbers = None if ids is None else _check_ids(ids, len(db))
        if config is None:
            searcher = build(db, k, target_recall=target_recall, sample_queries=sample_queries)
        elif sample_queries is not None:
            raise ConfigError(
                "sample_queries are for autopilot, but config was given; leave one out"
            )
        else:
            config.check_dimension(db.shape[1])
            searcher = build_searcher(db, config)
        return cls(searcher, numbers)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Find the best candidates of queries: of many on all threads of the searcher.

        Where a query's leaves hold fewer than k candidates, all leaves are searched for it: k
        candidates are always found.

        Parameters
        ----------
        queries : array of shape (..., d)
            One query, or any number.
        k, pre_reorder_num_neighbors, leaves_to_search : int
            See `Searcher.search`.

        Returns
        -------
        scores : float32 array of shape (..., k)
            Highest first.
        ids : int32 array of shape (..., k)
            Ids or row numbers.

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, InvalidInputError
            If the queries cannot be used.
        """
        queries = as_array(queries, "queries")
        if queries.ndim == 0:
            raise ShapeError("queries is a single number; expected shape (..., dimensions)")
        k = check_count("k", k)
        leading = queries.shape[:-1]
        matrix = queries.reshape(math.prod(leading), queries.shape[-1])
        searcher = self.searcher
        many = len(matrix) > _FEW
        search = searcher.search_batched_parallel if many else searcher.search_batched
        rows, scores = search(matrix, k, pre_reorder_num_neighbors, leaves_to_search)
        short = np.flatnonzero(rows[:, -1] < 0)
        if len(short):
            rows[short], scores[short] = search(
                matrix[short], k, pre_reorder_num_neighbors, len(searcher)
            )
        ids = rows.astype(np.int32) if self.ids is None else self.ids[rows]
        return scores.reshape(*leading, k), ids.reshape(*leading, k)

    def save(self, folder: str | Path) -> None:
        """Save everything below an existing folder."""
        root = check_path("folder", folder)
        self.searcher.serialize(root / _INDEX)
        if self.ids is not None:
            np.save(root / _IDS, self.ids)

    @classmethod
    def load(cls, folder: str | Path) -> Candidates | None:
        """Open what `save` saved; None where it saved nothing.

        Raises
        ------
        IndexFormatError
            If what is there is damaged.
        """
        root = check_path("folder", folder)
        if not (root / _INDEX).is_dir():
            return None
        searcher = load_searcher(root / _INDEX, memory_map=False)  # Keras removes the folder
        path = root / _IDS
        if not path.exists():
            return cls(searcher, None)
        try:
            ids = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise CorruptIndexError(f"{path.name} cannot be read: {error}") from error
        if ids.dtype != np.int32 or ids.shape != (len(searcher),):
            raise CorruptIndexError(
                f"{path.name} holds {ids.dtype} of shape {ids.shape}; expected int32 of shape "
                f"({len(searcher)},)"
            )
        return cls(searcher, ids)


def _check_ids(given: object, count: int) -> NDArray[np.int32]:
    """Return a copy of candidate ids as int32."""
    ids = as_array(given, "candidate_ids")
    if ids.shape != (count,):
        raise ShapeError(
            f"candidate_ids has shape {ids.shape}; expected ({count},), one for each row of "
            "candidate_embeddings"
        )
    if ids.dtype.kind not in "iu":
        raise DTypeError(f"candidate_ids has dtype {ids.dtype}; expected integers")
    limits = np.iinfo(np.int32)
    if ids.min() < limits.min or ids.max() > limits.max:
        raise InvalidInputError(
            f"candidate_ids reach from {ids.min()} to {ids.max()}; expected the range of int32, "
            "which Keras has on every backend"
        )
    return ids.astype(np.int32)

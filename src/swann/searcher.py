"""Searching an index: the object that users hold."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig, IndexConfig, check_count
from swann.errors import InvalidInputError, ZeroVectorError
from swann.index.packed import PackedIndex
from swann.index.store import Verify, load_index, save_index
from swann.vectors import as_queries, check_finite

__all__ = ["SearchResult", "Searcher", "load_searcher"]


class SearchResult(NamedTuple):
    """Neighbors, best first: ``indices, distances = searcher.search(q)`` works too.

    Attributes
    ----------
    indices : int64 array of shape (k,) or (num_queries, k)
        Row numbers in the database; -1 where fewer than k were found.
    distances : float32 array of the same shape
        Dot products (cosines) descending, or squared l2 distances ascending; NaN where fewer
        than k were found. Exact after reordering or brute force, else approximate.
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float32]


class Searcher:
    """Finds the nearest datapoints of queries. Made by `Builder.build` or `load_searcher`.

    An index never changes, so any number of Python threads may search one at the same time; the
    GIL is released for the whole of a search. A query's answer is the same whether it comes alone
    or in a batch, on any number of threads.

    Parameters
    ----------
    index : PackedIndex
        The arrays to search.

    Examples
    --------
    >>> import numpy as np, swann
    >>> db = np.random.default_rng(0).standard_normal((1000, 8), dtype=np.float32)
    >>> searcher = swann.builder(db, 3, "cosine").score_brute_force().build()
    >>> indices, distances = searcher.search(db[42])
    >>> int(indices[0]), round(float(distances[0]), 3)
    (42, 1.0)
    """

    def __init__(self, index: PackedIndex) -> None:
        self._index = index
        self._native = index.native
        self._threads = kernels.hardware_threads()
        self._query_shape = (index.dimension,)
        config = index.config
        tree, reorder = config.tree, config.reorder
        self._reorders = reorder is not None and isinstance(config.score, AHConfig)
        self._overretrieve = 1.0
        if tree is not None and tree.soar_lambda is not None:
            self._overretrieve = tree.overretrieve_factor or 2.0
        self._asked = (
            config.num_neighbors,
            reorder.reordering_num_neighbors if reorder is not None else config.num_neighbors,
            tree.num_leaves_to_search if tree is not None else 1,
        )
        self._defaults = self._limits(*self._asked)

    # ---- Searching

    def search(
        self,
        q: object,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> SearchResult:
        """Find the nearest datapoints of one query, on the calling thread.

        Parameters
        ----------
        q : array_like of shape (d,)
            The query. A contiguous float32 array is used as it is.
        final_num_neighbors : int, optional
            k; the builder's `num_neighbors` unless given.
        pre_reorder_num_neighbors : int, optional
            Candidates that are scored exactly; the cost of reordering grows with it. At least k
            are kept.
        leaves_to_search : int, optional
            Leaves of the tree to visit; recall and time grow with it. More than there are means
            all of them.

        Returns
        -------
        SearchResult
            Arrays of shape (k,).

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, ZeroVectorError
            If `q` is not a finite vector of d numbers (not all zero under cosine).
        ConfigError
            If a limit is below 1.
        """
        limits = self._resolve(final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
        # The usual query needs no conversion, and the native call finds bad values itself.
        if type(q) is np.ndarray and q.dtype == np.float32 and q.shape == self._query_shape:
            query = q if q.flags.c_contiguous and q.flags.aligned else q.copy()
        else:
            query = as_queries(q, self._index.dimension, 1, "q")
        k, candidates, leaves = limits
        ids = np.empty(k, np.int64)
        distances = np.empty(k, np.float32)
        if self._native.search_one(query, candidates, leaves, ids, distances) == 0:
            check_finite(query, "q", source=query)
            raise _bad_query(query, "q")
        return SearchResult(ids, distances)

    def search_batched(
        self,
        queries: object,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> SearchResult:
        """Find the nearest datapoints of many queries, on the calling thread.

        Several times faster a query than `search`: the codes of a leaf are read once for all the
        queries that visit it. Parameters and errors are those of `search`.

        Parameters
        ----------
        queries : array_like of shape (num_queries, d)
            The queries; none at all is allowed.

        Returns
        -------
        SearchResult
            Arrays of shape (num_queries, k).
        """
        matrix = as_queries(queries, self._index.dimension, 2, "queries")
        limits = self._resolve(final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
        return self._search(matrix, limits, 1)

    def search_batched_parallel(
        self,
        queries: object,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
        batch_size: int = 256,
    ) -> SearchResult:
        """Do what `search_batched` does on `num_threads` threads.

        Parameters
        ----------
        queries : array_like of shape (num_queries, d)
            The queries.
        batch_size : int
            Accepted for ScaNN's sake and checked; blocks are cut by us, and never change results.

        Returns
        -------
        SearchResult
            Arrays of shape (num_queries, k).
        """
        matrix = as_queries(queries, self._index.dimension, 2, "queries")
        limits = self._resolve(final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
        check_count("batch_size", batch_size)
        return self._search(matrix, limits, self._threads)

    def _search(
        self, queries: NDArray[np.float32], limits: tuple[int, int, int], threads: int
    ) -> SearchResult:
        k, candidates, leaves = limits
        count = len(queries)
        ids = np.empty((count, k), np.int64)
        distances = np.empty((count, k), np.float32)
        bad = self._native.search(queries, candidates, leaves, threads, ids, distances)
        if bad != count:
            check_finite(queries, "queries", source=queries)
            raise _bad_query(queries[bad], f"queries[{bad}]")
        return SearchResult(ids, distances)

    def _resolve(
        self, neighbors: int | None, candidates: int | None, leaves: int | None
    ) -> tuple[int, int, int]:
        if neighbors is None and candidates is None and leaves is None:
            return self._defaults
        k, c, visited = self._asked
        if neighbors is not None:
            k = check_count("final_num_neighbors", neighbors)
        if candidates is not None:
            c = check_count("pre_reorder_num_neighbors", candidates)
        if leaves is not None:
            visited = check_count("leaves_to_search", leaves)
        return self._limits(k, c, visited)

    def _limits(self, k: int, candidates: int, leaves: int) -> tuple[int, int, int]:
        n = self._index.num_datapoints
        candidates = max(k, min(candidates, n)) if self._reorders else k
        candidates = math.ceil(candidates * self._overretrieve)
        return k, candidates, min(leaves, self._index.num_leaves)

    # ---- What it is

    @property
    def config(self) -> IndexConfig:
        """What the index was built with."""
        return self._index.config

    @property
    def num_datapoints(self) -> int:
        """Datapoints in the index."""
        return self._index.num_datapoints

    @property
    def dimension(self) -> int:
        """Dimension of datapoints and queries."""
        return self._index.dimension

    @property
    def nbytes(self) -> int:
        """Bytes of memory (or mapped file) that the index takes."""
        return self._index.nbytes

    @property
    def num_threads(self) -> int:
        """Threads that `search_batched_parallel` uses; all cores unless set."""
        return self._threads

    @num_threads.setter
    def num_threads(self, threads: int) -> None:
        self._threads = check_count("num_threads", threads)

    def set_num_threads(self, num_threads: int) -> None:
        """Set `num_threads`, in ScaNN's words.

        Raises
        ------
        ConfigError
            If it is below 1.
        """
        self.num_threads = num_threads

    def __len__(self) -> int:
        return self._index.num_datapoints

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle and copy keep: the index and the number of threads."""
        return {"index": self._index, "threads": self._threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or copied searcher."""
        Searcher.__init__(self, state["index"])
        self._threads = state["threads"]

    def __repr__(self) -> str:
        index, config = self._index, self._index.config
        parts = [f"{index.num_datapoints:,} x {index.dimension}", config.distance_measure]
        if config.tree is not None:
            parts.append(f"tree({index.num_leaves}, search {self._defaults[2]})")
        if isinstance(config.score, AHConfig):
            score = config.score
            threshold = (
                f", T={score.anisotropic_quantization_threshold:g}" if score.anisotropic else ""
            )
            parts.append(f"score_ah({score.dimensions_per_block}{threshold})")
        else:
            parts.append("score_brute_force()")
        if self._reorders:
            parts.append(f"reorder({self._defaults[1]})")
        size = f"{index.nbytes / 1e6:,.1f} MB"
        return f"<swann.Searcher {', '.join(parts)}, k={self._defaults[0]}, {size}>"

    # ---- Keeping it

    def serialize(self, artifacts_dir: str | os.PathLike[str]) -> None:
        """Save the index as a directory that can be moved, replacing one that is there.

        Parameters
        ----------
        artifacts_dir : path
            Made if it is missing. `load_searcher` reads it.

        Raises
        ------
        OSError
            If it cannot be written. An index saved there before is still whole then.
        """
        save_index(self._index, artifacts_dir)


def load_searcher(
    artifacts_dir: str | os.PathLike[str], *, verify: Verify = "manifest"
) -> Searcher:
    """Open an index that `Searcher.serialize` saved. Its arrays are memory-mapped, not read.

    Parameters
    ----------
    artifacts_dir : path
        The directory.
    verify : {"manifest", "full"}
        ``"manifest"`` checks the manifest and the size, dtype and shape of every array;
        ``"full"`` reads everything and checks the digests too.

    Returns
    -------
    Searcher

    Raises
    ------
    IndexFormatError
        If there is no index, it is of another version, or it is damaged.
    """
    return Searcher(load_index(artifacts_dir, verify=verify))


def _bad_query(query: NDArray[np.float32], name: str) -> Exception:
    """Say what is wrong with a finite query that the native call refused."""
    if not query.any():
        return ZeroVectorError(
            f"{name} is all zeros; under 'cosine' every vector needs a direction"
        )
    longest = np.linalg.norm(query.astype(np.float64))
    return InvalidInputError(
        f"{name} has length {longest:.4g}; expected at most 1e+18, or float32 scores would overflow"
    )

"""Searching an index: the object that users hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import IndexConfig, check_count, check_path, with_finer_rows
from swann.errors import ConfigError
from swann.index.building.build import Progress
from swann.index.changing.live import LiveIndex
from swann.index.disk.store import SUFFIX, save_bundle, save_state
from swann.index.packed import PackedIndex
from swann.index.state import State
from swann.limits import Limits, Resolved, check_many, described, room
from swann.upkeep import Upkeep
from swann.vectors import as_queries, bad_query

__all__ = ["SearchResult", "Searcher"]


_CONSTANT = frozenset({int, type(None)})  # types of limits that stay what they are

# What was asked for, what it meant, and by which limits.
_Asked = tuple[int | None, int | None, int | None, Resolved, Limits]


class SearchResult(NamedTuple):
    """Neighbors, best first: ``indices, distances = searcher.search(q)`` works too.

    Attributes
    ----------
    indices : array of shape (k,) or (num_queries, k)
        Row numbers in the database, int64, -1 where fewer than k were found. Of an index with
        docids the docids: int64 with -1, or strings (dtype object) with None.
    distances : float32 array of the same shape
        Dot products (cosines) descending, or squared l2 distances ascending; NaN where fewer
        than k were found. Exact after reordering or brute force, else approximate. Rounded values
        round the score: a cosine may pass 1 by 1e-7, with rows in ``BFLOAT16`` or ``INT8`` by some
        thousandths, from codes alone by some hundredths.
    """

    indices: NDArray[Any]
    distances: NDArray[np.float32]


class Searcher:
    """Finds the nearest datapoints of queries. Made by `Builder.build` or `swann.load`.

    Any number of Python threads may search one at the same time, also while it is updated: a
    search sees one state of it from its beginning to its end. The GIL is released for the whole of
    a search. A query's answer is the same whether it comes alone or in a batch, on any number of
    threads.

    Parameters
    ----------
    index : PackedIndex or State
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

    def __init__(self, index: PackedIndex | State) -> None:
        self._live = LiveIndex(index if isinstance(index, State) else State.of(index))
        self._threads = kernels.hardware_threads()
        self._dimension = self._index.dimension
        self._upkeep = Upkeep(self._live)
        self._settle()

    @property
    def _index(self) -> PackedIndex:
        return self._live.view.packed

    def _settle(self) -> None:
        """Take the defaults from the plan."""
        config = self._live.plan
        self._limits = Limits(config, self._index.num_leaves)
        nothing: Any = object()  # that was asked for: the defaults are not checked yet
        self._last: _Asked = (nothing, nothing, nothing, self._limits.defaults, self._limits)

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
            Arrays of shape (k,), filled up with -1 (None) and NaN where fewer were found.

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, ZeroVectorError
            If `q` is not a finite vector of d numbers (not all zero under cosine).
        ConfigError
            If a limit is below 1, or k beyond 2^20 and the number of datapoints.
        """
        limits = self._resolve(final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
        view = self._live.view
        found = view.packed.native.search_one(q, *limits)
        if not found:  # what is no plain float32 array, or has bad values
            query = as_queries(q, self._dimension, 1, "q")
            found = view.packed.native.search_one(query, *limits)
            if not found:
                raise bad_query(query, "q")
        if view.docids is not None:
            return SearchResult(view.docids.names(found[0]), found[1])
        return _as_result(SearchResult, found)

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
        limits = self._resolve(final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
        return self._search(queries, limits, 1)

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
        limits = self._resolve(final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
        check_count("batch_size", batch_size)
        return self._search(queries, limits, self._threads)

    def _search(self, given: object, limits: Resolved, threads: int) -> SearchResult:
        queries = as_queries(given, self._dimension, 2, "queries", finite=False)
        k, candidates, leaves = limits
        count = len(queries)
        ids, distances = room((count, k))
        view = self._live.view
        native = view.packed.native
        bad = native.search(queries, candidates, leaves, threads, ids, distances)
        if bad != count:
            as_queries(given, self._dimension, 2, "queries")  # names a value that is not finite
            raise bad_query(queries, "queries", bad)
        if view.docids is not None:
            return SearchResult(view.docids.names(ids), distances)
        return SearchResult(ids, distances)

    def _resolve(
        self, neighbors: int | None, candidates: int | None, leaves: int | None
    ) -> Resolved:
        # Most calls ask for what the call before asked for: the same objects need no check.
        last, limits = self._last, self._limits
        same = neighbors is last[0] and candidates is last[1] and leaves is last[2]
        if same and last[4] is limits:  # since then the defaults may have changed
            return last[3]
        resolved = limits.resolve(neighbors, candidates, leaves)
        check_many(resolved.neighbors, len(self))
        if {type(neighbors), type(candidates), type(leaves)} <= _CONSTANT:
            self._last = (neighbors, candidates, leaves, resolved, limits)
        return resolved

    # ---- Changing

    def upsert(self, docids: object, vectors: object, batch_size: int = 1) -> NDArray[Any]:
        """Insert datapoints, or give those that are there new vectors.

        Done entirely or not at all. Searches go on meanwhile, each on the index as it was when it
        began. A new datapoint is encoded as the others were and put into the leaf of its nearest
        centroid; `rebalance` trains anew. With an `IncrementalMode` that does so by itself, the
        call that has it done takes as long as a build.

        Parameters
        ----------
        docids : str, int, sequence of either, or None
            Which datapoints. An index built with docids gives new ones a place and replaces those
            that it has. An index without replaces the datapoints of these row ids; None: gives new
            ones the next row ids.
        vectors : array_like of shape (m, d), or (d,) for one
            As many as there are docids.
        batch_size : int
            Accepted for ScaNN's sake and checked; all come at once.

        Returns
        -------
        array of shape (m,)
            The docids or row ids of the datapoints.

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, ZeroVectorError
            If the vectors are not finite, of the index's dimension, as many as the docids.
        InvalidInputError
            If a docid comes twice.
        UnknownDocidError
            If a row id is not in the index.
        """
        if type(batch_size) is not int or batch_size != 1:
            check_count("batch_size", batch_size)
        written = self._live.upsert(docids, vectors)
        self._keep_up(written)
        return written

    def delete(self, docids: object) -> None:
        """Remove datapoints; all of them, or none where one is not there.

        Parameters
        ----------
        docids : str, int, or sequence of either
            Docids, or row ids in an index without.

        Raises
        ------
        UnknownDocidError
            If one is not in the index; it is a KeyError too.
        InvalidInputError
            If one comes twice.
        """
        self._live.delete(docids)
        self._keep_up()

    def reserve(self, num_datapoints: int) -> None:
        """Make room for `num_datapoints` in all, so that upserts need not.

        Parameters
        ----------
        num_datapoints : int
            Those that are there, too; fewer than these change nothing. Takes the memory of what is
            to come at once, and searches go on.

        Raises
        ------
        ConfigError
            If it is negative or not an integer.
        InvalidInputError
            If an index cannot hold so many.
        """
        self._live.reserve(check_count("num_datapoints", num_datapoints, minimum=0))

    def rebalance(
        self, config: IndexConfig | None = None, progress: Progress | None = None
    ) -> None:
        """Build the index anew from its datapoints: new centroids, new codebooks.

        Searches go on in the old one until the new one is there; updates wait. Takes as long as a
        build, and the memory of one. Without rows to reorder by, datapoints are decoded from their
        codes, at a loss.

        Parameters
        ----------
        config : IndexConfig, optional
            Other settings from now on; as it was built unless given.
        progress : callable, optional
            Called as ``progress(stage, done, total)``.

        Raises
        ------
        ConfigError
            If `config` does not suit the datapoints, or is of another distance measure.
        InvalidInputError
            If a datapoint, as it is kept, is no good vector: decoded from its code it may be all
            zeros, which cosine refuses. The index stays as it was.
        """
        if config is not None and not isinstance(config, IndexConfig):
            raise ConfigError(f"config is {config!r}; expected an IndexConfig or None")
        measure = self._live.plan.distance_measure
        if config is not None and config.distance_measure != measure:
            raise ConfigError(
                f"config has distance_measure {config.distance_measure!r}; expected {measure!r}, "
                "the index's own"
            )
        config = None if config is None else with_finer_rows(config)
        self._upkeep.rebuild(config, self._threads, progress)
        self._settle()

    def _keep_up(self, written: NDArray[Any] | None = None) -> None:
        """Do what the index was asked to do by itself, now that it has changed."""
        if self._upkeep.wanted:
            self._upkeep.after_change(self._threads, self._settle, written)

    def size(self) -> int:
        """Return the number of datapoints."""
        return self._live.size()

    def initialize_health_stats(self) -> None:
        """Measure all datapoints for `get_health_stats`; updates then keep its figures true.

        The first `get_health_stats` does it too. From then on an upsert takes a little longer.
        """
        self._live.initialize_health_stats()

    def get_health_stats(self) -> dict[str, float]:
        """Return figures that tell when updates have worn the index out.

        Returns
        -------
        dict
            ScaNN's figures, with L leaves of n_l entries, n in all, m = n / L on average. An entry
            is a datapoint in a leaf; with spilling each datapoint has two.

            ``avg_quantization_error``: the root of the mean, over entries, of the squared distance
            to the centroid of the leaf. Of an index without exact rows the distance is that of
            what the codes stand for.
            ``partition_weighted_avg_relative_imbalance``: the mean over entries of
            ``n_l / m - 1``, that is ``L sum(n_l^2) / n^2 - 1``; 0 for leaves of one size.
            ``partition_avg_relative_positive_imbalance``: the mean of ``n_l / m - 1`` over the
            leaves where it is positive; 0 if there are none.
            ``sum_partition_sizes``: n.

            All are 0 without a tree.
        """
        return self._live.health_stats()

    # ---- What it is

    @property
    def config(self) -> IndexConfig:
        """What the index was built with; of an empty one, what `rebalance` will build."""
        return self._live.plan

    @property
    def docids(self) -> list[Any] | None:
        """The docids of all datapoints, a new list; None for an index without.

        It takes 100 milliseconds for a million: ``docid in searcher`` asks for one.
        """
        return self._live.docids()

    @property
    def has_docids(self) -> bool:
        """Whether datapoints have docids; without, they have row ids."""
        return self._live.view.docids is not None

    @property
    def num_datapoints(self) -> int:
        """Datapoints in the index."""
        return self._live.size()

    @property
    def dimension(self) -> int:
        """Dimension of datapoints and queries."""
        return self._dimension

    @property
    def nbytes(self) -> int:
        """Bytes of memory (or mapped file) of the index's arrays.

        Neither docids are counted nor what exact searches keep beside their rows.
        """
        return self._live.nbytes

    @property
    def num_threads(self) -> int:
        """Threads that `search_batched_parallel` uses; all cores unless set."""
        return self._threads

    @num_threads.setter
    def num_threads(self, threads: int) -> None:
        self._threads = check_count("num_threads", threads)

    def set_num_threads(self, num_threads: int) -> None:
        """Set `num_threads`, in ScaNN's words.

        Parameters
        ----------
        num_threads : int
            At least 1.

        Raises
        ------
        ConfigError
            If it is below 1.
        """
        self.num_threads = num_threads

    def __contains__(self, docid: object) -> bool:
        """Whether there is a datapoint with this docid or, in an index without, this row id."""
        return self._live.number_of(docid) is not None

    def __len__(self) -> int:
        return self._live.size()

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle and copy keep: the index and the number of threads."""
        return {"state": self._live.state(), "threads": self._threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or copied searcher."""
        Searcher.__init__(self, state["state"])
        self._threads = state["threads"]

    def __repr__(self) -> str:
        index, limits = self._index, self._limits
        reduced = index.reduced_dim if index.projects else None
        stages = described(index.config, index.num_leaves, reduced, limits)
        parts = [f"{len(self):,} x {index.dimension}", *stages, f"k={limits.defaults.neighbors}"]
        return f"<swann.Searcher {', '.join(parts)}, {self.nbytes / 1e6:,.1f} MB>"

    # ---- Keeping it

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the index, replacing one that is there; `swann.load` opens it.

        At every moment the old index or the new one is there, also if the machine fails.

        Parameters
        ----------
        path : path
            A name that ends in ``.swann`` is one file, for shipping; any other a directory, which
            can be moved. `swann.open` needs a directory. Directories that are missing are made.

        Raises
        ------
        ConfigError
            If `path` is to be a file and is a directory, or the reverse.
        LockedError
            If the directory is open for changes, or a signal handler saves to it within a save.
        OSError
            If it cannot be written. An index saved there before is still whole then.
        """
        if check_path("path", path).suffix == SUFFIX:
            save_bundle(self._live.state(), path)
        else:
            save_state(self._live.state(), path)

    def serialize(self, artifacts_dir: str | os.PathLike[str]) -> None:
        """Save the index as a directory: ScaNN's name for `save`, whatever the name ends in.

        Parameters
        ----------
        artifacts_dir : path
            The directory, made if it is missing.

        Raises
        ------
        ConfigError, LockedError, OSError
            As `save` does.
        """
        check_path("artifacts_dir", artifacts_dir)
        save_state(self._live.state(), artifacts_dir, name="artifacts_dir")


# A tuple as it is; the constructor that NamedTuple makes takes twice as long.
_as_result: Callable[[type[SearchResult], tuple[NDArray[Any], NDArray[Any]]], SearchResult] = (
    tuple.__new__
)

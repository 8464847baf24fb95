"""How good and how fast: exact neighbors, recall, speed-recall curves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swann.builder import Builder
from swann.config import check_count, check_number
from swann.distance import DistanceMeasure, check_distance_measure, descending
from swann.errors import ConfigError, DTypeError, InvalidInputError, NonFiniteError, ShapeError
from swann.limits import check_many
from swann.searcher import Searcher, SearchResult
from swann.vectors import as_array, as_integers, as_queries

__all__ = [
    "OperatingPoint",
    "exact_neighbors",
    "leaf_ladder",
    "recall",
    "recall_with_ties",
    "speed_recall",
]


def exact_neighbors(
    db: object,
    queries: object,
    k: int,
    distance_measure: DistanceMeasure,
    num_threads: int = 0,
    docids: object = None,
) -> SearchResult:
    """Find the true nearest neighbors by scoring everything in float32.

    Costs ``len(db) * len(queries)`` float32 products of d terms, and a float32 copy of `db`.

    Parameters
    ----------
    db : array_like of shape (n, d)
        The datapoints.
    queries : array_like of shape (nq, d)
        The queries.
    k : int
        Neighbors of each.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means.
    num_threads : int
        Threads to use; 0: all cores.
    docids : sequence of str or of int, optional
        Names of the datapoints, as an index that is measured has them; row numbers without.

    Returns
    -------
    SearchResult
        Indices int64 (strings of dtype object where docids are) and distances float32, each of
        shape (nq, k). Where there are fewer than k datapoints, -1 (or None) and NaN.

    Raises
    ------
    ShapeError, DTypeError, NonFiniteError, ZeroVectorError, InvalidInputError
        If `db`, `queries` or `docids` cannot be used, or do not go together.
    ConfigError
        If `k` is below 1, or beyond 2^20 and n, `num_threads` below 0, or there is no such
        `distance_measure`.

    Examples
    --------
    >>> import numpy as np
    >>> exact_neighbors(np.eye(3), [[0.9, 0.2, 0.1]], 2, "dot_product").indices
    array([[0, 1]])
    """
    builder = Builder(db, check_count("k", k), distance_measure).score_brute_force()
    if check_count("num_threads", num_threads, minimum=0):
        builder.set_n_training_threads(num_threads)
    searcher = builder.build(docids)
    check_many(k, len(searcher), "k")
    if num_threads:
        searcher.set_num_threads(num_threads)
    return searcher.search_batched_parallel(queries)


def recall(found: ArrayLike, true: ArrayLike) -> float:
    """Return the share of the true neighbors that were found.

    With `true` of shape (nq, k) and `found` of shape (nq, m) this is recall k@m: ``(nq, 1)`` and
    ``(nq, 10)`` give the recall 1@10. An id of -1, or None among docids that are strings, means
    "none" and counts on neither side.

    Parameters
    ----------
    found : array_like of int or str, shape (nq, m)
        Ids that a search returned.
    true : array_like of int or str, shape (nq, k)
        Ids of the exact neighbors.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ShapeError
        If the shapes do not go together, or `true` holds no ids.
    DTypeError
        If ids are neither integers nor strings, or not the same on both sides.

    Examples
    --------
    >>> recall([[1, 2, 3], [4, 5, -1]], [[1, 2, 9], [4, 5, 6]])
    0.6666666666666666
    """
    found_ids, true_ids = _same_ids(_ids("found", found), _ids("true", true))
    _check_pair("found", found_ids, "true", true_ids)
    valid = true_ids >= 0
    if not valid.any():
        raise ShapeError(f"true holds no ids (shape {true_ids.shape}); expected at least one")
    # One key for each pair of query and id, so that one set operation answers for all queries. Ids
    # of any size are numbered first, so that no key overflows.
    known, numbers = np.unique(true_ids, return_inverse=True)
    stride = len(known)
    rows = np.arange(len(true_ids))[:, None] * stride
    wanted = (numbers.reshape(true_ids.shape) + rows)[valid]
    places = np.minimum(np.searchsorted(known, found_ids), stride - 1)
    candidates = (places + rows)[(found_ids >= 0) & (known[places] == found_ids)]
    return float(np.isin(wanted, candidates).mean())


def recall_with_ties(
    found_distances: ArrayLike,
    true_distances: ArrayLike,
    distance_measure: DistanceMeasure,
    eps: float = 1e-5,
) -> float:
    """Return the share of returned neighbors that are as near as the true ones.

    A neighbor counts if it is no farther than the k-th true one, within a tolerance: where
    datapoints are equally near, any of them will do. Both sides must be exact distances, so the
    searcher has to reorder, or to score by brute force.

    Parameters
    ----------
    found_distances : array_like of float, shape (nq, m)
        What a search returned, at least k columns for a recall of 1; NaN counts as not found.
    true_distances : array_like of float, shape (nq, k)
        What `exact_neighbors` returned.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        Which way is nearer.
    eps : float
        The tolerance, relative to the largest true distance of the query; at least 0.

    Returns
    -------
    float
        Between 0 and 1. A query counts by its true neighbors, those of NaN left out.

    Raises
    ------
    ShapeError
        If the shapes do not go together, or `true_distances` holds no distances.
    DTypeError
        If distances are no real numbers.
    NonFiniteError
        If one is infinite.
    ConfigError
        If `eps` is no finite number of at least 0, or there is no such `distance_measure`.

    Examples
    --------
    >>> recall_with_ties([[0.5, 0.5]], [[0.5, 0.5]], "squared_l2")
    1.0
    """
    near = _distances("found_distances", found_distances)
    true = _distances("true_distances", true_distances)
    eps = check_number("eps", eps)
    _check_pair("found_distances", near, "true_distances", true)
    sign = -1.0 if descending(check_distance_measure(distance_measure)) else 1.0
    valid = ~np.isnan(true)
    if not valid.any():
        raise ShapeError(f"true_distances holds no distances (shape {true.shape})")
    wanted = valid.sum(axis=1)
    farthest = np.where(valid, sign * true, -np.inf).max(axis=1)
    tolerance = eps * np.where(valid, np.abs(true), 0.0).max(axis=1)
    # NaN is never within.
    within = (sign * near <= (farthest + tolerance)[:, None]).sum(axis=1)
    return float(np.minimum(within, wanted).sum() / wanted.sum())


class OperatingPoint(NamedTuple):
    """One point of a speed-recall curve.

    Attributes
    ----------
    leaves_to_search, pre_reorder_num_neighbors : int or None
        The setting; None is the searcher's default.
    recall : float
        What `swann.recall` says.
    single_microseconds : float
        The time of a query that comes alone, on one thread.
    batched_microseconds : float
        The time a query takes of a batch, on `Searcher.num_threads` threads.
    """

    leaves_to_search: int | None
    pre_reorder_num_neighbors: int | None
    recall: float
    single_microseconds: float
    batched_microseconds: float


def leaf_ladder(num_leaves: int) -> list[int]:
    """Return numbers of leaves worth trying: 1, 2, 5, 10, 20, 50, ... and all of them.

    Parameters
    ----------
    num_leaves : int
        Leaves of the index, at least 1.

    Returns
    -------
    list of int
        Ascending, the last being `num_leaves`: some three to a factor of ten.

    Raises
    ------
    ConfigError
        If `num_leaves` is no integer, or below 1.

    Examples
    --------
    >>> leaf_ladder(60)
    [1, 2, 5, 10, 20, 50, 60]
    """
    num_leaves = check_count("num_leaves", num_leaves)
    steps = [mantissa * 10**power for power in range(19) for mantissa in (1, 2, 5)]
    return [*(step for step in steps if step < num_leaves), num_leaves]


def speed_recall(
    searcher: Searcher,
    queries: object,
    true: ArrayLike,
    settings: Iterable[tuple[int | None, int | None]],
    *,
    single_queries: int = 1000,
    repeats: int = 3,
) -> list[OperatingPoint]:
    """Measure recall and speed at several settings.

    Parameters
    ----------
    searcher : Searcher
        The searcher to measure.
    queries : array_like of shape (nq, d)
        The queries, at least one.
    true : array_like of int or str, shape (nq, k)
        Ids of their exact neighbors; k is also how many neighbors a search returns.
    settings : iterable of (leaves_to_search, pre_reorder_num_neighbors)
        None stands for the searcher's default.
    single_queries : int
        How many of the queries to time one at a time.
    repeats : int
        Each time is the median of this many rounds.

    Returns
    -------
    list of OperatingPoint
        One for each of `settings`, in their order.

    Raises
    ------
    ShapeError, DTypeError, NonFiniteError, ZeroVectorError
        If `queries` or `true` cannot be used, or do not go together.
    ConfigError
        If `searcher` is none, `settings` are no pairs, or a number is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> db = np.eye(8, dtype=np.float32)
    >>> true = exact_neighbors(db, db, 1, "cosine").indices
    >>> searcher = Builder(db, 1, "cosine").score_brute_force().build()
    >>> speed_recall(searcher, db, true, [(None, None)])[0].recall
    1.0
    """
    if not isinstance(getattr(searcher, "dimension", None), int):
        raise ConfigError(f"searcher is {searcher!r}; expected a Searcher")
    checked = as_queries(queries, searcher.dimension)
    truth = _ids("true", true)
    _check_pair("queries", checked, "true", truth)
    if len(checked) == 0:
        raise ShapeError("queries have no rows; expected at least one")
    single = checked[: check_count("single_queries", single_queries)]
    check_count("repeats", repeats)
    return [
        _measure(searcher, checked, single, truth, *setting, repeats)
        for setting in _pairs(settings)
    ]


def _measure(
    searcher: Searcher,
    queries: NDArray[np.float32],
    single: NDArray[np.float32],
    true: NDArray[Any],
    leaves: int | None,
    pre_reorder: int | None,
    repeats: int,
) -> OperatingPoint:
    k = true.shape[1]

    def one_at_a_time() -> None:
        for query in single:
            searcher.search(query, k, pre_reorder, leaves)

    def batched() -> SearchResult:
        return searcher.search_batched_parallel(queries, k, pre_reorder, leaves)

    return OperatingPoint(
        leaves,
        pre_reorder,
        recall(batched().indices, true),
        _median_seconds(one_at_a_time, repeats) / len(single) * 1e6,
        _median_seconds(batched, repeats) / len(queries) * 1e6,
    )


def _median_seconds(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _ids(name: str, given: object) -> NDArray[Any]:
    """Return ids as int64, or docids that are strings as an array of dtype object."""
    names = _names(given)
    if names is not None:
        return names
    ids = as_integers(given, name)
    if ids.size and int(ids.max()) > np.iinfo(np.int64).max:
        raise InvalidInputError(f"{name} has the id {ids.max()}; expected ids of at most 2**63 - 1")
    return ids.astype(np.int64, copy=False)


def _names(given: object) -> NDArray[np.object_] | None:
    """Return strings, among them None, as an array; None if these are integers."""
    if not isinstance(given, (np.ndarray, list, tuple)) or np.ma.isMaskedArray(given):
        return None
    if isinstance(given, np.ndarray) and given.dtype.kind not in "OU":
        return None
    try:
        names = np.array(given, object)  # NumPy makes strings of integers beside them
        whole = all(name is None or isinstance(name, str) for name in names.flat)
    except ValueError:  # ragged
        return None
    return names if whole and names.size else None


def _same_ids(
    found: NDArray[Any], true: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids as numbers where they are strings; -1 is none."""
    kinds = ["strings" if ids.dtype == object else "integers" for ids in (found, true)]
    if kinds[0] != kinds[1] and found.size:
        raise DTypeError(
            f"found has ids that are {kinds[0]}, true {kinds[1]}; expected the same of both: "
            "exact_neighbors takes docids"
        )
    if kinds[1] == "integers":
        return found.astype(np.int64, copy=False), true
    numbers: dict[str | None, int] = {None: -1}
    for name in true.flat:
        numbers.setdefault(name, len(numbers))
    unknown = len(numbers)
    pair = [[numbers.get(name, unknown) for name in names.flat] for names in (found, true)]
    found_numbers, true_numbers = (np.array(flat, np.int64) for flat in pair)
    return found_numbers.reshape(found.shape), true_numbers.reshape(true.shape)


def _distances(name: str, given: object) -> NDArray[np.float64]:
    distances = np.asarray(as_array(given, name), np.float64)
    if np.isinf(distances).any():
        raise NonFiniteError(f"{name} has infinities; expected finite numbers, and NaN for none")
    return distances


def _pairs(settings: object) -> list[tuple[int | None, int | None]]:
    pairs: list[Any] = [settings]
    if isinstance(settings, Iterable) and getattr(settings, "ndim", 1) != 0:
        pairs = list(settings)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ConfigError(
                f"settings has {pair!r}; expected pairs (leaves_to_search, "
                "pre_reorder_num_neighbors)"
            )
    return pairs


def _check_pair(found_name: str, found: NDArray[Any], true_name: str, true: NDArray[Any]) -> None:
    if found.ndim != 2 or true.ndim != 2 or len(found) != len(true):
        raise ShapeError(
            f"{found_name} has shape {found.shape} and {true_name} has shape {true.shape}; "
            "expected two axes and as many rows in both"
        )

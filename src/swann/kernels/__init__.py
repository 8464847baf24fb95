"""The one door to the native module.

Everything that runs per datapoint or per query is behind it, in C++ (``native/``). The functions
here allocate results and name things; `swann.kernels.reference` holds a NumPy twin of each kernel,
which the tests compare every instruction set with.

The environment variable ``SWANN_SIMD`` forces a level (see `kernel_levels`); a level that the
machine cannot run is an error at import, not a crash later.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import _native
from swann._native import Centroids
from swann._native import Index as NativeIndex
from swann.errors import ConfigError
from swann.kernels.codes import (
    GROUP,
    LANES,
    Tiles,
    block_bytes,
    empty_tiles,
    encode_tiles,
    make_tiles,
    metric_directions,
    num_blocks,
    pack_codes,
    put_tiles,
    start_codebook,
    update_codebook,
)

__all__ = [
    "GROUP",
    "LANES",
    "Centroids",
    "NativeIndex",
    "Tiles",
    "active_level",
    "add_moments",
    "anisotropic_centroids",
    "assign_leaves",
    "assign_near",
    "block_bytes",
    "check_rows",
    "empty_tiles",
    "encode_tiles",
    "hardware_threads",
    "kernel_levels",
    "leaf_means",
    "make_tiles",
    "merge",
    "metric_directions",
    "normalize_rows",
    "num_blocks",
    "pack_codes",
    "project_rows",
    "put_rows",
    "put_tiles",
    "release_memory",
    "round_to_bf16",
    "round_to_i8",
    "sort_by_leaf",
    "spill_leaves",
    "square_rows",
    "start_codebook",
    "symmetric_eigen",
    "take_rows",
    "update_codebook",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]

if _native.level_error():
    raise ConfigError(_native.level_error())


def kernel_levels() -> list[str]:
    """Return the instruction-set levels that this machine can run, best first."""
    return _native.kernel_levels()


def active_level() -> str:
    """Return the level in use: the best, or the one that ``SWANN_SIMD`` names."""
    return _native.active_level()


def release_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps some."""
    _native.release_memory()


def hardware_threads() -> int:
    """Return the number of threads of this process that run at once: CPUs that it is bound to."""
    return _native.hardware_threads()


def check_rows(rows: F32, threads: int = 1) -> tuple[int, F32]:
    """Find the first row that is not finite or too long for float32 arithmetic.

    Returns
    -------
    tuple of (int, float32 array of shape (n,))
        Its number (n when all rows are well), and the Euclidean norms of the rows before it.
    """
    norms = np.empty(len(rows), np.float32)
    return _native.check_rows(rows, norms, threads), norms


def square_rows(rows: F32, threads: int) -> F64:
    """Return the squared lengths of rows, (n,), summed in float64."""
    squares = np.empty(len(rows))
    _native.square_rows(rows, squares, threads)
    return squares


def normalize_rows(rows: F32, threads: int, out: F32 | None = None) -> tuple[int, F32]:
    """Scale rows to unit length, as `swann.distance.normalize_rows` does, on threads.

    They go to `out`, where it is given; it may be `rows`.

    Returns
    -------
    tuple of (int, float32 array of shape (n, d))
        The number of the first row of zeros (n when there is none), and the rows before it.
    """
    out = np.empty_like(rows) if out is None else out
    return _native.normalize_rows(rows, out, threads), out


def assign_leaves(
    rows: F32, centroids: F32 | Centroids, threads: int, eta: float | F32 = 1.0
) -> tuple[U32, F32]:
    """Assign rows to their nearest centroids by squared l2; ties go to the lowest number.

    With `eta` above 1, nearest under the score-aware loss ``|e|^2 + (eta - 1) <e, x / |x|>^2`` of
    the error ``e = x - c``. An array (n,) gives each row its own, which may lie below 1.
    ``Centroids(centroids, threads)`` spares many calls the work on the centroids alone.

    Returns
    -------
    tuple of (uint32 array of shape (n,), float32 array of shape (n,))
        Labels, and ``<x, c> - |c|^2 / 2`` of the chosen centroid (greater is nearer by l2).
    """
    labels = np.empty(len(rows), np.uint32)
    scores = np.empty(len(rows), np.float32)
    held = _held(centroids, threads)
    _native.assign_leaves(rows, held, labels, scores, *_one_or_each(eta), threads)
    return labels, scores


def _held(centroids: F32 | Centroids, threads: int) -> Centroids:
    return centroids if isinstance(centroids, Centroids) else Centroids(centroids, threads)


def assign_near(
    rows: F32, origins: F32, centroids: F32, width: int, order: U32, starts: U32, threads: int
) -> tuple[U32, F32]:
    """Assign rows that are in leaves anew, to one of few centroids each, by squared l2.

    A row may go to the `width` centroids that are nearest to the origin of its leaf. Where that is
    the leaf's centroid, a row's distance never rises.

    Parameters
    ----------
    rows : float32 array of shape (n, d)
        The datapoints.
    origins : float32 array of shape (num_leaves, d)
        Where the rows of each leaf are: their mean.
    centroids : float32 array of shape (num_leaves, d)
        To choose from.
    width : int
        At most `num_leaves`: with so many, all centroids are tried.
    order, starts : arrays
        Of `sort_by_leaf`: the leaves that the rows are in.

    Returns
    -------
    tuple of (uint32 array of shape (n,), float32 array of shape (n,))
        As `assign_leaves` does.
    """
    labels = np.empty(len(rows), np.uint32)
    scores = np.empty(len(rows), np.float32)
    _native.assign_near(rows, origins, centroids, width, order, starts, labels, scores, threads)
    return labels, scores


def _one_or_each(eta: float | F32) -> tuple[float, F32 | None]:
    """Return eta as the native calls take it: one, and maybe one of each row."""
    return (1.0, eta) if isinstance(eta, np.ndarray) else (eta, None)


def anisotropic_centroids(
    rows: F32,
    order: U32,
    starts: U32,
    eta: float | F32,
    centroids: F32,
    threads: int,
    scales: F32 | None = None,
) -> None:
    """Move centroids, in place, to where they minimise the score-aware loss of their leaves' rows.

    `order` and `starts` are what `sort_by_leaf` returns. Centroids of empty leaves stay. `eta` may
    be an array, of each row its own, and `scales` (n,) says how much a row counts.
    """
    one, each = _one_or_each(eta)
    _native.anisotropic_centroids(rows, order, starts, one, each, scales, centroids, threads)


def round_to_bf16(rows: F32, weights: F32 | None, out: NDArray[np.uint16], threads: int) -> None:
    """Round rows to bfloat16, into `out` as bits; with `weights` (eta - 1) anisotropically."""
    _native.round_to_bf16(rows, weights, out, threads)


def round_to_i8(
    rows: F32,
    weights: F32 | None,
    out: NDArray[np.int8],
    scales: F32,
    squares: F32,
    threads: int,
    origins: F32 | None = None,
    labels: NDArray[np.uint8] | None = None,
) -> None:
    """Round rows to int8 times a scale of each row's own; with `weights` anisotropically.

    `scales` and `squares` of shape (n,) get the scales and the squared lengths of what is stored.
    With `origins`, rounded is what a row has beyond the one that its label names; labels of rows
    for which the first origin leaves a smaller step become 0.
    """
    _native.round_to_i8(rows, weights, origins, labels, out, scales, squares, threads)


def take_rows(rows: F32, ids: NDArray[np.int64], out: F32, threads: int) -> None:
    """Do what ``out[:] = rows[ids]`` does, for ids from 0 on."""
    _native.take_rows(rows, ids, out, threads)


def put_rows(rows: NDArray[Any], places: U32, out: NDArray[Any], threads: int) -> None:
    """Do what ``out[places] = rows`` does, where dtypes are the same and places distinct."""
    width = rows.shape[1] * rows.itemsize
    there = out.view(np.uint8).reshape(len(out), width)
    _native.put_rows(rows.view(np.uint8).reshape(len(rows), width), places, there, threads)


def project_rows(rows: F32, basis: F32 | None, reduced_dim: int, threads: int) -> F32:
    """Return the dot products of rows with the rows of `basis`, or their first dimensions.

    Returns
    -------
    float32 array of shape (n, reduced_dim)
        The same for a row whatever the others are.
    """
    out = np.empty((len(rows), reduced_dim), np.float32)
    _native.project_rows(rows, basis, out, threads)
    return out


def add_moments(
    rows: F32, shift: F64, scale: float, sums: F64, products: F64, threads: int
) -> None:
    """Add, of ``y = scale (x - shift)`` for each row x, the values and their products.

    `sums` has shape (d,), `products` shape (d, d) and is filled on and below the diagonal. Products
    are summed in float32 for 512 rows at most, so `scale` must keep them small.
    """
    _native.add_moments(rows, shift, scale, sums, products, threads)


def symmetric_eigen(matrix: F64, threads: int) -> F64:
    """Return the eigenvalues of a symmetric matrix, descending.

    Its rows are replaced by the eigenvectors. The same bits on any number of threads, which LAPACK
    does not promise; about ``8 n^3`` operations.
    """
    values = np.empty(len(matrix))
    _native.symmetric_eigen(matrix, values, threads)
    return values


def spill_leaves(
    rows: F32, centroids: F32 | Centroids, labels: U32, soar_lambda: float, threads: int
) -> U32:
    """Choose a second leaf for every row, as SOAR does; there are two centroids at least.

    The residual to it should be orthogonal to the residual to the first: where the first makes a
    datapoint hard to find, the second then does not (Sun et al. 2023). The centroid minimises
    ``|r'|^2 + soar_lambda <r', r / |r|>^2``.

    Returns
    -------
    uint32 array of shape (n,)
        Never the row's own label.
    """
    spilled = np.empty(len(rows), np.uint32)
    held = _held(centroids, threads)
    _native.spill_leaves(rows, held, labels, soar_lambda, spilled, threads)
    return spilled


def merge(
    parts: list[tuple[U32, U64, U64, F32]],
    candidates: int,
    ids: NDArray[np.int64],
    distances: F32,
    threads: int,
) -> None:
    """Put together what the parts of an index found; see `swann.index.shards.merge`.

    Parameters
    ----------
    parts : list of (queries, first, last, distances)
        Of each part: uint32 (m,) numbers of queries, and arrays of shape (m, width).
    candidates : int
        To keep of each query.
    ids, distances : int64 and float32 arrays of shape (num_queries, k)
        To be filled.
    """
    _native.merge(parts, candidates, threads, ids, distances)


def sort_by_leaf(labels: U32, num_leaves: int) -> tuple[U32, U32]:
    """Sort rows by label, keeping their order within a leaf.

    Returns
    -------
    tuple of (uint32 array of shape (n,), uint32 array of shape (num_leaves + 1,))
        The rows in the order of the leaves, and where each leaf starts in it.
    """
    order = np.empty(len(labels), np.uint32)
    starts = np.empty(num_leaves + 1, np.uint32)
    _native.sort_by_leaf(labels, order, starts)
    return order, starts


def leaf_means(rows: F32, order: U32, starts: U32, threads: int) -> F32:
    """Return the mean of each leaf's rows, shape (num_leaves, d); zeros for an empty leaf."""
    means = np.empty((len(starts) - 1, rows.shape[1]), np.float32)
    _native.leaf_means(rows, order, starts, means, threads)
    return means

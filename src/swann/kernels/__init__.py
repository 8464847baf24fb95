"""The one door to the native module.

Everything that runs per datapoint or per query is behind it, in C++ (``native/``). The functions
here allocate results and name things; `swann.kernels.reference` holds a NumPy twin of each kernel,
which the tests compare every instruction set with.

The environment variable ``SWANN_SIMD`` forces a level (see `kernel_levels`); a level that the
machine cannot run is an error at import, not a crash later.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import _native
from swann._native import Index as NativeIndex
from swann.errors import ConfigError

__all__ = [
    "GROUP",
    "LANES",
    "NativeIndex",
    "Tiles",
    "active_level",
    "assign_leaves",
    "check_rows",
    "encode_tiles",
    "hardware_threads",
    "kernel_levels",
    "leaf_means",
    "make_tiles",
    "pack_codes",
    "round_to_bf16",
    "round_to_i8",
    "sort_by_leaf",
    "spill_leaves",
    "update_codebook",
]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]

LANES = 16
"""Datapoints in a training tile, and codewords in a block's codebook."""

GROUP = 32
"""Datapoints in a group of packed codes."""

if _native.level_error():
    raise ConfigError(_native.level_error())


def kernel_levels() -> list[str]:
    """Return the instruction-set levels that this machine can run, best first."""
    return _native.kernel_levels()


def active_level() -> str:
    """Return the level in use: the best, or the one that ``SWANN_SIMD`` names."""
    return _native.active_level()


def hardware_threads() -> int:
    """Return the number of threads that run at once on this machine."""
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


def assign_leaves(rows: F32, centroids: F32, threads: int) -> tuple[U32, F32]:
    """Assign rows to their nearest centroids by squared l2; ties go to the lowest number.

    Returns
    -------
    tuple of (uint32 array of shape (n,), float32 array of shape (n,))
        Labels, and ``<x, c> - |c|^2 / 2`` of the chosen centroid (greater is nearer).
    """
    labels = np.empty(len(rows), np.uint32)
    scores = np.empty(len(rows), np.float32)
    _native.assign_leaves(rows, centroids, labels, scores, threads)
    return labels, scores


def round_to_bf16(rows: F32, weights: F32 | None, out: NDArray[np.uint16], threads: int) -> None:
    """Round rows to bfloat16, into `out` as bits; with `weights` (eta - 1) anisotropically."""
    _native.round_to_bf16(rows, weights, out, threads)


def round_to_i8(
    rows: F32, weights: F32 | None, out: NDArray[np.int8], scales: F32, squares: F32, threads: int
) -> None:
    """Round rows to int8 times a scale of each row's own; with `weights` anisotropically.

    `scales` and `squares` of shape (n,) get the scales and the squared lengths of what is stored.
    """
    _native.round_to_i8(rows, weights, out, scales, squares, threads)


def spill_leaves(rows: F32, centroids: F32, labels: U32, soar_lambda: float, threads: int) -> U32:
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
    _native.spill_leaves(rows, centroids, labels, soar_lambda, spilled, threads)
    return spilled


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


class Tiles(NamedTuple):
    """Training data for product quantization, 16 datapoints to a tile, dimension by dimension.

    Attributes
    ----------
    targets : float32 array of shape (tiles, d, 16)
        What is quantized: residuals, or the datapoints themselves.
    directions : float32 array of shape (tiles, d, 16), or None
        Unit vectors along the datapoints; None for plain l2.
    weights : float32 array of shape (tiles, 16), or None
        ``eta - 1`` of each datapoint.
    """

    targets: F32
    directions: F32 | None
    weights: F32 | None


def make_tiles(
    rows: F32, centroids: F32 | None, labels: U32 | None, weights: F32 | None, threads: int
) -> Tiles:
    """Lay rows out as tiles of residuals; `weights` (n,) asks for directions too.

    The number of rows must be a multiple of 16.
    """
    shape = (len(rows) // LANES, rows.shape[1], LANES)
    targets = np.empty(shape, np.float32)
    directions = None if weights is None else np.empty(shape, np.float32)
    _native.make_tiles(rows, centroids, labels, targets, directions, threads)
    by_tile = None if weights is None else weights.reshape(-1, LANES)
    return Tiles(targets, directions, by_tile)


def num_blocks(dimension: int, dimensions_per_block: int) -> int:
    """Return how many blocks cover `dimension`; the last may be short."""
    return -(-dimension // dimensions_per_block)


def encode_tiles(
    tiles: Tiles,
    codebook: F32,
    dimensions_per_block: int,
    sweeps: int,
    threads: int,
    codes: U8 | None = None,
) -> tuple[U8, F32]:
    """Choose the codes of every datapoint.

    From the nearest codewords (or from `codes`, which are changed in place), coordinate descent
    over the blocks on ``|e|^2 + (eta - 1) <e, u>^2``, at most `sweeps` passes.

    Returns
    -------
    tuple of (uint8 array of shape (tiles, blocks, 16), float32 array of shape (tiles, 16))
        Codes, and the losses they reach.
    """
    count, dimension, _ = tiles.targets.shape
    warm = codes is not None
    if codes is None:
        blocks = num_blocks(dimension, dimensions_per_block)
        codes = np.empty((count, blocks, LANES), np.uint8)
    losses = np.empty((count, LANES), np.float32)
    _native.encode_tiles(
        *tiles, codebook, dimensions_per_block, sweeps, warm, codes, losses, threads
    )
    return codes, losses


def update_codebook(
    tiles: Tiles, codes: U8, dimensions_per_block: int, codebook: F32, threads: int
) -> None:
    """Move the codewords, in place, to where they minimise the loss for these codes.

    Block after block, each the closed-form optimum given the others. ``codebook`` has shape
    (d, 16): column k holds codeword k of every block.
    """
    _native.update_codebook(*tiles, codes, dimensions_per_block, codebook, threads)


def pack_codes(
    rows: F32,
    weights: F32 | None,
    centroids: F32 | None,
    leaf_starts: U32,
    groups: tuple[int, int],
    codebook: F32,
    dimensions_per_block: int,
    sweeps: int,
    codes: U8,
    corrections: F32 | None,
    threads: int,
) -> None:
    """Encode the rows of ``groups = (first, last)`` into the packed codes of an index.

    Parameters
    ----------
    rows : float32 array of shape (m, d)
        The datapoints of these groups, in the order of the leaves.
    weights : float32 array of shape (m,), or None
        ``eta - 1`` of each; None for plain l2.
    centroids : float32 array of shape (num_leaves, d), or None
        Subtracted before encoding.
    leaf_starts : uint32 array of shape (num_leaves + 1,)
        First row of each leaf, in the whole index.
    codebook : float32 array of shape (d, 16)
        Column k holds codeword k of every block.
    codes : uint8 array of shape (all groups, blocks, 16)
        Filled for these groups.
    corrections : float32 array of shape (all groups * 32,), or None
        Gets ``-2 <centroid, decoded residual>``: squared l2 with residuals needs it.
    """
    _native.pack_codes(
        rows,
        weights,
        centroids,
        leaf_starts,
        groups[0],
        groups[1],
        codebook,
        dimensions_per_block,
        sweeps,
        codes,
        corrections,
        threads,
    )

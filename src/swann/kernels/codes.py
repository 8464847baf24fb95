"""What product quantization asks of the native module: tiles, codebooks and packed codes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import _native

__all__ = [
    "GROUP",
    "LANES",
    "Tiles",
    "block_bytes",
    "empty_tiles",
    "encode_tiles",
    "make_tiles",
    "metric_directions",
    "num_blocks",
    "pack_codes",
    "put_tiles",
    "start_codebook",
    "update_codebook",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]

LANES = 16
"""Datapoints in a training tile."""

GROUP = 32
"""Datapoints in a group of packed codes."""


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
    scales : float32 array of shape (tiles, 16), or None
        How much a datapoint counts in updates of the codebook; None: all alike.
    """

    targets: F32
    directions: F32 | None
    weights: F32 | None
    scales: F32 | None = None

    def weighted(self, weights: F32 | None, scales: F32 | None = None) -> Tiles:
        """Return the same tiles with these weights and scales, of shape (n,)."""
        return self._replace(weights=_by_tile(weights), scales=_by_tile(scales))


def make_tiles(
    rows: F32,
    centroids: F32 | None,
    labels: U32 | None,
    weights: F32 | None,
    threads: int,
    scales: F32 | None = None,
) -> Tiles:
    """Lay rows out as tiles of residuals; `weights` (n,) asks for directions too.

    The number of rows must be a multiple of 16. `scales` has shape (n,).
    """
    tiles = empty_tiles(len(rows), rows.shape[1], directed=weights is not None)
    put_tiles(rows, centroids, labels, tiles, 0, threads)
    return tiles.weighted(weights, scales)


def empty_tiles(count: int, dimension: int, *, directed: bool) -> Tiles:
    """Return room for `count` rows, and for their directions, that `put_tiles` fills."""
    shape = (count // LANES, dimension, LANES)
    directions = np.empty(shape, np.float32) if directed else None
    return Tiles(np.empty(shape, np.float32), directions, None)


def put_tiles(
    rows: F32, centroids: F32 | None, labels: U32 | None, tiles: Tiles, first: int, threads: int
) -> None:
    """Lay rows out in `tiles`, from the row `first` on; both numbers are multiples of 16."""
    part = slice(first // LANES, (first + len(rows)) // LANES)
    directions = None if tiles.directions is None else tiles.directions[part]
    _native.make_tiles(rows, centroids, labels, tiles.targets[part], directions, threads)


def _by_tile(values: F32 | None) -> F32 | None:
    """Return a value of each row as (tiles, 16)."""
    return None if values is None else values.reshape(-1, LANES)


def num_blocks(dimension: int, dimensions_per_block: int) -> int:
    """Return how many blocks cover `dimension`; the last may be short."""
    return -(-dimension // dimensions_per_block)


def block_bytes(codewords: int) -> int:
    """Return the bytes that one block of a group of packed codes takes: of 4 bits, or of 8."""
    return GROUP // 2 if codewords == 16 else GROUP


def encode_tiles(
    tiles: Tiles,
    codebook: F32,
    dimensions_per_block: int,
    sweeps: int,
    threads: int,
    codes: U8 | None = None,
) -> tuple[U8, F32]:
    """Choose the codes of every datapoint.

    From what prices choose (docs/architecture.md, Quantize; or from `codes`, which are changed in
    place), coordinate descent over the blocks on ``|e|^2 + (eta - 1) <e, u>^2``, at most `sweeps`
    passes. ``codebook`` has shape (d, 16) or (d, 256).

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
        tiles.targets,
        tiles.directions,
        tiles.weights,
        codebook,
        dimensions_per_block,
        sweeps,
        warm,
        codes,
        losses,
        threads,
    )
    return codes, losses


def start_codebook(
    targets: F32,
    dimensions_per_block: int,
    first: U32,
    draws: F64,
    threads: int,
) -> F32:
    """Choose the codewords that training starts with, by k-means++ in every block.

    Parameters
    ----------
    targets : float32 array of shape (tiles, d, 16)
        The datapoints to choose from.
    dimensions_per_block : int
        Dimensions that share a code.
    first : uint32 array of shape (num_blocks,)
        The datapoint that is the first codeword.
    draws : float64 array of shape (codewords - 1, num_blocks)
        For each further one a number in [0, 1): where the sum of the squared distances to the
        nearest codeword so far, from the first datapoint on, passes that share of the whole.
    threads : int
        The result does not depend on it.

    Returns
    -------
    float32 array of shape (d, codewords)
    """
    codebook = np.empty((targets.shape[1], len(draws) + 1), np.float32)
    _native.start_codebook(targets, dimensions_per_block, first, draws, codebook, threads)
    return codebook


def update_codebook(
    tiles: Tiles,
    codes: U8,
    dimensions_per_block: int,
    codebook: F32,
    threads: int,
    joint: bool = False,
) -> None:
    """Move the codewords, in place, to where they minimise the loss for these codes.

    Block after block, each the closed-form optimum given the others; with `joint`, to the optimum
    of all blocks together (within a part in 10 million of the loss). ``codebook`` has shape
    (d, 16) or (d, 256): column k holds codeword k of every block.
    """
    _native.update_codebook(*tiles, codes, dimensions_per_block, codebook, joint, threads)


def pack_codes(
    rows: F32,
    weights: F32 | None,
    centroids: F32 | None,
    leaves: U32,
    places: U64,
    codebook: F32,
    dimensions_per_block: int,
    sweeps: int,
    codes: U8,
    corrections: F32 | None,
    threads: int,
    *,
    metric: F32 | None = None,
    directions: F32 | None = None,
    center: F32 | None = None,
    dot_product: bool = False,
) -> None:
    """Encode rows, in any order, into their places in the packed codes of an index.

    With a symmetric matrix G as `metric` the loss is ``<e, G e> + (eta - 1) <e, u>^2``: from the
    codeword that is best for each block alone, coordinate descent over the blocks, until nothing
    changes or `sweeps` passes.

    Parameters
    ----------
    rows : float32 array of shape (m, d)
        The datapoints.
    weights : float32 array of shape (m,), or None
        ``eta - 1`` of each; None for plain l2.
    centroids : float32 array of shape (num_leaves, d), or None
        That of a row's leaf is subtracted before encoding.
    leaves : uint32 array of shape (m,)
        The rows' leaves.
    places : uint64 array of shape (m,)
        ``32 group + place in the group`` of each; no two alike.
    codebook : float32 array of shape (d, 16 or 256)
        Column k holds codeword k of every block.
    codes : uint8 array of shape (all groups, blocks, 16 or 32)
        `block_bytes` says how wide. Holds zeros in these places.
    corrections : float32 array of shape (all groups * 32,), or None
        Gets what scores by codes leave out. Of the squared distance to what a code stands for, y =
        centroid + r, r being the decoded residual: ``-2 <centroid - center, r>``. Of the dot
        product with a row x: ``<center, r> + (|x|^2 - |y|^2) / (2 |x|)``.
    metric : float32 array of shape (d, d), optional
        Not with corrections.
    directions : float32 array of shape (m, d), optional
        u of each row, as `metric_directions` makes them; with a metric and weights, and only then.
    center : float32 array of shape (d,), optional
        What the corrections are counted from; the origin unless given.
    dot_product : bool
        Whether corrections are those of the dot product.
    """
    _native.pack_codes(
        rows,
        weights,
        centroids,
        leaves,
        places,
        codebook,
        dimensions_per_block,
        sweeps,
        codes,
        corrections,
        metric,
        directions,
        center,
        dot_product,
        threads,
    )


def metric_directions(rows: F32, metric: F32, threads: int) -> tuple[F32, F32]:
    """Return ``u = G x / |x|_G`` of rows x under a symmetric matrix G, and ``|x|_G``.

    An error e changes the length ``|x|_G = sqrt(<x, G x>)`` by ``<e, u>``; zeros for a zero.

    Returns
    -------
    tuple of (float32 array of shape (n, d), float32 array of shape (n,))
    """
    directions = np.empty_like(rows)
    norms = np.empty(len(rows), np.float32)
    _native.metric_directions(rows, metric, directions, norms, threads)
    return directions, norms

"""Product quantization as the experiments use it: a dictionary, and rows coded with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.paper.lab import Floats
from swann import kernels
from swann.kernels import LANES
from swann.quantize.anisotropic import anisotropic_weights
from swann.quantize.product import MAX_SWEEPS, train_codebook

TRAINING_ROWS = 100_000
ITERATIONS = 20


def dictionary(
    rows: Floats,
    width: int,
    *,
    codewords: int = 16,
    threshold: float | None = None,
    seed: int = 0,
    threads: int = 1,
) -> Floats:
    """Train the codewords of all blocks, shape (d, codewords).

    Parameters
    ----------
    rows : float32 array of shape (n, d)
        Datapoints; 100,000 of them are used at most.
    width : int
        Dimensions a block.
    codewords : {16, 256}
        Of a block: codes of 4 or 8 bits.
    threshold : float, optional
        T of the score-aware loss; None for reconstruction.
    """
    rng = np.random.default_rng(seed)
    count = min(TRAINING_ROWS, len(rows)) // LANES * LANES
    sample = rows[np.sort(rng.permutation(len(rows))[:count])]
    weights = _weights(sample, threshold)
    return train_codebook(
        kernels.make_tiles(sample, None, None, weights, threads),
        width,
        codewords=codewords,
        iterations=ITERATIONS,
        rng=rng,
        threads=threads,
    )


def coded(
    rows: Floats, codebook: Floats, width: int, threshold: float | None = None, threads: int = 1
) -> Floats:
    """Quantize rows with a dictionary; return what their codes stand for, in the rows' shape.

    Under the score-aware loss codes come from coordinate descent that starts at the nearest
    codewords.
    """
    padded = np.resize(rows, (-(-len(rows) // LANES) * LANES, rows.shape[1]))
    tiles = kernels.make_tiles(padded, None, None, _weights(padded, threshold), threads)
    codes, _ = kernels.encode_tiles(tiles, codebook, width, MAX_SWEEPS, threads)
    by_row = codes.transpose(0, 2, 1).reshape(len(padded), -1)[: len(rows)]
    made = np.empty(rows.shape, np.float32)
    for j in range(rows.shape[1]):
        made[:, j] = codebook[j, by_row[:, j // width]]
    return made


def _weights(rows: Floats, threshold: float | None) -> npt.NDArray[np.float32] | None:
    if threshold is None:
        return None
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return anisotropic_weights(norms, rows.shape[1], threshold)


def bits(dimension: int, width: int, codewords: int = 16) -> int:
    """Bits a datapoint.

    Examples
    --------
    >>> bits(100, 4), bits(100, 8, 256)
    (100, 104)
    """
    return kernels.num_blocks(dimension, width) * (codewords.bit_length() - 1)


def in_blocks(rows: Floats, blocks: int) -> tuple[Floats, int]:
    """Spread dimensions evenly over exactly this many blocks; return the rows and the width.

    Blocks that get a dimension less end in a zero, which changes neither a score nor a norm.

    Examples
    --------
    >>> spread, width = in_blocks(np.float32([[1, 2, 3, 4, 5]]), 3)
    >>> spread.tolist(), width
    ([[1.0, 2.0, 3.0, 4.0, 5.0, 0.0]], 2)
    """
    dimension = rows.shape[1]
    width = -(-dimension // blocks)
    of = np.arange(dimension) * blocks // dimension  # the block of each dimension
    place = np.arange(dimension) - np.searchsorted(of, np.arange(blocks))[of]
    spread = np.zeros((len(rows), blocks * width), np.float32)
    spread[:, of * width + place] = rows
    return spread, width

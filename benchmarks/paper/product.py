"""Product quantization as the experiments use it: a dictionary, and rows coded with it."""

from __future__ import annotations

import numpy as np

from benchmarks.paper.lab import Floats, Lab
from swann.quantize import ProductQuantizer

TRAINING_ROWS = 100_000
ITERATIONS = 20


def trained(
    lab: Lab,
    rows: Floats,
    width: int,
    *,
    codewords: int = 16,
    threshold: float | None = None,
    update: str = "blockwise",
) -> ProductQuantizer:
    """Train a quantizer on 100,000 of the rows at most.

    Parameters
    ----------
    lab : Lab
        Its seed and threads are used.
    rows : float32 array of shape (n, d)
        Datapoints.
    width : int
        Dimensions a block.
    codewords : {16, 256}
        Of a block: codes of 4 or 8 bits.
    threshold : float, optional
        T of the score-aware loss; None for reconstruction.
    update : {"blockwise", "joint"}
        Of the codebook.
    """
    chosen = np.sort(np.random.default_rng(lab.seed).permutation(len(rows))[:TRAINING_ROWS])
    quantizer = ProductQuantizer(
        width,
        codewords=codewords,
        threshold=threshold,
        update=update,
        iterations=ITERATIONS,
        seed=lab.seed,
        num_threads=lab.threads,
    )
    return quantizer.fit(rows[chosen])


def coded(rows: Floats, quantizer: ProductQuantizer) -> Floats:
    """Quantize rows; return what their codes stand for, in the rows' shape."""
    return quantizer.decode(quantizer.encode(rows))


def with_threshold(quantizer: ProductQuantizer, threshold: float) -> ProductQuantizer:
    """Return a quantizer of the same dictionary that chooses codes by the score-aware loss."""
    other = ProductQuantizer(
        quantizer.dimensions_per_block,
        codewords=quantizer.codewords,
        threshold=threshold,
        num_threads=quantizer.num_threads,
    )
    other.codebook = quantizer.codebook
    return other


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

"""Codebooks of product quantization, 16 or 256 codewords a block, by l2 or the anisotropic loss.

A datapoint's dimensions are cut into blocks (the last may be short); each block is replaced by one
of its codewords. The codebook has shape (d, codewords): column k holds codeword k of every block,
so that dimension j of a reconstruction is ``codebook[j, code[j // dimensions_per_block]]``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.kernels import LANES, Tiles

__all__ = ["MAX_SWEEPS", "train_codebook"]

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

MAX_SWEEPS = 2
"""Passes of coordinate descent over the blocks of a datapoint; further ones change next to nothing
(`benchmarks.codes`: on GloVe-100 the loss after 1, 2, 4 and 20 is .1192, .1189, .1189, .1189)."""

_TRAINING_SWEEPS = 1
"""While training, codes start from those of the iteration before."""

_CONVERGED = 1e-3
_SEED_TILES = 256


def train_codebook(
    tiles: Tiles,
    dimensions_per_block: int,
    *,
    codewords: int = 16,
    iterations: int = 10,
    rng: np.random.Generator,
    threads: int = 1,
    on_iteration: Callable[[int, float], None] | None = None,
    joint: bool = False,
) -> F32:
    """Train the codewords of all blocks.

    Parameters
    ----------
    tiles : Tiles
        The training datapoints; with directions and weights the loss is anisotropic, else l2.
    dimensions_per_block : int
        Dimensions that share a code.
    codewords : {16, 256}
        Of a block.
    iterations : int
        Rounds of assignment and update at most, first under l2 and then, where it is asked for,
        under the anisotropic loss. A round costs about ``codewords n d`` multiplications.
    rng : numpy.random.Generator
        Chooses where the codewords start.
    threads : int
        The result does not depend on it.
    on_iteration : callable, optional
        Called as ``on_iteration(number, mean_loss)`` after each assignment. Within a stage the
        loss never rises.
    joint : bool
        Whether updates end at the joint optimum of all blocks, at up to twice the work.

    Returns
    -------
    float32 array of shape (d, codewords)

    Notes
    -----
    Definition 4.3 and section 7.5 of Guo et al. 2020. Unless `joint`, the update solves each block
    exactly, given the others, once: the loss falls as surely, and ends as low.
    """
    codebook = _start(tiles.targets, dimensions_per_block, codewords, rng, threads)
    plain = Tiles(tiles.targets, None, None, tiles.scales)
    stages = [plain] if tiles.directions is None else [plain, tiles]
    number = 0
    for stage in stages:
        before, codes = np.inf, None
        for _ in range(iterations):
            codes, losses = kernels.encode_tiles(
                stage,
                codebook,
                dimensions_per_block,
                _TRAINING_SWEEPS,
                threads,
                codes if stage.directions is not None else None,
            )
            loss = _mean(losses, tiles.scales)
            if on_iteration is not None:
                on_iteration(number, loss)
            number += 1
            kernels.update_codebook(stage, codes, dimensions_per_block, codebook, threads, joint)
            if before - loss < _CONVERGED * before:
                break
            before = loss
    return codebook


def _mean(losses: F32, scales: F32 | None) -> float:
    """Return the mean loss of datapoints that may count differently."""
    if scales is None:
        return float(losses.mean(dtype=np.float64))
    return float(np.average(losses.astype(np.float64), weights=scales))


def _start(targets: F32, width: int, codewords: int, rng: np.random.Generator, threads: int) -> F32:
    """k-means++ in all blocks at once, on a part of the tiles."""
    chosen = targets[np.sort(rng.permutation(len(targets))[:_SEED_TILES])]
    blocks = kernels.num_blocks(targets.shape[1], width)
    first = rng.integers(len(chosen) * LANES, size=blocks).astype(np.uint32)
    draws = rng.random((codewords - 1, blocks))
    return kernels.start_codebook(chosen, width, first, draws, threads)

"""Any kernel of any level by name, in one process: what the kernel tests call.

Each function has the arguments and results of its twin in `swann.kernels.reference`, after the
name of a level. Arguments are left as they are; results are new arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import _native
from swann.kernels import LANES, num_blocks

__all__ = ["KERNELS", "call_kernel", "force_scan"]

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]


def call_kernel(name: str, level: str, *arguments: Any) -> Any:
    """Call a kernel as a level computes it.

    Parameters
    ----------
    name : str
        Of the kernel, one of `KERNELS`.
    level : str
        One of `swann.kernels.kernel_levels`.
    arguments
        Those of the function of that name in `swann.kernels.reference`.

    Returns
    -------
    object
        What that function returns, in float32 where it has float64.

    Raises
    ------
    KeyError
        If there is no such kernel.
    ValueError
        If the machine cannot run the level, or shapes do not fit.
    """
    return KERNELS[name](level, *arguments)


def force_scan(way: str) -> None:
    """Scan leaves in batches one way, wherever it can go.

    Parameters
    ----------
    way : str
        ``"tables"``, ``"unpacked"``, or ``"faster"``: as usual, whichever takes less time.

    Raises
    ------
    ValueError
        If `way` is none of these.
    """
    _native.force_scan(way)


def _pairs(call: Callable[..., None]) -> Callable[..., F32]:
    def kernel(level: str, queries: F32, rows: NDArray[Any]) -> F32:
        out = np.empty((len(queries), len(rows)), np.float32)
        call(level, queries, rows, out)
        return out

    return kernel


def _gather(call: Callable[..., None]) -> Callable[..., F32]:
    def kernel(level: str, query: F32, rows: NDArray[Any], ids: U32) -> F32:
        out = np.empty(len(ids), np.float32)
        call(level, query, rows, ids, out)
        return out

    return kernel


def _of(call: Callable[..., None], squared_l2: bool) -> Callable[..., None]:
    """Fix the distance of a call that serves two."""
    return lambda level, *arguments: call(level, squared_l2, *arguments)


def _lut(
    level: str, query: F32, codebook: F32, dimensions_per_block: int, squared_l2: bool
) -> tuple[F32, F32, F32]:
    blocks = num_blocks(len(query), dimensions_per_block)
    lut = np.empty((blocks, codebook.shape[1]), np.float32)
    lows, highs = np.empty(blocks, np.float32), np.empty(blocks, np.float32)
    _native.kernel_lut_f32(
        level, query, codebook, dimensions_per_block, squared_l2, lut, lows, highs
    )
    return lut, lows, highs


def _lut_quantize(level: str, lut: F32, lows: F32, scale: float) -> U8:
    out = np.empty(lut.shape, np.uint8)
    _native.kernel_lut_quantize_u8(level, lut, lows, scale, out)
    return out


def _scan(
    level: str,
    codes: U8,
    corrections: U16 | None,
    count: int,
    first_row: int,
    first_group: int,
    luts: U8,
    thresholds: Sequence[int],
    biases: Sequence[int],
    multipliers: Sequence[int],
    found: Sequence[U64],
    capacity: int,
) -> tuple[int, list[U64]]:
    keys = np.zeros((len(luts), capacity), np.uint64)
    sizes = np.array([len(known) for known in found], np.uint64)
    for place, known in zip(keys, found, strict=True):
        place[: len(known)] = known
    stopped = _native.kernel_scan(
        level,
        codes,
        corrections,
        count,
        first_row,
        first_group,
        luts,
        list(thresholds),
        list(biases),
        list(multipliers),
        keys,
        sizes,
    )
    return stopped, [place[:size] for place, size in zip(keys, sizes.tolist(), strict=True)]


def _tiled(level: str, rows: F32, tiles: F32) -> F32:
    out = np.empty((len(rows), len(tiles) * LANES), np.float32)
    _native.kernel_dot_tiles_f32(level, rows, tiles, out)
    return out


def _argmax(level: str, scores: F32, bias: F32) -> tuple[int, float]:
    return _native.kernel_argmax_f32(level, scores, bias)


def _at_least(level: str, scores: F32, threshold: float) -> U32:
    out = np.empty(len(scores), np.uint32)
    return out[: _native.kernel_at_least_f32(level, scores, threshold, out)]


def _encode_tile(
    level: str,
    target: F32,
    direction: F32 | None,
    weight: F32,
    codebook: F32,
    dimensions_per_block: int,
    sweeps: int,
    codes: U8 | None = None,
) -> tuple[U8, F32]:
    blocks = num_blocks(len(target), dimensions_per_block)
    chosen = np.empty((blocks, LANES), np.uint8) if codes is None else codes.copy()
    loss = np.empty(LANES, np.float32)
    _native.kernel_encode_tile(
        level,
        target,
        direction,
        weight,
        codebook,
        dimensions_per_block,
        sweeps,
        codes is not None,
        chosen,
        loss,
    )
    return chosen, loss


def _encode_one(
    level: str,
    target: F32,
    direction: F32 | None,
    weight: float,
    codebook: F32,
    dimensions_per_block: int,
    sweeps: int,
) -> tuple[U8, float]:
    codes = np.empty(num_blocks(len(target), dimensions_per_block), np.uint8)
    loss = _native.kernel_encode_one(
        level, target, direction, weight, codebook, dimensions_per_block, sweeps, codes
    )
    return codes, loss


def _keep_best(level: str, keys: U64, limit: int, most: int | None = None) -> tuple[U64, int]:
    kept = keys.copy()
    size, least = _native.kernel_keep_best(level, kept, limit, most or limit)
    return kept[:size], least


def _keys_from(level: str, scores: F32, reach: F32 | None, length: float) -> U64:
    keys = np.empty(len(scores), np.uint64)
    _native.kernel_keys_from_f32(level, scores, reach, length, keys)
    return keys


KERNELS: dict[str, Callable[..., Any]] = {
    "dot_f32": _pairs(_of(_native.kernel_pairs_f32, False)),
    "squared_l2_f32": _pairs(_of(_native.kernel_pairs_f32, True)),
    "dot_bf16": _pairs(_of(_native.kernel_pairs_bf16, False)),
    "squared_l2_bf16": _pairs(_of(_native.kernel_pairs_bf16, True)),
    "dot_i8": _pairs(_native.kernel_pairs_i8),
    "dot_gather_f32": _gather(_of(_native.kernel_gather_f32, False)),
    "squared_l2_gather_f32": _gather(_of(_native.kernel_gather_f32, True)),
    "dot_gather_bf16": _gather(_of(_native.kernel_gather_bf16, False)),
    "squared_l2_gather_bf16": _gather(_of(_native.kernel_gather_bf16, True)),
    "dot_gather_i8": _gather(_native.kernel_gather_i8),
    "lut_f32": _lut,
    "lut_quantize_u8": _lut_quantize,
    "lut16_scan": _scan,
    "lut256_scan": _scan,  # the tables say which of the two
    "dot_tiles_f32": _tiled,
    "argmax_f32": _argmax,
    "at_least_f32": _at_least,
    "encode_tile": _encode_tile,
    "encode_one": _encode_one,
    "keep_best": _keep_best,
    "keys_from_f32": _keys_from,
    "least_of_best_f32": _native.kernel_least_of_best_f32,
}
"""The kernels of ``native/kernels.h`` by name."""

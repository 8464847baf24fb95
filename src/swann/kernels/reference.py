"""A NumPy twin of every kernel of ``native/kernels.h``: short, slow, in float64.

The tests compare every instruction-set level with these (`swann.kernels.testing` calls a level by
name): integer kernels must agree exactly, float ones within the error bound of float32 sums.
Nothing else uses this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.kernels import GROUP, LANES

__all__ = [
    "ADDED",
    "MAX_ENTRY",
    "argmax_f32",
    "at_least_f32",
    "decode_key",
    "dot_bf16",
    "dot_f32",
    "dot_gather_bf16",
    "dot_gather_f32",
    "dot_gather_i8",
    "dot_i8",
    "dot_tiles_f32",
    "encode_one",
    "encode_tile",
    "from_bf16",
    "keep_best",
    "keys_from_f32",
    "least_of_best_f32",
    "lut16_scan",
    "lut256_scan",
    "lut_f32",
    "lut_quantize_u8",
    "make_key",
    "squared_l2_bf16",
    "squared_l2_f32",
    "squared_l2_gather_bf16",
    "squared_l2_gather_f32",
    "unpack_codes",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

MAX_ENTRY = 255
"""Of a quantized lookup table."""

ADDED = (1, 2, 4)
"""Scans of 16 entries a block add three in 8 bits: of blocks m, m + s, m + 2 s, s one of these."""


def dot_f32(queries: F32, rows: F32) -> F64:
    """Return the inner products of all queries and rows, shape (queries, rows)."""
    return queries.astype(np.float64) @ rows.astype(np.float64).T


def squared_l2_f32(queries: F32, rows: F32) -> F64:
    """Return the squared distances of all queries and rows, shape (queries, rows)."""
    difference = queries[:, None].astype(np.float64) - rows.astype(np.float64)
    return np.asarray((difference**2).sum(axis=2))


def from_bf16(bits: U16) -> F32:
    """Return the float32 numbers whose upper halves are `bits`."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def dot_bf16(queries: F32, rows: U16) -> F64:
    """Return `dot_f32` of rows in bfloat16."""
    return dot_f32(queries, from_bf16(rows))


def squared_l2_bf16(queries: F32, rows: U16) -> F64:
    """Return `squared_l2_f32` of rows in bfloat16."""
    return squared_l2_f32(queries, from_bf16(rows))


def dot_i8(queries: F32, rows: NDArray[np.int8]) -> F64:
    """Return `dot_f32` of rows in int8, read as numbers."""
    return dot_f32(queries, rows.astype(np.float32))


def dot_tiles_f32(rows: F32, tiles: F32) -> F64:
    """Return `dot_f32` of vectors in tiles, shape (tiles, d, 16)."""
    return dot_f32(rows, tiles.transpose(0, 2, 1).reshape(-1, rows.shape[1]))


def dot_gather_bf16(query: F32, rows: U16, ids: U32) -> F64:
    """Return the inner products of one query and the bfloat16 rows that `ids` names."""
    return np.ravel(dot_bf16(query[None], rows[ids]))


def squared_l2_gather_bf16(query: F32, rows: U16, ids: U32) -> F64:
    """Return the squared distances of one query and the bfloat16 rows that `ids` names."""
    return np.ravel(squared_l2_bf16(query[None], rows[ids]))


def dot_gather_i8(query: F32, rows: NDArray[np.int8], ids: U32) -> F64:
    """Return the inner products of one query and the int8 rows that `ids` names."""
    return np.ravel(dot_i8(query[None], rows[ids]))


def dot_gather_f32(query: F32, rows: F32, ids: U32) -> F64:
    """Return the inner products of one query and the rows that `ids` names."""
    return np.ravel(dot_f32(query[None], rows[ids]))


def squared_l2_gather_f32(query: F32, rows: F32, ids: U32) -> F64:
    """Return the squared distances of one query and the rows that `ids` names."""
    return np.ravel(squared_l2_f32(query[None], rows[ids]))


def lut_f32(
    query: F32, codebook: F32, dimensions_per_block: int, squared_l2: bool
) -> tuple[F64, F64, F64]:
    """Return a query's lookup tables, shape (blocks, codewords), and their least, greatest entries.

    An entry is what its codeword w adds to the score: ``<q, w>``, or ``<2 q - w, w>``.
    """
    q, words = query.astype(np.float64)[:, None], codebook.astype(np.float64)
    terms = (2 * q - words) * words if squared_l2 else q * words
    lut = np.add.reduceat(terms, np.arange(0, len(query), dimensions_per_block))
    return lut, lut.min(axis=1), lut.max(axis=1)


def lut_quantize_u8(lut: F32, lows: F32, scale: float) -> U8:
    """Return lookup tables as whole multiples of 1 / scale above each block's least entry.

    No entry is over `MAX_ENTRY`.
    """
    above = (lut - lows[:, None]).astype(np.float64)  # the difference is rounded to float32
    return np.minimum(np.floor(above * np.float32(scale) + 0.5), MAX_ENTRY).astype(np.uint8)


def make_key(score: int, row: int) -> int:
    """Return a candidate as one number, greater is better; ties go to the lowest row."""
    return (score + 2**31) << 32 | (0xFFFFFFFF - row)


def decode_key(key: int) -> tuple[int, int]:
    """Return the score and the row of a candidate."""
    return (int(key) >> 32) - 2**31, 0xFFFFFFFF - (int(key) & 0xFFFFFFFF)


def unpack_codes(codes: U8) -> U8:
    """Return packed codes, shape (groups, blocks, 16 or 32), as (groups, 32, blocks)."""
    if codes.shape[2] == GROUP:  # of 8 bits
        return codes.transpose(0, 2, 1)
    return np.concatenate([codes & 15, codes >> 4], axis=2).transpose(0, 2, 1)


def lut16_scan(
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
    """Scan the groups of a leaf; add the datapoints that reach a query's threshold to its keys.

    Parameters
    ----------
    codes : uint8 array of shape (groups, blocks, 16 or 32)
        The packed codes, of 4 or 8 bits, of the leaf's `count` datapoints; `first_row` is the
        first of them.
    corrections : uint16 array of shape (groups * 32,), or None
        A correction c adds ``c * multiplier >> 16`` to the sum.
    first_group : int
        Where to begin.
    luts : uint8 array of shape (queries, blocks, 16 or 256)
        Each query's tables. No sum is over 65535; nor, of 16 entries a block, one of three that may
        be added in 8 bits (`ADDED`) over `MAX_ENTRY`.
    thresholds, biases, multipliers : sequences of int
        Of each query. A datapoint of a sum at or above the threshold scores sum + bias.
    found : sequence of uint64 arrays
        Each query's keys so far.
    capacity : int
        The scan stops before a group when a query has fewer than 32 of so many places left.

    Returns
    -------
    tuple of (int, list of uint64 arrays)
        The group it stopped before, and each query's keys.
    """
    keys = [list(known) for known in found]
    unpacked = unpack_codes(codes)
    for group in range(first_group, len(codes)):
        if any(capacity - len(known) < GROUP for known in keys):
            return group, [np.array(known, np.uint64) for known in keys]
        present = min(GROUP, count - group * GROUP)
        for q, lut in enumerate(luts):
            sums = lut[np.arange(lut.shape[0]), unpacked[group]].sum(axis=1, dtype=np.int64)
            if corrections is not None:
                part = corrections[group * GROUP : (group + 1) * GROUP].astype(np.int64)
                sums += part * multipliers[q] >> 16
            keys[q] += [
                make_key(int(sums[i]) + biases[q], first_row + group * GROUP + i)
                for i in np.flatnonzero(sums[:present] >= thresholds[q]).tolist()
            ]
    return len(codes), [np.array(known, np.uint64) for known in keys]


lut256_scan = lut16_scan  # the shapes of codes and tables say how wide they are


def argmax_f32(scores: F32, bias: F32) -> tuple[int, float]:
    """Return the position and the value of the greatest scores + bias; of ties, the first."""
    sums = scores + bias
    return int(sums.argmax()), float(sums.max())


def at_least_f32(scores: F32, threshold: float) -> U32:
    """Return the positions of the scores at or above the threshold, ascending."""
    return np.flatnonzero(scores >= np.float32(threshold)).astype(np.uint32)


def encode_tile(
    target: F32,
    direction: F32 | None,
    weight: F32,
    codebook: F32,
    dimensions_per_block: int,
    sweeps: int,
    codes: U8 | None = None,
) -> tuple[U8, F64]:
    """Choose the codes of 16 datapoints, under plain l2 or the anisotropic loss.

    All that ties the blocks together is the error p along the direction. If each paid a price
    for its part of p, in place of ``weight p^2`` for all of it, they would be apart; ``2 weight p``
    is the price that leads to the best codes, nearly. Of three prices the one is taken whose codes
    lose least: none, what it would be if codewords lay everywhere, and what it is if p goes on to
    fall as it did by that. From there each block chooses in turn, given the others.

    Parameters
    ----------
    target, direction : float32 arrays of shape (d, 16)
        What is encoded, and each datapoint's direction; None: plain l2.
    weight : float32 array of shape (16,)
        ``eta - 1`` of each.
    codebook : float32 array of shape (d, 16 or 256)
        Column k holds codeword k of every block.
    sweeps : int
        Passes of coordinate descent over the blocks at most.
    codes : uint8 array of shape (blocks, 16), optional
        Where the descent starts; what prices choose unless given.

    Returns
    -------
    tuple of (uint8 array of shape (blocks, 16), float64 array of shape (16,))
        Codes, and the losses ``|e|^2 + weight <e, direction>^2`` that they reach.
    """
    starts = np.arange(0, len(target), dimensions_per_block)
    blocks, lanes = np.arange(len(starts))[:, None], np.arange(LANES)
    errors = target.astype(np.float64)[:, None] - codebook[:, :, None]  # (d, codeword, datapoint)
    squares = np.add.reduceat(errors**2, starts)  # (block, codeword, datapoint)
    chosen: NDArray[Any] = squares.argmin(axis=1) if codes is None else codes.astype(np.int64)
    if direction is None:
        return chosen.astype(np.uint8), squares[blocks, chosen, lanes].sum(axis=0)
    along = np.add.reduceat(errors * direction[:, None], starts)

    def at_price(price: NDArray[Any]) -> NDArray[Any]:
        return np.asarray((squares + price * along).astype(np.float32).argmin(axis=1))

    def left() -> tuple[NDArray[Any], NDArray[Any]]:
        error = along[blocks, chosen, lanes].sum(axis=0)
        loss = squares[blocks, chosen, lanes].sum(axis=0) + weight * error**2
        return np.asarray(error, np.float32), np.asarray(loss, np.float32)

    if codes is None and sweeps > 0:
        one, heavy = np.float32(1), np.maximum(weight, 0)
        nearest, least = left()
        best = np.zeros_like(nearest)
        price = np.float32(2) * nearest * (heavy / (one + heavy))
        for turn in range(2):
            chosen = at_price(price)
            then, loss = left()
            best, least = np.where(loss < least, price, best), np.minimum(loss, least)
            if turn == 0:
                share = np.divide(then, nearest, out=np.zeros_like(then), where=nearest != 0)
                fall = one / (one + heavy) + (one - share)
                price = price / np.maximum(fall, one / np.float32(3))
        chosen = at_price(best)
    for _ in range(sweeps):
        before = chosen.copy()
        for m in range(len(starts)):
            others = np.delete(along[blocks, chosen, lanes], m, axis=0).sum(axis=0)
            losses = squares[m] + weight * (others + along[m]) ** 2
            best = losses.argmin(axis=0)
            better = losses[best, lanes] < losses[chosen[m], lanes]
            chosen[m] = np.where(better, best, chosen[m])
        if (chosen == before).all():
            break
    error = along[blocks, chosen, lanes].sum(axis=0)
    loss = squares[blocks, chosen, lanes].sum(axis=0) + weight * error**2
    return chosen.astype(np.uint8), loss


def encode_one(
    target: F32,
    direction: F32 | None,
    weight: float,
    codebook: F32,
    dimensions_per_block: int,
    sweeps: int,
) -> tuple[U8, float]:
    """Do what `encode_tile` does for one datapoint; `target` and `direction` have shape (d,)."""
    tile = np.repeat(target[:, None], LANES, axis=1)
    along = None if direction is None else np.repeat(direction[:, None], LANES, axis=1)
    weights = np.full(LANES, weight, np.float32)
    codes, losses = encode_tile(tile, along, weights, codebook, dimensions_per_block, sweeps)
    return codes[:, 0].copy(), float(losses[0])


def keep_best(keys: U64, limit: int) -> U64:
    """Return, in their order, the keys that score at least as high as the limit-th best."""
    if len(keys) <= limit:
        return keys
    scores = keys >> np.uint64(32)
    return np.compress(scores >= np.sort(scores)[-limit], keys)


def keys_from_f32(scores: F32, reach: F32 | None, length: float) -> U64:
    """Return the keys of ``scores + length * reach``, whose order is that of the floats."""
    values = scores if reach is None else scores + np.float32(length) * reach
    bits = (values + np.float32(0)).view(np.int32)
    in_order = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return np.array([make_key(int(score), i) for i, score in enumerate(in_order)], np.uint64)


def least_of_best_f32(scores: F32, limit: int) -> float:
    """Return the limit-th best score: kernels may return a lower one that few more reach."""
    return float(np.sort(scores)[-limit]) if limit <= len(scores) else -np.inf

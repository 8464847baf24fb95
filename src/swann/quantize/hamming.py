"""Binary codes in packed bytes, and the search of them: by Hamming distance, or by any weights.

A code of b bits takes b / 8 bytes: bit j is bit ``j % 8`` of byte ``j // 8``, the lowest first.
Where arithmetic is done, a bit is a sign, -1 or 1. Two codes that agree in all but h of b places
then have the dot product b - 2 h, so that Hamming distances of many queries are one matrix product,
exact in float32 (whole numbers below 2^24). That is as fast as counting bits, which NumPy before 2
cannot do, and asymmetric scores (`product_search`) take the same way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swann.config.checks import check_count
from swann.errors import DTypeError, ShapeError
from swann.vectors import as_integers

__all__ = [
    "as_binary_codes",
    "as_signs",
    "hamming_distances",
    "hamming_search",
    "pack",
    "product_search",
    "signs",
]

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

_QUERIES_AT_ONCE = 256
_FIRST_ROWS = 1024
_MOST_ROWS = 8192


def pack(positive: NDArray[np.bool_]) -> U8:
    """Pack truth values of shape (n, bits) into bytes of shape (n, bits / 8), lowest bit first.

    Examples
    --------
    >>> pack(np.array([[True, False, True, False, False, False, False, True]]))
    array([[133]], dtype=uint8)
    """
    return np.packbits(positive, axis=1, bitorder="little")


def as_signs(positive: NDArray[np.bool_]) -> F32:
    """Turn truth values into -1 and 1."""
    made = positive.astype(np.float32)
    made *= 2.0
    made -= 1.0
    return made


def signs(codes: U8) -> F32:
    """Unpack codes of shape (n, bits / 8) into -1 and 1, of shape (n, bits).

    Examples
    --------
    >>> signs(np.array([[133]], np.uint8))
    array([[ 1., -1.,  1., -1., -1., -1., -1.,  1.]], dtype=float32)
    """
    return as_signs(np.unpackbits(codes, axis=1, bitorder="little").view(np.bool_))


def as_binary_codes(codes: object, name: str, width: int | None = None) -> U8:
    """Return packed codes as a uint8 array of shape (n, width).

    Raises
    ------
    DTypeError, ShapeError
        Not bytes; not two axes, no bytes, or another width.
    """
    array = as_integers(codes, name)
    if array.dtype != np.uint8:
        raise DTypeError(f"{name} has dtype {array.dtype}; expected uint8, as packed by encode")
    if array.ndim != 2 or not array.shape[1] or width not in (None, array.shape[1]):
        wanted = "bits / 8" if width is None else width
        raise ShapeError(f"{name} has shape {array.shape}; expected (n, {wanted})")
    return array


def hamming_distances(left: object, right: object) -> I32:
    """Return in how many bits codes differ.

    Parameters
    ----------
    left, right : uint8 array of shape (m, bits / 8) and (n, bits / 8)
        Packed codes.

    Returns
    -------
    int32 array of shape (m, n)

    Raises
    ------
    DTypeError, ShapeError
        Not packed codes of the same length.

    Examples
    --------
    >>> hamming_distances(np.array([[0b1011]], np.uint8), np.array([[0b1000], [0]], np.uint8))
    array([[2, 3]], dtype=int32)
    """
    a = as_binary_codes(left, "left")
    b = as_binary_codes(right, "right", a.shape[1])
    found = np.empty((len(a), len(b)), np.int32)
    these = signs(a)
    for start in range(0, len(b), _MOST_ROWS):
        agreement = these @ signs(b[start : start + _MOST_ROWS]).T
        found[:, start : start + _MOST_ROWS] = (8 * a.shape[1] - agreement) / 2
    return found


def hamming_search(query_codes: object, codes: object, k: int) -> tuple[I64, I32]:
    """Find the k codes that differ from each query's code in the fewest bits.

    Parameters
    ----------
    query_codes, codes : uint8 array of shape (m, bits / 8) and (n, bits / 8)
        Packed codes.
    k : int
        How many to find; of fewer codes, all.

    Returns
    -------
    tuple of (int64 array of shape (m, min(k, n)), int32 array of the same shape)
        Rows, the nearest first and of equal distances the lowest row first; and their distances.

    Raises
    ------
    DTypeError, ShapeError, ConfigError
        Not packed codes of the same length; `k` below 1.

    Notes
    -----
    ``m n bits`` multiplications in a matrix product, and memory for 256 queries by 8,192 codes.

    Examples
    --------
    >>> codes = np.array([[0b1000], [0b0011], [0b1011]], np.uint8)
    >>> hamming_search(np.array([[0b1011]], np.uint8), codes, 2)
    (array([[2, 1]]), array([[0, 1]], dtype=int32))
    """
    asked = as_binary_codes(query_codes, "query_codes")
    stored = as_binary_codes(codes, "codes", asked.shape[1])
    rows, agreement = product_search(signs(asked), stored, k)
    return rows, ((8 * asked.shape[1] - agreement) / 2).astype(np.int32)


def product_search(weights: F32, codes: U8, k: int) -> tuple[I64, F32]:
    """Find the k codes whose signs have the greatest dot products with each row of weights.

    Parameters
    ----------
    weights : float32 array of shape (m, bits)
        What each bit counts for, for each query.
    codes : uint8 array of shape (n, bits / 8)
        Packed codes.
    k : int
        How many to find; of fewer codes, all.

    Returns
    -------
    tuple of (int64 array of shape (m, min(k, n)), float32 array of the same shape)
        Rows, the greatest product first and of equal products the lowest row first; and the
        products.
    """
    wanted = min(check_count("k", k), len(codes))
    parts = [
        _best(weights[start : start + _QUERIES_AT_ONCE], codes, wanted)
        for start in range(0, len(weights), _QUERIES_AT_ONCE)
    ]
    if not parts:
        return np.empty((0, wanted), np.int64), np.empty((0, wanted), np.float32)
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([best for _, best in parts])


def _best(weights: F32, codes: U8, k: int) -> tuple[I64, F32]:
    """Walk through the codes, keeping the best k of each query; later rows lose ties."""
    queries = len(weights)
    kept_rows = np.empty((queries, 0), np.int64)
    kept = np.empty((queries, 0), np.float32)
    start, count = 0, max(_FIRST_ROWS, min(4 * k, _MOST_ROWS))
    while start < len(codes):
        products = weights @ signs(codes[start : start + count]).T
        full = kept.shape[1] == k
        better = products > kept[:, -1:] if full and k else np.ones(products.shape, np.bool_)
        query, column = np.nonzero(better)
        if len(query):
            kept_rows, kept = _merge(
                kept_rows, kept, query, column + start, products[query, column], k
            )
        start += count
        count = min(2 * count, _MOST_ROWS)  # few of the later rows are better: look at more
    return kept_rows, kept


def _merge(
    kept_rows: I64, kept: F32, query: I64, rows: I64, products: F32, k: int
) -> tuple[I64, F32]:
    """Sort what was kept and what came, and keep the first k of each query."""
    queries, before = kept.shape
    query = np.concatenate([np.repeat(np.arange(queries), before), query])
    rows = np.concatenate([kept_rows.ravel(), rows])
    products = np.concatenate([kept.ravel(), products])
    order = np.lexsort((rows, -products, query))
    sizes = np.bincount(query, minlength=queries)
    first = np.cumsum(sizes) - sizes
    # Every query has as many: those kept, and the same number of new ones where fewer than k were.
    take = order[first[:, None] + np.arange(min(k, int(sizes.min())))]
    return rows[take], products[take]

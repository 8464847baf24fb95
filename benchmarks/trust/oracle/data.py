"""Vectors of every kind, dtype and layout, drawn at random."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

KINDS = (
    "normal", "clusters", "lengths", "integers", "repeats", "constant", "one-hot", "identical",
    "uneven", "positive",
)  # fmt: skip
_SCALES = (1.0,) * 12 + (1e-3, 1e3, 2.0**-60, 1e-30, 1e-38, 1e-42, 2.0**40, 1e17, 9e17)
DTYPES = ("f4",) * 8 + ("f8", "f2", "i1", "u1", "i2", "i4", "u8", "i8", ">f4", ">f8", ">i2")
LAYOUTS = ("C",) * 6 + (
    "Fortran", "strided", "reversed", "unaligned", "offset", "read-only", "list",
)  # fmt: skip
_LONGEST = 9.9e17  # longer rows are refused


def vectors(rng: Random, n: int, d: int, *, zeros: bool) -> tuple[Any, F32, str]:
    """Return vectors as somebody may give them, their values in float32, and what they are.

    Parameters
    ----------
    rng : Random
        Draws everything.
    n, d : int
        How many, of how many dimensions.
    zeros : bool
        Whether there may be vectors of zeros.
    """
    kind, scale = rng.choice(KINDS), rng.choice(_SCALES)
    dtype, layout = np.dtype(rng.choice(DTYPES)), rng.choice(LAYOUTS)
    values = _values(kind, np.random.default_rng(rng.getrandbits(32)), n, d)
    if zeros and n and rng.random() < 0.2:
        values[rng.randrange(n)] = 0
    given = _in_range(values, scale, dtype).astype(dtype)
    if not zeros:
        given[~given.astype(np.float32).any(axis=1), 0] = 1
    exact = given.astype(np.float32)
    return lay_out(given, layout), exact, f"{kind} x {scale:g}, {dtype}, {layout}"


def _in_range(values: NDArray[np.float64], scale: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Scale values, as far as the dtype and the longest vectors allow."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        low, high = max(info.min, -(2**53)), min(info.max, 2**53)
        return np.clip(
            np.rint(values * (10 if np.abs(values).max(initial=0) < 5 else 1)), low, high
        )
    longest = np.linalg.norm(values, axis=1).max(initial=0)
    limit = _LONGEST if dtype.itemsize > 2 else 6e4
    if longest * scale > limit:
        scale = limit / longest
    return values * scale


def _values(kind: str, rng: np.random.Generator, n: int, d: int) -> NDArray[np.float64]:
    normal = rng.standard_normal((n, d))
    if kind == "clusters":
        return 3 * rng.standard_normal((6, d))[rng.integers(6, size=n)] + normal
    if kind == "lengths":
        return normal * rng.lognormal(0, 1.5, (n, 1))
    if kind == "integers":
        return rng.integers(-2, 3, (n, d)).astype(np.float64)
    if kind == "repeats":
        return rng.standard_normal((5, d))[rng.integers(5, size=n)]
    if kind == "constant":
        return np.repeat(np.rint(3 * normal[:, :1]) + 0.5, d, axis=1)
    if kind == "one-hot":
        hot: NDArray[np.float64] = np.eye(d)[rng.integers(d, size=n)] * (
            1 + rng.integers(3, size=(n, 1))
        )
        return hot
    if kind == "identical":
        return np.repeat(rng.standard_normal((1, d)), n, axis=0)
    if kind == "uneven":
        return normal * 10.0 ** rng.uniform(-6, 6, d)
    return np.abs(normal) + 1 if kind == "positive" else normal


def lay_out(array: NDArray[Any], layout: str) -> Any:
    """Return the same numbers in memory that is laid out otherwise."""
    n, d = array.shape
    if layout == "Fortran":
        return np.asfortranarray(array)
    if layout == "reversed":
        return array[::-1, ::-1].copy()[::-1, ::-1]
    if layout == "list":
        return array.astype(array.dtype.newbyteorder("=")).tolist() if n else array
    out = array.copy()
    if layout == "strided":
        out = np.zeros((2 * n, 3 * d), array.dtype)[::2, ::3]
    elif layout == "unaligned":
        raw = np.zeros(array.nbytes + 1, np.uint8)
        out = raw[1:].view(array.dtype).reshape(n, d)
    elif layout == "offset":
        out = np.zeros((n, d + 2), array.dtype)[:, 2:]
    out[:] = array
    out.setflags(write=layout != "read-only")
    return out

"""What counts as vectors, and how they become float32.

A database stays what it is (a memory map of float16, a Fortran-ordered float64 array, ...) and is
converted chunk by chunk where it is used, so building never holds a second copy of it.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from swann.errors import (
    DTypeError,
    InvalidInputError,
    NonFiniteError,
    ShapeError,
    ZeroVectorError,
)
from swann.tensors import is_bfloat16, to_numpy

__all__ = [
    "Originals",
    "PageReleaser",
    "aligned",
    "as_array",
    "as_database",
    "as_integers",
    "as_numbers",
    "as_queries",
    "bad_query",
    "check_finite",
    "chunks",
    "slice_rows",
    "take",
]

_REAL_KINDS = "fiu"
_EXPECTED_DTYPE = "expected real numbers (float16, float32, float64 or integers)"


def as_database(db: object, name: str = "db", *, allow_empty: bool = False) -> NDArray[Any]:
    """Check that `db` is a matrix of real numbers, and return it as an ndarray.

    Parameters
    ----------
    db : array_like of shape (n, d)
        An ndarray or memory map of float16, float32, float64 or integers in any byte order and
        memory layout; or a tensor of another library (see `swann.tensors`); or anything with
        ``__array__`` or the buffer protocol; or nested sequences of numbers.
    name : str
        What to call it in an error.
    allow_empty : bool
        Whether there may be no rows; there must be columns.

    Returns
    -------
    ndarray of shape (n, d)
        The same memory, in the same dtype, where `db` already is an array: nothing is converted
        or copied. Values are not looked at; see `check_finite`.

    Raises
    ------
    ShapeError
        Not two-dimensional, no rows, or no columns.
    DTypeError
        Ragged, object, complex, string, bool.
    """
    array = as_array(db, name)
    if array.size == 0 and not (allow_empty and array.ndim == 2 and array.shape[1]):
        raise ShapeError(
            f"{name} is empty (shape {array.shape}); expected shape (datapoints, dimensions) "
            "with at least one of each"
        )
    if array.ndim != 2:
        raise ShapeError(
            f"{name} has {array.ndim} axes (shape {array.shape}); expected 2 axes: "
            "(datapoints, dimensions)"
        )
    return array


def as_queries(
    queries: object,
    dimension: int,
    rank: int = 2,
    name: str | None = None,
    *,
    finite: bool = True,
) -> NDArray[np.float32]:
    """Return queries as a C-contiguous, aligned float32 array of native byte order.

    Parameters
    ----------
    queries : array_like
        Shape (dimension,) for rank 1, (n, dimension) for rank 2; n may be 0.
    dimension : int
        What the index expects.
    rank : {1, 2}
        One query, or many.
    name : str, optional
        What to call it in an error; "query" or "queries" by default.
    finite : bool
        Whether to look at the values; False where a native search does.

    Returns
    -------
    float32 array
        `queries` itself where nothing needs converting.

    Raises
    ------
    ShapeError, DTypeError, NonFiniteError
        As their names say.
    """
    name = name or ("query" if rank == 1 else "queries")
    array = as_array(queries, name)
    if rank == 2 and array.shape == (0,):
        array = array.reshape(0, dimension)  # an empty list of queries
    if array.ndim != rank:
        hint = "search_batched takes many" if rank == 1 else "search takes a single query"
        expected = f"({dimension},)" if rank == 1 else f"(n, {dimension})"
        raise ShapeError(f"{name} has shape {array.shape}; expected {expected} ({hint})")
    if array.shape[-1] != dimension:
        verb = "has" if rank == 1 else "have"
        raise ShapeError(
            f"{name} {verb} {array.shape[-1]} dimensions, but this index expects {dimension}"
        )
    result = _as_float32(array)
    if not finite:
        return result
    # One pass with no temporary settles the usual case: a finite sum of squares has finite terms.
    if rank == 1 and math.isfinite(np.vdot(result, result)):
        return result
    check_finite(result, name, source=array)
    return result


def aligned(shape: tuple[int, ...], dtype: Any, *, zeros: bool = False) -> NDArray[Any]:
    """Return a new array that begins on a cache line, which what is scanned should.

    NumPy's own begin 16 bytes after one where they are large, so that every second load of 32 bytes
    touches two lines.
    """
    line = 64
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = (np.zeros if zeros else np.empty)(size + line, np.uint8)
    begin = -memory.ctypes.data % line
    array: NDArray[Any] = memory[begin : begin + size].view(dtype).reshape(shape)
    return array


def as_numbers(given: object, name: str) -> NDArray[np.float64]:
    """Return finite real numbers, of any shape, as float64.

    Parameters
    ----------
    given : array_like
        Any that `as_array` takes.
    name : str
        What to call them in an error.

    Raises
    ------
    DTypeError, NonFiniteError
        As their names say.
    """
    values = np.asarray(as_array(given, name), np.float64)
    if not np.isfinite(values).all():
        raise NonFiniteError(f"{name} has values that are not finite; expected finite numbers")
    return values


def as_integers(given: object, name: str) -> NDArray[Any]:
    """Return integers, of any shape, in the dtype they have.

    Parameters
    ----------
    given : array_like
        The integers; where there are none, of any dtype in a list.
    name : str
        What to call them in an error.

    Raises
    ------
    DTypeError
        If they are no integers, ragged, or masked.
    """
    if _is_masked(given):
        raise DTypeError(f"{name} is a masked array, whose mask would be lost; expected integers")
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise DTypeError(f"{name} is ragged; expected integers") from error
    if array.size == 0 and isinstance(given, (list, tuple)):
        array = array.astype(np.int64)  # NumPy takes what is empty for floats
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{name} has dtype {array.dtype}; expected integers")
    return array


def slice_rows(db: NDArray[Any], start: int, stop: int) -> NDArray[np.float32]:
    """Return rows as C-contiguous native float32: a view where `db` already is that."""
    return _as_float32(db[start:stop])


def take(db: NDArray[Any], ids: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Return the rows `ids` as a new C-contiguous native float32 array of shape (len(ids), d)."""
    return _as_float32(db[ids])


def chunks(db: NDArray[Any], rows: int = 65536) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Walk through a database: pairs of the first row's number and up to `rows` float32 rows."""
    for start in range(0, len(db), rows):
        yield start, slice_rows(db, start, start + rows)


class Originals(Protocol):
    """Values by their place, before they were converted: an array, say."""

    def __getitem__(self, place: Any, /) -> Any: ...


class PageReleaser:
    """Gives back the memory of a memory-mapped database once it was read.

    The pages stay in the system's cache while there is room, and are read again where they are
    asked for; but the process does not grow by the whole file. Does nothing for any other array,
    nor for a private copy-on-write map, whose changed pages would be lost.

    Parameters
    ----------
    db : ndarray
        Maybe a view of a `numpy.memmap`.
    """

    def __init__(self, db: NDArray[Any]) -> None:
        self._map: mmap.mmap | None = None
        base: Any = db
        while isinstance(base, np.ndarray):
            if isinstance(base, np.memmap) and base.mode == "c":
                return
            owner, base = base, base.base
        if isinstance(base, mmap.mmap) and isinstance(owner, np.memmap):
            self._map = base

    @property
    def mapped(self) -> bool:
        """Whether the database is a file whose pages can be given back."""
        return self._map is not None

    def release(self) -> None:
        """Give back what was read so far."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def check_finite(
    chunk: NDArray[np.float32], name: str, start: int = 0, source: Originals | None = None
) -> None:
    """Raise if a value is NaN or infinite.

    Parameters
    ----------
    chunk : float32 array of shape (n, d) or (d,)
        The converted values.
    name : str
        What to call them in an error.
    start : int
        The row number of ``chunk[0]`` in what the caller calls `name`.
    source : ndarray, optional
        The whole array that `chunk` was converted from, to tell an infinity in the data from a
        value that only overflows float32.

    Raises
    ------
    NonFiniteError
        Naming the first bad value and its place.
    """
    finite = np.isfinite(chunk)
    if finite.all():
        return
    place = [int(i) for i in np.unravel_index(int(finite.argmin()), chunk.shape)]
    value = chunk[tuple(place)]
    if chunk.ndim == 2:
        place[0] += start
    where = f"{name}[{', '.join(map(str, place))}]"
    original = value if source is None else source[tuple(place)]
    if np.isfinite(original):
        largest = float(np.finfo(np.float32).max)
        raise NonFiniteError(
            f"{where} is {original}, which overflows float32; expected at most {largest:.4g}"
        )
    unsure = " (or overflowed float32)" if source is None and np.isinf(value) else ""
    raise NonFiniteError(f"{where} is {value}{unsure}; expected finite numbers")


def bad_query(queries: NDArray[np.float32], name: str, place: int | None = None) -> Exception:
    """Return what to raise for a query that a native search refused.

    Parameters
    ----------
    queries : float32 array of shape (n, d), or (d,)
    name : str
        What to call them.
    place : int, optional
        Which of many.

    Returns
    -------
    ZeroVectorError or InvalidInputError
        It is all zeros; it is too long.

    Raises
    ------
    NonFiniteError
        If that is what is wrong.
    """
    check_finite(queries, name, source=queries)
    query = queries if place is None else queries[place]
    where = name if place is None else f"{name}[{place}]"
    if not query.any():
        return ZeroVectorError(
            f"{where} is all zeros; under 'cosine' every vector needs a direction"
        )
    longest = np.linalg.norm(query.astype(np.float64))
    return InvalidInputError(
        f"{where} has length {longest:.4g}; expected at most 1e+18, or float32 scores would "
        "overflow"
    )


def as_array(given: object, name: str) -> NDArray[Any]:
    """Return a plain ndarray of real numbers over the memory of `given`, where it has any."""
    array = given if type(given) is np.ndarray else _import_array(given, name)
    if array.dtype.kind not in _REAL_KINDS and not is_bfloat16(array.dtype):
        came = f"dtype {array.dtype}"
        if array.dtype.kind == "O":
            came += " (ragged rows, or values that are not numbers)"
        raise DTypeError(f"{name} has {came}; {_EXPECTED_DTYPE}")
    return array


def _is_masked(given: object) -> bool:
    # NumPy loads its module for masked arrays late, and there are none before.
    return "numpy.ma" in sys.modules and np.ma.isMaskedArray(given)


def _import_array(given: object, name: str) -> NDArray[Any]:
    if _is_masked(given):
        raise DTypeError(f"{name} is a masked array, whose mask would be lost; {_EXPECTED_DTYPE}")
    if given is None or isinstance(given, (str, bytes, dict, set, frozenset)):
        raise DTypeError(f"{name} is of type {type(given).__name__}; {_EXPECTED_DTYPE}")
    try:
        return to_numpy(given)
    except Exception as error:
        # Foreign conversions raise whatever they like, MemoryError apart.
        if isinstance(error, MemoryError):
            raise
        if isinstance(error, ValueError) and "inhomogeneous" in str(error):
            raise DTypeError(f"{name} is ragged (its rows differ in length)") from error
        raise InvalidInputError(
            f"{name}, of type {type(given).__name__}, cannot be read as an array: {error}"
        ) from error


def _as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    flags = array.flags
    if array.dtype == np.float32 and flags.c_contiguous and flags.aligned:
        return array
    # Overflow is reported by check_finite, with its place, rather than as a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(array, dtype=np.float32, order="C")

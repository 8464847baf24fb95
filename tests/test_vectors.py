"""What counts as vectors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pipelines import Dlpack

from swann import vectors
from swann.errors import (
    DTypeError,
    InvalidInputError,
    NonFiniteError,
    ShapeError,
)

DTYPES = ["f2", "f4", "f8", "g", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


@st.composite
def matrices(draw: st.DrawFn) -> NDArray[Any]:
    """A matrix of small integers in any dtype, byte order and memory layout."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES))).newbyteorder(draw(st.sampled_from("<>")))
    n, d = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(0, 100, (n, d))
    layout = draw(st.sampled_from(["c", "fortran", "strided", "reversed", "unaligned", "offset"]))
    out: NDArray[Any]
    if layout == "fortran":
        out = np.asfortranarray(values.astype(dtype))
    elif layout == "strided":
        out = np.zeros((2 * n, 3 * d), dtype)[::2, ::3]
        out[:] = values
    elif layout == "reversed":
        out = values.astype(dtype)[::-1, ::-1].copy()[::-1, ::-1]
    elif layout == "unaligned":
        raw = np.zeros(n * d * dtype.itemsize + 1, np.uint8)
        out = raw[1:].view(dtype).reshape(n, d)
        out[:] = values
    elif layout == "offset":
        out = np.zeros((n, d + 1), dtype)[:, 1:]
        out[:] = values
    else:
        out = values.astype(dtype)
    out.setflags(write=draw(st.booleans()))
    assert np.array_equal(out, values)
    return out


def assert_kernel_ready(x: NDArray[np.float32]) -> None:
    assert type(x) is np.ndarray
    assert x.dtype == np.dtype("=f4")
    assert x.flags.c_contiguous
    assert x.flags.aligned


@given(matrices(), st.data())
def test_every_dtype_and_layout(db: NDArray[Any], data: st.DataObject) -> None:
    checked = vectors.as_database(db)
    assert checked is db
    expected = db.astype(np.float32)

    start = data.draw(st.integers(0, len(db)))
    stop = data.draw(st.integers(start, len(db)))
    part = vectors.slice_rows(db, start, stop)
    assert_kernel_ready(part)
    assert np.array_equal(part, expected[start:stop])

    ids = np.array(data.draw(st.lists(st.integers(0, len(db) - 1))), np.int64)
    taken = vectors.take(db, ids)
    assert_kernel_ready(taken)
    assert np.array_equal(taken, expected[ids])

    rows = data.draw(st.integers(1, 10))
    seen = 0
    for first, chunk in vectors.chunks(db, rows):
        assert first == seen
        assert_kernel_ready(chunk)
        assert np.array_equal(chunk, expected[first : first + rows])
        seen += len(chunk)
    assert seen == len(db)

    many = vectors.as_queries(db, db.shape[1])
    assert_kernel_ready(many)
    assert np.array_equal(many, expected)
    one = vectors.as_queries(db[0], db.shape[1], rank=1)
    assert_kernel_ready(one)
    assert np.array_equal(one, expected[0])


def test_float32_is_not_copied() -> None:
    db = np.ones((10, 4), np.float32)
    assert np.shares_memory(vectors.slice_rows(db, 2, 5), db)
    assert vectors.as_queries(db, 4) is db
    assert np.shares_memory(vectors.as_queries(db[1], 4, rank=1), db)
    assert not np.shares_memory(vectors.take(db, np.arange(3)), db)


def test_memory_maps_are_neither_read_nor_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "db.npy", np.arange(20, dtype=np.float64).reshape(5, 4))
    db = np.load(tmp_path / "db.npy", mmap_mode="r")
    checked = vectors.as_database(db)
    assert type(checked) is np.ndarray
    assert checked.dtype == np.float64
    assert np.shares_memory(checked, db)
    assert_kernel_ready(vectors.slice_rows(checked, 1, 3))


class OnTheGpu(Dlpack):
    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("the tensor lives on another device")


class ArrayProtocol:
    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.ones((2, 3))


def test_dlpack_and_other_protocols() -> None:
    source = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.shares_memory(vectors.as_database(Dlpack(source)), source)
    assert np.array_equal(vectors.as_queries(Dlpack(source), 3), source)
    assert vectors.as_database(ArrayProtocol()).shape == (2, 3)
    assert vectors.as_database(source.data).shape == (2, 3)
    assert vectors.as_database([[1, 2], [3, 4]]).dtype == np.int64
    assert vectors.as_database([np.ones(3), np.zeros(3)]).shape == (2, 3)
    matrix = np.array([[1.0, 2.0]]).view(np.matrix)
    assert type(vectors.as_database(matrix)) is np.ndarray


@pytest.mark.parametrize(
    ("db", "error", "message"),
    [
        ([], ShapeError, r"db is empty \(shape \(0,\)\)"),
        ([[]], ShapeError, "db is empty"),
        (np.empty((0, 5)), ShapeError, "db is empty"),
        (np.empty((5, 0)), ShapeError, "db is empty"),
        (3.0, ShapeError, "db has 0 axes"),
        ([1.0, 2.0], ShapeError, "db has 1 axes .*; expected 2 axes"),
        (np.ones((2, 2, 2)), ShapeError, "db has 3 axes"),
        ([[1, 2], [3]], DTypeError, "db is ragged"),
        ([[1, None]], DTypeError, "db has dtype object"),
        (np.array([[1, 2]], object), DTypeError, "db has dtype object"),
        ([[2**70]], DTypeError, "db has dtype object"),
        (np.ones((2, 2), complex), DTypeError, "complex128; expected real numbers"),
        (np.ones((2, 2), bool), DTypeError, "db has dtype bool"),
        ([["a", "b"]], DTypeError, "db has dtype <U1"),
        (np.zeros((2, 2), "M8[s]"), DTypeError, "datetime64"),
        (np.zeros((2, 2), "f4,f4"), DTypeError, "expected real numbers"),
        ("vectors.npy", DTypeError, "db is of type str"),
        (None, DTypeError, "db is of type NoneType"),
        ({1: 2}, DTypeError, "db is of type dict"),
        (iter([[1.0]]), DTypeError, "db has dtype object"),
        (
            OnTheGpu(np.ones((2, 2))),
            InvalidInputError,
            "OnTheGpu, cannot be read .* another device",
        ),
        (np.ma.masked_array(np.ones((2, 2)), mask=True), DTypeError, "masked array"),
    ],
    ids=repr,
)
def test_what_does_not_count(db: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vectors.as_database(db)
    if type(db) is not list or db:  # zero queries are fine
        with pytest.raises(InvalidInputError):
            vectors.as_queries(db, 7)


def test_a_lack_of_memory_is_none_of_the_input() -> None:
    class Large:
        def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
            raise MemoryError

    with pytest.raises(MemoryError):
        vectors.as_database(Large())


def test_query_shapes() -> None:
    with pytest.raises(ShapeError, match="queries have 64 dimensions, but this index expects 100"):
        vectors.as_queries(np.ones((3, 64)), 100)
    with pytest.raises(ShapeError, match="query has 64 dimensions, but this index expects 100"):
        vectors.as_queries(np.ones(64), 100, rank=1)
    with pytest.raises(ShapeError, match=r"query has shape \(3, 100\); expected \(100,\)"):
        vectors.as_queries(np.ones((3, 100)), 100, rank=1)
    with pytest.raises(ShapeError, match=r"queries has shape \(100,\); expected \(n, 100\)"):
        vectors.as_queries(np.ones(100), 100)
    with pytest.raises(ShapeError, match="queries have 4 dimensions"):
        vectors.as_queries(np.ones((0, 4)), 100)


@pytest.mark.parametrize("none", [[], np.ones((0, 100)), np.ones((0, 100), ">i2")], ids=repr)
def test_zero_queries(none: object) -> None:
    queries = vectors.as_queries(none, 100)
    assert queries.shape == (0, 100)
    assert_kernel_ready(queries)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8"])
def test_non_finite_values_are_named(bad: float, dtype: str) -> None:
    db = np.ones((6, 4), dtype)
    db[3, 2] = db[4, 0] = bad
    with pytest.raises(NonFiniteError, match=rf"db\[103, 2\] is {bad}.*; expected finite"):
        vectors.check_finite(vectors.slice_rows(db, 0, 6), "db", start=100)
    with pytest.raises(NonFiniteError, match=rf"queries\[3, 2\] is {bad}; expected finite"):
        vectors.as_queries(db, 4)
    with pytest.raises(NonFiniteError, match=rf"query\[2\] is {bad}; expected finite"):
        vectors.as_queries(db[3], 4, rank=1)


def test_overflow_of_float32_is_told_from_infinity() -> None:
    db = np.ones((6, 4))
    db[4, 1] = -1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunk = vectors.slice_rows(db, 3, 6)
        with pytest.raises(NonFiniteError, match=r"db\[4, 1\] is -1e\+300, which overflows"):
            vectors.check_finite(chunk, "db", start=3, source=db)
        with pytest.raises(NonFiniteError, match=r"is -inf \(or overflowed float32\)"):
            vectors.check_finite(chunk, "db", start=3)
        with pytest.raises(NonFiniteError, match=r"query\[1\] is -1e\+300, which overflows"):
            vectors.as_queries(db[4], 4, rank=1)


def test_large_finite_queries_pass() -> None:
    query = np.full(3, 3e38, np.float32)  # their sum of squares overflows
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vectors.as_queries(query, 3, rank=1) is query
        vectors.check_finite(query, "query")
        vectors.check_finite(np.empty((0, 3), np.float32), "db")

"""Docids that ScaNN pickled are read without unpickling."""

from __future__ import annotations

import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swann import CorruptIndexError, IndexFormatError
from swann.compat.safe_docids import read_docids


def read(data: bytes, directory: Path) -> list[str | int]:
    path = directory / "docids.pkl"
    path.write_bytes(data)
    return read_docids(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docids")


# Docids are unique; of a repeated object, pickle would write a reference.
docids = st.one_of(
    st.lists(st.text(max_size=400), unique=True),
    st.lists(st.integers(-(2**70), 2**70), unique=True),
    st.lists(st.one_of(st.text(max_size=5), st.integers(0, 99)), min_size=1, unique=True),
)


@given(docids, st.integers(2, 5))
def test_a_list_of_strings_and_ints(place: Path, values: list[Any], protocol: int) -> None:
    assert read(pickle.dumps(values, protocol), place) == values


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_sizes_at_which_pickle_changes_its_ways(place: Path, protocol: int) -> None:
    for count in (0, 1, 2, 999, 1000, 1001, 2001):
        values = [f"docid {i}" for i in range(count)]
        assert read(pickle.dumps(values, protocol), place) == values
    long = ["a" * size for size in (255, 256, 65535, 65536, 200_000)] + ["é" * 40_000, "\ud800"]
    assert read(pickle.dumps(long, protocol), place) == long


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nothing_is_executed(place: Path, protocol: int) -> None:
    target = place / f"made{protocol}"
    for value in (Evil(target), [Evil(target)], ["a", Evil(target)]):
        data = pickle.dumps(value, protocol)
        with pytest.raises(IndexFormatError, match="plain list of strings and ints"):
            read(data, place)
        assert not target.exists()


@pytest.mark.parametrize(
    "value",
    [
        "a",
        7,
        None,
        {"a": 1},
        {"a"},
        [b"a"],
        [1.5],
        [None],
        [True],
        [["a"]],
        ["a", ["b"]],
        [("a",)],
        [np.float64(3)],
        [np.bytes_(b"a")],
        [np.bool_(True)],
        [np.datetime64("2020-01-01")],
        np.array([b"a"]),
        np.array([1.5]),
        np.array([["a"]]),
        np.array("a"),
        np.array(["a", None], object),
        np.array(["a"])[:, None].astype(object),
        np.ma.array([1, 2]),
        np.array([(1, 2)], "i4,i4"),
        np.dtype("i4"),
        np.ndarray,
        OrderedDict(a=1),
        [2**200],
    ],
)
def test_other_things_are_refused(place: Path, value: Any) -> None:
    with pytest.raises(IndexFormatError, match="plain list of strings and ints"):
        read(pickle.dumps(value), place)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([np.float64(3)], "NumPy floats"),
        (np.array([b"a"]), "NumPy bytes"),
        (np.array([["a"]]), "array of 2 axes"),
        ([OrderedDict()], "collections.OrderedDict"),
        ([b"a"], "a bytes at place 0"),
        (["a", None], "None at place 1"),
        (["a", ("b",)], "a tuple at place 1"),
    ],
)
def test_the_error_says_what_was_found_and_what_to_do(place: Path, value: Any, named: str) -> None:
    with pytest.raises(IndexFormatError, match=named) as caught:
        read(pickle.dumps(value), place)
    assert "docids='ignore'" in str(caught.value)


def as_numpy_1(data: bytes) -> bytes:
    """What NumPy before 2.0 pickled: without the underscore of a module's name, nor frames."""
    return (
        _unframed(data)
        .replace(b"\x16numpy._core", b"\x15numpy.core")
        .replace(b"\x13numpy._core", b"\x12numpy.core")
    )


@given(docids, st.sampled_from([4, 5]), st.booleans())
def test_tuples_and_arrays_of_objects(
    place: Path, values: list[Any], protocol: int, older: bool
) -> None:
    assert read(pickle.dumps(tuple(values), protocol), place) == values
    array = np.empty(len(values), object)
    array[:] = values
    data = pickle.dumps(array, protocol)
    assert read(as_numpy_1(data) if older else data, place) == values


@given(
    st.one_of(
        st.lists(st.text(max_size=30), min_size=1).map(np.array),
        st.lists(st.text(max_size=9), min_size=1).map(lambda x: np.array(x).astype(">U9")),
        *(
            st.lists(st.integers(0, 127)).map(lambda x, dtype=dtype: np.array(x, dtype))
            for dtype in ("i1", "u1", "<i2", ">u2", "i4", "u4", "<i8", ">i8", "u8")
        ),
    ),
    st.sampled_from([4, 5]),
    st.booleans(),
)
def test_arrays_and_scalars_of_numpy(
    place: Path, array: np.ndarray[Any, Any], protocol: int, older: bool
) -> None:
    for value in (array, list(array), tuple(array)):
        data = pickle.dumps(value, protocol)
        assert read(as_numpy_1(data) if older else data, place) == array.tolist()


def test_many_scalars_of_numpy_of_many_lengths(place: Path) -> None:
    values = [str(x) for x in range(3000)]
    assert read(pickle.dumps(list(np.array(values))), place) == values
    assert read(pickle.dumps(list(np.arange(3000))), place) == list(range(3000))
    assert read(pickle.dumps([np.int64(-5), "a", np.str_("b")]), place) == [-5, "a", "b"]


def test_sizes_of_arrays_are_checked(place: Path) -> None:
    data = pickle.dumps(np.arange(20), 4)
    assert read(data, place) == list(range(20))
    for count in (19, 21, 255):
        with pytest.raises(CorruptIndexError, match="bytes; expected"):
            read(data.replace(b"K\x01K\x14\x85", b"K\x01K" + bytes([count]) + b"\x85"), place)
    with pytest.raises(CorruptIndexError, match="bytes; expected"):
        read(pickle.dumps(np.array(["ab"])).replace(b"U2", b"U9"), place)
    nothing = pickle.dumps(np.array([""])).replace(b"U1", b"U0").replace(b"C\x04\0\0\0\0", b"C\0")
    assert read(_unframed(nothing), place) == [""]
    endless = nothing.replace(b"K\x01K\x01\x85", b"K\x01J\xff\xff\xff\x7f\x85")
    with pytest.raises(CorruptIndexError, match="expected 0"):
        read(_unframed(endless), place)
    with pytest.raises(CorruptIndexError, match="byte"):  # no such character
        read(pickle.dumps(np.array(["a"])).replace(b"a\0\0\0", b"a\0\0\x7f"), place)


def test_bytes_that_are_used_again_and_again(place: Path) -> None:
    """A list of strings must not take the square of the size of its file."""
    one = pickle.dumps([np.str_("a" * 1000)], 4)
    assert read(one, place) == ["a" * 1000]
    again = b"h\x03h\x09h\x0c\x86R"  # noted as 3: the function, as 9: the dtype, as 12: the bytes
    data = one[:-2] + b"a(" + 5 * again + b"e."
    with pytest.raises(IndexFormatError, match="plain list"):
        read(_unframed(data), place)
    assert len(pickle.loads(_unframed(data))) == 6


@pytest.mark.parametrize("protocol", [0, 1])
def test_the_oldest_protocols_are_refused(place: Path, protocol: int) -> None:
    with pytest.raises(IndexFormatError, match="protocol 2 to 5"):
        read(pickle.dumps(["a"], protocol), place)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", IndexFormatError, "protocol"),
        (b"\x80", IndexFormatError, "protocol"),
        (b"\x80\x06].", IndexFormatError, "protocol"),
        (b"\x80\x04", CorruptIndexError, "ends within"),
        (b"\x80\x04]", CorruptIndexError, "ends within"),
        (b"\x80\x04].x", CorruptIndexError, "goes on after its end"),
        (b"\x80\x04.", IndexFormatError, "instruction 0x2e"),
        (b"\x80\x04]].", IndexFormatError, "instruction 0x2e"),
        (b"\x80\x04](.", IndexFormatError, "instruction 0x2e"),
        (b"\x80\x04]((e.", IndexFormatError, "instruction 0x65"),
        (b"\x80\x04]a.", IndexFormatError, "instruction 0x61"),
        (b"\x80\x04]e.", IndexFormatError, "instruction 0x65"),
        (b"\x80\x04]K\x01.", IndexFormatError, "instruction 0x2e"),
        (b"\x80\x04]K\x01K\x02a.", IndexFormatError, "instruction 0x61"),
        (b"\x80\x04]K\x01(e.", IndexFormatError, "instruction 0x65"),
        (b"\x80\x04](K\x01a.", IndexFormatError, "instruction 0x61"),
        (b"\x80\x04]h\x00.", IndexFormatError, "instruction 0x68"),
        (b"\x80\x04\x94]", IndexFormatError, "instruction 0x94"),
        (b"\x80\x04]q\x00h\x00a.", IndexFormatError, "a list at place 0"),
        (b"\x80\x04]\x85R.", IndexFormatError, "instruction 0x52"),
        (b"\x80\x04]]R.", IndexFormatError, "instruction 0x52"),
        (b"\x80\x04]]b.", IndexFormatError, "instruction 0x62"),
        (b"\x80\x04]K\x01\x93.", IndexFormatError, "instruction 0x93"),
        (b"\x80\x04t.", IndexFormatError, "instruction 0x74"),
        (b"\x80\x04]\x8c\x02\xff\xfea.", CorruptIndexError, "not UTF-8"),
        (b"\x80\x04]\x8c\x09aa.", CorruptIndexError, "ends within"),
        (b"\x80\x04]\x8d" + b"\xff" * 8 + b"a.", CorruptIndexError, "ends within"),
        (b"\x80\x04]\x8b" + b"\xff" * 4 + b"a.", IndexFormatError, "instruction 0x8b"),
    ],
)
def test_bad_bytes_are_typed_errors(
    place: Path, data: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(data, place)


@given(st.binary(max_size=60))
def test_any_bytes(place: Path, data: bytes) -> None:
    for begin in (b"", b"\x80\x04", b"\x80\x04]("):
        try:
            read(begin + data, place)
        except IndexFormatError:
            continue


@given(
    st.lists(st.text(max_size=9), min_size=1, max_size=9, unique=True),
    st.data(),
    st.sampled_from([2, 4, 5]),
)
def test_what_is_read_is_what_pickle_reads(
    place: Path, values: list[str], data: st.DataObject, protocol: int
) -> None:
    """A changed byte is an error, or leaves a pickle of which pickle itself says the same."""
    changed = bytearray(pickle.dumps(values, protocol))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(changed), place)
    except IndexFormatError:
        return
    names = {opcode.name for opcode, _, _ in pickletools.genops(_unframed(bytes(changed)))}
    assert not names & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ", "INST", "OBJ"}
    assert found == pickle.loads(_unframed(bytes(changed)))


def _unframed(data: bytes) -> bytes:
    """Without its frame, whose length nobody needs, and which pickle checks."""
    return data[:2] + data[11:] if data[2:3] == b"\x95" else data


@given(
    st.lists(st.text(max_size=9), min_size=1, max_size=9, unique=True),
    st.sampled_from([list, np.asarray, lambda x: np.arange(len(x)), lambda x: list(np.arange(9))]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_damaged_pickles_of_numpy_are_typed_errors(
    place: Path, values: list[str], make: Any, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(pickle.dumps(make(np.array(values))))
    for at, byte in changes:
        changed[at % len(changed)] = byte
    try:
        found = read(bytes(changed), place)
    except IndexFormatError:
        return
    assert all(type(docid) in (str, int) for docid in found)

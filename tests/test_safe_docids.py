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
        ("a",),
        {"a": 1},
        {"a"},
        [b"a"],
        [1.5],
        [None],
        [True],
        [["a"]],
        ["a", ["b"]],
        [("a",)],
        [np.str_("a")],
        [np.int64(3)],
        np.array(["a"]),
        OrderedDict(a=1),
        [2**200],
    ],
)
def test_other_things_are_refused(place: Path, value: Any) -> None:
    with pytest.raises(IndexFormatError, match="plain list of strings and ints"):
        read(pickle.dumps(value), place)


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
        (b"\x80\x04]].", IndexFormatError, "instruction 0x5d"),
        (b"\x80\x04](.", IndexFormatError, "instruction 0x2e"),
        (b"\x80\x04]((e.", IndexFormatError, "instruction 0x28"),
        (b"\x80\x04]a.", IndexFormatError, "instruction 0x61"),
        (b"\x80\x04]e.", IndexFormatError, "instruction 0x65"),
        (b"\x80\x04]K\x01.", IndexFormatError, "instruction 0x2e"),
        (b"\x80\x04]K\x01K\x02a.", IndexFormatError, "instruction 0x4b"),
        (b"\x80\x04]K\x01(e.", IndexFormatError, "instruction 0x28"),
        (b"\x80\x04](K\x01a.", IndexFormatError, "instruction 0x61"),
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

"""Protobuf's wire format, byte by byte."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swann import CorruptIndexError, IndexFormatError
from swann.compat.proto_text import Name
from swann.compat.scann_messages import read_codebook, read_partitioner
from swann.compat.scann_schema import CONFIG
from swann.compat.scann_wire import Field, Schema, read_fields, read_message, read_packed

SCHEMA: Schema = {
    1: Field("count", "int32"),
    2: Field("size", "uint32"),
    3: Field("large", "uint64"),
    4: Field("signed", "int64"),
    5: Field("flag", "bool"),
    6: Field("ratio", "float"),
    7: Field("exact", "double"),
    8: Field("name", "string"),
    9: Field("kind", "enum", names={0: "NONE", 1: "SOME"}),
    10: Field("inner", "message", schema={1: Field("count", "int32")}),
    11: Field("opaque", "message"),
    12: Field("ignored"),
}


def varint(value: int) -> bytes:
    out = bytearray()
    value %= 2**64
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | float | bytes, wire: int | None = None) -> bytes:
    """One field: an int as a varint, a float as eight bytes, bytes with their length."""
    if isinstance(value, bytes):
        if wire is not None:
            return varint(number << 3 | wire) + value
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3) + varint(value)


def f32(number: int, value: float) -> bytes:
    return field(number, struct.pack("<f", value), wire=5)


def message(data: bytes) -> dict[str, object]:
    return read_message(memoryview(data), SCHEMA, "it")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", {}),
        (b"\x08\x01", {"count": [1]}),
        (b"\x08\xac\x02", {"count": [300]}),
        (field(1, -1), {"count": [-1]}),
        (field(1, 2**31 - 1) + field(1, -(2**31)), {"count": [2**31 - 1, -(2**31)]}),
        (field(2, 2**32 - 1), {"size": [2**32 - 1]}),
        (field(3, 2**64 - 1), {"large": [2**64 - 1]}),
        (field(4, -(2**63)), {"signed": [-(2**63)]}),
        (field(5, 1) + field(5, 0), {"flag": ["true", "false"]}),
        (f32(6, 1.2), {"ratio": [1.2]}),
        (f32(6, math.inf), {"ratio": [math.inf]}),
        (field(7, 0.2), {"exact": [0.2]}),
        (field(8, "é".encode()), {"name": ["é"]}),
        (field(9, 1), {"kind": [Name("SOME")]}),
        (field(10, field(1, 5)) + field(10, b""), {"inner": [{"count": [5]}, {}]}),
        (field(11, b"\xff\xff"), {"opaque": [{}]}),
        (field(12, 1) + field(12, b"x") + f32(12, 1.0) + field(12, 1.0), {}),
        # A varint may be longer than it must be.
        (b"\x08\x81\x80\x80\x00", {"count": [1]}),
    ],
)
def test_messages(data: bytes, expected: dict[str, object]) -> None:
    assert message(data) == expected


def test_words_are_not_strings() -> None:
    found = message(field(5, 1) + field(9, 0) + field(8, b"NONE"))
    assert [type(found[name][0]) for name in ("flag", "kind", "name")] == [Name, Name, str]  # type: ignore[index]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x08", "varint does not end"),
        (b"\x80", "varint does not end"),
        (b"\x08" + b"\xff" * 10, "varint does not end"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "over 64 bits"),
        (b"\x00\x01", "0 is no field's number"),
        (varint(2**32) + b"\x00", "is no field's number"),
        (b"\x0b", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x0f", "wire type 7"),
        (b"\x42\x05abcd", "field 8 has 5 bytes, but 4 are left"),
        (b"\x42" + varint(2**63), "but 0 are left"),
        (b"\x35\x00\x00\x00", "field 6 has 4 bytes, but 3 are left"),
        (b"\x39\x00\x00\x00", "field 7 has 8 bytes, but 3 are left"),
        (field(8, b"\xff"), "not UTF-8"),
        (field(1, 2**31), "is no int32"),
        (field(1, -(2**31) - 1), "is no int32"),
        (field(2, 2**32), "is no uint32"),
        (field(5, 2), "is no bool"),
        (field(1, b"x"), "count has wire type 2; expected a int32"),
        (field(8, 3), "name has wire type 0; expected a string"),
        (field(6, 1.0), "ratio has wire type 1; expected a float"),
        (field(10, field(1, b"x")), "it, inner: count has wire type 2"),
    ],
)
def test_damaged_messages(data: bytes, words: str) -> None:
    with pytest.raises(CorruptIndexError, match=words):
        message(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (field(13, 1), "field with number 13"),
        (field(10, field(2, 1)), "it, inner has a field with number 2"),
        (field(9, 2), "kind has value 2.*NONE, SOME"),
    ],
)
def test_what_is_not_known_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(IndexFormatError, match=words) as caught:
        message(data)
    assert not isinstance(caught.value, CorruptIndexError)


@given(st.binary(max_size=80))
def test_any_bytes_are_fields_or_an_error(data: bytes) -> None:
    """What is read, written again, is read the same."""
    try:
        found = list(read_fields(memoryview(data), "it"))
    except CorruptIndexError:
        return
    again = b"".join(
        field(
            number,
            value if isinstance(value, int) else bytes(value),
            wire if wire in (1, 5) else None,
        )
        for number, wire, value in found
    )
    assert list(read_fields(memoryview(again), "it")) == found


@given(st.binary(max_size=80))
def test_any_bytes_are_a_configuration_or_an_error(data: bytes) -> None:
    for begin in (b"", field(3, 10), varint(8 << 3 | 2) + varint(len(data))):
        try:
            read_message(memoryview(begin + data), CONFIG, "it")
        except IndexFormatError:
            continue


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=9))
def test_packed_numbers(values: list[float]) -> None:
    for dtype, wire in (("<f4", 5), ("<f8", 1)):
        packed = np.array(values, dtype).tobytes()
        assert read_packed(2, memoryview(packed), dtype, "it").tolist() == values
        for value in values:
            one = memoryview(np.array([value], dtype).tobytes())
            assert read_packed(wire, one, dtype, "it").tolist() == [value]


@pytest.mark.parametrize(
    ("wire", "value"), [(0, 3), (2, memoryview(b"abc")), (1, memoryview(b"12345678"))]
)
def test_packed_numbers_of_another_size(wire: int, value: int | memoryview) -> None:
    with pytest.raises(CorruptIndexError, match="numbers of 4 bytes"):
        read_packed(wire, value, "<f4", "it")


# ---- The partitioner


def doubles(*values: float) -> bytes:
    return np.array(values, "<f8").tobytes()


def floats(*values: float) -> bytes:
    return field(4, np.array(values, "<f4").tobytes())


def leaf(number: int, *more: bytes) -> bytes:
    return field(3, field(5, number) + b"".join(more))


def partitioner(*root: bytes, before: bytes = b"") -> bytes:
    return before + field(2, field(1, field(1, b"".join(root))))


CENTER = field(1, field(1, doubles(1, 2)))


def test_centroids_come_in_the_order_of_their_leaves() -> None:
    data = partitioner(
        field(1, field(1, doubles(1, 2))),
        field(1, field(2, np.array([3, 4], "<f4").tobytes())),  # floats, packed
        field(1, field(1, 5.0) + field(1, 6.0)),  # doubles, one by one
        leaf(2),
        leaf(0),
        leaf(1),
        before=field(1, 3),
    )
    found = read_partitioner(memoryview(data), "it")
    assert found.centroids.tolist() == [[3, 4], [5, 6], [1, 2]]
    assert found.centroids.dtype == np.float32
    assert found.basis is None


def directions(*rows: list[float]) -> bytes:
    return field(5, b"".join(field(1, floats(*row)) for row in rows))


def test_a_projection_is_a_basis() -> None:
    data = partitioner(CENTER, leaf(0)) + directions([0.6, 0.8, 0.0], [0.8, -0.6, 0.0])
    basis = read_partitioner(memoryview(data), "it").basis
    assert basis is not None
    assert basis.tolist() == np.array([[0.6, 0.8, 0], [0.8, -0.6, 0]], np.float32).tolist()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 times a k-means partitioner"),
        (partitioner(CENTER, leaf(0)) * 2, "2 times a k-means partitioner"),
        (field(2, b""), "0 times a k-means tree"),
        (field(2, field(1, b"")), "0 times a root"),
        (field(2, 7), "a number where a message"),
        (partitioner(), "0 centers and 0 leaves"),
        (partitioner(CENTER), "1 centers and 0 leaves"),
        (partitioner(CENTER, CENTER, leaf(0), leaf(0)), "does not number its 2 leaves"),
        (partitioner(CENTER, leaf(1)), "does not number its 1 leaves"),
        (partitioner(CENTER, leaf(-1)), "a leaf without a number"),
        (partitioner(CENTER, field(3, b"")), "a leaf without a number"),
        (partitioner(field(1, b""), leaf(0)), "an empty vector"),
        (partitioner(field(1, field(1, doubles(1, math.nan))), leaf(0)), "not finite"),
        (partitioner(field(1, field(1, doubles(1e30))), leaf(0)), "not finite"),
        (partitioner(CENTER, field(1, field(1, 1.0)), leaf(0), leaf(1)), "different dimensions"),
        (partitioner(field(1, field(1, doubles(1, 2)[:-1])), leaf(0)), "numbers of 8 bytes"),
        (partitioner(CENTER, leaf(0)) + field(5, b""), "without directions"),
        (partitioner(CENTER, leaf(0)) + field(5, 1), "a number where a message"),
        (partitioner(CENTER, leaf(0)) + directions([1, 0]) * 2, "2 times a projection"),
        (partitioner(CENTER, leaf(0)) + directions([1, 0], [0]), "ragged"),
        (partitioner(CENTER, leaf(0)) + directions([1], [1]), "ragged"),
        (partitioner(CENTER, leaf(0)) + directions([2, 0]), "not orthonormal"),
        (partitioner(CENTER, leaf(0)) + directions([1, 0], [0.1, 1]), "not orthonormal"),
        (partitioner(CENTER, leaf(0)) + directions([1e18, 0]), "not orthonormal"),
        (partitioner(CENTER, leaf(0)) + directions([math.nan, 0]), "not finite"),
    ],
)
def test_damaged_partitioners(data: bytes, words: str) -> None:
    with pytest.raises(CorruptIndexError, match=words):
        read_partitioner(memoryview(data), "it")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (field(4, b""), "linear projections"),
        (partitioner(CENTER, leaf(0)) + field(5, field(2, b"x")), "blocks of different"),
        (partitioner(CENTER, leaf(0, CENTER)), "several levels"),
        (partitioner(CENTER, leaf(0, leaf(0))), "several levels"),
    ],
)
def test_other_partitioners(data: bytes, words: str) -> None:
    with pytest.raises(IndexFormatError, match=words):
        read_partitioner(memoryview(data), "it")


# ---- The codebook


def block(*words: bytes) -> bytes:
    return field(1, b"".join(field(1, field(1, 2) + word) for word in words))


def test_codewords_are_columns() -> None:
    data = block(floats(1, 2), floats(3, 4)) + block(floats(5), f32(4, 6.0)) + field(2, 0)
    found = read_codebook(memoryview(data), "it")
    assert found.codewords.tolist() == [[1, 3], [2, 4], [5, 6]]
    assert found.dimensions_per_block == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no codewords"),
        (block(), "without codewords"),
        (block(floats(1), floats(1, 2)), "ragged"),
        (block(b""), "an empty vector"),
        (block(floats(math.inf)), "not finite"),
        (field(1, 3), "a number where a message"),
    ],
)
def test_damaged_codebooks(data: bytes, words: str) -> None:
    with pytest.raises(CorruptIndexError, match=words):
        read_codebook(memoryview(data), "it")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (block(floats(1)) + field(2, 1), "quantization scheme 1"),
        (block(floats(1)) + block(floats(1), floats(2)), "different numbers of codewords"),
        (block(floats(1)) + block(floats(1, 2)), "blocks of .* dimensions"),
        (block(floats(1, 2)) + block(floats(1)) + block(floats(1, 2)), "blocks of .* dimensions"),
        (block(field(6, 1) + floats(1)), "sparse"),
        (block(field(30, b"x")), "sparse or not of floats"),
    ],
)
def test_other_codebooks(data: bytes, words: str) -> None:
    with pytest.raises(IndexFormatError, match=words):
        read_codebook(memoryview(data), "it")

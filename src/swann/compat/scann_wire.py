"""Protobuf's wire format, read strictly: as much of it as ScaNN's files need.

A message is a run of fields, each a tag (number << 3 | wire type) and a value::

    wire type   value
    0           varint: seven bits a byte, the lowest first, at most ten bytes
    1           eight bytes
    2           a length (varint) and that many bytes: strings, messages, packed numbers
    5           four bytes

Nothing is copied and no length is believed before it is compared with the bytes that are left, so
a damaged file costs no more time or memory than its own size. Messages inside messages are read
only where a table here or in `scann_files` says so, and no table leads back to itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from swann.compat.proto_text import Message, Name, Value
from swann.errors import CorruptIndexError, IndexFormatError

__all__ = ["Field", "Schema", "read_fields", "read_message", "read_packed"]

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FIXED = {_EIGHT: 8, _FOUR: 4}

WireValue: TypeAlias = "int | memoryview"


class Field(NamedTuple):
    """What is known of a field.

    Attributes
    ----------
    name : str
        As ScaNN's own text format has it.
    kind : str
        ``int32``, ``int64``, ``uint32``, ``uint64``, ``bool``, ``float``, ``double``, ``string``,
        ``enum``, ``message``, or ``skip``: known, and of no matter here.
    names : mapping of int to str
        Of an enum's values.
    schema : Schema
        Of a message; empty: what it holds is not looked at.
    """

    name: str
    kind: str = "skip"
    names: Mapping[int, str] = {}
    schema: Mapping[int, Field] = {}


Schema: TypeAlias = Mapping[int, Field]

_WIRE_TYPES = {
    "int32": _VARINT,
    "int64": _VARINT,
    "uint32": _VARINT,
    "uint64": _VARINT,
    "bool": _VARINT,
    "enum": _VARINT,
    "float": _FOUR,
    "double": _EIGHT,
    "string": _BYTES,
    "message": _BYTES,
}


def read_fields(data: memoryview, what: str) -> Iterator[tuple[int, int, WireValue]]:
    """Go through the fields of one message.

    Parameters
    ----------
    data : memoryview of bytes
        The message.
    what : str
        What to call it in an error.

    Yields
    ------
    tuple of (int, int, int or memoryview)
        Number and wire type of the field, and its value: an int of a varint, else its bytes.

    Raises
    ------
    CorruptIndexError
        If it is no message: truncated, a bad varint or tag, or the groups that nobody writes.
    """
    at, end = 0, len(data)
    while at < end:
        start = at
        tag, at = _read_varint(data, at, what)
        number, wire_type = tag >> 3, tag & 7
        if not 1 <= number < 2**29:
            raise CorruptIndexError(f"{what}, byte {start}: {number} is no field's number")
        if wire_type == _VARINT:
            varint, at = _read_varint(data, at, what)
            yield number, wire_type, varint
            continue
        if wire_type == _BYTES:
            size, at = _read_varint(data, at, what)
        elif wire_type in _FIXED:
            size = _FIXED[wire_type]
        else:
            raise CorruptIndexError(f"{what}, byte {start}: wire type {wire_type} is not known")
        if size > end - at:
            raise CorruptIndexError(
                f"{what}, byte {start}: field {number} has {size} bytes, but {end - at} are left"
            )
        yield number, wire_type, data[at : at + size]
        at += size


def _read_varint(data: memoryview, at: int, what: str) -> tuple[int, int]:
    value = shift = 0
    for place in range(at, min(at + 10, len(data))):
        byte: int = data[place]
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 2**64:
                break
            return value, place + 1
        shift += 7
    raise CorruptIndexError(f"{what}, byte {at}: a varint does not end, or has over 64 bits")


def read_packed(wire_type: int, value: WireValue, dtype: str, what: str) -> NDArray[np.float64]:
    """Return the numbers of one appearance of a ``repeated float`` or ``repeated double``.

    Parameters
    ----------
    wire_type, value : int, int or memoryview
        As `read_fields` gives them: one number, or packed ones.
    dtype : {"<f4", "<f8"}
        What the numbers are.

    Returns
    -------
    float64 array
        A view of the file's bytes where they are doubles.
    """
    size = np.dtype(dtype).itemsize
    if (
        isinstance(value, int)
        or wire_type not in (_BYTES, _EIGHT if size == 8 else _FOUR)
        or len(value) % size
    ):
        raise CorruptIndexError(f"{what}: expected numbers of {size} bytes")
    with np.errstate(invalid="ignore"):  # of signalling NaNs: what is not finite is refused later
        return np.frombuffer(value, dtype).astype(np.float64, copy=False)


def read_message(data: memoryview, schema: Schema, what: str) -> Message:
    """Read a message whose fields are all known, into what `proto_text.parse_text` would return.

    Parameters
    ----------
    data : memoryview of bytes
        The message.
    schema : Schema
        Its fields by number; what it may contain is as deep as the schema is.
    what : str
        What to call it in an error.

    Returns
    -------
    dict of str to list
        Every field's values in order; those that are to be skipped are left out.

    Raises
    ------
    CorruptIndexError
        If the bytes are no such message.
    IndexFormatError
        If it has a field that the schema does not know: it may change what the index means.
    """
    message: Message = {}
    for number, wire_type, value in read_fields(data, what):
        field = schema.get(number)
        if field is None:
            raise IndexFormatError(
                f"{what} has a field with number {number}, which ScaNN 1.4.2 does not have; "
                "a version of swann that knows it may read it"
            )
        if field.kind == "skip":
            continue
        if wire_type != _WIRE_TYPES[field.kind]:
            raise CorruptIndexError(
                f"{what}: {field.name} has wire type {wire_type}; expected a {field.kind}"
            )
        message.setdefault(field.name, []).append(_value(value, field, f"{what}, {field.name}"))
    return message


def _value(value: WireValue, field: Field, what: str) -> Value:
    if isinstance(value, int):
        return _integer(value, field, what)
    match field.kind:
        case "message":
            return read_message(value, field.schema, what) if field.schema else {}
        case "float":
            # The decimal number that was meant: 1.2, not the 1.2000000476837158 next to it.
            return float(str(np.float32(struct.unpack("<f", value)[0])))
        case "double":
            return float(struct.unpack("<d", value)[0])
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise CorruptIndexError(f"{what}: the text is not UTF-8") from error


def _integer(value: int, field: Field, what: str) -> Value:
    if field.kind in ("int32", "int64") and value >= 2**63:
        value -= 2**64
    least, most = {
        "int32": (-(2**31), 2**31 - 1),
        "int64": (-(2**63), 2**63 - 1),
        "uint32": (0, 2**32 - 1),
        "bool": (0, 1),
    }.get(field.kind, (0, 2**64 - 1))
    if not least <= value <= most:
        raise CorruptIndexError(f"{what}: {value} is no {field.kind}")
    if field.kind == "bool":
        return Name("true" if value else "false")
    if field.kind != "enum":
        return value
    if value not in field.names:
        raise IndexFormatError(
            f"{what} has value {value}, which ScaNN 1.4.2 does not have; expected one of "
            f"{', '.join(field.names.values())}"
        )
    return Name(field.names[value])

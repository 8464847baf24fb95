"""Messages between a searcher and its workers: a few plain values and arrays, nothing pickled.

::

    length of the header, uint32 | header, JSON | the bytes of each array, one after the other

    header    {"fields": {...}, "arrays": [[dtype, [shape]], ...]}

`pack_whole` makes one piece of bytes of it, in which header and arrays begin at multiples of eight.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Message", "Outbox", "Parts", "pack", "pack_whole", "receive", "send", "unpack_whole"]

_LENGTH = struct.Struct("<I")
_WHOLE = struct.Struct("<Q")
_UNIT = 8  # bytes; what arrays are aligned to
_LONGEST_HEADER = 1 << 26
_MOST_PARTS = 512  # buffers in one call of the system
_DTYPES = {np.dtype(code).str for code in ("u1", "i1", "u2", "<u4", "<u8", "<i8", "<f4", "<f8")}


class Message(NamedTuple):
    """What is said.

    Attributes
    ----------
    fields : dict
        Numbers, strings, and lists and dicts of them.
    arrays : list of array
        Of unsigned, signed and floating numbers.
    """

    fields: dict[str, Any]
    arrays: list[NDArray[Any]]


Parts = list[memoryview]


def pack(message: Message) -> Parts:
    """Return the bytes of a message, in parts; arrays are not copied."""
    header, arrays = _describe(message)
    parts = [memoryview(_LENGTH.pack(len(header)) + header)]
    return parts + [_bytes_of(array) for array in arrays if array.size]


def pack_whole(message: Message) -> bytes:
    """Return the bytes of a message, in one piece; `unpack_whole` reads it."""
    header, arrays = _describe(message)
    parts: list[bytes | memoryview] = [_WHOLE.pack(len(header)), header, _padding(len(header))]
    for array in arrays:
        parts += [_bytes_of(array), _padding(array.nbytes)]
    return b"".join(parts)


def unpack_whole(data: bytes) -> Message:
    """Return a message that `pack_whole` packed; its arrays are views of the bytes.

    Raises
    ------
    ValueError
        If it is none.
    """
    if len(data) < _WHOLE.size:
        raise ValueError(f"a message of {len(data)} bytes")
    at, size = _WHOLE.size, _WHOLE.unpack_from(data)[0]
    content = json.loads(data[at : at + size])
    at += size + -size % _UNIT
    arrays = []
    for dtype, shape in content["arrays"]:
        _check(dtype, shape)
        count = math.prod(shape)
        array: NDArray[Any] = np.frombuffer(data, dtype, count, at) if count else np.empty(0, dtype)
        at += array.nbytes + -array.nbytes % _UNIT
        arrays.append(array.reshape(shape))
    return Message(content["fields"], arrays)


def _describe(message: Message) -> tuple[bytes, list[NDArray[Any]]]:
    arrays = [np.ascontiguousarray(array) for array in message.arrays]
    described = [[array.dtype.str, array.shape] for array in arrays]
    return json.dumps({"fields": message.fields, "arrays": described}).encode(), arrays


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _padding(size: int) -> bytes:
    return bytes(-size % _UNIT)


def _check(dtype: object, shape: Any) -> None:
    if dtype not in _DTYPES or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"an array of dtype {dtype!r} and shape {shape!r}")


class Outbox:
    """What is still to be written to a socket. An interrupt, wherever it comes, loses none of it.

    Parameters
    ----------
    connection : socket
        Where it goes.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._parts: Parts = []
        self._sent: list[int] = []  # bytes of these that were written and are still among them

    def add(self, parts: Parts) -> None:
        """Have parts written after all others."""
        self._parts += parts

    def push(self, flags: int = 0) -> bool:
        """Write once, if there is something; return whether there is more.

        Raises
        ------
        OSError
            If the other side is gone; a BlockingIOError if `flags` forbid to wait.
        """
        self._drop_sent()
        if self._parts:
            given = [self._parts[:_MOST_PARTS]], [()], [flags]
            # In one step, as far as Python's signals go: what was written is noted down.
            self._sent.extend(map(self._connection.sendmsg, *given))
            self._drop_sent()
        return bool(self._parts)

    def _drop_sent(self) -> None:
        sent, done, parts = sum(self._sent), 0, self._parts
        while done < len(parts) and sent >= len(parts[done]):
            sent -= len(parts[done])
            done += 1
        left, none = parts[done:], list[int]()
        if sent:
            left[0] = left[0][sent:]
        self._parts, self._sent = left, none  # no calls: both or neither


def send(connection: socket.socket, message: Message) -> None:
    """Write a message.

    Raises
    ------
    OSError
        If the other side is gone.
    """
    outbox = Outbox(connection)
    outbox.add(pack(message))
    while outbox.push():
        pass


def receive(connection: socket.socket) -> Message | None:
    """Read a message; None where the other side has ended.

    Raises
    ------
    OSError, ValueError
        If the other side is gone, or does not say what `send` says.
    """
    length = bytearray(_LENGTH.size)
    if not _fill(connection, memoryview(length)):
        return None
    size = _LENGTH.unpack(length)[0]
    if size > _LONGEST_HEADER:
        raise ValueError(f"a header of {size} bytes")
    header = bytearray(size)
    if not _fill(connection, memoryview(header)):
        return None
    content = json.loads(header)
    arrays = []
    for dtype, shape in content["arrays"]:
        _check(dtype, shape)
        array: NDArray[Any] = np.empty(shape, dtype)
        if math.prod(shape) and not _fill(connection, _bytes_of(array)):
            return None
        arrays.append(array)
    return Message(content["fields"], arrays)


def _fill(connection: socket.socket, view: memoryview) -> bool:
    while view:
        got = connection.recv_into(view)
        if got == 0:
            return False
        view = view[got:]
    return True

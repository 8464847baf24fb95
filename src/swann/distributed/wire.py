"""Messages between a searcher and its workers: a few plain values and arrays, nothing pickled.

::

    length of the header, uint32 | header, JSON | the bytes of each array, one after the other

    header    {"fields": {...}, "arrays": [[dtype, [shape]], ...]}
"""

from __future__ import annotations

import json
import math
import socket
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Message", "Parts", "pack", "push", "receive", "send"]

_LENGTH = struct.Struct("<I")
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
    arrays = [np.ascontiguousarray(array) for array in message.arrays]
    described = [[array.dtype.str, array.shape] for array in arrays]
    header = json.dumps({"fields": message.fields, "arrays": described}).encode()
    parts = [memoryview(_LENGTH.pack(len(header)) + header)]
    return parts + [array.reshape(-1).view(np.uint8).data for array in arrays if array.size]


def push(connection: socket.socket, parts: Parts, flags: int = 0) -> Parts:
    """Write once, and return what is left to be written."""
    sent = connection.sendmsg(parts[:_MOST_PARTS], [], flags)
    done = 0
    while done < len(parts) and sent >= len(parts[done]):
        sent -= len(parts[done])
        done += 1
    parts = parts[done:]
    if sent:
        parts[0] = parts[0][sent:]
    return parts


def send(connection: socket.socket, message: Message) -> None:
    """Write a message.

    Raises
    ------
    OSError
        If the other side is gone.
    """
    parts = pack(message)
    while parts:
        parts = push(connection, parts)


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
        if dtype not in _DTYPES or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"an array of dtype {dtype!r} and shape {shape!r}")
        array: NDArray[Any] = np.empty(shape, dtype)
        if math.prod(shape) and not _fill(connection, array.reshape(-1).view(np.uint8).data):
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

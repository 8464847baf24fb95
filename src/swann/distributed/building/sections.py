"""Results of tasks: a few arrays in one file, any part of which can be read and checked alone.

::

    0      "swannsec", then uint32: length of the header, its CRC-32
    16     the header: JSON of what was told, the sections' dtypes, shapes and offsets
    body   the sections, each from a multiple of 64 on
    end    uint32: the CRC-32 of every 64 KB of the body, and that of these

A file is written beside and put in place in one step. Nothing in it is trusted before it is
checked: who reads a part reads the 64 KB around it.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from swann.index.disk import file_system

__all__ = ["LostError", "Sections", "write_sections"]

_MAGIC = b"swannsec"
_BLOCK = 1 << 16
_ALIGNMENT = 64
_MOST_HEADER = 1 << 24


class LostError(Exception):
    """A file is missing or damaged: whoever made it makes it again.

    Parameters
    ----------
    path : str
        Its path.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        super().__init__(path, reason)
        self.path = path


def write_sections(path: Path, told: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays, and what is told of them, under a path."""
    described: dict[str, Any] = {}
    offset = 0
    for name, array in arrays.items():
        described[name] = {"dtype": array.dtype.str, "shape": array.shape, "offset": offset}
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps({"told": told, "size": offset, "sections": described}).encode()

    def write(file: BinaryIO) -> str:
        file.write(_MAGIC + _u32(len(header)) + _u32(zlib.crc32(header)) + header)
        body = _Body(file)
        for array in arrays.values():
            body.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            body.write(memoryview(bytes(-array.nbytes % _ALIGNMENT)))
        checks = np.array(body.finish(), "<u4").tobytes()
        file.write(checks + _u32(zlib.crc32(checks)))
        return path.name

    file_system.place_file(path.parent, path.stem, write)
    file_system.sync_directory(path.parent)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


class _Body:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checks: list[int] = []
        self._filled = 0  # of the last block
        self._check = 0

    def write(self, data: memoryview) -> None:
        begin = 0
        while begin < len(data):
            piece = data[begin : begin + _BLOCK - self._filled]
            self._file.write(piece)
            self._check = zlib.crc32(piece, self._check)
            self._filled += len(piece)
            begin += len(piece)
            if self._filled == _BLOCK:
                self._end_block()

    def _end_block(self) -> None:
        self._checks.append(self._check)
        self._check = self._filled = 0

    def finish(self) -> list[int]:
        if self._filled:
            self._end_block()
        return self._checks


class Sections:
    """A file that `write_sections` wrote.

    Parameters
    ----------
    path : str or Path
        The file.

    Attributes
    ----------
    told : dict
        What its writer told.

    Raises
    ------
    LostError
        If it is missing, truncated or damaged; so do all methods that read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            with open(path, "rb") as file:
                head = file.read(16)
                length = int.from_bytes(head[8:12], "little")
                header = file.read(min(length, _MOST_HEADER))
                size = file.seek(0, 2)
                sound = head[:8] == _MAGIC and len(header) == length
                if not sound or zlib.crc32(header) != int.from_bytes(head[12:16], "little"):
                    raise self._lost("its header is damaged")
                content = json.loads(header)
                self._begin, self._size = 16 + length, int(content["size"])
                blocks = -(-self._size // _BLOCK)
                if size != self._begin + self._size + 4 * blocks + 4:
                    raise self._lost(f"it has {size} bytes")
                file.seek(self._begin + self._size)
                checks = file.read(4 * blocks)
                if zlib.crc32(checks) != int.from_bytes(file.read(4), "little"):
                    raise self._lost("its checksums are damaged")
        except OSError as error:
            raise self._lost(str(error)) from error
        self._checks = np.frombuffer(checks, "<u4")
        self.told: dict[str, Any] = content["told"]
        self._sections: dict[str, Any] = content["sections"]

    def _lost(self, reason: str) -> LostError:
        return LostError(self.path, reason)

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def names(self) -> list[str]:
        """Return the names of the sections."""
        return list(self._sections)

    def length(self, name: str) -> int:
        """Return the number of rows of a section."""
        return int(self._sections[name]["shape"][0])

    def read(self, name: str, first: int = 0, last: int | None = None) -> NDArray[Any]:
        """Return rows of a section, once their blocks are checked; the array is a copy."""
        section = self._sections[name]
        dtype, shape = np.dtype(section["dtype"]), section["shape"]
        last = shape[0] if last is None else last
        row = dtype.itemsize * math.prod(shape[1:])
        begin, end = section["offset"] + first * row, section["offset"] + last * row
        if begin == end:
            return np.empty((last - first, *shape[1:]), dtype)
        low, high = begin // _BLOCK, -(-end // _BLOCK)
        length = min(high * _BLOCK, self._size) - low * _BLOCK
        data = bytearray(length)
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self._begin + low * _BLOCK)
                view, got = memoryview(data), 0
                while got < length and (step := file.readinto(view[got:])):
                    got += step
        except OSError as error:
            raise self._lost(str(error)) from error
        if got != length:
            raise self._lost("it is truncated")
        for block in range(low, high):
            place = (block - low) * _BLOCK
            if zlib.crc32(view[place : place + _BLOCK]) != self._checks[block]:
                raise self._lost(f"section {name} is damaged")
        part = view[begin - low * _BLOCK : end - low * _BLOCK]
        return np.frombuffer(part, dtype).reshape(last - first, *shape[1:])

    def check(self) -> None:
        """Read and check all of it."""
        for name in self._sections:
            count = self.length(name)
            step = max(1, count * _BLOCK * 64 // max(1, self._size))
            for first in range(0, count, step):
                self.read(name, first, min(count, first + step))

"""A saved index in one file: its directory as a zip in which nothing is compressed.

::

    local header, padding       |  the padding puts values at multiples of 64 bytes, so that they
    rows-3f2a91c05d7be846.npy   |  can be used where they are mapped
    ...
    local header, padding
    manifest.json
    central directory           |  where each file is, its size and CRC-32
    (zip64) end record

Any tool reads it: ``unzip`` makes the directory of it, ``numpy.load`` lists its arrays. We read a
zip only if it is laid out like this; where files are is checked before it is used.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from swann.errors import CorruptIndexError, IndexFormatError

__all__ = ["BundleWriter", "members_of"]

_ALIGNMENT = 64
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_FULL = 0xFFFFFFFF  # the number is in a zip64 field
_FIRST_DAY = (1 << 5) | 1  # 1980-01-01: a file's bytes do not tell when it was written
_PADDING_ID = 0xD935  # of an extra field, as Android's zipalign uses it
_MOST_FILES = 1000
_NAME = re.compile(rb"[\w-]{1,100}\.(npy|json)")


class _Member(NamedTuple):
    name: bytes
    offset: int  # of its local header
    size: int
    crc: int


class BundleWriter:
    """Writes files into a new bundle, then its directory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members: list[_Member] = []

    def add(self, name_length: int, size: int, write: Callable[[BinaryIO], tuple[str, int]]) -> str:
        """Add a file of so many bytes; `write` writes it and returns its name and CRC-32."""
        file, offset = self._file, self._file.tell()
        file.write(_local_header(_Member(b"-" * name_length, offset, size, 0)))
        name, crc = write(file)
        member = _Member(name.encode(), offset, size, crc)
        self._members.append(member)
        file.seek(offset)
        file.write(_local_header(member))
        file.seek(0, 2)
        return name

    def add_bytes(self, name: str, data: bytes) -> None:
        """Add a small file."""

        def write(file: BinaryIO) -> tuple[str, int]:
            file.write(data)
            return name, zlib.crc32(data)

        self.add(len(name), len(data), write)

    def finish(self) -> None:
        """Write the directory of the zip."""
        begin = self._file.tell()
        for member in self._members:
            self._file.write(_central_header(member))
        end, count = self._file.tell(), len(self._members)
        if end >= _FULL:
            self._file.write(
                _END64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, end - begin, begin)
                + _LOCATOR.pack(b"PK\x06\x07", 0, end, 1)
            )
        sizes = (end - begin, min(begin, _FULL))
        self._file.write(_END.pack(b"PK\x05\x06", 0, 0, count, count, *sizes, 0))


def _local_header(member: _Member) -> bytes:
    size = min(member.size, _FULL)
    extra = struct.pack("<2H2Q", 1, 16, member.size, member.size) if size == _FULL else b""
    length = _LOCAL.size + len(member.name) + len(extra) + 6
    padding = -(member.offset + length) % _ALIGNMENT
    extra += struct.pack("<3H", _PADDING_ID, 2 + padding, _ALIGNMENT) + bytes(padding)
    lengths = len(member.name), len(extra)
    fields = (45, 0, 0, 0, _FIRST_DAY, member.crc, size, size, *lengths)
    return _LOCAL.pack(b"PK\x03\x04", *fields) + member.name + extra


def _central_header(member: _Member) -> bytes:
    size, offset = min(member.size, _FULL), min(member.offset, _FULL)
    large = [member.size] * 2 if size == _FULL else []
    large += [member.offset] if offset == _FULL else []
    extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    fields = (45, 45, 0, 0, 0, _FIRST_DAY, member.crc, size, size)
    lengths = len(member.name), len(extra), 0
    return _CENTRAL.pack(b"PK\x01\x02", *fields, *lengths, 0, 0, 0, offset) + member.name + extra


def members_of(data: memoryview, path: Path) -> dict[str, memoryview]:
    """Return the files of a mapped bundle by name.

    Raises
    ------
    IndexFormatError
        If it is no zip.
    CorruptIndexError
        If it is not laid out as `BundleWriter` does it.
    """
    if bytes(data[:4]) != b"PK\x03\x04":
        raise IndexFormatError(
            f"{path} is no index: it is neither a directory nor a file that Searcher.save wrote"
        )
    try:
        return {m.name.decode(): _content(data, m) for m in _read_central(data)}
    except (struct.error, ValueError) as error:
        raise CorruptIndexError(
            f"{path} is damaged, or not laid out as Searcher.save does it: {error}; if unzip can "
            "unpack it, load the directory"
        ) from error


def _read_central(data: memoryview) -> list[_Member]:
    end = len(data) - _END.size
    _expect(end >= 0 and bytes(data[end : end + 4]) == b"PK\x05\x06", "there is no end record")
    _, _, _, _, count, size, begin, _ = _END.unpack(data[end:])
    if begin == _FULL:
        end -= _LOCATOR.size + _END64.size
        _expect(
            end >= 0 and bytes(data[end : end + 4]) == b"PK\x06\x06", "there is no zip64 record"
        )
        *_, count, size, begin = _END64.unpack(data[end : end + _END64.size])
    _expect(count <= _MOST_FILES, f"it has {count} files")
    _expect(begin + size == end, f"its directory has {size} bytes at {begin}")
    members = []
    place = begin
    for _ in range(count):
        member, place = _read_entry(data[:end], place)
        _expect(member.offset + member.size <= begin, f"{member.name!r} overlaps its directory")
        members.append(member)
    _expect(place == end, "its directory has another size")
    _expect(len({m.name for m in members}) == count, "a name comes twice")
    return members


def _read_entry(data: memoryview, place: int) -> tuple[_Member, int]:
    fields = _CENTRAL.unpack(data[place : place + _CENTRAL.size])
    signature, _, _, flags, method, _, _, crc, stored, size, n, m, c, _, _, _, offset = fields
    _expect(signature == b"PK\x01\x02", "an entry is no entry")
    place += _CENTRAL.size
    name, extra = bytes(data[place : place + n]), data[place + n : place + n + m]
    _expect(_NAME.fullmatch(name) is not None, f"it has a file {name!r}")
    _expect(flags == method == 0 and stored == size, f"{name!r} is compressed or encrypted")
    if size == _FULL or offset == _FULL:
        large = struct.unpack(f"<2H{(len(extra) - 4) // 8}Q", extra)[2:]
        sizes = 2 * (size == _FULL)
        _expect(len(large) == sizes + (offset == _FULL), f"{name!r} has another zip64 field")
        size = large[0] if sizes else size
        offset = large[-1] if offset == _FULL else offset
    return _Member(name, offset, size, crc), place + n + m + c


def _content(data: memoryview, member: _Member) -> memoryview:
    """Return the bytes of a file; its local header says where they begin."""
    begin = member.offset + _LOCAL.size
    signature, *_, n, m = _LOCAL.unpack(data[member.offset : begin])
    _expect(signature == b"PK\x03\x04", f"{member.name!r} has no header")
    _expect(
        bytes(data[begin : begin + n]) == member.name, f"{member.name!r} has another name inside"
    )
    begin += n + m
    _expect(begin % _ALIGNMENT == 0, f"{member.name!r} is not aligned")
    return data[begin : begin + member.size]


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)

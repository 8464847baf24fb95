"""Reading the log of changes of a directory, which its writer may be appending to."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from swann.errors import CorruptIndexError, FormatVersionError
from swann.index.disk.file_system import open_plain
from swann.index.disk.log_files import log_files
from swann.index.log.format import (
    CLOSE,
    FILE_HEADER,
    MAGIC,
    RECORD_HEADER,
    VERSION,
    Change,
    RecordHeader,
    decode_change,
    read_file_header,
    read_record_header,
)
from swann.index.state import LogPoint

__all__ = ["LogReader", "Logged"]

_BLOCK = 1 << 20


class Logged(NamedTuple):
    """A change, and where it is."""

    sequence: int
    change: Change
    path: Path
    begin: int


class LogReader:
    """Reads the changes after a checkpoint, in order, and tells where they end.

    Parameters
    ----------
    root : path
        The directory of the log.
    point : LogPoint
        The checkpoint.

    Attributes
    ----------
    path, first : path, int
        The last file that was read, and the number of its first change.
    end : int
        Where the last change read ends in it.
    following : int
        The number of the change after that.
    """

    def __init__(self, root: Path, point: LogPoint) -> None:
        self._root = root
        self._id = bytes.fromhex(point.id)
        self.following = point.sequence + 1
        self.path, self.first, self.end = root, 0, 0

    def changes(self) -> Iterator[Logged]:
        """Yield them; what a crash left of the last record is left out.

        Raises
        ------
        CorruptIndexError
            If the log is missing, belongs to another index, or is damaged before its tail.
        FormatVersionError
            If it was written by a newer version.
        """
        files = log_files(self._root)
        # A checkpoint removes the files before it last.
        while len(files) > 1 and files[1][0] <= self.following:
            del files[0]
        if not files or files[0][0] > self.following:
            raise CorruptIndexError(
                f"{self._root} lacks the log that begins with change {self.following}"
            )
        for place, (first, path) in enumerate(files):
            if place and first != self.following:
                raise CorruptIndexError(
                    f"{path} begins with change {first}; expected {self.following}"
                )
            self.path, self.first = path, first
            for logged in self._read_file(path, first, last=place == len(files) - 1):
                if logged.sequence >= self.following:
                    self.following = logged.sequence + 1
                    yield logged

    def give_back(self, logged: Logged) -> None:
        """Let the log end before its last change."""
        self.following, self.end = logged.sequence, logged.begin

    def _read_file(self, path: Path, first: int, *, last: bool) -> Iterator[Logged]:
        try:
            file = open_plain(path)
        except FileNotFoundError:
            raise CorruptIndexError(f"{path} is missing") from None
        with file:
            _check_file(path, file.read(FILE_HEADER), self._id, first)
            seed, self.end, expected = zlib.crc32(self._id), FILE_HEADER, first
            while (found := _read_record(file, seed, self.end)) is not None:
                header, payload = found
                begin = self.end
                if header.sequence != expected:
                    raise CorruptIndexError(
                        f"{path} has change {header.sequence} at byte {begin}; expected {expected}"
                    )
                self.end = begin + header.size
                if header.kind != CLOSE:
                    try:
                        change = decode_change(header.kind, payload)
                    except ValueError as error:
                        raise CorruptIndexError(f"{path} at byte {begin}: {error}") from error
                    yield Logged(expected, change, path, begin)
                    expected += 1
            _check_end(path, file, seed, self.end, expected, last)


def _check_file(path: Path, data: bytes, log_id: bytes, first: int) -> None:
    header = read_file_header(data)
    if header is None:
        raise CorruptIndexError(f"{path} is damaged at byte 0: it does not begin as a log does")
    version, flags, found, begins = header
    if version != VERSION or flags:
        raise FormatVersionError(
            f"{path} has version {version} and flags {flags}; this swann reads version {VERSION} "
            "without flags. Open it with the swann that wrote it"
        )
    if found != log_id or begins != first:
        raise CorruptIndexError(f"{path} is the log of another index, or has another name")


def _read_record(file: BinaryIO, seed: int, place: int) -> tuple[RecordHeader, bytes] | None:
    """Return the record at a place; None if there is no whole one."""
    file.seek(place)
    header = read_record_header(file.read(RECORD_HEADER), seed)
    if header is None or place + header.size > os.fstat(file.fileno()).st_size:
        return None
    payload = file.read(header.length)
    padding = file.read(-header.length % 8)
    if zlib.crc32(payload, seed) != header.crc or any(padding):
        return None
    return header, payload


def _check_end(
    path: Path, file: BinaryIO, seed: int, place: int, sequence: int, last: bool
) -> None:
    """Raise a CorruptIndexError if records end where none can have been torn off."""
    size = os.fstat(file.fileno()).st_size
    if size == place or (last and _synced_later(file, seed, place) <= place):
        return
    raise CorruptIndexError(
        f"{path} is damaged at byte {place} of {size}, in change {sequence}; it was whole once. "
        "Restore it from a copy; to give up that change and all after it, cut the file there and "
        "remove later logs"
    )


def _synced_later(file: BinaryIO, seed: int, place: int) -> int:
    """Return how much of the file was on disk when the records behind `place` were written."""
    synced, begin, data = 0, place, b""
    while True:
        file.seek(begin + len(data))
        block = file.read(_BLOCK)
        data += block
        found = data.find(MAGIC)
        while found >= 0 and found + RECORD_HEADER <= len(data):
            if (begin + found) % 8 == 0:
                header = read_record_header(data[found : found + RECORD_HEADER], seed)
                synced = max(synced, 0 if header is None else header.synced)
            found = data.find(MAGIC, found + 1)
        if not block:
            return synced
        kept = max(0, len(data) - RECORD_HEADER + 1)
        begin, data = begin + kept, data[kept:]

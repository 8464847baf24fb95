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
_Record = tuple[RecordHeader, bytes, bool]


class Logged(NamedTuple):
    """A change, and where it is."""

    sequence: int
    change: Change
    path: Path
    begin: int
    crc: int


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
        """Let the log end before its last change; `changes` may be called again."""
        self.following, self.end = logged.sequence, logged.begin

    def has_still(self, logged: Logged) -> bool:
        """Whether a change that was read is in the log, where it was."""
        try:
            with open_plain(logged.path) as file:
                return _is_in(file, zlib.crc32(self._id), logged)
        except FileNotFoundError:
            return False

    def _read_file(self, path: Path, first: int, *, last: bool) -> Iterator[Logged]:
        try:
            file = open_plain(path)
        except FileNotFoundError:
            raise CorruptIndexError(f"{path} is missing") from None
        with file:
            _check_file(path, file.read(FILE_HEADER), self._id, first)
            seed, self.end, expected = zlib.crc32(self._id), FILE_HEADER, first
            unsure: Logged | None = None  # a writer may take back what nothing followed
            while (found := _next_record(path, file, seed, self.end, expected, last)) is not None:
                header, payload, followed = found
                begin = self.end
                if unsure is not None and not _is_in(file, seed, unsure):
                    raise CorruptIndexError(f"{path} was changed at byte {unsure.begin} meanwhile")
                if header.sequence != expected and not _closed_early(header, expected):
                    raise CorruptIndexError(
                        f"{path} has change {header.sequence} at byte {begin}; expected {expected}"
                    )
                self.end = begin + header.size
                if header.kind != CLOSE:
                    try:
                        change = decode_change(header.kind, payload)
                    except ValueError as error:
                        raise CorruptIndexError(f"{path} at byte {begin}: {error}") from error
                    logged = Logged(expected, change, path, begin, header.crc)
                    unsure = None if followed else logged
                    yield logged
                    expected += 1


def _closed_early(header: RecordHeader, expected: int) -> bool:
    """Whether this is how a log was closed by versions that did so beside another thread."""
    return header.kind == CLOSE and header.sequence == expected - 1


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


def _next_record(
    path: Path, file: BinaryIO, seed: int, place: int, sequence: int, last: bool
) -> _Record | None:
    """Return the record at a place, None if the log may end there; else it is damaged."""
    found = _read_record(file, seed, place)
    if found is not None or _may_end(file, seed, place, last):
        return found
    # A writer may have written it, and what follows, after we looked: it is whole then.
    found = _read_record(file, seed, place)
    if found is None:
        size = os.fstat(file.fileno()).st_size
        raise CorruptIndexError(
            f"{path} is damaged at byte {place} of {size}, in change {sequence}; it was whole "
            "once. Restore it from a copy; to give up that change and all after it, cut the file "
            "there and remove later logs"
        )
    return found


def _read_record(file: BinaryIO, seed: int, place: int) -> _Record | None:
    """Return the record at a place, and whether anything follows it; None if it is not whole."""
    header = _read_header(file, seed, place)
    if header is None:
        return None
    follows = place + header.size
    size = os.fstat(file.fileno()).st_size
    if size < follows:
        return None
    payload = file.read(header.length)
    padding = file.read(-header.length % 8)
    if zlib.crc32(payload, seed) != header.crc or any(padding):
        return None
    return header, payload, size > follows


def _read_header(file: BinaryIO, seed: int, place: int) -> RecordHeader | None:
    file.seek(place)
    return read_record_header(file.read(RECORD_HEADER), seed)


def _is_in(file: BinaryIO, seed: int, logged: Logged) -> bool:
    """Whether a change is where it was read."""
    file.seek(0, os.SEEK_END)  # forget what was read ahead
    header = _read_header(file, seed, logged.begin)
    return header is not None and header.crc == logged.crc


def _may_end(file: BinaryIO, seed: int, place: int, last: bool) -> bool:
    """Whether records may end here: what follows, if anything, may have been torn off."""
    size = os.fstat(file.fileno()).st_size
    may = size == place or (last and _synced_later(file, seed, place) <= place)
    file.seek(0, os.SEEK_END)  # forget what was read ahead
    return may


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

"""Writing the log of changes: a change is on disk, or in the system's hands, before it is made."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from swann.errors import LogError, ReadOnlyError
from swann.index.disk import file_system
from swann.index.disk.log_files import log_name
from swann.index.log.format import (
    CLOSE,
    DELETE,
    FILE_HEADER,
    UPSERT,
    Change,
    RecordHeader,
    encode_change,
    encode_file_header,
    encode_record_header,
)
from swann.index.state import LogPoint

__all__ = ["Durability", "FileJournal", "Journal", "NoJournal", "start_log"]

Durability = Literal["always", "batch", "none"]

_SMALL = 1 << 16


class Journal(Protocol):
    """Where a `LiveIndex` notes down its changes before it makes them."""

    def begin(self) -> Callable[[], None]:
        """Return what takes back the change that follows; it may be called more than once.

        Raises
        ------
        ReadOnlyError, LogError
            If no change can be made.
        """

    def upsert(self, docids: list[Any] | None, first: int, rows: NDArray[np.float32]) -> None:
        """Note an upsert, see `swann.index.log.format.Change`; an OSError if that fails."""

    def delete(self, docids: list[Any]) -> None:
        """Note a deletion; an OSError if that fails."""

    def rotate(self) -> LogPoint:
        """Begin a new file; return where it begins."""


class NoJournal:
    """Refuses all changes.

    Parameters
    ----------
    reason : str
        Why.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def begin(self) -> NoReturn:  # noqa: D102
        raise ReadOnlyError(f"this index cannot be changed: {self._reason}")

    def upsert(self, *_: object) -> NoReturn:  # noqa: D102
        self.begin()

    def delete(self, *_: object) -> NoReturn:  # noqa: D102
        self.begin()

    def rotate(self) -> NoReturn:  # noqa: D102
        self.begin()


def start_log(root: Path, log_id: str, first: int) -> Path:
    """Make a log file without changes, so that it lasts."""
    name = log_name(first)

    def write(file: BinaryIO) -> str:
        file.write(encode_file_header(bytes.fromhex(log_id), first))
        return name

    file_system.place_file(root, name, write)
    file_system.sync_directory(root)
    return root / name


class FileJournal:
    """Appends changes to a log.

    `begin`, `upsert`, `delete`, what `begin` returns, and `rotate` are called by one thread at a
    time, which has the lock of the index; `flush` by any.

    Parameters
    ----------
    path : path
        Of the last log file.
    first : int
        Number of its first change.
    log_id : str
        That of the directory.
    end : int
        Bytes of the file that are sound; what follows is cut off.
    following : int
        Number of the next change.
    durability : {"always", "batch", "none"}
        ``"always"`` flushes every change to disk before it returns; ``"batch"`` what has come
        within `interval`; ``"none"`` leaves it to the system.
    interval : float
        Seconds.
    backlog : int
        Bytes of older log files.
    """

    def __init__(
        self,
        path: Path,
        first: int,
        log_id: str,
        end: int,
        following: int,
        durability: Durability,
        interval: float,
        backlog: int = 0,
    ) -> None:
        self._root, self._id = path.parent, log_id
        self._seed = zlib.crc32(bytes.fromhex(log_id))
        self._process = os.getpid()
        self._durability, self._interval = durability, interval
        self._failure: BaseException | None = None
        self._closed = False
        # Taken in this order. Held while the end of the file moves: the interpreter may end, and
        # close the log, while a daemon thread changes the index.
        self._writing = threading.RLock()
        # Held while the file is flushed, cut or replaced.
        self._flushing = threading.RLock()
        self._wanted, self._stopped = threading.Event(), threading.Event()
        self._flusher: threading.Thread | None = None
        self.path, self._first, self.following = path, first, following
        self._backlog = backlog
        self._file = _open_log(path)
        self._began = self._end = end
        self._torn = False  # bytes may follow the end
        try:
            os.ftruncate(self._file, end)
            file_system.flush_to_disk(self._file)
        except BaseException:
            os.close(self._file)
            raise
        self._synced = end

    # ---- One change at a time

    def begin(self) -> Callable[[], None]:
        """Return what takes back the change that follows."""
        self._check_open()
        if self._process != os.getpid():
            raise ReadOnlyError(
                f"this index cannot be changed: process {self._process} has it open, which this "
                "one was forked from; open it after the fork, in one of them"
            )
        if self._failure is not None:
            raise LogError(
                f"{self.path} could not be brought to disk: {self._failure}. What was not flushed "
                "may be lost and no more changes are accepted; close the index and open it again"
            ) from self._failure
        return partial(self._retract, self._end, self.following)

    def upsert(self, docids: list[Any] | None, first: int, rows: NDArray[np.float32]) -> None:
        """Append an upsert."""
        self._append(UPSERT, Change(docids, first, rows))

    def delete(self, docids: list[Any]) -> None:
        """Append a deletion."""
        self._append(DELETE, Change(docids, 0, None))

    def _check_open(self) -> None:
        if self._closed:
            raise ReadOnlyError("this index cannot be changed: it was closed")

    def _append(self, kind: int, change: Change) -> None:
        parts = encode_change(change)
        with self._writing:
            self._check_open()
            self._torn = True  # what `begin` returned sets it right, should this not get further
            self._write(kind, parts)
            self.following += 1
            self._torn = False
            if self._durability == "always":
                self.flush()
        if self._durability == "batch":
            self._want_flush()

    def _write(self, kind: int, parts: list[Any]) -> None:
        length, crc = 0, self._seed
        for part in parts:
            view = memoryview(part).cast("B")
            length += len(view)
            crc = zlib.crc32(view, crc)
        header = RecordHeader(kind, self.following, length, self._synced, crc)
        parts = [encode_record_header(header, self._seed), *parts, bytes(-length % 8)]
        if header.size < _SMALL:
            parts = [b"".join(parts)]
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                view = view[os.write(self._file, view) :]
        self._end += header.size

    def _retract(self, end: int, following: int) -> None:
        """Take back what was written after `end`: it is not made and must not come back."""
        if self._process != os.getpid() or (self._end == end and not self._torn):
            return
        with self._writing, self._flushing:
            if self._closed:
                return  # what was not made is the last change of the log: `replay` leaves it out
            try:
                os.ftruncate(self._file, end)
                if self._failure is None:
                    file_system.flush_to_disk(self._file)
            except OSError as error:
                self._failure = self._failure or error
            self._end, self.following = end, following
            self._synced = min(self._synced, end)
            self._torn = False

    # ---- To disk

    def flush(self) -> None:
        """Flush what was appended to disk.

        Raises
        ------
        LogError
            If that fails, now or earlier. What the disk holds is unknown then, whatever a second
            try would say.
        """
        if self._process != os.getpid():
            return  # in a forked child nobody may be there to end what is held
        with self._flushing:
            if self._closed:
                return
            end = self._end
            if self._failure is None and self._synced < end:
                try:
                    file_system.flush_to_disk(self._file)
                except OSError as error:
                    self._failure = error
                else:
                    self._synced = end
            if self._failure is not None:
                self.begin()

    def _want_flush(self) -> None:
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush_often, daemon=True)
            self._flusher.start()
        if not self._wanted.is_set():
            self._wanted.set()

    def _flush_often(self) -> None:
        while True:
            self._wanted.wait()
            self._stopped.wait(self._interval)
            if self._closed:
                return
            self._wanted.clear()  # before the flush, so that what comes during it is flushed next
            try:
                self.flush()
            except LogError:
                return  # the next change says so

    # ---- Files

    @property
    def backlog(self) -> int:
        """Bytes of log after the checkpoint."""
        return self._backlog + self._end

    def forget_older_files(self) -> None:
        """Note that a checkpoint holds the changes of all files but the last."""
        self._backlog = 0

    def rotate(self) -> LogPoint:
        """Go on in a new file; what is in those before is on disk afterwards."""
        with self._flushing:
            self.begin()
            self.flush()
            point = LogPoint(self._id, self.following - 1)
            if self.following == self._first:
                return point  # there is nothing in this file
            try:
                path = start_log(self._root, self._id, self.following)
                handle = _open_log(path)
            except BaseException as error:
                self._cancel_file(error)
                raise
            old = self._file
            # No calls between these: an interrupt comes before or after all of them.
            self._file, self.path, self._first = handle, path, self.following
            self._backlog += self._end
            self._began = self._end = self._synced = FILE_HEADER
            with suppress(OSError):  # all of it is on disk
                os.close(old)
        return point

    def _cancel_file(self, error: BaseException) -> None:
        """Remove a new file: changes go on in the old one, which must be the last."""
        try:
            (self._root / log_name(self.following)).unlink(missing_ok=True)
            file_system.sync_directory(self._root)
        except OSError:
            self._failure = error

    def close(self) -> None:
        """Flush and close the file; does nothing the second time, and nothing after a fork.

        Raises
        ------
        LogError
            If what was appended may not all be on disk.
        """
        if self._process != os.getpid():
            return
        with self._writing, self._flushing:
            if self.closed:
                return
            try:
                self.flush()
                self._mark_end()
            except LogError:
                self._release()
                raise
            self._release()

    @property
    def closed(self) -> bool:
        """Whether it was closed; not if an interrupt came before that."""
        return self._closed

    def _release(self) -> None:
        self._closed = True
        self._stopped.set()
        self._wanted.set()
        file, self._file = self._file, -1
        with suppress(OSError):  # what could be brought to disk is there
            os.close(file)

    def _mark_end(self) -> None:
        """Say that all of the file was on disk, so that damage is never taken for a torn tail."""
        if self._end == self._began or self._torn:
            return
        try:
            self._write(CLOSE, [])
            file_system.flush_to_disk(self._file)
        except OSError:
            pass  # the next to open it cuts off what is torn


def _open_log(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags)

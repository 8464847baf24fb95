"""One writer a directory: a lock file that names its holder and ends with its process."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Literal

from swann.errors import LockedError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["LOCK_FILE", "DirectoryLock"]

LOCK_FILE = ".lock"
_PLACE = 1 << 30  # what Windows locks of the file; nobody could read the rest otherwise
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # some network disks
_UNKNOWN = 100  # tries, 5 ms apart, until a holder has said who it is

Purpose = Literal["save", "open"]


class DirectoryLock:
    """Keeps other writers out of a directory, those of this process too, until released.

    The system ends it with the process, however that ends. A forked child does not have it.

    Parameters
    ----------
    root : path
        An existing directory.
    purpose : {"save", "open"}
        Others wait for a save to end; an index that is open for changes makes them fail.

    Raises
    ------
    LockedError
        If another holds the directory open, or this thread is saving to it already.
    OSError
        If there can be no lock file.
    """

    def __init__(self, root: Path, purpose: Purpose) -> None:
        self._path = root / LOCK_FILE
        self._process = os.getpid()
        # An object, so that an interrupt anywhere drops it, which closes and unlocks it.
        self._file: io.FileIO | None = None
        self._locked = False
        self._refuse_within()
        if purpose == "save":
            _mine.saves.add(self)
        _held.add(self)
        try:
            self._acquire(root, purpose)
        except BaseException:
            self.release()
            raise

    def _refuse_within(self) -> None:
        """Raise a LockedError where we would wait for a save that we interrupt."""
        for other in list(_mine.saves):
            if other._is_at(self._path):
                raise LockedError(
                    f"{self._path.parent} was to be saved to, or opened, from within another save "
                    "to it (by a signal handler); expected it after that"
                )

    def _acquire(self, root: Path, purpose: Purpose) -> None:
        unknown = 0
        while True:
            try:
                self._file = io.FileIO(self._path, "a+")
                handle = self._file.fileno()
                if _lock(handle, purpose == "save"):
                    self._locked = self._is_at(self._path)
                    if not self._locked:
                        continue  # its holder removed it before we had it
                    with suppress(OSError):  # a full disk: others are kept out all the same
                        os.ftruncate(handle, 0)
                        os.write(handle, f"{self._process} {purpose}\n".encode())
                    return
                os.lseek(handle, 0, os.SEEK_SET)
                holder = os.read(handle, 100).decode("ascii", "replace").split()
            finally:
                if not self._locked:  # else we would keep ourselves out
                    self._drop()
            unknown += holder[1:] not in (["open"], ["save"])
            if holder[1:] == ["open"] or unknown > _UNKNOWN:
                process = holder[0] if holder else "(unknown)"
                raise LockedError(
                    f"{root} is open for changes in process {process}; "
                    "expected one writer. Close it there, or open it here with mode='r'"
                )
            time.sleep(0.005)

    def is_there(self) -> bool:
        """Whether the locked directory is where it was, unless there is no telling."""
        try:
            return self._is_at(self._path)
        except OSError:
            return False

    def check(self) -> None:
        """Raise a LockedError if there is another directory now where the locked one was."""
        if not self._is_at(self._path):
            raise LockedError(
                f"{self._path.parent} is not the directory any more that was opened: it was moved, "
                "or another was put in its place"
            )

    def release(self) -> None:
        """Let others in; does nothing the second time, and nothing in a forked child."""
        if self._process != os.getpid():
            return
        # Nothing is lost where these fail: a file that stays is not locked.
        try:
            if os.name == "posix" and self._locked:
                with suppress(OSError):
                    if self._is_at(self._path):  # not that of a directory put in its place
                        self._path.unlink(missing_ok=True)  # while no other can have it
        finally:
            with suppress(OSError):
                self._drop()
            self._locked = False

    @property
    def held(self) -> bool:
        """Whether it was not released yet; never in a forked child."""
        return self._file is not None

    def _drop(self) -> None:
        """Close the file, which unlocks it."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _is_at(self, path: Path) -> bool:
        """Whether a path leads to the file that is locked."""
        return self._file is not None and _is_at(self._file.fileno(), path)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _forget(self) -> None:
        """Leave the lock to the process that this one was forked from."""
        self._locked = False
        self._drop()


def _lock(handle: int, optional: bool) -> bool:
    """Lock an open file; whether nobody else has it. `optional`: or there are no locks here."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, _PLACE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        if sys.platform == "win32":
            os.lseek(handle, 0, os.SEEK_SET)
        return False
    except OSError as error:
        if not optional or error.errno not in _NO_LOCKS:
            raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether a path leads to this open file."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


class _Mine(threading.local):
    """The locks by which this thread saves: one, or more where saves are within saves."""

    def __init__(self) -> None:
        self.saves: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


_mine = _Mine()
_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()


if hasattr(os, "register_at_fork"):  # a child would hold the lock after its parent's death
    os.register_at_fork(after_in_child=_forget_all)

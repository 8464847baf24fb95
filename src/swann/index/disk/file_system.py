"""Files: written beside and put in place in one step, read only where they are plain files."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import re
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from swann.errors import CorruptIndexError

if sys.platform == "darwin":
    import fcntl

__all__ = [
    "flush_to_disk",
    "make_directory",
    "map_file",
    "open_plain",
    "place_file",
    "remove",
    "remove_temporary",
    "sync_directory",
]

_numbers = itertools.count()
_TEMPORARY = re.compile(r"\..+-\d+-\d+\.tmp")
# What a path may be that leads nowhere useful: too many links, a socket, a name that cannot be.
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)


def place_file(root: Path, label: str, write: Callable[[BinaryIO], str]) -> str:
    """Write a file under a name of its own, flush it to disk, then rename it.

    Parameters
    ----------
    root : path
        The directory.
    label : str
        Part of the temporary name.
    write : callable
        Writes to the file that it is given and returns the name that the file gets.

    Returns
    -------
    str
        That name. `sync_directory` makes it last.
    """
    temporary = _unused(root, label)
    try:
        with open(temporary, "x+b") as file:
            name = write(file)
            file.flush()
            flush_to_disk(file.fileno())
        _rename(temporary, root / name)
    except FileExistsError:
        raise  # it is another's
    except BaseException:
        with suppress(OSError):  # what stays is removed by the next save
            temporary.unlink(missing_ok=True)
        raise
    return name


def _unused(root: Path, label: str) -> Path:
    """Return a name that is nobody else's: no thread's, nor that of a save that this interrupts."""
    while True:
        temporary = root / f".{label}-{os.getpid()}-{next(_numbers)}.tmp"
        if not os.path.lexists(temporary):  # else of a process that was killed and had our number
            return temporary


def _rename(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except PermissionError:
        # Windows does not replace what somebody has mapped. A name that tells the content may stay.
        if os.name == "posix" or target.suffix != ".npy" or not target.exists():
            raise
        source.unlink()


def flush_to_disk(handle: int) -> None:
    """Bring what was written to a file to the disk."""
    if sys.platform == "darwin":  # fsync leaves it in the cache of the disk there
        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fsync(handle)


def make_directory(root: Path) -> None:
    """Make a directory and those above it, so that they last."""
    missing = []
    while not root.is_dir():
        missing.append(root)
        root = root.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def sync_directory(root: Path) -> None:
    """Make names in a directory last: of files that were made, renamed or removed."""
    if os.name != "posix":
        return  # directories cannot be opened there
    handle = os.open(root, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file that nobody needs, if it is there and the system lets us."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        if os.name == "posix":
            raise
        # Windows keeps files that somebody has mapped; the next save tries again.


def remove_temporary(root: Path) -> None:
    """Remove what writers left behind that were killed. The caller has the directory's lock."""
    for path in root.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            remove(path)


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading; links are followed, but only to plain files.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptIndexError
        If it is a directory, a pipe, a device.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block us
            raise CorruptIndexError(f"{path} is not a plain file")
        # Of a number in our hands, an interrupt would leave the file open.
        return open(path, "rb")
    except OSError as error:
        if error.errno in _NOWHERE:
            raise FileNotFoundError(errno.ENOENT, "missing", str(path)) from None
        raise


def map_file(path: Path) -> memoryview:
    """Map a file; errors are those of `open_plain`. Pages are read when they are touched."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return memoryview(b"")  # nothing cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))

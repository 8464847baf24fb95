"""The names of the files that a log of changes is in, in the order of its changes."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

__all__ = ["log_files", "log_name", "log_signature"]

_LOG_FILE = re.compile(r"log-([0-9]{20})\.swannlog")


def log_name(first: int) -> str:
    """Return the name of the file whose first change has this number."""
    return f"log-{first:020}.swannlog"


def log_signature(root: Path) -> list[tuple[int, int, int]]:
    """Return what changes when a log is written to: numbers, sizes and times of its files."""
    found = []
    for first, path in log_files(root):
        with suppress(OSError):  # a checkpoint removed it; of damage, reading it tells
            status = path.stat()
            found.append((first, status.st_size, status.st_mtime_ns))
    return found


def log_files(root: Path) -> list[tuple[int, Path]]:
    """Return the log files of a directory and the numbers of their first changes, in order."""
    try:
        names = os.listdir(root)  # pathlib's glob hides errors, in some versions
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [(_LOG_FILE.fullmatch(name), root / name) for name in names]
    return sorted((int(named[1]), path) for named, path in found if named is not None)

"""The library that is preloaded: it sees, and spoils, the calls of the system for one folder."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("watched.cpp")

NOTHING, KILL, TORN, FAIL, FAIL_ON, SHORT, LIE = range(7)
"""What happens at the n-th call: nothing; the process is killed before it, or in the middle of its
bytes; it fails, alone or with all that follow; moves half of its bytes; is done and says it failed.
"""


def compile_library(folder: Path) -> Path:
    """Make it; for ``LD_PRELOAD``."""
    library = folder / "watched.so"
    subprocess.run(
        ["c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-o", library, _SOURCE], check=True
    )
    return library


class Watched:
    """The library in this process.

    Parameters
    ----------
    folder : path
        Calls that concern files below it are seen.
    """

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(None)
        if not hasattr(self._library, "watch_folder"):
            raise RuntimeError("the library is not preloaded")
        self._library.arm.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_int)
        self._library.arm.restype = None
        self._library.disarm.restype = ctypes.c_long
        self._library.names_of_calls.restype = ctypes.c_char_p
        self._library.note_moment.argtypes = (ctypes.c_uint64,)
        self._library.record_size.restype = ctypes.c_size_t
        self._library.record_data.restype = ctypes.c_void_p
        self._library.watch_folder(str(folder).encode())

    def arm(self, n: int = -1, action: int = NOTHING, error: int = 0) -> None:
        """Count calls from now on, and act at the n-th."""
        self._library.arm(n, action, error)

    def disarm(self) -> int:
        """Stop that; return how often it acted."""
        return int(self._library.disarm())

    def names(self) -> list[str]:
        """Return what was called since `arm`, with a plus where bytes were written."""
        found: bytes = self._library.names_of_calls()
        return found.decode().split()

    def record(self) -> None:
        """Keep what is written, renamed, removed and flushed from now on."""
        self._library.begin_record()

    def note(self, number: int) -> None:
        """Put a number into the record."""
        self._library.note_moment(number)

    def recorded(self) -> bytes:
        """Stop that; return it: letters, numbers of 8 bytes, and texts after their lengths."""
        self._library.end_record()
        return ctypes.string_at(self._library.record_data(), self._library.record_size())

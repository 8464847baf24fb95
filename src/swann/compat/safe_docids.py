"""Reads docids that ScaNN pickled, without unpickling: nothing in the file is ever executed.

A pickle is a program for a small stack machine. A flat list of strings needs very few of its
instructions, and none of those that find classes or call functions; here is a machine that knows
only these. Any other instruction, and any other use of these, is an error.
"""

from __future__ import annotations

import os
from pathlib import Path

from swann.errors import CorruptIndexError, IndexFormatError

__all__ = ["read_docids"]

_PROTO, _FRAME, _STOP, _MARK = 0x80, 0x95, 0x2E, 0x28
_EMPTY_LIST, _APPEND, _APPENDS = 0x5D, 0x61, 0x65

# Instructions followed by a length of so many bytes and then that much text or number.
_TEXT = {0x8C: 1, 0x58: 4, 0x8D: 8}  # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
_LONG = {0x8A: 1, 0x8B: 4}  # LONG1, LONG4
# Instructions followed by an integer of so many bytes: BININT1, BININT2 are not negative.
_INTEGER = {0x4B: (1, False), 0x4D: (2, False), 0x4A: (4, True)}
# MEMOIZE, BINPUT, LONG_BINPUT note a value for later use; followed by so many bytes.
_NOTE = {0x94: 0, 0x71: 1, 0x72: 4}

_LONGEST_INTEGER = 16  # bytes


def read_docids(path: str | os.PathLike[str]) -> list[str | int]:
    """Read a pickled flat list of strings and ints.

    Parameters
    ----------
    path : path
        A file that ``pickle.dump(list, file)`` wrote, with protocol 2 to 5.

    Returns
    -------
    list of str or int

    Raises
    ------
    IndexFormatError
        If it is the pickle of something else.
    CorruptIndexError
        If it is damaged.
    """
    path = Path(path)
    return _Machine(path.read_bytes(), str(path)).run()


class _Machine:
    """Runs the few instructions: a list is made once, and then only added to."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.at = 0

    def run(self) -> list[str | int]:
        if len(self.data) < 2 or self.data[0] != _PROTO or not 2 <= self.data[1] <= 5:
            raise IndexFormatError(f"{self.name} is not a pickle of protocol 2 to 5")
        self.at = 2
        docids: list[str | int] | None = None
        pending: list[str | int] = []  # values above the list, not added to it yet
        marked = False
        while True:
            start = self.at
            code = self.integer(1)
            if code in _NOTE:
                self.integer(_NOTE[code])
            elif code == _FRAME:
                self.integer(8)
            elif docids is None:
                if code != _EMPTY_LIST:
                    self.refuse(code, start)
                docids = []
            elif code in _TEXT or code in _LONG or code in _INTEGER:
                pending.append(self.value(code, start))
                if len(pending) > 1 and not marked:
                    self.refuse(code, start)
            elif code == _MARK and not marked and not pending:
                marked = True
            elif (code == _APPENDS and marked) or (code == _APPEND and not marked and pending):
                docids += pending
                pending, marked = [], False
            elif code == _STOP and not marked and not pending:
                if self.at != len(self.data):
                    raise CorruptIndexError(f"{self.name} goes on after its end, byte {self.at}")
                return docids
            else:
                self.refuse(code, start)

    def value(self, code: int, start: int) -> str | int:
        if code in _INTEGER:
            size, signed = _INTEGER[code]
            return self.integer(size, signed)
        if code in _LONG:
            size = self.integer(_LONG[code])
            if size > _LONGEST_INTEGER:
                self.refuse(code, start)
            return self.integer(size, signed=True)
        try:
            # Half surrogates are text to Python; its own reader lets them pass too.
            return self.take(self.integer(_TEXT[code])).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise CorruptIndexError(f"{self.name}, byte {start}: text is not UTF-8") from error

    def integer(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise CorruptIndexError(f"{self.name} ends within a value, at byte {len(self.data)}")
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def refuse(self, code: int, start: int) -> None:
        raise IndexFormatError(
            f"{self.name}, byte {start}: instruction {code:#04x} is not one of a plain list of "
            "strings and ints. Nothing else is read, since unpickling may run any program"
        )

"""Reads docids that ScaNN pickled, without unpickling: nothing in the file is ever executed.

A pickle is a program for a small stack machine. Strings and ints, in a list or a tuple, need very
few of its instructions. NumPy's strings and ints, and arrays of them, need those that find a class
and call it too. Here is a machine that knows only these; where a program names one of the few
functions by which NumPy pickles, its arguments are read by the code below, and nothing is looked up
or called. Any other instruction, any other name, and any other use of these is an error. What is
made is in proportion to the file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from swann.errors import CorruptIndexError, IndexFormatError

__all__ = ["read_docids"]

_PROTO, _FRAME, _STOP, _MARK = 0x80, 0x95, 0x2E, 0x28
_EMPTY_LIST, _APPEND, _APPENDS = 0x5D, 0x61, 0x65
_MEMOIZE, _GLOBAL, _REDUCE, _BUILD = 0x94, 0x93, 0x52, 0x62

# Instructions followed by a length of so many bytes and then that much text, number or bytes.
_TEXT = {0x8C: 1, 0x58: 4, 0x8D: 8}  # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
_LONG = {0x8A: 1, 0x8B: 4}  # LONG1, LONG4
_BYTES = {0x43: 1, 0x42: 4, 0x8E: 8, 0x96: 8}  # SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
# Instructions followed by an integer of so many bytes: BININT1, BININT2 are not negative.
_INTEGER = {0x4B: (1, False), 0x4D: (2, False), 0x4A: (4, True)}
_CONSTANT = {0x4E: None, 0x88: True, 0x89: False}
_TUPLE = {0x29: 0, 0x85: 1, 0x86: 2, 0x87: 3, 0x74: -1}  # of so many values; -1: since the mark
# BINPUT, LONG_BINPUT note a value for later use, BINGET, LONG_BINGET use it.
_PUT = {0x71: 1, 0x72: 4}
_GET = {0x68: 1, 0x6A: 4}

_LONGEST_INTEGER = 16  # bytes

# What NumPy calls to make its values; its modules were named otherwise before 2.0.
_NUMPY = re.compile(
    r"numpy\.(?:dtype|ndarray|_?core\.multiarray\.(?:scalar|_reconstruct)"
    r"|_?core\.numeric\._frombuffer)"
)
_DTYPE = re.compile(r"([a-zA-Z])(\d{0,10})")
_ADVICE = (
    "Nothing else is read, since unpickling may run any program. Build the index with a plain list "
    "of strings and ints, or open it by swann.load_scann(directory, docids='ignore'), which "
    "returns row numbers"
)


def read_docids(path: str | os.PathLike[str]) -> list[str | int]:
    """Read pickled strings and ints: a list, a tuple, or an array of NumPy's with one axis.

    The strings and ints may be NumPy's own.

    Parameters
    ----------
    path : path
        A file that ``pickle.dump(docids, file)`` wrote, with protocol 2 to 5; what NumPy made, with
        4 or 5.

    Returns
    -------
    list of str or int

    Raises
    ------
    IndexFormatError
        If it is the pickle of something else; the message says of what.
    CorruptIndexError
        If it is damaged.
    """
    path = Path(path)
    return _Machine(path.read_bytes(), str(path)).run()


@dataclass
class _Named:
    """A name that the program would look up."""

    name: str


@dataclass
class _DType:
    """A dtype of NumPy: its kind, its size in bytes, its byte order."""

    kind: str
    size: int
    order: str = "<"

    def __str__(self) -> str:
        return {"U": "strings", "S": "bytes", "f": "floats", "M": "dates"}.get(
            self.kind, f"values of dtype {self.kind}{self.size}"
        )


@dataclass
class _Array:
    """An array of NumPy; None as long as the program has not said what is in it."""

    values: list[Any] | None = None


class _Machine:
    """Runs the few instructions on a stack."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.at = 0
        self.start = 0  # of the instruction
        self.code = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.noted: dict[int, Any] = {}
        self.decoded = 0  # bytes of NumPy's: a program may name the same ones again and again

    def run(self) -> list[str | int]:
        if len(self.data) < 2 or self.data[0] != _PROTO or not 2 <= self.data[1] <= 5:
            raise IndexFormatError(f"{self.name} is not a pickle of protocol 2 to 5")
        self.at = 2
        while True:
            self.start = self.at
            self.code = code = self.integer(1)
            if code == _MEMOIZE:
                self.noted[len(self.noted)] = self.top()
            elif code in _TEXT or code in _LONG or code in _INTEGER or code in _BYTES:
                self.stack.append(self.value())
            elif code in _GET:
                number = self.integer(_GET[code])
                if number not in self.noted:
                    self.refuse()
                self.stack.append(self.noted[number])
            elif code in _TUPLE:
                count = _TUPLE[code]
                self.stack.append(tuple(self.since_mark() if count < 0 else self.pop(count)))
            elif code == _REDUCE:
                called, arguments = self.pop(2)
                self.stack.append(self.reduce(called, arguments))
            elif code in _CONSTANT:
                self.stack.append(_CONSTANT[code])
            elif code == _BUILD:
                (state,) = self.pop(1)
                self.build(self.top(), state)
            elif code == _GLOBAL:
                self.stack.append(self.named(*self.pop(2)))
            elif code in _PUT:
                self.noted[self.integer(_PUT[code])] = self.top()
            elif code == _FRAME:
                self.integer(8)
            elif code == _MARK:
                self.marks.append(len(self.stack))
            elif code == _EMPTY_LIST:
                self.stack.append([])
            elif code in (_APPENDS, _APPEND):
                values = self.since_mark() if code == _APPENDS else self.pop(1)
                self.top_list().extend(values)
            elif code == _STOP:
                return self.answer()
            else:
                self.refuse()

    def answer(self) -> list[str | int]:
        """Return the docids that the program ends with."""
        if len(self.stack) != 1 or self.marks:
            self.refuse()
        if self.at != len(self.data):
            raise CorruptIndexError(f"{self.name} goes on after its end, byte {self.at}")
        made = self.stack[0]
        docids = made.values if isinstance(made, _Array) else made
        if not isinstance(docids, (list, tuple)):
            self.refuse(f"{_called(made)} is")
        for place, docid in enumerate(docids):
            if type(docid) is not str and type(docid) is not int:
                self.refuse(f"{_called(docid)} at place {place} is")
        return list(docids)

    # ---- what NumPy pickles

    def named(self, module: object, name: object) -> _Named:
        if not isinstance(module, str) or not isinstance(name, str):
            self.refuse()
        full = f"{module}.{name}"
        if _NUMPY.fullmatch(full) is None:
            self.refuse(f"{full[:80]} is")
        return _Named(full)

    def reduce(self, called: object, arguments: object) -> Any:
        """Return what a call would."""
        name = called.name.rpartition(".")[2] if isinstance(called, _Named) else None
        match name, arguments:
            case "dtype", (str(text), *_):
                told = _DTYPE.fullmatch(text)
                if told is None:
                    self.refuse(f"NumPy's dtype {text[:40]!r} is")
                size = int(told[2] or 0)
                return _DType(told[1], 4 * size if told[1] == "U" else size)
            case "scalar", (_DType() as dtype, bytes(data)):
                return self.decode(dtype, data, 1)[0]
            case "_reconstruct", (_Named(name="numpy.ndarray"), *_):
                return _Array()
            case "_frombuffer", (bytes(data), _DType() as dtype, tuple(shape), str()):
                return _Array(self.elements(dtype, shape, data))
        self.refuse()

    def build(self, made: object, state: object) -> None:
        """Take what the program says of a dtype, or of an array."""
        match made, state:
            case _DType(), (int(), "<" | ">" | "|" | "=" as order, *_):
                made.order = order
            case _Array(), (
                int(),
                tuple(shape),
                _DType() as dtype,
                bool(),
                bytes() | list() as data,
            ):
                made.values = self.elements(dtype, shape, data)
            case _:
                self.refuse()

    def elements(self, dtype: _DType, shape: tuple[Any, ...], data: bytes | list[Any]) -> list[Any]:
        if len(shape) != 1:
            self.refuse(f"a NumPy array of {len(shape)} axes is")
        count = shape[0]
        if type(count) is not int or count < 0:
            self.refuse()
        if isinstance(data, bytes):
            return self.decode(dtype, data, count)
        if dtype.kind != "O" or len(data) != count:
            self.refuse()
        return data

    def decode(self, dtype: _DType, data: bytes, count: int) -> list[Any]:
        """Return strings or ints of NumPy's."""
        kind, size = dtype.kind, dtype.size
        if kind not in "iuU" or (kind in "iu" and size not in (1, 2, 4, 8)):
            self.refuse(f"NumPy {dtype} are")
        if len(data) != size * count or (not size and count > 1):
            raise CorruptIndexError(
                f"{self.name}, byte {self.start}: {len(data)} bytes; expected {size * count}"
            )
        if not size:
            return [""] * count
        self.decoded += len(data)
        if self.decoded > len(self.data):
            self.refuse()
        big = dtype.order == ">"
        if kind in "iu":
            numbers: list[Any] = np.frombuffer(data, f"{'>' if big else '<'}{kind}{size}").tolist()
            return numbers
        try:
            text = data.decode("utf-32-be" if big else "utf-32-le", "surrogatepass")
        except UnicodeDecodeError as error:
            raise CorruptIndexError(f"{self.name}, byte {self.start}: {error}") from error
        width = size // 4
        return [text[at : at + width].rstrip("\0") for at in range(0, len(text), width)]

    # ---- the stack, and the bytes

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.refuse()
        return self.stack[-1]

    def top_list(self) -> list[Any]:
        if not isinstance(self.top(), list):
            self.refuse()
        found: list[Any] = self.top()
        return found

    def pop(self, count: int) -> list[Any]:
        left = len(self.stack) - count
        if left < (self.marks[-1] if self.marks else 0):
            self.refuse()
        values = self.stack[left:]
        del self.stack[left:]
        return values

    def since_mark(self) -> list[Any]:
        if not self.marks:
            self.refuse()
        values = self.pop(len(self.stack) - self.marks[-1])
        self.marks.pop()
        return values

    def value(self) -> str | int | bytes:
        code = self.code
        if code in _INTEGER:
            size, signed = _INTEGER[code]
            return self.integer(size, signed)
        if code in _LONG:
            size = self.integer(_LONG[code])
            if size > _LONGEST_INTEGER:
                self.refuse()
            return self.integer(size, signed=True)
        if code in _BYTES:
            return self.take(self.integer(_BYTES[code]))
        try:
            # Half surrogates are text to Python; its own reader lets them pass too.
            return self.take(self.integer(_TEXT[code])).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise CorruptIndexError(f"{self.name}, byte {self.start}: text is not UTF-8") from error

    def integer(self, size: int, signed: bool = False) -> int:
        if size == 1 and not signed and self.at < len(self.data):  # most are
            self.at += 1
            return self.data[self.at - 1]
        return int.from_bytes(self.take(size), "little", signed=signed)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise CorruptIndexError(f"{self.name} ends within a value, at byte {len(self.data)}")
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def refuse(self, what: str | None = None) -> NoReturn:
        found = f"instruction {self.code:#04x} is" if what is None else what
        raise IndexFormatError(
            f"{self.name}, byte {self.start}: {found} no part of a plain list of strings and ints. "
            f"{_ADVICE}"
        )


def _called(value: object) -> str:
    """Return what a value is, for a message; its parts may be many."""
    if isinstance(value, _Named):
        return value.name
    if isinstance(value, _DType):
        return f"NumPy's dtype of {value}"
    if isinstance(value, (_Array, list, tuple)):
        return f"a {type(value).__name__.strip('_').lower()}"
    return str(value) if value is None or isinstance(value, bool) else f"a {type(value).__name__}"

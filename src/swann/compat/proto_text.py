r"""ScaNN's text format (text protobufs) as plain Python objects, and back; no protobuf needed.

::

    num_neighbors: 10                       # {"num_neighbors": [10],
    distance_measure {                      #  "distance_measure": [
      distance_measure: "DotProductDistance"   #    {"distance_measure": ["DotProductDistance"]}],
    }
    search_type: KNN                        #  "search_type": [Name("KNN")]}

What a field means is not known here: every field is a list of the values it was given, in order.

=================  ================================================================
in the text        in Python
=================  ================================================================
``{...}, <...>``   dict of lists
``"a" 'b'``        str: adjacent strings are one; escapes name bytes of UTF-8
``KNN``, ``true``  `Name`, a str that was not quoted
``1``, ``0x1f``    int where 64 bits hold it, else float
``1.5``, ``2e3f``  float
``nan``, ``-inf``  float, in any case of letters
``[1, 2]``         two values of the field
=================  ================================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias

from swann.errors import ConfigError

__all__ = ["Message", "Name", "Value", "format_text", "parse_text"]


class Name(str):
    """An unquoted word: the name of an enum's value, or a truth value."""

    __slots__ = ()


Value: TypeAlias = "Message | Name | str | int | float"
Message: TypeAlias = dict[str, list[Value]]

_MAX_LENGTH = 1 << 20
_MAX_DEPTH = 50
_MAX_NUMBER = 400  # characters; enough to write any double in full

_TOKEN = re.compile(
    r"""
      (?P<blank>   (?: [ \t\r\n\v\f]+ | \#[^\n]* )+ )
    | (?P<word>    [A-Za-z_][A-Za-z0-9_]* )
    | (?P<number>  (?: 0[xX][0-9A-Fa-f]+
                     | (?: [0-9]+ (?:\.[0-9]*)? | \.[0-9]+ ) (?:[eE][+-]?[0-9]+)? [fF]? )
                   (?![A-Za-z0-9_.]) )
    | (?P<string>  "(?: [^"\\\n] | \\[^\n] )*" | '(?: [^'\\\n] | \\[^\n] )*' )
    | (?P<mark>    [-{}<>:,;\[\]] )
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?: (?P<octal>[0-7]{1,3}) | [xX](?P<hex>[0-9A-Fa-f]{1,2}) | u(?P<four>[0-9A-Fa-f]{4})"
    r"| U(?P<eight>[0-9A-Fa-f]{8}) | (?P<one>[abfnrtv?'\"\\]) | (?P<bad>.) )",
    re.VERBOSE,
)
_ONE = dict(zip("abfnrtv?'\"\\", "\a\b\f\n\r\t\v?'\"\\", strict=True))
_CLOSE = {"{": "}", "<": ">"}
_SPECIAL = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}


def parse_text(text: str) -> Message:
    r"""Read a text proto.

    Parameters
    ----------
    text : str
        at most 2**20 characters; messages at most 50 deep.

    Returns
    -------
    dict of str to list
        Every field with the values it was given. Time and memory are linear in the text.

    Raises
    ------
    ConfigError
        If `text` is not such a text; the message names line and column, from 1.

    Examples
    --------
    >>> parse_text('tree { leaves: 20, leaves: 30 }  spherical: true  avq: nan')
    {'tree': [{'leaves': [20, 30]}], 'spherical': ['true'], 'avq': [nan]}
    """
    if not isinstance(text, str):
        raise ConfigError(f"text is of type {type(text).__name__}; expected str")
    if len(text) > _MAX_LENGTH:
        raise ConfigError(f"text has {len(text):,} characters; expected at most {_MAX_LENGTH:,}")
    return _Parser(text).parse()


class _Parser:
    """A cursor over the tokens of one text: `kind` and `token` are what comes next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.start = self.end = 0
        self.kind = self.token = ""
        self.advance()

    def advance(self) -> None:
        self.start = self.end
        while True:
            if self.start == len(self.text):
                self.kind, self.token = "end", ""
                return
            match = _TOKEN.match(self.text, self.start)
            if match is None:
                self.refuse_character()
            self.end = match.end()
            if match.lastgroup != "blank":
                self.kind, self.token = str(match.lastgroup), match[0]
                return
            self.start = self.end

    def parse(self) -> Message:
        message = self.message(closing="", depth=0)
        if self.kind != "end":
            self.fail(f"{self.token!r} closes nothing")
        return message

    def message(self, closing: str, depth: int) -> Message:
        """Read fields up to `closing`, which is left for the caller, or the end of the text."""
        if depth > _MAX_DEPTH:
            self.fail(f"messages are more than {_MAX_DEPTH} deep")
        fields: Message = {}
        while self.kind != "end" and self.token not in ("}", ">"):
            if self.kind != "word":
                self.fail(f"{self.found()}; expected the name of a field")
            name = self.token
            self.advance()
            values = self.field(name, depth)
            if values:
                fields.setdefault(name, []).extend(values)
            if self.token in (",", ";"):
                self.advance()
        if self.token != closing:
            self.fail(f"{self.found()}; expected {closing!r}" if closing else self.found())
        return fields

    def field(self, name: str, depth: int) -> list[Value]:
        colon = self.token == ":"
        if colon:
            self.advance()
        elif self.token not in ("{", "<", "["):
            self.fail(f"{self.found()}; expected ':' or '{{' after {name}")
        if self.token != "[":
            return [self.value(name, depth)]
        self.advance()
        values: list[Value] = []
        while self.token != "]":
            if not colon and self.token not in ("{", "<"):
                self.fail(f"{self.found()}; expected messages in a list without ':'")
            values.append(self.value(name, depth))
            if self.token == ",":
                self.advance()
                if self.token != "]":
                    continue
            elif self.token == "]":
                break
            self.fail(f"{self.found()}; expected a value, or ',' or ']' after one, in {name}")
        self.advance()
        return values

    def value(self, name: str, depth: int) -> Value:
        if self.token in _CLOSE:
            closing = _CLOSE[self.token]
            self.advance()
            message = self.message(closing, depth + 1)
            self.advance()
            return message
        if self.kind == "string":
            return self.strings()
        negative = self.token == "-"
        if negative:
            self.advance()
        if self.kind == "number":
            number = self.number()
        elif self.kind == "word" and self.token.lower() in _SPECIAL:
            number = _SPECIAL[self.token.lower()]
        elif self.kind == "word" and not negative:
            word = Name(self.token)
            self.advance()
            return word
        else:
            self.fail(f"{self.found()}; expected a value of {name}")
        self.advance()
        return -number if negative else number

    def number(self) -> int | float:
        token = self.token
        if len(token) > _MAX_NUMBER:
            self.fail(f"a number has {len(token)} characters; expected at most {_MAX_NUMBER}")
        if token[:2] in ("0x", "0X"):
            integer = int(token, 16)
        elif not token.isdigit():
            return float(token.rstrip("fF"))
        elif token[0] == "0" and len(token) > 1:
            if "8" in token or "9" in token:
                self.fail(f"{token} starts with 0 like an octal number, but has an 8 or 9")
            integer = int(token, 8)
        else:
            integer = int(token)
        if integer < 2**64:
            return integer
        try:
            return float(integer)
        except OverflowError:
            return math.inf

    def strings(self) -> str:
        start = self.start
        parts = []
        while self.kind == "string":
            parts.append(self.unescape())
            self.advance()
        try:
            return b"".join(parts).decode()
        except UnicodeDecodeError as error:
            self.fail(f"a string is not UTF-8 ({error.reason})", start)

    def unescape(self) -> bytes:
        body = self.token[1:-1]
        parts: list[bytes] = []
        done = 0
        for match in _ESCAPE.finditer(body):
            parts.append(self.encode(body[done : match.start()]))
            parts.append(self.escaped(match))
            done = match.end()
        parts.append(self.encode(body[done:]))
        return b"".join(parts)

    def escaped(self, match: re.Match[str]) -> bytes:
        kind, digits = str(match.lastgroup), str(match[str(match.lastgroup)])
        at = self.start + 1 + match.start()
        if kind == "one":
            return _ONE[digits].encode()
        if kind in ("octal", "hex"):
            byte = int(digits, 8 if kind == "octal" else 16)
            if byte > 255:
                self.fail(f"the escape \\{digits} is more than a byte", at)
            return bytes([byte])
        if kind in ("four", "eight"):
            code = int(digits, 16)
            if code > 0x10FFFF:
                self.fail(f"there is no character U+{code:X}", at)
            return self.encode(chr(code), at)
        self.fail(f"unknown escape \\{digits}", at)

    def encode(self, part: str, at: int | None = None) -> bytes:
        try:
            return part.encode()
        except UnicodeEncodeError:
            self.fail("a string holds half a surrogate pair", at)

    def found(self) -> str:
        return "the text ends here" if self.kind == "end" else f"found {self.token[:40]!r}"

    def refuse_character(self) -> NoReturn:
        character = self.text[self.start]
        if character in "'\"":
            self.fail("a string does not end on its line")
        if character in ".0123456789":
            self.fail("this is no number")
        self.fail(f"{character!r} has no meaning here")

    def fail(self, what: str, at: int | None = None) -> NoReturn:
        at = self.start if at is None else at
        line = self.text.count("\n", 0, at) + 1
        column = at - self.text.rfind("\n", 0, at)
        raise ConfigError(f"text proto, line {line}, column {column}: {what}")


def format_text(message: Mapping[str, Sequence[Value]], indent: int = 0) -> str:
    r"""Write a text proto that `parse_text` reads back.

    Parameters
    ----------
    message : mapping of str to sequence
        As `parse_text` returns it; a bool is written as a truth value.
    indent : int
        Levels to indent by, two spaces each.

    Returns
    -------
    str
        One field a line, ASCII only.

    Examples
    --------
    >>> print(format_text({"tree": [{"leaves": [20]}], "mode": [Name("KNN")], "name": ["a"]}))
    tree {
      leaves: 20
    }
    mode: KNN
    name: "a"
    <BLANKLINE>
    """
    margin = "  " * indent
    lines = []
    for name, values in message.items():
        for value in values:
            if isinstance(value, Mapping):
                inner = format_text(value, indent + 1)
                lines.append(f"{margin}{name} {{\n{inner}{margin}}}\n")
            else:
                lines.append(f"{margin}{name}: {_format_scalar(value)}\n")
    return "".join(lines)


def _format_scalar(value: Name | str | int | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Name):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(map(_format_byte, value.encode())) + '"'
    # Whole floats as C++ prints them: 2, not 2.0.
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value)) if whole else repr(value)


def _format_byte(byte: int) -> str:
    if byte in b'"\\':
        return "\\" + chr(byte)
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"

"""Reading one message of a text proto field by field; what nobody asked for is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from swann.compat.proto_text import Message, Name
from swann.errors import ConfigError

__all__ = ["Fields"]

_TRUE = ("true", "True", "t")
_FALSE = ("false", "False", "f")


class Fields:
    """The fields of one message. Ask for each, then call `finish`.

    Every error is a `ConfigError` that names the path of the field.

    Parameters
    ----------
    message : dict of str to list
        As `parse_text` returns it.
    path : str
        The path of the message, for errors; "" for the outermost.
    """

    def __init__(self, message: Message, path: str = "") -> None:
        self._left = dict(message)
        self._path = path

    def path(self, name: str) -> str:
        """Return the path of a field."""
        return f"{self._path}.{name}" if self._path else name

    def fail(self, name: str, came: object, expected: str) -> NoReturn:
        """Raise: this field is that, and something else was expected."""
        raise ConfigError(f"{self.path(name)} is {came}; expected {expected}")

    def _take(self, name: str) -> Any:
        values = self._left.pop(name, None)
        if values is None:
            return None
        if len(values) > 1:
            raise ConfigError(f"{self.path(name)} is given {len(values)} times; expected once")
        return values[0]

    def integer(self, name: str, default: int) -> int:
        """Take an integer."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, int):
            self.fail(name, _show(value), "an integer")
        return value

    def number(self, name: str, default: float) -> float:
        """Take a number, NaN and infinities included."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, (int, float)):
            self.fail(name, _show(value), "a number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Take a truth value."""
        value = self._take(name)
        if value is None:
            return default
        if isinstance(value, Name) and value in _TRUE + _FALSE:
            return value in _TRUE
        if not isinstance(value, int) or value not in (0, 1):
            self.fail(name, _show(value), "true or false")
        return bool(value)

    def word(self, name: str, numbers: Mapping[str, int], default: str) -> str:
        """Take an enum's value, by name or number, and return the first name of that number."""
        value = self._take(name)
        if value is None:
            return default
        number = numbers.get(value) if isinstance(value, Name) else value
        if type(number) is int:
            for word, same in numbers.items():
                if same == number:
                    return word
        self.fail(name, _show(value), " or ".join(numbers))

    def string(self, name: str, default: str) -> str:
        """Take a quoted string."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, str) or isinstance(value, Name):
            self.fail(name, _show(value), "a quoted string")
        return value

    def message(self, name: str) -> Fields | None:
        """Take a message, or None where there is none."""
        value = self._take(name)
        return None if value is None else self._inner(name, value)

    def messages(self, name: str) -> list[Fields]:
        """Take any number of messages."""
        return [self._inner(name, value) for value in self._left.pop(name, [])]

    def _inner(self, name: str, value: object) -> Fields:
        if not isinstance(value, dict):
            self.fail(name, _show(value), "a message, {...}")
        return Fields(value, self.path(name))

    def ignore(self, *names: str) -> None:
        """Take these fields, whatever they hold."""
        for name in names:
            self._left.pop(name, None)

    def expect(self, values: Mapping[str, object]) -> None:
        """Take fields of which only these values are understood; a tuple holds several."""
        for name, allowed in values.items():
            value = self._take(name)
            several = allowed if isinstance(allowed, tuple) else (allowed,)
            if value is not None and value not in several:
                shown = " or ".join(map(str, several))
                self.fail(name, _show(value), f"{shown}: nothing else is supported")

    def expect_false(self, *names: str) -> None:
        """Take truth values that must not be true."""
        for name in names:
            if self.flag(name):
                self.fail(name, "true", "false: nothing else is supported")

    def finish(self) -> None:
        """Refuse what was not taken."""
        if self._left:
            unknown = ", ".join(sorted(map(self.path, self._left)))
            raise ConfigError(f"{unknown} is not known or not supported here; leave it out")


def _show(value: object) -> str:
    """Return a value as the text had it, shortened."""
    if isinstance(value, dict):
        return "a message"
    shown = str(value) if isinstance(value, (Name, int, float)) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."

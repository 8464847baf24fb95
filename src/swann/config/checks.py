"""What all settings share: checks that name the setting, equality, JSON."""

from __future__ import annotations

import dataclasses
import enum
import math
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from swann.errors import ConfigError

__all__ = [
    "Config",
    "IncrementalMode",
    "ReorderType",
    "check_count",
    "check_count_or_zero",
    "check_factor",
    "check_flag",
    "check_incremental_mode",
    "check_number",
    "check_path",
    "check_progress",
    "check_reorder_type",
    "check_sentences",
    "check_share",
    "check_target",
    "check_threshold",
    "check_updates",
]

_LARGEST = 2**63 - 1


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an int that is at least `minimum`.

    Raises
    ------
    ConfigError
        If it is a bool, not an integer, or below `minimum`.

    Examples
    --------
    >>> check_count("num_leaves", 600)
    600
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(
            f"{name} is {value!r} ({type(value).__name__}); expected an integer"
        ) from None
    if not minimum <= count <= _LARGEST:
        raise ConfigError(f"{name} is {count}; expected at least {minimum}, at most 2**63 - 1")
    return count


def check_count_or_zero(name: str, value: object) -> int:
    """Return `value` as an int that is not negative."""
    return check_count(name, value, minimum=0)


def check_path(name: str, value: object) -> Path:
    """Return `value`, a path, as one."""
    try:
        path = os.fspath(value)  # type: ignore[call-overload]
    except TypeError:
        path = b""
    if not isinstance(path, str) or "\0" in path:
        raise ConfigError(f"{name} is {value!r}; expected a path, as a str or a pathlib.Path")
    if not path:  # pathlib takes it for the current directory
        raise ConfigError(f"{name} is empty; expected a path, as '.' for the current directory")
    return Path(path)


def check_number(
    name: str,
    value: object,
    least: float = 0.0,
    most: float = math.inf,
    *,
    open_ends: tuple[bool, bool] = (False, False),
) -> float:
    """Return `value` as a finite float from `least` to `most`.

    Parameters
    ----------
    open_ends : tuple of bool
        Whether `least` is too little, and `most` too much.

    Raises
    ------
    ConfigError
        If it is no number, not finite, or not in the range.

    Examples
    --------
    >>> check_number("ratio", 0.5, most=1.0)
    0.5
    """
    lower = f"above {least:g}" if open_ends[0] else f"of at least {least:g}"
    upper = "" if most == math.inf else f", {'below' if open_ends[1] else 'at most'} {most:g}"
    expected = f"expected a finite number {lower}{upper}"
    number = _number(name, value, expected)
    good = math.isfinite(number) and least <= number <= most
    if not good or (number == least and open_ends[0]) or (number == most and open_ends[1]):
        raise ConfigError(f"{name} is {value!r}; {expected}")
    return number


def check_flag(name: str, value: object) -> bool:
    """Return `value`, True or False, as a plain bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{name} is {value!r}; expected True or False")
    return bool(value)


def check_progress(name: str, value: Any) -> Any:
    """Return `value`, something that can be called, or None."""
    if value is not None and not callable(value):
        raise ConfigError(f"{name} is {value!r}; expected a callable, or None")
    return value


class Config:
    """What all settings share: counts and flags normalised, equality, JSON."""

    def normalize(self, check: Any, *names: str) -> None:
        """Replace the settings `names` by what ``check(name, value)`` returns."""
        for name in names:
            object.__setattr__(self, name, check(name, getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON types; NaN becomes None."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Make settings from what `to_dict` returned.

        Raises
        ------
        ConfigError
            If a key is unknown or missing, or a value is bad.
        """
        if not isinstance(settings, Mapping):
            raise ConfigError(f"{cls.__name__} is {settings!r}; expected a mapping of settings")
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        known = {field.name for field in fields}
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        if unknown := sorted(map(str, settings.keys() - known)):
            raise ConfigError(f"{cls.__name__} has unknown settings: {', '.join(unknown)}")
        if missing := sorted(needed - settings.keys()):
            raise ConfigError(f"{cls.__name__} lacks settings: {', '.join(missing)}")
        return cls(**settings)

    # NaN differs from itself, so equality goes through the JSON form.
    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.to_dict() == self.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self))


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.name if isinstance(value, enum.Enum) else value


def _number(name: str, value: object, expected: str) -> float:
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name} is {value!r}; {expected}") from None


def check_factor(least: float) -> Any:
    """Return a check of a finite number of at least `least`, or None; NaN counts as None."""

    def check(name: str, value: object) -> float | None:
        if value is None:
            return None
        expected = f"expected a finite number of at least {least:g}, or None"
        factor = _number(name, value, expected)
        if math.isnan(factor):
            return None
        if not least <= factor < math.inf:
            raise ConfigError(f"{name} is {factor}; {expected}")
        return factor

    return check


def check_threshold(name: str, value: object) -> float:
    """Return `value` as a finite float above 0; None becomes NaN."""
    if value is None:
        return math.nan
    expected = "expected a finite number above 0, or NaN for none"
    threshold = _number(name, value, expected)
    if not (math.isnan(threshold) or 0.0 < threshold < math.inf):
        raise ConfigError(f"{name} is {threshold}; {expected}")
    return threshold


def check_share(name: str, value: object) -> float | None:
    """Return `value` as a float above 0 and at most 1, or None."""
    if value is None:
        return None
    expected = "expected a number above 0, at most 1, or None"
    share = _number(name, value, expected)
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"{name} is {share}; {expected}")
    return share


def check_target(name: str, value: object) -> float:
    """Return `value` as a float above 0 and at most 1."""
    target = check_share(name, value)
    if target is None:
        raise ConfigError(f"{name} is None; expected a number above 0, at most 1")
    return target


def check_sentences(name: str, value: object) -> tuple[str, ...]:
    """Return a sequence of strings as a tuple."""
    sentences = tuple(value) if isinstance(value, (list, tuple)) else (None,)
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise ConfigError(f"{name} is {value!r}; expected a list or tuple of strings")
    return sentences


def check_updates(name: str, value: object) -> int | float | None:
    """Return a number of updates (int) or a fraction of the datapoints (float), or None."""
    if value is None:
        return None
    if not isinstance(value, (float, np.floating)):
        return check_count(name, value)
    fraction = float(value)
    if not 0.0 < fraction < math.inf:
        raise ConfigError(
            f"{name} is {fraction}; expected a positive fraction of the datapoints, a positive "
            "number of updates as an int, or None"
        )
    return fraction


class ReorderType(enum.Enum):
    """Precision of the rows that are scored one by one, in ScaNN's names and numbers.

    Attributes
    ----------
    FLOAT32
        Exact; 4 bytes a dimension.
    INT8
        1 byte a dimension and 5 a row (9 under squared l2): values times a scale of the row's own,
        counted from the nearest of some origins (of fewer than 128 rows from zero, a byte less).
    BFLOAT16
        2 bytes a dimension, 8 significant bits.
    """

    FLOAT32 = 1
    INT8 = 2
    BFLOAT16 = 3

    def __repr__(self) -> str:
        return f"ReorderType.{self.name}"


class IncrementalMode(enum.Enum):
    """What an index does by itself while it is updated, in ScaNN's names and numbers.

    Attributes
    ----------
    NONE
        New datapoints go to the leaves that are there; `Searcher.rebalance` is yours to call.
    ONLINE
        Built anew with settings that suit its size when it has outgrown those it has, or misses
        what comes in: datapoints of another kind than it was trained on. The upsert that has it
        built takes as long as a build. docs/autopilot.md says more.
    ONLINE_INCREMENTAL
        That, and in between leaves are split as they grow and merged as they empty.
    """

    NONE = 1
    ONLINE = 2
    ONLINE_INCREMENTAL = 3

    def __repr__(self) -> str:
        return f"IncrementalMode.{self.name}"


def check_incremental_mode(name: str, value: object) -> IncrementalMode:
    """Accept an `IncrementalMode`, ScaNN's own, or its name."""
    given = getattr(value, "name", value)
    if isinstance(given, str) and given in IncrementalMode.__members__:
        return IncrementalMode[given]
    raise ConfigError(f"{name} is {value!r}; expected an IncrementalMode")


def check_reorder_type(name: str, value: object) -> ReorderType:
    """Accept a `ReorderType`, its name, or ScaNN's plain True (INT8) and False (FLOAT32)."""
    if isinstance(value, ReorderType):
        return value
    if isinstance(value, (bool, np.bool_)):
        return ReorderType.INT8 if value else ReorderType.FLOAT32
    # ScaNN's own enum has the same names.
    given = getattr(value, "name", value)
    if isinstance(given, str) and given in ReorderType.__members__:
        return ReorderType[given]
    names = ", ".join(ReorderType.__members__)
    raise ConfigError(
        f"{name} is {value!r}; expected a ReorderType or its name ({names}), True or False"
    )

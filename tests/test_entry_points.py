"""Every public entry point answers every bad value with a typed error, or as it should."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from bad_values import FINE, SAME, Takes
from entry_points import Reused
from entry_table import ENTRIES, Entry

from swann import SwannError


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    """Close at last what calls have left open."""
    yield
    for reused in Reused.made:
        reused.close()


ARGUMENTS = [(name, argument) for name, entry in ENTRIES.items() for argument in entry.takes]


def seen(result: Any) -> Any:
    """What can be compared of a result."""
    if isinstance(result, np.ndarray):
        return result.dtype.str, result.shape, result.tolist() if result.dtype == object else (
            result.tobytes()
        )  # fmt: skip
    if isinstance(result, (tuple, list)):
        return [seen(part) for part in result]
    return repr(result)


def call(entry: Entry, argument: str, value: Any) -> Any:
    arguments = {name: takes.good for name, takes in entry.takes.items()}
    return seen(entry.call(**(arguments | {argument: value})))


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_bad_values(name: str, argument: str) -> None:
    entry = ENTRIES[name]
    takes: Takes = entry.takes[argument]
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = call(entry, argument, takes.good)
        for told, value, comes in takes.bad():
            try:
                found = call(entry, argument, value)
                came: Any = SAME if found == good else FINE
            except (SwannError, OSError) as error:
                came = type(error)
            except Exception as error:
                came = f"untyped {error!r}"[:200]
            fits = came == comes or (comes is FINE and (came == SAME or isinstance(came, type)))
            if isinstance(comes, type) and isinstance(came, type):
                fits = issubclass(came, comes)
            if not fits:
                wrong.append(f"{told}: {came}, not {comes}")
    assert wrong == []

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
from public_entries import public_entries

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


# Exempt are names that end so.
EXEMPT = {
    "what swann returns, never made by a user": (
        "OperatingPoint", "SearchResult", "DistributedResult", "Neighbors", "Tensor", "Plan",
        "ScannState", "Choice", "Candidates",
    ),
    "made by build, load and open": ("Searcher", "DurableSearcher", "DistributedSearcher"),
    "settings checking themselves, with what they have checked": (
        "normalize", "check_dimension", "AHConfig.narrowest",
    ),
    "a function that is called, no setting": ("Weight", "plan.calibrate", "Executor.run"),
    "parts of a build, with what its other parts computed": (
        "Sources", "Sources.fingerprint_of", "Sources.in_memory_kept", "Sources.part_of",
        "Sources.pieces", "Sources.read", "Sources.spans", "Sources.start",
        "ProductQuantizer.fit_tiles", "Profile.matched", "autopilot.build_tuned",
        "autopilot.check_sample_queries", "autopilot.choose_for", "autopilot.outgrown",
        "autopilot.sizes_that_fit",
    ),
    "what build gives it": ("LocalExecutor.run", "ProcessExecutor.run", "RayExecutor.run"),
    "needs Ray, which only tests of its own install": ("RayExecutor",),
    "that of Searcher": ("DurableSearcher.num_threads",),
}  # fmt: skip
FREE = tuple(f".{name}" for names in EXEMPT.values() for name in names)


def covered() -> dict[str, set[str]]:
    """The arguments that rows take or leave free, by entry point: a few have two rows."""
    found: dict[str, set[str]] = {}
    for name, entry in ENTRIES.items():
        found.setdefault(name.partition(" ")[0], set()).update(entry.takes, entry.free)
    return found


def test_every_public_entry_point_has_a_row() -> None:
    public, rows = public_entries(), covered()
    assert len(public) > 200
    assert sorted(name for name in public.keys() - rows.keys() if not name.endswith(FREE)) == []
    lacking = {name: public[name] - rows[name] for name in public.keys() & rows.keys()}
    assert {name: arguments for name, arguments in lacking.items() if arguments} == {}


def test_every_row_and_every_exemption_is_of_something_public() -> None:
    public, rows = public_entries(), covered()
    assert rows.keys() - public.keys() == {"swann.quantize.constant_weight"}  # takes nothing
    without = public.keys() - rows.keys()
    assert [end for end in FREE if not any(name.endswith(end) for name in without)] == []

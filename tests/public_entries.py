"""The public entry points, found by looking at the modules themselves, and their arguments."""

from __future__ import annotations

import enum
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

__all__ = ["public_entries"]

MODULES = (
    "swann.compat.scann_ops_pybind", "swann", "swann.evaluate", "swann.quantize",
    "swann.autopilot", "swann.sources", "swann.plan", "swann.distributed",
    "swann.compat.scann_ops", "swann.integrations.candidates",
)  # fmt: skip


def public_entries() -> dict[str, set[str]]:
    """Return the arguments of everything public that takes some, by name.

    What several modules have is named after the first of them. A property that can be set takes
    its `value`.
    """
    found: dict[str, set[str]] = {}
    seen: set[int] = set()
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if id(thing) in seen or not callable(thing):
                continue
            seen.add(id(thing))
            for suffix, arguments in _entries_of(thing):
                if arguments:
                    found[f"{module.__name__}.{name}{suffix}"] = arguments
    return found


def _entries_of(thing: Any) -> Iterator[tuple[str, set[str]]]:
    if not inspect.isclass(thing):
        yield "", _arguments(thing)
        return
    if issubclass(thing, (enum.Enum, Exception)):
        return
    yield "", _arguments(thing)
    for name in dir(thing):
        owner = next(kind for kind in thing.__mro__ if name in vars(kind))
        if name.startswith("_") or not owner.__module__.startswith("swann"):
            continue
        member = vars(owner)[name]
        if isinstance(member, property):
            yield f".{name}", {"value"} if member.fset else set()
        elif callable(member) or isinstance(member, (classmethod, staticmethod)):
            yield f".{name}", _arguments(getattr(thing, name)) - {"self"}


def _arguments(thing: Any) -> set[str]:
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    parameters = inspect.signature(thing).parameters.values()
    return {p.name for p in parameters if p.kind not in variable}

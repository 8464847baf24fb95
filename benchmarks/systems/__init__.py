"""The systems compared: one small file each, found by looking into this folder.

A file defines ``SYSTEM``, an object of a subclass of :class:`~benchmarks.systems.base.System`.
These files are read twice: by the orchestrator, for names and settings, and by the worker in the
system's own environment, where NumPy and that system are all there is.
"""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.systems.base import Search, Settings, System

__all__ = ["Search", "Settings", "System", "all_systems", "find"]


def all_systems() -> dict[str, System]:
    """All systems by name, swann first."""
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    systems: list[System] = [m.SYSTEM for m in modules if hasattr(m, "SYSTEM")]
    systems.sort(key=lambda system: (system.name != "swann", system.name))
    return {system.name: system for system in systems}


def find(name: str) -> System:
    """Return the system of this name.

    Raises
    ------
    SystemExit
        When there is none; the message names those there are.
    """
    systems = all_systems()
    if name not in systems:
        raise SystemExit(f"system {name!r} is unknown: expected one of {', '.join(systems)}")
    return systems[name]

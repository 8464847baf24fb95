"""Data sets: one small file each, found by looking into this folder.

A file defines either ``DATA_SET``, a :class:`~benchmarks.datasets.base.DataSet` known by its name,
or ``SUFFIX`` and ``from_path(path)``, which make a data set of a user's own file.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from benchmarks.datasets.base import DataSet, PreparedData, prepare

__all__ = ["DataSet", "PreparedData", "find", "names", "prepare"]


def _modules() -> list[ModuleType]:
    found = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in found]


def names() -> list[str]:
    """Names of the data sets that are fetched by name, sorted."""
    return sorted(m.DATA_SET.name for m in _modules() if hasattr(m, "DATA_SET"))


def find(name: str) -> DataSet:
    """Return the data set of this name, or the one made of the file at this path.

    Raises
    ------
    SystemExit
        When it is neither a known name nor a readable file of a known kind.
    """
    modules = _modules()
    for module in modules:
        if hasattr(module, "DATA_SET") and module.DATA_SET.name == name:
            found: DataSet = module.DATA_SET
            return found
    path = Path(name)
    for module in modules:
        if hasattr(module, "SUFFIX") and path.suffix == module.SUFFIX and path.is_file():
            made: DataSet = module.from_path(path)
            return made
    suffixes = sorted(m.SUFFIX for m in modules if hasattr(m, "SUFFIX"))
    raise SystemExit(
        f"data set {name!r} is unknown: expected one of {', '.join(names())}, "
        f"or the path of a {' or '.join(suffixes)} file"
    )

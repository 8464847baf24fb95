"""The program: one small file a topic, each with a list ``CASES``."""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.parity.case import Case

__all__ = ["CASES"]


def _all() -> list[Case]:
    modules = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return [c for m in modules for c in importlib.import_module(f"{__name__}.{m}").CASES]


CASES: list[Case] = _all()

"""The examples in docstrings run, and print what they say, in the package as it is installed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import swann

MODULES = ["swann", *(m.name for m in pkgutil.walk_packages(swann.__path__, "swann."))]


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith(("__main__", "._native"))])
def test_examples(name: str) -> None:
    if name.startswith("swann.cli."):
        pytest.importorskip("typer")
    if name == "swann.integrations.keras_rs":
        pytest.importorskip("keras_rs")
    # `import swann.builder as x` would give the function of that name.
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    assert any(test.examples for test in finder.find(swann.Builder, "Builder"))

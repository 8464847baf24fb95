"""The experiments, one module each, in the order of the page."""

from __future__ import annotations

import importlib

from benchmarks.paper.experiment import Experiment

_MODULES = (
    "figure_2",
    "figure_3a",
    "figure_3b",
    "figure_4a",
    "figure_4b",
    "table_1",
    "table_2",
    "figure_5",
    "ivf_pq",
    "asymmetric",
    "recipe",
    "known_queries",
)


def all_experiments() -> dict[str, Experiment]:
    """Return the experiments by name."""
    found = (importlib.import_module(f"{__name__}.{name}").EXPERIMENT for name in _MODULES)
    return {experiment.name: experiment for experiment in found}

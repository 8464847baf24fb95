"""What an experiment of the campaign is, and what comes of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.paths import ROOT

PUBLISHED = ROOT / "docs" / "trust"


@dataclasses.dataclass(frozen=True)
class Options:
    """How much is done, and where.

    Attributes
    ----------
    n : int
        Mutants, interrupts, forks or seconds, whatever the experiment counts.
    seed : int
        The same seed gives the same cases.
    first : int
        The number of the first case: with ``n=1``, only that one.
    workers : int
        Processes at the same time, where there is more than one.
    folder : path
        An empty directory for what is saved, best in memory.
    """

    n: int
    seed: int
    first: int
    workers: int
    folder: Path


@dataclasses.dataclass
class Report:
    """What came of it.

    Attributes
    ----------
    figures : dict
        What was counted; JSON.
    failures : list of str
        Each breaks a promise, and says how to see it again.
    """

    figures: dict[str, Any]
    failures: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A command of ``python -m benchmarks.trust``.

    Attributes
    ----------
    name, title : str
        Of the command, and what it shows.
    short, long : int
        `Options.n` of ``--short``, which `make test` runs, and of the campaign.
    run : callable
        Does it.
    """

    name: str
    title: str
    short: int
    long: int
    run: Callable[[Options], Report]


def publish(experiment: Experiment, options: Options, report: Report) -> Path:
    """Keep the figures for docs/trust.md."""
    PUBLISHED.mkdir(exist_ok=True)
    path = PUBLISHED / f"{experiment.name}.json"
    content = {"n": options.n, "seed": options.seed} | dataclasses.asdict(report)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path

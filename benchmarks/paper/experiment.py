"""What an experiment is: a claim, a measurement, and the rule that says whether the claim holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.paper.lab import Lab

Results = dict[str, Any]
"""What a run measured: plain values that JSON holds."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a claim came out, and the figures that decide it."""

    came_out: bool
    because: str

    def __str__(self) -> str:
        return f"{'Came out' if self.came_out else 'Did not come out'}: {self.because}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One figure, table or claim of the paper.

    Attributes
    ----------
    name : str
        What the command line calls it; also the name of its files.
    title : str
        Heading on the page.
    claim : str
        What is checked, in words that figures can decide.
    paper : str
        What the paper shows; figures of its own only where they are certain.
    how : str
        How it is measured here, where that is not plain.
    cost : str
        What a run takes, on one core of a quiet machine.
    run : callable
        Measures.
    judge : callable
        Decides on the claim from what was measured.
    table : callable
        Writes what was measured in Markdown.
    draw : callable, optional
        Draws what was measured into a matplotlib figure.
    """

    name: str
    title: str
    claim: str
    paper: str
    how: str
    cost: str
    run: Callable[[Lab], Results]
    judge: Callable[[Results], Verdict]
    table: Callable[[Results], str]
    draw: Callable[[Any, Results], None] | None = None

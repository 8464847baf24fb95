"""What the comparison asks of a system."""

from __future__ import annotations

import abc
import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks.results import MODES

BRUTE_FORCE = "brute force"
"""A build's ``score`` where the rows of leaves are scored exactly, without codes."""
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[Any]
Settings = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Search:
    """Two ways to ask an index under fixed settings; both return ids, nearest first.

    Attributes
    ----------
    one : callable
        Ids [k] of a query [d].
    batch : callable
        Ids [queries, k] of queries [queries, d].
    """

    one: Callable[[Any], Ids]
    batch: Callable[[Floats], Ids]


class System(abc.ABC):
    """A library under comparison.

    ``build``, ``save``, ``load`` and ``search`` run in the system's own environment only. Settings
    are plain dictionaries: they are shown in the results and identify a saved index.
    """

    name: ClassVar[str]
    requirements: ClassVar[tuple[str, ...]]
    module: ClassVar[str]
    """Imported before memory is measured: a build's figures hold no code."""
    keep_builds: ClassVar[bool] = True
    """Whether a saved index serves later runs, with the figures of its build."""
    slow: ClassVar[bool] = False
    """Asked fewer queries."""
    like: ClassVar[str] = ""
    """Another system, if its environment serves this one too, and so do saved indices."""
    variables: ClassVar[dict[str, str]] = {}
    """Environment variables of its processes."""
    modes: ClassVar[tuple[str, ...]] = MODES
    """What is timed."""
    sample: Path | None = None
    """Queries [m, d] like those to come, none of which is asked, where the data set has some."""

    @abc.abstractmethod
    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        """Build settings to try, the one that stands for the system first.

        Under ``"cosine"`` the rows and queries have unit length already.
        """

    @abc.abstractmethod
    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        """Search settings to try on an index of these build settings."""

    @abc.abstractmethod
    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        """Build an index of train [n, d] on so many threads."""

    @abc.abstractmethod
    def save(self, index: Any, folder: Path) -> None:
        """Write the index into an empty folder, all that a search needs."""

    @abc.abstractmethod
    def load(self, folder: Path, train: Path, build: Settings, threads: int) -> Any:
        """Read an index back, ready to search on so many threads."""

    @abc.abstractmethod
    def search(self, index: Any, k: int, settings: Settings, threads: int) -> Search:
        """Set the index to these search settings; return the ways to ask it."""

    def resident(self, index: Any, folder: Path) -> int:
        """Bytes that a search needs in memory; unless a system says more, those of its files."""
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    def level(self) -> str:
        """Name the instruction set in use, where the system tells."""
        return ""

    def idle(self) -> str:
        """Say why there is nothing to measure on this machine, if so."""
        return ""


def tree_searches(build: Settings, quick: bool) -> list[Settings]:
    """Leaves and candidates that ScaNN and swann try, the same for both."""
    scale = build["num_leaves"] / 600
    if "soar_lambda" in build:  # reaches the same recall with fewer leaves
        scale *= 0.6
    pairs = [(20, 60), (45, 80), (120, 200)] if quick else [
        (6, 20), (10, 30), (15, 30), (20, 40), (30, 40), (30, 60), (45, 50), (45, 80), (70, 80),
        (70, 120), (120, 160), (200, 300), (300, 400),
    ]  # fmt: skip
    if build.get("score") == BRUTE_FORCE:  # there are no candidates
        leaves = dict.fromkeys(max(1, round(a * scale)) for a, _ in pairs)
        return [{"leaves_to_search": each} for each in leaves]
    return [
        {"leaves_to_search": max(1, round(a * scale)), "pre_reorder_num_neighbors": b}
        for a, b in pairs
    ]


def peer(module: str) -> Any:
    """Import a system's module, which only its own environment has."""
    return importlib.import_module(module)


def scored(distance_measure: str) -> str:
    """How a system that knows two distances scores: rows under cosine are unit rows already."""
    return "squared_l2" if distance_measure == "squared_l2" else "dot_product"


def leaves_near(n: int, *factors: float) -> list[int]:
    """Leaf counts around the square root of n, in tens: 600 for GloVe-100 with factor 1."""
    return [max(10, round(n**0.5 * factor * 1.04 / 10) * 10) for factor in factors]

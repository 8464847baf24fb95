"""What is asked of a library, and where its adapter is."""

from __future__ import annotations

import abc
import importlib
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
NAMES = ("swann", "scann", "faiss", "hnswlib", "usearch", "voyager")
K = 5


class Answers(NamedTuple):
    """Ids and distances [queries, K]."""

    ids: NDArray[Any]
    distances: NDArray[Any]


class Adapter(abc.ABC):
    """A library with its usual index, on one thread; squared Euclidean distances.

    Attributes
    ----------
    environment, requirements : str, tuple of str
        Of `benchmarks.envs`; none: the Python that runs the campaign.
    index : str
        Which index it is, for the table.
    is_folder : bool
        Whether an index is saved as a directory.
    """

    environment: ClassVar[str] = ""
    requirements: ClassVar[tuple[str, ...]] = ()
    index: ClassVar[str]
    is_folder: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Of the environment."""
        return self.environment

    @abc.abstractmethod
    def build(self, rows: Floats) -> Any:
        """Build an index of rows [n, d]."""

    @abc.abstractmethod
    def save(self, index: Any, path: Path) -> None:
        """Write it to a file, or an existing directory."""

    @abc.abstractmethod
    def load(self, path: Path, dimension: int) -> Any:
        """Read it."""

    @abc.abstractmethod
    def search(self, index: Any, queries: Floats) -> Answers:
        """Search queries [m, d]."""


def adapter(name: str) -> Adapter:
    """Return the adapter of a library; its library is imported when it is used."""
    made: Adapter = importlib.import_module(f"benchmarks.trust.peers.adapters.{name}").ADAPTER
    return made


def rows_of(seed: int, n: int, dimension: int) -> Floats:
    """Return rows to index or to ask for."""
    return np.random.default_rng(seed).standard_normal((n, dimension), np.float32)

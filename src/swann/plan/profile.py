"""How much of a database has to be looked at: by its size, its leaves and the recall wanted.

What a recall costs is a property of the data, and no theory gives it. Two power laws are fitted to
what tuned searches of growing parts of one data set did::

    datapoints scored by their codes  =  exp(a + b x + c x^2) n^e l^f
    candidates scored by their rows   =  the same with constants of its own

with x = ln(.05 / (1 - recall)), which is 0 at a recall of .95, and l = leaves / sqrt(n). Other data
are harder or easier: `measured` builds an index of a sample, and keeps by which factors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.autopilot.measure import Measure
from swann.autopilot.sample import Panel, draw_panels
from swann.autopilot.tune import check_sample_queries
from swann.config import AHConfig, IndexConfig, check_count, check_number
from swann.errors import ConfigError
from swann.index.building.build import build_index
from swann.index.packed import PackedIndex
from swann.vectors import as_database

__all__ = ["Law", "Look", "Profile", "look_at", "measured", "sample_look"]

_USUAL_RECALL = 0.95
_CANDIDATES = 1024
_LEAST_SAMPLE = 2_000


class Law(NamedTuple):
    """A power law of this module; `constants` are a, b, c, e and f."""

    constants: tuple[float, float, float, float, float]

    def at(self, n: float, leaves: float, recall: float) -> float:
        """Return the value, without any limit."""
        return math.exp(float(np.dot(self.constants, law_terms(n, leaves, recall))))


def check_name(name: str, value: object) -> str:
    """Return `value`, a string."""
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {value!r}; expected a string")
    return value


def check_fields(kind: Any, what: str, plain: object) -> Mapping[str, Any]:
    """Return a mapping that has what a dataclass has, all of it and no more."""
    known = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(plain, Mapping) or plain.keys() != known:
        given = sorted(map(str, plain)) if isinstance(plain, Mapping) else plain
        raise ConfigError(f"{what} has {given!r}; expected {', '.join(sorted(known))}")
    return plain


def _numbers(name: str, value: object, count: int) -> tuple[float, ...]:
    if not isinstance(value, (tuple, list)) or len(value) != count:
        raise ConfigError(f"{name} is {value!r}; expected {count} numbers")
    return tuple(check_number(name, part, -math.inf) for part in value)


def law_terms(n: float, leaves: float, recall: float) -> tuple[float, float, float, float, float]:
    """Return what the constants of a law are multiplied by."""
    x = math.log((1.0 - _USUAL_RECALL) / (1.0 - recall))
    return 1.0, x, x * x, math.log(n), math.log(leaves / math.sqrt(n))


class Look(NamedTuple):
    """What a query looks at: leaves, datapoints by their codes, candidates by their rows."""

    leaves: int
    scanned: float
    candidates: int


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What data are like to search.

    Attributes
    ----------
    name : str
        Of the data.
    scanned, candidates : Law
        Datapoints that are scored by their codes and by their rows, for ten neighbors.
    larger : float
        How many times as large as the mean the leaves are that queries visit.
    measured : tuple of int
        The least and the greatest number of datapoints that the laws were fitted to.
    recalls : tuple of float
        The same of the recalls.
    """

    name: str
    scanned: Law
    candidates: Law
    larger: float
    measured: tuple[int, int]
    recalls: tuple[float, float]

    def __post_init__(self) -> None:
        check_name("name", self.name)
        larger = check_number("larger", self.larger, open_ends=(True, False))
        object.__setattr__(self, "larger", larger)
        for name in ("scanned", "candidates"):
            if not isinstance(law := getattr(self, name), Law):
                raise ConfigError(f"{name} is {law!r}; expected a Law")
            _numbers(name, law.constants, 5)
        for name in ("measured", "recalls"):
            low, high = _numbers(name, getattr(self, name), 2)
            if not 0.0 < low <= high:
                raise ConfigError(f"{name} is {(low, high)}; expected the least, then the greatest")

    def look(self, n: int, leaves: int, recall: float, neighbors: int = 10) -> Look:
        """Return what a query has to look at; candidates grow as the neighbors wanted do."""
        n, leaves = check_count("n", n), check_count("leaves", leaves)
        recall = check_number("recall", recall, most=1.0, open_ends=(True, True))
        neighbors = check_count("neighbors", neighbors)
        scanned = min(float(n), self.scanned.at(n, leaves, recall))
        candidates = self.candidates.at(n, leaves, recall) * neighbors / 10.0
        visited = math.ceil(scanned * leaves / (n * self.larger))
        return Look(
            max(1, min(leaves, visited)),
            scanned,
            min(n, max(neighbors, math.ceil(candidates))),
        )

    def matched(
        self,
        name: str,
        n: int,
        leaves: int,
        recall: float,
        found: Look,
        larger: float,
        neighbors: int = 10,
    ) -> Profile:
        """Return the same laws, times what makes them true where data were looked at."""
        scanned = found.scanned / self.scanned.at(n, leaves, recall)
        candidates = found.candidates / (self.candidates.at(n, leaves, recall) * neighbors / 10.0)
        return dataclasses.replace(
            self,
            name=name,
            scanned=_times(self.scanned, scanned),
            candidates=_times(self.candidates, candidates),
            larger=larger,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        plain = dataclasses.asdict(self)
        return plain | {
            "scanned": list(self.scanned.constants),
            "candidates": list(self.candidates.constants),
            "measured": list(self.measured),
            "recalls": list(self.recalls),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Profile:
        """Make one from what `to_dict` returned; a ConfigError if it is no such thing."""
        check_fields(cls, "profile", plain)
        names = ("scanned", "candidates")
        laws: Any = {name: Law(_numbers(name, plain[name], 5)) for name in names}  # type: ignore[arg-type]
        pairs = {name: _pair(name, plain[name]) for name in ("measured", "recalls")}
        return cls(**{**plain, **laws, **pairs})


def _pair(name: str, value: object) -> tuple[Any, ...]:
    _numbers(name, value, 2)
    return tuple(value)  # type: ignore[arg-type]


def _times(law: Law, factor: float) -> Law:
    a, *rest = law.constants
    return Law((a + math.log(factor), *rest))  # type: ignore[arg-type]


def look_at(
    packed: PackedIndex,
    db: NDArray[Any],
    panels: list[Panel],
    recalls: list[float],
    threads: int,
) -> tuple[list[Look | None], float]:
    """Find the cheapest leaves and candidates that reach recalls, as autopilot does.

    Returns
    -------
    tuple of (list of Look or None, float)
        For each recall what was looked at, None where nothing reaches it; and how many times as
        large as the mean the visited leaves are at the first of them.
    """
    found: list[Look | None] = []
    larger: list[float] = []
    for recall in recalls:
        measure = Measure(packed, panels, db, _CANDIDATES, recall, threads)
        # Where queries are datapoints, or point anywhere, another share is to be found.
        goals = [1.0 - panel.leniency * (1.0 - recall) for panel in panels]
        limits = measure.best(goals, rows_alone=False)
        if limits is None:
            found.append(None)
            continue
        scanned = measure.scanned(limits.leaves)
        found.append(Look(limits.leaves, scanned, limits.candidates))
        larger.append(scanned * packed.num_leaves / (limits.leaves * packed.num_datapoints))
    return found, larger[0] if larger else 1.0


def measured(
    usual: Profile,
    db: NDArray[Any],
    config: IndexConfig,
    *,
    recall: float = _USUAL_RECALL,
    queries: NDArray[np.float32] | None = None,
    name: str = "sample",
    num_threads: int = 0,
) -> Profile:
    """Return a profile of the data that a sample is of.

    Parameters
    ----------
    usual : Profile
        How much grows with size and recall; that cannot be seen from one sample.
    db : array of shape (n, d)
        The sample, as `swann.vectors.as_database` returns it: some ten thousand datapoints.
    config : IndexConfig
        Of the index that is planned, with a tree and codes; its leaves are made as few as suits
        the sample.
    recall : float
        The recall to measure at.
    queries : float32 array of shape (m, d), optional
        As `check_sample_queries` returns them. Datapoints stand in for queries without.
    name : str
        What to call the data.
    num_threads : int
        To build on; 0 means all cores.

    Raises
    ------
    ConfigError
        If the sample is too small, the settings have no tree or no codes, or nothing reaches the
        recall.
    """
    for kind, argument, value in ((Profile, "usual", usual), (IndexConfig, "config", config)):
        if not isinstance(value, kind):
            raise ConfigError(f"{argument} is {value!r}; expected {kind.__name__}")
    check_name("name", name)
    recall = check_number("recall", recall, most=1.0, open_ends=(True, True))
    num_threads = check_count("num_threads", num_threads, minimum=0)
    db = as_database(db)
    if queries is not None:
        queries = check_sample_queries(queries, db.shape[1], config.distance_measure)
    found, leaves, larger = sample_look(db, config, recall, queries, num_threads)
    return usual.matched(
        name, len(db), leaves, recall, found, larger, neighbors=config.num_neighbors
    )


def sample_look(
    db: NDArray[Any],
    config: IndexConfig,
    recall: float,
    queries: NDArray[np.float32] | None,
    num_threads: int,
) -> tuple[Look, int, float]:
    """Build an index of a sample; return what a recall takes there, the leaves, and `larger`."""
    if config.tree is None or not isinstance(config.score, AHConfig):
        raise ConfigError("a sample tells nothing of an index without a tree or without codes")
    if len(db) < _LEAST_SAMPLE:
        raise ConfigError(
            f"the sample has {len(db):,} datapoints; expected {_LEAST_SAMPLE:,} at least"
        )
    leaves = round(math.sqrt(len(db)))
    tree = dataclasses.replace(config.tree, num_leaves=leaves, num_leaves_to_search=1)
    config = dataclasses.replace(config, tree=tree)
    threads = num_threads or kernels.hardware_threads()
    packed = build_index(db, config, num_threads=threads)
    panels = draw_panels(db, config, 400, queries, threads)
    (found,), larger = look_at(packed, db, panels, [recall], threads)
    if found is None:
        raise ConfigError(f"nothing reaches a recall of {recall:g} on the sample")
    return found, packed.num_leaves, larger

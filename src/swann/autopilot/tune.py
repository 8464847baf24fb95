"""Build, measure, settle."""

from __future__ import annotations

import dataclasses
import math
import sys
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.autopilot.choose import choose_config
from swann.autopilot.measure import Limits, Measure, recalls, rows_only
from swann.autopilot.sample import WIDE, draw_panels, row_length
from swann.config import AHConfig, AutopilotConfig, IndexConfig, ReorderType
from swann.distance import COSINE, DistanceMeasure, normalize_rows
from swann.errors import InvalidInputError, RecallWarning, ShapeError
from swann.index.building.build import LONGEST, Progress, build_index
from swann.index.building.learned import Learned
from swann.index.packed import PackedIndex
from swann.vectors import as_queries

__all__ = ["build_tuned", "check_sample_queries", "choose_for"]

F32 = NDArray[np.float32]

_QUERIES, _MOST_QUERIES, _FEWEST_QUERIES, _LISTED = 400, 1000, 48, 400 * 1024
"""Queries in a panel, more where each has few neighbors, fewer where each lists many candidates."""

_CANDIDATES, _CANDIDATES_EACH = 1024, 16
_ERRORS = 2.0
"""Standard errors that a measured recall is taken to be too high by: what reaches its target then
reaches it on other queries of the kind too."""

_ENOUGH_TO_PART, _ONE_IN = 1000, 5
"""Training queries from which on one in five is kept to measure with."""

_MANY_EACH, _PROJECTED_VALUE = 20, 0.05
"""Candidates for each neighbor, from which on a projection is doubted; what it costs a value."""

_TRIES = 12
_STEP = 0.002


def build_tuned(
    db: NDArray[Any],
    distance_measure: DistanceMeasure,
    num_neighbors: int,
    autopilot: AutopilotConfig,
    *,
    seed: int = 0,
    sample_queries: F32 | None = None,
    num_threads: int = 0,
    progress: Progress | None = None,
    training_queries: F32 | None = None,
    learned: Learned | None = None,
    copy: bool = True,
    warn: bool = True,
) -> PackedIndex:
    """Build an index whose settings are chosen by the size of its database and by measuring.

    Parameters
    ----------
    db : array of shape (n, d)
        As `swann.vectors.as_database` returns it; n may be 0.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means.
    num_neighbors : int
        Neighbors that a search returns by default: the k of the recall.
    autopilot : AutopilotConfig
        The target, the precision of rows, the mode of updates.
    seed : int
        Of all randomness. The same input and seed give the same index, on any number of threads.
    sample_queries : float32 array of shape (m, d), optional
        As `check_sample_queries` returns them. Datapoints stand in for queries without.
    num_threads : int
        0 means all cores.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    training_queries : float32 array of shape (m, d), optional
        As `check_sample_queries` returns them: what the loss is built from and, without
        `sample_queries`, what recall is measured with.
    learned : Learned, optional
        What queries taught an index before.
    copy : bool
        See `swann.index.building.build.build_index`.
    warn : bool
        Whether to say so, by a `RecallWarning`, where nothing reaches the target.

    Returns
    -------
    PackedIndex
        What was chosen, why, and the recall that was measured stand in its
        ``config.autopilot.reasons``.

    Raises
    ------
    NonFiniteError, ZeroVectorError, InvalidInputError, ConfigError
        As `swann.index.building.build.build_index` does.
    """
    threads = num_threads or kernels.hardware_threads()
    like_datapoints = sample_queries is None and training_queries is None

    def chosen(project: bool) -> IndexConfig:
        return choose_for(
            db, distance_measure, num_neighbors, autopilot, seed=seed, project=project
        )

    config = chosen(like_datapoints)
    if training_queries is not None and sample_queries is None:
        training_queries, sample_queries = _keep_back(training_queries)

    def built(config: IndexConfig) -> PackedIndex:
        return build_index(
            db,
            config,
            num_threads=threads,
            progress=progress,
            training_queries=training_queries,
            learned=learned,
            copy=copy,
        )

    def tuned(config: IndexConfig) -> _Tuning:
        return _Tuning(built(config), db, sample_queries, threads, progress)

    if config.tree is None and not isinstance(config.score, AHConfig):
        return built(config)
    writeable = db.flags.writeable
    try:
        best = tuned(config)
        if best.doubts_projection:
            rank, candidates = best.rank, best.candidates
            del best  # two at once may be more than there is memory for
            best = tuned(_with_reason(chosen(False), candidates))
            if best.rank > rank:
                best = tuned(config)
        if warn and best.missing:
            warnings.warn(best.missing, RecallWarning, stacklevel=_outside())
        return best.index
    except BaseException:
        db.flags.writeable = writeable  # no index has it for its rows
        raise


def _with_reason(config: IndexConfig, candidates: int) -> IndexConfig:
    autopilot = config.autopilot
    assert autopilot is not None
    reason = f"all dimensions: with fewer {candidates:,} candidates were needed"
    told = dataclasses.replace(autopilot, reasons=(*autopilot.reasons, reason))
    return dataclasses.replace(config, autopilot=told)


def choose_for(
    db: NDArray[Any],
    distance_measure: DistanceMeasure,
    num_neighbors: int,
    autopilot: AutopilotConfig,
    *,
    seed: int = 0,
    project: bool = False,
) -> IndexConfig:
    """Return what suits a database, by its size and the lengths of some rows; see `build_tuned`.

    `project` is that of `swann.autopilot.choose`.
    """
    n, d = db.shape
    return choose_config(
        n,
        d,
        distance_measure,
        num_neighbors,
        autopilot=autopilot,
        row_length=1.0 if distance_measure == COSINE else row_length(db, seed),
        seed=seed,
        project=project,
    )


def _outside() -> int:
    """Return the `stacklevel` of the code that called swann, for a warning of the caller's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("swann."):
        level, frame = level + 1, frame.f_back
    return level


def _keep_back(queries: F32) -> tuple[F32, F32]:
    """Part queries to train with and queries to measure with; where they are few, all do both."""
    if len(queries) < _ENOUGH_TO_PART:
        return queries, queries
    measured = np.zeros(len(queries), np.bool_)
    measured[_ONE_IN - 1 :: _ONE_IN] = True
    return queries[~measured], queries[measured]


def check_sample_queries(
    queries: object,
    dimension: int,
    distance_measure: DistanceMeasure,
    name: str = "sample_queries",
) -> F32:
    """Return sample queries as float32, shape (m, d), m at least 1; errors call them `name`.

    Raises
    ------
    ShapeError, DTypeError, NonFiniteError, ZeroVectorError, InvalidInputError
        If they could not be searched for.
    """
    checked = as_queries(queries, dimension, 2, name)
    if len(checked) == 0:
        raise ShapeError(f"{name} have no rows; expected some hundred, at least one")
    good, _ = kernels.check_rows(checked)
    if good < len(checked):
        raise InvalidInputError(f"{name}[{good}] is longer than {LONGEST:g}")
    if distance_measure == COSINE:
        normalize_rows(checked, name)
    return checked


class _Attempt(NamedTuple):
    """What was found with some limits: recalls by panel, and what they surely are."""

    packed: PackedIndex
    limits: Limits
    means: list[float]
    sure: list[float]

    def lacks(self, targets: list[float]) -> list[float]:
        """Return what each panel's recall lacks for its target, 0 where nothing."""
        return [
            0.0 if mean == 1.0 else max(0.0, target - sure)
            for mean, sure, target in zip(self.means, self.sure, targets, strict=True)
        ]


def _least_bad(attempts: list[_Attempt], targets: list[float]) -> _Attempt:
    """Return the cheapest of those that find about as much as the best."""
    lacks = [max(attempt.lacks(targets)) for attempt in attempts]
    good = (a for a, lack in zip(attempts, lacks, strict=True) if lack <= min(lacks) + 2 * _STEP)
    return min(good, key=lambda attempt: attempt.limits.cost)


class _Tuning:
    """Finds the cheapest limits that reach the target, and writes them into the settings.

    Attributes
    ----------
    index : PackedIndex
        What was tuned.
    missing : str
        What is less than asked for; "" if nothing is.
    rank : (bool, float)
        Whether something is missing, and what a query costs by counting (see `Measure`): the less
        the better.
    candidates : int
        That are reordered.
    doubts_projection : bool
        Whether so many candidates are needed that all dimensions may be cheaper.
    """

    def __init__(
        self,
        packed: PackedIndex,
        db: NDArray[Any],
        sample_queries: F32 | None,
        threads: int,
        progress: Progress | None,
    ) -> None:
        settings = packed.config.autopilot
        assert settings is not None
        self.packed = packed
        self.db = db
        self.threads = threads
        self.progress = progress
        self.settings = settings
        n, k = packed.num_datapoints, packed.config.num_neighbors
        # Without a tree, reordering everything is exact: some number of candidates always will do.
        self.most = (
            n
            if packed.centroids is None
            else min(n, max(_CANDIDATES_EACH * k, min(_CANDIDATES, _QUERIES * k)))
        )
        size = min(_MOST_QUERIES, max(_QUERIES, 10 * _QUERIES // k))
        size = min(size, max(_FEWEST_QUERIES, _LISTED // self.most))
        self.report(0)
        self.panels = draw_panels(db, packed.config, size, sample_queries, threads)
        self.report(1)
        target = self.settings.target_recall
        self.targets = [1.0 - panel.leniency * (1.0 - target) for panel in self.panels]
        attempt, reached = self.search()
        self.report(3)
        self.index = self.settle(attempt, reached)
        self.missing = self.what_is_missing(attempt)
        cost = attempt.limits.cost
        if packed.projects:
            cost += _PROJECTED_VALUE * packed.dimension * packed.reduced_dim
        self.rank = bool(self.missing), cost
        self.candidates = attempt.limits.candidates
        self.doubts_projection = packed.projects and self.candidates > _MANY_EACH * k

    def report(self, done: int) -> None:
        if self.progress is not None:
            self.progress("measure", done, 3)

    def search(self) -> tuple[_Attempt, bool]:
        """Return what is cheapest and surely reaches the target, or else what comes near."""
        target, targets = self.settings.target_recall, self.targets
        measure = Measure(self.packed, self.panels, self.db, self.most, target, self.threads)
        self.report(2)
        goals = targets
        attempts: list[_Attempt] = []
        for _ in range(_TRIES):
            # Rows that do not lie leaf by leaf are slow to scan.
            limits = measure.best(goals, rows_alone=not self.packed.in_database_order)
            if limits is None and attempts:
                break
            attempts.append(self.attempt(limits or measure.widest()))
            lacks = attempts[-1].lacks(targets)
            if not any(lacks):
                return attempts[-1], True
            goals = [
                min(1.0, goal + max(_STEP, lack)) if lack else goal
                for goal, lack in zip(goals, lacks, strict=True)
            ]
        return _least_bad(attempts, targets), False

    def attempt(self, limits: Limits) -> _Attempt:
        packed = rows_only(self.packed) if limits.candidates == 0 else self.packed
        seen = [recalls(packed, p, self.db, limits, self.threads) for p in self.panels]
        means = [float(s.mean()) for s in seen]
        errors = [float(s.std()) / math.sqrt(len(s)) for s in seen]
        sure = [mean - _ERRORS * error for mean, error in zip(means, errors, strict=True)]
        return _Attempt(packed, limits, means, sure)

    def settle(self, attempt: _Attempt, reached: bool) -> PackedIndex:
        packed, limits = attempt.packed, attempt.limits
        config = packed.config
        tree, reorder = config.tree, config.reorder
        reasons = list(self.settings.reasons)
        if packed.codes is None and self.packed.codes is not None:
            reasons.append("codes dropped: scoring rows as they are finds as much at less cost")
        found = []
        if packed.projects:
            reasons.append(f"{packed.reduced_dim:,} of {packed.dimension:,} dimensions kept")
        if tree is not None:
            leaves = min(limits.leaves, tree.num_leaves)
            tree = dataclasses.replace(tree, num_leaves_to_search=leaves)
            found.append(f"{leaves:,} leaves to search")
        if reorder is not None:
            candidates = max(config.num_neighbors, limits.candidates)
            reorder = dataclasses.replace(reorder, reordering_num_neighbors=candidates)
            found.append(f"{candidates:,} candidates to reorder")
        reasons.append(f"{' and '.join(found)}: {self.said(attempt.means, reached)}")
        autopilot = dataclasses.replace(self.settings, reasons=tuple(reasons))
        config = dataclasses.replace(config, tree=tree, reorder=reorder, autopilot=autopilot)
        return dataclasses.replace(packed, config=config)

    def what_is_missing(self, attempt: _Attempt) -> str:
        """Say which queries find less than was asked for, and what would help; "" if none."""
        target = self.settings.target_recall
        pairs = list(zip(attempt.means, self.panels, strict=True))
        short = [
            (mean, p) for mean, p in pairs if mean < 1.0 - max(1.0, p.leniency) * (1.0 - target)
        ]
        if not short:
            return ""
        hint = ""
        if self.settings.quantize is not ReorderType.FLOAT32:
            hint = "; rows in float32 (quantize) would tell more datapoints apart"
        elif self.packed.in_database_order:
            hint = "; a copy of the rows (copy=True) could be searched without codes"
        elif short[-1][1].about == WIDE:
            hint = "; sample_queries would tell what is found of real ones"
        k = self.panels[0].neighbors.shape[1]
        found = ", ".join(f"{mean:.4f} of {len(p.queries):,} {p.about}" for mean, p in short)
        return f"recall {k:,}@{k:,} is {found}, less than target_recall {target:g} asks for{hint}"

    def said(self, means: list[float], reached: bool) -> str:
        k = self.panels[0].neighbors.shape[1]
        parts = [
            f"recall {k:,}@{k:,} of {mean:.3f} on {len(p.queries):,} {p.about}"
            for mean, p in zip(means, self.panels, strict=True)
        ]
        target = self.settings.target_recall
        fell = "" if reached else f"; short of the target {target:g}, which nothing cheap reaches"
        return ", ".join(parts) + fell

"""The settings that are planned: what autopilot chooses, and more where there are many leaves."""

from __future__ import annotations

import dataclasses
import math

from swann import files
from swann.autopilot import choose_config, choose_for
from swann.config import (
    AHConfig,
    AutopilotConfig,
    BruteForceConfig,
    IndexConfig,
    ReorderType,
    TreeConfig,
    UpperTreeConfig,
    check_count,
    check_path,
)
from swann.distance import DistanceMeasure, check_distance_measure
from swann.errors import ConfigError
from swann.index.building.build import ENOUGH_A_LEAF
from swann.plan.machine import usual_profile
from swann.plan.profile import Look, Profile, measured
from swann.vectors import as_database

__all__ = ["configure", "profile_of_file"]

_MANY = 1_000_000
_SCORED_ALL, _MANY_LEAVES = 2_000, 20_000
"""Leaves up to which all centroids are scored in float32, and from which there is a level above."""


def profile_of_file(
    path: str, n: int, dimension: int, distance_measure: DistanceMeasure, recall: float
) -> Profile:
    """Return the profile of the data that a file has a sample of; `n` is what is planned."""
    n, dimension = check_count("n", n), check_count("dimension", dimension)
    distance_measure = check_distance_measure(distance_measure)
    db = as_database(files.read_array(str(check_path("path", path))))
    if db.shape[1] != dimension:
        raise ConfigError(f"the sample has {db.shape[1]} dimensions, but dimension is {dimension}")
    chosen = choose_for(db, distance_measure, 10, AutopilotConfig(target_recall=recall))
    tree = TreeConfig(num_leaves=2, num_leaves_to_search=1)
    score, reorder = chosen.score, chosen.reorder
    if not isinstance(score, AHConfig):  # a sample is small: codes as for what is planned
        large, _ = configure(
            max(n, _MANY), dimension, distance_measure=distance_measure, recall=recall
        )
        score, reorder = large.score, large.reorder
    config = dataclasses.replace(chosen, tree=tree, score=score, reorder=reorder)
    name = f"a sample of {len(db):,}"
    return measured(usual_profile(), db, config, recall=recall, name=name)


def configure(
    n: int,
    dimension: int,
    *,
    distance_measure: DistanceMeasure,
    recall: float,
    num_neighbors: int = 10,
    quantize: ReorderType | str = ReorderType.FLOAT32,
    leaves: int | None = None,
    soar_lambda: float | None = None,
    profile: Profile | None = None,
) -> tuple[IndexConfig, Look]:
    """Return the settings of an index as autopilot chooses them, and what a query looks at.

    Beyond autopilot: where there are many leaves, centroids are rounded, or get a level above, and
    more datapoints are trained on.
    """
    usual = usual_profile() if profile is None else profile
    settings = AutopilotConfig(quantize=_precision(quantize), target_recall=recall)
    config = choose_config(n, dimension, distance_measure, num_neighbors, autopilot=settings)
    if config.tree is None:
        if leaves is not None:
            raise ConfigError(f"leaves is {leaves}, but {n:,} datapoints need no tree")
        if isinstance(config.score, BruteForceConfig):
            return config, Look(1, float(n), 0)
        candidates = usual.look(n, 1, recall, num_neighbors).candidates
        return _with_candidates(config, candidates), Look(1, float(n), candidates)
    count = config.tree.num_leaves if leaves is None else check_count("leaves", leaves)
    if count > n:
        raise ConfigError(f"leaves is {count:,}; expected at most {n:,}, one for each datapoint")
    look = usual.look(n, count, recall, num_neighbors)
    upper = None
    if count > _MANY_LEAVES:
        above = round(math.sqrt(count))
        upper = UpperTreeConfig(
            num_leaves=above, num_leaves_to_search=-(-above // 5), soar_lambda=1.0
        )
    tree = TreeConfig(
        num_leaves=count,
        num_leaves_to_search=look.leaves,
        training_sample_size=max(config.tree.training_sample_size, ENOUGH_A_LEAF * count),
        quantize_centroids=upper is None and count > _SCORED_ALL,
        soar_lambda=soar_lambda,
        upper=upper,
    )
    if isinstance(config.score, BruteForceConfig):
        look = look._replace(candidates=0)
    return dataclasses.replace(_with_candidates(config, look.candidates), tree=tree), look


def _with_candidates(config: IndexConfig, candidates: int) -> IndexConfig:
    if config.reorder is None:
        return config
    reorder = dataclasses.replace(config.reorder, reordering_num_neighbors=max(1, candidates))
    return dataclasses.replace(config, reorder=reorder)


def _precision(given: ReorderType | str) -> ReorderType:
    if isinstance(given, ReorderType):
        return given
    try:
        return ReorderType[str(given).upper()]
    except KeyError:
        raise ConfigError(
            f"quantize is {given!r}; expected one of {', '.join(r.name for r in ReorderType)}"
        ) from None

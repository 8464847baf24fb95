"""Settings of the partition and of the trees above it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from swann.config.checks import (
    Config,
    ReorderType,
    check_count,
    check_count_or_zero,
    check_factor,
    check_flag,
    check_reorder_type,
    check_threshold,
    check_updates,
)
from swann.errors import ConfigError

__all__ = ["TreeConfig", "UpperTreeConfig"]


def _check_spilling(config: TreeConfig | UpperTreeConfig) -> None:
    config.normalize(check_factor(0.0), "soar_lambda")
    config.normalize(check_factor(1.0), "overretrieve_factor", "avq")
    if config.overretrieve_factor is not None and config.soar_lambda is None:
        raise ConfigError(
            "overretrieve_factor is given without soar_lambda; it says how many candidates to "
            "keep where spilled datapoints come twice"
        )


def _check_leaves(config: TreeConfig | UpperTreeConfig) -> None:
    config.normalize(check_count, "num_leaves", "num_leaves_to_search")
    if config.num_leaves_to_search > config.num_leaves:
        raise ConfigError(
            f"num_leaves_to_search is {config.num_leaves_to_search}, but there are only "
            f"num_leaves={config.num_leaves}"
        )


def _check_upper(config: TreeConfig | UpperTreeConfig) -> None:
    upper = config.upper
    if upper is None:
        return
    if not isinstance(upper, UpperTreeConfig):
        raise ConfigError(f"upper is {upper!r}; expected an UpperTreeConfig or None")
    if upper.num_leaves > config.num_leaves:
        raise ConfigError(
            f"the upper tree has num_leaves={upper.num_leaves}, more than the {config.num_leaves} "
            "centroids below it"
        )


class _Level(Config):
    """A level of the tree: what is above it goes to and from JSON with it."""

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Make settings from what `to_dict` returned."""
        if isinstance(settings, Mapping) and settings.get("upper") is not None:
            settings = {**settings, "upper": UpperTreeConfig.from_dict(settings["upper"])}
        return super().from_dict(settings)


@dataclass(frozen=True, kw_only=True, eq=False)
class UpperTreeConfig(_Level):
    """Settings of a tree over the centroids of the level below, so that few of them are scored.

    Parameters
    ----------
    num_leaves : int
        Leaves of this level; about the square root of the centroids below is a good start.
    num_leaves_to_search : int
        Leaves of this level that a search visits; a fifth of them finds nearly all of the leaves
        below that it should. Where they hold fewer than the search asks for, more are visited.
    avq : float, optional
        As in `TreeConfig`.
    soar_lambda, overretrieve_factor : float, optional
        Give every centroid below a second leaf of this level, as in `TreeConfig`. So many entries
        (2 by default, and at least) are gathered for every leaf below that is asked for.
    scoring_mode : ReorderType
        Precision of the centroids below while they are scored. The chosen leaves' scores are
        those of the float32 centroids in any case.
    anisotropic_quantization_threshold : float
        With INT8 or BFLOAT16 `scoring_mode`: round these centroids under the score-aware loss.
    upper : UpperTreeConfig, optional
        A further level above this one.
    """

    num_leaves: int
    num_leaves_to_search: int
    avq: float | None = None
    soar_lambda: float | None = None
    overretrieve_factor: float | None = None
    scoring_mode: ReorderType = ReorderType.INT8
    anisotropic_quantization_threshold: float = math.nan
    upper: UpperTreeConfig | None = None

    def __post_init__(self) -> None:
        _check_leaves(self)
        _check_spilling(self)
        self.normalize(check_reorder_type, "scoring_mode")
        self.normalize(check_threshold, "anisotropic_quantization_threshold")
        _check_upper(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeConfig(_Level):
    """Settings of the partition.

    Parameters
    ----------
    num_leaves : int
        Leaves of the tree. About the square root of the number of datapoints is a good start.
    num_leaves_to_search : int
        Leaves that a search visits by default; time and recall grow with it.
    training_sample_size : int
        Datapoints that the centroids are trained on.
    min_partition_size : int
        While the tree is trained, a leaf that holds fewer datapoints of the sample gives its
        centroid to the largest. An eighth of the mean size is always enough; 0: only empty
        leaves do. Leaves may end smaller.
    training_iterations : int
        Upper limit on k-means iterations.
    spherical : bool
        Keep centroids on the unit sphere.
    quantize_centroids : bool
        Score the centroids in int8 while leaves are chosen. Where those in float32 do not fit the
        processor's cache (20,000 leaves) a query takes half the time; recall stays within .0005.
        With `upper`, its `scoring_mode` says how they are scored instead.
    random_init : bool
        Start from random datapoints; False: from datapoints that are far apart (k-means++).
    soar_lambda : float, optional
        Give every datapoint a second leaf, chosen by SOAR with this weight on residuals that are
        parallel to the first; 1.0 to 1.5 is usual. Codes take twice the memory, and fewer
        datapoints are scored for the same recall.
    overretrieve_factor : float, optional
        With `soar_lambda`: candidates kept for each one asked for, since some come twice; 2 by
        default, at least 1.
    incremental_threshold : int or float, optional
        Split the leaves that have grown and merge those that have emptied after this many updates
        (an int), or after updates of this fraction of the datapoints (a float).
    avq : float, optional
        Anisotropic centroids: how much more an error along the datapoint costs than one across it
        (eta, at least 1), so that ``<q, c>`` is nearest to the scores of the leaf's datapoints.
        1.5 to 4 finds more under dot product and cosine, with `soar_lambda` most of all; under
        squared l2 it is allowed, and finds less.
    upper : UpperTreeConfig, optional
        Search the centroids through a tree of their own.
    """

    num_leaves: int
    num_leaves_to_search: int
    training_sample_size: int = 100_000
    min_partition_size: int = 50
    training_iterations: int = 12
    spherical: bool = False
    quantize_centroids: bool = False
    random_init: bool = True
    soar_lambda: float | None = None
    overretrieve_factor: float | None = None
    incremental_threshold: int | float | None = None
    avq: float | None = None
    upper: UpperTreeConfig | None = None

    def __post_init__(self) -> None:
        _check_leaves(self)
        _check_spilling(self)
        self.normalize(check_count, "training_sample_size", "training_iterations")
        self.normalize(check_count_or_zero, "min_partition_size")
        self.normalize(check_flag, "spherical", "quantize_centroids", "random_init")
        self.normalize(check_updates, "incremental_threshold")
        _check_upper(self)

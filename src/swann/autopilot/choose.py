"""What suits n datapoints of d dimensions.

ScaNN's rules of thumb are brute force under 20,000 datapoints, codes without a tree under 100,000
and a tree above, with the square root of n leaves and 2 dimensions a block. Here a tree pays far
sooner, and how long brute force takes depends on n times d: docs/autopilot.md has the figures.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

from swann.config import (
    AHConfig,
    AutopilotConfig,
    BruteForceConfig,
    IncrementalMode,
    IndexConfig,
    ProjectionConfig,
    ReorderConfig,
    TreeConfig,
    check_count,
)
from swann.config.checks import check_factor, check_flag
from swann.distance import COSINE, DOT_PRODUCT, SQUARED_L2, DistanceMeasure, check_distance_measure
from swann.errors import ConfigError
from swann.quantize.anisotropic import ratio_for_eta

__all__ = ["TREE_ROWS", "Choice", "choose", "choose_config", "outgrown", "sizes_that_fit"]

_EXACT_ROWS, _EXACT_VALUES = 20_000, 2**20
"""Up to so many datapoints and values, brute force answers a query in .2 ms or less."""

_EXACT_NEIGHBORS = 8
"""Brute force, too, where more than one in so many datapoints is asked for."""

TREE_ROWS = 4_000
"""Fewer datapoints are scored faster than leaves are chosen well."""

_FEW_DIMENSIONS = 4
"""Up to here rows are as quick to score as codes, and leaves are so good that few are needed."""

_NARROW = 48
"""Below this dimension one dimension a block costs nothing and halves the candidates."""

_ETA = 4.0
"""What an error along a datapoint costs against one across it. 4 to 8 are alike at d = 50 to 100,
2 to 4 at d = 576; ScaNN's T = 0.2 means 6 at d = 100 and 26 at d = 576, for unit vectors."""

_PROJECTED_FROM, _PROJECTED_TO = 128, 1024
"""Dimensions: fewer are scanned as fast; of more the principal components take long to find."""

_VARIANCE, _COMPONENTS = 0.92, 0.4
"""Components that hold this share of the variance, if they are less than that share of all."""

_INCREMENT = 0.1
_GROWN, _SHRUNK, _LEAVES_OFF = 1.25, 2.0, 2.0


class Choice(NamedTuple):
    """Settings, and why they are what they are.

    Attributes
    ----------
    config : IndexConfig
        With `IndexConfig.autopilot` set.
    reasons : tuple of str
        A short sentence for each choice; also in ``config.autopilot.reasons``.
    """

    config: IndexConfig
    reasons: tuple[str, ...]


def choose(
    n: int,
    d: int,
    distance_measure: DistanceMeasure,
    num_neighbors: int = 10,
    *,
    autopilot: AutopilotConfig | None = None,
    row_length: float = 1.0,
    seed: int = 0,
    project: bool = False,
) -> Choice:
    """Choose the settings of an index from the size of its database.

    A pure function: nothing is measured. Leaves to search and candidates to reorder are what
    usually suffices; `build_tuned` replaces them by what it finds.

    Parameters
    ----------
    n : int
        Datapoints; 0 for an index that starts empty.
    d : int
        Dimensions.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means.
    num_neighbors : int
        Neighbors that a search returns by default.
    autopilot : AutopilotConfig, optional
        The target, the precision of rows, the mode of updates.
    row_length : float
        Usual Euclidean length of a datapoint, by which the anisotropic threshold is scaled under
        the dot product.
    seed : int
        Of the randomness in training.
    project : bool
        Whether the tree and the codes may have fewer dimensions, where the database turns out to
        vary in few: for queries that look like datapoints. Not under the dot product.

    Returns
    -------
    Choice

    Raises
    ------
    ConfigError
        If an argument is bad.

    Examples
    --------
    >>> choose(1_000_000, 128, "cosine").config.tree.num_leaves
    1000
    >>> choose(500, 128, "cosine").reasons[0]
    'brute force: 500 x 128 values are scored in .2 ms or less'
    """
    n = check_count("n", n, minimum=0)
    d = check_count("d", d)
    k = check_count("num_neighbors", num_neighbors)
    measure = check_distance_measure(distance_measure)
    settings = AutopilotConfig() if autopilot is None else autopilot
    if not isinstance(settings, AutopilotConfig):
        raise ConfigError(f"autopilot is {autopilot!r}; expected an AutopilotConfig or None")
    if check_factor(0.0)("row_length", row_length) is None:
        raise ConfigError(f"row_length is {row_length!r}; expected a finite length")
    check_flag("project", project)
    reasons: list[str] = []
    stage = _stage(n, d, k)
    tree = _tree(n, measure, settings.mode, reasons) if stage == 2 else None
    score: AHConfig | BruteForceConfig
    reorder = projection = None
    if stage == 0:
        score = BruteForceConfig(quantize=settings.quantize)
        reasons.append(
            f"brute force: {n:,} x {d:,} values are scored in .2 ms or less"
            if n <= _EXACT_ROWS and n * d <= _EXACT_VALUES
            else f"brute force: {k:,} of {n:,} datapoints are asked for"
        )
    elif d <= _FEW_DIMENSIONS:
        score = BruteForceConfig(quantize=settings.quantize)
        reasons.append(f"rows as they are: codes would not pay in {d} dimensions")
    else:
        if stage == 1:
            reasons.append(f"codes without a tree: {n:,} datapoints are few")
        score = _codes(d, measure, row_length, reasons)
        if project and tree is not None:
            projection = _projection(d, measure, settings.mode, reasons)
        usual = 20 if measure == DOT_PRODUCT else 10
        reorder = ReorderConfig(
            reordering_num_neighbors=max(1, min(n, max(100, usual * k))),
            quantize=settings.quantize,
        )
    chosen = AutopilotConfig(
        mode=settings.mode,
        quantize=settings.quantize,
        target_recall=settings.target_recall,
        reasons=tuple(reasons),
    )
    config = IndexConfig(
        num_neighbors=k,
        distance_measure=measure,
        tree=tree,
        score=score,
        reorder=reorder,
        projection=projection,
        autopilot=chosen,
        seed=seed,
    )
    return Choice(config, tuple(reasons))


def choose_config(
    n: int,
    d: int,
    distance_measure: DistanceMeasure,
    num_neighbors: int = 10,
    *,
    autopilot: AutopilotConfig | None = None,
    row_length: float = 1.0,
    seed: int = 0,
    project: bool = False,
) -> IndexConfig:
    """Return the settings that `choose` chooses.

    Parameters
    ----------
    n, d, distance_measure, num_neighbors, autopilot, row_length, seed, project
        As for `choose`.

    Returns
    -------
    IndexConfig
        Its reasons are in ``autopilot.reasons``.

    Raises
    ------
    ConfigError
        As `choose` does.

    Examples
    --------
    >>> choose_config(0, 128, "cosine").score
    BruteForceConfig(quantize=ReorderType.FLOAT32)
    """
    return choose(
        n,
        d,
        distance_measure,
        num_neighbors,
        autopilot=autopilot,
        row_length=row_length,
        seed=seed,
        project=project,
    ).config


def outgrown(config: IndexConfig, n: int, d: int) -> bool:
    """Whether an index whose settings autopilot chose would now be better off with others.

    With room on both sides: right after it was built anew, an index has to grow by a quarter or to
    lose half of its datapoints before it can be outgrown again.

    Parameters
    ----------
    config : IndexConfig
        Of the index. Settings that were not chosen by autopilot are never outgrown.
    n, d : int
        Its datapoints now, and their dimension.

    Returns
    -------
    bool

    Examples
    --------
    >>> config = choose_config(10_000, 100, "cosine")
    >>> [outgrown(config, n, 100) for n in (10_000, 11_000, 20_000)]
    [False, False, True]
    """
    n = check_count("n", n, minimum=0)
    d = check_count("d", d)
    if config.autopilot is None:
        return False
    k = config.num_neighbors
    stage = 2 if config.tree is not None else int(isinstance(config.score, AHConfig))
    if _stage(int(n / _GROWN), d, k) > stage or _stage(int(n * _SHRUNK), d, k) < stage:
        return True
    if config.tree is None or _stage(n, d, k) < 2:
        return False
    ratio = _num_leaves(n) / config.tree.num_leaves
    return not 1.0 / _LEAVES_OFF < ratio < _LEAVES_OFF


def sizes_that_fit(config: IndexConfig, n: int, d: int) -> range:
    """Return the numbers of datapoints about n at which an index is not outgrown.

    Parameters
    ----------
    config, n, d
        As for `outgrown`.

    Returns
    -------
    range
        All, for settings that were not chosen by autopilot; none if n itself is too many or few.

    Examples
    --------
    >>> sizes_that_fit(choose_config(100_000, 100, "cosine"), 100_000, 100)
    range(25123, 398793)
    """
    if config.autopilot is None:
        return range(sys.maxsize)
    if outgrown(config, n, d):
        return range(0)

    def farthest(fits: int, not_any_more: int) -> int:
        while abs(not_any_more - fits) > 1:
            between = (fits + not_any_more) // 2
            if outgrown(config, between, d):
                not_any_more = between
            else:
                fits = between
        return fits

    least = 0 if not outgrown(config, 0, d) else farthest(n, 0)
    most = 2 * n + 1
    while not outgrown(config, most, d) and most < sys.maxsize // 2:
        most *= 2
    return range(least, farthest(n, most) + 1)


def _stage(n: int, d: int, k: int) -> int:
    """0: brute force, 1: codes without a tree, 2: a tree. Never falls as n grows."""
    if n <= _EXACT_NEIGHBORS * k or (n <= _EXACT_ROWS and n * d <= _EXACT_VALUES):
        return 0
    return 1 if n < TREE_ROWS and d > _FEW_DIMENSIONS else 2


def _num_leaves(n: int) -> int:
    return max(1, round(math.sqrt(n)))


def _tree(
    n: int, measure: DistanceMeasure, mode: IncrementalMode, reasons: list[str]
) -> TreeConfig:
    leaves = _num_leaves(n)
    reasons.append(f"a tree of {leaves:,} leaves: the square root of {n:,} datapoints")
    usual = 4 if measure == DOT_PRODUCT else 6
    return TreeConfig(
        num_leaves=leaves,
        num_leaves_to_search=max(1, -(-leaves // usual)),
        incremental_threshold=_INCREMENT if mode is IncrementalMode.ONLINE_INCREMENTAL else None,
    )


def _projection(
    d: int, measure: DistanceMeasure, mode: IncrementalMode, reasons: list[str]
) -> ProjectionConfig | None:
    """Principal components, if the build finds few. Leaves that grow for ever keep all."""
    if measure == DOT_PRODUCT or not _PROJECTED_FROM <= d <= _PROJECTED_TO:
        return None
    if mode is IncrementalMode.ONLINE_INCREMENTAL:
        reasons.append("all dimensions, since leaves will be split")
        return None
    reasons.append(
        f"principal components where less than {_COMPONENTS:.0%} of them hold {_VARIANCE:.0%} of "
        "the variance"
    )
    return ProjectionConfig(
        kind="pca", pca_significance_threshold=_VARIANCE, pca_truncation_threshold=_COMPONENTS
    )


def _codes(d: int, measure: DistanceMeasure, row_length: float, reasons: list[str]) -> AHConfig:
    width = AHConfig.narrowest(d, 1 if d < _NARROW else 2)
    reasons.append(f"{width} dimension{'s' * (width > 1)} a block")
    length = 1.0 if measure == COSINE else row_length
    threshold = math.nan
    if measure == SQUARED_L2:
        reasons.append("no anisotropic threshold: it changes nothing under squared l2")
    elif length > 0.0 and d > 1:
        threshold = length * ratio_for_eta(_ETA, d)
        reasons.append(
            f"anisotropic threshold {threshold:.3g}: an error along a datapoint of length "
            f"{length:.3g} costs {_ETA:g} times one across it in {d:,} dimensions"
        )
    return AHConfig(dimensions_per_block=width, anisotropic_quantization_threshold=threshold)

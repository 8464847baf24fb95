"""How a query finds its leaves without scoring every centroid in float32.

With `quantize_centroids` the centroids are kept in int8 too. With an upper tree they are kept in
the order of its leaves, in the precision of its `scoring_mode`, and a query scores those in the
best leaves only; a level above does the same for the centroids of the level below. Either way the
chosen leaves' scores, which those of their datapoints are added to, come from the float32
centroids: rounding can cost a leaf its place, never a datapoint its score.

Arrays of level i begin with ``upper{i}_``; level 0 lies over the centroids of the index, level 1
over those of level 0, and so on. An *entry* is a centroid of the level below in a leaf of this
level; with SOAR each has two.

::

    centroids_i8       int8    (leaves, d)   (quantize_centroids without an upper tree) times
    centroid_scales    float32 (leaves,)
    centroid_squares   float32 (leaves,)     squared lengths (squared l2)
    upper0_centroids   float32 (m, d)        of the level's leaves
    upper0_spreads     float32 (m,)          their reach (not for squared l2)
    upper0_starts      uint32  (m + 1,)      first entry of each leaf
    upper0_entries     uint32  (entries,)    the centroid below
    upper0_rows        float32 (entries, d)  that centroid as it is scored: float32,
    upper0_rows_bf16   uint16  (entries, d)  or bfloat16,
    upper0_rows_i8     int8    (entries, d)  or int8, times
    upper0_row_scales  float32 (entries,)
    upper0_row_squares float32 (entries,)    squared lengths (int8 and squared l2)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import IndexConfig, ReorderType, TreeConfig, UpperTreeConfig
from swann.distance import SQUARED_L2
from swann.index.rows import RowArrays, row_shapes
from swann.partition import tree
from swann.partition.avq import move_to_datapoints
from swann.quantize.anisotropic import anisotropic_weights

__all__ = ["build_routes", "levels", "native_routes", "route_dtype", "route_shapes"]

F32 = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]

_CENTROIDS: dict[str, np.dtype[Any]] = {
    "centroids_i8": np.dtype("i1"),
    "centroid_scales": np.dtype("<f4"),
    "centroid_squares": np.dtype("<f4"),
}
_LEVEL: dict[str, np.dtype[Any]] = {
    "centroids": np.dtype("<f4"),
    "spreads": np.dtype("<f4"),
    "starts": np.dtype("<u4"),
    "entries": np.dtype("<u4"),
    "rows": np.dtype("<f4"),
    "rows_bf16": np.dtype("<u2"),
    "rows_i8": np.dtype("i1"),
    "row_scales": np.dtype("<f4"),
    "row_squares": np.dtype("<f4"),
}
_ROWS = ("rows", "rows_bf16", "rows_i8", "row_scales", "row_squares")

_SAMPLE = 100_000
_MOST_VALUES = 4 * 1024 * 1024


def route_dtype(name: str) -> np.dtype[Any] | None:
    """Return the dtype of an array of this module; None where it is none."""
    level = re.fullmatch(r"upper\d+_(\w+)", name)
    return _CENTROIDS.get(name) if level is None else _LEVEL.get(level[1])


def levels(config: IndexConfig) -> list[UpperTreeConfig]:
    """Return the settings of the levels above the centroids, the lowest first."""
    found: list[UpperTreeConfig] = []
    above = None if config.tree is None else config.tree.upper
    while above is not None:
        found.append(above)
        above = above.upper
    return found


def _quantizes(config: IndexConfig) -> bool:
    """Whether int8 centroids are kept; with an upper tree its `scoring_mode` says how."""
    return config.tree is not None and config.tree.quantize_centroids and config.tree.upper is None


def route_shapes(config: IndexConfig, dimension: int) -> dict[str, tuple[int | None, ...]]:
    """Return the arrays of this module that an index of `config` has, and their shapes."""
    measure = config.distance_measure
    shapes: dict[str, tuple[int | None, ...]] = {}
    if _quantizes(config):
        shapes |= {"centroids_i8": (None, dimension), "centroid_scales": (None,)}
        if measure == SQUARED_L2:
            shapes["centroid_squares"] = (None,)
    for i, level in enumerate(levels(config)):
        own: dict[str, tuple[int | None, ...]] = {
            "centroids": (None, dimension),
            "starts": (None,),
            "entries": (None,),
            **row_shapes(level.scoring_mode, None, dimension, measure),
        }
        if measure != SQUARED_L2:
            own["spreads"] = (None,)
        shapes |= {f"upper{i}_{name}": shape for name, shape in own.items()}
    return shapes


def build_routes(
    config: IndexConfig,
    centroids: F32,
    threads: int,
    on_level: Callable[[int, int], None] | None = None,
) -> Arrays:
    """Make the arrays of this module for the centroids of an index.

    Whoever changes the centroids makes them anew. Training an upper level costs what k-means on
    the centroids below costs.

    Parameters
    ----------
    config : IndexConfig
        Of the index.
    centroids : float32 array of shape (leaves, d)
        Of its tree.
    threads : int
        The result does not depend on it.
    on_level : callable, optional
        Called as ``on_level(done, total)`` after each level.

    Returns
    -------
    dict of str to array
        Empty where all centroids are scored in float32.
    """
    made: Arrays = {}
    if _quantizes(config):
        kept = RowArrays(ReorderType.INT8, *centroids.shape)
        kept.put(np.arange(len(centroids), dtype=np.uint32), centroids, None, threads)
        arrays = kept.arrays(config.distance_measure)
        made = {f"centroid{name[3:]}": array for name, array in arrays.items()}
    above = levels(config)
    below = centroids
    for i, level in enumerate(above):
        arrays = _build_level(config, level, i, below, threads)
        made |= {f"upper{i}_{name}": array for name, array in arrays.items()}
        below = arrays["centroids"]
        if on_level is not None:
            on_level(i + 1, len(above))
    return made


def _build_level(
    config: IndexConfig, level: UpperTreeConfig, number: int, below: F32, threads: int
) -> Arrays:
    settings = TreeConfig(
        num_leaves=level.num_leaves,
        num_leaves_to_search=level.num_leaves_to_search,
        avq=level.avq,
    )
    rng = np.random.default_rng([config.seed, 4, number])
    size = max(_SAMPLE, level.num_leaves)
    sample = below
    if len(below) > size:
        sample = below[np.sort(rng.choice(len(below), size, replace=False, shuffle=False))]
    centroids = tree.train_tree(sample, settings, rng=rng, threads=threads)
    labels, scores = tree.assign_rows(below, centroids, level.avq, threads)
    order, starts = kernels.sort_by_leaf(labels, len(centroids))
    norms = np.linalg.norm(below, axis=1)
    distances = tree.leaf_distances(labels, scores, norms, len(centroids))
    if level.avq is not None:
        centroids, distances = move_to_datapoints(
            lambda ids: below[ids],
            order,
            starts,
            centroids,
            level.avq,
            most_rows=max(1, _MOST_VALUES // below.shape[1]),
            threads=threads,
        )
    entries = order
    if level.soar_lambda is not None:
        spilled = labels
        if len(centroids) > 1:
            spilled = kernels.spill_leaves(below, centroids, labels, level.soar_lambda, threads)
        starts, places = tree.spill_entries(starts, spilled[order])
        entries = order[places]
    weights = None
    threshold = level.anisotropic_quantization_threshold
    if not math.isnan(threshold) and level.scoring_mode is not ReorderType.FLOAT32:
        weights = anisotropic_weights(norms, below.shape[1], threshold)[entries]
    kept = RowArrays(level.scoring_mode, len(entries), below.shape[1])
    kept.put(np.arange(len(entries), dtype=np.uint32), below[entries], weights, threads)
    made: Arrays = {"centroids": centroids, "starts": starts, "entries": entries}
    if config.distance_measure != SQUARED_L2:
        made["spreads"] = tree.leaf_spreads(distances, below.shape[1], level.avq)
    return made | kept.arrays(config.distance_measure)


def native_routes(config: IndexConfig, routes: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what `NativeIndex` takes: ``rounded_centroids`` and ``upper``."""
    rounded = None
    if "centroids_i8" in routes:
        rounded = (
            None,
            None,
            routes["centroids_i8"],
            routes["centroid_scales"],
            routes.get("centroid_squares"),
        )
    upper = []
    for i, level in enumerate(levels(config)):
        name = f"upper{i}_"
        if f"{name}centroids" not in routes:
            break
        gather = 1.0
        if level.soar_lambda is not None:
            # Of twice as many entries as are wanted, at least half are different centroids.
            gather = max(2.0, level.overretrieve_factor or 2.0)
        upper.append(
            (
                routes[f"{name}centroids"],
                routes.get(f"{name}spreads"),
                routes[f"{name}starts"],
                routes[f"{name}entries"],
                tuple(routes.get(name + rows) for rows in _ROWS),
                level.num_leaves_to_search,
                gather,
            )
        )
    return {"rounded_centroids": rounded, "upper": upper}

"""What an index takes: the bytes of every array of `swann.index.packed`, without building it.

All lengths follow from the settings, but one: codes lie in groups of 32 entries of a leaf, and how
many groups are part empty depends on how many datapoints each leaf got. Whoever knows the leaves'
sizes gives the number of groups and gets exact figures; otherwise half a group a leaf is empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import (
    AHConfig,
    BruteForceConfig,
    IndexConfig,
    ReorderType,
    check_count,
    check_flag,
    check_number,
)
from swann.distance import SQUARED_L2
from swann.errors import ConfigError
from swann.index.packed import ARRAYS, ranks_by_reach, unprojected_dim
from swann.index.routes import levels, route_dtype, route_shapes
from swann.index.rows import num_origins, row_shapes
from swann.kernels import GROUP

__all__ = ["SHARED", "array_bytes", "expected_groups", "groups_of", "reduced_dim"]

SHARED = (
    "leaf_starts",
    "centroids",
    "spreads",
    "projection",
    "codebook",
    "row_origins",
    "code_center",
)
"""Arrays that every shard of an index has whole, as its head has, and those of the routes."""


def array_bytes(
    config: IndexConfig,
    n: int,
    dimension: int,
    *,
    groups: float | None = None,
    residual: bool = True,
    corrected: bool = False,
) -> dict[str, int]:
    """Return the bytes of each array of an index, by name.

    Parameters
    ----------
    config : IndexConfig
        Its settings.
    n, dimension : int
        Datapoints, at least one, and their dimension.
    groups : float, optional
        Groups of codes, as `groups_of` counts them; `expected_groups` unless given.
    residual : bool
        Whether codes are of residuals. Under squared l2 a build finds out what is better.
    corrected : bool
        Whether codes have corrections under the dot product and cosine: where datapoints are near
        their centroids, as a build finds out.

    Returns
    -------
    dict of str to int
        What `PackedIndex.arrays` has, in the same order.

    Raises
    ------
    ConfigError
        If a PCA is to keep as many components as a threshold says: only a build knows.

    Examples
    --------
    >>> from swann.config import IndexConfig
    >>> array_bytes(IndexConfig(num_neighbors=10, distance_measure="cosine"), 1000, 8)
    {'leaf_starts': 8, 'rows': 32000}
    """
    if not isinstance(config, IndexConfig):
        raise ConfigError(f"config is {config!r}; expected an IndexConfig")
    n, dimension = check_count("n", n), check_count("dimension", dimension)
    if groups is not None:
        groups = check_number("groups", groups, open_ends=(True, False))
    residual = check_flag("residual", residual)
    corrected = check_flag("corrected", corrected) or config.distance_measure == SQUARED_L2
    shapes: dict[str, tuple[float, ...]] = {}
    r = reduced_dim(config, dimension)
    tree, score = config.tree, config.score
    leaves = 1 if tree is None else min(tree.num_leaves, n)
    spills = tree is not None and tree.soar_lambda is not None
    entries = 2 * n if spills else n
    shapes["leaf_starts"] = (leaves + 1,)
    if config.projects and config.projection is not None and config.projection.kind == "pca":
        shapes["projection"] = (r, dimension)
    if tree is not None:
        shapes |= {"ids": (n,), "centroids": (leaves, r)}
        if ranks_by_reach(config):
            shapes["spreads"] = (leaves,)
    if spills:
        shapes["entry_rows"] = (entries,)
    exact = score if isinstance(score, BruteForceConfig) else config.reorder
    if exact is not None:
        origins = num_origins(n, dimension) if exact.quantize is ReorderType.INT8 else 0
        measure = config.distance_measure
        shapes |= _known(row_shapes(exact.quantize, n, dimension, measure, origins=origins > 0))
        if origins > 0:
            shapes["row_origins"] = (origins, dimension)
    if isinstance(score, AHConfig):
        if groups is None:
            groups = expected_groups(entries, leaves)
        blocks = kernels.num_blocks(r, score.dimensions_per_block)
        shapes["codes"] = (groups, blocks, kernels.block_bytes(score.codewords))
        shapes["codebook"] = (r, score.codewords)
        if corrected and tree is not None and residual:
            shapes |= {"corrections": (groups * GROUP,), "code_center": (r,)}
    sizes = {
        name: round(math.prod(shapes[name]) * dtype.itemsize)
        for name, dtype in ARRAYS.items()
        if name in shapes
    }
    return sizes | ({} if tree is None else _route_bytes(config, leaves, r))


def reduced_dim(config: IndexConfig, dimension: int) -> int:
    """Return the dimension of the centroids and codes."""
    projection = config.projection
    if not config.projects or projection is None or projection.kind == "truncate":
        return unprojected_dim(config, dimension)
    if projection.reduction_dim is None:
        raise ConfigError(
            "a PCA by threshold keeps as many dimensions as the data ask for; expected "
            "reduction_dim"
        )
    return projection.reduction_dim


def groups_of(leaf_sizes: NDArray[np.integer]) -> int:
    """Return how many groups the codes of leaves with so many entries take."""
    return int((-(-np.asarray(leaf_sizes, np.int64) // GROUP)).sum())


def expected_groups(entries: int, leaves: int) -> float:
    """Return about how many groups there are: the last one of a leaf is half empty.

    Examples
    --------
    >>> expected_groups(1000, 1)
    32.0
    """
    if leaves == 1:
        return float(-(-entries // GROUP))
    return entries / GROUP + leaves * (GROUP - 1) / (2 * GROUP)


def _known(shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(x for x in shape if x is not None) for name, shape in shapes.items()}


def _route_bytes(config: IndexConfig, leaves: int, r: int) -> dict[str, int]:
    lengths: dict[str, int] = {}  # of the first axis, by the beginning of the name
    below = leaves
    for i, level in enumerate(levels(config)):
        own = min(level.num_leaves, below)
        entries = below if level.soar_lambda is None else 2 * below
        for name in ("centroids", "spreads"):
            lengths[f"upper{i}_{name}"] = own
        lengths[f"upper{i}_starts"] = own + 1
        for name in ("entries", "rows", "rows_bf16", "rows_i8", "row_scales", "row_squares"):
            lengths[f"upper{i}_{name}"] = entries
        below = own
    sizes = {}
    for name, shape in route_shapes(config, r).items():
        dtype = route_dtype(name)
        assert dtype is not None
        values = math.prod(size for size in shape if size is not None)
        sizes[name] = lengths.get(name, leaves) * values * dtype.itemsize
    return sizes

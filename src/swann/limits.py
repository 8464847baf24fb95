"""Neighbors, candidates and leaves: what a search asks for, and what that means."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann.config import AHConfig, IncrementalMode, IndexConfig, ReorderType, check_count
from swann.errors import ConfigError

__all__ = ["MANY", "Limits", "Resolved", "check_many", "described", "room"]

MANY = 1 << 20
"""Neighbors that may be asked for even where there are fewer datapoints; results are filled up."""

_MOST = 2**63 - 1


class Resolved(NamedTuple):
    """What a search does; more than there is means all."""

    neighbors: int
    candidates: int
    leaves: int


class Limits:
    """What the settings of an index, and a call, say about a search.

    Parameters
    ----------
    config : IndexConfig
        The settings.
    num_leaves : int
        Leaves that the index has: where leaves were split, more of them are searched.

    Attributes
    ----------
    defaults : Resolved
        Of a call that says nothing.
    reorders : bool
        Whether candidates are scored once more.
    """

    def __init__(self, config: IndexConfig, num_leaves: int) -> None:
        tree, reorder = config.tree, config.reorder
        self.reorders = reorder is not None and isinstance(config.score, AHConfig)
        self._overretrieve = 1.0
        leaves = 1
        if tree is not None:
            leaves = math.ceil(tree.num_leaves_to_search * max(1.0, num_leaves / tree.num_leaves))
            if tree.soar_lambda is not None:
                self._overretrieve = tree.overretrieve_factor or 2.0
        candidates = reorder.reordering_num_neighbors if reorder is not None else 1
        self._unsaid = config.num_neighbors, candidates, leaves
        self.defaults = self.resolve(None, None, None)

    def resolve(
        self, neighbors: int | None, candidates: int | None, leaves: int | None
    ) -> Resolved:
        """Return what is asked for, defaults filled in.

        Raises
        ------
        ConfigError
            If one is below 1.
        """
        k, c, visited = self._unsaid
        if neighbors is not None:
            k = check_count("final_num_neighbors", neighbors)
        if candidates is not None:
            c = check_count("pre_reorder_num_neighbors", candidates)
        if leaves is not None:
            visited = check_count("leaves_to_search", leaves)
        c = max(k, c) if self.reorders else k
        return Resolved(k, min(math.ceil(c * self._overretrieve), _MOST), min(visited, _MOST))


def check_many(neighbors: int, datapoints: int, name: str = "final_num_neighbors") -> None:
    """Refuse more than `MANY` neighbors where there are fewer datapoints; errors call them `name`.

    Raises
    ------
    ConfigError
        Results of that size, which hold nothing, may take all the memory that there is.
    """
    if neighbors > max(MANY, datapoints):
        raise ConfigError(
            f"{name} is {neighbors}, of {datapoints} datapoints; expected as many at "
            f"most, or {MANY}"
        )


def room(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return arrays for ids and distances; a MemoryError where there is no room for them."""
    try:
        return np.empty(shape, np.int64), np.empty(shape, np.float32)
    except ValueError as error:  # more than addresses reach
        raise MemoryError(f"no memory for results of shape {shape}") from error


def described(
    config: IndexConfig, num_leaves: int, reduced_dim: int | None, limits: Limits
) -> list[str]:
    """Return the stages of an index as its repr names them, with what is not as usual.

    `reduced_dim` is None where nothing is projected.
    """
    tree, score, reorder = config.tree, config.score, config.reorder
    parts: list[str] = [config.distance_measure]
    if config.projection is not None and reduced_dim is not None:
        parts.append(f"{config.projection.kind}({reduced_dim})")
    if tree is not None:
        told = [f"{num_leaves}", f"search {limits.defaults.leaves}"]
        if tree.soar_lambda is not None:
            told.append(f"soar_lambda={tree.soar_lambda:g}")
        if tree.avq is not None:
            told.append(f"avq={tree.avq:g}")
        parts.append(f"tree({', '.join(told)})")
    if isinstance(score, AHConfig):
        told = [f"{score.dimensions_per_block}"]
        if score.anisotropic:
            told.append(f"T={score.anisotropic_quantization_threshold:g}")
        if score.hash_type != "lut16":
            told.append(score.hash_type)
        parts.append(f"score_ah({', '.join(told)})")
    else:
        parts.append(f"score_brute_force({_precision(score.quantize)})")
    if limits.reorders and reorder is not None:
        told = [f"{limits.defaults.candidates}", _precision(reorder.quantize)]
        parts.append(f"reorder({', '.join(filter(None, told))})")
    if config.autopilot is not None and config.autopilot.mode is not IncrementalMode.NONE:
        parts.append(config.autopilot.mode.name)
    return parts


def _precision(quantize: ReorderType) -> str:
    return "" if quantize is ReorderType.FLOAT32 else quantize.name

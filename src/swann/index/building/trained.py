"""All that a build learns of its datapoints before it writes them: what the rest depends on.

Where a datapoint goes and what its code is depend on nothing else. So datapoints can be placed and
encoded anywhere and in any order, by whoever has this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig, IndexConfig
from swann.index.building.encoding import Encoder
from swann.index.source import Source
from swann.quantize.metric import map_rows

__all__ = ["Trained", "spill"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Trained:
    """What was learned.

    Attributes
    ----------
    config : IndexConfig
        What is built.
    dimension, reduced_dim : int
        Of the datapoints, and of the centroids and codes.
    projection : float32 array of shape (reduced_dim, dimension), or None
        As in `PackedIndex`.
    tree_map, code_metric : float32 arrays, or None
        As in `PackedIndex`.
    centroids : float32 array of shape (leaves, reduced_dim), or None
        Of the tree.
    assigned_by : float32 array of shape (leaves, reduced_dim), or None
        Centroids by which datapoints choose their leaves, in the space of `tree_map`.
    reach_from : float32 array of shape (leaves, reduced_dim), or None
        With `avq`: centroids that reach is measured from, in that space. (Without, from those
        above.)
    row_origins : float32 array of shape (origins, dimension), or None
        As in `PackedIndex`.
    codebook : float32 array of shape (reduced_dim, codewords), or None
        Of codes.
    code_center : float32 array of shape (reduced_dim,), or None
        As in `PackedIndex`.
    residual : bool
        Whether codes are of residuals.
    routes : dict of str to array
        As in `PackedIndex`.
    """

    config: IndexConfig
    dimension: int
    reduced_dim: int
    projection: F32 | None = None
    tree_map: F32 | None = None
    code_metric: F32 | None = None
    centroids: F32 | None = None
    assigned_by: F32 | None = None
    reach_from: F32 | None = None
    row_origins: F32 | None = None
    codebook: F32 | None = None
    code_center: F32 | None = None
    residual: bool = True
    routes: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def num_leaves(self) -> int:
        """Leaves of the tree; 1 without a tree."""
        return 1 if self.centroids is None else len(self.centroids)

    def encoder(self, threads: int) -> Encoder | None:
        """Return what encodes datapoints; None where there are no codes."""
        if not isinstance(self.config.score, AHConfig):
            return None
        assert self.codebook is not None
        origins = self.centroids if self.residual else None
        return Encoder(
            self.config, self.codebook, origins, self.code_metric, self.code_center, threads
        )


def spill(source: Source, centroids: F32, leaves: U32, soar_lambda: float) -> U32:
    """Return a second leaf of every datapoint; its own where there is only one.

    Parameters
    ----------
    centroids : float32 array of shape (leaves, reduced_dim)
        Of the tree.
    leaves : uint32 array of shape (n,)
        Of the datapoints.
    soar_lambda : float
        The tree's setting.
    """
    if len(centroids) < 2:
        return leaves
    mapped = map_rows(centroids, source.tree_map, source.threads)
    held = kernels.Centroids(mapped, source.threads)
    spilled = np.empty_like(leaves)
    for first, rows in source.tree_chunks():
        part = slice(first, first + len(rows))
        spilled[part] = kernels.spill_leaves(rows, held, leaves[part], soar_lambda, source.threads)
        source.report("spill", part.stop, source.n)
    return spilled

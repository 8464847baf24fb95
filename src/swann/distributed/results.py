"""What a search on workers returns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.searcher import SearchResult

__all__ = ["DistributedResult"]


class DistributedResult(SearchResult):
    """Neighbors, and how much of what the queries visit was searched.

    Attributes
    ----------
    indices, distances : arrays
        As in `swann.SearchResult`.
    coverage : float, or float64 array of shape (num_queries,)
        The share of the entries in the leaves visited that was searched: 1 unless all replicas of a
        shard were late or gone.
    """

    coverage: Any

    def __new__(
        cls, indices: NDArray[Any], distances: NDArray[np.float32], coverage: Any
    ) -> DistributedResult:
        """Return neighbors with their coverage."""
        made = super().__new__(cls, indices, distances)
        made.coverage = coverage
        return made

"""What spreading an index over shards adds to a query: messages, and waiting for the slowest."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from swann.config import check_count, check_number

__all__ = ["Cluster", "message_bytes", "waiting"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Constants of a query that fans out.

    Attributes
    ----------
    scatter : float
        A query's L leaves lie in shards as if L**scatter leaves were spread at random; below 1,
        since near leaves lie in one shard.
    uneven : float
        The shard that has most of a query's work has visited**-uneven of it; 1 would be even.
    hop : float
        Microseconds from a query's arrival to its answer that no work is done in.
    message : float
        Microseconds of CPU time for a message to a shard and its answer, on both sides together.
    batch_message : float
        The same for a query that is one of a thousand in a message.
    """

    scatter: float
    uneven: float
    hop: float
    message: float
    batch_message: float = 4.0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(
                self, field.name, check_number(field.name, getattr(self, field.name))
            )

    def visited(self, shards: int, leaves: int) -> float:
        """Return how many shards own one of a query's leaves, on average.

        Examples
        --------
        >>> round(Cluster(scatter=1, uneven=1, hop=0, message=0).visited(4, 2), 2)
        1.75
        """
        shards, leaves = check_count("shards", shards), check_count("leaves", leaves)
        return float(shards * (1.0 - (1.0 - 1.0 / shards) ** (leaves**self.scatter)))

    def slowest(self, visited: float) -> float:
        """Return the share of a query's scan that falls to the busiest of its shards."""
        visited = check_number("visited", visited, open_ends=(True, False))
        return float(max(1.0, visited) ** -self.uneven)


def message_bytes(dimension: int, leaves: int, candidates: int) -> tuple[int, int]:
    """Return the bytes of a query to a shard and of its answer, as docs/distributed.md has them."""
    return 4 * dimension + 8 * leaves, 16 * candidates


def waiting(cores: int, utilisation: float) -> float:
    """Return how long a query waits for a core, in units of its own service time.

    Sakasegawa's approximation for M/M/c.
    """
    return float(utilisation ** (math.sqrt(2 * (cores + 1)) - 1) / (cores * (1.0 - utilisation)))

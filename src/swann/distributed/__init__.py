"""Beyond one machine, and beyond its memory. See ``docs/distributed.md``.

`build` makes an index of inputs that are larger than memory, in this process, in others, or on Ray;
`DistributedSearcher` searches an index whose shards many workers hold.
"""

from swann.distributed.building.build import build
from swann.distributed.building.executor import (
    Executor,
    LocalExecutor,
    ProcessExecutor,
    RayExecutor,
)
from swann.distributed.searching.searcher import DistributedResult, DistributedSearcher

__all__ = [
    "DistributedResult",
    "DistributedSearcher",
    "Executor",
    "LocalExecutor",
    "ProcessExecutor",
    "RayExecutor",
    "build",
]

"""Beyond one machine: indexes in shards, searched on many workers. See ``docs/distributed.md``."""

from swann.distributed.searcher import DistributedResult, DistributedSearcher

__all__ = ["DistributedResult", "DistributedSearcher"]

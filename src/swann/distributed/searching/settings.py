"""What `DistributedSearcher.open` is asked for, checked: workers, their pool, times."""

from __future__ import annotations

import os
from typing import Any

from swann.config import check_count, check_number
from swann.distributed.workers.pools import LocalPool, Pool
from swann.distributed.workers.process_pool import ProcessPool
from swann.distributed.workers.socket_handle import SOCKETS
from swann.errors import ConfigError

__all__ = ["Where", "check_seconds", "check_wait", "make_pool", "number_of_workers"]

_LONGEST = 1e6  # seconds that anything may take

Where = str | os.PathLike[str]


def number_of_workers(workers: int | None, replicas: int, shards: int) -> int:
    """Return how many workers there are to be."""
    if workers is not None:
        return check_count("workers", workers)
    return max(replicas, min(shards * replicas, os.cpu_count() or 1))


def check_seconds(name: str, value: object) -> float:
    """Return a time that is more than none. Raises a ConfigError."""
    return check_number(name, value, most=_LONGEST, open_ends=(True, False))


def check_wait(value: object) -> float:
    """Return a time that may be none. Raises a ConfigError."""
    return check_number("wait", value, most=_LONGEST)


def make_pool(pool: Any, ray_address: str | None, cache: Where | None) -> Pool:
    """Return the pool that is meant.

    Raises
    ------
    ConfigError
        If it is none, or this system cannot run it.
    MissingExtraError
        If it is Ray's, and Ray is not installed.
    """
    kept = None if cache is None else os.fspath(cache)
    kind = pool if pool is not None else ("process" if ray_address is None else "ray")
    named = kind if isinstance(kind, str) else ""
    if named == "process":
        if not SOCKETS:
            raise ConfigError(
                "pool is 'process', which this system cannot run (Windows, say, has no such "
                "sockets); expected pool='local'"
            )
        return ProcessPool(kept)
    if named == "local":
        return LocalPool(kept)
    if named == "ray":
        from swann.distributed.ray_pool import RayPool

        return RayPool(kept, ray_address)
    if not (hasattr(kind, "start") and hasattr(kind, "close")) or isinstance(kind, type):
        raise ConfigError(f"pool is {kind!r}; expected 'process', 'local', 'ray' or a Pool")
    made: Pool = kind
    return made

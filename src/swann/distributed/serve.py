"""A deployment of Ray Serve that answers searches over HTTP, tells its health and its metrics.

::

    from ray import serve
    from swann.distributed.serve import application

    serve.run(application("/data/index", replicas=2, deadline=0.5))

    POST /search   {"queries": [[...], ...], "final_num_neighbors": 10, "leaves_to_search": 20}
                   -> {"indices": [[...]], "distances": [[...]], "coverage": [...]}
                   400 if the request is wrong, 503 if the searcher has a fault and another may
                   not, 504 if it is strict and not all was searched within the deadline
    GET /health    200 if each shard can be asked, else 503
    GET /metrics   in Prometheus' text format

Each replica of the deployment is a `DistributedSearcher` with workers that are actors of Ray.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
from typing import Any

from swann.distributed.ray_pool import import_ray
from swann.distributed.searching.searcher import DistributedSearcher
from swann.errors import (
    ConfigError,
    IncompleteError,
    InvalidInputError,
    MissingExtraError,
    SwannError,
)

__all__ = ["SearchService", "application"]

_LIMITS = ("final_num_neighbors", "pre_reorder_num_neighbors", "leaves_to_search")


class SearchService:
    """What the deployment runs; `application` makes one of it.

    Parameters
    ----------
    manifest : str
        As `DistributedSearcher.open` takes it.
    settings : dict
        Its other arguments; ``pool="ray"`` unless given.
    """

    def __init__(self, manifest: str, settings: dict[str, Any]) -> None:
        self._searcher = DistributedSearcher.open(manifest, **({"pool": "ray"} | settings))

    async def __call__(self, request: Any) -> Any:
        """Answer a request of Starlette's."""
        from starlette.responses import PlainTextResponse, Response

        path = request.url.path.rstrip("/").rpartition("/")[2]
        if path == "health":
            health = self._searcher.health()
            return Response(json.dumps(health), 200 if health["complete"] else 503)
        if path == "metrics":
            return PlainTextResponse(self._searcher.metrics().prometheus())
        if path != "search" or request.method != "POST":
            return Response(json.dumps({"error": "expected POST /search"}), 404)
        try:
            content = await request.json()
            found = await self._search(content)
        except IncompleteError as error:
            return Response(json.dumps({"error": str(error), "coverage": error.coverage}), 504)
        except (SwannError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
            told = {"error": f"{type(error).__name__}: {error}"}
            return Response(json.dumps(told), _status(error))
        return Response(json.dumps(found), 200, media_type="application/json")

    async def _search(self, content: dict[str, Any]) -> dict[str, Any]:
        unknown = set(content) - {"queries", *_LIMITS}
        if unknown:
            expected = ", ".join(("queries", *_LIMITS))
            raise InvalidInputError(f"the request has {sorted(unknown)}; expected {expected}")
        limits = {name: content[name] for name in _LIMITS if name in content}
        search = functools.partial(self._searcher.search_batched, content["queries"], **limits)
        found = await asyncio.get_running_loop().run_in_executor(None, search)
        distances = found.distances.tolist()
        return {
            "indices": found.indices.tolist(),
            "distances": [[None if math.isnan(x) else x for x in row] for row in distances],
            "coverage": found.coverage.tolist(),
        }

    def check_health(self) -> None:
        """Tell Ray Serve whether this replica is of use."""
        if not self._searcher.health()["complete"]:
            raise RuntimeError(f"shards are missing: {self._searcher.health()}")

    def __del__(self) -> None:
        searcher = getattr(self, "_searcher", None)
        if searcher is not None:
            searcher.close()


def _status(error: Exception) -> int:
    """Return 400 where the request is at fault, and else 503: it may be sent elsewhere."""
    asked_wrongly = isinstance(error, (InvalidInputError, ConfigError))
    ours = isinstance(error, (SwannError, MemoryError))
    return 400 if asked_wrongly or not ours else 503


def application(manifest: str | os.PathLike[str], *, num_replicas: int = 1, **settings: Any) -> Any:
    """Return an application for ``serve.run``.

    Parameters
    ----------
    manifest : str or path
        Of the index.
    num_replicas : int
        Searchers; each has workers of its own.
    **settings
        As `DistributedSearcher.open` takes them.

    Raises
    ------
    MissingExtraError
        If Ray Serve is not installed.
    """
    import_ray()
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtraError("Ray Serve is not installed: pip install 'swann[serve]'") from error
    deployment = serve.deployment(num_replicas=num_replicas, ray_actor_options={"num_cpus": 0})
    return deployment(SearchService).bind(os.fspath(manifest), settings)

"""Workers that are actors of Ray, on any machine of its cluster."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from swann.distributed.pools import CONCURRENCY, Done, Handle, LostError
from swann.distributed.wire import Message, pack_whole, unpack_whole
from swann.errors import MissingExtraError, WorkerError

__all__ = ["RayPool", "import_ray"]

_START = 120.0  # seconds until an actor must have answered


def import_ray() -> Any:
    """Return Ray's module.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "Ray is not installed: pip install 'swann[ray]', or use pool='process'"
        ) from error
    return ray


class RayPool:
    """Starts an actor a worker, spread over the nodes of the cluster.

    Parameters
    ----------
    cache : str, optional
        See `swann.distributed.storage.Storage`.
    address : str, optional
        Of the cluster, as ``ray.init`` takes it. Without, the one that this process is connected
        to, or a local one.
    num_cpus : float
        What an actor claims; it uses what it is asked to.
    options : dict, optional
        Further options of the actors.
    """

    def __init__(
        self,
        cache: str | None = None,
        address: str | None = None,
        num_cpus: float = 1,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._ray = ray = import_ray()
        self._ours = not ray.is_initialized()
        if self._ours:
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        settings = {
            "num_cpus": num_cpus,
            "max_concurrency": CONCURRENCY,
            "max_restarts": 0,  # whoever searches starts another, and knows it
            "scheduling_strategy": "SPREAD",
        }
        self._actors = ray.remote(_Actor).options(**settings | (options or {}))
        self._cache = cache
        self._numbers = itertools.count()

    def start(self) -> Handle:  # noqa: D102
        actor = self._actors.remote(self._cache)
        try:
            pid = self._ray.get(actor.pid.remote(), timeout=_START)
        except Exception as error:
            self._ray.kill(actor)
            raise WorkerError(f"an actor of Ray could not be started: {error}") from error
        return _RayHandle(self._ray, actor, f"actor-{next(self._numbers)}", pid)

    def close(self) -> None:  # noqa: D102
        if self._ours:
            self._ray.shutdown()


class _Actor:
    def __init__(self, cache: str | None) -> None:
        from swann.distributed.worker import Worker

        self._worker = Worker(cache)

    def pid(self) -> int:
        import os

        return os.getpid()

    def handle(self, method: str, message: bytes) -> bytes:
        return pack_whole(self._worker.handle(method, unpack_whole(message)))


class _RayHandle:
    def __init__(self, ray: Any, actor: Any, name: str, pid: int) -> None:
        self.name, self.alive, self.pid = name, True, pid
        self.on_death: Callable[[], None] = lambda: None
        self._ray, self._actor = ray, actor
        self._lock = threading.Lock()

    def call(self, method: str, message: Message, done: Done) -> None:
        if not self.alive:
            done(LostError(self.name))
            return
        try:
            # Bytes, in one piece: Ray takes half as long as for arrays, which it pickles.
            ref = self._actor.handle.remote(method, pack_whole(message))
            ref.future().add_done_callback(lambda future: self._hear(future, done))
        except Exception as error:  # the cluster is gone
            self._end()
            done(LostError(f"{self.name}: {error}"))

    def _hear(self, future: Any, done: Done) -> None:
        error = future.exception()
        if error is None:
            done(unpack_whole(future.result()))
            return
        self._end()  # a worker answers with its errors: this one is gone, or cannot be reached
        done(LostError(f"{self.name}: {error}"))

    def _end(self) -> None:
        with self._lock:
            was, self.alive = self.alive, False
        if was:
            # Not here: this may be Ray's own thread, which the call would wait for.
            threading.Thread(target=self._kill, daemon=True).start()
            self.on_death()

    def _kill(self) -> None:
        with suppress(Exception):
            self._ray.kill(self._actor)

    def stop(self) -> None:
        self._end()

"""Workers that are actors of Ray, on any machine of its cluster.

Ray starts, places and ends them. Messages go over a socket to each, as to processes: a call of Ray
takes milliseconds, and what is larger than 100 KB passes through its store of objects. Where an
actor cannot be reached so, it is asked by Ray's calls.
"""

from __future__ import annotations

import hmac
import itertools
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from swann.distributed.wire import Message, pack_whole, unpack_whole
from swann.distributed.workers.pools import CONCURRENCY, Done, Handle, LostError
from swann.distributed.workers.socket_handle import SOCKETS, SocketHandle
from swann.errors import MissingExtraError, WorkerError

__all__ = ["RayPool", "import_ray"]

_START = 120.0  # seconds until an actor must have answered
_CONNECT = 10.0  # seconds until it must have been reached by a socket
_TOKEN = 32  # bytes, by which an actor knows who started it
_HEALTH = "health"


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
    sockets : bool
        Whether messages go over sockets where actors can be reached by them. They are not
        encrypted, as Ray's calls are not unless it is told to.
    """

    def __init__(
        self,
        cache: str | None = None,
        address: str | None = None,
        num_cpus: float = 1,
        options: dict[str, Any] | None = None,
        sockets: bool = True,
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
        # Questions about health have a thread of their own, which nothing else keeps busy.
        actor = ray.remote(concurrency_groups={_HEALTH: 1})(_Actor)
        self._actors = actor.options(**settings | (options or {}))
        self._cache, self._sockets = cache, sockets and SOCKETS
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # of the numbers: the fleet starts workers on many threads

    def start(self) -> Handle:  # noqa: D102
        actor = self._actors.remote(self._cache)
        with self._lock:
            name = f"actor-{next(self._numbers)}"
        try:
            pid = self._ray.get(actor.pid.remote(), timeout=_START)
            connection = self._connect(actor) if self._sockets else None
        except Exception as error:
            self._ray.kill(actor)
            raise WorkerError(f"an actor of Ray could not be started: {error}") from error
        if connection is None:
            return _RayHandle(self._ray, actor, name, pid)
        handle = _DirectHandle(self._ray, actor, name, pid, connection)
        if not handle.answers(_START):
            handle.stop()
            raise WorkerError("an actor of Ray was reached by its socket, and does not answer")
        return handle

    def _connect(self, actor: Any) -> socket.socket | None:
        """Return a socket to an actor; None where it cannot be reached by one."""
        token = secrets.token_bytes(_TOKEN)
        address = self._ray.get(actor.listen.remote(token), timeout=_START)
        try:
            connection = socket.create_connection(address, _CONNECT)
        except OSError:
            self._sockets = False  # others will not be reached, either
            return None
        connection.sendall(token)
        return connection

    def close(self) -> None:  # noqa: D102
        if self._ours:
            self._ray.shutdown()


class _Actor:
    def __init__(self, cache: str | None) -> None:
        from swann.distributed.workers.worker import Worker

        self._worker = Worker(cache)

    def pid(self) -> int:
        return os.getpid()

    def listen(self, token: bytes) -> tuple[str, int]:
        """Wait in the background for who knows the token; return where."""
        host = import_ray().util.get_node_ip_address()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family)
        threading.Thread(target=self._serve, args=(listener, token), daemon=True).start()
        return host, listener.getsockname()[1]

    def _serve(self, listener: socket.socket, token: bytes) -> None:
        from swann.distributed.workers.worker_process import serve

        end = time.monotonic() + 2 * _CONNECT
        with listener:
            while (left := end - time.monotonic()) > 0:
                listener.settimeout(left)
                try:
                    connection, _ = listener.accept()
                    connection.settimeout(_CONNECT)
                    said = connection.recv(_TOKEN, socket.MSG_WAITALL)
                except OSError:
                    continue
                if hmac.compare_digest(said, token):
                    listener.close()
                    _prepare(connection)
                    serve(connection, self._worker)
                    return
                connection.close()

    def handle(self, method: str, message: bytes) -> bytes:
        return pack_whole(self._worker.handle(method, unpack_whole(message)))


def _prepare(connection: socket.socket) -> None:
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _DirectHandle(SocketHandle):
    """An actor that is asked over a socket."""

    def __init__(
        self, ray: Any, actor: Any, name: str, pid: int, connection: socket.socket
    ) -> None:
        self.pid = pid
        self._ray, self._actor = ray, actor
        _prepare(connection)
        super().__init__(name, connection, self._kill)

    def _kill(self) -> None:
        with suppress(Exception):
            self._ray.kill(self._actor)


class _RayHandle:
    """An actor that is asked by calls of Ray."""

    def __init__(self, ray: Any, actor: Any, name: str, pid: int) -> None:
        self.name, self.alive, self.pid = name, True, pid
        self.on_death: Callable[[], None] = lambda: None
        self._ray, self._actor = ray, actor
        self._numbers = itertools.count()
        self._waiting: dict[int, Done] = {}
        self._lock = threading.Lock()

    def call(self, method: str, message: Message, done: Done) -> None:
        with self._lock:
            number, alive = next(self._numbers), self.alive
            if alive:
                self._waiting[number] = done
        if not alive:
            done(LostError(self.name))
            return
        try:
            # Bytes, in one piece: Ray takes half as long as for arrays, which it pickles.
            ask = self._actor.handle
            if method == _HEALTH:
                ask = ask.options(concurrency_group=_HEALTH)
            ref = ask.remote(method, pack_whole(message))
            # Ray keeps what it is to call, for ever if it is shut down before: not `done`.
            ref.future().add_done_callback(lambda future: self._hear(future, number))
        except Exception:  # the cluster is gone
            self._end()

    def _hear(self, future: Any, number: int) -> None:
        if future.exception() is not None:
            self._end()  # a worker answers with its errors: this one is gone, or not reached
            return
        with self._lock:
            done = self._waiting.pop(number, None)
        if done is not None:
            done(unpack_whole(future.result()))

    def _end(self) -> None:
        with self._lock:
            was, self.alive = self.alive, False
            waiting, self._waiting = self._waiting, {}
        if was:
            # Not here: this may be Ray's own thread, which the call would wait for.
            threading.Thread(target=self._kill, daemon=True).start()
            self.on_death()
        for done in waiting.values():
            done(LostError(self.name))

    def _kill(self) -> None:
        with suppress(Exception):
            self._ray.kill(self._actor)

    def stop(self) -> None:
        self._end()

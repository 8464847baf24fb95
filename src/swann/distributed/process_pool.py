"""Workers that are processes of this machine, asked over sockets."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from swann.distributed import wire
from swann.distributed.pools import Done, Handle, LostError
from swann.distributed.wire import Message
from swann.errors import WorkerError

__all__ = ["ProcessPool"]

_PROGRAM = "swann.distributed.worker_process"
_START = 60.0  # seconds until a process must have answered


class ProcessPool:
    """Starts a Python process a worker.

    Parameters
    ----------
    cache : str, optional
        See `swann.distributed.storage.Storage`.
    """

    def __init__(self, cache: str | None = None) -> None:
        self._cache = cache

    def start(self) -> Handle:  # noqa: D102
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", _PROGRAM, str(theirs.fileno()), self._cache or ""]
            # A session of its own: Ctrl-C is for whoever searches, and ends workers by the socket.
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        handle = _ProcessHandle(process, ours)
        ready: list[Any] = []
        heard = threading.Event()

        def done(reply: Message | Exception) -> None:
            ready.append(reply)
            heard.set()

        handle.call("health", Message({}, []), done)
        if not heard.wait(_START) or not isinstance(ready[0], Message):
            handle.stop()
            raise WorkerError(f"a worker process could not be started: {' '.join(command)}")
        return handle

    def close(self) -> None:  # noqa: D102
        pass


class _ProcessHandle:
    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.name, self.alive = f"process-{process.pid}", True
        self.on_death: Callable[[], None] = lambda: None
        self.process = process
        self._connection = connection
        self._numbers = itertools.count()
        self._waiting: dict[int, Done] = {}
        self._lock = threading.Lock()  # of what waits
        self._sending = threading.Lock()
        self._unsent: wire.Parts = []
        self._writing = False  # a thread is at it, and nobody else may send
        threading.Thread(target=self._read, name=self.name, daemon=True).start()

    def call(self, method: str, message: Message, done: Done) -> None:
        number = next(self._numbers)
        with self._lock:
            alive = self.alive
            if alive:
                self._waiting[number] = done
        if not alive:
            done(LostError(self.name))
            return
        fields = {"id": number, "method": method, "fields": message.fields}
        self._post(wire.pack(Message(fields, message.arrays)))

    def _post(self, parts: wire.Parts) -> None:
        """Send now what can be sent without waiting; a thread sends the rest."""
        try:
            with self._sending:
                if not self._unsent:
                    try:
                        while parts:
                            parts = wire.push(self._connection, parts, socket.MSG_DONTWAIT)
                    except BlockingIOError:
                        pass
                if not parts:
                    return
                self._unsent += parts
                if self._writing:
                    return
                self._writing = True
            threading.Thread(target=self._write, daemon=True).start()
        except OSError:
            self._end()

    def _write(self) -> None:
        """Send what could not be sent at once."""
        try:
            while True:
                with self._sending:
                    parts, self._writing = self._unsent, bool(self._unsent)
                    if not parts:
                        return
                    taken = len(parts)
                while parts:
                    parts = wire.push(self._connection, parts)
                with self._sending:
                    self._unsent = self._unsent[taken:]
        except OSError:
            self._end()

    def _read(self) -> None:
        try:
            while (message := wire.receive(self._connection)) is not None:
                with self._lock:
                    done = self._waiting.pop(message.fields["id"], _ignore)
                done(Message(message.fields["fields"], message.arrays))
        except (OSError, ValueError):
            pass
        self._end()
        self._connection.close()
        self.process.wait()

    def _end(self) -> None:
        with self._lock:
            was, self.alive = self.alive, False
            waiting, self._waiting = self._waiting, {}
        if was:
            self.process.kill()
            _shut(self._connection)
            self.on_death()
        for done in waiting.values():
            done(LostError(self.name))

    def stop(self) -> None:
        self._end()


def _ignore(_: Message | Exception) -> None:
    pass


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # whoever reads or writes wakes up

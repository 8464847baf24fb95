"""A worker at the other end of a socket."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from swann.distributed import wire
from swann.distributed.wire import Message
from swann.distributed.workers.pools import Done, LostError

__all__ = ["SOCKETS", "SocketHandle"]

SOCKETS = hasattr(socket, "MSG_DONTWAIT") and hasattr(socket.socket, "sendmsg")
"""Whether this system has what messages need; Windows does not."""


class SocketHandle:
    """Asks a worker that `swann.distributed.workers.worker_process.serve` runs; see `Handle`.

    Parameters
    ----------
    name : str
        For people.
    connection : socket
        Ours from now on.
    end : callable
        Ends the worker; called once, by any thread, when it is told to stop or seems gone.
    """

    def __init__(self, name: str, connection: socket.socket, end: Callable[[], None]) -> None:
        self.name, self.alive = name, True
        self.on_death: Callable[[], None] = lambda: None
        self._connection, self._end_worker = connection, end
        self._numbers = itertools.count()  # two threads may draw the same without the lock
        self._waiting: dict[int, Done] = {}
        self._lock = threading.Lock()  # of what waits
        self._sending = threading.Lock()
        self._unsent: wire.Parts = []
        self._writing = False  # a thread is at it, and nobody else may send
        threading.Thread(target=self._read, name=self.name, daemon=True).start()

    def answers(self, seconds: float) -> bool:
        """Whether the worker answers within some time."""
        heard: list[Any] = []
        event = threading.Event()

        def done(reply: Message | Exception) -> None:
            heard.append(reply)
            event.set()

        self.call("health", Message({}, []), done)
        return event.wait(seconds) and isinstance(heard[0], Message)

    def call(self, method: str, message: Message, done: Done) -> None:  # noqa: D102
        with self._lock:
            number, alive = next(self._numbers), self.alive
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
            self.stop()

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
            self.stop()

    def _read(self) -> None:
        try:
            while (message := wire.receive(self._connection)) is not None:
                with self._lock:
                    done = self._waiting.pop(message.fields["id"], _ignore)
                done(Message(message.fields["fields"], message.arrays))
        except (OSError, ValueError):
            pass
        self.stop()
        self._connection.close()

    def stop(self) -> None:  # noqa: D102
        with self._lock:
            was, self.alive = self.alive, False
            waiting, self._waiting = self._waiting, {}
        if was:
            self._end_worker()
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)  # whoever reads or writes wakes up
            self.on_death()
        for done in waiting.values():
            done(LostError(self.name))


def _ignore(_: Message | Exception) -> None:
    pass

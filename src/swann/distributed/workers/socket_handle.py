"""A worker at the other end of a socket."""

from __future__ import annotations

import itertools
import select
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


_LOOK = 1000  # milliseconds between looks whether the worker was stopped


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
        self._sending = threading.Lock()  # of what follows
        self._outbox = wire.Outbox(connection)
        self._writing = False  # a thread writes what could not be written at once
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
        number = -1
        try:
            with self._lock:
                number, alive = next(self._numbers), self.alive
                if alive:
                    self._waiting[number] = done
            if alive:
                fields = {"id": number, "method": method, "fields": message.fields}
                self._post(wire.pack(Message(fields, message.arrays)))
                return
        except BaseException:  # an interrupt: whoever asked does not wait for it
            self._waiting.pop(number, None)
            raise
        done(LostError(self.name))

    def _post(self, parts: wire.Parts) -> None:
        """Send now what can be sent without waiting; a thread sends the rest.

        Where an interrupt ends this, the next call sends on.
        """
        try:
            with self._sending:
                self._outbox.add(parts)
                if self._writing or not self._push():
                    return
            threading.Thread(target=self._write, daemon=True).start()
        except OSError:
            self.stop()

    def _push(self) -> bool:
        """Send what can be sent without waiting; return whether there is more. The lock is held."""
        with suppress(BlockingIOError):
            while self._outbox.push(socket.MSG_DONTWAIT):
                pass
            return False
        return True

    def _write(self) -> None:
        """Send what could not be sent at once."""
        with self._sending:
            if self._writing:
                return
            self._writing = True
        try:
            room = select.poll()
            room.register(self._connection, select.POLLOUT)
            while self.alive:
                room.poll(_LOOK)
                with self._sending:
                    if not self._push():
                        self._writing = False
                        return
        except (OSError, ValueError):  # it is closed
            self.stop()

    def _read(self) -> None:
        try:
            while (message := wire.receive(self._connection)) is not None:
                with self._lock:
                    done = self._waiting.pop(message.fields["id"], _ignore)
                done(Message(message.fields["fields"], message.arrays))
        except (OSError, ValueError):
            pass
        finally:
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

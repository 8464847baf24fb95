"""A worker as a process: answers what comes over a socket, until the other side ends."""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from collections import deque

from swann.distributed import wire
from swann.distributed.wire import Message
from swann.distributed.workers.pools import CONCURRENCY
from swann.distributed.workers.worker import Worker

__all__ = ["main", "serve"]


def serve(connection: socket.socket, worker: Worker, threads: int = CONCURRENCY) -> None:
    """Answer messages until the other side ends, so many at a time, and besides them `health`."""
    server = _Server(connection, worker)
    for _ in range(threads + 1):
        threading.Thread(target=server.work).start()


class _Server:
    """A thread reads a message and answers it itself, if another is free to read on.

    So one always reads: whether the worker is well is answered whatever its other threads do.
    """

    def __init__(self, connection: socket.socket, worker: Worker) -> None:
        self._connection, self._worker = connection, worker
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._lock = threading.Lock()  # of what follows
        self._free = 0  # threads that read, or wait to
        self._unanswered: deque[Message] = deque()  # read while no other thread was free

    def work(self) -> None:
        try:
            while (message := self._next()) is not None:
                self._answer(message)
        except OSError:
            pass  # whoever asked is gone, with all that others still work on
        except Exception:  # or what it says cannot be read: where does its next message begin?
            traceback.print_exc()
        os._exit(0)

    def _next(self) -> Message | None:
        """Return a message that this thread is to answer; None where the other side has ended."""
        with self._lock:
            if self._unanswered:
                return self._unanswered.popleft()
            self._free += 1
        with self._reading:
            while (message := wire.receive(self._connection)) is not None:
                if message.fields["method"] == "health":
                    self._answer(message)
                elif self._is_taken(message):
                    break
            return message

    def _is_taken(self, message: Message) -> bool:
        """Whether this thread may answer it; else those that are busy will."""
        with self._lock:
            if self._free == 1:
                self._unanswered.append(message)
                return False
            self._free -= 1
            return True

    def _answer(self, message: Message) -> None:
        fields = message.fields
        reply = self._worker.handle(fields["method"], Message(fields["fields"], message.arrays))
        answer = Message({"id": fields["id"], "fields": reply.fields}, reply.arrays)
        with self._writing:
            wire.send(self._connection, answer)


def main() -> None:
    """Serve the socket that the arguments name, with the cache that they name."""
    serve(socket.socket(fileno=int(sys.argv[1])), Worker(sys.argv[2] or None))

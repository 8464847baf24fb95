"""A worker as a process: answers what comes over a socket, until the other side ends."""

from __future__ import annotations

import os
import socket
import sys
import threading

from swann.distributed import wire
from swann.distributed.wire import Message
from swann.distributed.workers.pools import CONCURRENCY
from swann.distributed.workers.worker import Worker

__all__ = ["serve"]


def serve(connection: socket.socket, worker: Worker, threads: int = CONCURRENCY) -> None:
    """Answer messages until the other side ends. Each thread reads one and answers it itself."""
    reading, writing = threading.Lock(), threading.Lock()

    def work() -> None:
        while True:
            try:
                with reading:
                    message = wire.receive(connection)
                if message is None:
                    break
                fields = message.fields
                reply = worker.handle(fields["method"], Message(fields["fields"], message.arrays))
                answer = Message({"id": fields["id"], "fields": reply.fields}, reply.arrays)
                with writing:
                    wire.send(connection, answer)
            except OSError:
                break
        os._exit(0)  # whoever asked is gone, with all that others still work on

    for _ in range(threads):
        threading.Thread(target=work).start()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), Worker(sys.argv[2] or None))

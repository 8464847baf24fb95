"""Workers that are processes of this machine, asked over sockets."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys

from swann.distributed.workers.pools import Handle
from swann.distributed.workers.socket_handle import SocketHandle
from swann.errors import WorkerError

__all__ = ["ProcessPool"]

# It imports from where this process does: not from the directory that this one works in (-P), and
# also what only `sys.path` of this one leads to.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from swann.distributed.workers.worker_process import main; main()"
)
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
            program = [sys.executable, "-P", "-c", _PROGRAM]
            command = [*program, str(theirs.fileno()), self._cache or "", *sys.path]
            # A session of its own: Ctrl-C is for whoever searches, and ends workers by the socket.
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        handle = _ProcessHandle(process, ours)
        if not handle.answers(_START):
            handle.stop()
            raise WorkerError(f"a worker process could not be started: {shlex.join(program)}")
        return handle

    def close(self) -> None:  # noqa: D102
        pass


class _ProcessHandle(SocketHandle):
    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.process = process
        super().__init__(f"process-{process.pid}", connection, process.kill)

    def _read(self) -> None:
        super()._read()
        self.process.wait()

"""Processes of their own for what is killed, and what they tell."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any

_PATIENCE, _CPU = 120, 10.0  # seconds that a child may take, and of CPU time
_DEATH = 1  # PR_SET_PDEATHSIG


class Child:
    """A forked process that runs ``work(self)``, and is told to go on by a byte.

    Parameters
    ----------
    work : callable
        What it does, with `tell` and `wait` of its own side.
    """

    def __init__(self, work: Callable[[Child], Any]) -> None:
        told, tells = os.pipe()
        hears, go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(told)
            os.close(go)
            self._out, self._in = tells, hears
            self._run(work)
        os.close(tells)
        os.close(hears)
        self._in, self._go, self._rest = told, go, b""

    def _run(self, work: Callable[[Child], Any]) -> None:
        status = 1
        try:
            ctypes.CDLL(None).prctl(_DEATH, signal.SIGKILL)
            signal.alarm(_PATIENCE)
            signal.setitimer(signal.ITIMER_PROF, _CPU)
            work(self)
            status = 0
        except BaseException as error:
            self.tell(f"failed {error!r}")
        finally:
            os._exit(status)

    # ---- The child's side

    def tell(self, line: str) -> None:
        """Say something."""
        os.write(self._out, line.replace("\n", " ").encode() + b"\n")

    def wait(self) -> None:
        """Wait until `go_on`."""
        os.read(self._in, 1)

    # ---- The parent's side

    def hear(self) -> str | None:
        """Return the next line; None at the end."""
        while b"\n" not in self._rest:
            more = os.read(self._in, 1 << 16)
            if not more:
                return None
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def go_on(self) -> None:
        """End a `wait` of the child."""
        os.write(self._go, b"x")

    def kill(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Wait for its end; return its status, below 0 where a signal ended it."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._in)
        os.close(self._go)
        return status

"""A worker process as seen from the orchestrator."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import systems
from benchmarks.datasets import PreparedData
from benchmarks.paths import RESULTS, ROOT


class WorkerError(Exception):
    """A worker ended, or answered with a traceback."""


class Remote:
    """Starts a worker and asks it; a context manager that ends it.

    Parameters
    ----------
    python : Path
        The interpreter of the system's environment.
    system : str
        The system's name.
    data : PreparedData
        What it works on.
    threads : int
        CPUs that the process may use, and threads that its libraries are told to.
    """

    def __init__(self, python: Path, system: str, data: PreparedData, threads: int) -> None:
        self.system = system
        self.log = RESULTS / "logs" / f"{system}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker", system, str(threads), str(data.folder)],
                cwd=ROOT,
                # Waiting threads of an idle system must not spin while another one measures.
                env=os.environ
                | {name: str(threads) for name in limits}
                | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONDONTWRITEBYTECODE": "1"}
                | systems.find(system).variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises
        ------
        WorkerError
            When the worker failed; the message holds its traceback or names its log.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise WorkerError(f"{self.system}: the worker ended with code {code}; see {self.log}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.system}: {do} failed\n{answer['error']}")
        return answer

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

"""A worker as seen from the run: asked case by case, and started anew when a case ends it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from benchmarks.parity.case import Case
from benchmarks.parity.verdict import Found
from benchmarks.paths import RESULTS, ROOT

PATIENCE = 240.0  # seconds a case may take


class Process:
    """Answers cases with one library; a context manager that ends its process.

    Parameters
    ----------
    python : Path
        The interpreter of the library's environment.
    lib : str
        "scann" or "swann".
    folders : dict of str to Path
        Where the cuts of the data sets lie.
    """

    def __init__(self, python: Path, lib: str, folders: dict[str, Path]) -> None:
        self.log = RESULTS / "logs" / f"parity-{lib}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        pairs = [f"{name}={folder}" for name, folder in folders.items()]
        self._command: list[str | Path] = [python, "-m", "benchmarks.parity.worker", lib, *pairs]
        self._worker: subprocess.Popen[str] | None = None

    def ask(self, case: Case, draw: int = 0) -> Found:
        """Run a case, its rows in one order or another; death and silence are answers too."""
        if case.deadly:
            self.close()
        worker = self._worker or self._start()
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(f"{draw} {case.name}\n")
        worker.stdin.flush()
        ready, _, _ = select.select([worker.stdout], [], [], PATIENCE)
        line = worker.stdout.readline() if ready else ""
        if line:
            if case.deadly:
                self.close()
            found: Found = json.loads(line)
            return found
        if not ready:
            self.close()
            return {"error": f"no answer within {PATIENCE:.0f} s"}
        code = worker.wait()
        self.close()
        return {"error": f"died: {signal.Signals(-code).name if code < 0 else f'exit {code}'}"}

    def _start(self) -> subprocess.Popen[str]:
        with self.log.open("a") as log:
            self._worker = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self._worker

    def close(self) -> None:
        """End the process, if there is one."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

"""An environment for every system, so that none sees another's packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.paths import ENVS, ROOT


class Installed(Protocol):
    """What has an environment: a system, or another library that is asked something."""

    @property
    def name(self) -> str:
        """Of the environment."""

    @property
    def requirements(self) -> tuple[str, ...]:
        """As pip takes them."""


class EnvironmentFailed(Exception):
    """A system could not be installed on this machine."""


def ensure(system: Installed) -> Path:
    """Return the Python of a system's environment, making it where it is missing or outdated.

    A system required from the working tree is installed anew each time; the build directory stays,
    so only what changed is compiled.

    Raises
    ------
    EnvironmentFailed
        When installing fails, for instance because there is no wheel for this Python.
    """
    folder = ENVS / system.name
    python = folder / "bin" / "python"
    if "{root}" in system.requirements:
        bootstrap = os.environ | {"VENV": str(folder), "PYTHON": sys.executable}
        _run([ROOT / "tools" / "bootstrap", "."], bootstrap)
        return python
    wanted = list(system.requirements)
    stamp = folder / "requirements.json"
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    # Our own pip installs into the new environment: it needs none, which some systems lack.
    _run([sys.executable, "-m", "venv", "--without-pip", folder])
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    _run([*pip, "install", "--quiet", *wanted])
    stamp.write_text(json.dumps(wanted) + "\n")
    return python


def _run(command: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise EnvironmentFailed(f"{' '.join(str(part) for part in command)}\n{tail}")

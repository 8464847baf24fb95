"""Damage to files that knows nothing of what they hold: the same for every library."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from random import Random

NUMBERS = (0, 1, -1, 7, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, -(2**63))
"""What absurd sizes, counts and offsets look like."""

_DIGITS = re.compile(rb"\d+")


def damaged(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return what was done to bytes, and what they are now."""
    kinds = ("cut", "longer", "bit", "bit", "byte", "stomp", "number", "number", "digits", "moved")
    kind = rng.choice(kinds) if data else "longer"
    place = rng.randrange(len(data)) if data else 0
    if rng.random() < 0.3:  # headers are where sizes are
        place = min(place, rng.randrange(64))
    changed = bytearray(data)
    if kind == "cut":
        return f"cut at {place}", data[:place]
    if kind == "longer":
        return "longer", data + rng.randbytes(rng.randrange(1, 100))
    if kind == "bit":
        changed[place] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        changed[place] = rng.randrange(256)
    elif kind == "stomp":
        end = min(len(data), place + rng.choice((4, 16, 64, 512)))
        changed[place:end] = rng.choice((bytes(end - place), rng.randbytes(end - place)))
    elif kind == "number":
        width = rng.choice((2, 4, 8))
        place -= place % width
        stomp = (rng.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(width, "little")
        changed[place : place + width] = stomp[: len(data) - place]
    elif kind == "digits":
        found = list(_DIGITS.finditer(data[:4096]))
        if found:
            digits = rng.choice(found)
            place = digits.start()
            changed[place : digits.end()] = str(rng.choice(NUMBERS)).encode()
    else:
        end, target = min(len(data), place + rng.randrange(1, 65)), rng.randrange(len(data))
        changed[target : target + end - place] = data[place:end]
    return f"{kind} at {place}", bytes(changed)


class Saved:
    """A copy of a saved index, a file or a directory, that is damaged and made whole again.

    Files are replaced, not written to, as a copy that is damaged on its way would be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        self.files = {file: file.read_bytes() for file in files if file.is_file()}
        self.size = sum(map(len, self.files.values()))
        self._touched: list[Path] = []

    def put(self, file: Path, data: bytes) -> None:
        """Replace or add a file."""
        self._touched.append(file)
        place(file, data)

    def damage(self, rng: Random) -> str:
        """Do something to it; return what."""
        names = list(self.files)
        file = rng.choice(names)
        if rng.random() < 0.9:
            what, data = damaged(self.files[file], rng)
            self.put(file, data)
            return f"{file.name}: {what}"
        other = rng.choice(names)
        self._touched += [file, other]
        kind = rng.choice(("missing", "swapped", "loop", "nowhere", "link", "directory"))
        file.unlink()
        if kind == "swapped":
            place(file, self.files[other])
            place(other, self.files[file])
        elif kind == "directory":
            file.mkdir()
        elif kind != "missing":
            file.symlink_to({"loop": file, "nowhere": Path("nowhere"), "link": other}[kind])
        return f"{file.name}: {kind}, {other.name}"

    def restore(self) -> None:
        """Make it whole again."""
        for file in self._touched:
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            if file in self.files:
                place(file, self.files[file])
            else:
                file.unlink(missing_ok=True)
        self._touched.clear()


def place(file: Path, data: bytes) -> None:
    """Write a file and put it in place, so that whoever mapped the old one keeps it."""
    new = f"{file}.new"
    with open(new, "wb") as made:
        made.write(data)
    os.replace(new, file)

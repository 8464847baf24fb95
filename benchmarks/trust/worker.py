"""The process that tries cases one after the other, until one of them ends it.

Started by `benchmarks.trust.watch` with the Python of whatever is tried; needs NumPy only.
"""

from __future__ import annotations

import abc
import faulthandler
import importlib
import json
import mmap
import resource
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

OUTCOMES = (
    "refused",
    "same",
    "earlier",
    "later",
    "different",
    "untyped",
    "memory",
    "crash",
    "hang",
)
"""refused: by an error as promised; untyped: by another; memory: by a lack of it;
earlier: an earlier state of an index that changes; later: one change more than was acknowledged;
different: answers that are not the index's."""

MARGIN = 64 << 20  # of memory, beside twice the files
SANITIZED_MARGIN = 4 << 30  # where memory cannot be measured, so that the machine is left some
_NUMBER, _DONE, _PEAK, _COUNTS = 0, 1, 2, 3


class Subject(abc.ABC):
    """Something that cases are tried on. Made as ``Subject(folder, seed)`` in a worker."""

    allowed: Mapping[str, frozenset[str]]
    """By lane, the outcomes that break no promise."""

    size = 0
    """Bytes of the largest files that it opens."""

    margin = MARGIN
    """Bytes it may take beside twice these."""

    @abc.abstractmethod
    def run(self, number: int) -> tuple[str, str, str]:
        """Try a case; return its lane, its outcome and what was done."""


class Board:
    """Counts in a file that the watching process maps too: they outlive the worker."""

    def __init__(self, path: Path, lanes: list[str]) -> None:
        self._lanes = lanes
        size = 8 * (_COUNTS + len(lanes) * len(OUTCOMES))
        if not path.exists():
            path.write_bytes(bytes(size))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)

    def _get(self, place: int) -> int:
        return int(struct.unpack_from("<q", self._map, 8 * place)[0])

    def _set(self, place: int, value: int) -> None:
        struct.pack_into("<q", self._map, 8 * place, value)

    def begin(self, number: int) -> None:
        """Note the case that is tried now."""
        self._set(_NUMBER, number)

    def finish(self, lane: str, outcome: str) -> None:
        """Count its outcome."""
        place = _COUNTS + self._lanes.index(lane) * len(OUTCOMES) + OUTCOMES.index(outcome)
        self._set(place, self._get(place) + 1)
        self._set(_DONE, self._get(_DONE) + 1)

    def note_peak(self, kilobytes: int) -> None:
        """Note how far memory has grown."""
        self._set(_PEAK, max(self._get(_PEAK), kilobytes))

    @property
    def number(self) -> int:
        """The case that was begun last."""
        return self._get(_NUMBER)

    @property
    def done(self) -> int:
        """How many were finished."""
        return self._get(_DONE)

    @property
    def peak(self) -> int:
        """Kilobytes by which memory has grown."""
        return self._get(_PEAK)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return outcomes by lane."""
        found = {}
        for i, lane in enumerate(self._lanes):
            first = _COUNTS + i * len(OUTCOMES)
            found[lane] = {name: self._get(first + j) for j, name in enumerate(OUTCOMES)}
        return found


def subject_of(name: str, folder: Path, seed: int) -> Subject:
    """Return the subject of ``module:argument``."""
    module, _, argument = name.partition(":")
    made: Subject = importlib.import_module(module).subject(argument, folder, seed)
    return made


def is_sanitized() -> bool:
    """Whether AddressSanitizer is here, which maps terabytes and keeps what was freed."""
    return "libasan" in Path("/proc/self/maps").read_text()


def limit_memory(growth: int) -> None:
    """Let the process map so many bytes more than it has now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (mapped + growth, mapped + growth))


def peak_memory() -> int:
    """Return the most kilobytes the process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Try the cases ``first, first + step, ...`` below ``end``."""
    faulthandler.enable()
    asked = json.loads(sys.argv[1])
    folder = Path(asked["folder"])
    subject = subject_of(asked["subject"], folder / "work", asked["seed"])
    board = Board(folder / "board", list(subject.allowed))
    before = peak_memory()
    measures_memory = not is_sanitized()
    limit_memory(subject.margin + 2 * subject.size if measures_memory else SANITIZED_MARGIN)
    with open(folder / "failures", "a") as failures:
        for number in range(asked["first"], asked["end"], asked["step"]):
            board.begin(number)
            lane, outcome, what = subject.run(number)
            if outcome not in subject.allowed[lane]:
                failures.write(f"{number}: {lane}: {outcome}: {what}\n")
                failures.flush()
            board.finish(lane, outcome)
            if measures_memory:
                board.note_peak(peak_memory() - before)


if __name__ == "__main__":
    main()

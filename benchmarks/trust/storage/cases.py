"""Every call of the system of every operation, and what may happen at it."""

from __future__ import annotations

import dataclasses
import errno
import json
import sys
from pathlib import Path
from random import Random

from benchmarks.trust.storage import library
from benchmarks.trust.storage.library import Watched
from benchmarks.trust.storage.operations import KINDS, OPERATIONS, Operation, make

_LIES = ("rename", "unlink", "fsync", "close", "mkdir", "ftruncate", "write+")


@dataclasses.dataclass(frozen=True)
class Case:
    """What happens at the n-th call of an operation."""

    operation: int
    n: int
    call: str
    what: str
    action: int
    error: int = 0


def calls_of(operation: Operation, folder: Path, watched: Watched) -> list[str]:
    """Return the calls of an operation that nothing disturbs."""
    operation.start(folder)
    session = operation.begin(folder)
    watched.arm()
    for step in session.steps:
        step()
    watched.disarm()
    names = watched.names()
    session.close()
    return names


def cases_of(calls: list[list[str]], seed: int) -> list[Case]:
    """Return all cases, in an order of the seed's own."""
    made = []
    for operation, names in enumerate(calls):
        for n, call in enumerate(names):

            def add(
                what: str,
                action: int,
                error: int = 0,
                at: tuple[int, int, str] = (operation, n, call),
            ) -> None:
                made.append(Case(*at, what, action, error))

            add("killed", library.KILL)
            add("EIO", library.FAIL, errno.EIO)
            add("EINTR", library.FAIL, errno.EINTR)
            add("ENOSPC", library.FAIL, errno.ENOSPC)
            add("EIO from there on", library.FAIL_ON, errno.EIO)
            add("ENOSPC from there on", library.FAIL_ON, errno.ENOSPC)
            if call == "write+":
                add("killed in the middle", library.TORN)
            if call in ("write+", "read"):
                add("half of it", library.SHORT)
            if call in _LIES:
                add("done, then EIO", library.LIE, errno.EIO)
    Random(seed).shuffle(made)
    return made


def operations(folder: Path) -> list[Operation]:
    """Make all operations, with what is there before."""
    return [make(title, kind, folder) for title in OPERATIONS for kind in KINDS]


def main() -> None:
    """Write the calls of all operations to a file, as JSON."""
    folder = Path(sys.argv[1])
    calls = [
        calls_of(operation, folder / "counted", Watched(folder)) for operation in operations(folder)
    ]
    Path(sys.argv[2]).write_text(json.dumps(calls))


if __name__ == "__main__":
    main()

"""One question to a library, in a process of its own: ``probe LIBRARY QUESTION FOLDER ...``."""

from __future__ import annotations

import importlib.metadata
import json
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.trust.peers.adapter import Adapter, Answers, adapter, rows_of
from benchmarks.trust.peers.subject import QUERIES, alike, ask, make

LARGE = 400_000, 64


def version(library: Adapter) -> str:
    """Return the version that is installed."""
    return "" if not library.requirements else importlib.metadata.version(
        library.requirements[-1].split("==")[0]
    )  # fmt: skip


def nan(library: Adapter, folder: Path) -> str:
    """Ask for neighbors of a NaN, as a batch of one."""
    index = library.load(make(library, folder), QUERIES.shape[1])
    queries = QUERIES[:1].copy()
    queries[0, 3] = np.nan
    try:
        library.search(index, queries)
    except Exception as error:  # whatever a library raises
        return f"refused: {type(error).__name__}"
    return "answered"


def build(library: Adapter, folder: Path) -> str:
    """Build a large index until somebody interrupts it; say how that ended."""
    rows = rows_of(3, *LARGE)
    library.search(library.load(make(library, folder), QUERIES.shape[1]), QUERIES)  # all imported
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
    try:
        (folder / "begun").touch()
        begin = time.monotonic()
        library.build(rows)
    except KeyboardInterrupt:
        return f"interrupted {time.monotonic() - begin:.3f}"
    except Exception as error:  # faiss raises a RuntimeError
        return f"interrupted {time.monotonic() - begin:.3f} by {type(error).__name__}"
    return f"finished {time.monotonic() - begin:.3f}"


def save(library: Adapter, folder: Path) -> str:
    """Save another index over the one that is there, with room for a part of it only."""
    part = float(sys.argv[4])
    index = library.build(rows_of(9, 400, 16))
    np.savez(folder / "new.npz", *library.search(index, QUERIES))
    path = folder / "index"
    files = [f for f in ([path] if path.is_file() else path.rglob("*")) if f.is_file()]
    room = int(part * max(f.stat().st_size for f in files))
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        library.save(index, path)
    except BaseException as error:
        said = f"raised {type(error).__name__}"
    else:
        said = "said nothing"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return said


def look(library: Adapter, folder: Path) -> str:
    """Tell the old index from the new one."""
    try:
        found = ask(library, folder / "index")
    except Exception:  # whatever a library raises
        return "lost"
    for name in ("old", "new"):
        if alike(found, Answers(*np.load(folder / f"{name}.npz").values())):
            return name
    return "wrong"


def begin(library: Adapter, folder: Path) -> str:
    """Save an index, and what it answers."""
    np.savez(folder / "old.npz", *ask(library, make(library, folder)))
    return "begun"


def main() -> None:
    """Answer as a line of JSON."""
    library, folder = adapter(sys.argv[1]), Path(sys.argv[3])
    answer = {
        "version": lambda: version(library),
        "begin": lambda: begin(library, folder),
        "nan": lambda: nan(library, folder),
        "build": lambda: build(library, folder),
        "save": lambda: save(library, folder),
        "look": lambda: look(library, folder),
    }[sys.argv[2]]()
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

"""What the workers of the comparison do to a library's files."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from benchmarks.trust.mutate import Saved
from benchmarks.trust.peers.adapter import Adapter, Answers, adapter, rows_of
from benchmarks.trust.worker import Subject

ROWS, QUERIES = rows_of(1, 400, 16), rows_of(2, 20, 16)
LANE = "damage"


def make(library: Adapter, folder: Path) -> Path:
    """Build a small index and save it; return where."""
    path = folder / "index"
    if library.is_folder:
        path.mkdir(exist_ok=True)
    library.save(library.build(ROWS), path)
    return path


def ask(library: Adapter, path: Path) -> Answers:
    """Return the answers of a saved index."""
    return library.search(library.load(path, ROWS.shape[1]), QUERIES)


def alike(a: Answers, b: Answers) -> bool:
    """Whether these are the same answers, to the last bit."""
    return all(
        x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(map(np.asarray, a), map(np.asarray, b), strict=True)
    )


class Damaged(Subject):
    """An index of a library, damaged in as many ways."""

    allowed = {LANE: frozenset(("refused", "same"))}  # noqa: RUF012
    margin = 1 << 30  # what others allocate beside their files is not held against them

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        folder.mkdir()
        self.seed = seed
        self.library = adapter(name)
        self.saved = Saved(make(self.library, folder))
        self.expected = ask(self.library, self.saved.path)
        if not alike(self.expected, ask(self.library, self.saved.path)):
            raise RuntimeError(f"{name} does not give the same answers twice")

    def run(self, number: int) -> tuple[str, str, str]:
        """Damage it, load and search it, and make it whole again."""
        what = self.saved.damage(Random(f"{self.seed}/{number}"))
        try:
            found = ask(self.library, self.saved.path)
        except MemoryError:
            outcome = "memory"
        except Exception:  # whatever a library raises
            outcome = "refused"
        else:
            outcome = "same" if alike(found, self.expected) else "different"
        finally:
            self.saved.restore()
        return LANE, outcome, what


def subject(argument: str, folder: Path, seed: int) -> Subject:
    """Return the subject; `argument` names the library."""
    return Damaged(argument, folder, seed)

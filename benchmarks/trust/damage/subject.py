"""What the workers of the experiment do to swann's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import swann
from benchmarks.trust.damage import configurations
from benchmarks.trust.damage.lies import lie
from benchmarks.trust.mutate import Saved
from benchmarks.trust.worker import Subject
from swann import IndexFormatError, Searcher, SwannError

_SAFE = frozenset(("refused", "same"))
LANES = {
    'damage, verify="full"': _SAFE,
    'damage, verify="manifest"': _SAFE | {"different"},
    "damage to a log, closed": _SAFE | {"earlier"},
    "damage to a log, killed": _SAFE | {"earlier"},
    "lies": _SAFE | {"different"},
    "lies, then changes": _SAFE | {"different", "memory"},
}
_MOST_ITERATIONS = 100
FULL, QUICK, CLOSED, KILLED, LIES, CHANGED = LANES


class Damage(Subject):
    """Damages copies of the indexes that the experiment has saved."""

    allowed = LANES

    def __init__(self, source: Path, folder: Path, seed: int) -> None:
        shutil.copytree(source, folder)
        self.seed = seed
        paths = json.loads((source / "saved.json").read_text())
        self.indexes = [Saved(folder / path) for path in paths]
        self.expected = [configurations.answers(_load(s.path, "full")) for s in self.indexes]
        self.directories = [s for s in self.indexes if s.path.is_dir()]
        self.logs = {lane: Saved(folder / lane.split()[-1]) for lane in (CLOSED, KILLED)}
        self.states = configurations.states_with_log()
        for saved in self.logs.values():
            if configurations.answers(_load(saved.path, "full")) != self.states[-1]:
                raise RuntimeError("a whole index with a log does not answer as it should")
        for saved in self.directories:
            _change(_load(saved.path, "full"))
        self.size = max(s.size for s in self.indexes)

    def run(self, number: int) -> tuple[str, str, str]:
        """Damage an index, open and search it, and make it whole again."""
        rng = Random(f"{self.seed}/{number}")
        lane = rng.choices(list(LANES), (45, 10, 8, 5, 24, 8))[0]
        if lane in self.logs:
            saved, expected = self.logs[lane], self.states
        elif lane in (LIES, CHANGED):
            saved, expected = rng.choice(self.directories), []
        else:
            place = rng.randrange(len(self.indexes))
            saved, expected = self.indexes[place], [self.expected[place]]
        what = lie(saved, rng) if lane in (LIES, CHANGED) else saved.damage(rng)
        try:
            outcome = self._try(saved.path, lane, expected)
        except Exception as error:
            outcome, what = "untyped", f"{what}: {error!r}"
        finally:
            saved.restore()
        if lane == CLOSED and outcome == "earlier" and (": bit " in what or ": byte " in what):
            outcome = "different"  # only a cut, or more than a record's end, may look like a crash
        return lane, outcome, f"{saved.path.name}: {what}"

    def _try(self, path: Path, lane: str, expected: list[Any]) -> str:
        try:
            searcher = _load(path, "manifest" if lane == QUICK else "full")
            found = configurations.answers(searcher)
        except IndexFormatError:
            return "refused"
        if lane == CHANGED:
            return _change(searcher)
        if found in expected[-1:]:
            return "same"
        return "earlier" if found in expected else "different"


def _load(path: Path, verify: Any) -> Searcher:
    searcher = swann.load(path, verify=verify)
    searcher.num_threads = 1
    return searcher


def training_iterations(searcher: Searcher) -> int:
    """Return how long a rebalance trains: as long as the settings say, which may be for ever."""
    config = searcher.config
    trained = [part for part in (config.tree, config.score) if part is not None]
    return max(int(getattr(part, "training_iterations", 0)) for part in trained)


def _change(searcher: Searcher) -> str:
    """Make some changes to what was opened."""
    docids: list[Any] | None = None if searcher.docids is None else [10**6, 10**6 + 1]
    if searcher.docids and isinstance(searcher.docids[0], str):
        docids = ["x", "y"]
    rows = configurations.DB[:2, : searcher.dimension]
    try:
        made = searcher.upsert(docids, rows)
        searcher.delete(made[0] if docids is None else docids[0])
        if training_iterations(searcher) <= _MOST_ITERATIONS:
            searcher.rebalance()
        configurations.answers(searcher)
    except SwannError:
        return "refused"
    except MemoryError:
        return "memory"
    return "different"


def subject(argument: str, folder: Path, seed: int) -> Subject:
    """Return the subject; `argument` is the directory of the saved indexes."""
    return Damage(Path(argument), folder, seed)

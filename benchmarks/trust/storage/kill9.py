"""kill -9 at random moments: what was acknowledged is there, and at most one change beside it."""

from __future__ import annotations

import json
import signal
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import swann
from benchmarks.trust import watch
from benchmarks.trust.experiment import Experiment, Options, Report
from benchmarks.trust.storage.child import Child
from benchmarks.trust.worker import Subject
from swann import Searcher
from swann.index.changing import durable

_D, _DOCIDS = 6, 80
_LIFE = 25  # kills before another index takes its place
_BACKLOG = 3000  # bytes of log that make a checkpoint in the background
LANES = dict.fromkeys(("always", "batch", "none"), frozenset(("same", "later")))
Model = dict[Any, bytes]


class Kill9(Subject):
    """Each case opens the index of the case before, changes it and is killed."""

    allowed = LANES
    margin = 4 << 30

    def __init__(self, folder: Path, seed: int) -> None:
        warnings.simplefilter("ignore")  # forks beside threads
        durable.LEAST_BACKLOG = _BACKLOG
        folder.mkdir()
        self.folder, self.seed = folder, seed
        self.life, self.kills = 0, _LIFE
        self.totals: Counter[str] = Counter()

    def begin_life(self) -> None:
        """Save a new index: its model is what it holds, `made` how many changes it has seen."""
        self.life, self.kills, self.made = self.life + 1, 0, 0
        self.path = self.folder / f"{self.life}"
        self.names = self.life % 2 == 0
        docids = [self.docid(i) for i in range(_DOCIDS // 2)]
        rows = np.random.default_rng(self.life).standard_normal((len(docids), _D), np.float32)
        builder = swann.builder(rows, 5, "squared_l2").set_n_training_threads(1)
        if self.life % 4 < 2:
            builder.tree(5, 5, min_partition_size=1).score_ah(2).reorder(1000)
        else:
            builder.score_brute_force()
        builder.build(docids=docids).save(self.path)
        self.model = {d: row.tobytes() for d, row in zip(docids, rows, strict=True)}

    def docid(self, i: int) -> Any:
        """Return a docid: a string or an int, as this index has them."""
        return f"n{i}" if self.names else i

    def change(self, model: Model, number: int) -> tuple[Model, list[Any], np.ndarray | None]:
        """Return the model after a change, the docids it concerns, and their rows if it upserts."""
        rng = Random(f"{self.seed}/{self.life}/{number}")
        count = rng.choice((1, 1, 1, 2, 5, 20))
        if len(model) > 10 and rng.random() < 0.4:
            gone = rng.sample(sorted(model), min(count, 5))
            return {d: row for d, row in model.items() if d not in gone}, gone, None
        docids = [self.docid(i) for i in rng.sample(range(_DOCIDS), count)]
        rows = np.zeros((count, _D), np.float32)
        rows[:, 0], rows[:, 1] = number, np.arange(count)  # no two versions are alike
        return model | {d: r.tobytes() for d, r in zip(docids, rows, strict=True)}, docids, rows

    def run(self, number: int) -> tuple[str, str, str]:
        """Let a child change the index until it is killed; compare what is left."""
        if self.kills >= _LIFE:
            self.begin_life()
        self.kills += 1
        lane = list(LANES)[number % len(LANES)]
        rng = Random(f"{self.seed}/{number}")
        child = Child(lambda child: self.work(child, lane, number))
        early = rng.random() < 0.15
        lines: list[str] = []
        if not early and (line := child.hear()) is not None:
            lines.append(line)
        longest = 0.01 if early else rng.choice((0.005, 0.03, 0.03, 0.15))
        time.sleep(rng.random() * longest)
        child.kill()
        while (line := child.hear()) is not None:
            lines.append(line)
        status = child.end()
        failed = [line for line in lines if line.startswith("failed")]
        acknowledged = sum(line == "made" for line in lines)
        self.totals["changes acknowledged"] += acknowledged
        self.totals["checkpoints on demand"] += lines.count("checkpoint")
        self.totals["killed while opening"] += "opened" not in lines
        if failed or status != -signal.SIGKILL:
            return self.wrong(lane, f"status {status}, {failed}")
        return self.compare(lane, acknowledged)

    def compare(self, lane: str, acknowledged: int) -> tuple[str, str, str]:
        """Open what is left."""
        before = int(min(self.path.glob("log-*"), default=Path("log-0")).name[4:24].strip("."))
        self.totals["checkpoints, of all kinds"] += before != getattr(self, "first", before)
        self.first = before
        for _ in range(acknowledged):
            self.model = self.change(self.model, self.made)[0]
            self.made += 1
        later = self.change(self.model, self.made)[0]
        try:
            found = _contents(swann.load(self.path, verify="full"))
            if self.kills % 5 == 0:
                with swann.open(self.path, verify="full", checkpoint_at=None) as index:
                    again = _contents(index)
                if again != found:
                    return self.wrong(lane, "opened, it is another than loaded")
        except Exception as error:
            return self.wrong(lane, repr(error))
        if found == self.model:
            return lane, "same", ""
        if found == later:
            self.model = later
            self.made += 1
            return lane, "later", ""
        lost = [d for d, row in self.model.items() if found.get(d) != row]
        ghosts = [d for d in found if d not in self.model]
        return self.wrong(lane, f"after {self.made} changes: lost {lost}, ghosts {ghosts}")

    def wrong(self, lane: str, what: str) -> tuple[str, str, str]:
        """Say so, and begin with another index."""
        self.kills = _LIFE
        return lane, "different", f"life {self.life}: {what}"

    def work(self, child: Child, lane: Any, number: int) -> None:
        """Open the index and change it, until the end."""
        rng = Random(f"{self.seed}/{number}/work")
        interval = rng.choice((0.001, 0.01, 0.05))
        share = rng.choice((0.01, None))
        index = swann.open(self.path, durability=lane, flush_interval=interval, checkpoint_at=share)
        index.num_threads = 1
        child.tell("opened")
        model, made = self.model, self.made
        while True:
            model, docids, rows = self.change(model, made)
            if rows is None:
                index.delete(docids if len(docids) > 1 else docids[0])
            elif len(docids) == 1:
                index.upsert(docids[0], rows[0])
            else:
                index.upsert(docids, rows)
            made += 1
            child.tell("made")
            happens = rng.random()
            if happens < 0.02:
                index.checkpoint()
                child.tell("checkpoint")
            elif happens < 0.022:
                index.rebalance()
                child.tell("checkpoint")
            elif happens < 0.03:
                index.flush()


def _contents(searcher: Searcher) -> Model:
    searcher.num_threads = 1
    vectors = searcher._live.vectors(searcher._live.numbers())
    docids = searcher.docids or []
    return {d: row.tobytes() for d, row in zip(docids, vectors, strict=True)}


class _Noting(Kill9):
    """Keeps its totals in a file, which outlives the worker."""

    def run(self, number: int) -> tuple[str, str, str]:
        try:
            return super().run(number)
        finally:
            (self.folder.parent / "totals.json").write_text(json.dumps(self.totals))


def subject(argument: str, folder: Path, seed: int) -> Subject:
    """Return the subject."""
    return _Noting(folder, seed)


def run(options: Options) -> Report:
    """Kill so often."""
    tally = watch.try_all(
        "benchmarks.trust.storage.kill9:", list(LANES), options.n, seed=options.seed,
        first=options.first, workers=options.workers, folder=options.folder,
    )  # fmt: skip
    totals: Counter[str] = Counter()
    for path in options.folder.glob("worker*/totals.json"):
        totals.update(json.loads(path.read_text()))
    figures = {
        "kills": options.n,
        "seconds": round(tally.seconds, 1),
        **totals,
        "outcomes": tally.counts,
    }
    return Report(figures, tally.failures)


EXPERIMENT = Experiment("kill9", "kill -9 at random moments", 30, 1_000, run)

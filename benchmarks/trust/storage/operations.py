"""What is done to small indexes on disk, step by step, and what there must be after each step."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import swann
from swann import Searcher
from swann.index.log import journal
from swann.storage import DurableSearcher

journal._SMALL = 1 << 12  # longer records are written in parts

_D, _START = 6, 40
DB = np.random.default_rng(11).standard_normal((400, _D)).astype(np.float32)
KINDS = ("brute force", "tree")
View = tuple[dict[Any, bytes], Any, bytes]


def build(kind: str, first: int = 0) -> Searcher:
    """Build an index of some datapoints, from `first` on."""
    rows = DB[first : first + _START]
    builder = swann.builder(rows, 5, "squared_l2").set_n_training_threads(1)
    if kind == "tree":
        builder.tree(5, 5, min_partition_size=1).score_ah(2).reorder(1000)
    else:
        builder.score_brute_force()
    searcher = builder.build(docids=[name(kind, i) for i in range(_START)])
    searcher.num_threads = 1
    return searcher


def name(kind: str, number: int) -> Any:
    """Return a docid: a string or an int."""
    return f"ä{number}" if kind == "tree" else number


def view(searcher: Searcher) -> View:
    """Return what there is, exactly, and what is found."""
    searcher.num_threads = 1
    numbers = searcher._live.numbers()
    vectors = searcher._live.vectors(numbers)
    docids = searcher.docids or []
    found = searcher.search_batched(DB[:3], 5, 1000, 1000)
    contents = {docid: row.tobytes() for docid, row in zip(docids, vectors, strict=True)}
    return contents, found.indices.tolist(), found.distances.tobytes()


def view_of(path: Path) -> View | None:
    """Return what is on disk, read in full; None if nothing is."""
    if not path.exists() or (path.is_dir() and not (path / "manifest.json").exists()):
        return None
    return view(swann.load(path, verify="full"))


@dataclasses.dataclass
class Session:
    """What a process is about to do.

    Attributes
    ----------
    steps : list of callable
        One after the other.
    own : callable
        Returns what the index in memory holds; None: there is none.
    close : callable
        Ends it.
    reopen : callable or None
        Closes the index and opens it again.
    """

    steps: list[Callable[[], object]]
    own: Callable[[], Any] = lambda: None
    close: Callable[[], object] = lambda: None
    reopen: Callable[[], object] | None = None


class Operation:
    """Something that is done to an index on disk.

    Parameters
    ----------
    title, kind : str
        Of what, to which index.
    folder : path
        For what is there before.

    Attributes
    ----------
    states : list
        What is on disk before and after each step.
    own : list
        What the process itself has in memory then.
    flushed : list of int
        By step, the state that must last from then on, whatever happens to the machine.
    """

    def __init__(self, title: str, kind: str, folder: Path) -> None:
        self.title, self.kind = title, kind
        self.template = folder / f"{title} {kind}"
        self.states: list[View | None] = []
        self.own: list[Any] = []
        self.flushed: list[int] = []

    def path(self, folder: Path) -> Path:
        """Return where the index is, in this folder."""
        return folder / "index"

    def start(self, folder: Path) -> None:
        """Put there what is there before; it is on disk."""
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(self.template, folder)

    def begin(self, folder: Path) -> Session:
        """Return what is done."""
        raise NotImplementedError

    def go_on(self, folder: Path) -> str:
        """Use what is there as if nothing had happened; return what is wrong."""
        raise NotImplementedError

    def learn(self, folder: Path) -> None:
        """Note the states, by doing it undisturbed."""
        self.start(folder)
        self.states = [view_of(self.path(folder))]
        session = self.begin(folder)
        self.own = [session.own()]
        for step in session.steps:
            step()
            self.states.append(view_of(self.path(folder)))
            self.own.append(session.own())
        session.close()
        if told := self.go_on(folder):
            raise RuntimeError(f"{self.title}, {self.kind}: {told}")


class Save(Operation):
    """An index is saved, over another one or not, to a directory or one file."""

    def __init__(self, title: str, kind: str, folder: Path) -> None:
        super().__init__(title, kind, folder)
        self.template.mkdir(parents=True)
        self.searcher = build(kind, 100)
        self.searcher.upsert([name(kind, 3), name(kind, 900)], DB[:2])
        self.view = view(self.searcher)
        self.flushed = [0, 1]
        self.other = build(kind)
        if "over" in title:
            self.other.save(self.path(self.template))

    def path(self, folder: Path) -> Path:  # noqa: D102
        return folder / ("index.swann" if "file" in self.title else "index")

    def begin(self, folder: Path) -> Session:  # noqa: D102
        path = self.path(folder)
        return Session([lambda: self.searcher.save(path)], lambda: view(self.searcher))

    def go_on(self, folder: Path) -> str:  # noqa: D102
        self.other.save(self.path(folder))
        return _surplus(self.path(folder), 0)


class Durable(Operation):
    """An index is opened for changes."""

    def __init__(self, title: str, kind: str, folder: Path) -> None:
        super().__init__(title, kind, folder)
        self.flushed = [0, 0]
        path = self.path(self.template)
        build(kind).save(path)
        if title != "open":
            with swann.open(path) as index:
                index.upsert(name(kind, 900), DB[200])
                index.delete(name(kind, 2))
        if title in ("recover", "load"):  # what a killed process leaves, in the middle of a record
            log = max(path.glob("log-*"))
            data = log.read_bytes()
            log.write_bytes(data[:-40] + data[64:100])  # instead of the record that it was closed
            (path / ".lock").write_text("1 open\n")
            (path / ".codes-1-2.tmp").write_bytes(b"half")

    def begin(self, folder: Path) -> Session:  # noqa: D102
        kind, path = self.kind, self.path(folder)
        if self.title == "load":
            return Session([lambda: _load(path)])
        if self.title in ("open", "recover"):
            return Session([lambda: _open(path, "always").close()])
        durability = self.title if self.title in ("none", "batch") else "always"
        held = [_open(path, durability)]

        def reopen() -> None:
            # It says that something may be lost, and is closed all the same.
            with suppress(OSError, swann.SwannError):
                held[0].close()
            held[0] = _open(path, durability)

        def docids(*numbers: int) -> list[Any]:
            return [name(kind, number) for number in numbers]

        changes: list[Callable[[], object]] = [
            lambda: held[0].upsert(name(kind, 500), DB[300]),
            lambda: held[0].upsert(docids(*range(501, 505), 3), DB[301:306]),
            lambda: held[0].delete(name(kind, 5)),
            lambda: held[0].delete(docids(500, 7)),
            lambda: held[0].upsert(docids(*range(600, 800)), DB[200:]),
        ]
        close: Callable[[], object] = lambda: held[0].close()  # noqa: E731
        flush: Callable[[], object] = lambda: held[0].flush()  # noqa: E731
        checkpoint: Callable[[], object] = lambda: held[0].checkpoint()  # noqa: E731
        rebalance: Callable[[], object] = lambda: held[0].rebalance()  # noqa: E731
        if self.title == "checkpoint":
            a, b, c, d, _ = changes
            steps = [checkpoint, a, b, checkpoint, c, d, checkpoint, close]
            lasting = [1, 2, 3, 4, 5, 6, 7, 8]
        elif self.title == "rebalance":
            steps = [rebalance, changes[0], close]
            lasting = [1, 2, 3]
        elif durability == "always":
            steps = changes
            lasting = list(range(1, len(changes) + 1))
        else:
            a, b, c, d, e = changes
            steps = [a, b, flush, c, d, e, checkpoint, close]
            lasting = [0, 0, 3, 3, 3, 3, 7, 8]
        self.flushed = [0, *lasting]
        return Session(steps, lambda: view(held[0]), lambda: held[0].close(), reopen)

    def go_on(self, folder: Path) -> str:  # noqa: D102
        kind, path = self.kind, self.path(folder)
        with swann.open(path) as index:
            before = view(index)[0]
            index.upsert(name(kind, 950), DB[7])
            index.checkpoint()
            index.delete(name(kind, 10))
        after = before | {name(kind, 950): DB[7].tobytes()}
        del after[name(kind, 10)]
        if view(swann.load(path, verify="full"))[0] != after:
            return "changes made afterwards are not there"
        return _surplus(path, 1)


def _open(path: Path, durability: Any) -> DurableSearcher:
    index = swann.open(path, durability=durability, flush_interval=3600, checkpoint_at=None)
    index.num_threads = 1
    return index


def _load(path: Path) -> None:
    swann.load(path, verify="full")


def _surplus(path: Path, logs: int) -> str:
    """Say what is there that the index does not need."""
    if path.is_file():
        return ""
    files = {file.name for file in path.iterdir()}
    listed = swann_files(path)
    more = [file for file in files - listed if not file.startswith("log-")]
    if more or len(list(path.glob("log-*"))) != logs:
        return f"there are {sorted(files - listed)} beside the index"
    return ""


def swann_files(path: Path) -> set[str]:
    """Return the manifest of a directory and the files that it lists."""
    content = json.loads((path / "manifest.json").read_text())
    return {"manifest.json"} | {entry["file"] for entry in content["arrays"].values()}


_SAVES = ("save", "save over", "one file", "one file over")
_DURABLE = ("open", "recover", "load", "always", "none", "checkpoint", "rebalance")
OPERATIONS = _SAVES + _DURABLE


def make(title: str, kind: str, folder: Path) -> Operation:
    """Make what is there before, in this folder, and learn the states."""
    operation = (Save if title in _SAVES else Durable)(title, kind, folder / "templates")
    operation.learn(folder / "learned")
    return operation

"""Writers, readers, signal handlers and ends of processes at the worst of moments.

Each schedule is forced: what another thread, process or handler would do is done right there.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from durable_cases import DB, START, contents, log_of, save
from forks import FORK, end_of, fork

import swann
from swann import CorruptIndexError, InvalidInputError, LockedError, ReadOnlyError, SwannError
from swann.index.changing import durable
from swann.index.disk import file_system, store
from swann.index.disk.lock import DirectoryLock
from swann.index.log import reader
from swann.index.log.format import CLOSE
from swann.index.log.journal import FileJournal
from swann.index.log.reader import LogReader
from swann.index.state import LogPoint

POSIX = pytest.mark.skipif(os.name != "posix", reason="open directories are renamed on POSIX only")


def journal_of(index: Any) -> FileJournal:
    journal: FileJournal = index._files._journal
    return journal


def in_time(function: Callable[[], object]) -> None:
    """Call a function, and fail where it waits for ever."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    for error in errors:
        raise error


# ---- The interpreter ends


@pytest.mark.parametrize("when", ["before", "after"])
def test_ending_beside_a_change(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is closed after the change that another thread is noting down."""
    index = swann.open(save(tmp_path, "str"))
    write = FileJournal._write
    written, go_on = threading.Event(), threading.Event()

    def slowly(self: FileJournal, kind: int, parts: list[Any]) -> None:
        if kind == CLOSE:
            return write(self, kind, parts)
        if when == "after":
            write(self, kind, parts)
        written.set()
        go_on.wait(20)
        if when == "before":
            write(self, kind, parts)
        return None

    monkeypatch.setattr(FileJournal, "_write", slowly)
    changing = threading.Thread(target=lambda: index.upsert("x", DB[0]))
    changing.start()
    assert written.wait(20)
    assert index._files is not None
    ending = threading.Thread(target=index._files._closing)  # as at exit
    ending.start()
    ending.join(0.2)
    go_on.set()
    changing.join()
    ending.join()
    with pytest.raises(ReadOnlyError, match="closed"):
        index.upsert("y", DB[1])
    with swann.open(tmp_path) as again:
        assert contents(again) == contents(index)
        assert "x" in contents(again)


def test_a_change_that_comes_too_late(tmp_path: Path) -> None:
    index = swann.open(save(tmp_path, "str"))
    index.upsert("x", DB[0])
    journal = journal_of(index)
    take_back = journal.begin()
    journal.close()
    before = log_of(tmp_path).read_bytes()
    with pytest.raises(ReadOnlyError, match="closed"):
        journal.upsert(["y"], 0, DB[:1])
    take_back()
    assert log_of(tmp_path).read_bytes() == before
    index.close()


def test_logs_that_were_closed_beside_a_change(tmp_path: Path) -> None:
    """Earlier versions noted the number of the change that was being made."""
    index = swann.open(save(tmp_path / "a", "str"))
    index.upsert("x", DB[0])
    journal = journal_of(index)
    journal.following -= 1
    journal._write(CLOSE, [])
    journal.following += 1
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert contents(swann.load(tmp_path / "b")) == contents(index)
    with swann.open(tmp_path / "b") as again:
        again.upsert("y", DB[1])
    assert len(swann.load(tmp_path / "b")) == START + 2
    index.close()


# ---- Readers beside a writer


def test_changes_between_a_look_and_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was no record, and now there are two, the second of which says that all was flushed."""
    writer = swann.open(save(tmp_path, "str"))
    writer.upsert("e", DB[0])
    look = reader._may_end

    def later(*arguments: Any) -> bool:
        monkeypatch.setattr(reader, "_may_end", look)
        writer.upsert("f", DB[1])
        writer.upsert("g", DB[2])
        return look(*arguments)

    monkeypatch.setattr(reader, "_may_end", later)
    assert contents(swann.load(tmp_path)) == contents(writer)
    writer.close()


@pytest.mark.parametrize("rows", [1, 2])
def test_a_refused_change_that_is_read_before_it_is_taken_back(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are in its place when the reader looks whether it was the last."""
    # As if times were too coarse to tell that the log was written to meanwhile.
    monkeypatch.setattr("swann.storage.log_signature", lambda _: [])
    writer = swann.open(save(tmp_path, "str"))
    writer.upsert("e", DB[0])
    retract, done = FileJournal._retract, []

    def late(self: FileJournal, end: int, following: int) -> None:
        if self._end == end or done:
            retract(self, end, following)
            return
        changes = LogReader.changes

        def meanwhile(reading: LogReader) -> Any:
            for logged in changes(reading):
                if logged.sequence == 2 and not done:
                    done.append(logged)
                    retract(self, end, following)
                    self.upsert(["h", "k"][:rows], 0, DB[3 : 3 + rows])
                    self.upsert(["i"], 0, DB[4:5])
                yield logged

        monkeypatch.setattr(LogReader, "changes", meanwhile)
        docids = swann.load(tmp_path).docids
        assert docids is not None
        assert docids[START:] == ["e", *["h", "k"][:rows], "i"]

    monkeypatch.setattr(FileJournal, "_retract", late)
    with pytest.raises(InvalidInputError, match="longer than"):
        writer.upsert("h", np.full(4, 1e30, np.float32))
    assert done
    writer.close()


def test_a_change_that_could_be_made_and_was_taken_back(tmp_path: Path) -> None:
    """An interrupt may take any back; a reader must not go on behind what it has read then."""
    writer = swann.open(save(tmp_path, "str"))
    writer.upsert("e", DB[0])
    journal = journal_of(writer)
    take_back = journal.begin()
    journal.upsert(["f"], 0, DB[1:2])
    point = json.loads((tmp_path / "manifest.json").read_text())["log"]
    changes = LogReader(tmp_path, LogPoint(**point)).changes()
    assert [next(changes).change.docids for _ in range(2)] == [["e"], ["f"]]
    take_back()
    journal.upsert(["g"], 0, DB[2:3])
    journal.upsert(["h"], 0, DB[3:4])
    with pytest.raises(CorruptIndexError, match="meanwhile"):
        next(changes)
    writer.close()


def test_a_log_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = swann.open(save(tmp_path, "str"))
    replay, calls = durable.replay, []

    def once(*arguments: Any) -> LogReader:
        calls.append(arguments)
        if len(calls) == 1:
            writer.upsert("e", DB[0])
            raise CorruptIndexError("what seems to be damaged")
        return replay(*arguments)

    monkeypatch.setattr("swann.storage.replay", once)
    assert contents(swann.load(tmp_path)) == contents(writer)
    calls.clear()
    monkeypatch.setattr(writer, "upsert", lambda *_: None)
    with pytest.raises(CorruptIndexError, match="seems to be"):
        swann.load(tmp_path)
    writer.close()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_are_checked_before_the_log(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = swann.open(save(tmp_path, "str"))
    bad = DB[:3].copy()
    bad[1, 2] = value
    with monkeypatch.context() as patch:
        patch.setattr(FileJournal, "upsert", lambda *_: pytest.fail("it was noted down"))
        with pytest.raises(swann.NonFiniteError, match=r"vectors\[1, 2\]"):
            index.upsert(["a", "b", "c"], bad)
        with pytest.raises(swann.NonFiniteError, match=r"vectors\[0, 2\]"):
            index.upsert("a", bad[1])
    index.close()


# ---- Locks


@POSIX
def test_the_lock_of_another_directory_stays(tmp_path: Path) -> None:
    live = save(tmp_path / "live", "str")
    other = save(tmp_path / "other", "str")
    first = swann.open(live)
    live.rename(tmp_path / "old")
    other.rename(live)
    with swann.open(live) as second:
        first.close()
        with pytest.raises(LockedError, match="open for changes"):
            swann.open(live)
        second.upsert("x", DB[0])
    with swann.open(live) as again:
        assert "x" in contents(again)


def test_a_lock_that_is_dropped_is_released(tmp_path: Path) -> None:
    """As by an interrupt between its making and its first use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        lock = DirectoryLock(tmp_path, "open")
        del lock
    DirectoryLock(tmp_path, "open").release()


@pytest.mark.parametrize("what", ["waiting", "flush", "log", "lock"])
def test_a_close_that_is_interrupted(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one does the rest."""
    index = swann.open(save(tmp_path, "str"), durability="none")
    index.upsert("x", DB[0])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if what == "flush":
            patch.setattr(file_system, "flush_to_disk", interrupt)
        elif what == "lock":
            patch.setattr(DirectoryLock, "release", interrupt)
        else:
            patch.setattr(FileJournal, "close" if what == "log" else "_mark_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            index.close()
    with pytest.raises(ReadOnlyError, match="closed"):
        index.upsert("y", DB[1])
    with pytest.raises(LockedError):
        swann.open(tmp_path)
    index.close()
    index.close()
    with swann.open(tmp_path) as again:
        assert contents(again) == contents(index)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_an_interrupt_as_a_file_is_opened(nth: int, tmp_path: Path) -> None:
    """It is an interrupt, not an error of a file that is closed twice; and none stays open."""
    save(tmp_path, "str")
    left = [nth]

    def interrupt(frame: Any, event: str, called: Any) -> None:
        opened = event == "return" and frame.f_code.co_name == "fdopen"
        opened |= event == "c_return" and getattr(called, "__name__", "") == "open"
        left[0] -= opened and frame.f_code.co_name in ("fdopen", "open_plain")
        if left[0] == 0:
            left[0] = 1 << 30
            raise KeyboardInterrupt

    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir())) if folder.is_dir() else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        sys.setprofile(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                swann.load(tmp_path)
        finally:
            sys.setprofile(None)
    assert not folder.is_dir() or len(list(folder.iterdir())) == before
    swann.open(tmp_path).close()


# ---- Signal handlers and callbacks


@pytest.mark.parametrize("what", ["checkpoint", "close"])
def test_a_handler_within_a_checkpoint(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = swann.open(save(tmp_path, "str"))
    index.upsert("x", DB[0])
    save_state = durable.save_state

    def handled(*arguments: Any) -> None:
        with pytest.raises(SwannError, match="from within another change of it, or a checkpoint"):
            getattr(index, what)()
        save_state(*arguments)

    monkeypatch.setattr(durable, "save_state", handled)
    in_time(index.checkpoint)
    index.upsert("y", DB[1])
    index.close()
    assert contents(swann.load(tmp_path)) == contents(index)


@pytest.mark.parametrize("what", ["checkpoint", "close"])
def test_a_callback_while_another_thread_makes_a_checkpoint(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one waits for the change which the callback is within."""
    index = swann.open(save(tmp_path, "str", tree=True))
    index.upsert("x", DB[0])
    waits, cut = threading.Event(), index._live.cut
    other = threading.Thread(target=index.checkpoint, daemon=True)

    def note_cut() -> Any:
        waits.set()
        return cut()

    monkeypatch.setattr(index._live, "cut", note_cut)

    def progress(*_: object) -> None:
        if not waits.is_set():
            other.start()
            assert waits.wait(20)
            with pytest.raises(SwannError, match="from within another change of it"):
                getattr(index, what)()

    in_time(lambda: index.rebalance(progress=progress))
    assert waits.is_set()
    other.join(20)
    assert not other.is_alive()
    index.close()
    assert contents(swann.load(tmp_path)) == contents(index)


def test_a_handler_that_saves_within_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = save(tmp_path / "a", "str")
    searcher, place, seen = swann.load(root), store.place_array, []

    def handled(*arguments: Any) -> Any:
        if not seen:
            seen.append(True)
            for again in (lambda: searcher.save(root), lambda: swann.open(root)):
                with pytest.raises(LockedError, match="from within another save"):
                    again()
            searcher.save(tmp_path / "b")
        return place(*arguments)

    monkeypatch.setattr(store, "place_array", handled)
    in_time(lambda: searcher.save(root))
    assert contents(swann.load(root)) == contents(swann.load(tmp_path / "b"))


def test_files_of_saves_within_each_other(tmp_path: Path) -> None:
    """Each has a temporary name of its own, which also a process that was killed may have had."""
    number = next(file_system._numbers)
    left = tmp_path / f".x-{os.getpid()}-{number + 1}.tmp"
    left.write_bytes(b"left behind")

    def inner(file: Any) -> str:
        file.write(b"inner")
        return "x"

    def outer(file: Any) -> str:
        file.write(b"out")
        file_system.place_file(tmp_path, "x", inner)
        assert (tmp_path / "x").read_bytes() == b"inner"
        file.write(b"er")
        return "x"

    file_system.place_file(tmp_path, "x", outer)
    assert (tmp_path / "x").read_bytes() == b"outer"
    assert left.read_bytes() == b"left behind"
    file_system.remove_temporary(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


# ---- Directories


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a", "str")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path)
    with swann.open("a") as index:
        index.upsert("x", DB[0])
        monkeypatch.chdir(tmp_path / "b")
        index.checkpoint()
        index.rebalance()
    assert not (tmp_path / "a" / ".lock").exists()
    assert contents(swann.load(tmp_path / "a")) == contents(index)


@POSIX
@pytest.mark.parametrize("step", ["place_array", "place_manifest"])
def test_a_directory_that_is_exchanged_during_a_checkpoint(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = save(tmp_path / "live", "str")
    shutil.copytree(live, tmp_path / "new")  # arrays of the same names
    writer = swann.open(live)
    writer.upsert("x", DB[0])
    place, moved, others = getattr(store, step), [], []

    def exchange() -> None:
        if not moved:
            moved.append(live.rename(tmp_path / "old"))
            (tmp_path / "new").rename(live)
            others.append(swann.open(live))
            others[0].upsert("acknowledged", DB[1])

    def placed(*arguments: Any) -> Any:
        if step == "place_array":
            exchange()
        made = place(*arguments)
        exchange()
        return made

    with monkeypatch.context() as patch:
        patch.setattr(store, step, placed)
        with pytest.raises(LockedError, match="another was put in its place"):
            writer.checkpoint()
    others[0].close()
    writer.close()
    assert contents(swann.load(live, verify="full")) == contents(others[0])
    assert contents(swann.load(tmp_path / "old", verify="full")) == contents(writer)


# ---- What is counted


@pytest.mark.parametrize("what", ["pickle", "save", "checkpoint"])
def test_changes_are_counted_beyond_a_save(what: str, tmp_path: Path) -> None:
    """Leaves are split after as many changes, however often the index is saved between them."""
    builder = swann.builder(DB[:100], 3, "squared_l2")
    builder.tree(10, 5, min_partition_size=1, incremental_threshold=40).score_ah(2).reorder(50)
    builder.build().save(tmp_path / "a")
    with swann.open(tmp_path / "a") as index:
        for i in range(100, 130, 10):
            index.upsert(None, DB[i : i + 10])
            if what == "pickle":
                pickle.dumps(index)
            elif what == "save":
                index.save(tmp_path / "b")
            else:
                index.checkpoint()
            assert index._live.view.books.changes == i - 90
        index.upsert(None, DB[130:140])
        assert index._live.view.books.changes == 0
        index.upsert(None, DB[140:150])
        index.rebalance()
        assert index._live.view.books.changes == 0


# ---- Forks


@FORK
def test_a_fork_while_another_thread_changes_the_index(tmp_path: Path) -> None:
    """In the child nobody can end the change: others are refused, searches are answered."""
    index = swann.load(save(tmp_path, "str", tree=True))
    within, go_on = threading.Event(), threading.Event()

    def progress(*_: object) -> None:
        within.set()
        go_on.wait(60)

    changing = threading.Thread(target=lambda: index.rebalance(progress=progress))
    changing.start()
    assert within.wait(20)

    def child() -> None:
        for change in (
            lambda: index.upsert("x", DB[0]),
            lambda: index.delete("d1"),
            index.rebalance,
            lambda: index.save(tmp_path),
        ):
            with pytest.raises(ReadOnlyError, match="forked while another thread"):
                change()
        assert len(contents(index)) == START

    assert end_of(fork(child)) == 0
    go_on.set()
    changing.join()
    index.upsert("x", DB[0])
    assert end_of(fork(lambda: index.upsert("y", DB[0]))) == 0


@FORK
def test_a_forked_child_leaves_the_log_alone(tmp_path: Path) -> None:
    index = swann.open(save(tmp_path, "str"), durability="none")
    journal = journal_of(index)
    take_back = journal.begin()
    journal.upsert(["x"], 0, DB[:1])
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with journal._flushing:
            held.set()
            go_on.wait(60)

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(20)

    def child() -> None:
        take_back()
        index.flush()
        index.close()

    before = log_of(tmp_path).read_bytes()
    assert end_of(fork(child)) == 0
    go_on.set()
    holding.join()
    assert log_of(tmp_path).read_bytes() == before
    index.close()

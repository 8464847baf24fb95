"""Durable changes that are refused or interrupted; who may write, and who reads meanwhile."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from durable_cases import DB, START, contents, log_of, save

import swann
from swann import (
    ConfigError,
    CorruptIndexError,
    IndexFormatError,
    InvalidInputError,
    LockedError,
    ReadOnlyError,
)
from swann.index.disk import lock

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and fork of POSIX")


# ---- Changes that are refused


def test_refused_changes_are_not_in_the_log(tmp_path: Path, no_fsync: None) -> None:
    index = swann.open(save(tmp_path, "str"))
    index.upsert("x", DB[0])
    size, before = log_of(tmp_path).stat().st_size, contents(index)
    bad = DB[:3].copy()
    bad[1, 2] = np.nan
    refused: list[Callable[[], object]] = [
        lambda: index.upsert(["a", "b", "c"], bad),
        lambda: index.upsert("a", bad[1]),
        lambda: index.upsert(["a", "a"], DB[:2]),
        lambda: index.upsert(["a"], DB[:2]),
        lambda: index.upsert("a", DB[0] * np.float32(1e30)),
        lambda: index.delete("missing"),
        lambda: index.delete(["d1", "missing"]),
    ]
    for make in refused:
        with pytest.raises((InvalidInputError, KeyError)):
            make()
        assert log_of(tmp_path).stat().st_size == size
        assert contents(index) == contents(swann.load(tmp_path)) == before
    index.upsert([], DB[:0])
    index.delete([])
    assert log_of(tmp_path).stat().st_size == size
    index.upsert("y", DB[1])
    index.close()
    assert contents(swann.load(tmp_path)) == before | {"y": DB[1].tobytes()}


def test_a_change_noted_but_refused_as_the_process_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None
) -> None:
    index = swann.open(save(tmp_path, "str"))
    index.upsert("x", DB[0])
    bad, before = np.full(4, 1e30, np.float32), contents(index)
    with monkeypatch.context() as patch:
        patch.setattr("swann.index.log.journal.FileJournal._retract", lambda *_: None)
        with pytest.raises(InvalidInputError):
            index.upsert("bad", bad)
        shutil.copytree(tmp_path, tmp_path / "crashed")
        index.upsert("y", DB[1])  # as no journal of ours would go on
    with swann.open(tmp_path / "crashed") as crashed:
        assert contents(crashed) == before
        crashed.upsert("z", DB[1])
    assert contents(swann.load(tmp_path / "crashed")) == before | {"z": DB[1].tobytes()}
    with pytest.raises(CorruptIndexError, match=r"change 2 .* cannot be made"):
        swann.load(tmp_path)


@pytest.mark.parametrize("what", ["upsert_one", "upsert", "erase_one", "erase"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupted_changes(
    what: str, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None
) -> None:
    """The log and the index agree whether the change was made."""
    index = swann.open(save(tmp_path, "str"))
    index.upsert("x", DB[0])
    native = index._index.native

    class Interrupted:
        def __getattr__(self, called: str) -> Any:
            function = getattr(native, called)
            if called != what:
                return function

            def interrupt(*arguments: Any) -> None:
                if when == "after":
                    function(*arguments)
                raise KeyboardInterrupt

            return interrupt

    changes = {
        "upsert_one": lambda: index.upsert("new", DB[5]),
        "upsert": lambda: index.upsert(["new", "d3"], DB[5:7]),
        "erase_one": lambda: index.delete("d1"),
        "erase": lambda: index.delete(["d1", "d2"]),
    }
    before = contents(index)
    with monkeypatch.context() as patch:
        patch.setattr("swann.index.updates.begin", lambda _: Interrupted())
        with pytest.raises(KeyboardInterrupt):
            changes[what]()
    assert (contents(index) != before) is (when == "after")
    assert contents(swann.load(tmp_path)) == contents(index)
    index.upsert("y", DB[1])
    index.close()
    assert contents(swann.load(tmp_path)) == contents(index)


# ---- Writers and readers


def test_one_writer(tmp_path: Path, no_fsync: None) -> None:
    with swann.open(save(tmp_path, "str")) as index:
        index.upsert("x", DB[0])
        for other in (lambda: swann.open(tmp_path), lambda: index.save(tmp_path)):
            with pytest.raises(LockedError, match=f"in process {os.getpid()};"):
                other()
        readers = [swann.load(tmp_path), swann.open(tmp_path, mode="r")]
        index.upsert("y", DB[0])
        assert ["y" in (reader.docids or []) for reader in readers] == [False, False]
        index.save(tmp_path / "copy")
    with swann.open(tmp_path):
        pass
    assert len(swann.load(tmp_path / "copy")) == START + 2
    assert not (tmp_path / ".lock").exists()


HOLDER = """
import os, sys, time, swann
index = swann.open(sys.argv[1])
if sys.argv[2] == "fork" and os.fork() == 0:
    try:
        index.upsert("x", [0, 0, 0, 1])
    except swann.ReadOnlyError:
        print("refused", os.getpid(), flush=True)
    index.close()
    time.sleep(60)
if sys.argv[2] == "hold":
    print("holding", os.getpid(), flush=True)
time.sleep(60)
"""


@POSIX
@pytest.mark.parametrize("what", ["hold", "fork"])
def test_the_lock_ends_with_its_process(what: str, tmp_path: Path) -> None:
    """A child by fork neither has it nor keeps it, nor closes what is its parent's."""
    root = save(tmp_path, "str")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLDER, str(root), what],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert holder.stdout is not None
    word, process = holder.stdout.readline().split()
    assert word == {"hold": "holding", "fork": "refused"}[what]
    try:
        with pytest.raises(LockedError, match=f"in process {holder.pid};"):
            swann.open(root)
        assert len(swann.load(root)) == START
        holder.kill()
        holder.wait()
        with swann.open(root) as index:
            index.upsert("mine", DB[0])
    finally:
        holder.kill()
        holder.wait()
        if what == "fork":
            os.kill(int(process), signal.SIGKILL)
        holder.stdout.close()
    assert "mine" in (swann.load(root).docids or [])


@POSIX
def test_a_lock_file_that_its_holder_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opened it before must not take it for the lock that others see."""
    left = [2]
    locked = lock._lock

    def late(handle: int, optional: bool) -> bool:
        left[0] -= 1
        if left[0] >= 0:
            (tmp_path / ".lock").unlink()
        return locked(handle, optional)

    monkeypatch.setattr(lock, "_lock", late)
    with lock.DirectoryLock(tmp_path, "open"):
        assert (tmp_path / ".lock").exists()
        with pytest.raises(LockedError):
            lock.DirectoryLock(tmp_path, "open")
    with lock.DirectoryLock(tmp_path, "open"):
        pass


def test_saves_wait_for_each_other(tmp_path: Path, no_fsync: None) -> None:
    a, b = (
        swann.builder(DB[i : i + 50], 3, "squared_l2").score_brute_force().build() for i in (0, 9)
    )
    errors: list[BaseException] = []

    def run(searcher: swann.Searcher) -> None:
        try:
            for _ in range(20):
                searcher.save(tmp_path)
                swann.load(tmp_path, verify="full")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(searcher,)) for searcher in (a, b, a)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(list(tmp_path.iterdir())) == 3


def test_readers_come_while_checkpoints_are_made(tmp_path: Path, no_fsync: None) -> None:
    root = save(tmp_path, "int")
    errors: list[BaseException] = []
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                docids = swann.load(root, verify="full").docids or []
                assert docids == list(range(len(docids)))  # a state that there was
                seen.append(len(docids))
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    with swann.open(root, durability="none") as index:
        reader.start()
        for i in range(START, 300):
            index.upsert(i, DB[i])
            if i % 4 == 0:
                index.checkpoint()
        done.set()
        reader.join()
    assert not errors
    assert seen == sorted(seen)
    assert len(seen) > 2


def test_an_index_opened_for_reading(tmp_path: Path) -> None:
    save(tmp_path / "a", "str")
    swann.load(tmp_path / "a").save(tmp_path / "b.swann")
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path / "a", tmp_path / "b.swann"):
        with swann.open(path, mode="r") as index:
            for change_ in (
                lambda: index.upsert("x", DB[0]),
                lambda: index.delete("d1"),
                index.checkpoint,
                index.rebalance,
            ):
                with pytest.raises(ReadOnlyError, match="mode='r'"):
                    change_()
            index.flush()
        assert len(contents(index)) == START
    assert sorted(tmp_path.rglob("*")) == before


def test_a_closed_index(tmp_path: Path) -> None:
    index = swann.open(save(tmp_path, "str"))
    index.upsert("x", DB[0])
    copies = [copy.copy(index), copy.deepcopy(index), pickle.loads(pickle.dumps(index))]
    index.close()
    index.close()
    index.flush()
    assert "x" in contents(index)
    changes = (
        lambda: index.upsert("y", DB[0]),
        lambda: index.delete("x"),
        index.checkpoint,
        index.rebalance,
    )
    view = index._live.view
    for change_ in changes:
        with pytest.raises(ReadOnlyError, match="closed"):
            change_()
        assert index._live.view is view
    for copied in copies:  # live on in memory
        assert type(copied) is swann.Searcher
        copied.upsert("y", DB[0])
    assert len(swann.load(tmp_path)) == START + 1


def test_an_index_that_is_dropped_is_closed(tmp_path: Path) -> None:
    index = swann.open(save(tmp_path, "str"), durability="batch", flush_interval=3600)
    index.upsert("x", DB[0])
    del index
    with swann.open(tmp_path) as again:
        assert "x" in contents(again)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    save(tmp_path / "a", "str")
    swann.load(tmp_path / "a").save(tmp_path / "b.swann")
    with pytest.raises(IndexFormatError, match="holds no index"):
        swann.open(tmp_path / "missing")
    with pytest.raises(IndexFormatError, match="holds no index"):
        swann.open(tmp_path)
    with pytest.raises(IndexFormatError, match="expected a directory"):
        swann.open(tmp_path / "b.swann")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.swann"]
    bad: list[tuple[str, Any]] = [
        ("mode", "w"),
        ("durability", "sometimes"),
        ("verify", "quick"),
        ("flush_interval", -1),
        ("flush_interval", "1"),
        ("flush_interval", float("nan")),
        ("checkpoint_at", True),
    ]
    for option, value in bad:
        with pytest.raises(ConfigError, match=f"{option} is"):
            swann.open(tmp_path / "a", **{option: value})
    with swann.open(tmp_path / "a"):
        pass


def test_another_directory_in_its_place_is_not_written_to(tmp_path: Path, no_fsync: None) -> None:
    live, new = tmp_path / "live", tmp_path / "new"
    for path, rows in ((live, DB), (new, DB[:100])):
        swann.builder(rows, 3, "squared_l2").score_brute_force().build().save(path)
    writer = swann.open(live)
    writer.upsert(None, DB[:7])
    live.rename(tmp_path / "old")
    new.rename(live)
    with swann.open(live) as other:
        other.upsert(None, DB[:1])
        with pytest.raises(LockedError, match="another was put in its place"):
            writer.checkpoint()
        other.upsert(None, DB[:1])
    assert len(swann.load(live)) == 102
    writer.close()
    assert len(swann.load(tmp_path / "old")) == len(DB) + 7

"""Changes that are kept: what was acknowledged is there again, whatever happened."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from durable_cases import DB, KINDS, START, contents, log_of, name, save
from writes import note_writes

import swann
from swann import (
    ConfigError,
    CorruptIndexError,
    FormatVersionError,
    IndexFormatError,
    InvalidInputError,
    LockedError,
    LogError,
    ReadOnlyError,
)
from swann.index.changing import durable
from swann.index.disk import lock
from swann.index.log import reader as log_reader
from swann.index.log.format import FILE_HEADER, RECORD_HEADER
from swann.index.log.reader import LogReader
from swann.index.state import LogPoint

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and fork of POSIX")
DURABILITIES = ["always", "batch", "none"]


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def change(index: Any, kind: str) -> list[dict[Any, bytes]]:
    """Make a change of each kind; return what there was before the first and after each."""
    states = [contents(index)]
    changes: list[Callable[[], object]] = [
        lambda: index.upsert(None if kind == "none" else name(kind, 50), DB[50]),
        lambda: index.upsert([name(kind, 3), name(kind, 1)], DB[60:62]),
        lambda: index.delete(name(kind, 0)),
        lambda: index.upsert(
            None if kind == "none" else [name(kind, i) for i in range(70, 75)], DB[70:75]
        ),
        lambda: index.delete([name(kind, 5), name(kind, 7)]),
    ]
    for make in changes:
        make()
        states.append(contents(index))
    return states


# ---- What is kept


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("tree", [False, True])
def test_changes_are_there_again(
    kind: str, durability: Any, tree: bool, tmp_path: Path, no_fsync: None
) -> None:
    save(tmp_path / "a", kind, tree)
    with swann.open(tmp_path / "a", durability=durability) as index:
        after = change(index, kind)[-1]
        # A copy is what a crash leaves behind, but for the lock, which ends with its process.
        shutil.copytree(tmp_path / "a", tmp_path / "crashed")
        assert contents(swann.load(tmp_path / "a")) == after
        assert contents(swann.open(tmp_path / "a", mode="r", verify="full")) == after
        live = index.search_batched(DB[:9])
    for folder in ("a", "crashed"):
        with swann.open(tmp_path / folder, verify="full") as index:
            assert contents(index) == after
            found = index.search_batched(DB[:9])
            np.testing.assert_array_equal(found.indices, live.indices)
            np.testing.assert_array_equal(found.distances, live.distances)
            new = index.upsert(None if kind == "none" else [name(kind, 90)], DB[90:91])
            assert new.tolist() == [START + 6 if kind == "none" else name(kind, 90)]
        assert len(swann.load(tmp_path / folder)) == len(after) + 1


def test_recovery_is_deterministic(tmp_path: Path, no_fsync: None) -> None:
    save(tmp_path / "a", "str", tree=True)
    with swann.open(tmp_path / "a") as index:
        change(index, "str")
    for folder in ("b", "c"):
        swann.load(tmp_path / "a").save(tmp_path / folder)
    b, c = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in "bc")
    assert b == c


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_change_nothing(kind: str, tmp_path: Path, no_fsync: None) -> None:
    index = swann.open(save(tmp_path, kind, tree=True))
    after = change(index, kind)[-1]
    first = log_of(tmp_path)
    before = first.stat().st_size
    for _ in range(2):
        index.checkpoint()
        assert contents(index) == contents(swann.load(tmp_path)) == after
        assert [path.name for path in tmp_path.glob("log-*")] == [
            "log-00000000000000000006.swannlog"
        ]
        assert log_of(tmp_path).stat().st_size == FILE_HEADER < before
    index.upsert(None if kind == "none" else [name(kind, 200)], DB[200:201])
    index.rebalance()
    assert log_of(tmp_path).name == "log-00000000000000000007.swannlog"
    now = contents(index)
    index.delete(name(kind, 1))
    del now[name(kind, 1)]
    index.close()
    with swann.open(tmp_path) as again:
        assert contents(again) == contents(index) == now


def test_settings_of_a_rebalance_are_kept(tmp_path: Path, no_fsync: None) -> None:
    config = swann.builder(DB[:1], 5, "squared_l2").score_ah(2).create_config()
    with swann.open(save(tmp_path, "str")) as index:
        index.rebalance(config)
    assert swann.load(tmp_path).config == config


def test_indexes_that_keep_their_shape(tmp_path: Path, no_fsync: None) -> None:
    """What changes have as consequences, a replay has too."""
    builder = swann.builder(DB[:100], 3, "squared_l2")
    builder.tree(10, 5, min_partition_size=1, incremental_threshold=20).score_ah(2).reorder(50)
    builder.build(docids=list(range(100))).save(tmp_path)
    with swann.open(tmp_path) as index:
        for i in range(100, 400, 10):
            index.upsert(list(range(i, i + 10)), DB[i : i + 10])
        assert index._index.num_leaves > 10
        loaded = swann.load(tmp_path)
        for name_, array in index._index.arrays().items():
            np.testing.assert_array_equal(array, loaded._index.arrays()[name_])
        live = index.search_batched(DB)
        np.testing.assert_array_equal(loaded.search_batched(DB).indices, live.indices)


def test_background_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None
) -> None:
    monkeypatch.setattr(durable, "LEAST_BACKLOG", 2000)
    with swann.open(save(tmp_path, "int"), checkpoint_at=0.1) as index:
        for i in range(100, 300):
            index.upsert(i, DB[i])
            if index._files is not None and index._files._background is not None and i % 50 == 0:
                index._files._background.join()
        assert contents(swann.load(tmp_path)) == contents(index)
    assert int(log_of(tmp_path).name[4:24]) > 50
    assert contents(swann.load(tmp_path)) == contents(index)
    assert not list(tmp_path.glob(".*"))


def test_a_background_checkpoint_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None
) -> None:
    monkeypatch.setattr(durable, "LEAST_BACKLOG", 500)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with swann.open(save(tmp_path, "int"), checkpoint_at=0.1) as index:
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            patch.setattr(durable, "save_state", full)
            for i in range(100, 120):
                index.upsert(i, DB[i])
                if index._files is not None and index._files._background is not None:
                    index._files._background.join()
        assert 1 <= len(caught) < 5  # not with every change
        assert "No space left" in str(caught[0].message)
        assert contents(swann.load(tmp_path)) == contents(index)
        index.checkpoint()
    assert contents(swann.load(tmp_path)) == contents(index)


def test_a_rebalance_that_cannot_be_saved_is_not_tried_with_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None
) -> None:
    tries = []

    def full(*_: object) -> None:
        tries.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    config = swann.builder(DB[:1], 5, "squared_l2").score_ah(2).create_config()
    with swann.open(save(tmp_path, "int")) as index:
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(durable, "save_state", full)
            with pytest.raises(OSError, match="No space left"):
                index.rebalance(config)
            for i in range(100, 110):
                index.upsert(i, DB[i])
                if index._files is not None and index._files._background is not None:
                    index._files._background.join()
        assert len(tries) == 2  # by the rebalance, and once behind it
        index.checkpoint()
    assert swann.load(tmp_path).config == config


def test_the_backlog_is_what_no_checkpoint_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None
) -> None:
    """It says when the next one is due; files that were there when it was opened count once."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def written() -> int:
        return sum(log.stat().st_size for log in tmp_path.glob("log-*"))

    with swann.open(save(tmp_path, "int")) as index, monkeypatch.context() as patch:
        patch.setattr(durable, "save_state", full)
        for i in range(100, 103):
            index.upsert(i, DB[i])
            with pytest.raises(OSError, match="No space left"):
                index.checkpoint()
            assert index._files is not None
            assert index._files._journal.backlog == written()
    with swann.open(tmp_path) as index:
        assert index._files is not None
        assert index._files._journal.backlog == written()
        index.upsert(103, DB[103])
        assert index._files._journal.backlog == written()
        index.checkpoint()
        assert index._files._journal.backlog == written() == FILE_HEADER


def test_what_killed_writers_left_is_removed(tmp_path: Path, no_fsync: None) -> None:
    left = save(tmp_path, "int") / f".log-00000000000000000001.swannlog-{os.getpid()}-0.tmp"
    other = tmp_path / ".of-somebody-else.tmp"
    left.touch()
    other.touch()
    with swann.open(tmp_path):
        assert not left.exists()
    assert other.exists()


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_checkpoint_that_fails_anywhere(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies stand for what is on disk when the process dies right there."""
    original = getattr(os, function)
    for calls in range(20):
        root = save(tmp_path / f"{calls}", "str")
        index = swann.open(root, durability="none")
        after = change(index, "str")[-1]
        left = [calls]

        def failing(*arguments: Any, left: list[int] = left) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EIO, "broken")
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, function, failing)
            try:
                index.checkpoint()
            except OSError:
                pass
            else:
                index.close()
                return
        shutil.copytree(root, tmp_path / f"{calls} crashed")
        for folder in (root, tmp_path / f"{calls} crashed"):
            assert contents(swann.load(folder)) == after
        try:
            index.upsert("more", DB[9])
            after = contents(index)
        except LogError:
            assert function == "fsync"
            with pytest.raises(LogError):
                index.close()
        else:
            index.checkpoint()
            assert contents(swann.load(root)) == after
            index.close()
        with swann.open(root) as again:
            assert contents(again) == after
    pytest.fail("it never ended")


def test_a_checkpoint_flushes_the_old_log_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a new log could reach the disk without the changes before it."""
    done: list[Any] = []
    replace = os.replace

    def note_replace(source: Path, target: Path) -> None:
        done.append(target.name)
        replace(source, target)

    with swann.open(save(tmp_path, "str"), durability="none") as index:
        index.upsert("x", DB[0])
        handle = index._files._journal._file  # type: ignore[union-attr]
        monkeypatch.setattr(os, "fsync", done.append)
        monkeypatch.setattr(os, "replace", note_replace)
        index.checkpoint()
    assert done[0] == handle
    assert "log-00000000000000000002.swannlog" in done


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which file a handle is of")
def test_no_order_of_writes_loses_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must be on the disk before something else was flushed before it."""
    save(tmp_path, "str")
    begin = ["flush .log", "place log", "flush directory"]
    list_it = ["flush .manifest.json", "place manifest.json", "flush directory"]
    with monkeypatch.context() as patch:
        done = note_writes(patch, tmp_path)
        with swann.open(tmp_path) as index:
            assert done == [*begin, *list_it, "flush log"]
            done.clear()
            index.upsert("x", DB[0])
            assert done == ["flush log"]
            done.clear()
            index.checkpoint()
            removed = [step for step in done if step.startswith("remove")]
            written = done[: -len(removed)]
            assert done == [*written, *removed]
            assert written[:3] == begin
            assert written[-4:] == ["flush directory", *list_it]
            assert "remove log" in removed
            index.upsert("y", DB[1])
            done.clear()
            index.close()
            assert done == ["flush log", "remove .lock"]


def test_logs_that_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None
) -> None:
    """Checkpoints that failed leave several; none may be missing."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with swann.open(save(tmp_path, "str")) as index:
        with monkeypatch.context() as patch:
            patch.setattr(durable, "save_state", full)
            for i in range(3):
                index.upsert(f"n{i}", DB[i])
                with pytest.raises(OSError, match="No space left"):
                    index.checkpoint()
        index.upsert("last", DB[9])
        expected = contents(index)
    logs = sorted(tmp_path.glob("log-*"))
    assert len(logs) == 4
    assert contents(swann.load(tmp_path)) == expected
    for log in logs[:3]:
        data = log.read_bytes()
        log.unlink()
        with pytest.raises(CorruptIndexError, match=r"begins with change"):
            swann.load(tmp_path)
        log.write_bytes(data[:-1])  # only the last log may have a torn tail
        with pytest.raises(CorruptIndexError, match=r"is damaged at byte 64"):
            swann.load(tmp_path)
        log.write_bytes(data)
    with swann.open(tmp_path) as index:
        assert contents(index) == expected
        index.checkpoint()
    assert len(list(tmp_path.glob("log-*"))) == 1


# ---- Crashes


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_cut_anywhere(kind: str, tmp_path: Path, no_fsync: None) -> None:
    """It ends with the last whole record, and goes on from there."""
    root = save(tmp_path, kind)
    with swann.open(root) as index:
        states, ends = [contents(index)], [FILE_HEADER]
        states = change(index, kind)
    path = log_of(root)
    whole = path.read_bytes()
    ends = [FILE_HEADER, *record_ends(whole)]
    assert len(ends) == len(states) + 1  # the last one says that the index was closed
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        if length < FILE_HEADER:
            with pytest.raises(CorruptIndexError, match="byte 0"):
                read(root)
            continue
        made = max(i for i, end in enumerate(ends) if end <= length)
        assert read(root) == min(made, len(states) - 1)
        if length in ends or length % 64 == 5:
            assert contents(swann.load(root)) == states[min(made, len(states) - 1)]
            with swann.open(root) as index:
                assert path.stat().st_size == ends[made]
                index.delete(name(kind, 11))
            assert name(kind, 11) not in contents(swann.load(root))


def read(root: Path) -> int:
    """Return how many changes a reader finds after the first checkpoint."""
    point = json.loads((root / "manifest.json").read_text())["log"]
    return len(list(LogReader(root, LogPoint(**point)).changes()))


def record_ends(data: bytes) -> list[int]:
    ends, place = [], FILE_HEADER
    while place < len(data):
        length = int.from_bytes(data[place + 16 : place + 24], "little")
        place += RECORD_HEADER + length + -length % 8
        ends.append(place)
    return ends


@pytest.mark.parametrize("closed", [False, True])
def test_a_flip_anywhere_in_a_log_that_was_on_disk(
    closed: bool, tmp_path: Path, no_fsync: None
) -> None:
    """It is found; only in the last record it looks like a change that was being written."""
    root = save(tmp_path, "str")
    index = swann.open(root)
    states = change(index, "str")
    path = log_of(root)
    crashed = path.read_bytes()
    index.close()
    whole = path.read_bytes() if closed else crashed
    last = record_ends(whole)[-2]
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        if place >= last:
            assert read(root) == len(states) - (1 if closed else 2)
            continue
        with pytest.raises((CorruptIndexError, FormatVersionError)) as caught:
            (swann.load if place % 32 == 0 else read)(root)
        assert path.name in str(caught.value)
        if place >= FILE_HEADER:
            begin = max(end for end in [FILE_HEADER, *record_ends(whole)] if end <= place)
            assert f"at byte {begin} " in str(caught.value)
    damaged = bytearray(whole)
    damaged[70] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptIndexError):
        swann.open(root)
    assert path.read_bytes() == damaged  # nothing was cut off


def test_what_was_not_flushed_may_be_torn_in_the_middle(tmp_path: Path) -> None:
    """Pages reach the disk in any order: what follows a hole is given up, not an error."""
    root = save(tmp_path, "str")
    index = swann.open(root, durability="batch", flush_interval=3600)
    states = change(index, "str")
    path = log_of(root)
    whole = path.read_bytes()
    ends = record_ends(whole)
    index.flush()
    index.upsert("later", DB[0])
    later = path.read_bytes()
    index.close()
    for data, expected in ((whole, states[1]), (later, None)):
        damaged = bytearray(data)
        damaged[ends[0] : ends[0] + 8] = bytes(8)
        path.write_bytes(damaged)
        if expected is None:
            with pytest.raises(CorruptIndexError, match=f"damaged at byte {ends[0]}"):
                swann.load(root)
        else:
            assert contents(swann.load(root)) == expected


def test_a_tail_is_torn_where_a_change_was_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was on the disk there is no more: the next record must not count it."""
    with swann.open(save(tmp_path / "index", "str")) as index:
        index.upsert("e", DB[0])
        done: list[str] = []
        with monkeypatch.context() as patch:
            fsync, ftruncate = os.fsync, os.ftruncate
            patch.setattr(os, "fsync", lambda handle: (done.append("flush"), fsync(handle)))
            patch.setattr(os, "ftruncate", lambda *to: (done.append("cut"), ftruncate(*to)))
            with pytest.raises(InvalidInputError, match="longer than"):
                index.upsert("h", np.full(4, 1e30, np.float32))
        assert done == ["flush", "cut", "flush"]  # it must not come back either
        expected = contents(index)
        index.upsert("f", DB[1])
        shutil.copytree(tmp_path / "index", tmp_path / "crashed")
    torn = log_of(tmp_path / "crashed")
    torn.write_bytes(torn.read_bytes()[:-8])
    assert contents(swann.load(tmp_path / "crashed")) == expected


def test_what_was_on_disk_is_found_in_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None
) -> None:
    with swann.open(save(tmp_path, "str")) as index:
        for i in range(5):
            index.upsert(f"n{i}", DB[i])
    data = log_of(tmp_path).read_bytes()
    seed = zlib.crc32(data[16:32])
    last = record_ends(data)[-2]  # the closing record says that all before it was on the disk
    for block in range(8, 300, 12):
        monkeypatch.setattr(log_reader, "_BLOCK", block)
        with open(log_of(tmp_path), "rb") as file:
            assert log_reader._synced_later(file, seed, FILE_HEADER + 8) == last


def test_logs_of_other_indexes(tmp_path: Path, no_fsync: None) -> None:
    for folder in ("a", "b"):
        save(tmp_path / folder, "str")
        with swann.open(tmp_path / folder) as index:
            index.upsert("x", DB[0])
    log = log_of(tmp_path / "a")
    shutil.copy(log_of(tmp_path / "b"), log)
    with pytest.raises(CorruptIndexError, match="of another index"):
        swann.load(tmp_path / "a")
    log.unlink()
    for opening in (swann.load, swann.open):
        with pytest.raises(CorruptIndexError, match="lacks the log that begins with change 1"):
            opening(tmp_path / "a")
    # Another index saved there is not changed by an old log.
    index = swann.open(tmp_path / "b")
    shutil.copy(log_of(tmp_path / "b"), tmp_path / "kept")
    index.close()
    save(tmp_path / "b", "int")
    assert not list((tmp_path / "b").glob("log-*"))
    shutil.copy(tmp_path / "kept", tmp_path / "b" / log.name)
    assert len(swann.load(tmp_path / "b")) == START
    with swann.open(tmp_path / "b") as index:
        assert len(index) == START


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [(8, 2, r"version 2 .* reads version 1"), (12, 1, "version 1 and flags 1"),
     (15, 0x80, "version 1 and flags 2147483648")],
)  # fmt: skip
def test_newer_logs_are_refused(
    place: int, value: int, message: str, tmp_path: Path, no_fsync: None
) -> None:
    import zlib

    with swann.open(save(tmp_path, "str")) as index:
        index.upsert("x", DB[0])
    path = log_of(tmp_path)
    data = bytearray(path.read_bytes())
    data[place] = value
    data[60:64] = zlib.crc32(data[:60]).to_bytes(4, "little")
    path.write_bytes(data)
    for opened in (swann.load, swann.open):
        with pytest.raises(FormatVersionError, match=message):
            opened(tmp_path)
    assert path.read_bytes() == data


WRITER = """
import itertools, sys
import numpy as np, swann
from swann.index.changing import durable
from durable_cases import DB
durable.LEAST_BACKLOG = 3000
root, begin, durability = sys.argv[1], int(sys.argv[2]), sys.argv[3]
index = swann.open(root, durability=durability, checkpoint_at=0.01)
for i in itertools.count(begin):
    if i % 5 == 4:
        index.delete(f"n{i - 2}")
    else:
        index.upsert([f"n{i}", f"s{i % 7}"], DB[[i % 400, i * 3 % 400]])
    print(i, flush=True)
"""


def model_of(count: int) -> dict[Any, bytes]:
    """What there is after so many changes."""
    model = {f"d{i}": DB[i].tobytes() for i in range(START)}
    for i in range(count):
        if i % 5 == 4:
            del model[f"n{i - 2}"]
        else:
            model |= {f"n{i}": DB[i % 400].tobytes(), f"s{i % 7}": DB[i * 3 % 400].tobytes()}
    return model


@POSIX
def test_kill(tmp_path: Path) -> None:
    """Whenever a process is killed, nothing it acknowledged is lost, and nothing else appears."""
    root, done = save(tmp_path / "index", "str"), 0
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])
    }
    rng = np.random.default_rng(0)
    for durability in ("none", "batch", "always", "none"):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), str(done), durability],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        until = time.monotonic() + float(rng.uniform(0.02, 0.3))
        while time.monotonic() < until:
            lines.append(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines()
        writer.wait()
        writer.stdout.close()
        acknowledged = int([line for line in lines if line.strip()][-1]) + 1
        assert acknowledged > done
        found = contents(swann.load(root))
        possible = [acknowledged, acknowledged + 1]
        made = [count for count in possible if found == model_of(count)]
        assert made, f"acknowledged {acknowledged}"
        with swann.open(root) as index:
            assert contents(index) == found
        done = made[0]


# ---- Disks that fail


class Disk:
    """Stands for os.write and os.fsync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write, self.fsync = os.write, os.fsync
        self.room: int | None = None
        self.broken = False
        monkeypatch.setattr(os, "write", self._write)
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _write(self, handle: int, data: Any) -> int:
        if self.room is None:
            return self.write(handle, data)
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = self.write(handle, bytes(data)[: self.room])
        self.room -= count
        return count

    def _fsync(self, handle: int) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    with monkeypatch.context() as patch:
        yield Disk(patch)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_full_disk_refuses_changes_and_loses_none(
    durability: Any, tmp_path: Path, disk: Disk
) -> None:
    index = swann.open(save(tmp_path, "str"), durability=durability)
    before = change(index, "str")[-1]
    size = log_of(tmp_path).stat().st_size
    changes: list[Callable[[], object]] = [
        lambda: index.upsert("new", DB[3]),
        lambda: index.upsert(["new", "d3"], DB[3:5]),
        lambda: index.upsert([f"n{i}" for i in range(300)], np.repeat(DB[:150], 2, axis=0)),
        lambda: index.delete("d1"),
        lambda: index.delete(["d1", "d2"]),
    ]
    for room in (0, 1, 40, 50):
        for make in changes:
            disk.room = room
            with pytest.raises(OSError, match="No space left") as caught:
                make()
            assert caught.value.errno == errno.ENOSPC
            assert contents(index) == before
            assert log_of(tmp_path).stat().st_size == size
    disk.room = None
    assert contents(swann.load(tmp_path)) == before
    index.upsert("new", DB[3])
    index.close()
    assert contents(swann.load(tmp_path)) == before | {"new": DB[3].tobytes()}


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_flush_that_fails_ends_it(durability: Any, tmp_path: Path, disk: Disk) -> None:
    index = swann.open(save(tmp_path, "str"), durability=durability, flush_interval=0.001)
    before = change(index, "str")[-1]
    disk.broken = True
    if durability == "always":
        with pytest.raises(LogError, match="Input/output error"):
            index.upsert("new", DB[3])
        assert contents(index) == before
    else:
        index.upsert("new", DB[3])
        before = contents(index)
        with pytest.raises(LogError, match="Input/output error"):
            index.flush()
    disk.broken = False  # a second flush would succeed and mean nothing
    for refused in (
        lambda: index.upsert("more", DB[3]),
        lambda: index.delete("d1"),
        index.flush,
        index.checkpoint,
        index.close,
    ):
        with pytest.raises(LogError, match="no more changes are accepted"):
            refused()
    index.close()
    assert contents(index) == before
    with swann.open(tmp_path) as again:  # the lock is gone
        assert contents(again) == before


def test_a_flush_in_the_background_that_fails(tmp_path: Path, disk: Disk) -> None:
    index = swann.open(save(tmp_path, "str"), durability="batch", flush_interval=0.001)
    disk.broken = True
    with pytest.raises(LogError, match="Input/output error"):  # noqa: PT012
        for i in range(1000):
            index.upsert(f"n{i}", DB[3])
            time.sleep(0.001)
    with pytest.raises(LogError):
        index.close()


def test_batches_are_flushed_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append(time.monotonic()))
    with swann.open(save(tmp_path, "str"), durability="batch", flush_interval=0.02) as index:
        opened = len(calls)
        for i in range(50):
            index.upsert(f"n{i}", DB[i])
        flushed = len(calls) - opened
        assert flushed < 25  # together
        until = time.monotonic() + 10
        while len(calls) - opened <= flushed and time.monotonic() < until:
            time.sleep(0.005)
        assert len(calls) - opened > flushed
        files = index._files
        assert files is not None
        while files._journal._synced < files._journal._end and time.monotonic() < until:
            time.sleep(0.005)
        assert files._journal._synced == files._journal._end
        calls.clear()
        index.flush()
        assert not calls  # nothing is left to do


def test_always_flushes_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handles: list[int] = []
    monkeypatch.setattr(os, "fsync", handles.append)
    with swann.open(save(tmp_path, "str")) as index:
        for make in (lambda: index.upsert("n", DB[0]), lambda: index.delete("n")):
            handles.clear()
            make()
            assert handles == [index._files._journal._file]  # type: ignore[union-attr]
    with swann.open(tmp_path, durability="none") as index:
        handles.clear()
        index.upsert("n", DB[0])
        assert not handles


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

"""Logs of changes after crashes, on disks that fail: nothing that was promised is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from durable_cases import DB, DURABILITIES, KINDS, START, change, contents, log_of, name, save

import swann
from swann import CorruptIndexError, FormatVersionError, InvalidInputError, LogError
from swann.index.log import reader as log_reader
from swann.index.log.format import FILE_HEADER, RECORD_HEADER
from swann.index.log.reader import LogReader
from swann.index.state import LogPoint

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and fork of POSIX")


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

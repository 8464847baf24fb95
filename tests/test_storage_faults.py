"""Calls of the system that fail where one hardly expects it: nothing is lost, nobody is kept out.

`make trust` tries each call of each operation (`benchmarks/trust/storage`); here are those that
were not right once.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from durable_cases import DB, contents, log_of, save

import swann
from swann import CorruptIndexError, LockedError
from swann.index.disk import file_system, lock
from swann.index.disk.lock import DirectoryLock

POSIX = pytest.mark.skipif(os.name != "posix", reason="lock files are removed on POSIX")


def broken(*_: object, **__: object) -> Any:
    raise OSError(errno.EIO, "broken")


@POSIX
def test_a_lock_file_that_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, "str")
    with monkeypatch.context() as patch:
        unlink = Path.unlink
        patch.setattr(
            Path,
            "unlink",
            lambda path, **options: broken() if path.name == ".lock" else unlink(path, **options),
        )
        swann.open(tmp_path).close()
        save(tmp_path, "int")
    with swann.open(tmp_path) as index:
        assert index.docids == list(range(12))


@pytest.mark.parametrize("call", ["fstat", "stat", "read", "flock"])
def test_a_lock_that_cannot_be_had(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on the way to it does not leave it locked, nor a file open."""
    fcntl = pytest.importorskip("fcntl")
    save(tmp_path, "str")
    held = DirectoryLock(tmp_path, "open") if call == "read" else None
    before = open_files()
    with monkeypatch.context() as patch:
        if call == "stat":  # only once it is locked: pathlib asks, too
            patch.setattr(lock, "_is_at", broken)
        else:
            patch.setattr(fcntl if call == "flock" else os, call, broken)
        with pytest.raises(OSError, match="broken"):
            DirectoryLock(tmp_path, "open")
    assert open_files() == before
    if held is not None:
        held.release()
    DirectoryLock(tmp_path, "open").release()


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_an_interrupt_while_a_lock_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            DirectoryLock(tmp_path, "save")
    DirectoryLock(tmp_path, "open").release()


@POSIX
@pytest.mark.parametrize("signed", [b"", b"12", b"12 ", b"12 op", b"12 sav", b"\xff"])
def test_a_lock_that_is_signed_in_part(
    signed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk. Nobody waits for ever for one that may be open for long."""
    monkeypatch.setattr(lock.time, "sleep", lambda _: None)
    with DirectoryLock(tmp_path, "open"):
        (tmp_path / ".lock").write_bytes(signed)
        with pytest.raises(LockedError):
            DirectoryLock(tmp_path, "save")


@POSIX
def test_a_lock_file_that_a_killed_process_left_is_signed_anew(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"1 save\n")
    with DirectoryLock(tmp_path, "open"):
        assert (tmp_path / ".lock").read_bytes() == f"{os.getpid()} open\n".encode()
        with pytest.raises(LockedError, match=f"in process {os.getpid()};"):
            DirectoryLock(tmp_path, "open")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_a_manifest_that_is_placed_by_a_rename_that_fails(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists the new arrays, which must stay."""
    save(tmp_path / "new", "int", tree=True)
    expected = contents(swann.load(tmp_path / "new"))
    replace = os.replace

    def done_and_failed(source: Path, target: Path) -> None:
        replace(source, target)
        if target.name == "manifest.json":
            raise error

    save(tmp_path / "index", "str")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", done_and_failed)
        with pytest.raises(type(error)):
            save(tmp_path / "index", "int", tree=True)
    assert contents(swann.load(tmp_path / "index", verify="full")) == expected
    save(tmp_path / "index", "int", tree=True)
    assert len(list((tmp_path / "index").iterdir())) == len(list((tmp_path / "new").iterdir()))


def test_what_failed_first_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that what was written could not be removed either."""
    save(tmp_path, "str")
    unlink = Path.unlink

    def stays(path: Path, **options: Any) -> None:
        if path.name != ".lock":
            raise OSError(errno.EROFS, "cannot be removed")
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(file_system, "flush_to_disk", broken)
        patch.setattr(Path, "unlink", stays)
        with pytest.raises(OSError, match="broken"):
            save(tmp_path, "int")
    assert swann.load(tmp_path, verify="full").docids == [f"d{i}" for i in range(12)]
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    save(tmp_path, "int")
    assert not list(tmp_path.glob(".*.tmp"))


def failing_close(which: int) -> Callable[[int], None]:
    """Fail once for this file, which Linux closes all the same."""
    close, left = os.close, [which]

    def closed_and_failed(handle: int) -> None:
        close(handle)
        if handle in left:
            left.clear()
            raise OSError(errno.EIO, "broken")

    return closed_and_failed


@pytest.mark.parametrize("durability", ["always", "none"])
def test_an_old_log_that_cannot_be_closed(
    durability: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was flushed: the checkpoint is made, and the new log is in order."""
    index = swann.open(save(tmp_path, "str"), durability=durability)
    for i in range(20):
        index.upsert(f"n{i}", DB[i])
    journal = index._files._journal  # type: ignore[union-attr]
    old = journal._file
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", failing_close(old))
        index.checkpoint()
    index.upsert("after", DB[50])
    with pytest.raises(swann.NonFiniteError):
        index.upsert("bad", DB[50] * float("nan"))  # taken back: the log is cut
    index.upsert("last", DB[51])
    expected = contents(index)
    assert contents(swann.load(tmp_path)) == expected
    shutil.copytree(tmp_path, tmp_path / "crashed", ignore=shutil.ignore_patterns("crashed"))
    log = log_of(tmp_path / "crashed")
    log.write_bytes(log.read_bytes() + b"swr1 torn")
    assert contents(swann.load(tmp_path / "crashed")) == expected
    index.close()


def test_a_log_that_cannot_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it was flushed, so there is nothing to complain of."""
    index = swann.open(save(tmp_path, "str"), durability="batch", flush_interval=0.001)
    index.upsert("x", DB[0])
    journal = index._files._journal  # type: ignore[union-attr]
    flusher = journal._flusher
    assert flusher is not None
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", failing_close(journal._file))
        index.close()
    flusher.join(10)
    assert not flusher.is_alive()
    with swann.open(tmp_path) as again:
        assert "x" in contents(again)


def test_a_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for one without a log, which would be called damaged."""
    with swann.open(save(tmp_path, "str")) as index:
        index.upsert("x", DB[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", broken)
        patch.setattr(os, "scandir", broken)
        with pytest.raises(OSError, match="broken"):
            swann.load(tmp_path)
    log_of(tmp_path).unlink()
    with pytest.raises(CorruptIndexError, match="lacks the log"):
        swann.load(tmp_path)


def test_files_are_closed_after_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "str")
    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(file_system.mmap, "mmap", broken)
        with pytest.raises(OSError, match="broken"):
            file_system.map_file(tmp_path / "manifest.json")
    assert open_files() == before

"""Changes that are kept: what was acknowledged is there again, and checkpoints change nothing."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from durable_cases import DB, DURABILITIES, KINDS, START, change, contents, log_of, name, save
from writes import note_writes

import swann
from swann import CorruptIndexError, LogError
from swann.index.changing import durable
from swann.index.log.format import FILE_HEADER


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

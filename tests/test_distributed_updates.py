"""Changes to an index in shards: in order, durable, seen by every later search."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharded import CONFIGS, check_changes, every_config, same, save, tree, vectors, wait_until

import swann
from swann.distributed import DistributedSearcher
from swann.distributed.changing.logged import Logged
from swann.index.disk.sharded import ShardedWriter
from swann.index.log.format import Change

QUERIES = vectors(8, seed=99)


class Model:
    """What an index must hold: docids and their vectors."""

    def __init__(self, docids: list[Any], rows: np.ndarray) -> None:
        self.rows = dict(zip(docids, rows, strict=True))

    def check(self, found: Any, exact: bool = True) -> None:
        """Compare an exhaustive search."""
        names, rows = list(self.rows), np.array(list(self.rows.values()))
        scores = QUERIES @ rows.T
        for indices, distances, row in zip(*found, scores, strict=True):
            best = np.argsort(-row)[: len(indices)]
            if exact:
                assert {names[i] for i in best} == set(indices.tolist())
            else:
                assert set(indices.tolist()) <= set(names)
            known = [names.index(name) for name in indices]
            assert np.allclose(distances, row[known], rtol=1e-4, atol=1e-4)


def exhaustive(searcher: Any) -> Any:
    return searcher.search_batched(QUERIES, 10, 4000, 40)


def change(
    random: np.random.Generator, searcher: Any, model: Model, step: int, named: bool
) -> None:
    alive = list(model.rows)
    old = [alive[i] for i in random.permutation(len(alive))[: int(random.integers(0, 6))]]
    kind = random.integers(3)
    if kind == 0 and old:
        searcher.delete(old)
        for docid in old:
            del model.rows[docid]
        return
    rows = random.standard_normal((len(old) + 3, 16), dtype=np.float32)
    if named:
        docids = old + [f"new{step}-{i}" for i in range(3)]
        assert searcher.upsert(docids, rows).tolist() == docids
    elif old:
        docids, rows = old, rows[: len(old)]
        searcher.upsert(docids, rows)
    else:
        docids = searcher.upsert(None, rows).tolist()
    model.rows |= dict(zip(docids, rows, strict=True))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", ["dot", "soar", "brute force of dot"])
def test_a_model_decides(name: str, named: bool, tmp_path: Path) -> None:
    db = vectors(1500)
    build = CONFIGS.get(name, lambda rows: tree(rows).score_brute_force())
    docids = [f"d{i}" for i in range(len(db))] if named else None
    save(tmp_path, 4, build(db).build(docids=docids))
    model = Model(docids or list(range(len(db))), db)
    random = np.random.default_rng(3)
    opened: dict[str, Any] = {"workers": 3, "pool": "local", "deadline": 20, "mode": "rw"}
    for turn in range(3):
        with DistributedSearcher.open(tmp_path, 2, **opened) as searcher:
            assert len(searcher) == len(model.rows)
            for step in range(20):
                change(random, searcher, model, 20 * turn + step, named)
                model.check(exhaustive(searcher))
                if step == 12:
                    searcher._fleet.members()[turn].handle.stop()
                if step % 10 == 7 and turn:
                    searcher.checkpoint()
                    model.check(exhaustive(searcher))
            assert len(searcher) == len(model.rows)
            with pytest.raises(swann.LockedError):
                DistributedSearcher.open(tmp_path, 1, **opened)
        with DistributedSearcher.open(tmp_path, 1, pool="local", workers=1) as reader:
            model.check(exhaustive(reader))
        # One machine sees the same.
        plain = swann.load(tmp_path)
        assert len(plain) == len(model.rows)
        model.check(exhaustive(plain))


def test_changed_processes_answer_as_one_machine(tmp_path: Path) -> None:
    check_changes(tmp_path, "process", list(every_config())[3::32])  # more of them: on Ray


def test_two_entries_of_newcomers_leave_room_for_others(tmp_path: Path) -> None:
    built = save(tmp_path, 4, tree(vectors(600), soar_lambda=1.0).score_brute_force().build())
    query = QUERIES[:1]
    near = (9 * query + vectors(30, seed=5)).astype(np.float32)
    opened: dict[str, Any] = {"workers": 1, "pool": "local", "deadline": 20, "mode": "rw"}
    with DistributedSearcher.open(tmp_path, 1, **opened) as searcher:
        for one in (built, searcher):
            one.upsert(None, near)
        assert same(
            searcher.search_batched(query, 20, 20, 40), built.search_batched(query, 20, 20, 40)
        )


def test_rolling_keeps_to_the_log(tmp_path: Path) -> None:
    index, other = tmp_path / "index", tmp_path / "other"
    for folder in (index, other):
        save(folder, 2, CONFIGS["dot"](vectors(500)).build())
    row = 20 * vectors(1, seed=3)[0]
    opened: dict[str, Any] = {"workers": 1, "pool": "local", "deadline": 20}
    logs = [tmp_path / "log", tmp_path / "other log"]
    for folder, log in zip((index, other), logs, strict=True):
        DistributedSearcher.open(folder, 1, mode="rw", log=log, **opened).close()
    with (
        DistributedSearcher.open(index, 1, log=logs[0], **opened) as reader,
        DistributedSearcher.open(index, 1, mode="rw", log=logs[0], **opened) as writer,
    ):
        for number in (500, 501):
            assert writer.upsert(None, row).tolist() == [number]
            writer.checkpoint()
            writer.delete(number)
            reader.roll(index)
            assert len(reader) == 500
        with pytest.raises(swann.CorruptIndexError, match="log"):
            reader.roll(other)
        with pytest.raises(swann.ConfigError, match="log"):
            reader.roll(other, log=3)  # type: ignore[arg-type]
        reader.roll(other, log=logs[1])
        assert len(reader) == 500
        reader.roll(other)
        reader.roll(index, log=logs[0])


def test_rolling_shows_what_another_process_has_logged(tmp_path: Path) -> None:
    built = save(tmp_path, 2, CONFIGS["dot"](vectors(500)).build())
    opened: dict[str, Any] = {"workers": 1, "pool": "local", "deadline": 20}
    with (
        DistributedSearcher.open(tmp_path, 1, mode="rw", **opened) as writer,
        DistributedSearcher.open(tmp_path, 1, **opened) as reader,
    ):
        for number in (500, 501):
            row = number * QUERIES[number - 500]
            assert writer.upsert(None, row).tolist() == [number]
            assert number not in reader.search(row).indices
            reader.roll(tmp_path)
            assert len(reader) == number + 1
            assert reader.search(row).indices[0] == number
        generation = reader._generation
        reader.roll(tmp_path)
        assert reader._generation is generation  # there is nothing new
        assert len(reader._fleet._generations) == 1
        writer.delete([500, 501])
        reader.roll(tmp_path)
        assert same(reader.search(QUERIES[0]), built.search(QUERIES[0]))


def test_checkpoints_that_end_early_leave_nothing(tmp_path: Path) -> None:
    save(tmp_path, 2, CONFIGS["dot"](vectors(500)).build())

    def names() -> set[str]:
        return {path.name for path in tmp_path.iterdir() if path.suffix != ".swannlog"}

    opened: dict[str, Any] = {"workers": 1, "pool": "local", "deadline": 20, "mode": "rw"}
    with DistributedSearcher.open(tmp_path, 1, **opened) as searcher:
        searcher.upsert(None, QUERIES)
        before, manifest = names(), (tmp_path / "manifest.json").read_bytes()
        with pytest.MonkeyPatch.context() as patch:  # all shards are folded
            patch.setattr(ShardedWriter, "finish", interrupt)
            with pytest.raises(KeyboardInterrupt):
                searcher.checkpoint()
        assert names() == before
        with pytest.MonkeyPatch.context() as patch:  # its manifest is in place
            patch.setattr(searcher._fleet, "add", interrupt)
            with pytest.raises(KeyboardInterrupt):
                searcher.checkpoint()
        assert (tmp_path / "manifest.json").read_bytes() != manifest
        assert before <= names()  # its workers may need these once more
        searcher._fleet.members()[0].handle.stop()
        assert exhaustive(searcher).coverage.min() == 1
        killed = ["codes-0123456789abcdef.npy", "shard-0123456789abcdef.json", ".rows-7-1.tmp"]
        for name in killed:  # what a process leaves that is killed
            (tmp_path / name).write_bytes(b"half")
        searcher.upsert(None, QUERIES)
        searcher.checkpoint()
        count = len(names())
        assert count == len(before)
        assert not names() & set(killed)
        assert len(searcher._fleet._generations) == 1
    assert len(swann.load(tmp_path)) == 516


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    db = vectors(500)
    save(
        tmp_path,
        2,
        tree(db, "cosine").score_brute_force().build(docids=[*"ab"] + [str(i) for i in range(498)]),
    )
    with DistributedSearcher.open(tmp_path, 1, pool="local", workers=1, mode="rw") as searcher:
        bad = vectors(2)
        bad[1, 3] = np.nan
        with pytest.raises(swann.NonFiniteError, match=r"vectors\[1"):
            searcher.upsert(["x", "y"], bad)
        with pytest.raises(swann.ZeroVectorError):
            searcher.upsert("x", np.zeros(16, np.float32))
        with pytest.raises(swann.UnknownDocidError, match="x"):
            searcher.delete(["a", "x"])
        with pytest.raises(swann.InvalidInputError, match="twice"):
            searcher.upsert(["z", "z"], vectors(2))
        with pytest.raises(swann.InvalidInputError, match="docids is None"):
            searcher.upsert(None, vectors(2))
        with pytest.raises(swann.ShapeError):
            searcher.upsert(["z"], vectors(2))
        assert len(searcher) == 500
        assert searcher.health()["change"] == 0
        assert searcher.upsert("x", QUERIES[0]).tolist() == ["x"]
        assert searcher.search(QUERIES[0], 1, leaves_to_search=40).indices.tolist() == ["x"]
    assert len(swann.load(tmp_path)) == 501


def test_a_change_that_cannot_be_noted_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its docids are as new as they were, and can be given again."""
    docids = [str(i) for i in range(200)]
    save(tmp_path, 2, tree(vectors(200)).score_brute_force().build(docids=docids))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with DistributedSearcher.open(tmp_path, 1, pool="local", workers=1, mode="rw") as searcher:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for change in (lambda: searcher.upsert("x", QUERIES[0]), lambda: searcher.delete("0")):
                with pytest.raises(OSError, match="No space left"):
                    change()
        assert len(searcher) == 200
        assert searcher.health()["change"] == 0
        with pytest.raises(swann.UnknownDocidError, match="x"):
            searcher.delete("x")
        assert searcher.upsert(["y", "x"], QUERIES[:2]).tolist() == ["y", "x"]
        found = searcher.search_batched(QUERIES[:2], 1, leaves_to_search=40)
        assert found.indices.ravel().tolist() == ["y", "x"]
    assert swann.load(tmp_path).docids == [*docids, "y", "x"]


@pytest.mark.parametrize("name", ["dot", "soar"])
def test_entries_of_leaves_are_counted_as_they_come(name: str, tmp_path: Path) -> None:
    """Coverage is told by them; a checkpoint counts the same."""
    save(tmp_path, 2, CONFIGS[name](vectors(300)).build())
    with DistributedSearcher.open(tmp_path, 1, pool="local", workers=1, mode="rw") as searcher:
        before = searcher._generation.sizes
        searcher.upsert(None, vectors(70, seed=5))
        searcher.upsert(None, vectors(1, seed=6))
        counted = searcher._generation.sizes
        assert (counted - before).sum() == 71 * before.sum() / 300
        searcher.checkpoint()
        np.testing.assert_array_equal(searcher._generation.sizes, counted)


def test_a_checkpoint_leaves_one_log_and_is_made_only_of_changes(tmp_path: Path) -> None:
    save(tmp_path, 2, tree(vectors(200)).score_brute_force().build())
    with DistributedSearcher.open(tmp_path, 1, pool="local", workers=1, mode="rw") as searcher:
        searcher.upsert(None, QUERIES[0])
        searcher.checkpoint()
        assert [path.name[4:24] for path in tmp_path.glob("log-*")] == [f"{2:020}"]
        generation = searcher._generation
        searcher.checkpoint()
        assert searcher._generation is generation


def test_row_ids_that_are_not_there(tmp_path: Path) -> None:
    save(tmp_path, 2, tree(vectors(200)).score_brute_force().build())
    with DistributedSearcher.open(tmp_path, 1, pool="local", workers=1, mode="rw") as searcher:
        searcher.delete(7)
        for number in (7, 200, 10**6):
            with pytest.raises(swann.UnknownDocidError, match=f"row id {number} is not"):
                searcher.delete(number)
        assert searcher._logged is not None
        changes = searcher._logged.changes
        with pytest.raises(swann.InvalidInputError, match="from 201 on; expected 200"):
            changes.repeat(Change(None, 201, QUERIES[:1]))  # of a log that lacks one


def test_who_could_not_open_an_index_keeps_nobody_out(tmp_path: Path) -> None:
    save(tmp_path, 2, tree(vectors(200)).score_brute_force().build())
    opened: dict[str, Any] = {"pool": "local", "workers": 1, "mode": "rw"}
    with DistributedSearcher.open(tmp_path, 1, **opened) as searcher:
        searcher.upsert(None, QUERIES[0])
    (log,) = tmp_path.glob("log-*")
    whole = log.read_bytes()
    log.write_bytes(b"x" + whole[1:])
    with pytest.raises(swann.CorruptIndexError) as caught:
        DistributedSearcher.open(tmp_path, 1, **opened)
    log.write_bytes(whole)
    with DistributedSearcher.open(tmp_path, 1, **opened) as searcher:
        assert len(searcher) == 201
    assert caught.tb is not None  # it holds all that was there when it failed


def test_changes_during_a_checkpoint_are_in_every_later_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 2, tree(vectors(200)).score_brute_force().build())
    fold = Logged.fold
    with DistributedSearcher.open(tmp_path, 1, pool="local", workers=1, mode="rw") as searcher:

        def meanwhile(*arguments: Any) -> Any:
            searcher.upsert(None, QUERIES[1])
            return fold(*arguments)

        monkeypatch.setattr(Logged, "fold", meanwhile)
        searcher.upsert(None, QUERIES[0])
        searcher.checkpoint()
        assert searcher._generation.tail.base == 1
        assert searcher.health()["change"] == 2


def test_what_a_caller_does_with_its_array_later_changes_nothing(tmp_path: Path) -> None:
    """Replicas may get it later, or once more."""
    save(tmp_path, 2, tree(vectors(200)).score_brute_force().build())
    rows = QUERIES[:2].copy()
    with DistributedSearcher.open(tmp_path, 1, pool="local", workers=1, mode="rw") as searcher:
        searcher.upsert(None, rows)
        (record,) = searcher._generation.tail.after(0)
        rows[:] = 0.0
        np.testing.assert_array_equal(record.rows, QUERIES[:2])


def test_a_killed_searcher_loses_nothing(tmp_path: Path) -> None:
    db = vectors(400)
    save(tmp_path, 2, tree(db).score_brute_force().build())
    child = os.fork()
    if child == 0:
        try:
            searcher = DistributedSearcher.open(tmp_path, 1, pool="local", workers=1, mode="rw")
            searcher.upsert(None, 10 * QUERIES)
            searcher.delete(3)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with DistributedSearcher.open(tmp_path, 1, pool="local", workers=1, mode="rw") as searcher:
        assert len(searcher) == 407
        assert exhaustive(searcher).indices[:, 0].tolist() == list(range(400, 408))
        with pytest.raises(swann.UnknownDocidError):
            searcher.delete(3)


def test_no_search_sees_half_of_a_change(tmp_path: Path) -> None:
    """A datapoint moves from leaf to leaf, and is always found, once, where it was or is."""
    db = vectors(800)
    docids = [f"d{i}" for i in range(800)]
    save(tmp_path, 4, tree(db).score_brute_force().build(docids=docids))
    places = 100 * vectors(12, seed=5)  # longer than all others
    with DistributedSearcher.open(
        tmp_path, 2, workers=3, pool="local", mode="rw", deadline=20
    ) as searcher:
        searcher.upsert("it", places[0])
        acknowledged, wrong = [0], []
        stop = threading.Event()

        def search() -> None:
            while not stop.is_set():
                least = acknowledged[0]
                found = searcher.search_batched(places, 3, leaves_to_search=40)
                most = acknowledged[0] + 1
                scores = places @ places[[i % 12 for i in range(least, most + 1)]].T
                names = found.indices.tolist()
                seen = [
                    names[q].count("it") == 1 or scores[q].min() < 5000 for q in range(len(names))
                ]
                # All queries of a batch see it at one place.
                at = [
                    n
                    for n in range(least, most + 1)
                    if np.allclose(
                        [
                            dict(zip(names[q], found.distances[q].tolist(), strict=True)).get(
                                "it", -1
                            )
                            for q in range(12)
                            if (places @ places[n % 12])[q] > 5000
                        ],
                        [s for s in places @ places[n % 12] if s > 5000],
                        rtol=1e-3,
                    )
                ]
                if not all(seen) or not at or found.coverage.min() < 1:
                    wrong.append((least, most, names, found.distances.tolist()))
                    return

        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        for step in range(1, 120):
            searcher.upsert("it", places[step % 12])
            acknowledged[0] = step
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong


def test_replaced_workers_make_the_changes(tmp_path: Path) -> None:
    save(tmp_path, 3, tree(vectors(600)).score_brute_force().build())
    with DistributedSearcher.open(tmp_path, 2, workers=2, mode="rw", deadline=20) as searcher:
        for step in range(4):
            numbers = searcher.upsert(None, (10 + step) * QUERIES)
            victim = searcher._fleet.members()[0].handle
            os.kill(victim.process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
            assert exhaustive(searcher).indices[:, 0].tolist() == numbers.tolist()
            assert wait_until(lambda: searcher.health()["ready_replicas"] == [2] * 3)
        assert exhaustive(searcher).indices[:, 0].tolist() == numbers.tolist()


def test_a_search_does_not_look_at_every_datapoint(tmp_path: Path) -> None:
    save(tmp_path, 2, tree(vectors(300)).score_brute_force().build())
    with DistributedSearcher.open(tmp_path, 1, workers=1, pool="local", mode="rw") as searcher:
        searcher.upsert([3, 4], QUERIES[:2])
        searcher.upsert(None, QUERIES[2:4])
        searcher.delete(3)
        searcher._logged.changes._alive = None  # type: ignore[union-attr, assignment]
        assert len(searcher) == 301
        assert searcher.search(QUERIES[0], 301, leaves_to_search=40).coverage == 1

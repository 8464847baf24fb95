"""Builds larger than memory: the same bytes as in memory, within a budget, whatever breaks."""

from __future__ import annotations

import operator
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharded import save
from writes import note_writes

import swann
from benchmarks.cluster import builds
from swann.building import build_searcher
from swann.distributed import LocalExecutor, ProcessExecutor, build
from swann.distributed.building.memory import portions
from swann.index.disk.lock import DirectoryLock
from swann.index.disk.store import load_state

N, D = 3000, 24


def rows_of(n: int = N, d: int = D, seed: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((20, d)) * 2
    made = centers[rng.integers(0, 20, n)] + rng.standard_normal((n, d))
    return (made * rng.uniform(0.5, 2.0, (n, 1))).astype(np.float32)


def settings(measure: str, case: str) -> Any:
    builder = swann.builder(rows_of(), 10, measure)  # type: ignore[arg-type]
    tree: dict[str, Any] = {"num_leaves": 30, "num_leaves_to_search": 10}
    threshold = None if measure == "squared_l2" else 0.3
    match case:
        case "plain":
            builder.tree(**tree).score_ah(2, threshold).reorder(100)
        case "soar":
            builder.tree(**tree, soar_lambda=1.0).score_ah(2, threshold).reorder(100)
        case "brute force":
            builder.score_brute_force()
        case "leaves, brute force":
            builder.tree(**tree).score_brute_force()
        case "codes alone":
            builder.score_ah(2, threshold)
        case "int8":
            builder.tree(**tree).score_ah(2, threshold).reorder(50, swann.ReorderType.INT8, 0.3)
        case "bfloat16":
            builder.tree(**tree).score_ah(2, threshold).reorder(50, swann.ReorderType.BFLOAT16)
        case "lut256":
            builder.tree(**tree).score_ah(2, threshold, hash_type="lut256").reorder(50)
        case "pca":
            builder.tree(**tree).score_ah(2, threshold).reorder(50).pca(8)
        case "truncate":
            builder.tree(**tree, soar_lambda=1.5).score_ah(2, threshold).reorder(50).truncate(10)
        case "avq":
            builder.tree(**tree, avq=2.0).score_ah(2, threshold).reorder(50)
        case "upper":
            builder.tree(**tree).upper_tree(6, 3).score_ah(2, threshold).reorder(50)
        case "spherical":
            builder.tree(**tree, spherical=True, quantize_centroids=True).score_ah(2).reorder(9)
    return builder


CASES = [
    "plain",
    "soar",
    "brute force",
    "leaves, brute force",
    "codes alone",
    "int8",
    "bfloat16",
    "lut256",
    "pca",
    "truncate",
    "avq",
    "upper",
    "spherical",
]


def in_spans(db: Any, config: swann.IndexConfig, folder: Path, **more: Any) -> Path:
    """Build by parts of hundreds of KB of rows, a few of codes at a time; all are trained on."""
    more |= {"memory_budget": 400_000, "sample_rows": len(db), "executor": LocalExecutor(1)}
    return build(db, config, folder, **more)


def assert_same(folder: Path, expected: Any) -> None:
    """The same files as those that a save makes."""
    there = folder.parent / f"{folder.name}-expected"
    expected.save(there)
    names = {path.name for path in there.iterdir()}
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        assert (folder / name).read_bytes() == (there / name).read_bytes(), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
def test_where_all_is_trained_on_it_is_the_index_of_the_builder(
    measure: str, case: str, tmp_path: Path
) -> None:
    builder = settings(measure, case)
    in_spans(rows_of(), builder.create_config(), tmp_path / "index")
    assert_same(tmp_path / "index", builder.build())
    assert load_state(tmp_path / "index", verify="full").packed.num_datapoints == N


def test_an_index_that_was_there_is_replaced(tmp_path: Path) -> None:
    """With its files, and what a killed process left."""
    folder = tmp_path / "index"
    swann.builder(rows_of(50), 5, "cosine").score_ah(2).reorder(9).build().save(folder)
    (folder / ".codes-12-34.tmp").write_text("half")
    builder = swann.builder(rows_of(60), 5, "cosine").score_brute_force()
    in_spans(rows_of(60), builder.create_config(), folder)
    assert_same(folder, builder.build())


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which file a handle is of")
@pytest.mark.parametrize("shards", [1, 2])
def test_no_order_of_writes_loses_both_indexes(
    shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the manifest lists is on the disk before it, and it is before others are removed."""
    folder, db = tmp_path / "index", rows_of(200)
    builder = swann.builder(db, 5, "cosine").tree(4, 2, min_partition_size=1).score_ah(2)
    builder.build().save(folder)
    with monkeypatch.context() as patch:
        done = note_writes(patch, folder)
        in_spans(db[::-1], builder.create_config(), folder, num_shards=shards)
    listed = done.index("place manifest.json")
    assert done[listed - 3].startswith("place")
    assert done[listed - 2 : listed] == ["flush directory", "flush .manifest.json"]
    assert done[listed + 1] == "flush directory"
    removed = [step.startswith("remove") for step in done]
    assert removed == [False] * (listed + 2) + [True] * (len(done) - listed - 2)
    assert "remove codes" in done


def test_a_few_long_rows_change_nothing_of_that(tmp_path: Path) -> None:
    """They are left out of the range of corrections, which spans have parts of."""
    db = rows_of().copy()
    db[:2] *= 3000
    config = settings("squared_l2", "plain").create_config()
    in_spans(db, config, tmp_path / "index")
    whole = build_searcher(db, config)
    assert_same(tmp_path / "index", whole)
    packed = load_state(tmp_path / "index").packed
    assert 0 < packed.correction_span < 1e5


@pytest.mark.parametrize("case", ["plain", "soar", "int8", "leaves, brute force", "truncate"])
@pytest.mark.parametrize("measure", ["dot_product", "squared_l2"])
def test_shards_are_those_of_the_index(measure: str, case: str, tmp_path: Path) -> None:
    builder = settings(measure, case)
    names = [f"name {i}" for i in range(N)]
    out = in_spans(
        rows_of(), builder.create_config(), tmp_path / "index", num_shards=3, docids=names
    )
    searcher = builder.build(docids=names)
    save(tmp_path / "expected", 3, searcher)
    files = {path.name for path in (tmp_path / "expected").iterdir()}
    assert {path.name for path in out.iterdir()} == files
    for name in files:
        assert (out / name).read_bytes() == (tmp_path / "expected" / name).read_bytes(), name
    loaded = swann.load(out, verify="full")
    found, expected = (s.search_batched(rows_of(50)) for s in (loaded, searcher))
    np.testing.assert_array_equal(found.indices, expected.indices)


def test_more_shards_than_leaves_are_refused(tmp_path: Path) -> None:
    for case, most in (("plain", 30), ("codes alone", 1)):
        config = settings("dot_product", case).create_config()
        with pytest.raises(swann.ConfigError, match=f"num_shards is 31; expected 1 to {most}"):
            build(rows_of(), config, tmp_path, num_shards=31)


def test_processes_and_files_give_the_same(tmp_path: Path) -> None:
    """From several files, by two processes."""
    db, builder = rows_of(), settings("dot_product", "plain")
    np.save(tmp_path / "a.npy", db[:1000])
    np.save(tmp_path / "b.npy", db[1000:])
    with ProcessExecutor(2) as executor:
        build(
            str(tmp_path / "*.npy"),
            builder.create_config(),
            tmp_path / "index",
            memory_budget=800_000,
            sample_rows=N,
            executor=executor,
        )
    assert_same(tmp_path / "index", builder.build())


@pytest.mark.parametrize("stage", ["map", "reduce"])
def test_a_damaged_result_is_made_again(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that was stopped goes on, and trusts nothing that is not whole."""
    db, builder = rows_of(), settings("dot_product", "soar")
    folder, left = tmp_path / "index", []

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def note(of: str, done: int, total: int) -> None:
        if of == "reduce":
            left.append(total - done)

    with monkeypatch.context() as patch:
        where = {"map": "run", "reduce": "_place_rest"}[stage]
        patch.setattr(f"swann.distributed.building.finish.Finish.{where}", stop)
        with pytest.raises(KeyboardInterrupt):
            in_spans(db, builder.create_config(), folder)
    results = sorted((folder / ".build").glob({"map": "map-*", "reduce": "*.npy"}[stage]))
    assert len(results) > 3
    results[0].unlink()
    damaged = bytearray(results[1].read_bytes())
    if stage == "map":
        damaged[len(damaged) // 2] ^= 1  # checksums tell
    else:
        damaged.append(0)
    results[1].write_bytes(damaged)
    results[2].write_bytes(results[2].read_bytes()[:-1])
    in_spans(db, builder.create_config(), folder, progress=note)
    assert stage == "map" or left == [2, 1, 0]
    assert_same(folder, builder.build())


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = settings("dot_product", "plain").create_config()
    bad = rows_of()
    bad[1234, 5] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(swann.NonFiniteError, match=r"bad\.npy\[1234, 5\] is nan"):
        build(tmp_path / "bad.npy", config, tmp_path / "index")
    (tmp_path / "x.fbin").write_bytes(b"\x05\0\0\0\x07\0\0\0abc")
    with pytest.raises(swann.InvalidInputError, match=r"x\.fbin has 11 bytes"):
        build(tmp_path / "x.fbin", config, tmp_path / "index")


def test_a_bad_source_leaves_nothing_behind(tmp_path: Path) -> None:
    config = settings("dot_product", "plain").create_config()
    index = tmp_path / "index"
    bad = rows_of()
    bad[1234, 5] = np.nan
    for source in (tmp_path / "nothing.npy", bad, iter([bad[:5], bad[:5, :3]])):
        with pytest.raises(swann.SwannError):
            build(source, config, index)
        assert not index.exists()
    with pytest.raises(swann.ShapeError, match="docids"):
        build(iter([rows_of()]), config, index, docids=["a"])
    assert not index.exists()
    (index / ".build").mkdir(parents=True)
    (index / ".build" / "map-1.swannsec").touch()  # of a build that was stopped
    with pytest.raises(swann.ShapeError, match="docids"):
        build(iter([rows_of()]), config, index, docids=["a"])
    assert [path.name for path in (index / ".build").iterdir()] == ["map-1.swannsec"]
    build(rows_of(), config, index)
    assert not (index / ".build").exists()


def test_the_end_of_a_build_spares_another_that_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[DirectoryLock] = []

    class Lock(DirectoryLock):
        def __exit__(self, *_: object) -> None:
            super().__exit__()
            others.append(DirectoryLock(tmp_path / ".build", "open"))
            (tmp_path / ".build" / "map-1.swannsec").touch()

    monkeypatch.setattr("swann.distributed.building.build.DirectoryLock", Lock)
    build(rows_of(), settings("dot_product", "plain").create_config(), tmp_path)
    with pytest.raises(swann.LockedError):
        DirectoryLock(tmp_path / ".build", "open")
    others[0].release()
    assert [path.name for path in (tmp_path / ".build").iterdir()] == ["map-1.swannsec"]


def test_a_build_begins_while_another_removes_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Path] = []

    def lock(work: Path, purpose: Any) -> DirectoryLock:
        tries.append(work)
        if len(tries) == 1:
            work.rmdir()
        return DirectoryLock(work, purpose)

    monkeypatch.setattr("swann.distributed.building.build.DirectoryLock", lock)
    build(rows_of(), settings("dot_product", "plain").create_config(), tmp_path)
    assert len(tries) == 2


@pytest.mark.parametrize("given", ["9" * 400, "9" * 300 + "TB", 0, -1, "", "1e9", True, None])
def test_budgets_that_are_none(given: Any, tmp_path: Path) -> None:
    config = settings("dot_product", "plain").create_config()
    with pytest.raises(swann.ConfigError, match="memory_budget is"):
        build(rows_of(), config, tmp_path / "index", memory_budget=given)


class KillsWorkers(ProcessExecutor):
    """Kills a worker whenever one more of some tasks is done, however fast the machine is."""

    def __init__(self) -> None:
        super().__init__(2, tries=50)
        self.done = self.killed = 0

    def run(self, function: Any, tasks: Sequence[Any], on_done: Any = None) -> list[Any]:
        def kill(number: int, result: Any) -> None:
            self.done += 1
            if self.done in (1, 4, 9):
                os.kill(self.pids()[0], signal.SIGKILL)
                self.killed += 1
            if on_done is not None:
                on_done(number, result)

        return super().run(function, tasks, kill)


def test_workers_that_are_killed_change_nothing(tmp_path: Path) -> None:
    db, builder = rows_of(), settings("cosine", "plain")
    np.save(tmp_path / "a.npy", db)
    executor = KillsWorkers()
    with executor:
        build(
            tmp_path / "a.npy",
            builder.create_config(),
            tmp_path / "index",
            memory_budget=400_000,
            sample_rows=N,
            executor=executor,
        )
    assert executor.killed == 3
    assert_same(tmp_path / "index", builder.build())


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_killed_after_the_last_task_holds_nobody_up(which: int) -> None:
    """It may have held the lock that the others wait for."""
    for _ in range(3):
        executor = ProcessExecutor(2)
        assert executor.run(operator.neg, [1, 2, 3, 4]) == [-1, -2, -3, -4]
        os.kill(executor.pids()[which], signal.SIGKILL)
        closing = threading.Thread(target=executor.close, daemon=True)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()


def test_builds_under_chaos_give_the_same_files(tmp_path: Path) -> None:
    """Workers and whoever builds are killed; the long form is `benchmarks.cluster builds`."""
    told = builds.chaos(tmp_path, 1, pause=0.1, most=2, rows=6_000)
    assert told["builds"] == 2
    assert told["others"] == 0
    assert told["workers"] + told["drivers"] > 0


def test_training_on_a_part_finds_as_much(tmp_path: Path) -> None:
    db = rows_of(20_000)
    queries = rows_of(200, seed=4)
    builder = swann.builder(db, 10, "dot_product").tree(100, 20).score_ah(2, 0.3).reorder(100)
    build(db, builder.create_config(), tmp_path / "index", memory_budget=800_000, sample_rows=6000)
    true = swann.exact_neighbors(db, queries, 10, "dot_product").indices
    found = [
        s.search_batched(queries)[0] for s in (swann.load(tmp_path / "index"), builder.build())
    ]
    ours, whole = (swann.recall(indices, true) for indices in found)
    assert ours > whole - 0.03
    every = swann.load(tmp_path / "index").search_batched(queries, leaves_to_search=100)[0]
    assert swann.recall(every, true) > 0.97


def test_all_is_trained_on_if_half_of_the_budget_holds_it() -> None:
    config = swann.builder(rows_of(9), 5, "cosine").tree(100, 9).score_ah(2).create_config()
    n, d = 2_000_000, 100
    enough = 2 * 4 * n * d
    assert portions(config, n, d, 4, enough).sample_rows == n
    assert portions(config, n, d, 4, enough - 1).sample_rows < n


@pytest.mark.parametrize(("leaves", "width"), [(1, 8), (30, 24), (20_000, 600)])
def test_the_least_budget_that_is_told_suffices(leaves: int, width: int) -> None:
    config = swann.IndexConfig(
        num_neighbors=10,
        distance_measure="cosine",
        tree=swann.TreeConfig(num_leaves=leaves, num_leaves_to_search=1),
    )
    with pytest.raises(swann.ConfigError, match="memory_budget is 1,000 bytes") as told:
        portions(config, 50_000, width, 4, 1000)
    least = int(str(told.value).split("at least ")[1].split(" ")[0].replace(",", ""))
    portions(config, 50_000, width, 4, least)
    with pytest.raises(swann.ConfigError, match="memory_budget"):
        portions(config, 50_000, width, 4, least - 2)

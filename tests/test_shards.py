"""Shards: what they find together is what the whole index finds, bit for bit."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharded import CONFIGS, save, vectors

import swann
from swann.errors import (
    CorruptIndexError,
    FormatVersionError,
    IndexFormatError,
    InvalidInputError,
)
from swann.index.disk.index_files import DirectoryFiles
from swann.index.disk.leaves import join, spread_leaves, take_leaves
from swann.index.disk.sharded import open_sharded
from swann.index.packed import PackedIndex
from swann.index.shards import Head, Shard, merge
from swann.index.state import State

N, D, LEAVES = 3000, 24, 40
F32 = np.float32


def _data(seed: int = 0, n: int = N) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, D), dtype=F32) * rng.uniform(0.5, 2.0, (n, 1)).astype(F32)
    rows[n // 2 : n // 2 + n // 10] = rows[: n // 10]  # ties
    return rows


def _builder(kind: str, measure: str) -> swann.Builder:
    builder = swann.builder(_data(), 10, measure)
    spills = "soar" in kind and measure != "squared_l2"
    builder.tree(LEAVES, 8, soar_lambda=1.0 if spills else None)
    if "pca" in kind:
        builder.pca(12)
    if "brute" in kind:
        builder.score_brute_force()
        return builder
    builder.score_ah(2, 0.2 if measure != "squared_l2" else float("nan"))
    if "plain" not in kind:
        quantize = {"i8": "INT8", "bf16": "BFLOAT16"}.get(kind.split("-")[-1], "FLOAT32")
        builder.reorder(40, quantize=getattr(swann.ReorderType, quantize))
    return builder


KINDS = ["ah", "plain", "brute", "soar", "soar-plain", "soar-i8", "ah-bf16", "pca", "soar-brute"]


def _searched(
    packed: PackedIndex, num_shards: int, queries: np.ndarray, k: int, candidates: int, leaves: int
) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.diff(packed.leaf_starts)
    owners = spread_leaves(packed.centroids, sizes, num_shards)
    choices = Head(take_leaves(packed, np.zeros(len(sizes), bool))).choose(queries, leaves)
    parts = []
    for number in range(num_shards):
        shard = Shard(take_leaves(packed, owners == number), packed.leaf_starts)
        asked = np.flatnonzero((owners[choices.leaves] == number).any(axis=1)).astype(np.uint32)
        found = shard.gather(queries[asked], choices.of(asked), k, candidates, threads=2)
        parts.append((asked, found))
    return merge(packed, parts, len(queries), k, candidates)


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_shards_find_what_the_whole_finds(kind: str, measure: str) -> None:
    searcher = _builder(kind, measure).build()
    queries = np.concatenate([_data(1, 60), _data()[:20]])
    for k, candidates, leaves in [(10, 40, 8), (1, 1, 1), (7, 30, LEAVES), (90, 400, 3)]:
        whole = searcher.search_batched(queries, k, candidates, leaves)
        resolved = searcher._resolve(k, candidates, leaves)
        for num_shards in (1, 2, 4, 8, 16):
            ids, distances = _searched(searcher._index, num_shards, queries, *resolved)
            np.testing.assert_array_equal(ids, whole.indices)
            np.testing.assert_array_equal(distances, whole.distances)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("docids", [False, True])
def test_a_sharded_directory_opens_as_a_plain_index(
    tmp_path: Path, kind: str, docids: bool
) -> None:
    names = [f"d{i}" for i in range(N)] if docids else None
    searcher = _builder(kind, "dot_product").build(docids=names)
    save(tmp_path, 5, searcher)
    queries = _data(2, 50)
    whole = searcher.search_batched(queries)
    for verify in ("manifest", "full"):
        loaded = swann.load(tmp_path, verify=verify)  # type: ignore[arg-type]
        found = loaded.search_batched(queries)
        np.testing.assert_array_equal(found.indices, whole.indices)
        np.testing.assert_array_equal(found.distances, whole.distances)
        assert loaded.docids == searcher.docids
    loaded.upsert("new" if docids else None, queries[0])
    loaded.rebalance()
    # And back: a plain save takes the place of the shards.
    loaded.save(tmp_path)
    assert not list(tmp_path.glob("shard-*"))
    assert len(swann.load(tmp_path)) == N + 1


def test_shards_of_files_answer_like_those_in_memory(tmp_path: Path) -> None:
    searcher = _builder("soar", "dot_product").build()
    save(tmp_path, 3, searcher)
    save(tmp_path, 4, searcher)  # again, over the other
    index = open_sharded(DirectoryFiles(tmp_path))
    assert len(index.shards) == 4
    assert {p.name for p in tmp_path.glob("shard-*")} == {
        s.file for s in (index.head, *index.shards)
    }
    queries = _data(3, 30)
    head = index.open_head()
    k, candidates, leaves = searcher._resolve(None, None, None)
    choices = head.choose(queries, leaves)
    everyone = np.arange(len(queries), dtype=np.uint32)
    parts = [
        (everyone, index.open_shard(i).gather(queries, choices, k, candidates)) for i in range(4)
    ]
    ids, distances = merge(head.packed, parts, len(queries), k, candidates)
    whole = searcher.search_batched(queries)
    np.testing.assert_array_equal(ids, whole.indices)
    np.testing.assert_array_equal(distances, whole.distances)


@pytest.mark.parametrize("kind", ["ah", "soar"])
def test_new_datapoints_of_a_shard_are_found(kind: str) -> None:
    searcher = _builder(kind, "cosine").build()
    packed = searcher._index
    owners = spread_leaves(packed.centroids, np.diff(packed.leaf_starts), 2)
    states = [State.of(take_leaves(packed, owners == i)) for i in range(2)]
    live = [swann.Searcher(State(s.packed, None, N, s.plan)) for s in states]
    new = _data(5, 20)[:10]
    for searcher_of_shard in live:
        searcher_of_shard.upsert(None, new)
    k, candidates, leaves = searcher._resolve(1, None, LEAVES)
    choices = Head(packed).choose(new, leaves)
    everyone = np.arange(len(new), dtype=np.uint32)
    parts = [
        (everyone, Shard(s._index, packed.leaf_starts).gather(new, choices, k, candidates))
        for s in live
    ]
    ids, _ = merge(packed, parts, len(new), k, candidates)
    np.testing.assert_array_equal(ids[:, 0], N + np.arange(10))


def test_joining_gives_back_the_entries_in_order() -> None:
    packed = _builder("ah", "squared_l2").build()._index
    owners = spread_leaves(packed.centroids, np.diff(packed.leaf_starts), 7)
    whole = join([take_leaves(packed, owners == i) for i in range(7)], owners)
    for name, array in packed.arrays().items():
        np.testing.assert_array_equal(whole.arrays()[name], array, err_msg=name)


@given(
    sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=60),
    num_shards=st.integers(1, 60),
    seed=st.integers(0, 5),
)
def test_leaves_are_spread_evenly(sizes: list[int], num_shards: int, seed: int) -> None:
    centroids = np.random.default_rng(seed).standard_normal((len(sizes), 3), dtype=F32)
    num_shards = min(num_shards, len(sizes))
    owners = spread_leaves(centroids, np.array(sizes), num_shards)
    assert np.unique(owners).tolist() == list(range(num_shards))
    np.testing.assert_array_equal(owners, spread_leaves(centroids, np.array(sizes), num_shards))


def test_shards_are_of_about_the_same_size_and_near() -> None:
    rng = np.random.default_rng(0)
    places = np.repeat(np.eye(4, dtype=F32) * 10, 16, axis=0)
    order = rng.permutation(64)
    centroids = (places + rng.standard_normal((64, 4)))[order].astype(F32)
    sizes = rng.integers(90, 110, 64)
    owners = spread_leaves(centroids, sizes, 4)
    held = np.bincount(owners, sizes)
    assert held.max() < 1.25 * held.mean()
    cluster = np.repeat(np.arange(4), 16)[order]
    for shard in range(4):  # nearly all leaves of a shard are from one cluster
        assert np.bincount(cluster[owners == shard]).max() >= 0.8 * (owners == shard).sum()


def test_more_shards_than_leaves_are_refused() -> None:
    packed = swann.builder(_data(), 3, "cosine").score_ah(2).build()._index
    with pytest.raises(InvalidInputError, match="num_shards is 2; expected 1 to 1"):
        spread_leaves(packed.centroids, np.diff(packed.leaf_starts), 2)


def test_bad_queries_are_refused_by_the_head() -> None:
    head = Head(_builder("ah", "cosine").build()._index)
    with pytest.raises(swann.errors.ZeroVectorError, match=r"queries\[1\]"):
        head.choose(np.array([[1.0] * D, [0.0] * D], F32), 3)
    with pytest.raises(swann.errors.NonFiniteError, match=r"queries\[0, 2\]"):
        head.choose(np.array([[1.0, 2.0, np.nan] + [0.0] * (D - 3)], F32), 3)


def test_damage_is_found(tmp_path: Path) -> None:
    save(tmp_path, 3, _builder("ah", "dot_product").build())
    whole = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    for path, data in whole.items():
        at = 3 * len(data) // 5
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        for damaged in (None, data[: len(data) // 2], flipped):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            with pytest.raises(swann.errors.IndexFormatError):
                swann.load(tmp_path, verify="full")
            path.write_bytes(data)
    swann.load(tmp_path, verify="full")
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"sharded"', b'"shorted"'))
    with pytest.raises(FormatVersionError):
        swann.load(tmp_path)


def test_shards_may_be_put_together_while_they_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest that is read first lists shards, those after it do not, nor are shards there."""
    save(tmp_path, 3, _builder("ah", "dot_product").build())
    listed = iter([(tmp_path / "manifest.json").read_bytes()])
    swann.load(tmp_path).save(tmp_path)
    read = DirectoryFiles.manifest
    monkeypatch.setattr(DirectoryFiles, "manifest", lambda files: next(listed, None) or read(files))
    assert len(swann.load(tmp_path)) == N
    assert next(listed, None) is None


def test_a_failed_save_leaves_files_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the same content have the same names."""
    built = CONFIGS["soar"](vectors(300)).build()
    save(tmp_path, 2, built)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace = os.replace
    for fails in (0, len(before) // 2, len(before) - 1):
        left = [fails]

        def placed(source: Path, target: Path, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", placed)
            with pytest.raises(OSError, match="No space left"):
                save(tmp_path, 2, built)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_shards_of_another_index_are_refused(tmp_path: Path) -> None:
    save(tmp_path, 3, _builder("ah", "dot_product").build())
    index = open_sharded(DirectoryFiles(tmp_path))
    swapped = index.__class__(**{**vars(index), "owners": (index.owners + 1) % 3})
    with pytest.raises(CorruptIndexError, match="does not hold the leaves"):
        swapped.open_shard(0)


def test_an_index_in_shards_is_not_opened_for_changes_as_one(tmp_path: Path) -> None:
    """A checkpoint would put it together, and workers could not open it any more."""
    built = _builder("plain", "dot_product").build()
    save(tmp_path / "index", 4, built)
    before = sorted(path.name for path in (tmp_path / "index").iterdir())
    with pytest.raises(IndexFormatError, match="in shards"):
        swann.open(tmp_path / "index")
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == before
    assert len(swann.open(tmp_path / "index", mode="r")) == N
    swann.load(tmp_path / "index").save(tmp_path / "whole")
    with swann.open(tmp_path / "whole") as searcher:
        searcher.delete(0)

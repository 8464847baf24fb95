"""Codes of 8 bits through the whole of an index: stages, precisions, updates, files, levels.

Kernels, training and files are tested where those of 4 bits are; this page puts them together.
"""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pipelines import assert_same, search_all

import swann
from swann import Searcher, kernels
from swann.kernels import GROUP, reference

F32 = NDArray[np.float32]

N, D, LEAVES = 3000, 20, 25
MEASURES: list[Any] = ["dot_product", "squared_l2", "cosine"]
each_measure = pytest.mark.parametrize("measure", MEASURES)


@functools.cache
def database() -> F32:
    rng = np.random.default_rng(3)
    middles = rng.standard_normal((LEAVES, D))
    return (middles[rng.integers(LEAVES, size=N)] + rng.standard_normal((N, D))).astype(np.float32)


QUERIES = np.random.default_rng(4).standard_normal((30, D), dtype=np.float32)


def build(measure: str, db: Any = None, *, tree: dict[str, Any] | None = None, **ah: Any) -> Any:
    """A builder of lut256 codes, for a tree where its settings are given."""
    builder = swann.builder(database() if db is None else db, 10, measure)  # type: ignore[arg-type]
    if tree is not None:
        builder.tree(**({"num_leaves": LEAVES, "num_leaves_to_search": LEAVES} | tree))
    return builder.score_ah(**({"dimensions_per_block": 2, "hash_type": "lut256"} | ah))


@functools.cache
def exact(measure: str) -> Searcher:
    builder = swann.builder(database(), 10, measure)  # type: ignore[arg-type]
    return builder.score_brute_force().build()


def recall(searcher: Searcher, k: int = 10) -> float:
    wanted = exact(searcher.config.distance_measure).search_batched(QUERIES, k)
    return swann.recall(search_all(searcher, QUERIES, k).indices, wanted.indices)


# ---- What it is good for


@each_measure
@pytest.mark.parametrize("tree", [None, {}], ids=["flat", "tree"])
@pytest.mark.parametrize("threshold", [None, 0.2])
def test_it_is_more_accurate(measure: str, tree: Any, threshold: float | None) -> None:
    """Than 4 bits at equal blocks, far; than 4 bits at equal bytes, too."""
    fine: dict[str, Any] = {"tree": tree, "anisotropic_quantization_threshold": threshold}
    wide = recall(build(measure, **fine).build())
    narrow = recall(build(measure, hash_type="lut16", **fine).build())
    assert wide > 0.85
    assert wide > narrow + 0.1
    as_large = recall(build(measure, dimensions_per_block=4, **fine).build())
    assert as_large > narrow - 0.02


@pytest.mark.parametrize("blocks", [1, 3, 40, 257, 300])
@each_measure
def test_few_blocks_and_many(blocks: int, measure: str) -> None:
    """Up to 257 of them entries may be 255; beyond, the scale makes room in 16 bits."""
    db = np.random.default_rng(0).standard_normal((400, 2 * blocks), dtype=np.float32)
    searcher = build(measure, db, training_iterations=3).build()
    found = search_all(searcher, db[:20], 3)
    if blocks == 1:  # 256 codewords for 400 datapoints: some share theirs
        return
    truth = swann.builder(db, 3, measure).score_brute_force().build()  # type: ignore[arg-type]
    wanted = truth.search_batched(db[:20], 3)
    assert swann.recall(found.indices, wanted.indices) > 0.85
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=0.2, atol=0.15 * blocks)


# ---- With the other stages


@each_measure
@pytest.mark.parametrize("quantize", ["FLOAT32", "INT8", "BFLOAT16"])
@pytest.mark.parametrize("soar", [None, 1.5])
def test_all_reordered_is_as_brute_force(measure: str, quantize: str, soar: float | None) -> None:
    tree = {} if soar is None else {"soar_lambda": soar}
    searcher = build(measure, tree=tree).reorder(N, swann.ReorderType[quantize]).build()
    found = search_all(searcher, QUERIES, 10, pre_reorder_num_neighbors=2 * N)
    builder = swann.builder(database(), 10, measure)  # type: ignore[arg-type]
    same = builder.score_brute_force(swann.ReorderType[quantize]).build()
    assert_same(found, same.search_batched(QUERIES))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 700),
    d=st.integers(1, 12),
    width=st.integers(1, 12),
    leaves=st.integers(0, 9),
    soar=st.booleans(),
    levels=st.sampled_from([1, 3, 1000]),
    measure=st.sampled_from(MEASURES),
)
def test_any_small_index(
    seed: int, n: int, d: int, width: int, leaves: int, soar: bool, levels: int, measure: str
) -> None:
    """Fewer datapoints than codewords, equal ones, one dimension: all ways to search agree."""
    rng = np.random.default_rng(seed)
    db = rng.integers(-levels, levels + 1, (n, d)).astype(np.float32)
    db[~db.any(axis=1), 0] = 1  # cosine wants directions
    tree: dict[str, Any] | None = None
    if leaves > 0:
        tree = {"num_leaves": leaves, "num_leaves_to_search": leaves}
        tree |= {"soar_lambda": 1.0} if soar else {}
    searcher = build(
        measure, db, tree=tree, dimensions_per_block=min(width, d), training_iterations=2
    ).build()
    queries = rng.integers(1, levels + 1, (4, d)).astype(np.float32)
    found = search_all(searcher, queries, min(n, 20))
    assert (found.indices >= 0).all()


def test_no_more_distinct_datapoints_than_codewords_are_met_exactly() -> None:
    """Each block has a codeword for each of them."""
    db = np.random.default_rng(0).standard_normal((250, 6), dtype=np.float32)
    index = build("dot_product", np.tile(db, (4, 1)), dimensions_per_block=3).build()._index
    codes = reference.unpack_codes(index.codes).reshape(-1, 2)[:1000]
    decoded = index.codebook[np.arange(6), codes[:, np.arange(6) // 3]]
    np.testing.assert_allclose(decoded, np.tile(db, (4, 1)), atol=1e-6)


# ---- Updates


@each_measure
@pytest.mark.parametrize("soar", [None, 1.5])
@pytest.mark.parametrize("count", [1, 40])
def test_upserted_datapoints_get_the_codes_of_a_build(
    measure: str, soar: float | None, count: int
) -> None:
    """Given again what they are, one by one or many at a time: the index answers as before."""
    tree = {} if soar is None else {"soar_lambda": soar}
    searcher = build(measure, tree=tree, anisotropic_quantization_threshold=0.2).build()
    before = searcher.search_batched(QUERIES, 60)
    ids = np.random.default_rng(1).choice(N, 40, replace=False)
    for first in range(0, 40, count):
        replaced = ids[first : first + count].tolist()
        searcher.upsert(replaced, database()[replaced], batch_size=count)
    after = search_all(searcher, QUERIES, 60)
    # Ties apart, which go to the lowest row: the same datapoints at the same distances.
    np.testing.assert_array_equal(after.distances, before.distances)
    # Of those as far as the last one, others may be left out.
    sure = before.distances != before.distances[:, -1:]
    for found, known, here in zip(after.indices, before.indices, sure, strict=True):
        assert set(found[here]) == set(known[here])
    assert sure.mean() > 0.9


def test_updates_are_folded_into_files(tmp_path: Path) -> None:
    searcher = build("squared_l2", tree={}).build()
    new = np.random.default_rng(5).standard_normal((300, D), dtype=np.float32)
    ids = searcher.upsert(None, new, batch_size=256)
    assert ids.tolist() == list(range(N, N + 300))
    searcher.delete(list(range(0, N, 3)))
    found = searcher.search_batched(QUERIES, 10)
    assert (found.indices >= N).any()
    assert (found.indices[found.indices < N] % 3 != 0).all()
    searcher.serialize(tmp_path)
    loaded = swann.load_searcher(tmp_path, verify="full")
    assert loaded._index.codes.shape[2] == GROUP
    again = loaded.search_batched(QUERIES, 10)
    np.testing.assert_array_equal(again.distances, found.distances)
    assert (again.indices == found.indices).mean() > 0.9  # of equal distances, rows decide


# ---- Copies, seeds, settings


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copies_answer_the_same(again: Any) -> None:
    searcher = build("cosine", tree={}).reorder(30).build()
    assert_same(search_all(again(searcher), QUERIES), search_all(searcher, QUERIES))


@each_measure
def test_the_index_is_the_same_on_any_number_of_threads(measure: str) -> None:
    arrays = []
    for threads in (1, 3):
        builder = build(measure, tree={}, anisotropic_quantization_threshold=0.2)
        arrays.append(builder.set_n_training_threads(threads).build()._index.arrays())
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        assert array.tobytes() == arrays[1][name].tobytes(), name


def test_shapes_of_the_arrays() -> None:
    index = build("dot_product").build()._index
    assert index.config.score.codewords == 256
    assert index.codebook.shape == (D, 256)
    assert index.codes.shape == (-(-N // GROUP), D // 2, kernels.block_bytes(256))
    assert len(np.unique(index.codes)) == 256


def test_an_unknown_hash_type_is_refused() -> None:
    for hash_type in ("lut128", "", None, 256):
        with pytest.raises(swann.ConfigError, match="hash_type"):
            build("dot_product", hash_type=hash_type)

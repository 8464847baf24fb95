"""What retrieval layers share, without a framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import swann
from swann.errors import (
    ConfigError,
    CorruptIndexError,
    DTypeError,
    InvalidInputError,
    NonFiniteError,
    ShapeError,
)
from swann.integrations.candidates import Candidates, check_config

RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.standard_normal((400, 8), dtype=np.float32)
IDS = np.arange(400, dtype=np.int64) * 3 - 7
QUERIES = RNG.standard_normal((5, 8), dtype=np.float32)
SCORES = QUERIES @ EMBEDDINGS.T
BEST = np.argsort(-SCORES, axis=1)

TREE = swann.IndexConfig(
    num_neighbors=10,
    distance_measure="dot_product",
    tree=swann.TreeConfig(num_leaves=40, num_leaves_to_search=2),
)


def test_ids_and_scores_of_the_best() -> None:
    scores, ids = Candidates.build(EMBEDDINGS, IDS, 10).search(QUERIES, 10)
    assert scores.dtype == np.float32
    assert ids.dtype == np.int32
    assert np.array_equal(ids, IDS[BEST[:, :10]])
    np.testing.assert_allclose(scores, np.take_along_axis(SCORES, BEST, 1)[:, :10], atol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (0,), (2, 0, 3)])
def test_shapes_of_queries(shape: tuple[int, ...]) -> None:
    queries = RNG.standard_normal((*shape, 8), dtype=np.float32)
    scores, ids = Candidates.build(EMBEDDINGS, None, 10).search(queries, 10)
    assert scores.shape == ids.shape == (*shape, 10)
    best = np.argsort(-(queries @ EMBEDDINGS.T), axis=-1)[..., :10]
    assert np.array_equal(ids, best)


def test_k_candidates_are_found_where_leaves_hold_fewer() -> None:
    candidates = Candidates.build(EMBEDDINGS, IDS, 50, TREE)
    assert (candidates.searcher.search_batched(QUERIES, 50).indices < 0).any()
    _, ids = candidates.search(QUERIES, 50)
    assert np.array_equal(ids, IDS[BEST[:, :50]])


def test_searches_take_their_limits() -> None:
    candidates = Candidates.build(EMBEDDINGS, None, 10, TREE)
    assert not np.array_equal(candidates.search(QUERIES, 10)[1], BEST[:, :10])
    assert np.array_equal(candidates.search(QUERIES, 10, leaves_to_search=40)[1], BEST[:, :10])


@pytest.mark.parametrize(
    ("embeddings", "ids", "error", "message"),
    [
        (None, None, InvalidInputError, "candidate_embeddings is None"),
        (np.zeros(10), None, ShapeError, "candidate_embeddings has 1 axes"),
        (np.zeros((3, 10)), None, ShapeError, "candidate_embeddings has 3 rows, but k=5"),
        (np.zeros((6, 10)), np.zeros(4, int), ShapeError, r"candidate_ids has shape \(4,\)"),
        (np.zeros((6, 10)), np.zeros((6, 1), int), ShapeError, "candidate_ids has shape"),
        (np.zeros((6, 10)), np.zeros(6), DTypeError, "candidate_ids has dtype float64"),
        (np.zeros((6, 10)), np.arange(6) + 2**31, InvalidInputError, "range of int32"),
        (np.full((6, 10), np.nan), None, NonFiniteError, "nan"),
    ],
)
def test_bad_candidates(
    embeddings: object, ids: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Candidates.build(embeddings, ids, 5)


def test_bad_queries() -> None:
    candidates = Candidates.build(EMBEDDINGS, None, 5)
    with pytest.raises(ShapeError, match="single number"):
        candidates.search(np.float32(1).reshape(()), 5)
    with pytest.raises(ShapeError, match="expects 8"):
        candidates.search(QUERIES[:, :7], 5)


def test_settings() -> None:
    assert check_config(TREE.to_dict()) == TREE
    with pytest.raises(ConfigError, match="squared_l2"):
        check_config(swann.IndexConfig(num_neighbors=1, distance_measure="squared_l2"))
    with pytest.raises(ConfigError, match="expected an IndexConfig"):
        check_config("tree")
    with pytest.raises(ConfigError, match="leave one out"):
        Candidates.build(EMBEDDINGS, None, 5, TREE, sample_queries=QUERIES)


def test_ids_are_copied() -> None:
    ids = IDS.astype(np.int32)
    candidates = Candidates.build(EMBEDDINGS, ids, 5)
    before = candidates.search(QUERIES, 5)[1]
    ids[:] = 0
    assert np.array_equal(candidates.search(QUERIES, 5)[1], before)


@pytest.mark.parametrize("ids", [None, IDS])
def test_saved_and_opened(ids: object, tmp_path: Path) -> None:
    candidates = Candidates.build(EMBEDDINGS, ids, 5, TREE)
    candidates.save(tmp_path)
    opened = Candidates.load(tmp_path)
    assert opened is not None
    for found, expected in zip(
        opened.search(QUERIES, 5), candidates.search(QUERIES, 5), strict=True
    ):
        assert np.array_equal(found, expected)


def test_nothing_saved(tmp_path: Path) -> None:
    assert Candidates.load(tmp_path) is None


@pytest.mark.parametrize("damage", [b"", b"nonsense", "short", "object"])
def test_damaged_ids(damage: bytes | str, tmp_path: Path) -> None:
    Candidates.build(EMBEDDINGS, IDS, 5).save(tmp_path)
    path = tmp_path / "ids.npy"
    if damage == "short":
        np.save(path, IDS[:5].astype(np.int32))
    elif damage == "object":
        np.save(path, IDS.astype(object), allow_pickle=True)
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    with pytest.raises(CorruptIndexError, match=r"ids\.npy"):
        Candidates.load(tmp_path)


@pytest.mark.parametrize("missing", ["keras", "keras_rs"])
def test_keras_is_an_extra(missing: str) -> None:
    code = f"""
import sys, types
sys.modules["keras"] = types.ModuleType("keras")
sys.modules[{missing!r}] = None
import swann
try:
    import swann.integrations.keras_rs
except swann.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert missing.replace("_", "-") in done.stdout
    assert "pip install 'swann[keras]'" in done.stdout

"""Corrections of scores by codes under the dot product, where datapoints are near each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import normal
from numpy.typing import NDArray

import swann
from swann.kernels import GROUP, reference

N, D, K = 4000, 32, 10


def cone(n: int, mean: float, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors in clusters, about a common mean of so many times their spread."""
    middles = normal(99, 40, D)[np.random.default_rng(seed).integers(0, 40, n)]
    rows = middles + np.float32(0.7) * normal(seed, n, D) + np.float32(mean) * normal(98, D)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


DB, QUERIES = cone(N, 3.0), cone(300, 3.0, seed=1)


def built(db: Any, measure: Any = "cosine", **tree: Any) -> swann.Searcher:
    builder = swann.builder(db, K, measure).tree(40, 8, **tree).score_ah(2, 0.2)
    return builder.reorder(50).build()


def recall(searcher: swann.Searcher, queries: Any = QUERIES, **options: Any) -> float:
    true = swann.exact_neighbors(DB, queries, K, "cosine").indices
    return swann.recall(searcher.search_batched(queries, **options).indices, true)


@pytest.mark.parametrize("measure", ["cosine", "dot_product"])
def test_what_is_near_its_centroid_has_them(measure: str) -> None:
    assert built(DB, measure)._index.corrections is not None
    assert built(normal(0, N, D), measure)._index.corrections is None
    if measure == "dot_product":  # long rows are found by queries that do not look like them
        lengths = np.random.default_rng(0).uniform(0.5, 2, (N, 1)).astype(np.float32)
        assert built(DB * lengths, measure)._index.corrections is None


@pytest.mark.parametrize("measure", ["cosine", "dot_product"])
def test_a_common_mean_costs_no_recall(measure: str) -> None:
    """The error of a code along the mean counted for every query: .79 for .95 before."""
    everything = {"leaves_to_search": 40, "pre_reorder_num_neighbors": 20}
    found = [recall(built(DB, name), **everything) for name in (measure, "squared_l2")]
    assert found[0] >= found[1] - 0.01
    assert found[0] > 0.9


@pytest.mark.parametrize("length", [1e-3, 0.1, 1.0, 10.0, 1e3])
def test_the_length_of_a_query_changes_nothing(length: float) -> None:
    searcher = built(DB, "dot_product")
    plain = searcher.search_batched(QUERIES)
    found = searcher.search_batched(QUERIES * np.float32(length))
    assert swann.recall(found.indices, plain.indices) > 0.999
    assert found.distances == pytest.approx(plain.distances * length, rel=1e-4)


@pytest.mark.parametrize("length", [1.0, 5.0])
def test_scores_are_those_of_the_definition(length: float) -> None:
    """<q, y> + |q| (|x|^2 - |y|^2) / (2 |x|), y being what the code of x stands for."""
    db = DB * np.float32(length)
    searcher = swann.builder(db, 100, "dot_product").tree(40, 40).score_ah(2, 0.2).build()
    index = searcher._index
    starts = index.leaf_starts.astype(np.intp)
    sizes = np.diff(starts)
    groups = np.concatenate([[0], np.cumsum(-(-sizes // GROUP))])
    firsts = GROUP * groups[:-1] - starts[:-1]
    codes = reference.unpack_codes(index.codes).reshape(-1, D // 2)
    codes = codes[np.arange(N) + np.repeat(firsts, sizes)]
    decoded = np.stack([index.codebook[j, codes[:, j // 2]] for j in range(D)], axis=1)
    leaves = np.repeat(np.arange(40), sizes)
    stands_for = index.centroids[leaves] + decoded
    rows = db[index.ids]
    norms = np.linalg.norm(rows, axis=1)
    less = (norms**2 - (stands_for**2).sum(axis=1)) / (2 * norms)
    scores = np.full(len(db), -np.inf)
    query = QUERIES[0] * 3
    scores[index.ids] = stands_for @ query + np.linalg.norm(query) * less
    found = searcher.search(query)
    assert found.distances == pytest.approx(scores[found.indices], rel=2e-3)
    best = np.sort(scores)[::-1][:100]
    assert np.sort(found.distances)[::-1] == pytest.approx(best, rel=2e-3)


@pytest.mark.parametrize(
    "tree", [{}, {"soar_lambda": 1.0}, {"spherical": True}], ids=["plain", "soar", "spherical"]
)
def test_later_datapoints_are_scored_as_those_of_the_build(tree: dict[str, Any]) -> None:
    whole, half = built(DB, **tree), built(DB[: N // 2], **tree)
    assert half._index.corrections is not None
    half.upsert(None, DB[N // 2 :])
    least = recall(whole) - 0.02
    assert recall(half) >= least
    half.upsert(np.arange(100), DB[:100])
    half.delete(np.arange(3900, 4000))
    half.upsert(None, DB[3900:])
    assert recall(half) >= least
    half.rebalance()
    assert half._index.corrections is not None
    assert recall(half) >= least


def test_they_are_saved_under_a_feature(tmp_path: Path) -> None:
    searcher = built(DB)
    searcher.save(tmp_path / "index")
    again = swann.load(tmp_path / "index", verify="full")
    one, other = (s.search_batched(QUERIES) for s in (searcher, again))
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.distances, other.distances)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest["features"] == ["code_center", "corrected"]


@pytest.mark.parametrize("hash_type", ["lut16", "lut256"])
@pytest.mark.parametrize("dims", [2, 3])
def test_with_other_codes(hash_type: Any, dims: int) -> None:
    builder = swann.builder(DB, K, "cosine").tree(40, 8)
    searcher = builder.score_ah(dims, 0.2, hash_type=hash_type).reorder(80).build()
    assert searcher._index.corrections is not None
    assert recall(searcher, leaves_to_search=40) > 0.95


def test_a_row_of_zeros_is_no_query() -> None:
    db = DB.copy()
    db[7] = 0
    searcher = built(db, "dot_product")  # its length is not that of the others
    assert searcher._index.corrections is None
    searcher = built(DB, "dot_product")
    (row,) = searcher.upsert(None, np.zeros((1, D), np.float32))
    assert row not in searcher.search_batched(QUERIES).indices
    zero = searcher.search(np.zeros(D, np.float32))
    assert zero.distances == pytest.approx(np.zeros(K))

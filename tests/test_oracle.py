"""Random indexes of random data answer as NumPy does; see `benchmarks/trust/oracle`.

The cases are those of ``make trust ARGS=oracle``. Hypothesis draws them here, and makes those that
fail smaller.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swann
from benchmarks.trust.oracle.case import Case, Disagreement
from swann import Searcher, SearchResult


@settings(
    max_examples=50,
    suppress_health_check=list(HealthCheck),
)
@given(rng=st.randoms(use_true_random=False))
def test_any_index_answers_as_numpy_does(rng: Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Case(rng, Path(folder)).run()


# ---- It notices what it is there for


def _nearer(found: SearchResult) -> SearchResult:
    return SearchResult(found.indices, found.distances * np.float32(1.00001))


def _moved(found: SearchResult) -> SearchResult:
    return SearchResult(np.roll(found.indices, 1, axis=1), found.distances)


def _twice(found: SearchResult) -> SearchResult:
    indices = found.indices.copy()
    indices[:, -1] = indices[:, 0]
    return SearchResult(indices, found.distances)


def _short(found: SearchResult) -> SearchResult:
    indices, distances = found.indices.copy(), found.distances.copy()
    indices[:, -1], distances[:, -1] = -1, np.nan
    return SearchResult(indices, distances)


def _second_best(found: SearchResult) -> SearchResult:
    return SearchResult(found.indices[:, 1:], found.distances[:, 1:])


@pytest.mark.parametrize("wrong", [_nearer, _moved, _twice, _short])
def test_wrong_answers_are_seen(
    wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Searcher._search

    def search(self: Searcher, *arguments: Any) -> SearchResult:
        found = right(self, *arguments)
        return wrong(found) if found.indices.size else found

    monkeypatch.setattr(Searcher, "_search", search)
    monkeypatch.setattr(Searcher, "search", lambda s, q, *rest: _first(search, s, q, rest))
    assert _seen(tmp_path) > 3


def test_a_missing_neighbor_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Searcher._search

    def search(self: Searcher, queries: Any, limits: Any, threads: int) -> SearchResult:
        k, candidates, leaves = limits
        return _second_best(right(self, queries, (k + 1, candidates + 1, leaves), threads))

    monkeypatch.setattr(Searcher, "_search", search)
    monkeypatch.setattr(Searcher, "search", lambda s, q, *rest: _first(search, s, q, rest))
    assert _seen(tmp_path) > 3


def test_an_answer_alone_that_differs_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Searcher.search

    def search(self: Searcher, *arguments: Any) -> SearchResult:
        found = right(self, *arguments)
        return SearchResult(found.indices, np.nextafter(found.distances, np.float32(9)))

    monkeypatch.setattr(Searcher, "search", search)
    assert _seen(tmp_path) > 3


def _first(search: Any, searcher: Searcher, query: Any, rest: Any) -> SearchResult:
    """Answer one query as a batch of one."""
    found = search(searcher, query[None], searcher._resolve(*rest), 1)
    return SearchResult(found.indices[0], found.distances[0])


def _seen(folder: Path) -> int:
    """Return in how many of ten cases something is wrong."""
    seen = 0
    for i in range(10):
        (folder / str(i)).mkdir()
        try:
            Case(Random(f"notices/{i}"), folder / str(i)).run()
        except Disagreement:
            seen += 1
    return seen


# ---- What it found


@pytest.mark.parametrize("shrink", [1e-20, 1e-38, 1e-40, 1e-42])
def test_the_shortest_queries_have_directions_too(shrink: float) -> None:
    """Under cosine, one over their length is more than a float32 holds."""
    db = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    searcher = swann.builder(db, 3, "cosine").score_brute_force().build()
    expected, found = searcher.search(db[7]), searcher.search(db[7] * np.float32(shrink))
    assert found.indices.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-2)
    same = searcher.search_batched(db[7:8] * np.float32(shrink))
    np.testing.assert_array_equal(same.distances[0], found.distances)


@pytest.mark.parametrize(("n", "d"), [(2, 95), (2, 119), (24, 236), (11, 82)])
def test_fewer_datapoints_than_dimensions_have_principal_components(n: int, d: int) -> None:
    """Eigenvalues that differ by roundings only are many then, and QR steps did not end."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        for db in (rng.standard_normal((n, d)), np.eye(d)[rng.integers(d, size=n)] * 1000):
            searcher = swann.builder(db, 1, "dot_product").pca(3).score_ah(1).reorder(n).build()
            found = searcher.search(db[1], 1)
            assert found.distances[0] == pytest.approx((db @ db[1]).max(), rel=1e-5)


def _codes_of_zeros(threshold: float | None = None) -> Searcher:
    """An index under cosine that keeps codes only, many of which stand for zeros."""
    db = np.eye(22, dtype=np.float32)[np.random.default_rng(0).integers(22, size=204)]
    builder = swann.builder(db, 5, "cosine")
    builder.tree(2, 2, min_partition_size=0, incremental_threshold=threshold)
    return builder.truncate(2).score_ah(2).build()


def test_leaves_that_are_split_lose_no_datapoint() -> None:
    """What codes stand for was refused as zeros, and the datapoints were gone."""
    searcher = _codes_of_zeros(5)
    for i in range(6):
        searcher.upsert(None, np.eye(22, dtype=np.float32)[:20] + np.float32(i))
        assert len(searcher) == 204 + 20 * (i + 1)
    found = searcher.search(np.ones(22), 400, leaves_to_search=99)
    assert sorted(found.indices[:324].tolist()) == list(range(324))


def test_what_cannot_be_built_anew_stays_as_it_was() -> None:
    searcher = _codes_of_zeros()
    before = searcher.search_batched(np.eye(22), 9)
    with pytest.raises(swann.ZeroVectorError, match=r"cannot be built anew .* all zeros"):
        searcher.rebalance()
    np.testing.assert_array_equal(searcher.search_batched(np.eye(22), 9).indices, before.indices)


@pytest.mark.parametrize("precision", ["BFLOAT16", "INT8", "FLOAT32"])
def test_rows_do_not_drift_while_leaves_are_split(precision: str) -> None:
    """Under cosine rows were brought to unit length, and rounded, once more each time."""
    rng = np.random.default_rng(0)
    db = rng.standard_normal((300, 8)).astype(np.float32) * 10.0 ** rng.uniform(-3, 3, 8)
    builder = swann.builder(db, 5, "cosine").tree(4, 4, incremental_threshold=5)
    searcher = builder.score_brute_force(swann.ReorderType[precision]).build()
    kept = searcher._live.vectors(np.arange(300))
    for i in range(20):
        places = rng.standard_normal((60, 8)) + 5 * rng.standard_normal(8)
        searcher.upsert(range(300, 360) if i else None, places)
        searcher.upsert(range(300, 360), rng.standard_normal((60, 8)))
    assert searcher._index.num_leaves != 4
    np.testing.assert_array_equal(searcher._live.vectors(np.arange(300)), kept)

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
    deadline=None,
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

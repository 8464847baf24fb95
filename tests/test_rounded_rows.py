"""Exhaustive search in batches finds rows by 8-bit scores first; nothing may change by that."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swann

Measure = Literal["dot_product", "squared_l2", "cosine"]
MEASURES: tuple[Measure, ...] = ("dot_product", "squared_l2", "cosine")


def same_as_alone(
    searcher: swann.Searcher, queries: Any, k: int, leaves: int | None = None
) -> None:
    """Hold a batch against queries that are asked one by one, which are scored in float32."""
    ids, distances = searcher.search_batched(queries, k, None, leaves)
    for query, found, far in zip(queries, ids, distances, strict=True):
        alone = searcher.search(query, k, None, leaves)
        np.testing.assert_array_equal(found, alone.indices)
        np.testing.assert_array_equal(far, alone.distances)


def vectors(rng: np.random.Generator, kind: str, n: int, d: int) -> np.ndarray[Any, Any]:
    made = rng.standard_normal((n, d))
    if kind == "ties":
        made = np.round(made)
        made[:, 0] += 1.5
    elif kind == "twins":
        made = made[rng.integers(0, 5, n)]
    elif kind == "lengths":
        made *= 10.0 ** rng.integers(-6, 6, (n, 1))
    elif kind == "dimensions":
        made *= 10.0 ** rng.integers(-5, 5, d)
    elif kind == "close":
        made = 1 + made * 1e-6
    elif kind == "images":
        made = np.maximum(0, np.round(made * 100))
        made[:, 0] += 1
    elif kind == "huge":
        made *= 1e17 / np.sqrt(d)
    elif kind == "tiny":
        made *= 1e-19
    return made.astype(np.float32)


KINDS = ["plain", "ties", "twins", "lengths", "dimensions", "close", "images", "huge", "tiny"]


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    measure=st.sampled_from(MEASURES),
    kind=st.sampled_from(KINDS),
    of_queries=st.sampled_from(KINDS),
    n=st.integers(130, 1500),
    d=st.integers(1, 70),
    count=st.integers(24, 60),
    k=st.integers(1, 40),
)
def test_a_batch_is_as_exact_as_one_query(
    seed: int, measure: Measure, kind: str, of_queries: str, n: int, d: int, count: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    db, queries = vectors(rng, kind, n, d), vectors(rng, of_queries, count, d)
    if measure == "cosine":
        db[~db.any(axis=1)] = 1
        queries[~queries.any(axis=1)] = 1
    searcher = swann.builder(db, k, measure).score_brute_force().build()
    same_as_alone(searcher, queries, k)


@pytest.mark.parametrize("k", [1, 63, 70, 600, 2100])
@pytest.mark.parametrize("kind", ["plain", "ties"])
@pytest.mark.parametrize("measure", MEASURES)
def test_few_and_many_neighbors(measure: Measure, kind: str, k: int) -> None:
    """What passes is scored at once while many queries want it, and waits then."""
    rng = np.random.default_rng(k)
    db, queries = vectors(rng, kind, 6000, 12), vectors(rng, kind, 200, 12)
    searcher = swann.builder(db, k, measure).score_brute_force().build()
    ids, distances = searcher.search_batched(queries, k)
    for at in range(0, len(queries), 20):
        alone = searcher.search(queries[at], k)
        np.testing.assert_array_equal(ids[at], alone.indices)
        np.testing.assert_array_equal(distances[at], alone.distances)


@pytest.mark.parametrize("measure", MEASURES)
def test_leaves_of_a_tree(measure: Measure) -> None:
    rng = np.random.default_rng(5)
    db, queries = rng.standard_normal((4000, 20)), rng.standard_normal((300, 20))
    searcher = swann.builder(db, 7, measure).tree(6, 3).score_brute_force().build()
    same_as_alone(searcher, queries.astype(np.float32), 7, 3)


@pytest.mark.parametrize("measure", MEASURES)
def test_changed_indexes(measure: Measure) -> None:
    rng = np.random.default_rng(6)
    db, queries = rng.standard_normal((3000, 12)), rng.standard_normal((100, 12))
    searcher = swann.builder(db, 9, measure).score_brute_force().build(docids=range(3000))
    dead = searcher.search_batched(queries, 3).indices
    searcher.delete(np.unique(dead).tolist())
    searcher.upsert(list(range(5000, 5040)), queries[:40])
    same_as_alone(searcher, queries.astype(np.float32), 9)
    assert not np.isin(searcher.search_batched(queries, 9).indices, dead).any()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    measure=st.sampled_from(MEASURES),
    kind=st.sampled_from(KINDS),
    of_queries=st.sampled_from(KINDS),
    d=st.integers(1, 40),
    leaves=st.sampled_from([1, 3, 20, 90, 149, 150]),
    spherical=st.booleans(),
)
def test_one_query_visits_the_leaves_that_a_batch_visits(
    seed: int,
    measure: Measure,
    kind: str,
    of_queries: str,
    d: int,
    leaves: int,
    spherical: bool,
) -> None:
    """One query finds leaves by 8-bit centroids, a batch by float32 ones."""
    rng = np.random.default_rng(seed)
    db, queries = vectors(rng, kind, 600, d), vectors(rng, of_queries, 12, d)
    if measure != "squared_l2":
        db[~db.any(axis=1)] = 1
        queries[~queries.any(axis=1)] = 1
    builder = swann.builder(db, 600, measure)
    builder.tree(150, 3, spherical=spherical and measure != "squared_l2", training_iterations=2)
    same_as_alone(builder.score_brute_force().build(), queries, 600, leaves)

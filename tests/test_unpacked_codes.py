"""Batches by lookup tables and by unpacked codes give the same answers, those of single queries."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann.kernels.testing import force_scan

F32 = NDArray[np.float32]

N, QUERIES = 4000, 300


@pytest.fixture(autouse=True)
def the_faster_way_afterwards() -> Iterator[None]:
    yield
    force_scan("faster")


def vectors(seed: int, count: int, dimension: int) -> F32:
    return np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)


def answers(searcher: swann.Searcher, queries: F32, way: str) -> tuple[bytes, bytes]:
    force_scan(way)
    found = searcher.search_batched(queries, 10)
    return np.asarray(found.indices).tobytes(), np.asarray(found.distances).tobytes()


@pytest.mark.parametrize("soar_lambda", [None, 1.0])
@pytest.mark.parametrize("reorder", [False, True])
@pytest.mark.parametrize(("dimension", "width"), [(19, 2), (30, 3), (150, 2), (7, 7)])
def test_both_ways_give_the_same(
    dimension: int, width: int, reorder: bool, soar_lambda: float | None
) -> None:
    """With leaves of more than a thousand datapoints, few dimensions over, and twins."""
    builder = swann.builder(vectors(0, N, dimension), 10, "dot_product")
    builder.tree(3 if width == 3 else 20, 3, soar_lambda=soar_lambda).score_ah(width, 0.2)
    searcher = (builder.reorder(40) if reorder else builder).build()
    queries = vectors(1, QUERIES, dimension)
    queries[0] *= np.float32(1e-20)  # all products round to zero
    queries[1] *= np.float32(1e12)
    by_tables = answers(searcher, queries, "tables")
    assert answers(searcher, queries, "unpacked") == by_tables
    assert answers(searcher, queries, "faster") == by_tables
    force_scan("unpacked")
    alone = [searcher.search(query, 10) for query in queries]
    assert np.array([found.indices for found in alone], np.int64).tobytes() == by_tables[0]


def test_changes_are_seen_by_both_ways() -> None:
    searcher = swann.builder(vectors(0, N, 16), 10, "cosine").tree(10, 4).score_ah(2, 0.2).build()
    queries = vectors(1, QUERIES, 16)
    before = answers(searcher, queries, "tables")
    searcher.delete(list(range(0, N, 3)))
    searcher.upsert(None, vectors(2, 500, 16))
    after = answers(searcher, queries, "tables")
    assert after != before
    assert answers(searcher, queries, "unpacked") == after


def test_other_codes_go_by_tables() -> None:
    for measure, hash_type in (("squared_l2", "lut16"), ("dot_product", "lut256")):
        builder = swann.builder(vectors(0, N, 16), 10, measure)  # type: ignore[arg-type]
        searcher = builder.tree(10, 4).score_ah(2, hash_type=hash_type).build()
        queries = vectors(1, QUERIES, 16)
        assert answers(searcher, queries, "unpacked") == answers(searcher, queries, "tables")


def test_a_way_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="tables, unpacked or faster"):
        force_scan("stairs")

"""Exact search of few queries: rows in 8 bits, which searches make, change no answer."""

from __future__ import annotations

import copy
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import swann
from swann import ReorderType

F32 = NDArray[np.float32]
Answers = tuple[NDArray[np.int64], F32]
FLOAT32, BFLOAT16, INT8 = ReorderType.FLOAT32, ReorderType.BFLOAT16, ReorderType.INT8
ENOUGH = 8  # queries that are looked at first (native/byte_rows.cpp)


def build(db: F32, measure: Any, tree: str, rows: ReorderType = FLOAT32) -> swann.Searcher:
    builder = swann.builder(db, 5, measure).score_brute_force(rows)
    if tree == "tree":
        builder = builder.tree(12, 5)
    if tree == "soar":
        builder = builder.tree(12, 5, soar_lambda=1.0)
    return builder.build()


def alone(searcher: swann.Searcher, queries: F32) -> Answers:
    answers = [searcher.search(query) for query in queries]
    return np.stack([a.indices for a in answers]), np.stack([a.distances for a in answers])


def by_floats(
    db: F32,
    measure: Any,
    tree: str,
    queries: F32,
    dead: list[int],
    rows: ReorderType = FLOAT32,
) -> Answers:
    """The answers of indexes that have not seen enough queries yet."""
    parts = []
    for first in range(0, len(queries), ENOUGH - 1):
        fresh = build(db, measure, tree, rows)
        fresh.delete(dead)
        parts.append(alone(fresh, queries[first : first + ENOUGH - 1]))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def same_as_all(searcher: swann.Searcher, queries: F32, answers: Answers) -> bool:
    """Whether these are the best where all are asked for, and so no score can be left out.

    Of those that are as near as the last one, which are found depends on the order of the leaves.
    """
    for query, indices, distances in zip(queries, *answers, strict=True):
        every = searcher.search(query, searcher.size())
        scores = dict(zip(every.indices.tolist(), every.distances, strict=True))
        if distances.tobytes() != every.distances[: len(distances)].tobytes():
            return False
        if any(scores[i] != d for i, d in zip(indices.tolist(), distances, strict=True)):
            return False
    return True


def same(one: Answers, other: Answers) -> bool:
    return np.array_equal(one[0], other[0]) and one[1].tobytes() == other[1].tobytes()


@st.composite
def problems(draw: st.DrawFn) -> tuple[F32, F32, str, str, bool]:
    """A database, queries, a measure, a tree, and whether datapoints are deleted."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, dimension = draw(st.integers(257, 2500)), draw(st.integers(2, 70))
    db = rng.standard_normal((count, dimension))
    queries = rng.standard_normal((30, dimension))
    kind = draw(st.sampled_from(["normal", "integers", "copies", "sparse", "heavy", "changing"]))
    if kind == "integers":  # many ties
        db, queries = np.round(db), np.round(2 * queries)
    elif kind == "copies":
        db = db[rng.integers(0, count // 20, count)]
    elif kind == "sparse":  # what is looked at first is zero where others are not
        db *= rng.random(db.shape) < 0.1
        queries *= rng.random(queries.shape) < 0.1
    elif kind == "heavy":
        db *= rng.pareto(1.0, (count, 1)) + 1e-3
    elif kind == "changing":
        queries[10:] *= 10.0 ** rng.uniform(-6, 6, dimension)
    scale = 10.0 ** draw(st.integers(-8, 8))
    db, queries = db * scale, queries / scale
    db[:, 0] += 1e-3 * scale  # no row is zero
    queries[:, -1] += 1e-3 / scale
    measure = draw(st.sampled_from(["dot_product", "squared_l2", "cosine"]))
    tree = draw(st.sampled_from(["none", "tree", "soar"]))
    return db.astype(np.float32), queries.astype(np.float32), measure, tree, draw(st.booleans())


def in_parts(searcher: swann.Searcher, queries: F32, at_once: int) -> Answers:
    parts = [
        searcher.search_batched(queries[first : first + at_once])
        for first in range(0, len(queries), at_once)
    ]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


@given(problems(), st.sampled_from([FLOAT32, BFLOAT16]))
@settings(max_examples=60, deadline=None)
def test_no_answer_changes_by_a_bit(
    problem: tuple[F32, F32, str, str, bool], rows: ReorderType
) -> None:
    db, queries, measure, tree, deletes = problem
    dead = list(range(0, len(db), 7)) if deletes else []
    want = by_floats(db, measure, tree, queries, dead, rows)
    searcher = build(db, measure, tree, rows)
    searcher.delete(dead)
    alone(searcher, queries[:ENOUGH])
    assert same(alone(searcher, queries), want)
    for at_once in (3, len(queries)):
        assert same(in_parts(searcher, queries, at_once), want), at_once


@given(problems())
@settings(max_examples=60, deadline=None)
def test_no_answer_of_int8_rows_changes_by_a_bit(problem: tuple[F32, F32, str, str, bool]) -> None:
    """They are held against thresholds as they lie, by few queries, or in 8 bits by many."""
    db, queries, measure, tree, deletes = problem
    searcher = build(db, measure, tree, INT8)
    searcher.delete(list(range(0, len(db), 7)) if deletes else [])
    answers = alone(searcher, queries)
    assert same_as_all(searcher, queries, answers)
    for at_once in (3, len(queries)):
        assert same(in_parts(searcher, queries, at_once), answers), at_once


@pytest.mark.parametrize("first", [0.0, 1e-23, 1.0])
@pytest.mark.parametrize("size", [1e-17, 1e-23, 1e-24])
def test_rows_whose_squares_are_no_floats(size: float, first: float) -> None:
    """All point one way, so that errors add up, after queries that say nothing, or are as small."""
    rng = np.random.default_rng(0)
    db = (size * rng.uniform(1, 2, (3000, 768))).astype(np.float32)
    queries = rng.uniform(0.5, 1, (21, 768)).astype(np.float32)
    searcher = build(db, "dot_product", "none")
    alone(searcher, queries[:ENOUGH] * np.float32(first))
    assert same(alone(searcher, queries), by_floats(db, "dot_product", "none", queries, []))


def test_rows_below_what_floats_hold() -> None:
    """Their bounds are nothing, and so are the errors of these: still the best are found."""
    rng = np.random.default_rng(0)
    db = rng.standard_normal((4000, 8)).astype(np.float32)
    db[:, 0] = -1.0
    db[1000:, 1:] = 0.0
    db[1000:, 0] = 1.4e-43 + 4e-44 * np.linspace(0, 1, 3000)  # the best are the last
    queries = np.zeros((30, 8), np.float32)
    queries[:, 0] = rng.uniform(0.5, 1, 30)
    searcher = build(db, "dot_product", "none")
    alone(searcher, queries[:ENOUGH])
    assert same(alone(searcher, queries), by_floats(db, "dot_product", "none", queries, []))


@pytest.mark.parametrize("tree", ["none", "tree", "soar"])
def test_changes_go_on(tree: str) -> None:
    rng = np.random.default_rng(0)
    db = rng.standard_normal((3000, 24), dtype=np.float32)
    queries = rng.standard_normal((30, 24), dtype=np.float32)
    searcher = build(db, "dot_product", tree)
    alone(searcher, queries)
    new = rng.standard_normal((700, 24), dtype=np.float32) * 2
    searcher.upsert(None, new)
    searcher.delete(list(range(500)))
    before = searcher.search_batched(queries, leaves_to_search=12)
    exact = np.concatenate([db[500:], new]) @ queries.T
    assert np.allclose(before.distances, -np.sort(-exact, axis=0)[:5].T, rtol=1e-5)
    searcher.rebalance()
    for _ in range(2):  # before and after the new rows are looked at in 8 bits
        after = [searcher.search(query, leaves_to_search=12).distances for query in queries]
        assert np.allclose(np.stack(after), before.distances, rtol=1e-5)


def by_floats_folded(searcher: swann.Searcher, queries: F32) -> Answers:
    """The answers of copies, which have no changes beside them and have seen no queries."""
    parts = []
    for first in range(0, len(queries), ENOUGH - 1):
        parts.append(alone(copy.deepcopy(searcher), queries[first : first + ENOUGH - 1]))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


@pytest.mark.parametrize("rows", [FLOAT32, BFLOAT16, INT8])
@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
@pytest.mark.parametrize(
    ("size", "tree"), [(0, "none"), (40, "none"), (900, "none"), (900, "tree"), (900, "soar")]
)
def test_rows_that_come_later(size: int, tree: str, measure: Any, rows: ReorderType) -> None:
    """They are in 8 bits by sixteens, in larger places each time that a chunk of them is full."""
    rng = np.random.default_rng(size)
    queries = rng.standard_normal((260, 20), dtype=np.float32)
    searcher = build(rng.standard_normal((size, 20), dtype=np.float32), measure, tree, rows)
    alone(searcher, queries[:ENOUGH])
    for more in (3, 40, 700, 2000, 5):
        new = rng.standard_normal((more, 20), dtype=np.float32)
        ids = searcher.upsert(None, new * rng.uniform(0.5, 2, (more, 1)).astype(np.float32))
        want = by_floats_folded(searcher, queries[:30])
        assert same(alone(searcher, queries[:30]), want), more
        assert same(in_parts(searcher, queries[:30], 5), want), more
        for at_once in (30, 260):
            found = in_parts(searcher, queries, at_once)
            assert same((found[0][:30], found[1][:30]), want), (more, at_once)
        searcher.upsert(ids[: more // 3], rng.standard_normal((more // 3, 20), dtype=np.float32))
        searcher.delete(ids[more // 2 :: 3])


@pytest.mark.parametrize("tree", ["none", "tree", "soar"])
def test_rows_come_a_few_at_a_time(tree: str) -> None:
    """Those that fill no sixteen are scored as they are; what is made of others stays right."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((60, 16), dtype=np.float32)
    searcher = build(rng.standard_normal((600, 16), dtype=np.float32), "dot_product", tree)
    alone(searcher, queries[:ENOUGH])
    for more in rng.integers(1, 16, 150):
        searcher.upsert(None, rng.standard_normal((more, 16), dtype=np.float32))
        searcher.search(queries[0], leaves_to_search=12)
    assert same(alone(searcher, queries), by_floats_folded(searcher, queries))


@pytest.mark.parametrize("tree", ["none", "tree"])
def test_rows_come_while_threads_search(tree: str) -> None:
    """Searches hold chunks that then grow: they and what comes later share their bytes."""
    rng = np.random.default_rng(0)
    db = rng.standard_normal((600, 16), dtype=np.float32)
    queries = rng.standard_normal((12, 16), dtype=np.float32)
    searcher = build(db, "dot_product", tree)
    done = threading.Event()
    fell: list[float] = []

    def search() -> None:
        best = np.full(len(queries), -np.inf)
        while not done.is_set():
            found = alone(searcher, queries)[1][:, 0]
            fell.extend(best[found < best])  # nothing is deleted: the best can only rise
            best = np.maximum(best, found)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        searcher.upsert(None, rng.standard_normal((20, 16), dtype=np.float32))
        time.sleep(0.001)
    done.set()
    for thread in threads:
        thread.join()
    assert not fell
    assert same(alone(searcher, queries), by_floats_folded(searcher, queries))


def test_threads_make_them_together() -> None:
    rng = np.random.default_rng(0)
    db = rng.standard_normal((60_000, 32), dtype=np.float32)
    queries = rng.standard_normal((25, 32), dtype=np.float32)
    want = by_floats(db, "squared_l2", "none", queries, [])
    searcher = build(db, "squared_l2", "none")
    found: list[Answers] = []
    threads = [
        threading.Thread(target=lambda: found.append(alone(searcher, queries))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(same(answers, want) for answers in found)

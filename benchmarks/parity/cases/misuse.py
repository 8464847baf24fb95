"""What ScaNN dies of, or takes in silence: bad numbers, zero counts, settings out of range."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.parity.case import Answer, Case, Lib, answer, short
from benchmarks.parity.small import (
    DB,
    PIPELINES,
    QUERIES,
    Stages,
    ah,
    brute,
    build,
    reorder,
    tree,
)

FULL = (tree(), ah, reorder())
BAD = {"NaN": np.nan, "infinity": np.inf}
# What ends ScaNN's process, or may leave it unfit for other cases.
DEADLY = ("set_num_threads", "batch_size", "pca(0)", "NaN", "infinity", "leaves_to_search of int8")


def _case(name: str, run: Any) -> Case:
    return Case(f"misuse/{name}", run, deadly=name.startswith(DEADLY))


def _bad_database(bad: str, name: str, stages: tuple[Stages, ...]) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        db = DB.copy()
        db[7, 3] = BAD[bad]
        return Answer().refused("build", lambda: build(lib, stages, db))

    return _case(f"{bad} in a database/{name}", run)


def _bad_query(bad: str, name: str, stages: tuple[Stages, ...]) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        searcher = build(lib, stages)
        queries = QUERIES.copy()
        queries[5, 2] = BAD[bad]
        seen = Answer()
        seen.refused("single", lambda: searcher.search(queries[5]))
        seen.refused("batch", lambda: searcher.search_batched(queries))
        seen.refused("parallel", lambda: searcher.search_batched_parallel(queries))
        after = searcher.search_batched(QUERIES)
        return seen.check(np.isfinite(after[1]).all(), "later searches are broken")

    return _case(f"{bad} in a query/{name}", run)


def _refused(name: str, call: Any) -> Case:
    """A call on a searcher of the whole pipeline that must be refused, and change nothing."""

    def run(lib: Lib, cut: Any) -> Answer:
        searcher = build(lib, FULL)
        before = searcher.search_batched(QUERIES)
        seen = Answer().refused(name, lambda: call(searcher), ValueError, TypeError)
        after = searcher.search_batched(QUERIES)
        return seen.check(np.array_equal(before[0], after[0]), "answers differ afterwards")

    return _case(name, run)


def _setting(name: str, stages: tuple[Stages, ...]) -> Case:
    """A setting that must be refused when the index is built at the latest."""

    def run(lib: Lib, cut: Any) -> Answer:
        return Answer().refused("build", lambda: build(lib, stages), ValueError, TypeError)

    return _case(name, run)


def _answers(name: str, stages: tuple[Stages, ...], **limits: Any) -> Case:
    """Something odd that has a sensible answer all the same."""

    def run(lib: Lib, cut: Any) -> Answer:
        result = build(lib, stages).search_batched(QUERIES, **limits)
        seen = answer(result)
        return seen.check(np.isfinite(result[1]).all(), "a distance is not finite")

    return _case(name, run)


def _wrong_type(name: str, db: Any) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        return Answer().refused("build", lambda: build(lib, (brute(),), db), ValueError, TypeError)

    return _case(name, run)


def zeros_under_a_tree(lib: Lib, cut: Any) -> Answer:
    """Rows of zeros have a place in a tree of dot products."""
    db = np.concatenate([np.zeros((400, 16), np.float32), DB])
    result = build(lib, FULL, db).search_batched(QUERIES)
    return answer(result).check((np.asarray(result[0]) >= 400).all(), "zeros are found")


def negative_threads(lib: Lib, cut: Any) -> Answer:
    """Training on -1 threads."""
    builder = lib.builder(DB, "dot_product").score_brute_force()
    return Answer().refused("build", lambda: builder.set_n_training_threads(-1).build())


def huge_values(lib: Lib, cut: Any) -> Answer:
    """Values whose squares overflow float32 must not become infinite distances."""
    db = DB.copy()
    db[0] *= 1e25
    try:
        result = build(lib, (brute(),), db, "squared_l2").search_batched(QUERIES, len(db))
    except ValueError as error:
        return Answer(says=short(error))
    return answer(result).check(np.isfinite(result[1]).all(), "a distance is not finite")


def lists(lib: Lib, cut: Any) -> Answer:
    """Queries as lists."""
    searcher = build(lib, FULL)
    expected = searcher.search(QUERIES[0])
    one = searcher.search(QUERIES[0].tolist())
    many = searcher.search_batched(QUERIES.tolist())
    return answer(many).check(np.array_equal(one[0], expected[0]), "other answers")


NAMES = ("brute force", "AH reorder", "tree AH reorder")

CASES = [
    *(_bad_database(bad, name, PIPELINES[name]) for bad in BAD for name in NAMES),
    *(_bad_query(bad, name, PIPELINES[name]) for bad in BAD for name in NAMES),
    _refused("set_num_threads(0)", lambda s: s.set_num_threads(0)),
    _refused("set_num_threads(-1)", lambda s: s.set_num_threads(-1)),
    _refused("batch_size=0", lambda s: s.search_batched_parallel(QUERIES, batch_size=0)),
    _refused("batch_size=-1", lambda s: s.search_batched_parallel(QUERIES, batch_size=-1)),
    _refused("final_num_neighbors=0", lambda s: s.search_batched(QUERIES, 0)),
    _refused("final_num_neighbors=-7", lambda s: s.search_batched(QUERIES, -7)),
    _refused("pre_reorder_num_neighbors=0", lambda s: s.search_batched(QUERIES, 5, 0)),
    _refused("leaves_to_search=0", lambda s: s.search_batched(QUERIES, leaves_to_search=0)),
    _refused("leaves_to_search=-5", lambda s: s.search_batched(QUERIES, leaves_to_search=-5)),
    _refused("a query of another dimension", lambda s: s.search(QUERIES[0, :8])),
    _refused("queries of another dimension", lambda s: s.search_batched(QUERIES[:, :8])),
    _refused("one query where a batch belongs", lambda s: s.search_batched(QUERIES[0])),
    _refused("a batch where one query belongs", lambda s: s.search(QUERIES)),
    _refused("strings as queries", lambda s: s.search(["a"] * 16)),
    _refused("complex queries", lambda s: s.search(QUERIES[0] * 1j)),
    _setting("pca(0)", (lambda lib, b: b.pca(0, None), *FULL)),
    _setting("pca(-1)", (lambda lib, b: b.pca(-1, None), *FULL)),
    _setting("pca above the dimension", (lambda lib, b: b.pca(99, None), *FULL)),
    _setting("truncate(0)", (lambda lib, b: b.truncate(0), *FULL)),
    _setting("truncate(-1)", (lambda lib, b: b.truncate(-1), *FULL)),
    _setting("0 leaves", (tree(0, 1), ah)),
    _setting("0 leaves to search", (tree(20, 0), ah)),
    _setting("-1 leaves", (tree(-1, 1), ah)),
    _setting("0 training iterations", (tree(20, 5, training_iterations=-1), ah)),
    _setting("a training sample of 0", (tree(20, 5, training_sample_size=0), ah)),
    _setting("blocks of 0 dimensions", (lambda lib, b: b.score_ah(0),)),
    _setting("blocks wider than the data", (lambda lib, b: b.score_ah(99),)),
    _setting("a threshold below 0", (lambda lib, b: b.score_ah(2, -0.5),)),
    _setting("reordering of 0 neighbors", (ah, reorder(candidates=0))),
    _setting("reordering of -1 neighbors", (ah, reorder(candidates=-1))),
    _setting("a negative soar_lambda", (tree(soar_lambda=-1.0), ah, reorder())),
    _wrong_type("a database of no dimensions", DB[:, :0]),
    _wrong_type("a database of one axis", DB[0]),
    _wrong_type("a database of strings", DB.astype(str)),
    _wrong_type("a complex database", DB * 1j),
    _answers("leaves_to_search of int8 brute force", (brute("INT8"),), leaves_to_search=3),
    _answers("leaves_to_search without a tree", (ah, reorder()), leaves_to_search=3),
    _answers("a threshold above 1", (lambda lib, b: b.score_ah(2, 1.5), reorder())),
    _answers("more leaves to search than there are", FULL, leaves_to_search=10_000),
    _answers("more leaves than datapoints", (tree(2000, 2000), ah, reorder())),
    _answers("one leaf", (tree(1, 1), ah, reorder())),
    _answers("a block of all dimensions", (lambda lib, b: b.score_ah(16), reorder())),
    _answers("blocks that do not divide the dimension", (lambda lib, b: b.score_ah(3), reorder())),
    _case("zeros under a tree", zeros_under_a_tree),
    _case("-1 training threads", negative_threads),
    _case("values whose squares overflow", huge_values),
    _case("queries as lists", lists),
]

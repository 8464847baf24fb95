"""Shapes, dtypes and widths of answers; batches and single queries; odd queries."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.parity.case import Answer, Case, Lib, answer, recall, repeats
from benchmarks.parity.small import (
    DB,
    MEASURES,
    PIPELINES,
    QUERIES,
    Stages,
    ah,
    brute,
    build,
    points,
    reorder,
    tree,
    true_neighbors,
)

# (final_num_neighbors, pre_reorder_num_neighbors, leaves_to_search)
OVERRIDES = [(3, None, None), (10, 20, None), (25, 40, 20), (40, 20, None), (10, 60, 1)]
FULL = (tree(), ah, reorder())


def _equal(stages: tuple[Stages, ...], measure: str) -> Case:
    name = next(name for name, known in PIPELINES.items() if known is stages)

    def run(lib: Lib, cut: Any) -> Answer:
        searcher = build(lib, stages, measure=measure)
        batch = searcher.search_batched(QUERIES)
        true, _ = true_neighbors(DB, QUERIES, measure)
        seen = answer(batch, recall=recall(batch[0], true))
        parallel = searcher.search_batched_parallel(QUERIES, batch_size=7)
        seen.check(np.array_equal(parallel[0], batch[0]), "parallel ids differ from the batch's")
        singles = [searcher.search(q) for q in QUERIES]
        same = all(np.array_equal(one[0], ids) for one, ids in zip(singles, batch[0], strict=True))
        seen.check(same, "ids of a single query differ from the batch's")
        near = same and np.allclose([one[1] for one in singles], batch[1], rtol=1e-5, atol=1e-6)
        return seen.check(near or not same, "distances of a single query differ from the batch's")

    return Case(f"search/batch equals single/{measure}/{name}", run)


def _exact(measure: str) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        result = build(lib, (brute(),), measure=measure).search_batched(QUERIES)
        true, distances = true_neighbors(DB, QUERIES, measure)
        seen = answer(result, recall=recall(result[0], true))
        seen.check(np.array_equal(result[0], true), "ids differ from NumPy's")
        return seen.check(np.abs(result[1] - distances).max() < 1e-6, "distances differ by 1e-6")

    return Case(f"search/brute force equals NumPy/{measure}", run)


def _widths(stages: tuple[Stages, ...], name: str) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        searcher = build(lib, stages)
        seen = Answer()
        widths = []
        for final, pre, leaves in OVERRIDES:
            ids, distances = searcher.search_batched(QUERIES[:3], final, pre, leaves)
            limits = {"pre_reorder_num_neighbors": pre, "leaves_to_search": leaves}
            given = {key: value for key, value in limits.items() if value is not None}
            one = searcher.search(QUERIES[0], final_num_neighbors=final, **given)
            widths.append(f"({final}, {pre}, {leaves}): {len(ids[0])}")
            seen.check(np.shape(ids) == np.shape(distances), "ids and distances differ in shape")
            seen.check(len(one[0]) <= len(ids[0]), "a single query finds more than a batch")
            seen.check(len(ids[0]) <= final, "more neighbors than asked for")
            if leaves != 1:
                wanted = f"{len(ids[0])} neighbors where {final} were asked for"
                seen.check(len(ids[0]) == final, wanted)
        seen.says = ", ".join(widths)
        return seen

    return Case(f"search/widths under overrides/{name}", run)


def short_rows(lib: Lib, cut: Any) -> Answer:
    """Fewer neighbors than asked for: the rest must not look like a datapoint."""
    searcher = build(lib, (tree(), brute()))
    ids, distances = searcher.search_batched(QUERIES, 500, leaves_to_search=1)
    seen = answer((ids, distances))
    one = searcher.search(QUERIES[0], 500, leaves_to_search=1)
    found = np.isfinite(distances).sum(1)
    seen.says = f"single search: {len(one[0])}; padded with id {ids[found < 500][0, -1]}"
    seen.check(len(one[0]) == found[0], "a single search finds other numbers than a batch")
    rest = np.isnan(distances)
    return seen.check(not (ids[rest] == 0).any(), "missing neighbors look like datapoint 0")


def empty_leaves(lib: Lib, cut: Any) -> Answer:
    """200 leaves for 1,234 points of 100 kinds: half of the leaves stay empty."""
    db = np.repeat(points(100), 13, axis=0)[:1234]
    searcher = build(lib, (tree(200, 200), ah, reorder(candidates=1234)), db)
    result = searcher.search_batched(db[::50])
    nearest = (result[1][:, 0] - 1 > -1e-5).all()
    seen = answer(result).check(nearest, "a datapoint does not find its own vector")
    return seen.check(repeats(result[0]) == 0, "a datapoint is found twice")


def every_dtype(lib: Lib, cut: Any) -> Answer:
    """Other dtypes and layouts of the same numbers give the same answers."""
    whole = np.random.default_rng(0).integers(-100, 100, (500, 16)).astype(np.float32)
    expected = build(lib, (brute(),), whole).search_batched(whole[:20])[0]
    seen = Answer()
    forms: dict[str, Any] = {
        "float64": whole.astype(np.float64),
        "float16": whole.astype(np.float16),
        "int64": whole.astype(np.int64),
        "Fortran": np.asfortranarray(whole),
        "strided": np.repeat(whole, 2, axis=0)[::2],
    }
    for name, db in forms.items():
        try:
            found = build(lib, (brute(),), db).search_batched(db[:20])[0]
        except Exception as error:
            seen.wrong.append(f"{name}: {type(error).__name__}")
        else:
            seen.check(np.array_equal(found, expected), f"{name}: other answers")
    return seen


def no_queries(lib: Lib, cut: Any) -> Answer:
    """A batch of no queries has no answers."""
    return answer(build(lib, FULL).search_batched(QUERIES[:0]))


def more_neighbors_than_datapoints(lib: Lib, cut: Any) -> Answer:
    """All datapoints come back, each once."""
    ids, distances = build(lib, (brute(),), DB[:7]).search(QUERIES[0], 20)
    seen = answer((ids, distances))
    return seen.check(sorted(int(i) for i in ids if i >= 0) == list(range(7)), "not all of them")


def raw_cosine(lib: Lib, cut: Any) -> Answer:
    """Cosine of rows of any length."""
    db = DB * np.random.default_rng(0).uniform(1, 9, (len(DB), 1)).astype(np.float32)
    searcher = lib.ops.builder(db, 10, "cosine").score_brute_force().build()
    result = searcher.search_batched(QUERIES * 3)
    return answer(result, recall=recall(result[0], true_neighbors(DB, QUERIES, "dot_product")[0]))


CASES = [
    *(_equal(stages, measure) for stages in PIPELINES.values() for measure in MEASURES),
    *(_exact(measure) for measure in MEASURES),
    *(_widths(PIPELINES[name], name) for name in ("brute force", "tree AH", "tree AH reorder")),
    Case("search/short rows", short_rows),
    Case("search/200 leaves for 1,234 points", empty_leaves),
    Case("search/dtypes and layouts", every_dtype),
    Case("search/no queries", no_queries),
    Case("search/more neighbors than datapoints", more_neighbors_than_datapoints),
    Case("search/cosine of raw rows", raw_cosine),
]

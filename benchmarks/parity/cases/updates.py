"""Upsert, delete, rebalance, reserve, size: what changes, what must not, what comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.parity.case import Answer, Case, Lib, answer, recall
from benchmarks.parity.small import (
    DB,
    PIPELINES,
    QUERIES,
    N,
    ah,
    brute,
    build,
    named,
    points,
    reorder,
    tree,
    true_neighbors,
)

FULL = (tree(), ah, reorder())
UPDATABLE = ("brute force", "tree AH reorder", "tree AH reorder int8", "SOAR AH reorder")
Change = Callable[[Lib, Any, Answer], None]


def _numbers(rows: Any) -> list[list[int]]:
    return [[int(docid[1:]) for docid in row] for row in rows]


def _case(name: str, change: Change, *, deadly: bool = False) -> list[Case]:
    """A change of an index of named datapoints, in several pipelines."""

    def make(pipeline: str) -> Case:
        def run(lib: Lib, cut: Any) -> Answer:
            seen = Answer()
            change(lib, build(lib, PIPELINES[pipeline], docids=named()), seen)
            return seen

        return Case(f"updates/{name}/{pipeline}", run, deadly=deadly)

    return [make(pipeline) for pipeline in UPDATABLE]


def delete_top_five(lib: Lib, searcher: Any, seen: Answer) -> None:
    """The neighbors after the five move up."""
    before, _ = searcher.search(QUERIES[0], final_num_neighbors=10)
    searcher.delete(list(before[:5]))
    after, _ = searcher.search(QUERIES[0], final_num_neighbors=5)
    seen.check(list(after) == list(before[5:]), "not the sixth to tenth")
    seen.check(searcher.size() == N - 5, f"size {searcher.size()}")


def delete_twice(lib: Lib, searcher: Any, seen: Answer) -> None:
    """The second time it is not there."""
    searcher.delete("d3")
    seen.refused("again", lambda: searcher.delete("d3"), KeyError)
    seen.check(searcher.size() == N - 1, f"size {searcher.size()}")


def five_copies(lib: Lib, searcher: Any, seen: Answer) -> None:
    """Five new datapoints equal to the query are its nearest."""
    for i in range(5):
        searcher.upsert(f"d{N + i}", QUERIES[0])
    found, distances = searcher.search(QUERIES[0], final_num_neighbors=6)
    seen.check(set(found[:5]) == {f"d{N + i}" for i in range(5)}, "not the top five")
    seen.check(np.allclose(distances[:5], 1, atol=0.01), "their distances are wrong")
    seen.check(searcher.size() == N + 5, f"size {searcher.size()}")


def overwrite(lib: Lib, searcher: Any, seen: Answer) -> None:
    """An upsert of what is there moves it."""
    searcher.upsert("d7", QUERIES[0])
    seen.check(searcher.search(QUERIES[0])[0][0] == "d7", "not found at its new place")
    found, _ = searcher.search(DB[7], final_num_neighbors=20)
    near = DB[7] @ QUERIES[0] > 0.5
    seen.check(near or "d7" not in list(found), "still found at its old place")
    seen.check(searcher.size() == N, f"size {searcher.size()}")


def delete_everything(lib: Lib, searcher: Any, seen: Answer) -> None:
    """An emptied index answers nothing, then what is put back."""
    searcher.delete(named())
    seen.check(searcher.size() == 0, f"size {searcher.size()} when empty")
    seen.check(len(searcher.search(QUERIES[0])[0]) == 0, "an empty index finds something")
    searcher.upsert(named(), DB, batch_size=N)
    true, _ = true_neighbors(DB, QUERIES, "dot_product")
    seen.recall = recall(_numbers(searcher.search_batched(QUERIES)[0]), true)
    seen.check(searcher.size() == N, f"size {searcher.size()}")


def failed_upsert(lib: Lib, searcher: Any, seen: Answer) -> None:
    """A refused upsert changes nothing: neither docids nor answers."""
    before = searcher.search_batched(QUERIES[:20])
    bad = np.full((3, 16), 0.1, np.float32)
    bad[1, 4] = np.nan
    for what, vectors in {"a NaN": bad, "another dimension": bad[:, :8]}.items():
        seen.refused(what, lambda v=vectors: searcher.upsert(["x", "d2", "y"], v))  # type: ignore[misc]
        after = searcher.search_batched(QUERIES[:20])
        seen.check(after[0] == before[0], f"answers differ after {what}")
        seen.check(searcher.size() == N, f"size {searcher.size()} after {what}")
        seen.check(len(searcher.docids) == N, f"{len(searcher.docids)} docids after {what}")
    searcher.upsert("new", QUERIES[0])
    found = searcher.search(QUERIES[0])[0][0]
    seen.check(found == "new", f"the next upsert is found as {found!r}")


def infinity_in_upsert(lib: Lib, searcher: Any, seen: Answer) -> None:
    """An infinite value is refused."""
    bad = QUERIES[0].copy()
    bad[3] = np.inf
    seen.refused("upsert", lambda: searcher.upsert("x", bad))
    seen.check(np.isfinite(searcher.search_batched(QUERIES)[1]).all(), "infinite distances")


def half_a_delete(lib: Lib, searcher: Any, seen: Answer) -> None:
    """Where one docid is unknown, none is deleted."""
    before = searcher.search_batched(QUERIES)
    seen.refused("delete", lambda: searcher.delete(["d1", "d2", "unknown"]), KeyError)
    seen.check(searcher.size() == N, f"size {searcher.size()}")
    seen.check(len(searcher.docids) == N, f"{len(searcher.docids)} docids")
    seen.check(searcher.search_batched(QUERIES)[0] == before[0], "other docids than before")


def duplicates_in_upsert(lib: Lib, searcher: Any, seen: Answer) -> None:
    """The same docid twice in one call."""
    vectors = QUERIES[:2]
    seen.refused("two of one", lambda: searcher.upsert(["twice", "twice"], vectors))
    seen.check(searcher.size() == N, f"size {searcher.size()}")
    seen.check(len(searcher.docids) == N, f"{len(searcher.docids)} docids")


def unequal_counts(lib: Lib, searcher: Any, seen: Answer) -> None:
    """Two docids and three vectors."""
    seen.refused("upsert", lambda: searcher.upsert(["a", "b"], QUERIES[:3]))


def several_deleted(lib: Lib, searcher: Any, seen: Answer) -> None:
    """A list is deleted in one call; all others keep their names."""
    searcher.delete([f"d{i}" for i in range(0, N, 3)])
    kept = [i for i in range(N) if i % 3]
    true, _ = true_neighbors(DB[kept], QUERIES, "dot_product")
    found = _numbers(searcher.search_batched(QUERIES)[0])
    seen.recall = recall(found, np.array(kept)[true])
    seen.check(not any(i % 3 == 0 for row in found for i in row), "a deleted one is found")


def rebalance(lib: Lib, searcher: Any, seen: Answer) -> None:
    """Training anew keeps datapoints and names."""
    more = points(400, seed=5)
    searcher.upsert([f"d{N + i}" for i in range(400)], more, batch_size=100)
    searcher.rebalance()
    true, _ = true_neighbors(np.concatenate([DB, more]), QUERIES, "dot_product")
    seen.recall = recall(_numbers(searcher.search_batched(QUERIES)[0]), true)
    seen.check(searcher.size() == N + 400, f"size {searcher.size()}")


def reserve(lib: Lib, searcher: Any, seen: Answer) -> None:
    """Room for more changes nothing else."""
    before = searcher.search_batched(QUERIES)
    searcher.reserve(5000)
    searcher.reserve(10)
    seen.check(searcher.size() == N, f"size {searcher.size()}")
    seen.check(searcher.search_batched(QUERIES)[0] == before[0], "answers differ")


def search_while_upserting(lib: Lib, searcher: Any, seen: Answer) -> None:
    """Searches in other threads see whole states only."""
    stop, faults = threading.Event(), []
    known = set(named()) | {f"d{N + i}" for i in range(300)}

    def ask() -> None:
        while not stop.is_set():
            try:
                ids, distances = searcher.search_batched(QUERIES[:20])
                if not all(docid in known for row in ids for docid in row):
                    faults.append("an unknown docid")
                if not np.isfinite(distances).all():
                    faults.append("a distance is not finite")
            except Exception as error:
                faults.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(300):
        searcher.upsert(f"d{N + i}", QUERIES[i % 50])
        if i % 3 == 0:
            searcher.delete(f"d{i}")
    stop.set()
    for thread in threads:
        thread.join()
    for fault in sorted(set(faults))[:3]:
        seen.wrong.append(fault)
    seen.check(searcher.size() == N + 200, f"size {searcher.size()}")


def callers_list(lib: Lib, cut: Any) -> Answer:
    """The list of docids given to `build` stays the caller's own."""
    mine = named()
    searcher = build(lib, FULL, docids=mine)
    searcher.upsert("more", QUERIES[0])
    searcher.delete("d5")
    return Answer().check(mine == named(), "the caller's list was changed")


def without_docids(lib: Lib, cut: Any) -> Answer:
    """An index without docids refuses names."""
    searcher = build(lib, FULL)
    return Answer().refused("upsert", lambda: searcher.upsert("a", QUERIES[0]))


def _docids(name: str, docids: Any) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        return Answer().refused("build", lambda: build(lib, FULL, docids=docids))

    return Case(f"updates/docids refused/{name}", run)


def from_empty(lib: Lib, cut: Any) -> Answer:
    """Empty, then brute force over what comes, then a tree by rebalancing, then back."""
    seen = Answer()
    searcher = build(lib, (brute(),), DB[:0], docids=[])
    seen.check(searcher.size() == 0, f"size {searcher.size()} when empty")
    searcher.upsert(named(), DB, batch_size=N)
    true, _ = true_neighbors(DB, QUERIES, "dot_product")
    exact = recall(_numbers(searcher.search_batched(QUERIES)[0]), true)
    seen.check(exact == 1, f"recall {exact} by brute force")
    trees = lib.builder(DB, "dot_product")
    for stage in FULL:
        stage(lib, trees)
    searcher.rebalance(trees.create_config())
    seen.recall = recall(_numbers(searcher.search_batched(QUERIES)[0]), true)
    flat = brute()(lib, lib.builder(DB, "dot_product"))
    searcher.rebalance(flat.create_config())
    back = recall(_numbers(searcher.search_batched(QUERIES)[0]), true)
    return seen.check(back == 1, f"recall {back} by brute force again")


def _growth(data: str, batch: int, threshold: float | None) -> Case:
    """Half of real data is built, the other half upserted."""

    def run(lib: Lib, cut: Any) -> Answer:
        half = len(cut.db) // 2
        leaves = round(half**0.5)
        builder = lib.builder(cut.db[:half], cut.measure)
        builder.tree(leaves, leaves // 8, incremental_threshold=threshold)
        builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        searcher = builder.build(docids=named(half))
        names = named(len(cut.db))
        for start in range(half, len(cut.db), batch):
            part = slice(start, min(start + batch, len(cut.db)))
            if batch == 1:
                searcher.upsert(names[start], cut.db[start])
            else:
                searcher.upsert(names[part], cut.db[part], batch_size=batch)
        result = searcher.search_batched(cut.queries)
        return answer(result, recall=recall(_numbers(result[0]), cut.true))

    how = "one by one" if batch == 1 else f"in batches of {batch}"
    kept = "" if threshold is None else f", incremental_threshold {threshold}"
    return Case(f"updates/half of {data} {how}{kept}", run, data, quick=batch > 1)


CASES = [
    *_case("deleting the top five shifts results", delete_top_five, deadly=True),
    *_case("deleting twice", delete_twice, deadly=True),
    *_case("five copies", five_copies, deadly=True),
    *_case("overwriting", overwrite, deadly=True),
    *_case("delete all and put back", delete_everything, deadly=True),
    *_case("a failed upsert", failed_upsert, deadly=True),
    *_case("infinity", infinity_in_upsert, deadly=True),
    *_case("half a delete", half_a_delete, deadly=True),
    *_case("the same docid twice", duplicates_in_upsert, deadly=True),
    *_case("two docids, three vectors", unequal_counts),
    *_case("deleting every third", several_deleted, deadly=True),
    *_case("rebalance", rebalance, deadly=True),
    *_case("reserve", reserve),
    *_case("searching while upserting", search_while_upserting, deadly=True),
    Case("updates/the caller's list of docids", callers_list),
    Case("updates/names for an index without docids", without_docids),
    _docids("too few", named(N - 1)),
    _docids("a repeat", [*named(N - 1), "d0"]),
    Case("updates/empty, brute force, tree, brute force", from_empty, deadly=True),
    _growth("glove-100", 1, None),
    _growth("glove-100", 256, None),
    _growth("glove-100", 256, 0.1),
    _growth("glove-100-raw", 256, None),
    _growth("lm-head-smollm2", 256, None),
]

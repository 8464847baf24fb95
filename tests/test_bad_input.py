"""Bad input, and odd input, has a defined answer: a typed error or a sensible result.

One table. Each case is run for every pipeline it applies to.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import sensible
from pipelines import (
    DB,
    LEAVES,
    PIPELINES,
    QUERIES,
    D,
    K,
    Pipeline,
    assert_same,
    search_all,
    variants,
)
from sensible import with_value, with_zero_row

import swann
from swann import (
    Builder,
    ConfigError,
    CorruptIndexError,
    DTypeError,
    IndexFormatError,
    InvalidInputError,
    NonFiniteError,
    Searcher,
    SearchResult,
    ShapeError,
    ZeroVectorError,
)


class Case(NamedTuple):
    """What is done, and what comes of it: an error and a part of its message, or a check."""

    name: str
    call: Callable[[Pipeline], object]
    error: type[Exception] | None = None
    message: str = ""
    applies: Callable[[Pipeline], bool] = lambda pipeline: True


def refused_db(name: str, db: object, error: type[Exception], message: str) -> Case:
    """A database that cannot be indexed."""
    return Case(f"db {name}", lambda p: p.build(db), error, message)


def three_ways(
    name: str,
    queries: Any,
    error: type[Exception],
    message: str,
    measure: str = "dot_product",
    **options: Any,
) -> list[Case]:
    """Something that each of the three ways to search refuses."""
    one = queries[0] if isinstance(queries, np.ndarray) and queries.ndim == 2 else queries
    ways: dict[str, Callable[[Searcher], object]] = {
        "search": lambda s: s.search(one, **options),
        "search_batched": lambda s: s.search_batched(queries, **options),
        "search_batched_parallel": lambda s: s.search_batched_parallel(queries, **options),
    }

    def case(way: str) -> Case:
        return Case(f"{way}, {name}", lambda p: ways[way](p.build(measure=measure)), error, message)

    return [case(way) for way in ways]


def refused_argument(argument: str, value: object, message: str) -> list[Case]:
    """A bad argument of a search, in all three ways to search."""
    options: dict[str, Any] = {argument: value}
    return three_ways(f"{argument}={value!r}", QUERIES, ConfigError, message, **options)


def with_settings(**settings: Any) -> Callable[[Pipeline], Builder]:
    """Make a builder whose settings are changed."""
    return lambda p: p.builder(**settings)


def train_on(threads: Any) -> Callable[[Pipeline], Builder]:
    return lambda p: p.builder().set_n_training_threads(threads)


def search_on(threads: Any) -> Callable[[Pipeline], None]:
    return lambda p: p.build().set_num_threads(threads)


def in_batches_of(size: Any) -> Callable[[Pipeline], SearchResult]:
    return lambda p: p.build().search_batched_parallel(QUERIES, batch_size=size)


def has_tree(pipeline: Pipeline) -> bool:
    return pipeline.tree


def has_ah(pipeline: Pipeline) -> bool:
    return pipeline.ah


def has_reorder(pipeline: Pipeline) -> bool:
    return pipeline.reorder


NAN, INF = float("nan"), float("inf")
COUNT = "expected at least 1"
INTEGER = "expected an integer"

CASES: list[Case] = [
    # NaN and infinities
    refused_db("NaN", with_value(DB, 3, 2, NAN), NonFiniteError, "db[3, 2] is nan"),
    refused_db("inf", with_value(DB, 99, 0, INF), NonFiniteError, "db[99, 0] is inf"),
    refused_db("-inf", with_value(DB, 0, 7, -INF), NonFiniteError, "db[0, 7] is -inf"),
    refused_db(
        "over float32",
        with_value(DB.astype(np.float64), 5, 1, 1e300),
        NonFiniteError,
        "db[5, 1] is 1e+300, which overflows float32",
    ),
    *three_ways("query NaN", with_value(QUERIES, 0, 2, NAN), NonFiniteError, "2] is nan; expected"),
    *three_ways("query inf", with_value(QUERIES, 0, 2, INF), NonFiniteError, "2] is inf; expected"),
    *three_ways(
        "over float32",
        with_value(QUERIES.astype(np.float64), 0, 2, -1e300),
        NonFiniteError,
        "2] is -1e+300, which overflows float32",
    ),
    Case(
        "db with scores over float32",
        lambda p: p.build(with_value(DB, 4, 0, 3e18)),
        InvalidInputError,
        "db[4] is longer than 1e+18",
    ),
    *three_ways(
        "query with scores over float32",
        with_value(QUERIES, 0, 0, 3e18),
        InvalidInputError,
        " has length 3e+18; expected at most 1e+18",
    ),
    Case("large values", sensible.large_values),
    # Zero vectors
    Case(
        "zero row under cosine",
        lambda p: p.build(with_zero_row(DB, 7), measure="cosine"),
        ZeroVectorError,
        "db[7] is all zeros",
    ),
    *three_ways(
        "zero query under cosine",
        with_zero_row(QUERIES, 0),
        ZeroVectorError,
        "is all zeros; under 'cosine'",
        measure="cosine",
    ),
    Case("zeros under dot_product", sensible.zeros_where_they_are_fine("dot_product")),
    Case("zeros under squared_l2", sensible.zeros_where_they_are_fine("squared_l2")),
    # Rank and dimension
    refused_db("of rank 0", 3.0, ShapeError, "db has 0 axes"),
    refused_db("of rank 1", DB[0], ShapeError, "db has 1 axes (shape (8,)); expected 2 axes"),
    refused_db("of rank 3", DB[None], ShapeError, "db has 3 axes"),
    *three_ways(
        "of 5 dimensions", QUERIES[:, :5], ShapeError, "5 dimensions, but this index expects 8"
    ),
    *three_ways("of rank 3", QUERIES[None], ShapeError, "has shape (1, 9, 8); expected ("),
    *three_ways("of rank 0", 1.0, ShapeError, "has shape (); expected ("),
    Case(
        "many queries to search",
        lambda p: p.build().search(QUERIES),
        ShapeError,
        "q has shape (9, 8); expected (8,) (search_batched takes many)",
    ),
    Case(
        "one query to search_batched",
        lambda p: p.build().search_batched(QUERIES[0]),
        ShapeError,
        "queries has shape (8,); expected (n, 8)",
    ),
    Case(
        "no query to search",
        lambda p: p.build().search([]),
        ShapeError,
        "q has 0 dimensions, but this index expects 8",
    ),
    # What does not hold numbers
    refused_db("ragged", [[1.0, 2.0], [3.0]], DTypeError, "db is ragged"),
    refused_db("object", DB.astype(object), DTypeError, "db has dtype object"),
    refused_db("complex", DB.astype(complex), DTypeError, "db has dtype complex128"),
    refused_db("bool", DB > 50, DTypeError, "db has dtype bool"),
    refused_db("strings", DB.astype(str), DTypeError, "expected real numbers"),
    refused_db("None", None, DTypeError, "db is of type NoneType"),
    refused_db("path", "vectors.npy", DTypeError, "db is of type str"),
    refused_db("masked", np.ma.masked_array(DB), DTypeError, "masked array"),
    *three_ways("ragged", [[1.0, 2.0], [3.0]], DTypeError, "is ragged"),
    *three_ways("object", QUERIES.astype(object), DTypeError, "has dtype object"),
    *three_ways("complex", QUERIES.astype(complex), DTypeError, "has dtype complex128"),
    *three_ways("bool", QUERIES > 50, DTypeError, "has dtype bool"),
    *three_ways("None", None, DTypeError, "is of type NoneType"),
    *three_ways("object()", object(), DTypeError, "has dtype object"),
    # Other dtypes, layouts and containers give the same index and the same answers
    *(Case(f"db as {name}", sensible.same_as_float32_db(db)) for name, db in variants(DB).items()),
    *(
        Case(f"queries as {name}", sensible.same_as_float32_queries(queries))
        for name, queries in variants(QUERIES).items()
    ),
    Case("the input is left alone", sensible.input_is_left_alone),
    # Too little
    refused_db("empty list", [], ShapeError, "db is empty"),
    refused_db("without columns", DB[:, :0], ShapeError, "db is empty (shape (120, 0))"),
    *(
        Case(f"{n} datapoints, {measure}", sensible.finds_all_of_few(n, measure))
        for n in (1, 2, LEAVES - 1, 15, 33)
        for measure in ("dot_product", "squared_l2", "cosine")
    ),
    *(
        Case(f"all identical, {measure}", sensible.identical(measure))
        for measure in ("dot_product", "squared_l2", "cosine")
    ),
    Case("zero queries", sensible.no_queries),
    Case("one dimension", sensible.one_dimension),
    # k
    Case("k=0", with_settings(k=0), ConfigError, f"num_neighbors is 0; {COUNT}"),
    Case("k=-1", with_settings(k=-1), ConfigError, f"num_neighbors is -1; {COUNT}"),
    Case("k=2.5", with_settings(k=2.5), ConfigError, f"num_neighbors is 2.5 (float); {INTEGER}"),
    Case("k=None", with_settings(k=None), ConfigError, "num_neighbors is None"),
    *refused_argument("final_num_neighbors", 0, f"final_num_neighbors is 0; {COUNT}"),
    *refused_argument("final_num_neighbors", -1, f"final_num_neighbors is -1; {COUNT}"),
    *refused_argument("final_num_neighbors", 2.5, INTEGER),
    *refused_argument("final_num_neighbors", True, INTEGER),
    *refused_argument("final_num_neighbors", "5", INTEGER),
    *refused_argument("final_num_neighbors", 2**63, "at most"),
    Case("k over n", sensible.k_over_n),
    Case("num_neighbors over n", sensible.num_neighbors_over_n),
    # Leaves
    Case(
        "num_leaves_to_search over num_leaves",
        with_settings(tree={"num_leaves_to_search": LEAVES + 1}),
        ConfigError,
        "num_leaves_to_search is 7, but there are only num_leaves=6",
        has_tree,
    ),
    *(
        Case(
            f"{name}={value}",
            with_settings(tree={name: value}),
            ConfigError,
            f"{name} is {value}; {COUNT}",
            has_tree,
        )
        for name in ("num_leaves", "num_leaves_to_search", "training_sample_size")
        for value in (0, -1)
    ),
    *refused_argument("leaves_to_search", 0, f"leaves_to_search is 0; {COUNT}"),
    *refused_argument("leaves_to_search", -1, f"leaves_to_search is -1; {COUNT}"),
    *refused_argument("leaves_to_search", 1.5, INTEGER),
    Case("leaves_to_search over num_leaves", sensible.leaves_over_all, applies=has_tree),
    Case("fewer than k in the leaves searched", sensible.few_leaves, applies=has_tree),
    # Reordering
    Case("reorder below k", sensible.reorder_below_k, applies=has_reorder),
    Case("reorder over n", sensible.reorder_over_n, applies=has_reorder),
    *(
        Case(
            f"reorder {value}",
            with_settings(reorder=value),
            ConfigError,
            "reordering_num_neighbors is",
            has_reorder,
        )
        for value in (0, -1, 2.5, None)
    ),
    *refused_argument("pre_reorder_num_neighbors", 0, f"pre_reorder_num_neighbors is 0; {COUNT}"),
    *refused_argument("pre_reorder_num_neighbors", -1, "pre_reorder_num_neighbors is -1"),
    # Blocks and thresholds
    Case(
        "dimensions_per_block over d",
        with_settings(ah={"dimensions_per_block": D + 1}),
        ConfigError,
        "dimensions_per_block is 9, but db has only 8 dimensions",
        has_ah,
    ),
    Case(
        "dimensions_per_block 0",
        with_settings(ah={"dimensions_per_block": 0}),
        ConfigError,
        f"dimensions_per_block is 0; {COUNT}",
        has_ah,
    ),
    Case("short last block", sensible.short_last_block, applies=has_ah),
    *(
        Case(
            f"threshold {value!r}",
            with_settings(ah={"anisotropic_quantization_threshold": value}),
            ConfigError,
            "expected a finite number above 0",
            has_ah,
        )
        for value in (0, -0.2, INF, "0.2")
    ),
    # Given twice, in contradiction, or not at all
    Case("tree twice", lambda p: p.builder().tree(2, 1), ConfigError, "tree was already", has_tree),
    Case(
        "reorder twice",
        lambda p: p.builder().reorder(9),
        ConfigError,
        "reorder was already called",
        has_reorder,
    ),
    Case(
        "score twice",
        lambda p: p.builder().score_ah(2) if p.ah else p.builder().score_brute_force(),
        ConfigError,
        "was already called on this builder; call it once",
    ),
    Case(
        "both scores",
        lambda p: p.builder().score_brute_force() if p.ah else p.builder().score_ah(2),
        ConfigError,
        "score_ah and score_brute_force contradict each other",
    ),
    Case(
        "no score",
        lambda p: swann.builder(DB, K, "cosine").build(),
        ConfigError,
        "no scoring was chosen: call score_ah(...)",
    ),
    Case("measure l2", lambda p: p.build(measure="l2"), ConfigError, "distance_measure is 'l2'"),
    Case("measure None", lambda p: p.build(measure=None), ConfigError, "distance_measure is None"),
    # Threads and batches
    *(
        Case(f"{threads} threads to {work}", call(threads), ConfigError, "threads is")
        for work, call in (("build", train_on), ("search", search_on))
        for threads in (0, -1, 1.5, None)
    ),
    Case("num_threads = 0", sensible.set_num_threads_attribute, ConfigError, "num_threads is 0"),
    Case("many threads", sensible.threads_do_not_matter),
    *(
        Case(f"batch_size={size}", in_batches_of(size), ConfigError, "batch_size is")
        for size in (0, -1, 1.5)
    ),
    Case("batch sizes", sensible.batch_sizes_do_not_matter),
]

RUNS = [(case, pipeline) for case in CASES for pipeline in PIPELINES if case.applies(pipeline)]


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("case", "pipeline"), RUNS, ids=[f"{case.name}-{pipeline.name}" for case, pipeline in RUNS]
)
def test_bad_input(case: Case, pipeline: Pipeline) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if case.error is None:
            case.call(pipeline)
            return
        with pytest.raises(case.error) as caught:
            case.call(pipeline)
    assert case.message in str(caught.value)


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda p: p.name)
def test_places_that_hold_no_index(pipeline: Pipeline, tmp_path: Path) -> None:
    """Loading answers with an `IndexFormatError` that names the place."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("not a directory")
    for name in ("nowhere", "empty", "file"):
        with pytest.raises(IndexFormatError, match=name):
            swann.load_searcher(tmp_path / name)
    searcher = pipeline.build()
    searcher.serialize(tmp_path / "index")
    expected = search_all(searcher)
    assert_same(search_all(swann.load_searcher(tmp_path / "index")), expected)
    arrays = [path for path in (tmp_path / "index").rglob("*") if path.is_file()]
    for path in arrays:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(CorruptIndexError):
            swann.load_searcher(tmp_path / "index", verify="full")
        path.write_bytes(content)
    assert_same(search_all(swann.load_searcher(tmp_path / "index", verify="full")), expected)


def test_bad_rows_are_named_in_later_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases are read chunk by chunk; row numbers are those of the whole."""
    monkeypatch.setattr("swann.index.source._CHUNK_VALUES", 1)  # the smallest chunks there are
    pipeline = PIPELINES[0]
    wide = DB.astype(np.float64)
    with pytest.raises(NonFiniteError, match=r"db\[99, 1\] is 1e\+300, which overflows float32"):
        pipeline.build(with_value(wide, 99, 1, 1e300))
    with pytest.raises(InvalidInputError, match=r"db\[98\] is longer than 1e\+18"):
        pipeline.build(with_value(wide, 98, 1, 1e19))
    with pytest.raises(ZeroVectorError, match=r"db\[97\] is all zeros"):
        pipeline.build(with_zero_row(DB, 97), measure="cosine")
    chunked = search_all(pipeline.build())
    monkeypatch.undo()
    assert_same(chunked, search_all(pipeline.build()))


@pytest.mark.parametrize("error", [InvalidInputError, ConfigError])
def test_every_refusal_is_a_value_error(error: type[Exception]) -> None:
    assert issubclass(error, ValueError)
    assert issubclass(error, swann.SwannError)

"""How a query finds its leaves: int8 centroids, and levels above the centroids."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from made import normal
from numpy.typing import NDArray

import swann
from swann import ReorderType, Searcher
from swann.config import UpperTreeConfig
from swann.index.packed import PackedIndex
from swann.index.routes import build_routes
from swann.kernels import reference

F32 = NDArray[np.float32]
MEASURES = ("dot_product", "squared_l2", "cosine")
each_measure = pytest.mark.parametrize("measure", MEASURES)
PRECISIONS = tuple(ReorderType)
UPPERS: list[list[dict[str, Any]]] = [
    [{"num_leaves": 9, "num_leaves_to_search": 4}],
    [{"num_leaves": 9, "num_leaves_to_search": 1, "avq": 2.0, "scoring_mode": "FLOAT32"}],
    [{"num_leaves": 9, "num_leaves_to_search": 4, "soar_lambda": 1.0}],
    [{"num_leaves": 9, "num_leaves_to_search": 2, "soar_lambda": 1.5, "avq": 3.0}],
    [{"num_leaves": 20, "num_leaves_to_search": 5}, {"num_leaves": 5, "num_leaves_to_search": 2}],
    [
        {"num_leaves": 30, "num_leaves_to_search": 6, "soar_lambda": 1.0},
        {"num_leaves": 9, "num_leaves_to_search": 4, "scoring_mode": "BFLOAT16"},
        {"num_leaves": 3, "num_leaves_to_search": 1, "overretrieve_factor": 3, "soar_lambda": 0.5},
    ],
]
each_upper = pytest.mark.parametrize("uppers", UPPERS, ids=range(len(UPPERS)))


DB, QUERIES = normal(0, 1500, 10), normal(1, 70, 10)


def build(
    measure: Any, uppers: list[dict[str, Any]], kind: str = "brute force", **tree: Any
) -> Searcher:
    tree = {"num_leaves": 60, "num_leaves_to_search": 8} | tree
    builder = swann.builder(DB, 10, measure).tree(**tree)
    for upper in uppers:
        builder.upper_tree(**upper)
    if kind == "brute force":
        return builder.score_brute_force().build()
    builder.score_ah(2, 0.2)
    return (builder.reorder(100) if kind == "reorder" else builder).build()


def unit(rows: F32) -> F32:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rounded(index: PackedIndex, prefix: str = "upper0_") -> NDArray[np.float64]:
    """The rows of a level, as they are scored."""
    routes = index.routes
    if f"{prefix}rows" in routes:
        return routes[f"{prefix}rows"].astype(np.float64)
    if f"{prefix}rows_bf16" in routes:
        return np.asarray(reference.from_bf16(routes[f"{prefix}rows_bf16"]), np.float64)
    scales = routes[f"{prefix}row_scales"].astype(np.float64)
    return routes[f"{prefix}rows_i8"] * scales[:, None]


def scores(queries: F32, rows: Any, spreads: Any, measure: str) -> NDArray[np.float64]:
    """What leaves are ranked by."""
    q, x = queries.astype(np.float64), np.asarray(rows, np.float64)
    if measure == "squared_l2":
        return np.asarray(-((q[:, None] - x) ** 2).sum(axis=2))
    found = q @ x.T
    if spreads is not None:
        found = found + np.linalg.norm(q, axis=1, keepdims=True) * spreads
    return np.asarray(found)


def chosen(searcher: Searcher, queries: F32, leaves: int) -> list[set[int]]:
    """The leaves that each query visits: those of the datapoints that it finds."""
    index = searcher._index
    assert index.ids is not None
    leaf_of = np.empty(len(DB), np.int64)
    sizes = np.diff(index.leaf_starts.astype(int))
    leaf_of[index.ids] = np.repeat(np.arange(index.num_leaves), sizes)
    found = searcher.search_batched(queries, len(DB), leaves_to_search=leaves).indices
    return [set(leaf_of[row[row >= 0]].tolist()) for row in found]


# ---- What is stored


@each_measure
@each_upper
def test_a_level_is_a_partition_of_the_centroids_below(measure: Any, uppers: Any) -> None:
    index = build(measure, uppers)._index
    assert index.centroids is not None
    below: NDArray[Any] = index.centroids
    for i, upper in enumerate(uppers):
        routes = {
            name.removeprefix(f"upper{i}_"): array
            for name, array in index.routes.items()
            if name.startswith(f"upper{i}_")
        }
        times = 2 if "soar_lambda" in upper else 1
        assert len(routes["centroids"]) == upper["num_leaves"]
        assert routes["starts"][0] == 0
        assert routes["starts"][-1] == len(routes["entries"]) == times * len(below)
        entries = routes["entries"].astype(int)
        np.testing.assert_array_equal(np.bincount(entries, minlength=len(below)), times)
        leaf_of = np.repeat(np.arange(upper["num_leaves"]), np.diff(routes["starts"].astype(int)))
        assert len(set(zip(entries.tolist(), leaf_of.tolist(), strict=True))) == len(entries)
        step = 0 if "scoring_mode" in upper and upper["scoring_mode"] == "FLOAT32" else 2.0**-7
        rows = rounded(index, f"upper{i}_")
        reach = np.abs(below[entries]).max(axis=1, keepdims=True)
        assert (np.abs(rows - below[entries]) <= step * reach).all()
        assert ("spreads" in routes) == (measure != "squared_l2")
        if "avq" not in upper:  # the first entry of each centroid is in its nearest leaf
            first = np.array([leaf_of[np.flatnonzero(entries == c)] for c in range(len(below))])
            distance = ((below[:, None] - routes["centroids"]) ** 2).sum(axis=2)
            nearest = np.take_along_axis(distance, first, 1).min(axis=1)
            np.testing.assert_allclose(nearest, distance.min(axis=1), rtol=1e-4)
        below = routes["centroids"]


@pytest.mark.parametrize("mode", PRECISIONS)
def test_anisotropic_rounding_of_centroids(mode: ReorderType) -> None:
    upper = {"num_leaves": 9, "num_leaves_to_search": 4, "scoring_mode": mode}
    errors = []
    for threshold in (np.nan, 0.5):
        settings = upper | {"anisotropic_quantization_threshold": threshold}
        index = build("dot_product", [settings])._index
        assert index.centroids is not None
        exact = index.centroids[index.routes["upper0_entries"]].astype(np.float64)
        errors.append(((rounded(index) - exact) * unit(exact)).sum(axis=1))  # type: ignore[arg-type]
    along = [np.abs(e).mean() for e in errors]
    assert along[1] < 0.7 * along[0] if mode is not ReorderType.FLOAT32 else along == [0, 0]


@each_measure
def test_int8_centroids(measure: Any) -> None:
    index = build(measure, [], quantize_centroids=True)._index
    assert index.centroids is not None
    routes = index.routes
    assert set(routes) == {"centroids_i8", "centroid_scales"} | (
        {"centroid_squares"} if measure == "squared_l2" else set()
    )
    rows = routes["centroids_i8"] * routes["centroid_scales"][:, None]
    np.testing.assert_allclose(rows, index.centroids, atol=np.abs(index.centroids).max() / 250)
    if measure == "squared_l2":
        np.testing.assert_allclose(routes["centroid_squares"], (rows**2).sum(axis=1), rtol=1e-5)
    # With an upper tree its scoring_mode says how they are kept.
    both = build(measure, UPPERS[0], quantize_centroids=True)._index.routes
    assert "centroids_i8" not in both
    assert "upper0_rows_i8" in both


# ---- What is searched


def all_of(uppers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These levels, visited whole and scored in float32."""
    return [
        upper | {"num_leaves_to_search": upper["num_leaves"], "scoring_mode": "FLOAT32"}
        for upper in uppers
    ]


@each_measure
@pytest.mark.parametrize("kind", ["brute force", "codes", "reorder"])
@each_upper
def test_visiting_all_upper_leaves_is_scoring_all_centroids(
    measure: Any, kind: str, uppers: Any
) -> None:
    plain, through = build(measure, [], kind), build(measure, all_of(uppers), kind)
    for leaves in (1, 8, 60):
        one = plain.search_batched(QUERIES, leaves_to_search=leaves)
        other = through.search_batched(QUERIES, leaves_to_search=leaves)
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.distances, other.distances)


@each_measure
@each_upper
def test_any_number_of_leaves_is_found(measure: Any, uppers: Any) -> None:
    """Where the upper leaves hold fewer, more of them are visited; all leaves means all."""
    searcher = build(measure, uppers)
    for leaves in (1, 7, 30, 59, 60, 10**9):
        for visited in chosen(searcher, QUERIES, leaves):
            assert len(visited) == min(leaves, 60)
    everything = searcher.search_batched(QUERIES, leaves_to_search=60)
    exact = swann.builder(DB, 10, measure).score_brute_force().build().search_batched(QUERIES)
    np.testing.assert_array_equal(everything.indices, exact.indices)


@each_measure
@pytest.mark.parametrize("mode", PRECISIONS)
@pytest.mark.parametrize("soar_lambda", [None, 1.0])
def test_the_leaves_are_the_best_of_those_in_the_best_upper_leaves(
    measure: Any, mode: ReorderType, soar_lambda: float | None
) -> None:
    """Against the definition, in NumPy and float64."""
    upper = {"num_leaves": 9, "num_leaves_to_search": 3, "scoring_mode": mode}
    searcher = build(measure, [upper | {"soar_lambda": soar_lambda}])
    index, routes = searcher._index, searcher._index.routes
    queries = unit(QUERIES) if measure == "cosine" else QUERIES
    above = scores(queries, routes["upper0_centroids"], routes.get("upper0_spreads"), measure)
    entries = routes["upper0_entries"].astype(int)
    spreads = None if index.spreads is None else index.spreads[entries]
    below = scores(queries, rounded(index), spreads, measure)
    starts = routes["upper0_starts"].astype(int)
    times = 1 if soar_lambda is None else 2
    for q, visited in enumerate(chosen(searcher, queries, 8)):
        order = np.argsort(-above[q], kind="stable")
        count = 3
        while np.diff(starts)[order[:count]].sum() < times * 8 and count < 9:
            count = min(2 * count, 9)
        reached = np.concatenate([np.arange(starts[u], starts[u + 1]) for u in order[:count]])
        best: list[int] = []
        for entry in reached[np.argsort(-below[q, reached], kind="stable")]:
            if entries[entry] not in best:
                best.append(int(entries[entry]))
        assert visited == set(best[:8])


@each_measure
def test_int8_centroids_choose_leaves_by_their_rounded_scores(measure: Any) -> None:
    searcher = build(measure, [], quantize_centroids=True)
    index = searcher._index
    rows = index.routes["centroids_i8"] * index.routes["centroid_scales"][:, None].astype(float)
    queries = unit(QUERIES) if measure == "cosine" else QUERIES
    ranked = np.argsort(-scores(queries, rows, index.spreads, measure), axis=1, kind="stable")
    for q, visited in enumerate(chosen(searcher, queries, 8)):
        assert visited == set(ranked[q, :8].tolist())


@each_measure
@pytest.mark.parametrize("uppers", [[], UPPERS[2]], ids=["int8 centroids", "upper tree"])
def test_scores_of_datapoints_do_not_feel_the_rounding(measure: Any, uppers: Any) -> None:
    """All leaves visited: codes score as with float32 centroids."""
    plain = build(measure, [], "codes").search_batched(QUERIES, leaves_to_search=60)
    searcher = build(measure, uppers, "codes", quantize_centroids=not uppers)
    found = searcher.search_batched(QUERIES, leaves_to_search=60)
    np.testing.assert_array_equal(found.indices, plain.indices)
    np.testing.assert_array_equal(found.distances, plain.distances)


@each_measure
@pytest.mark.parametrize("kind", ["brute force", "codes", "reorder"])
@pytest.mark.parametrize("uppers", [[], *UPPERS], ids=["int8", *map(str, range(len(UPPERS)))])
def test_alone_batched_parallel_and_loaded_agree(
    measure: Any, kind: str, uppers: Any, tmp_path: Any
) -> None:
    searcher = build(measure, uppers, kind, quantize_centroids=True)
    queries = normal(2, 300, 10)
    batched = searcher.search_batched(queries)
    searcher.num_threads = 3
    parallel = searcher.search_batched_parallel(queries)
    searcher.serialize(tmp_path / "index")
    loaded = swann.load_searcher(tmp_path / "index", verify="full")
    assert loaded.config == searcher.config
    for other in (parallel, loaded.search_batched(queries)):
        np.testing.assert_array_equal(other.indices, batched.indices)
        np.testing.assert_array_equal(other.distances, batched.distances)
    for i in range(0, 300, 23):
        alone = searcher.search(queries[i])
        np.testing.assert_array_equal(alone.indices, batched.indices[i])
        np.testing.assert_array_equal(alone.distances, batched.distances[i])


@each_upper
def test_the_same_index_on_any_number_of_threads(uppers: Any) -> None:
    made = []
    for threads in (1, 3):
        builder = swann.builder(DB, 5, "cosine").tree(60, 5)
        for upper in uppers:
            builder.upper_tree(**upper)
        searcher = builder.score_brute_force().set_n_training_threads(threads).build()
        made.append(searcher._index.arrays())
    for name, array in made[0].items():
        assert array.tobytes() == made[1][name].tobytes(), name


def test_more_upper_leaves_find_more() -> None:
    db = normal(3, 8000, 16)
    exact = swann.exact_neighbors(db, QUERIES_16, 10, "dot_product").indices
    recalls = []
    for visited in (2, 8, 20):
        builder = swann.builder(db, 10, "dot_product").tree(400, 60)
        searcher = builder.upper_tree(20, visited).score_brute_force().build()
        recalls.append(swann.recall(searcher.search_batched(QUERIES_16).indices, exact))
    whole = swann.builder(db, 10, "dot_product").tree(400, 60).score_brute_force().build()
    recalls.append(swann.recall(whole.search_batched(QUERIES_16).indices, exact))
    assert recalls[0] < recalls[1] < recalls[2]
    assert abs(recalls[2] - recalls[3]) < 0.01  # int8 rounding


QUERIES_16 = normal(4, 100, 16)


# ---- Odd sizes, updates, damage


@each_measure
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_tiny_databases(measure: Any, n: int) -> None:
    for tree in ({"quantize_centroids": True}, {"soar_lambda": 1.0}):
        builder = swann.builder(DB[:n], 3, measure).tree(12, 3, **tree)
        builder.upper_tree(4, 1, soar_lambda=1.0, avq=2.0).upper_tree(3, 1)
        searcher = builder.score_brute_force().build()
        found = searcher.search_batched(QUERIES, 5, leaves_to_search=12).indices
        for row in found:
            assert sorted(row[row >= 0].tolist()) == list(range(n))


@each_measure
def test_identical_centroids(measure: Any) -> None:
    builder = swann.builder(np.ones((40, 3), np.float32), 40, measure).tree(12, 12)
    searcher = builder.upper_tree(4, 1, soar_lambda=1.0).score_brute_force().build()
    assert sorted(searcher.search([1, 2, 3]).indices.tolist()) == list(range(40))


@pytest.mark.parametrize("uppers", [[], UPPERS[2], UPPERS[4]], ids=["int8", "soar", "two levels"])
def test_levels_follow_when_leaves_are_split(uppers: Any, tmp_path: Any) -> None:
    searcher = build("dot_product", uppers, quantize_centroids=True, incremental_threshold=200)
    new = DB[0] + np.float32(0.3) * normal(5, 3000, 10)  # they crowd into few leaves
    searcher.upsert(None, new, batch_size=1000)
    index = searcher._index
    assert index.centroids is not None
    assert len(index.centroids) != 60
    expected = build_routes(index.config, index.centroids, 1)
    assert set(expected) == set(index.routes)
    for name, array in expected.items():
        np.testing.assert_array_equal(index.routes[name], array)
    exact = swann.exact_neighbors(np.concatenate([DB, new]), QUERIES, 10, "dot_product")
    found = searcher.search_batched(QUERIES, leaves_to_search=10**6)
    np.testing.assert_array_equal(found.indices, exact.indices)
    searcher.serialize(tmp_path / "index")
    again = swann.load_searcher(tmp_path / "index").search_batched(QUERIES, leaves_to_search=10**6)
    np.testing.assert_array_equal(again.indices, exact.indices)


@each_measure
@pytest.mark.parametrize("kind", ["pca", "truncate"])
@pytest.mark.parametrize("uppers", [[], UPPERS[3]], ids=["int8", "upper tree"])
def test_levels_of_reduced_dimension(measure: Any, kind: str, uppers: Any, tmp_path: Any) -> None:
    builder = swann.builder(DB, 10, measure).tree(60, 60, quantize_centroids=True)
    for upper in uppers:
        builder.upper_tree(**upper)
    getattr(builder, kind)(4)
    searcher = builder.score_ah(2).reorder(1500).build()
    index = searcher._index
    assert index.centroids is not None
    assert index.centroids.shape[1] == 4
    assert all(array.shape[1:] in ((), (4,)) for array in index.routes.values())
    exact = swann.exact_neighbors(DB, QUERIES, 10, measure)
    np.testing.assert_array_equal(searcher.search_batched(QUERIES).indices, exact.indices)
    few = searcher.search_batched(QUERIES, leaves_to_search=5)
    searcher.serialize(tmp_path / "index")
    again = swann.load_searcher(tmp_path / "index").search_batched(QUERIES, leaves_to_search=5)
    np.testing.assert_array_equal(again.indices, few.indices)


def test_what_stood_there_before_is_removed(tmp_path: Any) -> None:
    build("squared_l2", UPPERS[4]).serialize(tmp_path)
    assert any(path.name.startswith("upper1_") for path in tmp_path.iterdir())
    (tmp_path / "upper_0123456789abcdef.npy").write_bytes(b"not ours")
    build("squared_l2", []).serialize(tmp_path)
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(("upper", "centroid"))]
    assert len([name for name in left if name.startswith("centroids-")]) == 1
    assert sorted(left)[1:] == ["upper_0123456789abcdef.npy"]


@pytest.mark.parametrize(
    "name",
    ["centroids", "starts", "starts beyond", "entries", "repeat", "rows", "scales", "squares"],
)
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    """They are checked where they enter the native code: nothing can read beyond them."""
    index = build("squared_l2", [{"num_leaves": 9, "num_leaves_to_search": 2}])._index
    routes = {key: array.copy() for key, array in index.routes.items()}
    match name:
        case "centroids":
            routes["upper0_centroids"] = routes["upper0_centroids"][:-1]
        case "starts":
            routes["upper0_starts"][3] = routes["upper0_starts"][4] + 1
        case "starts beyond":
            routes["upper0_starts"][-1] += 1
        case "entries":
            routes["upper0_entries"][5] = 60
        case "repeat":
            routes["upper0_entries"][5] = routes["upper0_entries"][6]
        case "rows":
            routes["upper0_rows_i8"] = routes["upper0_rows_i8"][:, :-1].copy()
        case "scales":
            routes["upper0_row_scales"] = routes["upper0_row_scales"][1:]
        case _:
            del routes["upper0_row_squares"]
    with pytest.raises(ValueError, match="native call: "):
        dataclasses.replace(index, routes=routes)


def test_settings() -> None:
    with pytest.raises(swann.ConfigError, match="upper_tree needs a tree below it"):
        swann.builder(DB, 3, "cosine").upper_tree(4, 2).score_brute_force().build()
    with pytest.raises(swann.ConfigError, match="more than the 12 centroids below it"):
        swann.builder(DB, 3, "cosine").tree(12, 2).upper_tree(13, 2).score_brute_force().build()
    config = build("cosine", UPPERS[5]).config
    assert type(config).from_dict(config.to_dict()) == config
    assert config.tree is not None
    assert isinstance(config.tree.upper, UpperTreeConfig)
    assert isinstance(config.tree.upper.upper, UpperTreeConfig)

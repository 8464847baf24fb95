"""A ScaNN program runs after a change of its import."""

from __future__ import annotations

import enum
import inspect
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swann
from swann import ConfigError, scann_ops_pybind
from swann.compat.scann_config import config_from_text
from swann.compat.scann_ops_pybind import ReorderType, ScannBuilder, ScannSearcher

RNG = np.random.default_rng(0)
DB = RNG.standard_normal((600, 10), dtype=np.float32)
QUERIES = RNG.standard_normal((7, 10), dtype=np.float32)

# Names and order of arguments, as ScaNN 1.4.2 has them.
SIGNATURES = {
    scann_ops_pybind.builder: "db num_neighbors distance_measure",
    scann_ops_pybind.create_searcher: "db scann_config training_threads docids **unused_kwargs",
    scann_ops_pybind.load_searcher: "artifacts_dir assets_backcompat_shim",
    ScannBuilder.set_n_training_threads: "threads",
    ScannBuilder.tree: (
        "num_leaves num_leaves_to_search training_sample_size min_partition_size "
        "training_iterations spherical quantize_centroids random_init incremental_threshold avq "
        "soar_lambda overretrieve_factor **unused"
    ),
    ScannBuilder.score_ah: (
        "dimensions_per_block anisotropic_quantization_threshold training_sample_size "
        "min_cluster_size hash_type training_iterations **unused"
    ),
    ScannBuilder.score_brute_force: "quantize",
    ScannBuilder.reorder: "reordering_num_neighbors quantize anisotropic_quantization_threshold",
    ScannBuilder.upper_tree: (
        "num_leaves num_leaves_to_search avq soar_lambda overretrieve_factor scoring_mode "
        "anisotropic_quantization_threshold"
    ),
    ScannBuilder.pca: "reduction_dim pca_significance_threshold pca_truncation_threshold",
    ScannBuilder.truncate: "reduction_dim",
    ScannBuilder.set_builder_lambda: "builder_lambda",
    ScannBuilder.create_config: "",
    ScannBuilder.build: "docids **kwargs",
    ScannSearcher: "searcher docids",
    ScannSearcher.search: "q final_num_neighbors pre_reorder_num_neighbors leaves_to_search",
    ScannSearcher.search_batched: (
        "queries final_num_neighbors pre_reorder_num_neighbors leaves_to_search"
    ),
    ScannSearcher.search_batched_parallel: (
        "queries final_num_neighbors pre_reorder_num_neighbors leaves_to_search batch_size"
    ),
    ScannSearcher.serialize: "artifacts_dir relative_path",
    ScannSearcher.upsert: "docids database batch_size",
    ScannSearcher.delete: "docids",
    ScannSearcher.rebalance: "config",
    ScannSearcher.reserve: "num_datapoints",
    ScannSearcher.initialize_health_stats: "",
    ScannSearcher.get_health_stats: "",
    ScannSearcher.size: "",
    ScannSearcher.set_num_threads: "num_threads",
    ScannSearcher.config: "",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__qualname__)
def test_signatures(function: Any) -> None:
    parameters = inspect.signature(function).parameters.values()
    names = [f"**{p.name}" if p.kind is p.VAR_KEYWORD else p.name for p in parameters]
    assert [name for name in names if name != "self"] == SIGNATURES[function].split()


def scann_program() -> ScannSearcher:
    """What ScaNN's documentation shows, word for word."""
    return (
        scann_ops_pybind.builder(DB, 10, "dot_product")
        .tree(num_leaves=20, num_leaves_to_search=10, training_sample_size=600)
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(100)
        .build()
    )


def test_a_scann_program(tmp_path: Path) -> None:
    searcher = scann_program()
    neighbors, distances = searcher.search(QUERIES[0], final_num_neighbors=5)
    assert neighbors.shape == distances.shape == (5,)
    assert (np.diff(distances) <= 0).all()
    neighbors, distances = searcher.search_batched(QUERIES)
    assert neighbors.shape == distances.shape == (7, 10)
    many, _ = searcher.search_batched_parallel(QUERIES, leaves_to_search=10, batch_size=2)
    assert np.array_equal(many, neighbors)
    default, _ = searcher.search_batched(QUERIES, -1, -1, -1)
    assert np.array_equal(default, neighbors)
    assert searcher.size() == len(searcher) == 600
    assert searcher.docids is None
    assert searcher.docid_to_id is None
    searcher.set_num_threads(1)
    assert searcher.searcher.num_threads == 1
    assert "DotProductDistance" in searcher.config()
    assert "ScannSearcher" in repr(searcher)

    searcher.serialize(str(tmp_path), relative_path=True)
    loaded = scann_ops_pybind.load_searcher(str(tmp_path))
    assert np.array_equal(loaded.search_batched(QUERIES)[0], neighbors)


def test_the_same_answers_as_the_builder_itself() -> None:
    direct = (
        swann.builder(DB, 10, "dot_product")
        .tree(20, 10, 600)
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(100)
        .build()
    )
    expected = direct.search_batched(QUERIES)
    config = scann_ops_pybind.ScannBuilder(DB, 10, "dot_product")
    config.tree(20, 10, 600).score_ah(2, 0.2).reorder(100).set_n_training_threads(1)
    for searcher in (
        scann_program(),
        config.build(),
        scann_ops_pybind.create_searcher(DB, config.create_config(), training_threads=1),
    ):
        for a, b in zip(searcher.search_batched(QUERIES), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_single_search_comes_back_shorter_and_a_batch_is_padded() -> None:
    searcher = scann_ops_pybind.builder(DB[:3], 5, "dot_product").score_brute_force().build()
    neighbors, distances = searcher.search(QUERIES[0])
    assert neighbors.shape == distances.shape == (3,)
    neighbors, distances = searcher.search_batched(QUERIES)
    assert (neighbors[:, 3:] == -1).all()
    assert np.isnan(distances[:, 3:]).all()


class OtherReorderType(enum.Enum):
    """ScaNN's own enum, as a program may still import it."""

    FLOAT32 = 1
    INT8 = 2


@pytest.mark.parametrize(
    "call",
    [
        lambda b: b.score_brute_force(False),
        lambda b: b.score_brute_force(ReorderType.FLOAT32),
        lambda b: b.score_brute_force(OtherReorderType.FLOAT32),
        lambda b: b.score_ah(2, math.nan, 1000, 100, "lut16", 10),
        lambda b: b.score_ah(2, min_cluster_size=7, residual_quantization=None, n_dims=None),
        lambda b: b.score_brute_force().reorder(5, quantize=False),
        lambda b: b.score_brute_force().reorder(
            5, ReorderType.FLOAT32, anisotropic_quantization_threshold=float("nan")
        ),
        lambda b: b.tree(5, 2, soar_lambda=None, avq=None).score_brute_force(),
        lambda b: b.tree(5, 2, avq=math.nan, distance_measure=None).score_brute_force(),
        lambda b: b.score_brute_force().set_n_training_threads(0),
        lambda b: b.score_brute_force(True),
        lambda b: b.score_brute_force(OtherReorderType.INT8),
        lambda b: b.score_ah(2).reorder(5, ReorderType.BFLOAT16, 0.2),
        lambda b: b.tree(5, 2, soar_lambda=1.5, overretrieve_factor=2.0).score_ah(2),
    ],
)
def test_scanns_arguments_are_accepted(call: Any) -> None:
    assert call(scann_ops_pybind.builder(DB, 5, "squared_l2")).build(docids=None).size() == 600


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda b: b.tree(5, 2, colour="red"), "colour"),
        (lambda b: b.score_ah(2, residual_quantization=True), "residual_quantization"),
        (lambda b: b.score_brute_force().build(speed=3), "speed"),
    ],
)
def test_what_is_not_known_is_named(call: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named} is not known"):
        call(scann_ops_pybind.builder(DB, 5, "dot_product"))


GOLDEN = Path(__file__).parent / "golden" / "scann_config"
CASES = json.loads((GOLDEN / "cases.json").read_text())


@pytest.mark.parametrize("name", [name for name in CASES if "autopilot" not in name])
def test_the_builder_writes_what_scann_prints(name: str) -> None:
    db = np.zeros((50, 32), np.float32)
    builder = scann_ops_pybind.builder(db, 10, CASES[name]["measure"])
    for method, arguments in CASES[name]["calls"]:
        assert getattr(builder, method)(**arguments) is builder
    text = (GOLDEN / f"{name}.txt").read_text()
    assert builder.create_config().splitlines() == text.rstrip().splitlines()


@pytest.mark.parametrize("name", [name for name in CASES if "autopilot" not in name])
def test_scanns_texts_build(name: str) -> None:
    db = RNG.standard_normal((800, 32), dtype=np.float32)
    text = (GOLDEN / f"{name}.txt").read_text()
    searcher = scann_ops_pybind.create_searcher(db, text, docids=list(range(800)))
    # Not found where few leaves are searched or few dimensions are left.
    found = searcher.search_batched(db[:50], leaves_to_search=50).indices
    assert sum(row in some for row, some in enumerate(found)) >= 45
    assert searcher.config().splitlines() == text.rstrip().splitlines()


def test_builder_lambda() -> None:
    builder = scann_ops_pybind.builder(DB, 5, "dot_product").score_brute_force()
    assert builder.builder_lambda is None
    got: list[Any] = []

    def build(*args: Any, **kwargs: Any) -> str:
        got.extend((args, kwargs))
        return "built"

    builder.set_n_training_threads(3).set_builder_lambda(build)
    assert builder.build(docids=["a"], shared_name="b") == "built"
    assert got == [(DB, builder.create_config(), 3), {"docids": ["a"], "shared_name": "b"}]
    assert builder.set_builder_lambda(scann_ops_pybind.create_searcher).build().size() == 600


def test_more_leaves_to_search_than_there_are() -> None:
    builder = scann_ops_pybind.builder(DB, 5, "dot_product").tree(50, 70).upper_tree(4, 5)
    text = builder.score_ah(2).create_config()
    assert "max_spill_centers: 50" in text
    assert "num_centroids_to_search: 4" in text


def test_pca_arguments() -> None:
    def config(*args: Any) -> swann.ProjectionConfig | None:
        builder = scann_ops_pybind.builder(DB, 5, "dot_product").pca(*args).score_ah(2)
        return config_from_text(builder.create_config()).projection

    assert config(4) == config(4, None) == swann.ProjectionConfig(kind="pca", reduction_dim=4)
    assert config(None, 0.5, None) == swann.ProjectionConfig(
        kind="pca", pca_significance_threshold=0.5, pca_truncation_threshold=0.6
    )
    with pytest.raises(ConfigError, match="neither reduction_dim nor"):
        config(None, None)
    with pytest.raises(ConfigError, match="reduction_dim is 10; expected less than 10"):
        scann_ops_pybind.builder(DB, 5, "dot_product").truncate(10)


def test_bad_configs() -> None:
    for config, what in (
        ("", "num_neighbors is missing"),
        (None, "of type NoneType; expected str"),
        ("num_neighbors: 10", "just one of hash and brute_force"),
        ("num_neighbors 10", "line 1, column 15"),
        ("{}", "IndexConfig lacks settings"),
        ("{", "expected a text proto, or JSON"),
        ('{"a": ' * 100_000, "expected a text proto, or JSON"),
    ):
        with pytest.raises(ConfigError, match=what):
            scann_ops_pybind.create_searcher(DB, config)  # type: ignore[arg-type]
    wide = scann_ops_pybind.builder(DB, 5, "dot_product").score_ah(10).create_config()
    with pytest.raises(ConfigError, match="input_dim is 10; expected 9, the dimension of db"):
        scann_ops_pybind.create_searcher(DB[:, :9], wide)
    with pytest.raises(ConfigError, match="dimensions_per_block"):
        scann_ops_pybind.create_searcher(DB[:, :9], wide.replace("input_dim: 10", ""))
    for threads in (-1, 1.5):
        with pytest.raises(ConfigError, match="threads is"):
            scann_ops_pybind.builder(DB, 5, "dot_product").set_n_training_threads(threads)  # type: ignore[arg-type]


def test_configurations_are_texts() -> None:
    searcher = scann_program()
    text = searcher.config()
    for line in ("num_children: 20", "max_spill_centers: 10", "noise_shaping_threshold: 0.2"):
        assert line in text
    assert scann_ops_pybind.create_searcher(DB, text).config() == text
    # A program edits what it stored.
    fewer = scann_ops_pybind.create_searcher(
        DB, text.replace("num_children: 20", "num_children: 5")
    )
    assert fewer.searcher.config.tree == swann.TreeConfig(
        num_leaves=5, num_leaves_to_search=5, training_sample_size=600
    )


def test_json_is_a_configuration_too() -> None:
    config = swann.builder(DB, 10, "cosine").tree(20, 10).score_ah(2).seed(3).create_config()
    searcher = scann_ops_pybind.create_searcher(DB, json.dumps(config.to_dict()))
    assert searcher.searcher.config == config


# ---- Docids and updates, as ScaNN's own program of them does


DOCIDS = [f"doc {i}" for i in range(600)]


def brute_force(docids: Any = DOCIDS, k: int = 5) -> ScannSearcher:
    builder = scann_ops_pybind.builder(DB, k, "dot_product").score_brute_force()
    made: ScannSearcher = builder.build(docids=docids)
    return made


def test_docids_come_in_lists() -> None:
    for docids in (DOCIDS, tuple(DOCIDS), list(range(100, 700)), np.arange(100, 700)):
        plain = np.asarray(docids).tolist()
        searcher = brute_force(docids)
        rows = brute_force(None).search_batched(QUERIES).indices
        found, distances = searcher.search(QUERIES[1])
        assert found == [plain[row] for row in rows[1]]
        assert distances.shape == (5,)
        expected = [[plain[row] for row in some] for some in rows]
        assert searcher.search_batched(QUERIES).indices == expected
        assert searcher.search_batched_parallel(QUERIES).indices == expected
        assert searcher.docids == plain
        assert searcher.docid_to_id == {docid: place for place, docid in enumerate(plain)}
        assert scann_ops_pybind.ScannSearcher(searcher.searcher, plain).docids == plain
    with pytest.raises(ConfigError, match="docids differ"):
        scann_ops_pybind.ScannSearcher(searcher.searcher, DOCIDS)


def test_short_results_with_docids() -> None:
    for docids in (["a", "b", "c"], [7, 8, 9]):
        builder = scann_ops_pybind.builder(DB[:3], 5, "dot_product").score_brute_force()
        searcher = builder.build(docids=docids)
        found, distances = searcher.search(QUERIES[0])
        assert sorted(found) == docids
        assert distances.shape == (3,)
        found, distances = searcher.search_batched(QUERIES[:2])
        assert [sorted(row) for row in found] == [docids, docids]
        assert distances.shape == (2, 3)


@pytest.mark.parametrize("k", [50, 10**8, 2**31 - 1])
def test_no_more_neighbors_than_there_are(k: int) -> None:
    """As with ScaNN; room for all that were asked for may be more than there is memory."""
    builder = scann_ops_pybind.builder(DB[:20], k, "dot_product").score_brute_force()
    searcher = builder.build()
    for asked in (-1, None, k, np.int64(k)):
        assert searcher.search(QUERIES[0], asked).indices.shape == (20,)
        assert searcher.search_batched(QUERIES, asked).distances.shape == (7, 20)
        assert searcher.search_batched_parallel(QUERIES, asked).indices.shape == (7, 20)
    if k > 2**20:
        with pytest.raises(ConfigError, match=r"final_num_neighbors is \d+, of 20 datapoints"):
            searcher.searcher.search(QUERIES[0], k)
        with pytest.raises(ConfigError, match="expected as many at most, or 1048576"):
            searcher.searcher.search_batched(QUERIES)


def test_a_tree_may_find_fewer() -> None:
    builder = scann_ops_pybind.builder(DB, 5, "dot_product").tree(60, 1).score_brute_force()
    found = builder.build().search_batched(QUERIES, 300)
    assert found.indices.shape == (7, 300)
    assert (found.indices[:, -1] == -1).all()


@pytest.mark.parametrize("docids", [DOCIDS, list(range(7, 607))], ids=["str", "int"])
def test_docid_to_id(docids: list[Any]) -> None:
    searcher = brute_force(docids)
    places = searcher.docid_to_id
    assert places is not None
    searcher.delete(docids[:2])
    new: Any = "new" if isinstance(docids[0], str) else 10_000
    searcher.upsert([new], DB[:1])
    expected = {docid: place for place, docid in enumerate([*docids[2:], new])}
    assert places == expected
    assert dict(places) == expected
    assert len(places) == 599
    assert places[docids[5]] == 3
    assert places[new] == 598
    assert new in places
    assert repr(places) == repr(expected)
    other: Any
    for other in (docids[0], None, 1.5, "nobody", -1, 10**30, True, (1,), np.int64(3)):
        assert other not in places
        assert other not in searcher.searcher
        assert places.get(other) is None
    assert np.asarray(docids)[9] in places


@pytest.mark.parametrize(
    ("docids", "error", "message"),
    [
        (["a"], ValueError, "1 docids for 600 datapoints"),
        (["a"] * 600, ValueError, "'a' twice"),
        ([None] * 600, TypeError, r"docids\[0\] is None"),
    ],
)
def test_bad_docids(docids: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        brute_force(docids)


def test_updates(tmp_path: Path) -> None:
    given = list(DOCIDS)
    searcher = brute_force(given)
    first = searcher.search(QUERIES[0]).indices[0]

    assert searcher.upsert("new", 10 * QUERIES[0]) is None  # type: ignore[func-returns-value]
    assert searcher.search(QUERIES[0]).indices[:2] == ["new", first]
    searcher.upsert(["new", "newer"], [(20 * QUERIES[1]).tolist(), (30 * QUERIES[0]).tolist()], 2)
    assert searcher.search(QUERIES[0]).indices[0] == "newer"
    assert searcher.search(QUERIES[1]).indices[0] == "new"
    searcher.upsert([], np.zeros((0, 10), np.float32))
    assert searcher.size() == len(searcher) == 602
    assert given == DOCIDS
    assert searcher.docids is not None
    searcher.docids.clear()
    assert len(searcher.docids) == 602

    searcher.delete("newer")
    searcher.delete(["new", "doc 3"])
    searcher.delete([])
    assert searcher.search(QUERIES[0]).indices[0] == first
    for gone in ("newer", ["doc 4", "new"]):
        with pytest.raises(KeyError, match="new"):
            searcher.delete(gone)
    assert searcher.size() == 599  # "doc 4" is still there

    searcher.reserve(1000)
    assert searcher.rebalance() == 599
    tree = scann_ops_pybind.builder(DB, 7, "dot_product").tree(10, 10).score_ah(2).reorder(50)
    text = tree.create_config()
    assert searcher.rebalance(text) == 599
    assert searcher.config() == text
    assert len(searcher.search(QUERIES[0]).indices) == 7
    assert searcher.search(QUERIES[0]).indices[0] == first

    searcher.serialize(tmp_path)
    loaded = scann_ops_pybind.load_searcher(tmp_path)
    assert loaded.docids == searcher.docids
    loaded.delete(first)
    assert first not in loaded.search(QUERIES[0]).indices


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.upsert(["a"], QUERIES[:2]), ValueError, "docids"),
        (lambda s: s.upsert(["a"], QUERIES[:1, :4]), ValueError, "dimensions"),
        (lambda s: s.upsert(["a", "b"], QUERIES[:2] / [[1], [0]]), ValueError, "is (nan|-?inf)"),
        (lambda s: s.upsert(["a", "a"], QUERIES[:2]), ValueError, "twice"),
        (lambda s: s.upsert(["a"], QUERIES[:1], 0), ValueError, "batch_size is 0"),
        (lambda s: s.upsert([3], QUERIES[:1]), TypeError, "docids"),
        (lambda s: s.delete(["doc 1", "doc 1"]), ValueError, "twice"),
        (lambda s: s.reserve(-1), ValueError, "num_datapoints is -1"),
        (lambda s: s.rebalance("colour: 3"), ValueError, "num_neighbors is missing"),
        (lambda s: s.rebalance(s.config().replace("DotProduct", "SquaredL2")), ValueError, "own"),
        (lambda s: s.set_num_threads(0), ValueError, "num_threads is 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_failed_update_changes_nothing(call: Any, error: type[Exception], message: str) -> None:
    searcher = brute_force()
    before = searcher.search_batched(QUERIES)
    with pytest.raises(error, match=message):
        call(searcher)
    after = searcher.search_batched(QUERIES)
    assert after.indices == before.indices
    assert np.array_equal(after.distances, before.distances)
    assert searcher.docids == DOCIDS


def test_updates_need_docids() -> None:
    searcher = brute_force(None)
    assert searcher.docids is None
    with pytest.raises(ValueError, match=r"cannot upsert: docids were not given"):
        searcher.upsert(["a"], QUERIES[:1])
    with pytest.raises(ValueError, match=r"cannot delete: docids were not given"):
        searcher.delete(["a"])


def test_health() -> None:
    builder = scann_ops_pybind.builder(DB, 5, "dot_product").tree(10, 5).score_ah(2).reorder(50)
    searcher = builder.build(docids=DOCIDS)
    searcher.initialize_health_stats()
    stats = searcher.get_health_stats()
    assert set(stats) == {
        "avg_quantization_error",
        "partition_weighted_avg_relative_imbalance",
        "partition_avg_relative_positive_imbalance",
        "sum_partition_sizes",
    }
    assert stats["sum_partition_sizes"] == 600
    assert stats["avg_quantization_error"] > 0


def test_an_index_may_start_empty() -> None:
    config = scann_ops_pybind.builder(DB[:0], 5, "dot_product").score_brute_force().create_config()
    for searcher in (
        scann_ops_pybind.builder(DB[:0], 5, "dot_product").score_brute_force().build(docids=[]),
        scann_ops_pybind.create_searcher(DB[:0], config, docids=[]),
    ):
        assert searcher.search(QUERIES[0]).indices == []
        searcher.upsert(DOCIDS, DB, 256)
        assert (
            searcher.search_batched(QUERIES).indices
            == brute_force().search_batched(QUERIES).indices
        )


def test_autopilot() -> None:
    searcher = scann_ops_pybind.builder(DB, 5, "dot_product").autopilot().build()
    text = searcher.config()
    assert "autopilot" in text
    again = scann_ops_pybind.create_searcher(DB, text)
    assert again.searcher.config == searcher.searcher.config
    np.testing.assert_array_equal(again.search(DB[3])[0], searcher.search(DB[3])[0])

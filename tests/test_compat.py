"""A ScaNN program runs after a change of its import."""

from __future__ import annotations

import enum
import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swann
from swann import ConfigError, scann_ops_pybind
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
    searcher.set_num_threads(1)
    assert searcher.searcher.num_threads == 1
    assert "dot_product" in searcher.config()
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
        (lambda b: b.tree(5, 2, avq=2.0), r"tree\(avq=2\.0\)"),
        (lambda b: b.tree(5, 2, incremental_threshold=0.5), "incremental_threshold"),
        (lambda b: b.tree(5, 2, colour="red"), "colour"),
        (lambda b: b.tree(5, 2, quantize_centroids=True), "quantize_centroids"),
        (lambda b: b.score_ah(2, hash_type="lut256"), "lut256"),
        (lambda b: b.score_ah(2, residual_quantization=True), "residual_quantization"),
        (lambda b: b.score_brute_force().build(docids=["a"]), "docids"),
        (lambda b: b.score_brute_force().build(speed=3), "speed"),
        (lambda b: b.autopilot(), r"ScannBuilder\.autopilot"),
        (lambda b: b.pca(reduction_dim=5), r"ScannBuilder\.pca"),
        (lambda b: b.truncate(5), r"ScannBuilder\.truncate"),
        (lambda b: b.upper_tree(5, 2), r"ScannBuilder\.upper_tree"),
        (lambda b: b.set_builder_lambda(len), r"ScannBuilder\.set_builder_lambda"),
    ],
)
def test_what_is_not_there_yet_is_named(call: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}.*not supported"):
        call(scann_ops_pybind.builder(DB, 5, "dot_product"))


@pytest.mark.parametrize(
    "name",
    ["upsert", "delete", "rebalance", "reserve", "get_health_stats", "initialize_health_stats"],
)
def test_searcher_methods_that_are_not_there_yet(name: str) -> None:
    searcher = scann_ops_pybind.builder(DB, 5, "dot_product").score_brute_force().build()
    with pytest.raises(ConfigError, match=rf"ScannSearcher\.{name} is not supported"):
        getattr(searcher, name)()


def test_bad_configs() -> None:
    for config in ("num_neighbors: 10", "", None):
        with pytest.raises(ConfigError, match=r"scann_config is .*text protos of ScaNN"):
            scann_ops_pybind.create_searcher(DB, config)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="IndexConfig lacks settings"):
        scann_ops_pybind.create_searcher(DB, "{}")
    wide = scann_ops_pybind.builder(DB, 5, "dot_product").score_ah(10).create_config()
    with pytest.raises(ConfigError, match="dimensions_per_block"):
        scann_ops_pybind.create_searcher(DB[:, :9], wide)
    for threads in (-1, 1.5):
        with pytest.raises(ConfigError, match="threads is"):
            scann_ops_pybind.builder(DB, 5, "dot_product").set_n_training_threads(threads)  # type: ignore[arg-type]

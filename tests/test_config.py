"""Settings are checked when made, and survive JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swann.config import (
    AHConfig,
    AutopilotConfig,
    BruteForceConfig,
    IncrementalMode,
    IndexConfig,
    ProjectionConfig,
    ReorderConfig,
    ReorderType,
    TreeConfig,
    UpperTreeConfig,
    check_count,
)
from swann.errors import ConfigError

counts = st.integers(1, 2**40)
factors = st.none() | st.floats(1, 100)
upper_trees = st.builds(
    lambda **rest: UpperTreeConfig(num_leaves=3, num_leaves_to_search=2, **rest),
    avq=factors,
    soar_lambda=factors,
    scoring_mode=st.sampled_from(ReorderType),
    upper=st.none() | st.just(UpperTreeConfig(num_leaves=2, num_leaves_to_search=1)),
)
projections = st.builds(
    ProjectionConfig, kind=st.sampled_from(["pca", "truncate"]), reduction_dim=counts
) | st.builds(
    ProjectionConfig,
    kind=st.just("pca"),
    pca_significance_threshold=st.floats(0, 1, exclude_min=True),
    pca_truncation_threshold=st.none() | st.floats(0, 1, exclude_min=True),
)
trees = st.builds(
    lambda leaves, extra, **rest: TreeConfig(
        num_leaves=leaves + extra + 1, num_leaves_to_search=leaves, **rest
    ),
    counts,
    counts,
    training_sample_size=counts,
    min_partition_size=st.integers(0, 2**40),
    training_iterations=counts,
    spherical=st.booleans(),
    random_init=st.booleans(),
    quantize_centroids=st.booleans(),
    incremental_threshold=st.none() | counts | st.floats(0, 10, exclude_min=True),
    avq=factors,
    upper=st.none() | st.just(UpperTreeConfig(num_leaves=2, num_leaves_to_search=1)),
)
hashes = st.builds(
    AHConfig,
    dimensions_per_block=counts,
    anisotropic_quantization_threshold=st.none()
    | st.just(math.nan)
    | st.floats(0, 100, exclude_min=True),
    training_sample_size=counts,
    training_iterations=counts,
)
configs = st.builds(
    IndexConfig,
    num_neighbors=counts,
    distance_measure=st.sampled_from(["dot_product", "squared_l2", "cosine"]),
    tree=st.none() | trees,
    score=hashes | st.just(BruteForceConfig()),
    reorder=st.none() | st.builds(ReorderConfig, reordering_num_neighbors=counts),
    projection=st.none() | projections,
    autopilot=st.none()
    | st.builds(
        AutopilotConfig,
        mode=st.sampled_from(IncrementalMode),
        quantize=st.sampled_from(ReorderType),
    ),
    seed=st.integers(0, 2**63 - 1),
)


@given(upper_trees)
def test_levels_survive_json(upper: UpperTreeConfig) -> None:
    tree = TreeConfig(num_leaves=3, num_leaves_to_search=1, upper=upper)
    assert TreeConfig.from_dict(json.loads(json.dumps(tree.to_dict()))) == tree


@given(configs)
def test_json_round_trip(config: IndexConfig) -> None:
    text = json.dumps(config.to_dict(), allow_nan=False)
    again = IndexConfig.from_dict(json.loads(text))
    assert again == config
    assert hash(again) == hash(config)
    assert repr(again) == repr(config)


def test_equality_and_freezing() -> None:
    assert AHConfig() == AHConfig(anisotropic_quantization_threshold=float("nan"))
    assert AHConfig() != AHConfig(anisotropic_quantization_threshold=0.2)
    assert BruteForceConfig() != ReorderConfig(reordering_num_neighbors=1)
    assert len({AHConfig(), AHConfig(), BruteForceConfig()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        AHConfig().dimensions_per_block = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        TreeConfig(10, 2)  # type: ignore[call-arg]


def test_scann_defaults() -> None:
    tree = TreeConfig(num_leaves=10, num_leaves_to_search=2)
    assert tree.to_dict() == {
        "num_leaves": 10,
        "num_leaves_to_search": 2,
        "training_sample_size": 100_000,
        "min_partition_size": 50,
        "training_iterations": 12,
        "spherical": False,
        "quantize_centroids": False,
        "random_init": True,
        "soar_lambda": None,
        "overretrieve_factor": None,
        "incremental_threshold": None,
        "avq": None,
        "upper": None,
    }
    assert AHConfig().to_dict() == {
        "dimensions_per_block": 2,
        "anisotropic_quantization_threshold": None,
        "training_sample_size": 100_000,
        "hash_type": "lut16",
        "training_iterations": 10,
    }
    assert not AHConfig().anisotropic
    assert AHConfig(anisotropic_quantization_threshold=0.2).anisotropic


def test_numpy_scalars_become_plain() -> None:
    settings: dict[str, Any] = {
        "num_leaves": np.int32(10),
        "num_leaves_to_search": np.uint8(2),
        "spherical": np.True_,
    }
    tree = TreeConfig(**settings)
    assert type(tree.num_leaves) is int
    assert tree.spherical is True
    threshold: Any = np.float32(0.25)
    score = AHConfig(anisotropic_quantization_threshold=threshold)
    assert type(score.anisotropic_quantization_threshold) is float
    json.dumps([tree.to_dict(), score.to_dict()])


TREE: dict[str, Any] = {"num_leaves": 10, "num_leaves_to_search": 2}
INDEX: dict[str, Any] = {"num_neighbors": 10, "distance_measure": "cosine"}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (TreeConfig, TREE | {"num_leaves": 0}, "num_leaves is 0; expected at least 1"),
        (TreeConfig, TREE | {"num_leaves": -3}, "num_leaves is -3; expected at least 1"),
        (TreeConfig, TREE | {"num_leaves": 2.5}, r"num_leaves is 2.5 \(float\); expected an int"),
        (TreeConfig, TREE | {"num_leaves": "10"}, r"num_leaves is '10' \(str\)"),
        (TreeConfig, TREE | {"num_leaves": True}, r"num_leaves is True \(bool\)"),
        (TreeConfig, TREE | {"num_leaves": None}, r"num_leaves is None \(NoneType\)"),
        (TreeConfig, TREE | {"num_leaves": 2**63}, r"at most 2\*\*63 - 1"),
        (TreeConfig, TREE | {"num_leaves_to_search": 0}, "num_leaves_to_search is 0"),
        (
            TreeConfig,
            TREE | {"num_leaves_to_search": 11},
            "is 11, but there are only num_leaves=10",
        ),
        (TreeConfig, TREE | {"training_sample_size": 0}, "training_sample_size is 0"),
        (TreeConfig, TREE | {"min_partition_size": -1}, "min_partition_size is -1"),
        (TreeConfig, TREE | {"training_iterations": 0}, "training_iterations is 0"),
        (TreeConfig, TREE | {"spherical": 1}, "spherical is 1; expected True or False"),
        (TreeConfig, TREE | {"random_init": "no"}, "random_init is 'no'"),
        (TreeConfig, TREE | {"quantize_centroids": 1}, "quantize_centroids is 1"),
        (
            TreeConfig,
            TREE | {"incremental_threshold": 0},
            "incremental_threshold is 0; exp",
        ),
        (TreeConfig, TREE | {"incremental_threshold": 0.0}, "is 0.0; expected a positive fraction"),
        (TreeConfig, TREE | {"incremental_threshold": math.nan}, "incremental_threshold is nan"),
        (TreeConfig, TREE | {"avq": 0.5}, "avq is 0.5; expected a finite number of at least 1"),
        (TreeConfig, TREE | {"upper": 3}, "upper is 3; expected an UpperTreeConfig"),
        (
            TreeConfig,
            TREE | {"upper": UpperTreeConfig(num_leaves=99, num_leaves_to_search=1)},
            "the upper tree has num_leaves=99, more than the 10 centroids",
        ),
        (UpperTreeConfig, {"num_leaves": 2, "num_leaves_to_search": 3}, "only num_leaves=2"),
        (
            UpperTreeConfig,
            {"num_leaves": 2, "num_leaves_to_search": 1, "scoring_mode": "INT4"},
            "scoring_mode is 'INT4'",
        ),
        (ProjectionConfig, {"kind": "pca"}, "expected just one"),
        (
            ProjectionConfig,
            {"kind": "random", "reduction_dim": 3},
            "kind of projection is 'random'",
        ),
        (ProjectionConfig, {"kind": "pca", "reduction_dim": 0}, "reduction_dim is 0"),
        (
            ProjectionConfig,
            {"kind": "pca", "pca_significance_threshold": 1.5},
            "pca_significance_threshold is 1.5",
        ),
        (
            ProjectionConfig,
            {"kind": "truncate", "pca_significance_threshold": 0.5},
            "truncate takes reduction_dim only",
        ),
        (
            ProjectionConfig,
            {"kind": "pca", "reduction_dim": 3, "pca_truncation_threshold": 0.5},
            "given without pca_significance_threshold",
        ),
        (AutopilotConfig, {"mode": "SOMETIMES"}, "mode is 'SOMETIMES'"),
        (AHConfig, {"dimensions_per_block": 0}, "dimensions_per_block is 0"),
        (AHConfig, {"anisotropic_quantization_threshold": 0.0}, "threshold is 0.0; expected a fin"),
        (AHConfig, {"anisotropic_quantization_threshold": -0.2}, "threshold is -0.2"),
        (AHConfig, {"anisotropic_quantization_threshold": math.inf}, "threshold is inf"),
        (AHConfig, {"anisotropic_quantization_threshold": "0.2"}, "threshold is '0.2'"),
        (AHConfig, {"anisotropic_quantization_threshold": True}, "threshold is True"),
        (AHConfig, {"training_iterations": 0}, "training_iterations is 0"),
        (AHConfig, {"hash_type": "pq"}, "hash_type is 'pq'; expected 'lut16'"),
        (ReorderConfig, {"reordering_num_neighbors": 0}, "reordering_num_neighbors is 0"),
        (IndexConfig, INDEX | {"num_neighbors": 0}, "num_neighbors is 0"),
        (IndexConfig, INDEX | {"distance_measure": "l2"}, "distance_measure is 'l2'"),
        (IndexConfig, INDEX | {"seed": -1}, "seed is -1; expected at least 0"),
        (IndexConfig, INDEX | {"tree": AHConfig()}, "expected TreeConfig or None"),
        (IndexConfig, INDEX | {"score": None}, "expected AHConfig or BruteForceConfig"),
        (IndexConfig, INDEX | {"reorder": 3}, "reorder is 3; expected ReorderConfig or None"),
    ],
)
def test_bad_settings(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (INDEX | {"speed": 3, "colour": 1}, "IndexConfig has unknown settings: colour, speed"),
        ({"seed": 1}, "IndexConfig lacks settings: distance_measure, num_neighbors"),
        (INDEX | {"tree": {"num_leaves": 3}}, "TreeConfig lacks settings: num_leaves_to_search"),
        (INDEX | {"tree": TREE | {"x": 1}}, "TreeConfig has unknown settings: x"),
        (INDEX | {"tree": [1]}, r"TreeConfig is \[1\]; expected a mapping"),
        (INDEX | {"score": {"type": "magic"}}, "score type is 'magic'; expected 'ah'"),
        (INDEX | {"score": {}}, "score type is None"),
        (INDEX | {"score": "ah"}, "score is 'ah'; expected a mapping"),
        (INDEX | {"score": {"type": "brute_force", "bits": 8}}, "unknown settings: bits"),
        (INDEX | {"reorder": 7}, "ReorderConfig is 7; expected a mapping"),
        (None, "IndexConfig is None; expected a mapping"),
        ([], r"IndexConfig is \[\]; expected a mapping"),
    ],
)
def test_bad_json(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IndexConfig.from_dict(settings)


def test_check_count() -> None:
    assert check_count("k", np.int64(3)) == 3
    assert check_count("k", 0, minimum=0) == 0
    with pytest.raises(ConfigError, match="k is 0; expected at least 1"):
        check_count("k", 0)

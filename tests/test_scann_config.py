"""ScaNN's configuration text: what the real one printed is read, and written the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swann import (
    AHConfig,
    AutopilotConfig,
    BruteForceConfig,
    ConfigError,
    IncrementalMode,
    IndexConfig,
    ProjectionConfig,
    ReorderConfig,
    ReorderType,
    TreeConfig,
    UpperTreeConfig,
)
from swann.compat.scann_config import config_from_text, config_to_text

GOLDEN = Path(__file__).parent / "golden" / "scann_config"
CASES = json.loads((GOLDEN / "cases.json").read_text())

TREE: dict[str, Any] = {"num_leaves": 20, "num_leaves_to_search": 5}
# What the cases mean in swann's settings: measure, then the parts.
EXPECTED: dict[str, dict[str, Any]] = {
    "brute_force": {},
    "brute_force_int8": {"score": BruteForceConfig(quantize=ReorderType.INT8)},
    "brute_force_bfloat16": {"score": BruteForceConfig(quantize=ReorderType.BFLOAT16)},
    "tree_brute_force": {"tree": TreeConfig(**TREE)},
    "ah": {"score": AHConfig(), "reorder": ReorderConfig(reordering_num_neighbors=100)},
    "ah_uneven_blocks": {
        "score": AHConfig(
            dimensions_per_block=3,
            anisotropic_quantization_threshold=0.25,
            training_sample_size=1500,
            training_iterations=4,
        )
    },
    "lut256": {
        "tree": TreeConfig(**TREE, quantize_centroids=True),
        "score": AHConfig(dimensions_per_block=4, hash_type="lut256"),
        "reorder": ReorderConfig(
            reordering_num_neighbors=40,
            quantize=ReorderType.INT8,
            anisotropic_quantization_threshold=0.3,
        ),
    },
    "tree_ah_reorder": {
        "tree": TreeConfig(**TREE, training_sample_size=2000),
        "score": AHConfig(anisotropic_quantization_threshold=0.2),
        "reorder": ReorderConfig(reordering_num_neighbors=100),
    },
    "tree_squared_l2": {
        "tree": TreeConfig(
            num_leaves=30,
            num_leaves_to_search=6,
            min_partition_size=10,
            training_iterations=7,
            spherical=True,
            random_init=False,
        ),
        "score": AHConfig(),
        "reorder": ReorderConfig(reordering_num_neighbors=25, quantize=ReorderType.BFLOAT16),
    },
    "soar_avq": {
        "tree": TreeConfig(**TREE, avq=2.5, soar_lambda=1.5, overretrieve_factor=1.2),
        "score": AHConfig(anisotropic_quantization_threshold=0.2),
        "reorder": ReorderConfig(
            reordering_num_neighbors=100,
            quantize=ReorderType.BFLOAT16,
            anisotropic_quantization_threshold=0.2,
        ),
    },
    "soar": {
        "tree": TreeConfig(**TREE, soar_lambda=1.0),
        "score": AHConfig(),
        "reorder": ReorderConfig(reordering_num_neighbors=100),
    },
    "incremental_count": {
        "tree": TreeConfig(**TREE, incremental_threshold=500),
        "score": AHConfig(),
        "reorder": ReorderConfig(reordering_num_neighbors=100),
    },
    "incremental_fraction": {
        "tree": TreeConfig(**TREE, incremental_threshold=0.1),
        "score": AHConfig(),
        "reorder": ReorderConfig(reordering_num_neighbors=100),
    },
    "upper_tree": {
        "tree": TreeConfig(
            num_leaves=50,
            num_leaves_to_search=5,
            upper=UpperTreeConfig(num_leaves=5, num_leaves_to_search=2),
        ),
        "score": AHConfig(),
        "reorder": ReorderConfig(reordering_num_neighbors=100),
    },
    "upper_tree_soar": {
        "tree": TreeConfig(
            num_leaves=50,
            num_leaves_to_search=5,
            upper=UpperTreeConfig(
                num_leaves=8,
                num_leaves_to_search=3,
                avq=2.0,
                soar_lambda=1.25,
                overretrieve_factor=1.5,
                scoring_mode=ReorderType.BFLOAT16,
                anisotropic_quantization_threshold=0.2,
            ),
        ),
        "score": AHConfig(),
        "reorder": ReorderConfig(reordering_num_neighbors=100),
    },
    "pca": {
        "projection": ProjectionConfig(kind="pca", reduction_dim=16),
        "tree": TreeConfig(**TREE),
        "score": AHConfig(),
        "reorder": ReorderConfig(reordering_num_neighbors=30),
    },
    "pca_thresholds": {
        "projection": ProjectionConfig(
            kind="pca", pca_significance_threshold=0.8, pca_truncation_threshold=0.6
        ),
        "tree": TreeConfig(**TREE),
        "score": AHConfig(),
        "reorder": ReorderConfig(reordering_num_neighbors=30),
    },
    "truncate": {
        "projection": ProjectionConfig(kind="truncate", reduction_dim=16),
        "tree": TreeConfig(**TREE),
        "score": AHConfig(),
        "reorder": ReorderConfig(reordering_num_neighbors=30),
    },
    "autopilot": {"autopilot": AutopilotConfig()},
    # ScaNN's autopilot leaves out what has the default of the text, not of the builder.
    "autopilot_tree": {
        "autopilot": AutopilotConfig(
            mode=IncrementalMode.ONLINE_INCREMENTAL, quantize=ReorderType.BFLOAT16
        ),
        "tree": TreeConfig(
            num_leaves=87,
            num_leaves_to_search=53,
            training_sample_size=17400,
            min_partition_size=10,
            training_iterations=10,
            incremental_threshold=0.5,
        ),
        "score": AHConfig(training_sample_size=32000),
        "reorder": ReorderConfig(reordering_num_neighbors=317, quantize=ReorderType.BFLOAT16),
    },
}


def text_of(name: str, kind: str = "") -> str:
    return (GOLDEN / f"{name}{kind}.txt").read_text()


@pytest.mark.parametrize("name", CASES)
def test_what_scann_prints(name: str) -> None:
    case = CASES[name]
    dimension = case.get("dimension", 32)
    expected = IndexConfig(num_neighbors=10, distance_measure=case["measure"], **EXPECTED[name])
    text = text_of(name)
    assert config_from_text(text, dimension) == expected
    assert config_from_text(text) == expected
    assert config_from_text(text_of(name, ".builder"), dimension) == expected
    written = config_to_text(expected, dimension)
    assert config_from_text(written, dimension) == expected
    if "autopilot" not in name:
        assert written.splitlines() == text.rstrip().splitlines()


def test_another_dimension_is_refused() -> None:
    for name in ("ah", "ah_uneven_blocks", "pca", "truncate"):
        with pytest.raises(ConfigError, match=r"^scann_config: .*input_dim is 32; expected 33"):
            config_from_text(text_of(name), 33)


BASE = 'num_neighbors: 5 distance_measure { distance_measure: "DotProductDistance" } '
BF = BASE + "brute_force {} "


def hashed(blocks: str = "", settings: str = "") -> str:
    """A hash of blocks of two dimensions."""
    blocks = blocks or "projection_type: CHUNK num_dims_per_block: 2"
    return (
        f"hash {{ asymmetric_hash {{ projection {{ {blocks} }} num_clusters_per_block: 16 "
        f"lookup_type: INT8_LUT16 {settings} }} }} "
    )


def tree(settings: str = "") -> str:
    return BASE + hashed() + f"partitioning {{ num_children: 10 {settings} }} "


def test_defaults_are_those_of_scanns_text() -> None:
    assert config_from_text("num_neighbors: 5 brute_force {}") == IndexConfig(
        num_neighbors=5, distance_measure="squared_l2"
    )
    most = 2**31 - 1
    assert config_from_text(tree()) == IndexConfig(
        num_neighbors=5,
        distance_measure="dot_product",
        tree=TreeConfig(
            num_leaves=10,
            num_leaves_to_search=1,
            training_sample_size=most,
            min_partition_size=1,
            training_iterations=10,
            random_init=False,
        ),
        score=AHConfig(training_sample_size=most),
    )
    upper = "bottom_up_top_level_partitioner { enabled: true num_centroids: 4 %s }"
    config = config_from_text(tree(upper % "num_centroids_to_search: 2"))
    assert config.tree is not None
    assert config.tree.upper == UpperTreeConfig(
        num_leaves=4, num_leaves_to_search=2, scoring_mode=ReorderType.FLOAT32
    )
    assert config_from_text(BASE + "autopilot {}").autopilot == AutopilotConfig(
        quantize=ReorderType.BFLOAT16
    )


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ("query_spilling { max_spill_centers: 3 }", "num_leaves_to_search", 1),
        ("query_spilling { spilling_type: 4 max_spill_centers: 3 }", "num_leaves_to_search", 3),
        ("query_spilling { spilling_type: FIXED_NUMBER_OF_CENTERS }", "num_leaves_to_search", 10),
        ("query_spilling { spilling_type: 4 max_spill_centers: 30 }", "num_leaves_to_search", 10),
        ("min_cluster_size: 2.5", "min_partition_size", 3),
        ("max_sample_size: 700", "training_sample_size", 700),
        ("max_sample_size: 700 expected_sample_size: 600", "training_sample_size", 600),
        ("partitioning_type: 1", "spherical", True),
        ("avq: nan", "avq", None),
        ("database_spilling { spilling_type: SOAR }", "soar_lambda", 1.5),
        ("database_spilling { orthogonality_amplification_lambda: 2 }", "soar_lambda", None),
        ("incremental_training_config { autopilot: true }", "incremental_threshold", None),
        ("incremental_training_config { fraction: 1 }", "incremental_threshold", 1.0),
        ("bottom_up_top_level_partitioner { num_centroids: 3 }", "upper", None),
        ("tree_type: KMEANS_TREE num_cpus: 8 cell: 'x' ram_gb: 3", "num_leaves", 10),
    ],
)
def test_settings_of_the_tree(settings: str, name: str, value: object) -> None:
    config = config_from_text(tree(settings))
    assert getattr(config.tree, name) == value
    assert type(getattr(config.tree, name)) is type(value)


def test_levels_above_levels() -> None:
    level = "enabled: true num_centroids: %d num_centroids_to_search: 2"
    text = tree(
        f"bottom_up_top_level_partitioner {{ {level % 9} next_higher_level {{ {level % 4} "
        "soar { enabled: 1 lambda: 1 } }}"
    )
    config = config_from_text(text)
    assert config.tree is not None
    assert config.tree.upper == UpperTreeConfig(
        num_leaves=9,
        num_leaves_to_search=2,
        scoring_mode=ReorderType.FLOAT32,
        upper=UpperTreeConfig(
            num_leaves=4,
            num_leaves_to_search=2,
            soar_lambda=1.0,
            overretrieve_factor=2.0,
            scoring_mode=ReorderType.FLOAT32,
        ),
    )
    assert config_from_text(config_to_text(config, 32)) == config


@pytest.mark.parametrize(
    ("blocks", "width"),
    [
        ("projection_type: CHUNK num_dims_per_block: 3 num_blocks: 11", 3),
        ("projection_type: IDENTITY_CHUNK", 1),
        (
            "projection_type: VARIABLE_CHUNK "
            "variable_blocks { num_blocks: 8 num_dims_per_block: 4 }",
            4,
        ),
        (
            "projection_type: VARIABLE_CHUNK "
            "variable_blocks { num_blocks: 6 num_dims_per_block: 5 } "
            "variable_blocks { num_blocks: 1 num_dims_per_block: 2 }",
            5,
        ),
    ],
)
def test_blocks(blocks: str, width: int) -> None:
    config = config_from_text(BASE + hashed(blocks))
    assert isinstance(config.score, AHConfig)
    assert config.score.dimensions_per_block == width


@pytest.mark.parametrize("flag", ["true", "True", "t", "1"])
def test_precision(flag: str) -> None:
    for inner, quantize in (
        (f"fixed_point {{ enabled: {flag} }}", ReorderType.INT8),
        (f"bfloat16 {{ enabled: {flag} }} fixed_point {{ enabled: 0 }}", ReorderType.BFLOAT16),
        ("bfloat16 { enabled: f }", ReorderType.FLOAT32),
    ):
        assert config_from_text(BASE + f"brute_force {{ {inner} }}").score == BruteForceConfig(
            quantize=quantize
        )
    old = BASE + "brute_force { scalar_quantized: true }"
    assert config_from_text(old).score == BruteForceConfig(quantize=ReorderType.INT8)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "num_neighbors is missing or 0"),
        (BASE, "just one of hash and brute_force"),
        (BF + hashed(), "just one of hash and brute_force"),
        (BASE + "partitioning { num_children: 3 }", "just one of hash and brute_force"),
        (BF + "num_neighbors: 6", "num_neighbors is given 2 times"),
        (BF.replace("5", "5.0"), "num_neighbors is 5.0; expected an integer"),
        (BF.replace("5", "-5"), "num_neighbors is -5"),
        (BF + "colour: 3", "colour is not known or not supported"),
        (BF + "crowding { enabled: true }", "crowding is not known or not supported"),
        (BF + "epsilon_distance: 0.5", "epsilon_distance is 0.5; expected inf"),
        (BF + "search_type: ENN", "search_type is ENN; expected KNN"),
        (BF + "input_output { norm_type: UNITL2NORM }", "input_output.norm_type is UNITL2NORM"),
        (
            BF + "input_output { dimensionality: 7 }",
            "input_output.dimensionality is 7; expected 32",
        ),
        (
            BF + "input_output { pure_dynamic_config { dimensionality: 7 } }",
            "_config.dimensionality",
        ),
        (
            BF + "input_output { pure_dynamic_config { vector_type: SPARSE } }",
            "vector_type is SPARSE",
        ),
        (BF.replace("DotProductDistance", "L1Distance"), "distance_measure is 'L1Distance'"),
        (BF.replace('"', ""), "could not|text proto|expected a quoted string"),
        ("num_neighbors: 5 brute_force: 3", "brute_force is 3; expected a message"),
        (
            BASE + "brute_force { fixed_point {enabled: true} bfloat16 {enabled: t} }",
            "both enabled",
        ),
        (
            BASE + "brute_force { fixed_point {enabled: maybe} }",
            "enabled is maybe; expected true or",
        ),
        (BASE + "brute_force { fixed_point {enabled: 2} }", "enabled is 2; expected true or false"),
        (
            BASE + "brute_force { fixed_point {fixed_point_multiplier: 3} }",
            "multiplier is not known",
        ),
        (BASE + "brute_force { fixed_point {noise_shaping_threshold: .2} }", "threshold is 0.2"),
        (BF + "exact_reordering {}", "exact_reordering.approx_num_neighbors is missing"),
        (
            BF + "exact_reordering { approx_num_neighbors: 3 approx_epsilon_distance: 1 }",
            "_distance is 1",
        ),
        (BASE + "hash {}", "hash.asymmetric_hash is missing"),
        (BASE + hashed().replace("16", "32", 1), "num_clusters_per_block is 32 with lookup_type"),
        (BASE + hashed().replace("INT8_LUT16", "FLOAT"), "16 with lookup_type FLOAT"),
        (BASE + hashed().replace("INT8_LUT16", "QUICK"), "lookup_type is QUICK; expected FLOAT or"),
        (BASE + hashed().replace("INT8_LUT16", "9"), "lookup_type is 9; expected FLOAT or"),
        (BASE + hashed("projection_type: CHUNK"), "num_dims_per_block is missing"),
        (BASE + hashed("projection_type: PCA"), "projection_type is PCA; expected NONE or CHUNK"),
        (BASE + hashed("input_dim: 32"), "projection_type is missing or NONE"),
        (BASE + hashed("projection_type: VARIABLE_CHUNK"), "variable_blocks is \\[\\]"),
        (
            BASE
            + hashed(
                "projection_type: VARIABLE_CHUNK "
                "variable_blocks { num_blocks: 3 num_dims_per_block: 4 } "
                "variable_blocks { num_blocks: 2 num_dims_per_block: 2 }"
            ),
            "at most one shorter one",
        ),
        (
            BASE
            + hashed(
                "projection_type: VARIABLE_CHUNK "
                "variable_blocks { num_blocks: 3 num_dims_per_block: 4 } "
                "variable_blocks { num_blocks: 1 num_dims_per_block: 5 }"
            ),
            "at most one shorter one",
        ),
        (
            BASE + hashed(settings="use_norm_biasing_correction: true"),
            "correction is true; expected false",
        ),
        (BASE + hashed(settings="quantization_scheme: STACKED"), "scheme is STACKED"),
        (BASE + hashed(settings="noise_shaping_threshold: -1.5"), "threshold is -1.5"),
        (BASE + hashed(settings="sampling_fraction: .5"), "sampling_fraction is 0.5; expected 1"),
        (
            BASE + hashed(settings='quantization_distance { distance_measure: "L1Distance" }'),
            "'L1Dist",
        ),
        (tree("tree_type: PCA_TREE"), "partitioning.tree_type is PCA_TREE; expected KMEANS_TREE"),
        (tree("min_cluster_size: inf"), "partitioning.min_cluster_size is inf"),
        (tree("num_children: 3"), "partitioning.num_children is given 2 times"),
        (tree("avq: 'x'"), "partitioning.avq is 'x'; expected a number"),
        (
            tree("query_spilling { spilling_type: ADDITIVE }"),
            "spilling_type is ADDITIVE; expected NO_",
        ),
        (tree("database_spilling { spilling_type: ADDITIVE }"), "spilling_type is ADDITIVE"),
        (
            tree("incremental_training_config { fraction: 1 number_of_datapoints: 5}"),
            "no fraction beside",
        ),
        (tree("projection { projection_type: RANDOM_GAUSS }"), "projection_type is RANDOM_GAUSS"),
        (tree("projection { projection_type: PCA }"), "expected just one"),
        (tree("bottom_up_top_level_partitioner { enabled: true }"), "num_leaves is 0"),
        (tree("bottom_up_top_level_partitioner { soar { x: 1 } }"), "r.soar.x is not known"),
        (
            tree('query_tokenization_distance_override { distance_measure: "SquaredL2Distance" }'),
            "_override.dist",
        ),
        (
            BASE + "autopilot { tree_ah { num_leaf_partitions: 7 } }",
            "num_leaf_partitions is 7; expected 0",
        ),
        (BASE + "autopilot { tree_ah { incremental_mode: FAST } }", "incremental_mode is FAST"),
    ],
)
def test_what_is_refused(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=rf"^(scann_config: |text proto).*{what}"):
        config_from_text(text, 32)


# ---- What is written is read back: every setting that a text can hold

PRECISIONS = st.sampled_from(list(ReorderType))
COUNTS = st.integers(1, 2**31 - 1)
THRESHOLDS = st.just(math.nan) | st.floats(0, 100, exclude_min=True)
FACTORS = st.floats(1, 100)


@st.composite
def levels(draw: Any, below: int, height: int) -> UpperTreeConfig | None:
    if height == 0 or draw(st.booleans()):
        return None
    leaves = draw(st.integers(1, below))
    spills = draw(st.none() | st.floats(0, 5))
    return UpperTreeConfig(
        num_leaves=leaves,
        num_leaves_to_search=draw(st.integers(1, leaves)),
        avq=draw(st.none() | FACTORS),
        soar_lambda=spills,
        overretrieve_factor=None if spills is None else draw(FACTORS),
        scoring_mode=draw(PRECISIONS),
        anisotropic_quantization_threshold=draw(THRESHOLDS),
        upper=draw(levels(leaves, height - 1)),
    )


@st.composite
def trees(draw: Any) -> TreeConfig:
    leaves = draw(COUNTS)
    spills = draw(st.none() | st.floats(0, 5))
    return TreeConfig(
        num_leaves=leaves,
        num_leaves_to_search=draw(st.integers(1, leaves)),
        training_sample_size=draw(COUNTS),
        min_partition_size=draw(st.integers(0, 10**6)),
        training_iterations=draw(COUNTS),
        spherical=draw(st.booleans()),
        quantize_centroids=draw(st.booleans()),
        random_init=draw(st.booleans()),
        soar_lambda=spills,
        overretrieve_factor=None if spills is None else draw(st.none() | FACTORS),
        incremental_threshold=draw(
            st.none() | COUNTS | st.floats(0, 1e9, exclude_min=True)  # a count or a fraction
        ),
        avq=draw(st.none() | FACTORS),
        upper=draw(levels(leaves, 2)),
    )


PROJECTIONS = st.one_of(
    st.builds(ProjectionConfig, kind=st.sampled_from(["pca", "truncate"]), reduction_dim=COUNTS),
    st.builds(
        ProjectionConfig,
        kind=st.just("pca"),
        pca_significance_threshold=st.floats(0, 1, exclude_min=True),
        pca_truncation_threshold=st.none() | st.floats(0, 1, exclude_min=True),
    ),
)
SCORES = st.one_of(
    st.builds(BruteForceConfig, quantize=PRECISIONS),
    st.builds(
        AHConfig,
        dimensions_per_block=st.integers(1, 40),
        anisotropic_quantization_threshold=THRESHOLDS,
        training_sample_size=COUNTS,
        hash_type=st.sampled_from(["lut16", "lut256"]),
        training_iterations=COUNTS,
    ),
)
REORDERS = st.builds(
    ReorderConfig,
    reordering_num_neighbors=COUNTS,
    quantize=PRECISIONS,
    anisotropic_quantization_threshold=THRESHOLDS,
)
AUTOPILOTS = st.builds(
    AutopilotConfig, mode=st.sampled_from(list(IncrementalMode)), quantize=PRECISIONS
)


@given(
    measure=st.sampled_from(["dot_product", "squared_l2", "cosine"]),
    tree=st.none() | trees(),
    score=SCORES,
    reorder=st.none() | REORDERS,
    projection=st.none() | PROJECTIONS,
    autopilot=st.none() | AUTOPILOTS,
    seed=st.integers(0, 2**31 - 1),
)
def test_what_is_written_is_read_back(
    measure: Any, tree: Any, score: Any, reorder: Any, projection: Any, autopilot: Any, seed: int
) -> None:
    if tree is None and isinstance(score, BruteForceConfig):
        projection, seed = None, 0  # of no effect, and no text has a place for them
    config = IndexConfig(
        num_neighbors=7,
        distance_measure=measure,
        tree=tree,
        score=score,
        reorder=reorder,
        projection=projection,
        autopilot=autopilot,
        seed=seed,
    )
    assert config_from_text(config_to_text(config, 40), 40) == config


@given(st.sampled_from(sorted(CASES)), st.integers(0, 3000), st.text(max_size=3))
def test_a_damaged_text_is_read_or_refused(name: str, place: int, damage: str) -> None:
    text = text_of(name)
    place %= len(text)
    try:
        config = config_from_text(text[:place] + damage + text[place + 1 :], 32)
    except ConfigError:
        return
    assert isinstance(config, IndexConfig)


def test_numpy_numbers_are_written_as_numbers() -> None:
    config = IndexConfig(
        num_neighbors=np.int64(3),
        distance_measure="cosine",
        tree=TreeConfig(
            num_leaves=5, num_leaves_to_search=2, incremental_threshold=np.float32(0.5)
        ),
    )
    assert "np." not in config_to_text(config, 8)


@pytest.mark.parametrize("dimension", [None, "8", -1, 0, 1.5, True])
def test_what_cannot_be_written_is_refused(dimension: Any) -> None:
    config = IndexConfig(num_neighbors=3, distance_measure="cosine")
    with pytest.raises(ConfigError, match="dimension is"):
        config_to_text(config, dimension)
    with pytest.raises(ConfigError, match="config is None; expected an IndexConfig"):
        config_to_text(None, 8)  # type: ignore[arg-type]

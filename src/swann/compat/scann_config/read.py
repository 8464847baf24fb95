"""Reading ScaNN's configuration text."""

from __future__ import annotations

import math

from swann.compat.proto_fields import Fields
from swann.compat.proto_text import Message, parse_text
from swann.compat.scann_config import names
from swann.compat.scann_config.read_parts import (
    INT32_MAX,
    MACHINES,
    check_dimension,
    expect_measure,
    read_asymmetric,
    read_brute_force,
    read_reordering,
    read_sample_size,
)
from swann.config import (
    AHConfig,
    AutopilotConfig,
    BruteForceConfig,
    IncrementalMode,
    IndexConfig,
    ProjectionConfig,
    ReorderType,
    TreeConfig,
    UpperTreeConfig,
)
from swann.distance import DistanceMeasure
from swann.errors import ConfigError

__all__ = ["config_from_message", "config_from_text"]


def config_from_text(text: str, dimension: int | None = None) -> IndexConfig:
    """Read ScaNN's configuration text.

    Parameters
    ----------
    text : str
        What ``searcher.config()`` or ``builder.create_config()`` of ScaNN printed, or a program
        wrote in the same language.
    dimension : int, optional
        The dimension of the database; if it is given, a text for another one is refused.

    Returns
    -------
    IndexConfig
        With ``autopilot`` in the text, the other settings are those the text names beside it.

    Raises
    ------
    ConfigError
        If the text is malformed, holds a field that is not supported, or a setting is bad.

    Examples
    --------
    >>> config = config_from_text('''
    ...     num_neighbors: 10
    ...     distance_measure { distance_measure: "DotProductDistance" }
    ...     brute_force { fixed_point { enabled: true } }
    ... ''')
    >>> config.score
    BruteForceConfig(quantize=ReorderType.INT8)
    """
    return config_from_message(parse_text(text), dimension)


def config_from_message(message: Message, dimension: int | None = None) -> IndexConfig:
    """Read what `parse_text` made of the text; as `config_from_text` otherwise."""
    try:
        return _read(Fields(message), dimension)
    except ConfigError as error:
        raise ConfigError(f"scann_config: {error}") from None


def _read(fields: Fields, dimension: int | None) -> IndexConfig:
    num_neighbors = fields.integer("num_neighbors", 0)
    if num_neighbors == 0:
        fields.fail("num_neighbors", "missing or 0", "at least 1")
    measure = _read_measure(fields)
    _read_input(fields.message("input_output"), dimension)
    autopilot = _read_autopilot(fields.message("autopilot"))
    partitioning, hashing = fields.message("partitioning"), fields.message("hash")
    exact, reordering = fields.message("brute_force"), fields.message("exact_reordering")
    if (hashing is None) == (exact is None) and (hashing is not None or autopilot is None):
        raise ConfigError("expected just one of hash and brute_force")

    tree, projection, seed = None, None, 0
    if partitioning is not None:
        projection = _read_reduction(partitioning.message("projection"), dimension)
        seed = partitioning.integer("clustering_seed", 0)
        tree = _read_tree(partitioning, names.MEASURE_NAMES[measure])
    score: AHConfig | BruteForceConfig = BruteForceConfig()
    if hashing is not None:
        if tree is None:
            projection = _read_reduction(hashing.message("projection"), dimension)
        asymmetric = hashing.message("asymmetric_hash")
        if asymmetric is None:
            hashing.fail("asymmetric_hash", "missing", "its settings: no other hash is supported")
        if tree is None:
            seed = asymmetric.integer("clustering_seed", 0)
        score = read_asymmetric(asymmetric, None if projection else dimension)
        hashing.finish()
    elif exact is not None:
        score = read_brute_force(exact)
    reorder = None
    if reordering is not None:
        reorder = read_reordering(reordering)

    fields.expect(
        {"epsilon_distance": math.inf, "search_paradigm": "QUERY_DATABASE", "search_type": "KNN"}
    )
    fields.ignore("dataset_name", "num_single_shard_neighbors")
    fields.finish()
    return IndexConfig(
        num_neighbors=num_neighbors,
        distance_measure=measure,
        tree=tree,
        score=score,
        reorder=reorder,
        projection=projection,
        autopilot=autopilot,
        seed=seed,
    )


def _read_measure(fields: Fields, name: str = "distance_measure") -> DistanceMeasure:
    inner = fields.message(name)
    if inner is None:
        return "squared_l2"
    measure = inner.string("distance_measure", names.L2)
    inner.finish()
    if measure not in names.MEASURES:
        inner.fail("distance_measure", repr(measure), " or ".join(names.MEASURES))
    return names.MEASURES[measure]


def _read_input(fields: Fields | None, dimension: int | None) -> None:
    """Read what an empty database's dimension is; the rest is about files."""
    if fields is None:
        return
    empty = fields.message("pure_dynamic_config")
    if empty is not None:
        check_dimension(empty, "dimensionality", dimension)
        empty.expect({"vector_type": ("DENSE", "UNSPECIFIED_VECTOR_TYPE"), "num_shards": 1})
        empty.finish()
    check_dimension(fields, "dimensionality", dimension)
    fields.expect({"norm_type": "NONE"})
    fields.ignore(
        *("allow_two_pass_read", "artifacts_naming_option", "database_wildcard"),
        *("fixed_point_database_wildcard", "hashed_database_wildcard", "in_memory_data_type"),
        *("is_dense", "memory_consumption_estimate_filename", "non_negative"),
        *("output_sstable_wildcard", "parallelize_disk_reads_on_startup"),
        *("preprocessed_artifacts_dir", "query_wildcard", "saturate"),
        "tokenized_database_wildcard",
    )
    fields.finish()


def _read_autopilot(fields: Fields | None) -> AutopilotConfig | None:
    if fields is None:
        return None
    inner = fields.message("tree_ah") or Fields({})
    mode = inner.word("incremental_mode", names.MODE, "NONE")
    quantize = inner.word("reordering_dtype", names.DATA_TYPE, "BFLOAT16")
    inner.expect(
        {
            "partitioning_expected_sample_size": 0,
            "num_leaf_partitions": 0,
            "fraction_leaf_partitions": 0,
            "first_n_leaf_partitions_for_assignment": 0,
        }
    )
    inner.ignore("l1_size", "l3_size")
    inner.finish()
    fields.finish()
    return AutopilotConfig(mode=IncrementalMode[mode], quantize=ReorderType[quantize])


def _read_reduction(fields: Fields | None, dimension: int | None) -> ProjectionConfig | None:
    """Read a projection to fewer dimensions."""
    if fields is None:
        return None
    kind = fields.word("projection_type", names.REDUCTION, "NONE")
    kept = fields.integer("num_dims_per_block", 0) or None
    significance = _finite(fields.number("pca_significance_threshold", math.inf))
    truncation = _finite(fields.number("pca_truncation_threshold", math.inf))
    check_dimension(fields, "input_dim", dimension)
    fields.expect({"num_blocks": 1})
    fields.expect_false("pca_random_rotate_projection_matrix")
    fields.ignore("build_covariance", "is_dense", "seed")
    fields.finish()
    if kind == "NONE":
        return None
    return ProjectionConfig(
        kind="pca" if kind == "PCA" else "truncate",
        reduction_dim=kept,
        pca_significance_threshold=significance,
        pca_truncation_threshold=truncation,
    )


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value


def _read_tree(fields: Fields, measure: str) -> TreeConfig:
    num_leaves = fields.integer("num_children", 2)
    least = fields.number("min_cluster_size", 1)
    if not 0 <= least < math.inf:
        fields.fail("min_cluster_size", least, "a finite number, 0 or more")
    expect_measure(fields, "partitioning_distance", names.L2)
    expect_measure(fields, "database_tokenization_distance_override", names.L2)
    expect_measure(fields, "query_tokenization_distance_override", measure)
    soar_lambda, overretrieve_factor = _read_spilling(fields.message("database_spilling"))
    tree = TreeConfig(
        num_leaves=num_leaves,
        num_leaves_to_search=min(num_leaves, _read_leaves(fields.message("query_spilling"))),
        training_sample_size=read_sample_size(fields),
        min_partition_size=math.ceil(least),
        training_iterations=fields.integer("max_clustering_iterations", 10),
        spherical=fields.word("partitioning_type", names.PARTITIONING, "GENERIC") == "SPHERICAL",
        quantize_centroids=(
            fields.word("query_tokenization_type", names.TOKENIZATION, "FLOAT")
            == "FIXED_POINT_INT8"
        ),
        random_init=(
            fields.word(
                "single_machine_center_initialization",
                names.INITIALIZATION,
                "DEFAULT_KMEANS_PLUS_PLUS",
            )
            == "RANDOM_INITIALIZATION"
        ),
        soar_lambda=soar_lambda,
        overretrieve_factor=overretrieve_factor,
        incremental_threshold=_read_incremental(fields.message("incremental_training_config")),
        avq=fields.number("avq", math.nan),
        upper=_read_upper(fields.message("bottom_up_top_level_partitioner")),
    )
    fields.expect(
        {
            "tree_type": "KMEANS_TREE",
            "balancing_type": ("DEFAULT_UNBALANCED", "UNBALANCED_FLOAT32"),
            "database_tokenization_type": "FLOAT",
            "trainer_type": "DEFAULT_SAMPLING_TRAINER",
            "first_n_centroids": 0,
            "max_cluster_size": 0,
            "max_num_levels": 1,
            "num_partitioning_epochs": 1,
            "num_tokenized_branch": 1,
            "perturbation": 0,
        }
    )
    fields.ignore(
        *MACHINES,
        *("clustering_convergence_tolerance", "desired_average_cluster_size"),
        *("ignore_empty_cluster_errors", "max_leaf_size", "max_power_of_2_split"),
        *("num_mini_batches", "num_top_tokens_for_pca", "partitioner_prefix"),
        *("partitioning_on_the_fly", "pca_splitting_similarity_threshold", "resharded_prefix"),
        *("trainer_stats_prefix", "use_float_centers_for_query_tokenization"),
    )
    fields.finish()
    return tree


def _read_leaves(fields: Fields | None) -> int:
    if fields is None:
        return 1
    kind = fields.word("spilling_type", names.SPILLING, "NO_SPILLING")
    leaves = fields.integer("max_spill_centers", INT32_MAX)
    fields.ignore("spilling_threshold")
    fields.finish()
    return 1 if kind == "NO_SPILLING" else leaves


def _read_spilling(fields: Fields | None) -> tuple[float | None, float | None]:
    """Return `soar_lambda` and `overretrieve_factor`."""
    if fields is None:
        return None, None
    kind = fields.word("spilling_type", names.SOAR, "NO_SPILLING")
    soar_lambda = fields.number("orthogonality_amplification_lambda", 1.5)
    factor = fields.number("overretrieve_factor", math.nan)
    fields.ignore("max_spill_centers", "replication_factor")
    fields.finish()
    return (None, None) if kind == "NO_SPILLING" else (soar_lambda, factor)


def _read_incremental(fields: Fields | None) -> int | float | None:
    if fields is None:
        return None
    count = fields.integer("number_of_datapoints", 2**32 - 1)
    fraction = fields.number("fraction", math.inf)
    fields.ignore("autopilot", "cluster_stability_size", "max_split")
    fields.finish()
    if count == 2**32 - 1:
        return _finite(fraction)
    if not math.isinf(fraction):
        fields.fail("fraction", fraction, f"no fraction beside number_of_datapoints={count}")
    return count


def _read_upper(fields: Fields | None) -> UpperTreeConfig | None:
    if fields is None:
        return None
    enabled = fields.flag("enabled")
    num_leaves = fields.integer("num_centroids", 0)
    leaves = fields.integer("num_centroids_to_search", 0)
    avq = fields.number("avq", math.nan)
    soar = fields.message("soar")
    soar_lambda = factor = None
    if soar is not None:
        spills = soar.flag("enabled")
        soar_lambda, factor = soar.number("lambda", 1.5), soar.number("overretrieve_factor", 2.0)
        soar.finish()
        if not spills:
            soar_lambda = factor = None
    mode = fields.word("quantization", names.QUANTIZATION, "FLOAT32")
    threshold = fields.number("noise_shaping_threshold", math.nan)
    above = _read_upper(fields.message("next_higher_level"))
    fields.finish()
    if not enabled:
        return None
    return UpperTreeConfig(
        num_leaves=num_leaves,
        num_leaves_to_search=min(num_leaves, leaves),
        avq=avq,
        soar_lambda=soar_lambda,
        overretrieve_factor=factor,
        scoring_mode=ReorderType["INT8" if mode == "FIXED8" else mode],
        anisotropic_quantization_threshold=threshold,
        upper=above,
    )

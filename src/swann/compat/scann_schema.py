"""The configuration that ScaNN 1.4.2 serializes, field by field.

Fields have the names that ScaNN's text format gives them, so that `scann_config` reads both forms.
Those about machines, files and training are known and skipped.
"""

from __future__ import annotations

from swann.compat.scann_wire import Field, Schema

__all__ = ["CONFIG"]


def _of(kind: str, **numbers: int) -> dict[int, Field]:
    return {number: Field(name, kind) for name, number in numbers.items()}


def _enum(name: str, number: int, words: str, first: int = 0) -> dict[int, Field]:
    names = dict(enumerate(words.split(), first))
    return {number: Field(name, "enum", names=names)}


def _message(name: str, number: int, schema: Schema | None = None) -> dict[int, Field]:
    return {number: Field(name, "message", schema=schema or {})}


_DISTANCE: Schema = _of("string", distance_measure=1) | _message("distance_measure_params", 2)

_PROJECTION: Schema = (
    _enum(
        "projection_type",
        1,
        "NONE CHUNK VARIABLE_CHUNK RANDOM_GAUSS RANDOM_BINARY RANDOM_BINARY_DYNAMIC "
        "RANDOM_SPARSE_BINARY RANDOM_ORTHOGONAL PCA RANDOM_BILINEAR UNUSED_10 UNUSED_11 "
        "MEANSTD_PROJECTION IDENTITY_CHUNK TRUNCATE EIGENVALUE_OPQ",
    )
    | _of("uint64", input_dim=9)
    | _of("int32", num_blocks=2, num_dims_per_block=3)
    | _message("variable_blocks", 4, _of("int32", num_blocks=1, num_dims_per_block=2))
    | _of("bool", is_bit_packed=6, pca_random_rotate_projection_matrix=15)
    | _of("float", pca_significance_threshold=13, pca_truncation_threshold=14)
    | _of("skip", seed=5, is_dense=7, build_covariance=8)
    | _message("random_bilinear_config", 10)
    | _message("ckmeans_config", 11)
    | _message("meanstd_config", 12)
)

_SOAR: Schema = {
    1: Field("enabled", "bool"),
    2: Field("lambda", "float"),
    3: Field("overretrieve_factor", "float"),
}
_UPPER: Schema = (
    _of("bool", enabled=1)
    | _of("int32", num_centroids=2, num_centroids_to_search=3)
    | _of("float", avq=4, noise_shaping_threshold=7)
    | _message("soar", 5, _SOAR)
    | _enum("quantization", 6, "FLOAT32 BFLOAT16 FIXED8")
    | _of("skip", next_higher_level=8)
)
_DATABASE_SPILLING: Schema = (
    _enum(
        "spilling_type",
        1,
        "NO_SPILLING MULTIPLICATIVE ADDITIVE FIXED_NUMBER_OF_CENTERS "
        "TWO_CENTER_ORTHOGONALITY_AMPLIFIED",
    )
    | _of("float", replication_factor=2, orthogonality_amplification_lambda=4)
    | _of("float", overretrieve_factor=5)
    | _of("uint32", max_spill_centers=3)
)
_QUERY_SPILLING: Schema = (
    _enum(
        "spilling_type",
        1,
        "NO_SPILLING MULTIPLICATIVE ADDITIVE ABSOLUTE_DISTANCE FIXED_NUMBER_OF_CENTERS",
    )
    | _of("float", spilling_threshold=2)
    | _of("uint32", max_spill_centers=3)
)
_INCREMENTAL: Schema = (
    _of("float", fraction=1)
    | _of("uint32", number_of_datapoints=2)
    | _of("skip", cluster_stability_size=3, autopilot=4, max_split=5)
)
_PARTITIONING: Schema = (
    _enum(
        "tree_type",
        31,
        "KMEANS_TREE PCA_TREE RANDOM_PROJECTION_TREE BALL_TREE RANDOM TREE_X_HYBRID",
    )
    | _message("tree_x_hybrid", 46)
    | _of("float", partitioning_sampling_fraction=4, min_cluster_size=9, avq=51)
    | _of("int32", expected_sample_size=45, max_sample_size=33, clustering_seed=27)
    | _of("int32", num_children=3, max_clustering_iterations=6, max_cluster_size=40)
    | _of("int32", num_partitioning_epochs=1, num_tokenized_branch=53, max_num_levels=2)
    | _of("int32", first_n_centroids=5)
    | _of("double", perturbation=41)
    | _message("projection", 12, _PROJECTION)
    | _message("partitioning_distance", 10, _DISTANCE)
    | _message("database_tokenization_distance_override", 24, _DISTANCE)
    | _message("query_tokenization_distance_override", 25, _DISTANCE)
    | _enum("query_tokenization_type", 28, "FLOAT FIXED_POINT_INT8 ASYMMETRIC", first=1)
    | _enum("database_tokenization_type", 29, "FLOAT FIXED_POINT_INT8 ASYMMETRIC", first=1)
    | _enum("partitioning_type", 23, "GENERIC SPHERICAL")
    | _enum("balancing_type", 35, "DEFAULT_UNBALANCED GREEDY_BALANCED UNBALANCED_FLOAT32")
    | _enum(
        "single_machine_center_initialization",
        49,
        "DEFAULT_KMEANS_PLUS_PLUS RANDOM_INITIALIZATION",
    )
    | _message("database_spilling", 20, _DATABASE_SPILLING)
    | _message("query_spilling", 21, _QUERY_SPILLING)
    | _message("incremental_training_config", 52, _INCREMENTAL)
    | _message("bottom_up_top_level_partitioner", 54, _UPPER)
    | _of("skip", partitioner_prefix=8, num_mini_batches=38, ignore_empty_cluster_errors=55)
    | _of("skip", clustering_convergence_tolerance=7, resharded_prefix=14, mr_jobname_prefix=13)
    | _of("skip", cell=15, num_cpus=19, num_mapper_machines=30, ram_gb=16, disk_gb=17)
    | _of("skip", trainer_type=36, trainer_stats_prefix=37, max_power_of_2_split=39)
    | _of("skip", num_top_tokens_for_pca=42, pca_splitting_similarity_threshold=43)
    | _of("skip", desired_average_cluster_size=34, use_float_centers_for_query_tokenization=26)
    | _of("skip", partitioning_on_the_fly=22, use_flume_kmeans=32, max_leaf_size=11)
)

_ASYMMETRIC_HASH: Schema = (
    _message("projection", 1, _PROJECTION)
    | _of("int32", num_clusters_per_block=2, expected_sample_size=29, max_sample_size=3)
    | _of("int32", max_clustering_iterations=4, clustering_seed=9)
    | _enum("lookup_type", 20, "FLOAT INT8 INT16 INT8_LUT16")
    | _enum("quantization_scheme", 23, "PRODUCT STACKED PRODUCT_AND_BIAS PRODUCT_AND_PACK")
    | _of("bool", use_residual_quantization=22, use_norm_biasing_correction=31)
    | _of("bool", use_normalized_residual_quantization=32, use_per_leaf_partition_training=17)
    | _of("double", noise_shaping_threshold=28)
    | _of("float", sampling_fraction=10, partition_level_confidence_interval_stdevs=26)
    | _message("quantization_distance", 18, _DISTANCE)
    | _of("skip", use_global_topn=33, fixed_point_lut_conversion_options=25, sampling_seed=11)
    | _of("skip", clustering_convergence_tolerance=5, centers_filename=6, num_machines=27)
    | _of("skip", mr_jobname_prefix=12, cell=13, ram_gb=14, num_cpus=15, min_cluster_size=19)
    | _of("skip", stacked_quantizers_config=24, min_number_machines=7)
    | _of("skip", use_noise_shaped_training=30, use_single_machine_trainer=8)
)
_HASH: Schema = (
    _message("asymmetric_hash", 5, _ASYMMETRIC_HASH)
    | _message("projection", 2, _PROJECTION)
    | _of("skip", num_bits=1, threshold_type=3, parameters_filename=4)
    | _message("min_hash", 6)
    | _message("pca_hash", 7)
    | _message("bit_sampling_hash", 9)
    | _message("bnc_hash", 10)
)

_FIXED_POINT: Schema = (
    _of("bool", enabled=1)
    | _of("double", noise_shaping_threshold=8)
    | _of("skip", fixed_point_multiplier=2, fixed_point_multiplier_quantile=6)
    | _of("skip", multipliers_filename=7, mr_jobname_prefix=5, offline_quantization_cell=3)
    | _of("skip", num_machines=4)
)
_BFLOAT16: Schema = _of("bool", enabled=1) | _of("double", noise_shaping_threshold=2)
_BRUTE_FORCE: Schema = (
    _of("bool", scalar_quantized=1)
    | _message("fixed_point", 4, _FIXED_POINT)
    | _message("bfloat16", 5, _BFLOAT16)
    | _of("skip", scalar_quantization_multiplier_quantile=2)
    | _of("skip", scalar_quantization_noise_shaping_threshold=3)
)
_REORDERING: Schema = (
    _of("int32", approx_num_neighbors=1)
    | _of("float", approx_epsilon_distance=2)
    | _message("approx_distance_measure", 3, _DISTANCE)
    | _message("fixed_point", 5, _FIXED_POINT)
    | _message("bfloat16", 7, _BFLOAT16)
    | _of("bool", use_fixed_point_if_possible=4)
    | _of("skip", neighbor_selection_override_heuristics=6)
)

_AUTOPILOT: Schema = _message(
    "tree_ah",
    1,
    _enum("incremental_mode", 3, "NONE ONLINE ONLINE_INCREMENTAL")
    | _enum("reordering_dtype", 4, "FLOAT32 BFLOAT16 INT8", first=1)
    # What autopilot was told to choose; what it chose stands in the rest of the configuration.
    | _of("skip", l1_size=1, l3_size=2, partitioning_expected_sample_size=5)
    | _of("skip", num_leaf_partitions=6, fraction_leaf_partitions=8)
    | _of("skip", first_n_leaf_partitions_for_assignment=7),
)

CONFIG: Schema = (
    _of("int32", num_neighbors=3)
    | _of("float", epsilon_distance=4)
    | _message("distance_measure", 5, _DISTANCE)
    | _message("exact_reordering", 17, _REORDERING)
    | _message("brute_force", 7, _BRUTE_FORCE)
    | _message("partitioning", 8, _PARTITIONING)
    | _message("hash", 13, _HASH)
    | _message("autopilot", 43, _AUTOPILOT)
    | _message("min_distance", 44)
    | _message("crowding", 29)
    | _message("disjoint_restrict_token", 31)
    | _message("custom_search_method", 22)
    | _enum("search_paradigm", 1, "QUERY_DATABASE ALL_PAIR")
    | _enum("search_type", 2, "KNN ENN HYBRID")
    | _of("skip", dataset_name=32, input_output=6, metadata=20, num_single_shard_neighbors=21)
)
"""``scann_config.pb``."""

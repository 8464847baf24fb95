"""Writing ScaNN's configuration text, in the order in which ScaNN prints it."""

from __future__ import annotations

import math
from typing import Any

from swann.compat.proto_text import Name, format_text
from swann.compat.scann_config import names
from swann.config import (
    AHConfig,
    BruteForceConfig,
    IndexConfig,
    ProjectionConfig,
    ReorderType,
    TreeConfig,
    UpperTreeConfig,
    check_count,
)
from swann.errors import ConfigError

__all__ = ["config_to_text"]


def config_to_text(config: IndexConfig, dimension: int) -> str:
    """Write settings as ScaNN's configuration text.

    Parameters
    ----------
    config : IndexConfig
        The settings.
    dimension : int
        The dimension of the database, which ScaNN's text names.

    Returns
    -------
    str
        As ``searcher.config()`` of ScaNN prints the same settings.

    Raises
    ------
    ConfigError
        If `config` is no `IndexConfig`, or `dimension` no number of dimensions.

    Examples
    --------
    >>> print(config_to_text(IndexConfig(num_neighbors=10, distance_measure="squared_l2"), 64))
    num_neighbors: 10
    distance_measure {
      distance_measure: "SquaredL2Distance"
    }
    brute_force {
      fixed_point {
        enabled: false
      }
    }
    <BLANKLINE>
    """
    if not isinstance(config, IndexConfig):
        raise ConfigError(f"config is {config!r}; expected an IndexConfig")
    dimension = check_count("dimension", dimension)
    tree, score = config.tree, config.score
    measure = names.MEASURE_NAMES[config.distance_measure]
    fields: dict[str, Any] = {
        "num_neighbors": config.num_neighbors,
        "distance_measure": {"distance_measure": measure},
    }
    if isinstance(score, BruteForceConfig):
        fields["brute_force"] = _write_precision(score.quantize)
    if tree is not None:
        fields["partitioning"] = _write_tree(tree, config, measure, dimension)
    if isinstance(score, AHConfig):
        fields["hash"] = _write_hash(score, config, dimension)
    if config.reorder is not None:
        fields["exact_reordering"] = {
            "approx_num_neighbors": config.reorder.reordering_num_neighbors,
            **_write_precision(
                config.reorder.quantize, config.reorder.anisotropic_quantization_threshold
            ),
        }
    if config.autopilot is not None:
        mode, quantize = config.autopilot.mode.name, config.autopilot.quantize.name
        fields["autopilot"] = {
            "tree_ah": {"incremental_mode": Name(mode), "reordering_dtype": Name(quantize)}
        }
    return format_text(_lists(fields))


def _lists(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields as `format_text` takes them; those that are None are left out."""
    return {
        name: [_lists(v) if isinstance(v, dict) else v for v in _values(value)]
        for name, value in fields.items()
        if value is not None
    }


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _write_precision(quantize: ReorderType, threshold: float | None = None) -> dict[str, Any]:
    name = "bfloat16" if quantize is ReorderType.BFLOAT16 else "fixed_point"
    enabled = quantize is not ReorderType.FLOAT32
    return {name: {"enabled": enabled, "noise_shaping_threshold": threshold}}


def _write_tree(
    tree: TreeConfig, config: IndexConfig, measure: str, dimension: int
) -> dict[str, Any]:
    spilling = incremental = None
    if tree.soar_lambda is not None:
        spilling = {
            "spilling_type": Name("TWO_CENTER_ORTHOGONALITY_AMPLIFIED"),
            "orthogonality_amplification_lambda": tree.soar_lambda,
            "overretrieve_factor": tree.overretrieve_factor,
        }
    if tree.incremental_threshold is not None:
        whole = isinstance(tree.incremental_threshold, int)
        name = "number_of_datapoints" if whole else "fraction"
        incremental = {name: tree.incremental_threshold}
    start = "RANDOM_INITIALIZATION" if tree.random_init else "DEFAULT_KMEANS_PLUS_PLUS"
    return {
        "num_children": tree.num_leaves,
        "max_clustering_iterations": tree.training_iterations,
        "min_cluster_size": tree.min_partition_size,
        "partitioning_distance": {"distance_measure": names.L2},
        "projection": _write_reduction(config.projection, dimension),
        "database_spilling": spilling,
        "query_spilling": {
            "spilling_type": Name("FIXED_NUMBER_OF_CENTERS"),
            "max_spill_centers": tree.num_leaves_to_search,
        },
        "partitioning_type": Name("SPHERICAL" if tree.spherical else "GENERIC"),
        "query_tokenization_distance_override": {"distance_measure": measure},
        "clustering_seed": config.seed or None,
        "query_tokenization_type": Name("FIXED_POINT_INT8" if tree.quantize_centroids else "FLOAT"),
        "expected_sample_size": tree.training_sample_size,
        "single_machine_center_initialization": Name(start),
        "avq": tree.avq,
        "incremental_training_config": incremental,
        "bottom_up_top_level_partitioner": _write_upper(tree.upper),
    }


def _write_upper(upper: UpperTreeConfig | None) -> dict[str, Any] | None:
    if upper is None:
        return None
    int8 = upper.scoring_mode is ReorderType.INT8
    return {
        "enabled": True,
        "num_centroids": upper.num_leaves,
        "num_centroids_to_search": upper.num_leaves_to_search,
        "avq": math.nan if upper.avq is None else upper.avq,
        "soar": {
            "enabled": upper.soar_lambda is not None,
            "lambda": 1.5 if upper.soar_lambda is None else upper.soar_lambda,
            "overretrieve_factor": upper.overretrieve_factor or 2.0,
        },
        "quantization": Name("FIXED8" if int8 else upper.scoring_mode.name),
        "noise_shaping_threshold": upper.anisotropic_quantization_threshold,
        "next_higher_level": _write_upper(upper.upper),
    }


def _write_reduction(projection: ProjectionConfig | None, dimension: int) -> dict[str, Any] | None:
    if projection is None:
        return None
    return {
        "projection_type": Name("PCA" if projection.kind == "pca" else "TRUNCATE"),
        "num_dims_per_block": projection.reduction_dim,
        "input_dim": dimension,
        "pca_significance_threshold": projection.pca_significance_threshold,
        "pca_truncation_threshold": projection.pca_truncation_threshold,
    }


def _write_hash(score: AHConfig, config: IndexConfig, dimension: int) -> dict[str, Any]:
    lut16 = score.hash_type == "lut16"
    residual = config.tree is not None and config.distance_measure != "squared_l2"
    blocks = -(-dimension // score.dimensions_per_block)
    asymmetric = {
        "projection": _write_blocks(score, config, dimension),
        "num_clusters_per_block": 16 if lut16 else 256,
        "max_clustering_iterations": score.training_iterations,
        "clustering_seed": None if config.tree is not None else config.seed or None,
        "quantization_distance": {"distance_measure": names.L2},
        "lookup_type": Name("INT8_LUT16" if lut16 else "INT8"),
        "use_residual_quantization": residual,
        "fixed_point_lut_conversion_options": {"float_to_int_conversion_method": Name("ROUND")},
        "noise_shaping_threshold": score.anisotropic_quantization_threshold,
        "expected_sample_size": score.training_sample_size,
        "use_global_topn": lut16 and blocks <= 256 and residual,
    }
    projection = None if config.tree is not None else config.projection
    return {
        "projection": _write_reduction(projection, dimension),
        "asymmetric_hash": asymmetric,
    }


def _write_blocks(score: AHConfig, config: IndexConfig, dimension: int) -> dict[str, Any]:
    width = score.dimensions_per_block
    blocks, rest = divmod(dimension, width)
    if config.projection is not None:
        return {"projection_type": Name("CHUNK"), "num_dims_per_block": width}
    if rest == 0:
        return {
            "projection_type": Name("CHUNK"),
            "num_blocks": blocks,
            "num_dims_per_block": width,
            "input_dim": dimension,
        }
    return {
        "projection_type": Name("VARIABLE_CHUNK"),
        "variable_blocks": [
            {"num_blocks": blocks, "num_dims_per_block": width},
            {"num_blocks": 1, "num_dims_per_block": rest},
        ],
        "input_dim": dimension,
    }

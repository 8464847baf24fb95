"""Reading the parts of ScaNN's configuration text: scoring, reordering, what all of it shares."""

from __future__ import annotations

import math

from swann.compat.proto_fields import Fields
from swann.compat.scann_config import names
from swann.config import AHConfig, BruteForceConfig, ReorderConfig, ReorderType
from swann.errors import ConfigError

__all__ = [
    "INT32_MAX",
    "MACHINES",
    "check_dimension",
    "expect_measure",
    "read_asymmetric",
    "read_brute_force",
    "read_reordering",
    "read_sample_size",
]

INT32_MAX = 2**31 - 1
# Fields about machines.
MACHINES = (
    *("cell", "disk_gb", "mr_jobname_prefix", "num_cpus", "num_machines", "num_mapper_machines"),
    *("min_number_machines", "ram_gb", "use_flume_kmeans", "use_single_machine_trainer"),
)


def expect_measure(fields: Fields, name: str, *expected: str) -> None:
    """Take a distance measure that must be one of `expected`."""
    inner = fields.message(name)
    if inner is not None:
        inner.expect({"distance_measure": expected})
        inner.finish()


def check_dimension(fields: Fields, name: str, dimension: int | None) -> None:
    """Take a dimension that must be that of the database, where both are known."""
    given = fields.integer(name, 0)
    if given and dimension is not None and given != dimension:
        fields.fail(name, given, f"{dimension}, the dimension of db")


def read_sample_size(fields: Fields, fraction: str = "partitioning_sampling_fraction") -> int:
    """Take the size of the training sample; ScaNN's default is every datapoint."""
    fields.expect({fraction: 1})
    most = fields.integer("max_sample_size", INT32_MAX)
    return fields.integer("expected_sample_size", 0) or most


def read_asymmetric(fields: Fields, dimension: int | None) -> AHConfig:
    """Read ``asymmetric_hash``; `dimension` is that of what is coded, if it is known."""
    clusters = fields.integer("num_clusters_per_block", 256)
    lookup = fields.word("lookup_type", names.LOOKUP, "FLOAT")
    if (clusters, lookup == "INT8_LUT16") not in ((16, True), (256, False)):
        fields.fail(
            "num_clusters_per_block",
            f"{clusters} with lookup_type {lookup}",
            "16 with INT8_LUT16, or 256 with another",
        )
    expect_measure(fields, "quantization_distance", names.L2)
    score = AHConfig(
        dimensions_per_block=_read_blocks(fields, dimension),
        anisotropic_quantization_threshold=fields.number("noise_shaping_threshold", math.nan),
        training_sample_size=read_sample_size(fields, "sampling_fraction"),
        hash_type="lut16" if clusters == 16 else "lut256",
        training_iterations=fields.integer("max_clustering_iterations", 10),
    )
    fields.expect(
        {"partition_level_confidence_interval_stdevs": 0, "quantization_scheme": "PRODUCT"}
    )
    fields.expect_false(
        "use_norm_biasing_correction",
        "use_normalized_residual_quantization",
        "use_per_leaf_partition_training",
    )
    fields.ignore(
        *MACHINES,
        *("centers_filename", "clustering_convergence_tolerance", "clustering_seed"),
        *("fixed_point_lut_conversion_options", "min_cluster_size", "sampling_seed"),
        *("stacked_quantizers_config", "use_global_topn", "use_noise_shaped_training"),
        "use_residual_quantization",
    )
    fields.finish()
    return score


def _read_blocks(fields: Fields, dimension: int | None) -> int:
    """Return the dimensions of a block, all but the last of which have the same."""
    inner = fields.message("projection")
    if inner is None:
        fields.fail("projection", "missing", "the blocks that vectors are cut into")
    kind = inner.word("projection_type", names.BLOCKS, "NONE")
    if kind == "NONE":
        inner.fail("projection_type", "missing or NONE", "CHUNK or VARIABLE_CHUNK")
    check_dimension(inner, "input_dim", dimension)
    inner.ignore("is_dense", "num_blocks", "seed")
    width = inner.integer("num_dims_per_block", 1 if kind == "IDENTITY_CHUNK" else 0)
    blocks = inner.messages("variable_blocks")
    if kind == "VARIABLE_CHUNK":
        sizes = [
            (block.integer("num_blocks", 0), block.integer("num_dims_per_block", 0))
            for block in blocks
        ]
        for block in blocks:
            block.finish()
        sizes = [(count, size) for count, size in sizes if count > 0]
        shorter = len(sizes) == 2 and sizes[1][0] == 1 and sizes[1][1] < sizes[0][1]
        if len(sizes) != 1 and not shorter:
            inner.fail("variable_blocks", sizes, "blocks of one size, and at most one shorter one")
        width = sizes[0][1]
    inner.finish()
    if width < 1:
        inner.fail("num_dims_per_block", width or "missing or 0", "at least 1")
    return width


def read_brute_force(fields: Fields) -> BruteForceConfig:
    """Read ``brute_force``."""
    quantize, threshold = _read_precision(fields, "scalar_quantized")
    if not math.isnan(threshold):
        path = fields.path("fixed_point.noise_shaping_threshold")
        raise ConfigError(f"{path} is {threshold}; expected nan: exact scores are not shaped")
    fields.ignore("scalar_quantization_multiplier_quantile")
    fields.finish()
    return BruteForceConfig(quantize=quantize)


def read_reordering(fields: Fields) -> ReorderConfig:
    """Read ``exact_reordering``."""
    quantize, threshold = _read_precision(fields, "use_fixed_point_if_possible")
    count = fields.integer("approx_num_neighbors", 0)
    if count == 0:
        fields.fail("approx_num_neighbors", "missing or 0", "at least 1")
    fields.expect({"approx_epsilon_distance": math.inf})
    fields.finish()
    return ReorderConfig(
        reordering_num_neighbors=count,
        quantize=quantize,
        anisotropic_quantization_threshold=threshold,
    )


def _read_precision(fields: Fields, old_name: str) -> tuple[ReorderType, float]:
    """Return the precision of rows and the threshold that their rounding is shaped by."""
    asked = [ReorderType.INT8] if fields.flag(old_name) else []
    thresholds = []
    for name, kind in (("fixed_point", ReorderType.INT8), ("bfloat16", ReorderType.BFLOAT16)):
        inner = fields.message(name)
        if inner is None:
            continue
        enabled = inner.flag("enabled")
        threshold = inner.number("noise_shaping_threshold", math.nan)
        inner.expect({"fixed_point_multiplier_quantile": 1})
        inner.ignore(
            *("multipliers_filename", "mr_jobname_prefix", "num_machines"),
            "offline_quantization_cell",
        )
        inner.finish()
        asked += [kind] * enabled
        thresholds += [threshold] * (enabled or not math.isnan(threshold))
    if len(set(asked)) > 1:
        raise ConfigError(
            f"{fields.path('fixed_point')} and {fields.path('bfloat16')} are both enabled; "
            "expected one of them"
        )
    return asked[0] if asked else ReorderType.FLOAT32, thresholds[0] if thresholds else math.nan

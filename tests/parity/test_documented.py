"""docs/parity.md: every row is there, and every test that it names."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "parity.md").read_text()

AREAS = {
    "tree": (
        "training_sample_size min_partition_size training_iterations spherical quantize_centroids "
        "random_init=False incremental_threshold avq soar_lambda overretrieve_factor"
    ),
    "upper_tree": (
        "num_leaves num_leaves_to_search avq soar_lambda overretrieve_factor scoring_mode "
        "anisotropic_quantization_threshold"
    ),
    "score_ah": "lut256 residuals dot_product cosine squared_l2 anisotropic_quantization_threshold",
    "score_brute_force, reorder": (
        "quantize FLOAT32 INT8 BFLOAT16 True False anisotropic_quantization_threshold"
    ),
    "pca, truncate": "reduction_dim pca_significance_threshold pca_truncation_threshold",
    "autopilot": "autopilot(mode, quantize) swann.build(db)",
    "docids": "build(docids=[...]) strings ints caller's",
    "updates": (
        "upsert(docids delete(docids) reserve(n) rebalance(config=None) size() NONE ONLINE "
        "ONLINE_INCREMENTAL empty during"
    ),
    "health": (
        "initialize_health_stats() get_health_stats() avg_quantization_error "
        "partition_weighted_avg_relative_imbalance partition_avg_relative_positive_imbalance "
        "sum_partition_sizes"
    ),
    "searcher": (
        "search search_batched search_batched_parallel(batch_size=256) override set_num_threads "
        "config() pickling copy deepcopy"
    ),
    "scann_ops": "scann_ops.builder( shared_name .indices NumPy JAX PyTorch TensorFlow",
    "create_searcher": "config() text",
    "migration": "swann.load_scann(dir) partitioner codebooks codes tokens reordering docids",
}

CONFORMANCE = (
    "batch equals single",
    "brute force equals NumPy",
    "tree x AH x reorder",
    "round trips",
    "empty leaves",
    "result widths",
    "deleting the top five",
    "deleting twice",
    "five copies",
    "delete all, save, load, re-add",
    "within .05",
    "rebalance",
    "empty to brute force to tree and back",
    # Where ScaNN dies or errs in silence.
    "in a database",
    "in an upsert",
    "in a batched query",
    "set_num_threads(0)",
    "batch_size=0",
    "pca(0)",
    "leaves_to_search` on int8 brute force",
    "short result rows",
    "a failed upsert",
    "a half-applied delete",
    "duplicate docids",
    "searching while upserting",
    "deep or relative paths",
    "a moved directory",
)

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith("|---")
]
HEADS = ("area", "behaviour", "what")


@functools.cache
def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] not in HEADS], ids=lambda r: r[0])
def test_every_row_names_tests_that_there_are(row: list[str]) -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row[-1])
    assert named, row
    assert len(named) == row[-1].count("`") // 2, f"what is not a test in {row[-1]}"
    for file, test in named:
        assert test in functions_of(TESTS / file), f"{file}::{test}"


@pytest.mark.parametrize("area", AREAS)
def test_every_area_is_there(area: str) -> None:
    rows = " ".join(row[1] for row in ROWS if row[0] == area)
    assert rows
    assert [word for word in AREAS[area].split() if word not in rows] == []


@pytest.mark.parametrize("behaviour", CONFORMANCE)
def test_every_promise_of_conformance_is_there(behaviour: str) -> None:
    assert any(behaviour in row[0] for row in ROWS)

"""The bytes of an index that nobody has built are those of the index that is built."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from swann.config import (
    AHConfig,
    BruteForceConfig,
    IndexConfig,
    ProjectionConfig,
    ReorderConfig,
    ReorderType,
    TreeConfig,
    UpperTreeConfig,
)
from swann.errors import ConfigError
from swann.index.building.build import build_index
from swann.index.packed import PackedIndex
from swann.plan.layout import array_bytes, expected_groups, groups_of

N, D = 1500, 18
DB = np.random.default_rng(0).standard_normal((N, D), dtype=np.float32)
TREE = TreeConfig(num_leaves=20, num_leaves_to_search=4, training_iterations=2)
CODES = AHConfig(training_iterations=1)


def tree(**changes: Any) -> TreeConfig:
    return dataclasses.replace(TREE, **changes)


def upper(**changes: Any) -> UpperTreeConfig:
    return UpperTreeConfig(**({"num_leaves": 5, "num_leaves_to_search": 2} | changes))


def reorder(precision: ReorderType) -> ReorderConfig:
    return ReorderConfig(reordering_num_neighbors=20, quantize=precision)


CASES: dict[str, dict[str, Any]] = {
    "rows": {},
    "rows in int8": {"score": BruteForceConfig(quantize=ReorderType.INT8)},
    "rows of a tree": {"tree": TREE},
    "codes": {"score": CODES},
    "codes of a tree": {"score": CODES, "tree": TREE},
    "reordering": {"score": CODES, "tree": TREE, "reorder": reorder(ReorderType.FLOAT32)},
    "bfloat16": {"score": CODES, "tree": TREE, "reorder": reorder(ReorderType.BFLOAT16)},
    "int8": {"score": CODES, "tree": TREE, "reorder": reorder(ReorderType.INT8)},
    "wide blocks": {"score": dataclasses.replace(CODES, dimensions_per_block=4), "tree": TREE},
    "8-bit codes": {"score": dataclasses.replace(CODES, hash_type="lut256"), "tree": TREE},
    "spilling": {
        "score": CODES,
        "tree": tree(soar_lambda=1.0),
        "reorder": reorder(ReorderType.INT8),
    },
    "int8 centroids": {"score": CODES, "tree": tree(quantize_centroids=True)},
    "a level": {"score": CODES, "tree": tree(upper=upper())},
    "levels": {
        "score": CODES,
        "tree": tree(
            upper=upper(
                num_leaves=8,
                soar_lambda=1.0,
                upper=upper(num_leaves=3, scoring_mode=ReorderType.BFLOAT16),
            )
        ),
    },
    "pca": {
        "score": CODES,
        "tree": TREE,
        "reorder": reorder(ReorderType.FLOAT32),
        "projection": ProjectionConfig(kind="pca", reduction_dim=7),
    },
    "truncate": {
        "score": CODES,
        "tree": tree(quantize_centroids=True),
        "projection": ProjectionConfig(kind="truncate", reduction_dim=8),
    },
    "more leaves than datapoints": {"score": CODES, "tree": tree(num_leaves=5000)},
}


def groups(index: PackedIndex) -> int:
    return groups_of(np.diff(index.leaf_starts.astype(np.int64)))


@pytest.mark.parametrize("measure", ["cosine", "dot_product", "squared_l2"])
@pytest.mark.parametrize("name", CASES)
def test_bytes_are_those_of_a_real_index(name: str, measure: Any) -> None:
    config = IndexConfig(num_neighbors=5, distance_measure=measure, **CASES[name])
    index = build_index(DB, config, num_threads=1)
    corrected = index.corrections is not None
    told = array_bytes(
        config, N, D, groups=groups(index), residual=index.residual, corrected=corrected
    )
    assert told == {name: array.nbytes for name, array in index.arrays().items()}
    assert sum(told.values()) == index.nbytes


@pytest.mark.parametrize("n", [1, 31, 32, 33, 1000])
def test_bytes_of_few_datapoints(n: int) -> None:
    config = IndexConfig(num_neighbors=1, distance_measure="cosine", score=CODES, tree=TREE)
    index = build_index(DB[:n], config, num_threads=1)
    corrected = index.corrections is not None
    told = array_bytes(config, n, D, groups=groups(index), corrected=corrected)
    assert sum(told.values()) == index.nbytes


def test_groups_are_those_that_the_native_code_counts() -> None:
    config = IndexConfig(num_neighbors=1, distance_measure="cosine", score=CODES, tree=TREE)
    index = build_index(DB, config, num_threads=1)
    assert groups(index) == index.native.num_groups


def test_the_usual_number_of_groups_is_near() -> None:
    sizes = np.random.default_rng(1).poisson(700, 1000)
    assert expected_groups(int(sizes.sum()), 1000) == pytest.approx(groups_of(sizes), rel=1e-3)
    config = IndexConfig(num_neighbors=5, distance_measure="cosine", score=CODES, tree=TREE)
    index = build_index(DB, config, num_threads=1)
    assert sum(array_bytes(config, N, D).values()) == pytest.approx(index.nbytes, rel=0.05)


def test_a_pca_by_threshold_has_no_known_size() -> None:
    projection = ProjectionConfig(kind="pca", pca_significance_threshold=0.9)
    config = IndexConfig(
        num_neighbors=5, distance_measure="cosine", score=CODES, projection=projection
    )
    with pytest.raises(ConfigError, match="reduction_dim"):
        array_bytes(config, N, D)

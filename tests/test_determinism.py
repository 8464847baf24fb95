"""Same input, settings and seed: the same index, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from swann.config import AHConfig, BruteForceConfig, IndexConfig, ReorderConfig, TreeConfig
from swann.index import source
from swann.index.building.build import build_index
from swann.index.packed import PackedIndex

# Multiples of 1/8: float16, float32 and float64 hold the same numbers.
DB = np.rint(np.random.default_rng(0).standard_normal((900, 11)) * 8).astype(np.float32) / 8
DB[~DB.any(axis=1), 0] = 1

CONFIGS = {
    "all stages": {
        "tree": TreeConfig(num_leaves=13, num_leaves_to_search=3, training_sample_size=500),
        "score": AHConfig(anisotropic_quantization_threshold=0.2, training_sample_size=300),
        "reorder": ReorderConfig(reordering_num_neighbors=20),
    },
    "k-means++, spherical": {
        "tree": TreeConfig(
            num_leaves=13, num_leaves_to_search=3, random_init=False, spherical=True
        ),
        "score": AHConfig(dimensions_per_block=3),
    },
    "codes alone": {"score": AHConfig(anisotropic_quantization_threshold=0.3)},
    "tree": {
        "tree": TreeConfig(num_leaves=13, num_leaves_to_search=3),
        "score": BruteForceConfig(),
    },
    "brute force": {"score": BruteForceConfig()},
}

each_config = pytest.mark.parametrize("config", CONFIGS)
each_measure = pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])


def built(db: NDArray[Any], config: str, measure: Any, seed: int = 0, threads: int = 1) -> bytes:
    settings: Any = CONFIGS[config]
    index = build_index(
        db,
        IndexConfig(num_neighbors=5, distance_measure=measure, seed=seed, **settings),
        num_threads=threads,
    )
    return content(index)


def content(index: PackedIndex) -> bytes:
    scalars = np.array([index.correction_low, index.correction_span])
    return scalars.tobytes() + b"".join(
        f"{name} {array.dtype} {array.shape}".encode() + array.tobytes()
        for name, array in index.arrays().items()
    )


def memory_map(directory: Path) -> NDArray[Any]:
    path = directory / "db.f2"
    DB.astype(np.float16).tofile(path)
    return np.memmap(path, np.float16, "r", shape=DB.shape)


@each_config
@each_measure
def test_threads_do_not_matter(config: str, measure: str) -> None:
    one = built(DB, config, measure)
    for threads in (1, 2, 3, 7):
        assert built(DB, config, measure, threads=threads) == one


SOURCES: dict[str, Callable[[Path], NDArray[Any]]] = {
    "float64": lambda _: DB.astype(np.float64),
    "float16 memory map": memory_map,
    "Fortran order": lambda _: np.asfortranarray(DB),
    "Fortran float64, big-endian": lambda _: np.asfortranarray(DB.astype(">f8")),
    "strided": lambda _: np.repeat(DB, 2, axis=0)[::2],
}


@each_config
@each_measure
@pytest.mark.parametrize("source", SOURCES)
def test_only_the_values_matter(config: str, measure: str, source: str, tmp_path: Path) -> None:
    assert built(SOURCES[source](tmp_path), config, measure) == built(DB, config, measure)


@each_config
@each_measure
@pytest.mark.parametrize("values", [1, 11 * 64, 11 * 333])
def test_chunks_do_not_matter(
    config: str, measure: str, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = built(DB, config, measure, threads=2)
    monkeypatch.setattr(source, "_CHUNK_VALUES", values)
    assert built(DB, config, measure, threads=2) == whole


@pytest.mark.parametrize("config", [c for c in CONFIGS if c != "brute force"])
@each_measure
def test_another_seed_or_value_gives_another_index(config: str, measure: str) -> None:
    first = built(DB, config, measure)
    assert built(DB, config, measure, seed=1) != first
    changed = DB.copy()
    changed[450, 5] += 1 / 8
    assert built(changed, config, measure) != first


def test_numpy_s_own_random_state_does_not_matter() -> None:
    np.random.seed(1)  # noqa: NPY002
    first = built(DB, "all stages", "dot_product")
    np.random.seed(2)  # noqa: NPY002
    assert built(DB, "all stages", "dot_product") == first

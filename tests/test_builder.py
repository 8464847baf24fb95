"""The builder's settings reach the index; misuse is refused where it happens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import swann
from swann import AHConfig, BruteForceConfig, Builder, ConfigError, IndexConfig, TreeConfig

DB = np.random.default_rng(0).standard_normal((500, 8), dtype=np.float32)


def start() -> Builder:
    return swann.builder(DB, 10, "dot_product")


def test_every_setting_reaches_the_config() -> None:
    builder = (
        start()
        .tree(20, 3, 400, 5, 7, True, False, False)
        .score_ah(4, 0.25, 300, "lut16", 6)
        .reorder(40)
        .seed(9)
        .set_n_training_threads(1)
    )
    expected = IndexConfig(
        num_neighbors=10,
        distance_measure="dot_product",
        tree=TreeConfig(
            num_leaves=20,
            num_leaves_to_search=3,
            training_sample_size=400,
            min_partition_size=5,
            training_iterations=7,
            spherical=True,
            random_init=False,
        ),
        score=AHConfig(
            dimensions_per_block=4,
            anisotropic_quantization_threshold=0.25,
            training_sample_size=300,
            training_iterations=6,
        ),
        reorder=swann.ReorderConfig(reordering_num_neighbors=40),
        seed=9,
    )
    assert builder.create_config() == expected
    assert builder.build().config == expected


def test_defaults() -> None:
    config = start().score_ah(2).create_config()
    assert config == IndexConfig(
        num_neighbors=10, distance_measure="dot_product", score=AHConfig(dimensions_per_block=2)
    )
    assert start().score_ah(2, None).create_config() == config
    assert start().score_ah(2, math.nan).create_config() == config
    assert start().score_brute_force().create_config().score == BruteForceConfig()


def test_a_builder_can_build_twice_and_tells_its_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    builder = start().tree(10, 10, min_partition_size=1).score_brute_force()
    first = builder.build(progress=lambda *step: seen.append(step))
    second = builder.build()
    assert seen
    for stage, done, total in seen:
        assert isinstance(stage, str)
        assert 0 <= done <= total
    assert np.array_equal(first.search(DB[0]).indices, second.search(DB[0]).indices)
    assert np.array_equal(first.search(DB[0]).distances, second.search(DB[0]).distances)


def test_an_error_in_the_progress_callback_comes_out() -> None:
    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start().score_brute_force().build(progress=stop)


def test_repr_says_what_was_given() -> None:
    text = repr(start().tree(20, 3).score_brute_force())
    assert "500 x 8 float32" in text
    assert "num_leaves=20" in text
    assert "BruteForceConfig(" in text


def _misuse() -> list[tuple[str, Any, str]]:
    return [
        ("two trees", lambda b: b.tree(5, 1).tree(5, 1), "tree was already called"),
        ("two score_ah", lambda b: b.score_ah(2).score_ah(2), "score_ah was already called"),
        (
            "two brute force",
            lambda b: b.score_brute_force().score_brute_force(),
            "score_brute_force was already called",
        ),
        (
            "both scores",
            lambda b: b.score_ah(2).score_brute_force(),
            "score_ah and score_brute_force contradict each other",
        ),
        (
            "both scores, the other way",
            lambda b: b.score_brute_force().score_ah(2),
            "score_ah and score_brute_force contradict each other",
        ),
        ("two reorders", lambda b: b.reorder(5).reorder(5), "reorder was already called"),
        ("two seeds", lambda b: b.seed(1).seed(1), "seed was already called"),
        ("neither score", lambda b: b.tree(5, 1).build(), r"call score_ah\(...\) for speed,"),
        ("wide blocks", lambda b: b.score_ah(9), "is 9, but db has only 8 dimensions"),
        ("threads 0", lambda b: b.set_n_training_threads(0), "threads is 0; expected at least 1"),
        ("threads -1", lambda b: b.set_n_training_threads(-1), "threads is -1"),
        ("seed -1", lambda b: b.seed(-1), "seed is -1"),
    ]


@pytest.mark.parametrize(
    ("use", "message"), [c[1:] for c in _misuse()], ids=[c[0] for c in _misuse()]
)
def test_misuse(use: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        use(start())


def test_a_refused_setting_leaves_the_builder_as_it_was() -> None:
    builder = start()
    with pytest.raises(ConfigError):
        builder.score_ah(0)
    with pytest.raises(ConfigError):
        builder.tree(5, 6)
    assert builder.score_brute_force().create_config().tree is None


def test_one_dimension_is_spelled_right() -> None:
    with pytest.raises(ConfigError, match=r"db has only 1 dimension$"):
        swann.builder([[1.0]], 1, "squared_l2").score_ah(2)

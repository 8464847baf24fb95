"""Settings of an index, drawn at random from all that a builder takes."""

from __future__ import annotations

from random import Random
from typing import Any

import swann
from swann import Builder, ReorderType

MEASURES = ("dot_product", "squared_l2", "cosine")
_PRECISIONS = (
    ReorderType.FLOAT32, ReorderType.FLOAT32, ReorderType.BFLOAT16, ReorderType.INT8,
)  # fmt: skip


def _maybe(rng: Random, share: float, value: Any) -> Any:
    return value if rng.random() < share else None


def draw_builder(rng: Random, db: Any, n: int, d: int, k: int, measure: Any) -> Builder:
    """Return a builder over `db` (n, d) with settings that are allowed."""
    builder = swann.builder(db, k, measure).seed(rng.randrange(1000))
    builder.set_n_training_threads(rng.randint(1, 3))
    reduced = d
    if d > 1 and rng.random() < 0.2:
        reduced = rng.randint(1, d - 1)
        if rng.random() < 0.4:
            builder.truncate(reduced)
        elif rng.random() < 0.7:
            builder.pca(reduced)
        else:
            builder.pca(None, rng.uniform(0.3, 1), _maybe(rng, 0.5, rng.uniform(0.3, 1)))
            reduced = 1  # at least
    if rng.random() < 0.65:
        _give_tree(rng, builder)
    threshold = _maybe(rng, 0.4, 10 ** rng.uniform(-2, 1))
    if rng.random() < 0.4:
        builder.score_brute_force(rng.choice(_PRECISIONS))
        return builder
    width = rng.randint(1, min(reduced, rng.choice((1, 2, 2, 4, 9))))
    wide = rng.random() < 0.15 and n <= 700
    builder.score_ah(
        width,
        threshold,
        training_sample_size=rng.choice((1, 100, 100_000)),
        hash_type="lut256" if wide else "lut16",
        training_iterations=rng.randint(1, 4),
    )
    if rng.random() < 0.75:
        builder.reorder(
            rng.randint(1, 2 * n + 2), rng.choice(_PRECISIONS), _maybe(rng, 0.4, threshold)
        )
    return builder


def _give_tree(rng: Random, builder: Builder) -> None:
    leaves = rng.choice((1, 2, rng.randint(1, 12), rng.randint(1, 60)))
    soar = _maybe(rng, 0.3, rng.choice((0.0, 1.0, 1.5)))
    builder.tree(
        leaves,
        rng.randint(1, leaves),
        training_sample_size=rng.choice((1, 50, 100_000)),
        min_partition_size=rng.choice((0, 1, 5, 50)),
        training_iterations=rng.randint(1, 5),
        spherical=rng.random() < 0.15,
        quantize_centroids=rng.random() < 0.2,
        random_init=rng.random() < 0.7,
        soar_lambda=soar,
        overretrieve_factor=None if soar is None else _maybe(rng, 0.3, rng.choice((1.0, 2.5))),
        incremental_threshold=_maybe(rng, 0.15, rng.choice((5, 0.1))),
        avq=_maybe(rng, 0.2, rng.choice((1.0, 2.0, 4.0))),
    )
    below = leaves
    while rng.random() < 0.25:
        below = rng.randint(1, below)
        spills = rng.random() < 0.3
        builder.upper_tree(
            below,
            rng.randint(1, below),
            avq=_maybe(rng, 0.2, 2.0),
            soar_lambda=1.0 if spills else None,
            overretrieve_factor=_maybe(rng, 0.3, 1.5) if spills else None,
            scoring_mode=rng.choice(_PRECISIONS),
            anisotropic_quantization_threshold=_maybe(rng, 0.3, 0.2),
        )

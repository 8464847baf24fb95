"""The native module refuses arrays that do not fit together, whoever calls it.

Python code checks before it calls; these are the checks behind, which keep a mistake in it from
becoming a read past the end of an array. Each case is a call that works, and changes of one
argument that are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_calls import Refusals, f32, f64, i8, refuses, u8, u16, u32, u64, zeros

from swann import _native

COUNT, DIM, LEAVES, WIDTH = 5, 4, 3, 2
BLOCKS, TILES, LANES = 2, 1, 16


def held(*shape: int) -> _native.Centroids:
    return _native.Centroids(f32(*shape), 1)


ROWS, CENTROIDS, HELD = f32(COUNT, DIM), f32(LEAVES, DIM), held(LEAVES, DIM)
ORDER, STARTS, LABELS = u32(0, 1, 2, 3, 4), u32(0, 2, 2, 5), u32(0, 0, 2, 2, 2)
TARGETS, WEIGHTS = f32(TILES, DIM, LANES), f32(TILES, LANES)
BOOK, CODES = np.eye(DIM, 16, dtype=np.float32), u8(TILES, BLOCKS, LANES)
METRIC, PLACES = np.eye(DIM, dtype=np.float32), np.arange(COUNT, dtype=np.uint64)
PACKED = (ROWS, f32(COUNT), None, LABELS, PLACES, BOOK, WIDTH, 2, u8(1, BLOCKS, 16))
TILED = (TARGETS, None, None)

BUILDING: list[tuple[str, tuple[Any, ...], Refusals]] = [
    ("check_rows", (ROWS, f32(COUNT), 1), [(1, f32(4), "norms must be")]),
    ("square_rows", (ROWS, f64(COUNT), 1), [(1, f64(4), "squares must be")]),
    (
        "Centroids",
        (CENTROIDS, 1),
        [(0, f32(0, DIM), "must not be empty"), (0, f32(LEAVES, 0), "must not be empty")],
    ),
    (
        "assign_leaves",
        (ROWS, HELD, zeros(COUNT), f32(COUNT), 1.5, None, 1),
        [
            (1, held(LEAVES, 3), "differ in dimension"),
            (2, zeros(4), "labels and scores"),
            (3, f32(4), "labels and scores"),
            (4, 0.5, "eta must be at least 1"),
            (4, np.nan, "eta must be at least 1"),
            (5, f32(4), "etas must be"),
        ],
    ),
    (
        "assign_near",
        (ROWS, CENTROIDS, CENTROIDS, 2, ORDER, STARTS, zeros(COUNT), f32(COUNT), 1),
        [
            (0, f32(COUNT, 3), "differ in dimension"),
            (1, f32(2, DIM), "origins must be"),
            (1, f32(LEAVES, 3), "origins must be"),
            (3, 0, "width must be"),
            (3, 4, "width must be"),
            (4, u32(0, 1, 2, 3), "order must be"),
            (4, u32(0, 1, 2, 3, 5), "a missing row"),
            (5, u32(0, 2, 5), "starts .num_leaves"),
            (5, u32(0, 2, 2, 6), "must end with the number"),
            (5, u32(0, 3, 2, 5), "must not descend"),
            (5, u32(1, 2, 2, 5), "must cover the rows"),
            (5, u32(0, 2, 2, 4), "must cover the rows"),
            (6, zeros(4), "labels and scores"),
            (7, f32(4), "labels and scores"),
        ],
    ),
    (
        "anisotropic_centroids",
        (ROWS, ORDER, STARTS, 1.5, f32(COUNT), f32(COUNT), CENTROIDS.copy(), 1),
        [
            (1, u32(0, 1, 2, 3, 9), "a missing row"),
            (3, 0.9, "eta must be at least 1"),
            (4, f32(4), "etas and scales"),
            (5, f32(4), "etas and scales"),
            (6, f32(LEAVES, 3), "differ in dimension"),
        ],
    ),
    (
        "round_to_bf16",
        (ROWS, f32(COUNT), u16(COUNT, DIM), 1),
        [
            (1, f32(4), "weights must be"),
            (2, u16(4, DIM), "out: "),
            (2, u16(COUNT, 3), "out: "),
        ],
    ),
    (
        "take_rows",
        (ROWS, np.array([4, 0]), f32(2, DIM), 1),
        [
            (1, np.array([4]), "out must be"),
            (1, np.array([4, 5]), "ids must be there"),
            (1, np.array([-1, 0]), "ids must be there"),
            (2, f32(2, 3), "out must be"),
        ],
    ),
    (
        "put_rows",
        (u8(COUNT, DIM), u32(*range(COUNT)), u8(COUNT, DIM), 1),
        [
            (1, u32(*range(COUNT - 1)), "places must be"),
            (1, u32(*range(1, COUNT + 1)), "places must be there"),
            (2, u8(COUNT, 3), "places must be"),
        ],
    ),
    (
        "round_to_i8",
        (ROWS, f32(COUNT), f32(2, DIM), u8(COUNT), i8(COUNT, DIM), f32(COUNT), f32(COUNT), 1),
        [
            (1, f32(4), "weights must be"),
            (2, None, "go together"),
            (2, f32(2, 3), "origins must be"),
            (2, f32(0, DIM), "labels must be there"),
            (3, None, "go together"),
            (3, u8(4), "labels must be"),
            (3, u8(COUNT) + 2, "labels must be there"),
            (4, i8(4, DIM), "out: "),
            (4, i8(COUNT, 3), "out: "),
            (5, f32(4), "scales and squares"),
            (6, f32(4), "scales and squares"),
        ],
    ),
    (
        "spill_leaves",
        (ROWS, HELD, LABELS, 1.0, zeros(COUNT), 1),
        [
            (1, held(LEAVES, 3), "differ in dimension"),
            (1, held(1, DIM), "two centroids"),
            (2, zeros(4), "labels and spilled"),
            (2, u32(0, 0, 0, 0, 3), "below num_leaves"),
            (3, np.nan, "lambda must be"),
            (3, -1.0, "lambda must be"),
            (4, zeros(4), "labels and spilled"),
        ],
    ),
    (
        "sort_by_leaf",
        (LABELS, zeros(COUNT), zeros(LEAVES + 1)),
        [
            (0, u32(0, 0, 0, 0, 3), "below num_leaves"),
            (1, zeros(4), "order must be"),
            (2, zeros(1), "starts must be"),
        ],
    ),
    (
        "leaf_means",
        (ROWS, ORDER, STARTS, f32(LEAVES, DIM), 1),
        [
            (1, u32(0, 1, 2, 3), "order must be"),
            (1, u32(0, 1, 2, 3, 5), "names a missing row"),
            (2, u32(0, 5), "means must be"),
            (2, u32(0, 2, 2, 6), "end with the number of rows"),
            (2, u32(0, 3, 2, 5), "must not descend"),
            (3, f32(LEAVES, 3), "means must be"),
        ],
    ),
    (
        "make_tiles",
        (ROWS, CENTROIDS, LABELS, TARGETS.copy(), TARGETS.copy(), 1),
        [
            (1, None, "go together"),
            (2, None, "go together"),
            (2, zeros(4), "labels must be"),
            (2, u32(0, 0, 0, 0, 3), "below num_leaves"),
            (3, f32(2, DIM, LANES), "tiles must be"),
            (3, f32(TILES, 3, LANES), "tiles must be"),
            (3, f32(TILES, DIM, 15), "tiles must be"),
            (4, f32(TILES, 3, LANES), "tiles must be"),
        ],
    ),
    (
        "encode_tiles",
        (TARGETS, TARGETS, WEIGHTS, BOOK, WIDTH, 2, False, CODES.copy(), f32(TILES, LANES), 1),
        [
            (0, f32(TILES, DIM, 15), "targets must be"),
            (1, None, "go together"),
            (2, None, "go together"),
            (1, f32(2, DIM, LANES), "directions must be"),
            (1, f32(TILES, 3, LANES), "directions must be"),
            (1, f32(TILES, DIM, 15), "directions must be"),
            (2, f32(2, LANES), "directions must be"),
            (2, f32(TILES, 15), "directions must be"),
            (3, f32(3, 16), "codebook must be"),
            (3, f32(DIM, 17), "16 or 256 codewords"),
            (4, 0, "dims_per_block must be"),
            (4, DIM + 1, "dims_per_block must be"),
            ((6, 7), (True, CODES + np.uint8(16)), "below the number of codewords"),
            (7, u8(2, BLOCKS, LANES), "codes must be"),
            (7, u8(TILES, 1, LANES), "codes must be"),
            (7, u8(TILES, BLOCKS, 15), "codes must be"),
            (8, f32(2, LANES), "losses: "),
            (8, f32(TILES, 15), "losses: "),
        ],
    ),
    (
        "start_codebook",
        (TARGETS, WIDTH, u32(*[0] * BLOCKS), np.zeros((15, BLOCKS)), BOOK.copy(), 1),
        [
            (0, f32(TILES, DIM, 15), "targets must be"),
            (1, 0, "dims_per_block must be"),
            (1, DIM + 1, "dims_per_block must be"),
            (2, u32(*[0] * (BLOCKS - 1)), "first must be"),
            (2, u32(*[TILES * LANES] * BLOCKS), "first must be there"),
            (3, np.zeros((14, BLOCKS)), "draws"),
            (3, np.zeros((15, BLOCKS + 1)), "draws"),
            (4, f32(3, 16), "codebook must be"),
            (4, f32(DIM, 17), "16 or 256 codewords"),
        ],
    ),
    (
        "update_codebook",
        (*TILED, WEIGHTS, CODES, WIDTH, BOOK.copy(), True, 1),
        [
            (3, f32(2, LANES), "scales must be"),
            (3, f32(TILES, 15), "scales must be"),
            (4, u8(2, BLOCKS, LANES), "codes must be"),
            (4, u8(TILES, 1, LANES), "codes must be"),
            (4, u8(TILES, BLOCKS, 15), "codes must be"),
            (4, np.full_like(CODES, 16), "below the number of codewords"),
        ],
    ),
    (
        "pack_codes",  # of residuals, with corrections
        (*PACKED[:2], CENTROIDS, *PACKED[3:], f32(32), None, None, f32(DIM), False, 1),
        [
            (1, f32(4), "weights must be"),
            (2, f32(LEAVES, 3), "centroids must be"),
            (2, None, "need centroids"),
            (3, u32(0, 0, 2, 2), "leaves and places"),
            (3, u32(0, 0, 0, 0, 3), "must be there"),
            (4, PLACES[:4], "leaves and places"),
            (4, PLACES + 28, "must be there"),
            (5, f32(3, 16), "codebook must be"),
            (6, 0, "dims_per_block must be"),
            (6, DIM + 1, "dims_per_block must be"),
            (8, u8(1, 1, 16), "codes must be"),
            (8, u8(1, BLOCKS, 32), "codes must be"),
            (9, f32(5), "corrections must be"),
            (10, METRIC, "without corrections"),
            (12, f32(3), "center must be"),
        ],
    ),
    (
        "pack_codes",  # under a metric
        (*PACKED, None, METRIC, f32(COUNT, DIM), None, False, 1),
        [
            (1, None, "with a metric and weights"),
            (10, None, "with a metric and weights"),
            (10, f32(3, DIM), "metric must be"),
            (10, f32(DIM, 3), "metric must be"),
            (11, None, "with a metric and weights"),
            (11, f32(4, DIM), "directions must be"),
            (11, f32(COUNT, 3), "directions must be"),
            (12, f32(DIM), "needs corrections"),
        ],
    ),
    (
        "metric_directions",
        (ROWS, METRIC, f32(COUNT, DIM), f32(COUNT), 1),
        [
            (1, f32(3, DIM), "metric must be"),
            (1, f32(DIM, 3), "metric must be"),
            (2, f32(4, DIM), "directions must be"),
            (2, f32(COUNT, 3), "directions must be"),
            (3, f32(4), "directions must be"),
        ],
    ),
    (
        "normalize_rows",
        (ROWS, f32(COUNT, DIM), 1),
        [(1, f32(4, DIM), "out: "), (1, f32(COUNT, 3), "out: ")],
    ),
    (
        "project_rows",
        (ROWS, f32(2, DIM), f32(COUNT, 2), 1),
        [
            (1, f32(3, DIM), "basis must be"),
            (1, f32(2, 3), "basis must be"),
            (2, f32(4, 2), "out must be"),
            (2, f32(COUNT, 0), "out must be"),
        ],
    ),
    (
        "project_rows",
        (ROWS, None, f32(COUNT, DIM), 1),
        [(2, f32(COUNT, DIM + 1), "at most dim")],
    ),
    (
        "add_moments",
        (ROWS, f64(DIM), 1.0, f64(DIM), f64(DIM, DIM), 1),
        [
            (1, f64(3), "shift and sums"),
            (3, f64(3), "shift and sums"),
            (4, f64(3, DIM), "products must be"),
            (4, f64(DIM, 3), "products must be"),
        ],
    ),
    (
        "symmetric_eigen",
        (f64(DIM, DIM), f64(DIM), 1),
        [
            (0, f64(0, 0), "matrix: "),
            (0, f64(DIM, 3), "matrix: "),
            (1, f64(3), "matrix: "),
        ],
    ),
]

LEVEL = _native.active_level()
KERNELS: list[tuple[str, tuple[Any, ...], Refusals]] = [
    (
        "kernel_pairs_f32",
        (LEVEL, True, ROWS, CENTROIDS, f32(COUNT, LEAVES)),
        [
            (0, "sse9", "cannot run that level"),
            (3, f32(LEAVES, 3), "differ in dimension"),
            (4, f32(4, LEAVES), "out: "),
            (4, f32(COUNT, 2), "out: "),
        ],
    ),
    (
        "kernel_pairs_bf16",
        (LEVEL, False, ROWS, u16(2, DIM), f32(COUNT, 2)),
        [(3, u16(2, 3), "differ"), (4, f32(4, 2), "out"), (4, f32(COUNT, 3), "out")],
    ),
    (
        "kernel_pairs_i8",
        (LEVEL, ROWS, i8(2, DIM), f32(COUNT, 2)),
        [(2, i8(2, 3), "differ"), (3, f32(4, 2), "out"), (3, f32(COUNT, 3), "out")],
    ),
    (
        "kernel_dot_tiles_f32",
        (LEVEL, ROWS, TARGETS, f32(COUNT, LANES)),
        [
            (2, f32(TILES, 3, LANES), "tiles: "),
            (2, f32(TILES, DIM, 15), "tiles: "),
            (3, f32(4, LANES), "out: "),
            (3, f32(COUNT, 15), "out: "),
        ],
    ),
    (
        "kernel_gather_f32",
        (LEVEL, True, f32(DIM), ROWS, u32(4, 0), f32(2)),
        [(2, f32(3), "differ in dimension"), (4, u32(5, 0), "below"), (5, f32(3), "out must be")],
    ),
    (
        "kernel_lut_f32",
        (LEVEL, f32(DIM), BOOK, WIDTH, True, f32(BLOCKS, 16), f32(BLOCKS), f32(BLOCKS)),
        [
            (2, f32(3, 16), "codebook: "),
            (2, f32(DIM, 17), "codebook: "),
            (3, 0, "dims_per_block must be"),
            (5, f32(3, 16), "lut: "),
            (5, f32(BLOCKS, 15), "lut: "),
            (6, f32(3), "lows and highs"),
            (7, f32(3), "lows and highs"),
        ],
    ),
    (
        "kernel_lut_quantize_u8",
        (LEVEL, f32(BLOCKS, 16), f32(BLOCKS), 1.0, u8(BLOCKS, 16)),
        [
            (1, f32(BLOCKS, 17), "entries and out"),
            (2, f32(3), "lows: "),
            (4, u8(BLOCKS, 15), "entries and out"),
            (4, u8(3, 16), "lows: "),
        ],
    ),
    (
        "kernel_scan",
        (
            LEVEL, u8(2, BLOCKS, 16), u16(64), 40, 0, 0, u8(1, BLOCKS, 16),
            [0], [0], [0], u64(1, 80), u64(1),
        ),
        [
            (1, u8(2, BLOCKS, 15), "codes and luts"),
            (2, u16(63), "corrections: "),
            (3, 65, "count and groups"),
            (5, 3, "count and groups"),
            (6, u8(1, BLOCKS, 17), "codes and luts"),
            (6, u8(1, 3, 16), "codes and luts"),
            (6, u8(0, BLOCKS, 16), "queries in one pass"),
            (6, u8(13, BLOCKS, 16), "queries in one pass"),
            (7, [0, 0], "one entry a query"),
            (7, [-1], "thresholds in"),
            (7, [65536], "thresholds in"),
            (8, [0, 0], "one entry a query"),
            (9, [], "one entry a query"),
            (10, u64(2, 80), "one entry a query"),
            (11, u64(2), "one entry a query"),
            (11, u64(1) + np.uint64(81), "within capacity"),
        ],
    ),
    (
        "kernel_argmax_f32",
        (LEVEL, f32(3), f32(3)),
        [(1, f32(2), "scores and bias"), (2, f32(4), "scores and bias")],
    ),
    ("kernel_at_least_f32", (LEVEL, f32(3), 0.5, zeros(3)), [(3, zeros(2), "out must be")]),
    (
        "kernel_keys_from_f32",
        (LEVEL, f32(3), f32(3), 1.0, u64(3)),
        [(2, f32(2), "reach must be"), (4, u64(2), "keys must be")],
    ),
    (
        "kernel_encode_tile",
        (LEVEL, TARGETS[0], TARGETS[0], f32(LANES), BOOK, WIDTH, 1, False, CODES[0], f32(LANES)),
        [
            (1, f32(DIM, 15), "target: "),
            (2, f32(3, LANES), "direction: "),
            (2, f32(DIM, 15), "direction: "),
            (3, f32(15), "weight, loss"),
            (4, f32(3, 16), "codebook: "),
            (4, f32(DIM, 17), "codebook: "),
            (5, 0, "dims_per_block must be"),
            (8, u8(BLOCKS, 15), "weight, loss"),
            (8, u8(3, LANES), "weight, loss"),
            (9, f32(15), "weight, loss"),
        ],
    ),
    (
        "kernel_encode_one",
        (LEVEL, f32(DIM), f32(DIM), 1.0, BOOK, WIDTH, 1, u8(BLOCKS)),
        [
            (2, f32(3), "direction: "),
            (4, f32(3, 16), "codebook: "),
            (4, f32(DIM, 17), "codebook: "),
            (5, 0, "dims_per_block must be"),
            (5, DIM + 1, "dims_per_block must be"),
            (7, u8(3), "codes: "),
        ],
    ),
    (
        "kernel_keep_best",
        (LEVEL, u64(4), 2, 3),
        [(2, 0, "limit must be positive"), (3, 1, "limit must be positive")],
    ),
    ("kernel_least_of_best_f32", (LEVEL, f32(4), 2), [(2, 0, "limit must be positive")]),
    ("force_scan", ("faster",), [(0, "stairs", "tables, unpacked or faster")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "good", "bad"), BUILDING, ids=[case[0] for case in BUILDING])
def test_building(name: str, good: tuple[Any, ...], bad: Refusals) -> None:
    refuses(getattr(_native, name), good, bad)


@pytest.mark.parametrize(("name", "good", "bad"), KERNELS, ids=[case[0] for case in KERNELS])
def test_kernels(name: str, good: tuple[Any, ...], bad: Refusals) -> None:
    refuses(getattr(_native, name), good, bad)

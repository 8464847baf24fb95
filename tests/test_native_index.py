"""The native Index refuses arrays that do not fit together; see test_native_arguments.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_calls import Refusals, f32, i8, i64, refuses, u8, u16, u32, u64, zeros

from swann import _native

COUNT, DIM, LEAVES = 5, 4, 2
NO_ROWS = (None,) * 5
Index = _native.Index


def arrays(**changes: Any) -> dict[str, Any]:
    """Arguments of a tree of two leaves with codes and rows, some of them changed."""
    good: dict[str, Any] = dict.fromkeys(
        ("entry_rows", "rows_bf16", "rows_i8", "row_scales", "row_squares", "row_labels",
         "row_origins", "projection", "rounded_centroids")
    )  # fmt: skip
    good |= {
        "distance": "dot_product",
        "dim": DIM,
        "leaf_starts": u32(0, 2, COUNT),
        "centroids": np.eye(LEAVES, DIM, dtype=np.float32),
        "spreads": f32(LEAVES),
        "ids": u32(10, 11, 12, 13, 14),
        "rows": f32(COUNT, DIM),
        "codes": u8(2, 2, 16),
        "codebook": f32(DIM, 16),
        "dims_per_block": 2,
        "corrections": u16(64),
        "correction_low": 0.0,
        "correction_span": 1.0,
        "reduced_dim": DIM,
    }
    return good | changes


def level(**changes: Any) -> list[Any]:
    good = {
        "centroids": f32(1, DIM),
        "spreads": f32(1),
        "starts": u32(0, LEAVES),
        "entries": u32(0, 1),
        "rows": (f32(LEAVES, DIM), *NO_ROWS[1:]),
        "to_search": 1,
        "gather": 1.0,
    }
    return [tuple((good | changes).values())]


I8 = {"rows": None, "rows_i8": i8(COUNT, DIM), "row_scales": f32(COUNT)}
FROM_ORIGINS = I8 | {"row_labels": u8(COUNT), "row_origins": f32(2, DIM)}
ONE_LEAF = {"leaf_starts": u32(0, COUNT), "centroids": None, "spreads": None, "codes": None}
SPILLED = {"entry_rows": u32(0, 1, 0, 1, 2), "ids": u32(7, 8, 9), "rows": f32(3, DIM)}
L2 = "squared_l2"
TWICE = {"entries": u32(0, 1, 1, 0), "starts": u32(0, 4), "rows": (f32(4, DIM), *NO_ROWS[1:])}

ACCEPTED: list[dict[str, Any]] = [
    {},
    I8,
    I8 | {"distance": L2, "row_squares": f32(COUNT)},
    FROM_ORIGINS,
    FROM_ORIGINS | {"row_labels": u8(COUNT) + 255, "row_origins": f32(256, DIM)},
    {"rows": None, "rows_bf16": u16(COUNT, DIM)},
    {"rows": None},
    ONE_LEAF,
    SPILLED,
    {"entry_rows": u32(4, 0, 2, 1, 3), "ids": u32(*range(COUNT)), "spills": False},
    {"projection": f32(DIM, DIM)},
    {"codebook": f32(DIM, 256), "codes": u8(2, 2, 32)},
    {"corrections": None, "residual": False},
    {"code_center": f32(DIM)},
    {"rounded_centroids": (None, u16(LEAVES, DIM), None, None, None)},
    {"rounded_centroids": (None, None, i8(LEAVES, DIM), f32(LEAVES), None)},
    {"upper": level()},
    {"upper": level(**TWICE, gather=2.0)},
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"leaf_starts": u32(0)}, "two entries"),
    ({"leaf_starts": u32(1, 2, COUNT)}, "must begin with 0"),
    ({"leaf_starts": u32(0, 6, COUNT)}, "must not descend"),
    ({"dim": 0}, "dim must be positive"),
    ({"distance": "hamming"}, "unknown distance"),
    ({"reduced_dim": 0}, "reduced_dim must be"),
    ({"reduced_dim": DIM + 1}, "reduced_dim must be"),
    ({"projection": f32(3, DIM)}, "projection must be"),
    ({"projection": f32(DIM, 3)}, "projection must be"),
    ({"centroids": None}, "many leaves need centroids"),
    ({"centroids": f32(3, DIM)}, "centroids must be"),
    ({"centroids": f32(LEAVES, 3)}, "centroids must be"),
    ({"spreads": f32(3)}, "spreads must be"),
    (ONE_LEAF | {"spreads": f32(1)}, "need centroids"),
    (SPILLED | {"entry_rows": u32(0, 1, 2)}, "entry_rows: "),
    (SPILLED | {"entry_rows": u32(0, 1, 2, 3, 0)}, "below the number of rows"),
    (SPILLED | {"ids": None}, "below the number of rows"),
    (SPILLED | {"spills": False}, "one entry where nothing spills"),
    (ONE_LEAF | {"entry_rows": u32(*range(COUNT))}, "in two leaves need centroids"),
    (ONE_LEAF | {"codes": u8(1, 2, 16), "corrections": u16(32)}, "are of residuals"),
    ({"ids": u32(0, 1, 2, 3)}, "ids must be"),
    ({"rows_bf16": u16(COUNT, DIM)}, "one precision"),
    ({"rows_i8": i8(COUNT, DIM)}, "one precision"),
    ({"rows": None, "codes": None}, "rows or codes"),
    ({"rows": f32(4, DIM)}, "rows must be"),
    ({"rows": f32(COUNT, 3)}, "rows must be"),
    ({"rows": None, "rows_bf16": u16(4, DIM)}, "rows must be"),
    ({"rows": None, "rows_bf16": u16(COUNT, 3)}, "rows must be"),
    (I8 | {"rows_i8": i8(4, DIM)}, "rows must be"),
    (I8 | {"rows_i8": i8(COUNT, 3)}, "rows must be"),
    (I8 | {"row_scales": None}, "row_scales"),
    (I8 | {"row_scales": f32(4)}, "row_scales"),
    (I8 | {"distance": L2}, "row_squares"),
    (I8 | {"distance": L2, "row_squares": f32(4)}, "row_squares"),
    (FROM_ORIGINS | {"row_labels": None}, "go together, with rows_i8"),
    (FROM_ORIGINS | {"row_origins": None}, "go together, with rows_i8"),
    (FROM_ORIGINS | {"rows_i8": None, "rows": f32(COUNT, DIM)}, "go together, with rows_i8"),
    (FROM_ORIGINS | {"row_labels": u8(4)}, "row_labels: "),
    (FROM_ORIGINS | {"row_labels": u8(COUNT) + 2}, "below the number of origins"),
    (FROM_ORIGINS | {"row_origins": f32(2, 3)}, "row_origins must be"),
    (FROM_ORIGINS | {"row_origins": f32(0, DIM)}, "row_origins must be"),
    (FROM_ORIGINS | {"row_origins": f32(257, DIM)}, "row_origins must be"),
    ({"dims_per_block": 0}, "dims_per_block must be"),
    ({"dims_per_block": DIM + 1}, "dims_per_block must be"),
    (
        {"dim": 65000, "reduced_dim": 65000, "centroids": f32(LEAVES, 65000), "rows": None,
         "dims_per_block": 1},
        "too many blocks",
    ),
    ({"codebook": None}, "codebook must be"),
    ({"codebook": f32(3, 16)}, "codebook must be"),
    ({"codebook": f32(DIM, 17)}, "16 or 256 codewords"),
    ({"codes": u8(1, 2, 16)}, "codes must be"),
    ({"codes": u8(2, 1, 16)}, "codes must be"),
    ({"codes": u8(2, 2, 32)}, "codes must be"),
    ({"corrections": u16(63)}, "corrections must be"),
    ({"residual": False}, "are of residuals"),
    ({"code_center": f32(3)}, "code_center must be"),
    ({"code_center": f32(DIM), "corrections": None}, "needs corrections"),
    (ONE_LEAF | {"rounded_centroids": (f32(1, DIM), *NO_ROWS[1:])}, "need centroids"),
    (ONE_LEAF | {"upper": level()}, "need centroids"),
    ({"rounded_centroids": NO_ROWS}, "one precision"),
    ({"rounded_centroids": (f32(3, DIM), *NO_ROWS[1:])}, "rows of centroids must be"),
    ({"rounded_centroids": (f32(LEAVES, 3), *NO_ROWS[1:])}, "rows of centroids must be"),
    ({"rounded_centroids": (None, u16(3, DIM), None, None, None)}, "rows of centroids must be"),
    ({"rounded_centroids": (None, None, i8(3, DIM), None, None)}, "rows of centroids must be"),
    ({"rounded_centroids": (None, None, i8(LEAVES, DIM), None, None)}, "scales must be"),
    ({"rounded_centroids": (None, None, i8(LEAVES, DIM), f32(3), None)}, "scales must be"),
    ({"upper": level(centroids=f32(0, DIM))}, "upper centroids"),
    ({"upper": level(centroids=f32(1, 3))}, "upper centroids"),
    ({"upper": level(spreads=f32(2))}, "upper spreads"),
    ({"upper": level(entries=u32(0))}, "one entry or two"),
    ({"upper": level(starts=u32(0, 1, 2))}, "upper starts must be"),
    ({"upper": level(starts=u32(1, 2))}, "upper starts must be"),
    ({"upper": level(starts=u32(0, 3))}, "upper starts must be"),
    (
        {"upper": level(centroids=f32(2, DIM), spreads=None, starts=u32(0, 3, 2))},
        "upper starts must not descend",
    ),
    ({"upper": level(entries=u32(0, 2))}, "upper entries must be"),
    ({"upper": level(entries=u32(0, 0))}, "repeats a centroid"),
    (
        {"upper": level(**TWICE | {"rows": (np.eye(4, DIM, dtype=np.float32), *NO_ROWS[1:])})},
        "two rows of a centroid",
    ),
    ({"upper": level(to_search=0)}, "searches one leaf"),
    ({"upper": level(gather=0.5)}, "gathers each repeat"),
    ({"upper": level(**TWICE)}, "gathers each repeat"),
    ({"upper": level(rows=NO_ROWS)}, "one precision"),
]  # fmt: skip


@pytest.mark.parametrize("changes", ACCEPTED)
def test_arrays_that_fit(changes: dict[str, Any]) -> None:
    given = arrays(**changes)
    found, distances = i64(1, 3), f32(1, 3)
    assert Index(**given).search(f32(1, DIM), 3, LEAVES, 1, found, distances) == 1
    assert set(found[0]) <= set(given["ids"])


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_arrays_that_do_not_fit(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="native call: .*" + words):
        Index(**arrays(**changes))


@pytest.mark.parametrize(
    "squares", [None, f32(LEAVES + 1)], ids=["no squares", "squares of others"]
)
def test_squares_of_rounded_centroids(squares: Any) -> None:
    def make(squares: Any) -> _native.Index:
        rounded = (None, None, i8(LEAVES, DIM), f32(LEAVES), squares)
        return Index(**arrays(distance=L2, spreads=None, rounded_centroids=rounded))

    make(f32(LEAVES))
    with pytest.raises(ValueError, match="squares must be"):
        make(squares)


QUERIES = f32(3, DIM)
SEARCHES: list[tuple[str, tuple[Any, ...], Refusals]] = [
    (
        "search",
        (QUERIES, 5, 2, 1, i64(3, 2), f32(3, 2)),
        [
            (0, f32(3, 3), "queries must be"),
            (1, 0, "limits must be"),
            (2, 0, "limits must be"),
            (3, 0, "threads must be"),
            (4, i64(2, 2), "ids and distances"),
            (5, f32(2, 2), "ids and distances"),
            (5, f32(3, 1), "ids and distances"),
            ((4, 5), (i64(3, 0), f32(3, 0)), "limits must be"),
        ],
    ),
    (
        "search_one",
        (QUERIES[0], 2, 5, 2),
        [(1, 0, "limits must be"), (2, 0, "limits must be"), (3, 0, "limits must be")],
    ),
    (
        "choose",
        (QUERIES, 1, zeros(3, 2), f32(3, 2)),
        [
            (0, f32(3, 3), "queries must be"),
            (1, 0, "limits must be"),
            (2, zeros(2, 2), "leaves and scores"),
            (3, f32(2, 2), "leaves and scores"),
            (3, f32(3, 1), "leaves and scores"),
            ((2, 3), (zeros(3, 0), f32(3, 0)), "limits must be"),
            ((2, 3), (zeros(3, 3), f32(3, 3)), "limits must be"),
        ],
    ),
    (
        "gather",
        (
            QUERIES, zeros(3, 1), f32(3, 1), 1, u32(0, 2, COUNT), u64(3, 4), u64(3, 4), f32(3, 4),
        ),
        [
            (0, f32(2, DIM), "leaves, scores"),
            (0, f32(3, 3), "queries must be"),
            (1, zeros(2, 1), "leaves, scores"),
            (1, zeros(3, 1) + np.uint32(2), "no such leaf"),
            ((1, 2), (zeros(3, 2), f32(3, 2)), "names a leaf twice"),
            (2, np.full((3, 1), np.nan, np.float32), "scores must be finite"),
            (2, f32(2, 1), "leaves, scores"),
            (2, f32(3, 2), "leaves, scores"),
            (3, 0, "limits must be"),
            (4, u32(0, COUNT), "whole_starts"),
            (5, u64(2, 4), "first, last and"),
            (6, u64(2, 4), "first, last and"),
            (6, u64(3, 3), "first, last and"),
            (7, f32(2, 4), "first, last and"),
            (7, f32(3, 3), "first, last and"),
            ((1, 2), (zeros(3, 0), f32(3, 0)), "limits must be"),
            ((5, 6, 7), (u64(3, 0), u64(3, 0), f32(3, 0)), "limits must be"),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "good", "bad"), SEARCHES, ids=[case[0] for case in SEARCHES])
def test_searching(name: str, good: tuple[Any, ...], bad: Refusals) -> None:
    refuses(getattr(Index(**arrays()), name), good, bad)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30, 0.0])
def test_bad_queries_are_counted_by_every_way(bad: float) -> None:
    index = Index(**arrays(distance="cosine"))
    queries = np.array([[1] * DIM, [bad] * DIM, [1] * DIM], np.float32)
    assert index.search(queries, 5, 2, 1, i64(3, 2), f32(3, 2)) == 1
    assert index.search_one(queries[1], 2, 5, 2) is False
    assert index.search_one(queries[0], 2, 5, 2)[0].shape == (2,)
    assert index.choose(queries, 1, zeros(3, 2), f32(3, 2)) == 1
    rest = (1, u32(0, 2, COUNT), u64(3, 4), u64(3, 4), f32(3, 4))
    assert index.gather(queries, zeros(3, 1), f32(3, 1), *rest) == 1


@pytest.mark.parametrize(
    "other",
    [
        f32(DIM - 1),
        f32(DIM + 1),
        f32(1, DIM),
        f32(2 * DIM)[::2],
        f32(DIM)[::-1],
        f32(DIM).astype(np.float64),
        f32(DIM).astype(np.int32),
        f32(DIM).astype(">f4"),
        np.frombuffer(bytes(4 * DIM + 1), np.uint8)[1:].view(np.float32),
        f32(DIM).view(np.memmap),
        [1.0] * DIM,
        None,
    ],
    ids=lambda other: f"{type(other).__name__}-{getattr(other, 'dtype', '')}",
)
def test_what_is_no_plain_query_is_left_to_the_caller(other: object) -> None:
    assert Index(**arrays()).search_one(other, 2, 5, 2) is None


def test_read_only_queries_are_plain() -> None:
    query = QUERIES[0].copy()
    query.flags.writeable = False
    index = Index(**arrays())
    ids, distances = i64(1, 2), f32(1, 2)
    assert index.search(query[None], 5, 2, 1, ids, distances) == 1
    found = index.search_one(query, 2, 5, 2)
    np.testing.assert_array_equal(found[0], ids[0])
    np.testing.assert_array_equal(found[1], distances[0])
    assert (found[0].dtype, found[1].dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("k", [2**40, 2**61, 2**63 - 1])
def test_no_room_for_results_of_one_query(k: int) -> None:
    with pytest.raises(MemoryError):
        Index(**arrays()).search_one(QUERIES[0], k, 5, 2)


@pytest.mark.parametrize("scale", [1e-3, 1e-37, 1e-44])
def test_short_queries_have_directions_too(scale: float) -> None:
    rows = np.eye(COUNT, DIM, dtype=np.float32)
    index = Index(**arrays(distance="cosine", rows=rows, codes=None, corrections=None))
    found, distances = i64(3, 1), f32(3, 1)
    queries = (rows[:3] * scale).astype(np.float32)
    assert index.search(queries, 1, 2, 1, found, distances) == 3
    assert found[:, 0].tolist() == [10, 11, 12]
    np.testing.assert_allclose(distances, 1, rtol=1e-6)


def test_merging() -> None:
    part = (zeros(1), u64(1, 4), u64(1, 4), f32(1, 4))
    bad = [
        ((u32(2), *part[1:]), "no such query"),
        ((u32(0, 1), *part[1:]), "parts must be"),
        ((*part[:2], u64(2, 4), part[3]), "parts must be"),
        ((*part[:2], u64(1, 3), part[3]), "parts must be"),
        ((*part[:3], f32(2, 4)), "parts must be"),
        ((*part[:3], f32(1, 3)), "parts must be"),
    ]
    refusals: list[tuple[int, Any, str]] = [(0, [part, other], words) for other, words in bad]
    refusals += [
        (1, 0, "limits must be"),
        (2, 0, "limits must be"),
        (4, f32(1, 3), "distances must be"),
        (4, f32(2, 2), "distances must be"),
    ]
    refuses(_native.merge, ([part], 5, 1, i64(2, 3), f32(2, 3)), refusals)

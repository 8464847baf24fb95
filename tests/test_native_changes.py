"""Changing the native Index: what does not fit is refused; see test_native_arguments.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_calls import Refusals, f32, f64, i8, refuses, u8, u16, u32, zeros
from test_native_index import (
    COUNT,
    DIM,
    FROM_ORIGINS,
    I8,
    L2,
    LEAVES,
    ONE_LEAF,
    SPILLED,
    Index,
    arrays,
)

from swann import _native

NOWHERE = 2**32 - 1
PLAIN = (None, 0.0, None, 0.0, 1.0, 1.0, 1.0, 2, None, None)
STEPS, MATRIX = np.linspace(0, 1, 3), np.eye(DIM, dtype=np.float32)


def changing(**changes: Any) -> _native.Index:
    """An index whose updates have begun: a datapoint is gone, and two have come, 5 and 99."""
    index = Index(**arrays(**changes))
    index.begin_updates(*PLAIN)
    ids = np.arange(COUNT) if changes.get("ids", 0) is None else arrays(**changes)["ids"]
    index.erase_one(int(ids[0]))
    assert index.upsert(f32(2, DIM), u32(5, 99), 1) == 2
    return index


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, STEPS[:1], "a grid needs two steps"),
        (2, STEPS[:1], "a grid needs two steps"),
        (5, -0.5, "soar_lambda: at least 0"),
        (5, np.nan, "soar_lambda: at least 0"),
        (6, 0.5, "avq: at least 1"),
        (6, np.nan, "avq: at least 1"),
        (8, f32(3, DIM), "matrices"),
        (8, f32(DIM, 3), "matrices"),
        (9, MATRIX, "no metric with corrections"),
    ],
)
def test_settings(place: int, value: Any, words: str) -> None:
    good = (STEPS, 0.2, STEPS, 0.2, *PLAIN[4:8], MATRIX, None)
    index = Index(**arrays())
    with pytest.raises(ValueError, match="native call: .*" + words):
        index.begin_updates(*good[:place], value, *good[place + 1 :])
    assert not index.begun()
    index.begin_updates(*good)
    assert index.begun()
    index.begin_updates(*PLAIN)  # once is enough


BEFORE: list[tuple[str, tuple[Any, ...]]] = [
    ("upsert", (f32(1, DIM), u32(1), 1)),
    ("upsert_one", (f32(DIM), 1)),
    ("erase", (u32(10),)),
    ("erase_one", (10,)),
    ("reserve", (5,)),
    ("errors", (0, f64(COUNT))),
    ("rows_of", (u32(10), zeros(1))),
    ("row_of", (10,)),
    ("vectors", (u32(0), f32(1, DIM))),
    ("mark_rows", (u8(LEAVES), u8(COUNT))),
    ("numbers", (zeros(COUNT),)),
    ("fold_starts", (None, zeros(LEAVES + 1))),
    ("kept_as", (u32(0), f32(1), u8(1))),
    ("fold", (None, zeros(LEAVES + 1), zeros(COUNT), *(None,) * 9)),
]


@pytest.mark.parametrize(("name", "arguments"), BEFORE, ids=[case[0] for case in BEFORE])
def test_before_updates_have_begun(name: str, arguments: tuple[Any, ...]) -> None:
    index = Index(**arrays())
    with pytest.raises(ValueError, match=r"not begun|: \[\w+\]"):
        getattr(index, name)(*arguments)
    assert not index.changed()
    assert (index.num_rows(), index.live_rows(), index.dead_rows()) == (COUNT, COUNT, 0)
    assert index.changes_nbytes() == 0


CHANGES: list[tuple[str, tuple[Any, ...], Refusals]] = [
    (
        "upsert",
        (f32(2, DIM), u32(7, 8), 1),
        [
            (0, f32(2, 3), "rows: "),
            (0, f32(1, DIM), "rows: "),
            (1, u32(7, 7), "ids must differ"),
            (1, u32(7, 2**32 - 2), "ids must be below"),
        ],
    ),
    ("upsert_one", (f32(DIM), 7), [(0, f32(3), "row: "), (1, 2**32 - 2, "ids must be below")]),
    ("reserve", (5,), [(0, 2**32 - 1, "too much")]),
    (
        "errors",
        (COUNT, f64(2)),
        [(0, 1, "first: a new"), (0, COUNT + 3, "first: a new"), (1, f64(3), "out: ")],
    ),
    ("rows_of", (u32(99, 10), zeros(2)), [(1, zeros(1), "rows: ")]),
    (
        "vectors",
        (u32(0, 6), f32(2, DIM)),
        [
            (0, u32(0, 7), "out of range"),
            (1, f32(1, DIM), "out: "),
            (1, f32(2, 3), "out: "),
        ],
    ),
    (
        "mark_rows",
        (u8(LEAVES), u8(COUNT + 2)),
        [(0, u8(3), "leaves: "), (1, u8(COUNT), "skip: ")],
    ),
    ("numbers", (zeros(COUNT + 2),), [(0, zeros(COUNT), "out: ")]),
    (
        "fold_starts",
        (u8(COUNT + 2), zeros(LEAVES + 1)),
        [(0, u8(COUNT), "skip: "), (1, zeros(LEAVES), "leaf_starts: ")],
    ),
]


@pytest.mark.parametrize(("name", "good", "bad"), CHANGES, ids=[case[0] for case in CHANGES])
def test_changes(name: str, good: tuple[Any, ...], bad: Refusals) -> None:
    refuses(getattr(changing(), name), good, bad)


def test_datapoints_that_are_not_there() -> None:
    index = changing()
    for ids in (u32(11, 1234), u32(11, 10), u32(11, 11)):
        with pytest.raises(ValueError, match=r"no such id|must differ"):
            index.erase(ids)
    with pytest.raises(ValueError, match="no such id"):
        index.erase_one(10)
    assert (index.num_rows(), index.live_rows(), index.dead_rows()) == (7, 6, 1)
    rows = zeros(3)
    index.rows_of(u32(10, 11, 99), rows)
    assert rows.tolist() == [NOWHERE, 1, 6]
    assert index.row_of(10) == index.row_of(1234) == NOWHERE
    index.numbers(numbers := zeros(7))
    assert numbers.tolist() == [NOWHERE, 11, 12, 13, 14, 5, 99]


def test_room_for_numbers_of_32_bits() -> None:
    plain, spilled = Index(**arrays()), Index(**arrays(**SPILLED))
    assert plain.has_room(2**32 - 2 - COUNT - 1)
    assert not plain.has_room(2**32 - 2 - COUNT)
    assert not plain.has_room(2**32 - 1)
    assert spilled.has_room(2**31 - 5)
    assert not spilled.has_room(2**31 - 4)


def folded(index: _native.Index, given: dict[str, Any]) -> list[Any]:
    """Arguments of a fold of everything alive."""
    starts = zeros(len(given["leaf_starts"]))
    rows = index.fold_starts(None, starts)
    groups = int(((np.diff(starts.astype(np.int64)) + 31) // 32).sum())

    def same(name: str, *shape: int) -> Any:
        kept = given[name]
        return None if kept is None else np.zeros(shape, kept.dtype)

    codes = None if given["codes"] is None else given["codes"].shape[1:]
    return [
        None,
        starts,
        zeros(rows),
        same("entry_rows", int(starts[-1])) if given.get("spills", True) else None,
        None if codes is None else u8(groups, *codes),
        same("corrections", groups * 32),
        same("rows", rows, DIM),
        same("rows_bf16", rows, DIM),
        same("rows_i8", rows, DIM),
        same("row_scales", rows),
        same("row_squares", rows),
        same("row_labels", rows),
    ]


NEITHER = {"codes": None, "corrections": None}
IN_ORDER = {"entry_rows": u32(4, 0, 2, 1, 3), "spills": False}
I8_L2 = I8 | {"distance": L2, "spreads": None, "row_squares": f32(COUNT)}
FOLDS: list[tuple[dict[str, Any], list[tuple[int, Any, str]]]] = [
    (
        {},
        [
            (0, u8(COUNT), "skip: "),
            (1, zeros(LEAVES), "leaf_starts: "),
            (1, zeros(LEAVES + 1), "as told"),
            (2, zeros(COUNT), "ids: "),
            (3, zeros(6), "entry_rows: "),
            (4, None, "codes: "),
            (4, u8(3, 2, 16), "codes: "),
            (4, u8(2, 1, 16), "codes: "),
            (4, u8(2, 2, 32), "codes: "),
            (5, None, "corrections: "),
            (5, u16(63), "corrections: "),
            (6, None, "rows: "),
            (6, f32(5, DIM), "rows: "),
            (6, f32(6, 3), "rows: "),
            (7, u16(6, DIM), "rows: "),
            (8, i8(6, DIM), "rows: "),
            (9, f32(6), "rows: "),
            (10, f32(6), "rows: "),
            (11, u8(6), "rows: "),
        ],
    ),
    ({"codebook": f32(DIM, 256), "codes": u8(2, 2, 32)}, [(4, u8(2, 2, 16), "codes: ")]),
    (
        NEITHER | {"rows": None, "rows_bf16": u16(COUNT, DIM)},
        [(7, None, "rows: "), (7, u16(6, 3), "rows: "), (4, u8(2, 2, 16), "codes: ")],
    ),
    (
        I8_L2 | NEITHER,
        [
            (8, None, "rows: "),
            (8, i8(6, 3), "rows: "),
            (9, None, "rows: "),
            (9, f32(5), "rows: "),
            (10, None, "rows: "),
            (10, f32(5), "rows: "),
        ],
    ),
    (
        FROM_ORIGINS | {"row_origins": np.float32([[0] * DIM, [3] * DIM])} | NEITHER,
        [(11, None, "rows: "), (11, u8(5), "rows: ")],
    ),
    (
        SPILLED | NEITHER,
        [(3, None, "entry_rows: "), (3, zeros(5), "entry_rows: ")],
    ),
    (NEITHER | IN_ORDER, [(3, zeros(6), "entry_rows: ")]),
    (I8 | ONE_LEAF | {"corrections": None}, [(5, u16(32), "corrections: ")]),
]


@pytest.mark.parametrize(("changes", "bad"), FOLDS)
def test_folds(changes: dict[str, Any], bad: Refusals) -> None:
    given = arrays(**changes)
    if given.get("spills", "entry_rows" in changes):  # both leaves have all of its rows but one
        given["entry_rows"] = u32(0, 1, 1, 2, 0)
    index = Index(**given)
    index.begin_updates(*PLAIN)
    index.erase_one(int(given["ids"][0]))
    assert index.upsert(np.full((2, DIM), 2, np.float32), u32(5, 99), 1) == 2
    good = tuple(folded(index, given))
    refuses(index.fold, good, bad)
    alive = {int(id) for id in given["ids"][1:]} | {5, 99}
    assert set(good[2].tolist()) == alive
    if good[6] is not None:
        new = np.isin(good[2], [5, 99])
        np.testing.assert_array_equal(good[6], np.where(new, 2, 1)[:, None] * f32(len(new), DIM))
    if good[8] is not None:
        new = np.isin(good[2], [5, 99])
        from_origins = 0 if good[11] is None else given["row_origins"][good[11][new]]
        decoded = from_origins + good[8][new] * good[9][new, None]
        np.testing.assert_allclose(decoded, 2, rtol=1e-6)


def test_rows_are_taken_as_they_are_kept() -> None:
    """With scales and labels rows of int8 are not rounded anew; both are checked."""
    rng = np.random.default_rng(0)
    origins = (40 * rng.standard_normal((2, DIM))).astype(np.float32)
    given = arrays(**(FROM_ORIGINS | {"row_origins": origins}), **NEITHER)
    given["rows_i8"] = rng.integers(-99, 100, (COUNT, DIM)).astype(np.int8)
    given["row_labels"] = np.arange(COUNT, dtype=np.uint8) % 2
    given["row_scales"] = rng.uniform(1e-5, 1, COUNT).astype(np.float32)
    index = Index(**given)
    index.begin_updates(*PLAIN)
    rows = u32(*range(COUNT))
    vectors, scales, labels = f32(COUNT, DIM), f32(COUNT), u8(COUNT)
    index.vectors(rows, vectors)
    exact = origins[given["row_labels"]] + given["rows_i8"] * given["row_scales"][:, None]
    np.testing.assert_allclose(vectors, exact, rtol=1e-6)
    refuses(
        index.kept_as,
        (rows, scales, labels),
        [
            (0, u32(*range(1, COUNT + 1)), "rows out"),
            (1, f32(4), "labels: "),
            (2, u8(4), "labels: "),
        ],
    )
    np.testing.assert_array_equal(scales, given["row_scales"])
    np.testing.assert_array_equal(labels, given["row_labels"])
    ids = u32(*range(50, 50 + COUNT))
    refuses(
        index.upsert,
        (vectors, ids, 2, scales, labels),
        [
            (3, f32(4), "scales: "),
            (3, None, "labels go with scales"),
            (4, u8(4), "labels: "),
            (4, None, "labels go with scales"),
            (4, u8(COUNT) + 2, "labels: of origins"),
        ],
    )
    new = np.empty(COUNT, np.uint32)
    index.rows_of(ids, new)
    again, scales_again, labels_again = f32(COUNT, DIM), f32(COUNT), u8(COUNT)
    index.vectors(new, again)
    index.kept_as(new, scales_again, labels_again)
    np.testing.assert_array_equal(again, vectors)
    np.testing.assert_array_equal(scales_again, scales)
    np.testing.assert_array_equal(labels_again, labels)

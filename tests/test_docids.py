"""Docids: what counts as some, what comes back, and the table that keeps them."""

from __future__ import annotations

import contextlib
import copy
import enum
import hashlib
import json
import pickle
from collections import UserList
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swann
from swann import (
    CorruptIndexError,
    DTypeError,
    InvalidInputError,
    Searcher,
    ShapeError,
    UnknownDocidError,
)
from swann.index.disk.manifest import digest_of_json
from swann.index.docids import Docids, check_docids, check_row_ids

DB = np.random.default_rng(5).standard_normal((6, 3)).astype(np.float32)
ODD = ["", "\0", "a\0b", "é", "e\u0301", "\U0001f600", "\ud800", "\udfff x", "\n", "x" * 10_000]


class Loud(str):
    """A string that calls itself something else."""

    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


class Color(str, enum.Enum):  # noqa: UP042 (StrEnum prints as its value)
    RED = "red"


class Number(enum.IntEnum):
    FOUR = 4


class Big(int):
    def __int__(self) -> int:
        return 99

    def __index__(self) -> int:
        return 98


# ---- check_docids


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [
        ("one", ["one"]),
        (7, [7]),
        (np.int16(7), [7]),
        (np.str_("one"), ["one"]),
        ([], []),
        ((), []),
        (np.empty(0), []),
        (["b", "a"], ["b", "a"]),
        (("b", "a"), ["b", "a"]),
        (UserList([3, 1]), [3, 1]),
        (range(3), [0, 1, 2]),
        ({"b": 1, "a": 2}.keys(), ["b", "a"]),
        ((str(i) for i in range(2)), ["0", "1"]),
        (np.array([3, 1], np.uint8), [3, 1]),
        (np.array([2**63 - 1], np.uint64), [2**63 - 1]),
        (np.array([3, 1], ">i4"), [3, 1]),
        (np.arange(6)[::-2], [5, 3, 1]),
        (np.array(5), [5]),
        (np.array("a"), ["a"]),
        (np.array(["b", "ab"]), ["b", "ab"]),
        (np.array(["b", "ab"], object), ["b", "ab"]),
        (np.array([1, 2], object), [1, 2]),
        ([np.int64(1), 2, Number.FOUR, Big(5)], [1, 2, 4, 5]),
        (["a", np.str_("b"), Loud("c"), Color.RED], ["a", "b", "c", "red"]),
        (Color.RED, ["red"]),
        (Big(3), [3]),
        (ODD, ODD),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_plain_values_come_out(given_as: Any, expected: list[Any]) -> None:
    checked = check_docids(given_as)
    assert checked == expected
    assert checked is not given_as
    assert {type(docid) for docid in checked} <= {str, int}
    assert list(map(str, checked)) == list(map(str, expected))  # whatever they say they are


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (None, DTypeError, "docids is None"),
        (1.0, DTypeError, "docids is 1.0 (float); expected strings, or ints from 0 on"),
        (True, DTypeError, "docids[0] is True (bool)"),
        ([0, True], DTypeError, "docids[1] is True (bool)"),
        ([np.True_], DTypeError, "docids[0]"),
        ([1.0], DTypeError, "docids[0] is 1.0 (float)"),
        ([None], DTypeError, "docids[0] is None"),
        ([b"a"], DTypeError, "docids[0] is b'a' (bytes)"),
        (["a", 1], DTypeError, "docids[1] is 1 (int); expected strings, or ints from 0 on, all of"),
        ([1, "a"], DTypeError, "docids[1] is 'a' (str)"),
        ([["a"]], DTypeError, "docids[0] is ['a'] (list)"),
        (np.array([["a"]]), ShapeError, "docids has shape (1, 1); expected one axis"),
        (np.array([1.5]), DTypeError, "docids[0] is 1.5 (float)"),
        (np.array([True]), DTypeError, "docids[0] is True (bool)"),
        (np.array([b"a"]), DTypeError, "docids[0] is b'a' (bytes)"),
        (np.array(["2020-01-01"], "M8[ns]"), DTypeError, "docids are of dtype datetime64[ns]"),
        (np.array([5], "m8[s]"), DTypeError, "docids are of dtype timedelta64[s]"),
        (b"abc", DTypeError, "docids is of type bytes; expected a list"),
        (bytearray(b"abc"), DTypeError, "docids is of type bytearray; expected a list"),
        ({"a"}, DTypeError, "docids is of type set; expected a list"),
        (frozenset("a"), DTypeError, "docids is of type frozenset; expected a list"),
        ({"a": 1}, DTypeError, "docids is of type dict; expected a list"),
        (object(), DTypeError, "docids is <object object"),
        (-1, InvalidInputError, "docids[0] is -1; expected strings, or ints from 0 on (-1 stands"),
        ([3, -(2**70)], InvalidInputError, "docids[1] is -1180591620717411303424"),
        ([2**63], InvalidInputError, "docids[0] is 9223372036854775808"),
        (np.array([2**63], np.uint64), InvalidInputError, "docids[0] is 9223372036854775808"),
        (["a", "b", "a", "b"], InvalidInputError, "docids hold 'a' twice; expected unique ones"),
        ([1, np.int8(1)], InvalidInputError, "docids hold 1 twice"),
        ([Color.RED, "red"], InvalidInputError, "docids hold 'red' twice"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_refused(bad: Any, error: type[Exception], message: str) -> None:
    for use in (check_docids, build):
        if bad is None and use is not check_docids:
            continue  # build(None): none are given
        with pytest.raises(error) as caught:
            use(bad)
        assert str(caught.value).startswith(message)
        assert type(caught.value) is error


def test_row_ids_are_ints() -> None:
    assert check_row_ids(np.array([2, 0])) == [2, 0]
    assert check_row_ids([]) == []
    with pytest.raises(DTypeError, match="docids are strings, but this index was built without"):
        check_row_ids("a")
    with pytest.raises(InvalidInputError, match="rows hold 2 twice"):
        check_row_ids([2, 2], "rows")


# ---- Building and searching

BUILDERS: dict[str, Callable[[swann.Builder], swann.Builder]] = {
    "brute force": lambda b: b.score_brute_force(),
    "tree": lambda b: b.tree(2, 2, min_partition_size=1).score_brute_force(),
    "AH": lambda b: b.score_ah(2),
    "SOAR": lambda b: b.tree(2, 2, min_partition_size=1, soar_lambda=1.5).score_ah(1).reorder(6),
}


def build(docids: Any, how: str = "brute force", k: int = 3) -> Searcher:
    return BUILDERS[how](swann.builder(DB, k, "squared_l2")).build(docids=docids)


def moved(searcher: Searcher, how: str, folder: Path) -> Searcher:
    if how == "saved":
        searcher.serialize(folder)
        return swann.load_searcher(folder, verify="full")
    if how == "pickled":
        return pickle.loads(pickle.dumps(searcher))
    return copy.deepcopy(searcher) if how == "copied" else searcher


@pytest.mark.parametrize("moving", ["stays", "saved", "pickled", "copied"])
@pytest.mark.parametrize("how", BUILDERS)
@pytest.mark.parametrize(
    "docids",
    [
        ODD[:6],
        ["\ud800", "\udfff", "ÿ" * 300, "日本", "", "0"],
        [0, 1, 2, 3, 4, 5],
        [2**63 - 1, 0, 2**53 + 1, 2**32, 2**31, 7],
    ],
    ids=["odd strings", "more odd strings", "row numbers", "large ints"],
)
def test_results_are_docids(docids: list[Any], how: str, moving: str, tmp_path: Path) -> None:
    given_as = list(docids)
    plain = build(None, how)
    searcher = moved(build(docids, how), moving, tmp_path)
    assert docids == given_as  # the caller's list is as it was
    docids.append("more")  # and is not looked at again
    assert searcher.docids == given_as
    docids.pop()
    assert plain.docids is None
    dtype = np.dtype(object) if isinstance(docids[0], str) else np.dtype(np.int64)
    none = None if isinstance(docids[0], str) else -1
    for k in (3, 9):
        for search, query in [
            ("search", DB[1]),
            ("search_batched", DB[:4]),
            ("search_batched_parallel", DB[:4]),
            ("search_batched", DB[:0]),
        ]:
            found = getattr(searcher, search)(query, k)
            rows = getattr(plain, search)(query, k)
            assert found.indices.dtype == dtype
            assert found.indices.shape == rows.indices.shape == found.distances.shape
            named = [docids[row] if row >= 0 else none for row in rows.indices.ravel().tolist()]
            assert found.indices.ravel().tolist() == named
            assert {type(docid) for docid in named} <= {type(docids[0]), type(none)}
            np.testing.assert_array_equal(found.distances, rows.distances)


@pytest.mark.parametrize(
    ("docids", "message"),
    [
        (["a"] * 0, "0 docids for 6 datapoints; expected one for each"),
        (["a"], "1 docids for 6 datapoints; expected one for each"),
        ("abcdef", "1 docids for 6 datapoints; expected one for each"),
        (range(7), "7 docids for 6 datapoints; expected one for each"),
    ],
)
def test_as_many_docids_as_datapoints(docids: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(docids)


@pytest.mark.parametrize("moving", ["stays", "saved", "pickled", "copied"])
@pytest.mark.parametrize("docids", [["a", "b", "c", "d", "e", "f"], [9, 8, 7, 6, 5, 4]])
def test_an_index_that_lost_all_its_docids_keeps_their_kind(
    docids: list[Any], moving: str, tmp_path: Path
) -> None:
    searcher = build(docids)
    searcher.delete(docids)
    searcher = moved(searcher, moving, tmp_path)
    assert (searcher.size(), searcher.docids, searcher.has_docids) == (0, [], True)
    indices = searcher.search_batched(DB[:2]).indices
    none = None if docids == list("abcdef") else -1
    assert indices.tolist() == [[none] * 3] * 2
    other = 1 if none is None else "1"
    with pytest.raises(DTypeError, match=r"docids are of type .*, but those of this index are"):
        searcher.upsert(other, DB[0])
    assert searcher.upsert(docids[2], DB[0]).tolist() == docids[2:3]
    assert searcher.search(DB[0]).indices.tolist() == [docids[2], none, none]


@pytest.mark.parametrize("moving", ["stays", "saved", "pickled", "copied"])
def test_an_index_that_never_had_docids_takes_either_kind(moving: str, tmp_path: Path) -> None:
    start = swann.builder(DB[:0], 2, "cosine").score_brute_force().build(docids=[])
    for first, none in (("a", None), (4, -1)):
        searcher = moved(start, moving, tmp_path)
        bad: Any = 3 if first == "a" else "b"
        with pytest.raises(swann.NonFiniteError):
            searcher.upsert(bad, [1.0, np.nan, 0])  # of the other kind, and refused
        assert searcher.search(DB[0]).indices.tolist() == [None, None]
        searcher = copy.deepcopy(searcher)
        searcher.upsert(first, DB[0])
        assert searcher.search(DB[0]).indices.tolist() == [first, none]
        with pytest.raises(DTypeError):
            searcher.upsert(bad, DB[1])
        assert searcher.docids == [first]


def test_docids_is_a_list_of_the_callers_own() -> None:
    searcher = build(list("abcdef"))
    taken = searcher.docids
    assert taken is not None
    taken.clear()
    assert searcher.docids == list("abcdef")


# ---- The table


def test_names_of_none() -> None:
    assert Docids().names(np.array([-1])).tolist() == [None]
    assert Docids(["a"]).names(np.array([-1, 0, -1])).tolist() == [None, "a", None]
    assert Docids([5]).names(np.array([[-1, 0]])).tolist() == [[-1, 5]]
    assert Docids(kind="int").names(np.array([-1])).dtype == np.int64
    assert Docids(kind="str").names(np.array([-1])).dtype == object


def test_unknown_ones_are_named() -> None:
    table = Docids(["a", "b"])
    with pytest.raises(UnknownDocidError) as caught:
        table.known(["a", "x", "y"])
    assert str(caught.value) == "docid 'x' is not in the index"
    assert isinstance(caught.value, KeyError)


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "cancel", "forget", "keep", "copy", "pickle"]),
        st.lists(st.integers(0, 30), unique=True, max_size=20),
    ),
    max_size=30,
)


@settings(max_examples=200)
@given(kind=st.sampled_from(["str", "int"]), todo=steps)
def test_the_table_is_a_list_and_a_dict(kind: str, todo: list[tuple[str, list[int]]]) -> None:
    """Whatever is done, numbers lead to docids and back, and old tables stay as they were."""
    make: Callable[[int], Any] = str if kind == "str" else int
    none = None if kind == "str" else -1
    table, listed, numbers = Docids(), list[Any](), dict[Any, int]()
    left: list[tuple[Docids, list[Any]]] = []
    for step, picked in todo:
        docids = [make(i) for i in picked]
        new = [docid for docid in docids if docid not in numbers]
        if step == "add" and new:
            table.prepare(new)
            numbers |= {docid: len(listed) + i for i, docid in enumerate(new)}
            listed += new
        elif step == "cancel" and new:
            before = table.kind
            table.prepare(new)
            table.cancel(new, len(listed), before)
        elif step == "forget":
            known = [docid for docid in docids if docid in numbers]
            table.forget(known)
            for docid in known:
                del numbers[docid]
        elif step == "keep":
            alive = np.array(sorted(numbers.values()), np.int64)
            left.append((table, list(listed)))
            table = table.kept(alive)
            listed = [listed[number] for number in alive]
            numbers = {docid: i for i, docid in enumerate(listed)}
        elif step == "copy" and len(numbers) == len(listed):
            left.append((table, list(listed)))
            table = table.copy()
        elif step == "pickle":
            table = pickle.loads(pickle.dumps(table))
        assert len(table) == len(listed)
        assert table.tolist() == listed
        if docids and table.kind is not None:
            assert table.numbers_of(docids) == [numbers.get(docid) for docid in docids]
        shown = none if table.kind is not None else None
        places = np.append(np.arange(len(listed)), -1)
        assert table.names(places).tolist() == [*listed, shown]
    for old, was in left:
        assert old.tolist() == was


# ---- Docids in a file


def many(kind: str, count: int = 400) -> list[Any]:
    return (
        list(range(7, count + 7))
        if kind == "int"
        else ["", "\ud800", "ä\0"] + [f"docid {i}" for i in range(count - 3)]
    )


@pytest.mark.parametrize("kind", ["str", "int"])
def test_docids_of_a_saved_index_stay_in_its_files(kind: str, tmp_path: Path) -> None:
    docids = many(kind)
    db = np.random.default_rng(0).standard_normal((len(docids), 4)).astype(np.float32)
    built = swann.builder(db, 3, "squared_l2").score_brute_force().build(docids=docids)
    built.save(tmp_path / "a")
    loaded = swann.load(tmp_path / "a")
    names = loaded._live.view.docids
    assert names is not None
    assert names.stored is not None
    for row in (5, 0, 399, 1):  # one by one, so that only these are read
        assert loaded.search(db[row]).indices.tolist() == built.search(db[row]).indices.tolist()
        assert loaded.search(db[row]).indices[0] == docids[row]
    padded = loaded.search(db[0], 500).indices.tolist()
    assert padded == built.search(db[0], 500).indices.tolist()
    assert padded[400:] == [-1 if kind == "int" else None] * 100
    assert loaded.search_batched(db).indices.tolist() == built.search_batched(db).indices.tolist()
    assert loaded.docids == docids
    assert names.stored is not None  # reading changed nothing
    loaded.save(tmp_path / "b")
    a, b = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in "ab")
    assert a == b
    copied = pickle.loads(pickle.dumps(loaded))
    loaded.upsert("new" if kind == "str" else 1, db[0])
    loaded.delete(docids[3])
    assert names.stored is None
    expected = [*docids[:3], *docids[4:], "new" if kind == "str" else 1]
    assert loaded.docids == expected
    loaded.save(tmp_path / "a")
    assert swann.load(tmp_path / "a", verify="full").docids == expected
    assert copied.docids == docids


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("docid_ends", lambda a: a[::-1]),
        ("docid_ends", lambda a: a + np.uint64(1)),
        ("docid_ends", lambda a: a | np.uint64(2**63)),
        ("docid_bytes", lambda a: a | np.uint8(0xC0)),
        ("docid_bytes", lambda a: a * 0),
        ("docid_ints", lambda a: a * 0),
        ("docid_ints", lambda a: -a),
    ],
)
def test_docids_that_lie(name: str, change: Callable[[Any], Any], tmp_path: Path) -> None:
    """A full check finds them when the index is opened, else the first look or change does."""
    kind = "int" if name == "docid_ints" else "str"
    db = np.eye(400, dtype=np.float32)
    builder = swann.builder(db, 3, "dot_product").score_brute_force()
    builder.build(docids=many(kind)).save(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    entry = content["arrays"][name]
    array = np.ascontiguousarray(change(np.load(tmp_path / entry["file"])))
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    entry |= {"file": f"{name}-{digest[:16]}.npy", "sha256": digest}
    np.save(tmp_path / entry["file"], array)
    content["digest"] = digest_of_json(content)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CorruptIndexError, match=r"docids of .* are damaged"):
        swann.load(tmp_path, verify="full")
    loaded = swann.load(tmp_path)
    bounds = name == "docid_ends" and (array[9] < array[8] or array[9] > 2**32)
    with pytest.raises(CorruptIndexError) if bounds else contextlib.suppress(CorruptIndexError):
        loaded.search(db[9], 1)
    with pytest.raises(CorruptIndexError, match=r"docids of .* are damaged"):
        loaded.upsert("x" if kind == "str" else 3, db[0])
    assert len(loaded) == 400

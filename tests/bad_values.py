"""Bad values by the kind of argument, and the error that each is answered with.

A value comes with its error, with `SAME` where it means what the good value means, or with `FINE`
where it means something else that is as good. An error that is not swann's own fails the tests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pipelines import D, variants

from swann import (
    ConfigError,
    DTypeError,
    IndexFormatError,
    InvalidInputError,
    NonFiniteError,
    ShapeError,
    SwannError,
    UnknownDocidError,
    ZeroVectorError,
)

SAME, FINE = "same", "fine"
NAN, INF = float("nan"), float("inf")

Bad = tuple[str, Any, Any]  # a name, the value, and what comes of it


@dataclass(frozen=True)
class Takes:
    """An argument: its kind, a good value, and what differs from its kind here.

    Attributes
    ----------
    kind : str
        A key of `KINDS`.
    good : object
        A value that is accepted.
    says : str
        What errors call the argument; its name unless given.
    but : dict
        By the name of a bad value, what comes of it here.
    """

    kind: str
    good: Any
    says: str = ""
    but: dict[str, Any] = field(default_factory=dict)

    def bad(self) -> list[Bad]:
        """Return all bad values, with what comes of them."""
        values = KINDS[self.kind](self.good)
        unknown = self.but.keys() - {name for name, _, _ in values}
        if unknown:
            raise KeyError(f"no such values of the kind {self.kind}: {sorted(unknown)}")
        return [(name, value, self.but.get(name, comes)) for name, value, comes in values]


def put(array: NDArray[Any], value: float) -> NDArray[Any]:
    """Return a copy with a value in its last place."""
    changed = array.copy()
    changed[(-1,) * array.ndim] = value
    return changed


def no_numbers(good: NDArray[Any]) -> list[Bad]:
    """What holds no real numbers."""
    return [
        ("object", good.astype(object), DTypeError),
        ("strings", good.astype(str), DTypeError),
        ("complex", good.astype(complex), DTypeError),
        ("bool", good > 50, DTypeError),
        ("dates", good.astype("M8[s]"), DTypeError),
        ("masked", np.ma.masked_array(good), DTypeError),
        ("None", None, InvalidInputError),
        ("a string", "vectors.npy", DTypeError),
        ("bytes", b"abcd", DTypeError),
        ("dict", {1: 2}, DTypeError),
        ("set", {1.0}, DTypeError),
        ("object()", object(), InvalidInputError),
        ("a function", len, InvalidInputError),
        ("ragged", [[1.0, 2.0], [3.0]], DTypeError),
    ]


def vectors(good: NDArray[np.float32]) -> list[Bad]:
    """Many vectors of a dimension that is known."""
    zero, twice = good.copy(), good.copy()
    zero[0], twice[1] = 0, good[0]
    return [
        *no_numbers(good),
        ("NaN", put(good, NAN), NonFiniteError),
        ("inf", put(good, INF), NonFiniteError),
        ("-inf", put(good, -INF), NonFiniteError),
        ("over float32", put(good.astype(np.float64), 1e300), NonFiniteError),
        ("too long", put(good, 3e18), InvalidInputError),
        ("zero row", zero, ZeroVectorError),
        ("rank 0", 3.0, ShapeError),
        ("rank 1", good[0], ShapeError),
        ("rank 3", good[None], ShapeError),
        ("5 dimensions", good[:, :5], ShapeError),
        ("no columns", good[:, :0], ShapeError),
        ("no rows", good[:0], FINE),
        ("empty list", [], FINE),
        ("duplicates", twice, FINE),
        ("subnormal", (good * np.float32(1e-44)).astype(np.float32), FINE),
        *((name, same, SAME) for name, same in variants(good).items()),
    ]


def database(good: NDArray[np.float32]) -> list[Bad]:
    """Many vectors of any dimension."""
    differs = {"5 dimensions": FINE, "empty list": ShapeError}
    return [(name, value, differs.get(name, comes)) for name, value, comes in vectors(good)]


def vector(good: NDArray[np.float32]) -> list[Bad]:
    """One vector."""
    return [
        *no_numbers(good),
        ("NaN", put(good, NAN), NonFiniteError),
        ("inf", put(good, INF), NonFiniteError),
        ("over float32", put(good.astype(np.float64), 1e300), NonFiniteError),
        ("too long", put(good, 3e18), InvalidInputError),
        ("zeros", np.zeros(D), ZeroVectorError),
        ("rank 0", 3.0, ShapeError),
        ("rank 2", good[None], ShapeError),
        ("5 dimensions", good[:5], ShapeError),
        ("empty list", [], ShapeError),
        ("float64", good.astype(np.float64), SAME),
        ("big-endian", good.astype(">f4"), SAME),
        ("strided", np.repeat(good, 2)[::2], SAME),
        ("list", good.tolist(), SAME),
    ]


def no_integers(good: Any) -> list[Bad]:
    """What is no integer."""
    return [
        ("2.5", 2.5, ConfigError),
        ("a float", float(good or 0), ConfigError),
        ("True", True, ConfigError),
        ("np.True_", np.True_, ConfigError),
        ("a string", "5", ConfigError),
        ("NaN", NAN, ConfigError),
        ("inf", INF, ConfigError),
        ("complex", 2j, ConfigError),
        ("a list", [1], ConfigError),
        ("an array", np.array([1, 2]), ConfigError),
        ("object()", object(), ConfigError),
        ("2**63", 2**63, ConfigError),
        ("10**30", 10**30, ConfigError),
        ("-1", -1, ConfigError),
    ]


def count(good: int) -> list[Bad]:
    """An integer from 1 on."""
    return [
        *no_integers(good),
        ("0", 0, ConfigError),
        ("None", None, ConfigError),
        ("np.int64", np.int64(good), SAME),
        *([("np.uint8", np.uint8(good), SAME)] if good < 256 else []),
    ]


def count_or_zero(good: int) -> list[Bad]:
    """An integer from 0 on."""
    return [*no_integers(good), ("None", None, ConfigError), ("np.int16", np.int16(good), SAME)]


def limit(good: int) -> list[Bad]:
    """An integer from 1 on, or None; -1 too where ScaNN has it so."""
    return [*no_integers(good), ("0", 0, ConfigError), ("np.int64", np.int64(good), SAME)]


def number(good: float) -> list[Bad]:
    """A finite number above 0."""
    return [
        ("0", 0, ConfigError),
        ("-1", -1.0, ConfigError),
        ("NaN", NAN, ConfigError),
        ("inf", INF, ConfigError),
        ("None", None, ConfigError),
        ("a string", "0.2", ConfigError),
        ("True", True, ConfigError),
        ("complex", 1j, ConfigError),
        ("a list", [0.2], ConfigError),
        ("10**400", 10**400, ConfigError),
        ("object()", object(), ConfigError),
        ("np.float64", np.float64(good), SAME),
    ]


def number_or_none(good: float) -> list[Bad]:
    """The same; None and NaN: nothing is set."""
    none = {"None": FINE, "NaN": FINE}
    return [(name, value, none.get(name, comes)) for name, value, comes in number(good)]


def choice(good: Any) -> list[Bad]:
    """One of some strings."""
    return [
        ("another string", "nonsense", ConfigError),
        ("upper case", str(good).upper() + "_", ConfigError),
        ("empty", "", ConfigError),
        ("None", None, ConfigError),
        ("3", 3, ConfigError),
        ("bytes", b"cosine", ConfigError),
        ("a list", [good], ConfigError),
        ("an array", np.array([1, 2]), ConfigError),
        ("NaN", NAN, ConfigError),
    ]


def flag(good: bool) -> list[Bad]:
    """True or False."""
    return [
        ("1", 1, ConfigError),
        ("a string", "True", ConfigError),
        ("None", None, ConfigError),
        ("NaN", NAN, ConfigError),
        ("an array", np.array([True, False]), ConfigError),
        ("np.bool_", np.bool_(good), SAME),
    ]


def precision(good: Any) -> list[Bad]:
    """A `ReorderType`, or what stands for one."""
    return [b for b in choice("INT8") if b[0] != "upper case"] + [("2.5", 2.5, ConfigError)]


def docids(good: list[Any]) -> list[Bad]:
    """Names, as many as there are datapoints."""
    n = len(good)
    return [
        ("None", None, SwannError),
        ("a number", 3.5, DTypeError),
        ("floats", [float(i) for i in range(n)], DTypeError),
        ("NaN", np.full(n, NAN), DTypeError),
        ("bools", [True] * n, DTypeError),
        ("Nones", [None] * n, DTypeError),
        ("bytes", [b"a"] * n, DTypeError),
        ("mixed", [*range(n - 1), "a"], DTypeError),
        ("dates", np.zeros(n, "M8[s]"), DTypeError),
        ("complex", np.zeros(n, complex), DTypeError),
        ("objects", [object() for _ in range(n)], DTypeError),
        ("a dict", dict.fromkeys(good), DTypeError),
        ("a set", set(good), DTypeError),
        ("rank 2", np.array([good]), ShapeError),
        ("a view of rank 2", memoryview(np.zeros((n, 1), int)), ShapeError),
        ("a view of floats", memoryview(np.zeros(n)), DTypeError),
        ("negative", [-1 - i for i in range(n)], InvalidInputError),
        ("beyond 64 bits", [2**63 + i for i in range(n)], InvalidInputError),
        ("one twice", [*good[:-1], good[0]], InvalidInputError),
        ("too many", [*good, type(good[0])(10**6)], ShapeError),
        ("too few", good[:-1], ShapeError),
        ("none at all", [], ShapeError),
        ("an array", np.array(good), SAME),
        ("a tuple", tuple(good), SAME),
    ]


def present(good: list[Any]) -> list[Bad]:
    """Names of some datapoints that are there."""
    fine = {"too few": FINE, "none at all": FINE, "too many": UnknownDocidError}
    return [(name, value, fine.get(name, comes)) for name, value, comes in docids(good)]


def path(good: Any) -> list[Bad]:
    """Where something is."""
    folder = Path(tempfile.mkdtemp())
    (folder / "file").write_bytes(b"no index")
    (folder / "empty").mkdir()
    return [
        ("nowhere", folder / "nowhere", IndexFormatError),
        ("an empty folder", folder / "empty", IndexFormatError),
        ("another file", folder / "file", IndexFormatError),
        ("below a file", folder / "file" / "below", IndexFormatError),
        ("a NUL", f"{folder}/a\0b", SwannError),
        ("too long", folder / ("x" * 5000), OSError),
        ("nothing", "", ConfigError),
        ("None", None, ConfigError),
        ("3", 3, ConfigError),
        ("NaN", NAN, ConfigError),
        ("an array", np.zeros(2), ConfigError),
        ("a string", str(good), SAME),
    ]


def target(good: Any) -> list[Bad]:
    """Where something is written."""
    return [(n, v, c) for n, v, c in path(good) if c is ConfigError or n == "a NUL"]


def config(good: Any) -> list[Bad]:
    """Settings, as an object."""
    return [
        ("a dict", {"num_neighbors": 3}, ConfigError),
        ("a string", "cosine", ConfigError),
        ("3", 3, ConfigError),
        ("True", True, ConfigError),
        ("the class", type(good), ConfigError),
    ]


def settings(good: dict[str, Any]) -> list[Bad]:
    """Settings, as a dict."""
    return [
        ("None", None, ConfigError),
        ("a list", [1], ConfigError),
        ("a string", "{}", ConfigError),
        ("an unknown one", good | {"unknown": 1}, ConfigError),
        ("a key that is none", good | {3: 1}, ConfigError),
        ("values of None", dict.fromkeys(good), FINE),
        ("values of NaN", dict.fromkeys(good, NAN), FINE),
        ("values of lists", {key: [1] for key in good}, ConfigError),
        ("values of objects", {key: object() for key in good}, ConfigError),
    ]


def text(good: str) -> list[Bad]:
    """A configuration text."""
    return [
        ("None", None, ConfigError),
        ("3", 3, ConfigError),
        ("bytes", good.encode(), ConfigError),
        ("empty", "", ConfigError),
        ("nonsense", "}{", ConfigError),
        ("cut", good[: len(good) // 2], ConfigError),
        ("an unknown field", good + "\nunknown: 3", ConfigError),
        ("nested", "{" * 100_000, ConfigError),
        ("JSON", '{"num_neighbors": NaN}', ConfigError),
    ]


def numbers(good: NDArray[Any]) -> list[Bad]:
    """Real numbers, of one shape."""
    return [
        *(b for b in no_numbers(good) if b[0] not in ("masked", "ragged", "set")),
        ("ragged", [[1.0, 2.0], [3.0]], SwannError),
        ("rank 3", good[None, None][..., None], SwannError),
        ("NaN", put(good.astype(np.float64), NAN), SwannError),
        ("inf", put(good.astype(np.float64), INF), SwannError),
        ("negative", -np.abs(good) - 1, SwannError),
        ("a list", good.tolist(), SAME),
        ("big-endian", good.astype(good.dtype.newbyteorder(">")), SAME),
        ("Fortran", np.asfortranarray(good), SAME),
    ]


def integers(good: NDArray[Any]) -> list[Bad]:
    """Integers from 0 on, below a limit."""
    differs = {"NaN": DTypeError, "inf": DTypeError}
    return [
        *((n, v, differs.get(n, c)) for n, v, c in numbers(good) if n not in ("a list",)),
        ("floats", good.astype(np.float64), DTypeError),
        ("huge", put(good.astype(np.int64), 2**40), SwannError),
    ]


def pairs(good: Any) -> list[Bad]:
    """Pairs of leaves and candidates to try."""
    return [
        ("None", None, ConfigError),
        ("3", 3, ConfigError),
        ("a string", "ab", ConfigError),
        ("strings", ["ab"], ConfigError),
        ("numbers", [3], ConfigError),
        ("singles", [(1,)], ConfigError),
        ("triples", [(1, 2, 3)], ConfigError),
        ("floats", [(1.5, None)], ConfigError),
        ("an array without axes", np.array(5), ConfigError),
        ("zeros", [(0, 0)], ConfigError),
        ("lists", [[1, [2]]], ConfigError),
        ("none", [], FINE),
        ("a generator", (pair for pair in good), SAME),
    ]


def size(good: int | str) -> list[Bad]:
    """Bytes of memory."""
    bad = ["", "2XB", "-1GB", "nan", "1e9", -1, 0, 2.5, None, True, [1], NAN, object(), b"2GB"]
    return [(repr(value), value, ConfigError) for value in bad]


def optional(good: Any) -> list[Bad]:
    """A path, or None."""
    values = [None, 3, NAN, b"a", [good], "a\0b", object()]
    return [(repr(value)[:20], value, ConfigError) for value in values[1:]]


def name(good: str) -> list[Bad]:
    """A name, for people."""
    values = [None, 3, NAN, b"a", [good], {"a": 1}, object()]
    return [(repr(value)[:20], value, ConfigError) for value in values]


def ends(good: tuple[float, float]) -> list[Bad]:
    """The least and the greatest of something."""
    values = [None, 3, "ab", (1,), (1, 2, 3), (3, 1), (NAN, 1), ("a", "b"), (0, INF), (None, 1)]
    return [(repr(value)[:20], value, ConfigError) for value in values]


def codes(good: NDArray[np.uint8]) -> list[Bad]:
    """Packed bits."""
    return [
        *(b for b in integers(good) if b[0] not in ("big-endian", "negative", "huge", "a string")),
        ("int64", good.astype(np.int64), DTypeError),
        ("too wide", np.hstack([good, good]), ShapeError),
        ("no columns", good[:, :0], ShapeError),
        ("no rows", good[:0], FINE),
    ]


def function(good: Any) -> list[Bad]:
    """A function of scores."""
    return [
        ("3", 3, ConfigError),
        ("a string", "constant", ConfigError),
        ("of NaN", lambda scores: scores * NAN, ConfigError),
        ("of negative numbers", lambda scores: scores * 0 - 1, ConfigError),
        ("of another shape", lambda scores: np.ones(3), ConfigError),
        ("of strings", lambda scores: "x", ConfigError),
    ]


def progress(good: Any) -> list[Bad]:
    """What is told how far the work is."""
    return [
        ("1", 1, ConfigError),
        ("a string", "tqdm", ConfigError),
        ("True", True, ConfigError),
        ("a list", [good], ConfigError),
        ("None", None, SAME),
    ]


KINDS: dict[str, Callable[[Any], list[Bad]]] = {
    made.__name__.replace("_", " "): made
    for made in (
        vectors, database, vector, count, count_or_zero, limit, number, number_or_none, choice,
        flag, precision, docids, present, path, target, config, settings, text, numbers, integers,
        codes, function, pairs, size, optional, no_numbers,
        name, ends, progress,
    )
}  # fmt: skip

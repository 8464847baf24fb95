"""Text protos: what ScaNN writes is read; anything else is a typed error with its place."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swann.compat.proto_text import Message, Name, format_text, parse_text
from swann.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("  \n\t\r\v\f# only a comment", {}),
        ("a: 1", {"a": [1]}),
        ("a:1b:2", None),
        ("a:1 b:2", {"a": [1], "b": [2]}),
        ("a: 1, b: 2; c: 3", {"a": [1], "b": [2], "c": [3]}),
        ("a: 1 a: 2 b: 3 a: 4", {"a": [1, 2, 4], "b": [3]}),
        ("a { b: 1 }", {"a": [{"b": [1]}]}),
        ("a: { b: 1 }", {"a": [{"b": [1]}]}),
        ("a{}b<>", {"a": [{}], "b": [{}]}),
        ("a < b: 1 c { d: 2 } >", {"a": [{"b": [1], "c": [{"d": [2]}]}]}),
        ("a: [1, 2.5, x]", {"a": [1, 2.5, "x"]}),
        ("a: []", {}),
        ("a [ {b: 1}, {} ]", {"a": [{"b": [1]}, {}]}),
        ("a: [ {b: 1}, {} ]", {"a": [{"b": [1]}, {}]}),
        ("a: # why\n 7", {"a": [7]}),
        ("a: -5 b: - 5 c: +5", None),
        ("a: -5 b: - 5", {"a": [-5], "b": [-5]}),
        ("a: 0x1F b: 017 c: 0 d: -0x10", {"a": [31], "b": [15], "c": [0], "d": [-16]}),
        ("a: 1. b: .5 c: 1e3", {"a": [1], "b": [0.5], "c": [1000]}),
        ("a: 2.5E-1 b: 3f c: 0F", {"a": [0.25], "b": [3], "c": [0]}),
        ("a: inf b: -Infinity c: 1e999", {"a": [math.inf], "b": [-math.inf], "c": [math.inf]}),
        ("a: 18446744073709551615 b: 18446744073709551616", {"a": [2**64 - 1], "b": [2.0**64]}),
        ("a: " + "9" * 400, {"a": [math.inf]}),
        ("a: True b: false c: FIXED8", {"a": ["True"], "b": ["false"], "c": ["FIXED8"]}),
        ("a: 'x' \"y\"\n'z'", {"a": ["xyz"]}),
        (r"""a: "q\"\\\'\n\t\?\x41\101\u00e9\U0001F600" """, {"a": ["q\"\\'\n\t?AAé😀"]}),
        (r'a: "\303\251é"', {"a": ["éé"]}),
        ('a: "# { not a comment"', {"a": ["# { not a comment"]}),
    ],
)  # fmt: skip
def test_values(text: str, expected: Message | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError):
            parse_text(text)
    else:
        assert parse_text(text) == expected


def test_kinds() -> None:
    fields = parse_text('a: KNN b: "KNN" c: 3 d: 3.0 e: 3f f: nan g: -nan')
    kinds = {name: type(value) for name, (value,) in fields.items()}
    assert kinds == {"a": Name, "b": str, "c": int, "d": float, "e": float, "f": float, "g": float}
    assert math.isnan(fields["f"][0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("a", "1, column 2", "ends here; expected ':' or '{' after a"),
        ("a:", "1, column 3", "ends here; expected a value of a"),
        ("a: 1\nb: }", "2, column 4", "found '}'; expected a value of b"),
        ("a {\n  b: 1\n", "3, column 1", "ends here; expected '}'"),
        ("a { b: 1 >", "1, column 10", "found '>'; expected '}'"),
        ("a < b: 1 }", "1, column 10", "found '}'; expected '>'"),
        ("a: 1 }", "1, column 6", "found '}'"),
        ("a: 1\n\n  ?", "3, column 3", r"'\?' has no meaning here"),
        ("a: 1\n\n  é: 2", "3, column 3", "'é' has no meaning here"),
        ("1: 2", "1, column 1", "found '1'; expected the name of a field"),
        ("a: 'x\n'", "1, column 4", "a string does not end on its line"),
        ("a: 'x", "1, column 4", "a string does not end on its line"),
        (r"a: 'xy\q'", "1, column 7", r"unknown escape \\q"),
        (r"a: 'xy\777'", "1, column 7", r"\\777 is more than a byte"),
        (r"a: '\U00110000'", "1, column 5", r"no character U\+110000"),
        (r"a: '\ud800'", "1, column 5", "half a surrogate pair"),
        ("a: '\ud800'", "1, column 4", "half a surrogate pair"),
        (r"a: '\xff'", "1, column 4", "not UTF-8"),
        (r"a: '\x'", "1, column 5", r"unknown escape \\x"),
        ("a: 1.2.3", "1, column 4", "no number"),
        ("a: 12x", "1, column 4", "no number"),
        ("a: 0x", "1, column 4", "no number"),
        ("a: 08", "1, column 4", "octal"),
        ("a: -x", "1, column 5", "found 'x'; expected a value"),
        ("a: -'x'", "1, column 5", "expected a value"),
        ("a: " + "1" * 401, "1, column 4", "401 characters"),
        ("a: [1, ]", "1, column 8", "expected a value"),
        ("a: [1 2]", "1, column 7", "expected a value, or ','"),
        ("a: [1", "1, column 6", "ends here"),
        ("a: [[1]]", "1, column 5", "expected a value"),
        ("a [1]", "1, column 4", "messages in a list without ':'"),
        ("a: 1,, b: 2", "1, column 6", "found ','"),
        ("[ext.name]: 1", "1, column 1", "expected the name of a field"),
        ("a {" * 51 + "}" * 51, "1, column 154", "more than 50 deep"),
        ("a <" * 50_000, "1, column 154", "more than 50 deep"),
    ],
)  # fmt: skip
def test_errors_name_their_place(text: str, place: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"^text proto, line {place}: .*{what}"):
        parse_text(text)


def test_limits() -> None:
    assert parse_text("a {" * 50 + "}" * 50)
    assert len(parse_text("a: 1 " * 200_000)["a"]) == 200_000
    with pytest.raises(ConfigError, match=r"1,048,577 characters; expected at most 1,048,576"):
        parse_text(" " * (2**20 + 1))
    for bad in (None, b"a: 1", 7):
        with pytest.raises(ConfigError, match="expected str"):
            parse_text(bad)  # type: ignore[arg-type]


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
SCALARS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    NAMES.filter(lambda name: name.lower() not in ("nan", "inf", "infinity")).map(Name),
    st.integers(-(2**64) + 1, 2**64 - 1),
    st.floats(),
)
MESSAGES = st.recursive(
    st.dictionaries(NAMES, st.lists(SCALARS, min_size=1, max_size=3), max_size=4),
    lambda inner: st.dictionaries(
        NAMES, st.lists(SCALARS | inner, min_size=1, max_size=3), max_size=4
    ),
    max_leaves=8,
)


def normal(value: Any) -> Any:
    """Return the value with whole floats as ints, which is how they are written."""
    if isinstance(value, dict):
        return {name: [normal(v) for v in values] for name, values in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


@given(MESSAGES)
def test_what_is_written_is_read_back(message: dict[str, list[Any]]) -> None:
    text = format_text(message)
    again = parse_text(text)
    assert text.isascii()
    assert repr(normal(again)) == repr(normal(message))  # as NaN differs from itself


PIECES = st.sampled_from([*"{}<>[]:,;-.#'\"\\ \n\t0159aexF_é", "nan", "a: ", "a {", "0x", "\\x4"])


@given(st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)))
@example("\x00")
@example("a: 'é\\")
def test_any_text_is_a_dict_or_a_config_error(text: str) -> None:
    try:
        fields = parse_text(text)
    except ConfigError:
        return
    assert isinstance(fields, dict)
    assert all(isinstance(values, list) and values for values in fields.values())

"""The tables of docs/trust.md, from the figures in docs/trust/."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks.trust.experiment import PUBLISHED
from benchmarks.trust.worker import OUTCOMES

PAGE = PUBLISHED.with_suffix(".md")
_BEGIN, _END = "<!-- {}: written by python -m benchmarks.trust --page -->\n", "<!-- end -->\n"
ALWAYS = ("refused", "same", "different", "untyped", "crash", "hang")


def _full_disk(found: dict[str, int]) -> str:
    names = {"old": "the old index stands", "new": "the new one stands", "lost": "no index is left"}
    said = found.get("and said nothing", 0)
    parts = [
        f"{names.get(left, left)}: {n}" for left, n in found.items() if left != "and said nothing"
    ]
    return "; ".join(parts) + (f"; {said} without an error" if said else "")


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("version", lambda f: f["version"] or "this tree"),
    ("index", lambda f: f["index"]),
    ("damaged: refused by an exception", lambda f: str(f["damage"]["refused"])),
    ("damaged: the same answers", lambda f: str(f["damage"]["same"])),
    ("damaged: **other answers, silently**", lambda f: str(f["damage"]["different"])),
    ("damaged: **process crashed**", lambda f: str(f["damage"]["crash"])),
    ("damaged: **hung** (2 s of CPU time)", lambda f: str(f["damage"]["hang"])),
    ("damaged: **MemoryError** (1 GB)", lambda f: str(f["damage"]["memory"])),
    ("batch with a NaN", lambda f: f["NaN query"]),
    ("Ctrl-C in a build: heard after", lambda f: f["Ctrl-C"]),
    ("10 saves over a good index, disk full", lambda f: _full_disk(f["full disk"])),
)


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Return the table, a column a library."""
    lines = [f"| | {' | '.join(figures)} |", "|---" * (len(figures) + 1) + "|"]
    for title, cell in _ROWS:
        lines.append(f"| {title} | {' | '.join(cell(f) for f in figures.values())} |")
    return "\n".join(lines) + "\n"


def outcomes(figures: dict[str, Any]) -> str:
    """Return what came of damage, a row a lane."""
    counts = figures["outcomes"]
    names = [
        name for name in OUTCOMES if name in ALWAYS or any(c.get(name) for c in counts.values())
    ]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for lane, found in counts.items():
        lines.append(f"| {lane} | {' | '.join(f'{found[name]:,}' for name in names)} |")
    return "\n".join(lines) + "\n"


def write() -> None:
    """Put the tables into the page."""
    text = PAGE.read_text()
    for name, make in (("damage", outcomes), ("peers", table)):
        figures = json.loads((PUBLISHED / f"{name}.json").read_text())["figures"]
        before, rest = text.split(_BEGIN.format(name))
        _, after = rest.split(_END, 1)
        text = before + _BEGIN.format(name) + "\n" + make(figures) + "\n" + _END + after
    PAGE.write_text(text)

"""Processor time of this process and of all that it has started, as Linux counts it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def processor_seconds() -> dict[str, float]:
    """Return the seconds by the name of the program; those that have ended are not in it."""
    parents: dict[int, int] = {}
    used: dict[int, tuple[str, float]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # it has ended meanwhile
            text = (folder / "stat").read_text()
            name, fields = text[text.index("(") + 1 : text.rindex(")")], text.rsplit(")", 1)[1]
            _, parent, *rest = fields.split()
            pid, ticks = int(folder.name), int(rest[9]) + int(rest[10])
            parents[pid] = int(parent)
            used[pid] = name, ticks / os.sysconf("SC_CLK_TCK")
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    seconds: dict[str, float] = {}
    for pid in ours & used.keys():
        name, some = used[pid]
        name = "this process" if pid == os.getpid() else name
        seconds[name] = seconds.get(name, 0.0) + some
    return seconds

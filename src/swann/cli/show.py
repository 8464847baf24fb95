"""What the command line prints: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from swann.evaluate import OperatingPoint
from swann.index.disk.log_files import log_files
from swann.index.disk.manifest import MANIFEST
from swann.index.disk.store import is_array_file
from swann.searcher import Searcher

__all__ = [
    "curve",
    "disk_size",
    "in_bytes",
    "index",
    "neighbors",
    "progress",
    "say",
    "waiting",
    "warn",
]

_ROWS_SHOWN = 10
_SHARD_FILE = re.compile(r"shard-[0-9a-f]{16}\.json")


def say(text: str) -> None:
    """Print plain text."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a line of warning to stderr."""
    Console(stderr=True).print(f"swann: {text}", markup=False, highlight=False, soft_wrap=True)


def waiting(text: str) -> AbstractContextManager[object]:
    """Show that something goes on that cannot say how far it is."""
    return Console(stderr=True).status(text)


class progress:
    """Bars for stages that report ``(stage, done, total)``, one bar a stage.

    Nothing is drawn where stderr is not a terminal.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def update(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()


def neighbors(indices: NDArray[Any], distances: NDArray[np.float32]) -> None:
    """Print the neighbors of the first queries; where no terminal reads it, a line for each of all.

    Such a line has the query, the neighbor and its distance, with tabs between them.
    """
    if not Console().is_terminal:
        for query, (ids, row) in enumerate(zip(indices, distances, strict=True)):
            for i, x in _found(ids, row):
                print(query, _in_a_line(i), f"{x:.9g}", sep="\t")
        return
    table = Table("query", "neighbors (distance)")
    for query in range(min(len(indices), _ROWS_SHOWN)):
        some = _found(indices[query], distances[query])
        table.add_row(str(query), Text("  ".join(f"{i} ({x:.4g})" for i, x in some)))
    Console().print(table)
    if len(indices) > _ROWS_SHOWN:
        say(f"... and {len(indices) - _ROWS_SHOWN:,} queries more; --out writes all of them")


def _in_a_line(docid: object) -> str:
    """Return a docid, as JSON writes it if it has tabs, or what ends a line."""
    text = str(docid)
    return text if text.isprintable() else json.dumps(text)


def _found(ids: NDArray[Any], distances: NDArray[np.float32]) -> list[tuple[Any, np.float32]]:
    there = ~np.isnan(distances)
    return list(zip(ids[there], distances[there], strict=True))


def curve(
    points: Sequence[OperatingPoint], k: int, threads: int, queries: int, own: int | None
) -> None:
    """Print a speed-recall curve as a table; `own` marks the leaves of the index's default."""
    table = Table(
        "leaves to search",
        f"recall {k}@{k}",
        "us a query, one at a time",
        f"us a query, in a batch on {threads} thread{'s' * (threads > 1)}",
        title=f"{queries:,} queries",
        caption=None if own is None else "* what the index searches by default",
    )
    for column in table.columns:
        column.justify = "right"
    for point in points:
        leaves = point.leaves_to_search
        table.add_row(
            "-" if leaves is None else f"{'* ' * (leaves == own)}{leaves:,}",
            f"{point.recall:.4f}",
            f"{point.single_microseconds:,.1f}",
            f"{point.batched_microseconds:,.1f}",
        )
    Console().print(table)


def index(searcher: Searcher, path: Path) -> None:
    """Print the settings, the sizes and the files of an index."""
    settings = Table("setting", "value", title=str(path))
    settings.add_row("datapoints", f"{searcher.num_datapoints:,}")
    settings.add_row("dimensions", f"{searcher.dimension:,}")
    for name, value in _flatten(searcher.config.to_dict()):
        settings.add_row(name, value)
    sizes = Table("file", "size")
    sizes.columns[1].justify = "right"
    for file in _files(path):
        name = file.name if file == path else str(file.relative_to(path))
        sizes.add_row(name, in_bytes(file.stat().st_size))
    sizes.add_row("total", disk_size(path))
    Console().print(settings, sizes)


def disk_size(path: Path) -> str:
    """Return what a file, or the files of a directory, take, for a reader."""
    return in_bytes(sum(file.stat().st_size for file in _files(path)))


def _files(path: Path) -> list[Path]:
    """Return the files of an index; others may lie beside them."""
    if path.is_file():
        return [path]
    logs = {file for _, file in log_files(path)}
    return sorted(file for file in path.iterdir() if file in logs or _is_of_index(file.name))


def _is_of_index(name: str) -> bool:
    return name == MANIFEST or is_array_file(name) or _SHARD_FILE.fullmatch(name) is not None


def _flatten(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in settings.items():
        if isinstance(value, dict):
            rows += _flatten(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, "none" if value is None else str(value)))
    return rows


def in_bytes(count: float) -> str:
    """Return a number of bytes for a reader."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.2f} GB"

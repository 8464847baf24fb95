"""What several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swann.config import ReorderType
from swann.errors import ConfigError

__all__ = [
    "VECTORS",
    "IndexArgument",
    "Leaves",
    "PreReorder",
    "Threads",
    "check_precision",
    "place",
]


def place(text: str) -> Path:
    """Return a path that was given; none stands for the current directory by being empty."""
    if not text:
        raise typer.BadParameter("it is empty; expected a path, as . for the current directory")
    return Path(text)


VECTORS = ".npy, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin, or file.hdf5:key"
IndexArgument = Annotated[
    Path,
    typer.Argument(help="Directory or .swann file of an index.", metavar="INDEX", parser=place),
]
Leaves = Annotated[int | None, typer.Option(help="Leaves to visit; the index's own by default.")]
PreReorder = Annotated[int | None, typer.Option(help="Candidates to score exactly.")]
Threads = Annotated[int | None, typer.Option(help="Threads to use; all cores by default.")]


def check_precision(given: str) -> ReorderType:
    """Return what --quantize names, in capitals or not."""
    if given.upper() not in ReorderType.__members__:
        names = ", ".join(ReorderType.__members__)
        raise ConfigError(f"--quantize is {given!r}; expected one of {names}")
    return ReorderType[given.upper()]

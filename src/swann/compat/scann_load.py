"""The door to indexes that ScaNN serialized. What reads them is imported when it is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from swann.config import check_path
from swann.errors import ConfigError, CorruptIndexError, IndexFormatError, InvalidInputError
from swann.index.docids import Docids, check_docids
from swann.index.state import State
from swann.searcher import Searcher

__all__ = ["is_scann_directory", "load_scann"]

_DOCIDS_FILE = "scann_docids.pkl"


def is_scann_directory(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory looks like one that ScaNN serialized an index to."""
    root = Path(directory)
    return any((root / name).is_file() for name in ("scann_config.pb", "scann_assets.pbtxt"))


def load_scann(
    directory: str | os.PathLike[str],
    *,
    docids: Literal["refuse", "strings", "ignore"] = "refuse",
) -> Searcher:
    """Open an index that ScaNN 1.4.2 serialized.

    The searcher answers as ScaNN's does, up to the rounding of lookup tables, and can be saved
    with `Searcher.serialize`. ``docs/migration.md`` says what differs.

    Parameters
    ----------
    directory : path
        Where ScaNN's ``searcher.serialize`` wrote, or where that directory was moved. Everything
        is read into memory; the files are not needed afterwards.
    docids : {"refuse", "strings", "ignore"}
        What to do where ScaNN saved docids, which it pickles. ``"strings"`` reads strings (or
        ints), also NumPy's, without unpickling: nothing in the file is executed, and a pickle of
        anything else is refused. ``"ignore"`` leaves them out: searches return row numbers.

    Returns
    -------
    Searcher

    Raises
    ------
    IndexFormatError
        If the directory holds no index of ScaNN, one that swann has no counterpart of (the
        message says what), or docids and no word of what to do with them, or docids that swann
        cannot have: strings and ints in one list, ints below 0, one of them twice.
    CorruptIndexError
        If a file is missing or damaged.
    ConfigError
        If `docids` is none of its values.
    """
    if not isinstance(docids, str) or docids not in ("refuse", "strings", "ignore"):
        raise ConfigError(f"docids is {docids!r}; expected 'refuse', 'strings' or 'ignore'")
    # Reading takes many tables; a program that opens no such index need not wait for them.
    from swann.compat.scann_files import ScannFiles
    from swann.compat.scann_index import read_index

    files = ScannFiles(check_path("directory", directory))
    pickled = files.root / _DOCIDS_FILE
    if not pickled.is_file():
        return Searcher(read_index(files))
    if docids == "refuse":
        raise IndexFormatError(
            f"{files.root} has docids in {_DOCIDS_FILE}, and unpickling a file may run any "
            "program. Pass docids='strings' to read them as plain strings, without "
            "unpickling, or docids='ignore' to get row numbers"
        )
    names = _read_docids(pickled) if docids == "strings" else None
    index = read_index(files)
    if names is not None and len(names) != index.num_datapoints:
        raise CorruptIndexError(
            f"{pickled} has {len(names)} docids for {index.num_datapoints} datapoints"
        )
    return Searcher(State.of(index, names))


def _read_docids(path: Path) -> Docids:
    from swann.compat.safe_docids import read_docids

    docids = read_docids(path)
    try:
        return Docids(check_docids(docids, str(path)))
    except InvalidInputError as error:  # ScaNN takes any list
        raise IndexFormatError(
            f"{error}. Pass docids='ignore' to swann.load_scann to get row numbers"
        ) from error

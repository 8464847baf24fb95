"""All that a build reads, as one matrix that is read in spans."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.config import check_path
from swann.errors import DTypeError, InvalidInputError, ShapeError
from swann.sources.arrow import ARROW_SUFFIXES, ArrowPart
from swann.sources.parts import ArrayPart, FilePart, Part
from swann.tensors import is_bfloat16
from swann.vectors import as_database

__all__ = ["Sources"]

_HEADER = 256  # of a spooled file; room for any shape
_NO_CHUNKS = (list, tuple, np.ndarray, str, bytes, bytearray, memoryview, dict, set, frozenset)
_MAGIC = b"\x93NUMPY\x01\x00"


class Sources:
    """Parts in their order, as one matrix. Pickles as paths where all parts are files.

    Parameters
    ----------
    parts : list of Part
        Of one dimension.

    Raises
    ------
    ShapeError
        If their dimensions differ.
    InvalidInputError
        If there are no rows.
    """

    def __init__(self, parts: list[Part]) -> None:
        self.parts = [part for part in parts if part.num_rows]
        if not self.parts:
            names = ", ".join(part.name for part in parts[:3]) or "no file"
            raise InvalidInputError(f"there is nothing to read: {names} with no row in it")
        first = self.parts[0]
        for part in self.parts:
            if part.dimension != first.dimension:
                raise ShapeError(
                    f"{part.name} has {part.dimension} dimensions, but {first.name} has "
                    f"{first.dimension}"
                )
        self.dimension = first.dimension
        self._starts = [0, *np.cumsum([part.num_rows for part in self.parts]).tolist()]
        self.num_rows = self._starts[-1]
        kinds = {part.dtype for part in self.parts}
        self.dtype = first.dtype
        if len(kinds) > 1:
            if any(is_bfloat16(kind) for kind in kinds):
                raise DTypeError("some sources are bfloat16 and some are not; expected one dtype")
            self.dtype = np.result_type(*kinds)

    @classmethod
    def of(cls, given: object, spool: Path | None = None) -> Sources:
        """Open what a user names.

        Parameters
        ----------
        given : path, array, list of either, or iterable of arrays
            Paths may be patterns (``part-*.npy``), whose files are read in the order of their
            names, and name a column or an array (``file.parquet:column``, ``file.hdf5:train``).
            An iterable gives chunks of shape (m, d), and is read once.
        spool : Path, optional
            A directory for the chunks of an iterable.

        Raises
        ------
        InvalidInputError, ShapeError, DTypeError
            If something cannot be read as vectors; the file is named.
        MissingExtraError
            If a file needs a library that is not installed.
        """
        if isinstance(given, Sources):
            return given
        folder = None if spool is None else check_path("spool", spool)
        if isinstance(given, (str, os.PathLike)):
            return cls([_open(path) for path in _expand(given)])
        if isinstance(given, (list, tuple)) and given:
            if all(isinstance(one, (str, os.PathLike)) for one in given):
                return cls([_open(path) for one in given for path in _expand(one)])
            if all(getattr(one, "ndim", 0) == 2 for one in given):
                named = [(f"db[{i}]", one) for i, one in enumerate(given)]
                parts = [ArrayPart(as_database(a, n, allow_empty=True), n) for n, a in named]
                return cls([*parts])
        lazy = isinstance(given, Iterable) and not isinstance(given, _NO_CHUNKS)
        if lazy and not hasattr(given, "__array__") and not hasattr(given, "__dlpack__"):
            if folder is None:
                raise InvalidInputError("chunks of an iterable need a directory to be kept in")
            return cls([_spooled(given, folder)])  # type: ignore[arg-type]
        return cls([ArrayPart(as_database(given))])

    @property
    def in_files(self) -> bool:
        """Whether other processes can read all of it."""
        return not any(isinstance(part, ArrayPart) for part in self.parts)

    def in_memory_kept(self, spool: Path) -> Sources:
        """Return the same, with arrays in memory written to files."""
        parts: list[Part] = []
        for part in self.parts:
            if isinstance(part, ArrayPart):
                step = max(1, (1 << 22) // part.dimension)
                starts = range(0, part.num_rows, step)
                part = _spooled((part.read(i, i + step) for i in starts), spool)
            parts.append(part)
        return Sources(parts)

    def read(self, first: int, last: int) -> NDArray[Any]:
        """Return rows in the sources' own dtype; of one file, a view where it is mapped."""
        pieces = [self.parts[i].read(a, b) for i, a, b in self._pieces(first, last)]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces, dtype=self.dtype)

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """Cut all rows into spans of at most so many, at the ends of files where that suits.

        Small files come together; those that are longer are cut at their row groups, if these are
        small enough, or evenly.
        """
        cuts, begin = [0], 0
        for start, part in zip(self._starts, self.parts, strict=False):
            end = start + part.num_rows
            if end - begin > rows:
                cuts.append(start)
                begin = start
            if part.num_rows <= rows:
                continue
            for low, high in pairwise([0, *part.cuts, part.num_rows]):
                if start + high - begin > rows:
                    cuts.append(start + low)
                    begin = start + low
                if high - low > rows:
                    pieces = -(-(high - low) // rows)
                    cuts += [start + low + (high - low) * i // pieces for i in range(pieces + 1)]
                    begin = start + high
            cuts.append(end)
            begin = end
        cuts.append(self.num_rows)
        return [*pairwise(sorted(set(cuts)))]

    def fingerprint_of(self, first: int, last: int) -> str:
        """Return a digest of what some rows are read from.

        It changes when a file does (path, size, time) or a value in memory.
        """
        told = [[self.parts[i].fingerprint(), a, b] for i, a, b in self._pieces(first, last)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def part_of(self, first: int, last: int) -> Sources:
        """Return sources of the files alone that these rows are in, for one who reads no others."""
        numbers = [i for i, _, _ in self._pieces(first, last)]
        some = Sources.__new__(Sources)
        some.__dict__.update(self.__dict__)
        kept = [p if i in numbers else _Absent(p) for i, p in enumerate(self.parts)]
        some.parts = [*kept]
        return some

    def pieces(self, first: int, last: int) -> Iterator[tuple[Part, int, int]]:
        """Return the parts that rows are in, with the first and the last of them there."""
        for number, low, high in self._pieces(first, last):
            yield self.parts[number], low, high

    def start(self, part: Part) -> int:
        """Return the number of the first row of a part."""
        return int(self._starts[self.parts.index(part)])

    def _pieces(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        number = bisect_right(self._starts, first) - 1
        while first < last:
            start, end = self._starts[number], min(last, self._starts[number + 1])
            yield number, first - start, end - start
            first, number = end, number + 1


def _expand(where: str | os.PathLike[str]) -> list[str]:
    text = os.fspath(where)
    head, colon, key = text.rpartition(":")
    if not colon or not Path(head).suffix:
        head, colon, key = text, "", ""
    if not glob.has_magic(head) or Path(head).exists():
        return [text]
    found = sorted(glob.glob(head, recursive=True))
    if not found:
        raise InvalidInputError(f"{head}: no file has such a name")
    return [path + colon + key for path in found]


def _open(where: str) -> Part:
    head, colon, column = where.rpartition(":")
    path, key = (Path(head), column or None) if colon else (Path(where), None)
    if path.suffix.lower() in ARROW_SUFFIXES:
        return ArrowPart(path, key)
    if Path(where).suffix.lower() in ARROW_SUFFIXES:
        return ArrowPart(Path(where), None)
    return FilePart(where)


def _spooled(chunks: Iterable[object], folder: Path) -> FilePart:
    """Write chunks to a .npy file that is named by their content."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"spool-{os.getpid()}.tmp"
    digest = hashlib.sha256()
    rows, dimension, dtype = 0, 0, np.dtype(np.float32)
    try:
        with open(temporary, "wb") as file:
            file.write(bytes(_HEADER))
            for number, given in enumerate(chunks):
                chunk = as_database(given, f"chunk {number}", allow_empty=True)
                if is_bfloat16(chunk.dtype):
                    chunk = chunk.astype(np.float32)
                if not rows:
                    dimension, dtype = chunk.shape[1], chunk.dtype
                if chunk.shape[1] != dimension:
                    raise ShapeError(
                        f"chunk {number} has {chunk.shape[1]} dimensions, but those before it have "
                        f"{dimension}"
                    )
                if not np.can_cast(chunk.dtype, dtype, "safe"):
                    raise DTypeError(
                        f"chunk {number} has dtype {chunk.dtype}, which does not fit into the "
                        f"{dtype} of those before it"
                    )
                data = np.ascontiguousarray(chunk, dtype).view(np.uint8).data
                digest.update(data)
                file.write(data)
                rows += len(chunk)
            if not rows:
                raise InvalidInputError("there is nothing to read: no chunk has a row in it")
            shape = (rows, dimension)
            head = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
            length = _HEADER - len(_MAGIC) - 2
            file.seek(0)
            file.write(_MAGIC + length.to_bytes(2, "little"))
            file.write(head.encode().ljust(length - 1) + b"\n")
        digest.update(f"{dtype.str} {rows} {dimension}".encode())
        target = folder / f"spool-{digest.hexdigest()[:32]}.npy"
        if target.exists():  # of a build that was stopped: whole, since it is named
            temporary.unlink()
        else:
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return FilePart(str(target))


class _Absent:
    """Keeps the place of a part that is not needed."""

    def __init__(self, part: Part) -> None:
        self.name, self.num_rows, self.dimension = part.name, part.num_rows, part.dimension
        self.dtype, self.cuts = part.dtype, part.cuts

    def read(self, first: int, last: int) -> NDArray[Any]:
        raise AssertionError(self.name)

    def fingerprint(self) -> list[Any]:
        raise AssertionError(self.name)

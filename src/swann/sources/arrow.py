"""Columns of Parquet, Arrow and Feather files; needs the extra [arrow].

A column holds a list of numbers a row, all of one length: ``fixed_size_list`` or ``list``. It is
read a row group, or a record batch, at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.errors import (
    DTypeError,
    InvalidInputError,
    MissingExtraError,
    ShapeError,
    SwannError,
)
from swann.sources.parts import file_fingerprint

__all__ = ["ARROW_SUFFIXES", "ArrowPart"]

ARROW_SUFFIXES = (".parquet", ".arrow", ".feather")
_BATCH_VALUES = 1 << 22


class ArrowPart:
    """A column of a file.

    Parameters
    ----------
    path : Path
        The file.
    column : str or None
        The only column of lists of numbers, unless named.

    Raises
    ------
    InvalidInputError, ShapeError, DTypeError
        If the file is none, or has no such column.
    MissingExtraError
        If pyarrow is not installed.
    """

    def __init__(self, path: Path, column: str | None) -> None:
        if not path.is_file():
            raise InvalidInputError(f"{path}: no such file")
        self._path = path
        self._parquet = path.suffix.lower() == ".parquet"
        self._file: Any = None
        with _reading(path):
            self._look(column)
        if self.num_rows and not self.dimension:
            raise ShapeError(f"{self.name}: row 0 is empty or null; expected numbers")

    def _look(self, column: str | None) -> None:
        file = self._opened()
        schema = file.schema_arrow if self._parquet else file.schema
        self._column = _chosen(schema, column, self._path)
        self.name = f"{self._path}:{self._column}"
        if self._parquet:
            groups = range(file.metadata.num_row_groups)
            sizes = [file.metadata.row_group(i).num_rows for i in groups]
        else:
            sizes = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        self._ends = [int(end) for end in np.cumsum(sizes)]
        self.num_rows = self._ends[-1] if sizes else 0
        self.cuts = self._ends[:-1]
        kind = _storage(schema.field(self._column).type)
        self.dtype = np.dtype(kind.value_type.to_pandas_dtype())
        self.dimension = getattr(kind, "list_size", 0)
        if not self.dimension and self.num_rows:
            first = next(self._batches(0, 1))
            self.dimension = len(first.flatten()) if first.null_count == 0 else 0

    def read(self, first: int, last: int) -> NDArray[Any]:
        """Return rows."""
        out = np.empty((last - first, self.dimension), self.dtype)
        done = 0
        with _reading(self._path):
            for column in self._batches(first, last):
                rows = self._rows(column, first + done)
                out[done : done + len(rows)] = rows
                done += len(rows)
        if done != len(out):
            raise InvalidInputError(f"{self.name} ends at row {first + done}; expected {last}")
        return out

    def fingerprint(self) -> list[Any]:
        """Return the file's, and the column."""
        return [*file_fingerprint(self._path), self._column]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def _opened(self) -> Any:
        if self._file is None:
            self._file = _open(self._path, self._parquet)
        return self._file

    def _batches(self, first: int, last: int) -> Iterator[Any]:
        """Return pieces of the column, together these rows."""
        file, group = self._opened(), bisect_right(self._ends, first)
        while first < last:
            begin = self._ends[group - 1] if group else 0
            for batch in self._of_group(file, group):
                length = len(batch)
                low, high = max(first - begin, 0), min(last - begin, length)
                if low < high:
                    yield batch.slice(low, high - low)
                begin += length
                if begin >= last:
                    break
            first, group = max(first, self._ends[group]), group + 1

    def _of_group(self, file: Any, group: int) -> Iterator[Any]:
        if not self._parquet:
            yield file.get_batch(group).column(file.schema.get_field_index(self._column))
            return
        rows = max(1, _BATCH_VALUES // max(1, self.dimension))
        for batch in file.iter_batches(rows, row_groups=[group], columns=[self._column]):
            yield batch.column(0)

    def _rows(self, column: Any, start: int) -> NDArray[Any]:
        column = getattr(column, "storage", column)
        column.validate()  # offsets of a damaged file may lead anywhere
        if column.null_count:
            row = start + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise InvalidInputError(f"{self.name}: row {row} is null; expected numbers")
        if not hasattr(column.type, "list_size"):
            lengths = np.diff(column.offsets.to_numpy())
            other = np.flatnonzero(lengths != self.dimension)
            if len(other):
                row = int(other[0])
                raise ShapeError(
                    f"{self.name}: row {start + row} has {lengths[row]} numbers, but row 0 has "
                    f"{self.dimension}"
                )
        values = column.flatten()
        if values.null_count:
            place = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            row = start + place // self.dimension
            raise InvalidInputError(f"{self.name}: row {row} holds a null; expected numbers")
        rows: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return rows.reshape(-1, self.dimension)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Make errors of pyarrow, which are of many kinds where a file is damaged, name the file."""
    try:
        yield
    except SwannError:
        raise
    except Exception as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from error


def _open(path: Path, parquet: bool) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(f"{path} needs pyarrow: pip install 'swann[arrow]'") from error
    try:
        if parquet:
            return pq.ParquetFile(path, memory_map=True)
        try:
            return pa.ipc.open_file(pa.memory_map(str(path)))
        except pa.ArrowInvalid:
            return _Stream(pa.ipc.open_stream(pa.memory_map(str(path))))
    except (pa.ArrowException, OSError) as error:
        kind = "a Parquet" if parquet else "an Arrow"
        raise InvalidInputError(f"{path} is not {kind} file: {error}") from error


class _Stream:
    """An Arrow stream, in the words of an Arrow file."""

    def __init__(self, reader: Any) -> None:
        self._batches = list(reader)  # of mapped memory, unless compressed
        self.schema = reader.schema
        self.num_record_batches = len(self._batches)

    def get_batch(self, number: int) -> Any:
        return self._batches[number]


def _storage(kind: Any) -> Any:
    return getattr(kind, "storage_type", kind)


def _is_vectors(kind: Any) -> bool:
    import pyarrow.types as types

    kind = _storage(kind)
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not lists:
        return False
    return bool(types.is_integer(kind.value_type) or types.is_floating(kind.value_type))


def _chosen(schema: Any, column: str | None, path: Path) -> str:
    found: list[str] = [field.name for field in schema if _is_vectors(field.type)]
    if column is not None:
        if column not in schema.names:
            raise InvalidInputError(
                f"{path} has no column {column!r}; it has: {', '.join(schema.names) or 'none'}"
            )
        if column not in found:
            raise DTypeError(
                f"{path}: column {column!r} is of {schema.field(column).type}; expected lists of "
                "numbers"
            )
        return column
    if len(found) != 1:
        raise InvalidInputError(
            f"{path} has {len(found)} columns of lists of numbers"
            f"{': ' + ', '.join(found) if found else ''}; name one as {path.name}:column"
        )
    return found[0]

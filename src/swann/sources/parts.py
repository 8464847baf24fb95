"""Arrays and files, each a part of what a build reads."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from swann.errors import InvalidInputError
from swann.files import Location, locate, read_array, with_hdf5
from swann.vectors import PageReleaser, as_database

__all__ = ["ArrayPart", "FilePart", "Part", "file_fingerprint"]

_DIGESTED = 1 << 24


class Part(Protocol):
    """Rows that lie together.

    Attributes
    ----------
    name : str
        What errors call it.
    num_rows, dimension : int
        Its shape.
    dtype : dtype
        Of the values that it returns.
    cuts : list of int
        Rows between the first and the last at which it is best cut; maybe none.
    """

    name: str
    num_rows: int
    dimension: int
    dtype: np.dtype[Any]
    cuts: list[int]

    def read(self, first: int, last: int) -> NDArray[Any]:
        """Return rows, maybe as a view of a memory map."""

    def fingerprint(self) -> list[Any]:
        """Return what changes when the content does."""


def file_fingerprint(path: Path) -> list[Any]:
    """Return what tells whether a file is still the same: path, size and time of its last change.

    Raises
    ------
    InvalidInputError
        If it is gone.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}") from None
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]


class ArrayPart:
    """An array in memory, or memory-mapped by whoever made it.

    Parameters
    ----------
    array : array of shape (n, d)
        As `swann.vectors.as_database` returns it.
    name : str
        What errors call it.
    """

    def __init__(self, array: NDArray[Any], name: str = "db") -> None:
        self.name = name
        self.array = array
        self.num_rows, self.dimension = array.shape
        self.dtype = array.dtype
        self.cuts: list[int] = []
        self._digest: str | None = None

    def read(self, first: int, last: int) -> NDArray[Any]:
        """Return a view."""
        return self.array[first:last]

    def fingerprint(self) -> list[Any]:
        """Return the shape, the dtype and a digest of all values: it is read once."""
        if self._digest is None:
            digest = hashlib.sha256()
            pages = PageReleaser(self.array)
            step = max(1, _DIGESTED // max(1, self.dimension * self.dtype.itemsize))
            for first in range(0, self.num_rows, step):
                rows = np.ascontiguousarray(self.array[first : first + step])
                digest.update(rows.view(np.uint8).data)
                pages.release()
            self._digest = digest.hexdigest()
        return [self.num_rows, self.dimension, self.dtype.str, self._digest]


class FilePart:
    """A file that `swann.files.read_array` opens: mapped, or chunked HDF5 that is read in slices.

    Pickles as its path; the file is opened where it is read.

    Parameters
    ----------
    where : str
        A path, for HDF5 with ``:key`` or without.

    Raises
    ------
    InvalidInputError, ShapeError, DTypeError
        If it is no such file, or does not hold a matrix of real numbers.
    """

    def __init__(self, where: str) -> None:
        location = locate(where)
        self.name = str(location)
        self.cuts: list[int] = []
        self._location = location
        self._array: NDArray[Any] | None = None
        self._sliced = location.is_hdf5 and bool(with_hdf5(location, _is_in_chunks))
        if self._sliced:
            shape, self.dtype = with_hdf5(location, lambda f, at: _kind(f[at.key]))
            as_database(np.empty((1, *shape[1:]), self.dtype), self.name)  # raises
            self.num_rows, self.dimension = shape
        else:
            array = self._opened()
            self.num_rows, self.dimension = array.shape
            self.dtype = array.dtype

    def _opened(self) -> NDArray[Any]:
        if self._array is None:
            self._array = as_database(read_array(str(self._location)), self.name, allow_empty=True)
        return self._array

    def read(self, first: int, last: int) -> NDArray[Any]:
        """Return a view of the map, or a slice that was read."""
        if self._sliced:
            rows: NDArray[Any] = with_hdf5(self._location, lambda f, at: f[at.key][first:last])
            return rows
        return self._opened()[first:last]

    def fingerprint(self) -> list[Any]:
        """Return the file's, and the key."""
        return [*file_fingerprint(self._location.path), self._location.key]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}


def _kind(dataset: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    return dataset.shape, dataset.dtype


def _is_in_chunks(file: Any, location: Location) -> bool:
    dataset = file.get(location.key)
    return hasattr(dataset, "dtype") and dataset.id.get_offset() is None and dataset.size > 0

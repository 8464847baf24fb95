"""An index whose arrays are made apart from each other, in a folder beside it, piece by piece."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from swann.index.disk import file_system
from swann.index.disk.contents import Entry, dtype_of, manifest_of
from swann.index.disk.lock import DirectoryLock
from swann.index.disk.manifest import encode_manifest
from swann.index.disk.npy import npy_header, read_npy
from swann.index.disk.store import place_array, place_manifest, remove_stale
from swann.index.packed import ARRAYS, PackedIndex
from swann.index.state import State

__all__ = ["commit", "is_there", "map_entry", "packed_of", "place_pieces", "place_whole"]


def place_pieces(
    root: Path,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    pieces: Iterator[NDArray[Any]],
) -> Entry:
    """Write an array that comes in pieces, under the name that its content gives it.

    Parameters
    ----------
    root : Path
        The directory.
    name : str
        Which array of an index it is.
    dtype, shape : dtype and tuple of int
        Of the whole.
    pieces : iterator of arrays
        Together the whole, cut along the first axis.
    """
    made: list[Entry] = []

    def write(file: BinaryIO) -> str:
        digest = hashlib.sha256()
        file.write(npy_header(dtype, shape))
        written = 0
        for piece in pieces:
            data = np.ascontiguousarray(piece, dtype).reshape(-1).view(np.uint8).data
            digest.update(data)
            file.write(data)
            written += len(data)
        if written != math.prod(shape) * dtype.itemsize:
            raise AssertionError(f"{name} has {written} bytes; expected {shape} of {dtype}")
        named = digest.hexdigest()
        made.append(Entry(f"{name}-{named[:16]}.npy", dtype, shape, named))
        return made[0].file

    file_system.place_file(root, name, write)
    file_system.sync_directory(root)
    return made[0]


def place_whole(root: Path, name: str, array: NDArray[Any]) -> Entry:
    """Write an array under the name that its content gives it."""
    return place_array(root, name, np.ascontiguousarray(array, dtype_of(name)))


def is_there(root: Path, entry: Entry) -> bool:
    """Whether a file is there and as long as it must be."""
    size = len(npy_header(entry.dtype, entry.shape))
    size += math.prod(entry.shape) * entry.dtype.itemsize
    try:
        return (root / entry.file).stat().st_size == size
    except OSError:
        return False


def map_entry(root: Path, entry: Entry) -> NDArray[Any]:
    """Map an array that was written."""
    return read_npy(
        file_system.map_file(root / entry.file), root / entry.file, entry.dtype, entry.shape
    )


def commit(root: Path, folder: Path, entries: dict[str, Entry], state: State) -> None:
    """Make arrays that were written to a folder the index of a directory.

    At every moment the index that was there before or the new one is there.

    Parameters
    ----------
    root : Path
        The directory.
    folder : Path
        Where the arrays are, on the same file system.
    entries : dict of str to Entry
        Arrays and docids.
    state : State
        What else the manifest tells; its arrays may be mapped.

    Raises
    ------
    LockedError
        If somebody has the directory open for changes.
    OSError
        If it cannot be written.
    """
    with DirectoryLock(root, "save"):
        file_system.remove_temporary(root)
        for entry in entries.values():
            if (folder / entry.file).exists():
                os.replace(folder / entry.file, root / entry.file)
        file_system.sync_directory(root)  # no manifest without what it lists
        place_manifest(root, encode_manifest(manifest_of(state, entries)))
        file_system.sync_directory(root)
        remove_stale(root, {entry.file for entry in entries.values()}, state.log)


def packed_of(fields: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> PackedIndex:
    """Return an index of arrays by name, and what else `PackedIndex` has."""
    own: dict[str, Any] = {name: array for name, array in arrays.items() if name in ARRAYS}
    routes = {name: array for name, array in arrays.items() if name not in ARRAYS}
    return PackedIndex(**fields, **own, routes=routes)

"""Vectors in files: ``.npy``, ``.fvecs``, ``.bvecs``, ``.ivecs``, ``.fbin`` and the like, HDF5.

===============  ==========================================================  ==============
suffix           what it holds                                               memory-mapped
===============  ==========================================================  ==============
.npy             one array                                                   yes
.fvecs           rows of int32 d, then d float32 (little-endian)             yes
.bvecs           rows of int32 d, then d uint8                               yes
.ivecs           rows of int32 d, then d int32                               yes
.fbin            uint32 n, uint32 d, then n rows of d float32                yes
.u8bin .i8bin    the same of uint8, of int8                                  yes
.hdf5 .h5 .hdf   named arrays: ``file.hdf5:train``; needs the extra [hdf5]   if contiguous
===============  ==========================================================  ==============
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann.errors import ConfigError, InvalidInputError, MissingExtraError, SwannError

__all__ = [
    "Location",
    "check_output",
    "hdf5_distance_measure",
    "locate",
    "read_array",
    "read_docids",
    "user_cache",
    "with_hdf5",
    "write_neighbors",
    "write_whole",
]

_HDF5_SUFFIXES = (".hdf5", ".h5", ".hdf")
_VECS_DTYPES = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
_BIN_DTYPES = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1"}
_OUTPUT_SUFFIXES = (".npz", ".npy", ".ivecs")
_SUFFIXES = (".npy", *_VECS_DTYPES, *_BIN_DTYPES, *_HDF5_SUFFIXES)
# Rows of .fvecs and the like whose header is compared with the first one's.
_HEADERS_TO_CHECK = 4096

# What the ann-benchmarks files call their distances.
_HDF5_DISTANCES = {
    "angular": "cosine",
    "cosine": "cosine",
    "euclidean": "squared_l2",
    "dot": "dot_product",
    "ip": "dot_product",
}


class Location(NamedTuple):
    """A file, and for HDF5 the name of an array in it."""

    path: Path
    key: str | None

    @property
    def is_hdf5(self) -> bool:
        """Whether the file is HDF5, by its suffix."""
        return self.path.suffix.lower() in _HDF5_SUFFIXES

    def __str__(self) -> str:
        return f"{self.path}:{self.key}" if self.key else str(self.path)


def locate(where: str | os.PathLike[str], default_key: str = "train") -> Location:
    """Split ``file.hdf5:key`` and check that the file is there and of a known kind.

    Parameters
    ----------
    where : str or path
        A path, for HDF5 with ``:key`` at its end or without.
    default_key : str
        The key where none is given.

    Raises
    ------
    InvalidInputError
        If there is no such file, or its suffix is unknown.
    """
    text = os.fspath(where)
    path, key = Path(text), None
    head, colon, tail = text.rpartition(":")
    if colon and Path(head).suffix.lower() in _HDF5_SUFFIXES:
        path, key = Path(head), tail or None
    location = Location(path, key)
    if location.is_hdf5 and key is None:
        location = Location(path, default_key)
    if path.suffix.lower() not in _SUFFIXES:
        raise InvalidInputError(
            f"{path} has the suffix {path.suffix!r}; expected one of {', '.join(_SUFFIXES)}"
        )
    _check_file(path)
    return location


def _check_file(path: Path) -> None:
    if not path.is_file():
        why = "not a file, but a directory or the like" if path.exists() else "no such file"
        raise InvalidInputError(f"{path}: {why}")


def read_docids(path: Path) -> list[str] | NDArray[Any]:
    """Return the docids of a file: an array of integers or strings in a ``.npy``, else its lines.

    Raises
    ------
    InvalidInputError
        If there is no such file, or it is not UTF-8.
    """
    _check_file(path)
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not text in UTF-8: {error}") from error
    # Other separators of Unicode may stand in a name.
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def read_array(where: str | os.PathLike[str], default_key: str = "train") -> NDArray[Any]:
    """Open the array of a file, memory-mapped and read-only where that is possible.

    Parameters
    ----------
    where : str or path
        A path with one of the suffixes above, for HDF5 with ``:key`` at its end or without.
    default_key : str
        The HDF5 array where no key is given.

    Returns
    -------
    ndarray
        In the file's own dtype and byte order.

    Raises
    ------
    InvalidInputError
        If there is no such file, or it does not hold what its suffix says.
    MissingExtraError
        If it is HDF5 and h5py is not installed.
    """
    location = locate(where, default_key)
    suffix = location.path.suffix.lower()
    if location.path.stat().st_size == 0:
        raise InvalidInputError(f"{location.path} is empty")
    if suffix == ".npy":
        return _read_npy(location.path)
    if suffix in _VECS_DTYPES:
        return _read_vecs(location.path, np.dtype(_VECS_DTYPES[suffix]))
    if suffix in _BIN_DTYPES:
        return _read_bin(location.path, np.dtype(_BIN_DTYPES[suffix]))
    values: NDArray[Any] = with_hdf5(location, _read_dataset)
    return values


def hdf5_distance_measure(location: Location) -> str | None:
    """Return the distance measure that an ann-benchmarks file names, if it names one."""
    if not location.is_hdf5:
        return None
    name = with_hdf5(location, lambda file, _: file.attrs.get("distance"))
    if isinstance(name, bytes):
        name = name.decode("ascii", "replace")
    return _HDF5_DISTANCES.get(str(name))


def check_output(path: Path) -> None:
    """Check, before the work, that `write_neighbors` will know what to write, and where.

    Raises
    ------
    InvalidInputError
        If the suffix is not .npz, .npy or .ivecs, or there is no such directory.
    """
    if path.suffix.lower() not in _OUTPUT_SUFFIXES:
        raise InvalidInputError(
            f"{path} has the suffix {path.suffix!r}; expected one of {', '.join(_OUTPUT_SUFFIXES)}"
        )
    if not os.path.isdir(path.parent):
        raise InvalidInputError(f"{path} cannot be written: {path.parent} is no directory")
    if path.is_dir():
        raise InvalidInputError(f"{path} cannot be written: it is a directory")
    if not os.access(path.parent, os.W_OK):  # it is written beside, and put in its place
        raise InvalidInputError(f"{path} cannot be written: {path.parent} cannot be written to")


def write_neighbors(path: Path, indices: NDArray[Any], distances: NDArray[np.float32]) -> None:
    """Write what a batched search returned.

    Parameters
    ----------
    path : Path
        ``.npz`` takes both arrays by their names; ``.npy`` and ``.ivecs`` take the indices.
    indices : int64 array of shape (nq, k), or of dtype object
        Row ids or docids. Strings are written as NumPy's own, "" for None.
    distances : float32 array of shape (nq, k)
        Their distances.

    Raises
    ------
    InvalidInputError
        If the suffix is another, or ids do not fit into the int32 of ``.ivecs``.
    """
    check_output(path)
    suffix = path.suffix.lower()
    if indices.dtype == object:
        if suffix == ".ivecs":
            raise InvalidInputError(f"{path}: docids that are strings do not fit into .ivecs")
        indices = np.where(indices == None, "", indices).astype(np.str_)  # noqa: E711
    if suffix == ".npz":
        write_whole(path, lambda file: np.savez(file, indices=indices, distances=distances))
    elif suffix == ".npy":
        write_whole(path, lambda file: np.save(file, indices))
    else:
        if indices.size and indices.max() > np.iinfo(np.int32).max:
            raise InvalidInputError(f"{path}: ids over 2**31 - 1 do not fit into .ivecs; use .npy")
        rows = np.empty((indices.shape[0], indices.shape[1] + 1), "<i4")
        rows[:, 0] = indices.shape[1]
        rows[:, 1:] = indices
        write_whole(path, rows.tofile)


def user_cache() -> Path:
    """Return where swann keeps what it can make or fetch again: ``$XDG_CACHE_HOME/swann``.

    ``~/.cache/swann`` where that variable is not set.

    Raises
    ------
    ConfigError
        If this user has no home directory either.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swann"
    except RuntimeError as error:
        raise ConfigError(
            "XDG_CACHE_HOME is not set, and this user has no home directory; set it"
        ) from error


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place and put it there in one step: it is never there in part.

    Parameters
    ----------
    path : Path
        Its place; a file that is there is replaced.
    write : callable
        Writes to the file that it is given.

    Raises
    ------
    OSError
        If it cannot be written; it is named, not the one beside it.
    """
    beside = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            write(file)
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        if not error.errno:  # NumPy tells what it could not write, but not why
            raise OSError(f"{path} cannot be written: {error}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def _read_npy(path: Path) -> NDArray[Any]:
    with open(path, "rb") as file:
        begin = file.read(6)
    if begin[:4] == b"PK\x03\x04":  # an .npz under another name
        raise InvalidInputError(f"{path} is not a .npy file but an archive of several")
    if begin != b"\x93NUMPY":
        raise InvalidInputError(f"{path} is not a .npy file: it does not begin as one does")
    try:
        loaded: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy has Python parse the header, which fails in many ways
        raise InvalidInputError(_what_is_wrong(path)) from error
    return loaded


def _what_is_wrong(path: Path) -> str:
    """Say why NumPy cannot map a .npy file; its own words are for those who call it."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            one = version == (1, 0)
            read = (
                np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
            expected = file.tell() + math.prod(shape) * dtype.itemsize
    except Exception:  # as above
        return f"{path} is damaged: its header cannot be read"
    if dtype.hasobject:
        return f"{path} holds Python objects (dtype {dtype}); expected an array of numbers"
    if size < expected:
        return (
            f"{path} has {size:,} bytes; expected {expected:,} of shape {shape} and dtype {dtype}: "
            "it is cut off"
        )
    return f"{path} cannot be mapped: it says that it has shape {shape} and dtype {dtype}"


def _read_vecs(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    raw = np.memmap(path, np.uint8, mode="r")
    dimension = int(raw[:4].view("<i4")[0]) if raw.size >= 4 else 0
    row_bytes = 4 + dimension * dtype.itemsize
    if dimension < 1 or raw.size % row_bytes:
        raise InvalidInputError(
            f"{path} has {raw.size:,} bytes and says that its first row has {dimension} "
            f"dimensions; expected a whole number of rows of 4 + dimensions * {dtype.itemsize} "
            "bytes"
        )
    rows = raw.reshape(-1, row_bytes)
    step = max(1, len(rows) // _HEADERS_TO_CHECK)
    headers = np.ascontiguousarray(rows[::step, :4]).view("<i4")[:, 0]
    different = np.flatnonzero(headers != dimension)
    if different.size:
        row = int(different[0]) * step
        raise InvalidInputError(
            f"{path}: row {row} has {headers[different[0]]} dimensions, but row 0 has {dimension}"
        )
    values: NDArray[Any] = rows[:, 4:].view(dtype)
    return values


def _read_bin(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    size = path.stat().st_size
    head = np.fromfile(path, "<u4", 2)
    rows, dimension = (int(head[0]), int(head[1])) if len(head) == 2 else (0, 0)
    if size != 8 + rows * dimension * dtype.itemsize:
        raise InvalidInputError(
            f"{path} has {size:,} bytes and says that it holds {rows:,} rows of {dimension:,} "
            f"dimensions; expected 8 + rows * dimensions * {dtype.itemsize} bytes"
        )
    if not rows * dimension:
        raise InvalidInputError(f"{path} says that it holds {rows} rows of {dimension} dimensions")
    return np.memmap(path, dtype, "r", 8, (rows, dimension))


def with_hdf5(location: Location, use: Callable[[Any, Location], Any]) -> Any:
    """Return what `use` makes of an open HDF5 file; errors are those of `read_array`."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(
            f"{location.path} is HDF5, which needs h5py: pip install 'swann[hdf5]'"
        ) from error
    try:
        file = h5py.File(location.path, "r")
    except OSError as error:
        raise InvalidInputError(f"{location.path} is not an HDF5 file: {error}") from error
    try:
        with file:
            return use(file, location)
    except SwannError:
        raise
    except Exception as error:  # h5py's own are of many kinds where a file is damaged
        raise InvalidInputError(f"{location} cannot be read: {error}") from error


def _read_dataset(file: Any, location: Location) -> NDArray[Any]:
    dataset = file.get(location.key)
    if not hasattr(dataset, "dtype"):
        present = ", ".join(sorted(name for name in file if hasattr(file[name], "dtype")))
        raise InvalidInputError(
            f"{location.path} has no array {location.key!r}; it has: {present or 'none'}"
        )
    offset = dataset.id.get_offset()
    if offset is not None and dataset.dtype.kind in "fiu" and dataset.size:
        # Stored in one piece: map it, rather than read it all.
        return np.memmap(location.path, dataset.dtype, "r", offset, dataset.shape)
    values: NDArray[Any] = dataset[()]
    return values

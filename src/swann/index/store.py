"""An index on disk: a directory of immutable array files under one small manifest.

::

    directory/
      manifest.json               what there is: version, config, shapes, dtypes, digests
      codes-3f2a91c05d7be846.npy  one plain .npy file an array, named by its content
      ...

Array files are written and flushed first; the manifest, replaced in one step, then makes them the
index. Until that moment the index that was there before is whole. Nothing is unpickled, and every
size is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swann.config import AHConfig, IndexConfig, ReorderType
from swann.errors import ConfigError, CorruptIndexError, FormatVersionError, IndexFormatError
from swann.index.packed import ARRAYS, PackedIndex, ranks_by_reach

__all__ = ["FORMAT_VERSION", "Verify", "load_index", "save_index"]

FORMAT_VERSION = 1
"""Of the layout on disk. A reader refuses versions that it does not know."""

Verify = Literal["manifest", "full"]

_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_PIECE = 1 << 24
_LARGEST = float(np.finfo(np.float32).max)


def save_index(index: PackedIndex, directory: str | os.PathLike[str]) -> None:
    """Write an index, replacing the one that `directory` may hold.

    Parameters
    ----------
    index : PackedIndex
        What to save.
    directory : path
        Made if it is missing.

    Raises
    ------
    OSError
        If the disk is full or the directory cannot be written; what was there is still whole.
    """
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    present = {path.name for path in root.iterdir()}
    entries: dict[str, dict[str, Any]] = {}
    try:
        for name, array in index.arrays().items():
            entries[name] = _write_array(root, name, array)
        _replace(root / _MANIFEST, json.dumps(_manifest_of(index, entries), indent=1).encode())
    except BaseException:
        for entry in entries.values():
            if entry["file"] not in present:
                (root / entry["file"]).unlink(missing_ok=True)
        raise
    _sync_directory(root)
    _remove_stale(root, {entry["file"] for entry in entries.values()})


def load_index(directory: str | os.PathLike[str], *, verify: Verify = "manifest") -> PackedIndex:
    """Open an index; its arrays are memory-mapped.

    Parameters
    ----------
    directory : path
        Where `save_index` wrote it, or where that directory was moved.
    verify : {"manifest", "full"}
        ``"full"`` reads all of the arrays to check their digests.

    Returns
    -------
    PackedIndex

    Raises
    ------
    FormatVersionError
        If it was written by a newer version.
    CorruptIndexError
        If something is missing, or is not what the manifest says.
    IndexFormatError
        If the directory holds no index.
    """
    if verify not in ("manifest", "full"):
        raise ConfigError(f"verify is {verify!r}; expected 'manifest' or 'full'")
    root = Path(directory)
    content = _read_manifest(root)
    try:
        config = IndexConfig.from_dict(content["config"])
        numbers = {key: _natural(content, key) for key in ("num_datapoints", "dimension")}
        scalars = {key: _number(content, key) for key in ("correction_low", "correction_span")}
        if scalars["correction_span"] < 0:
            raise ValueError(f"correction_span is {scalars['correction_span']}")
        described = dict(content["arrays"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptIndexError(f"{root / _MANIFEST} is not a valid manifest: {error}") from error
    expected = _expected_shapes(config, **numbers)
    if set(described) != set(expected):
        raise CorruptIndexError(
            f"{root / _MANIFEST} lists arrays {sorted(described)}; its config needs "
            f"{sorted(expected)}"
        )
    arrays = {
        name: _map_array(root, name, described[name], expected[name], verify) for name in expected
    }
    entries = len(arrays["entry_rows"]) if "entry_rows" in arrays else numbers["num_datapoints"]
    _check_leaf_starts(root, arrays["leaf_starts"], entries)
    try:
        return PackedIndex(config=config, **numbers, **scalars, **arrays)  # type: ignore[arg-type]
    except ValueError as error:
        raise CorruptIndexError(f"the arrays of {root} do not fit together: {error}") from error


# ---- Writing


def _manifest_of(index: PackedIndex, entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "format": "swann",
        "version": FORMAT_VERSION,
        "features": [],
        "config": index.config.to_dict(),
        "num_datapoints": index.num_datapoints,
        "dimension": index.dimension,
        "correction_low": index.correction_low,
        "correction_span": index.correction_span,
        "arrays": entries,
    }
    return content | {"digest": _digest_of_json(content)}


def _writer() -> str:
    """Name this process and thread, for temporary files that no other writer uses."""
    return f"{os.getpid()}-{threading.get_ident()}"


def _write_array(root: Path, name: str, array: NDArray[Any]) -> dict[str, Any]:
    stored = np.ascontiguousarray(array, dtype=ARRAYS[name])
    temporary = root / f".{name}-{_writer()}.tmp"
    digest = hashlib.sha256()
    try:
        with open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, np.lib.format.header_data_from_array_1_0(stored)
            )
            data = stored.reshape(-1).view(np.uint8)
            for begin in range(0, len(data), _PIECE):
                piece = data[begin : begin + _PIECE]
                digest.update(piece.data)
                file.write(piece.data)
            file.flush()
            os.fsync(file.fileno())
        target = f"{name}-{digest.hexdigest()[:16]}.npy"
        os.replace(temporary, root / target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return {
        "file": target,
        "dtype": stored.dtype.str,
        "shape": list(stored.shape),
        "sha256": digest.hexdigest(),
    }


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}-{_writer()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_directory(root: Path) -> None:
    if os.name != "posix":
        return  # directories cannot be opened there; the rename itself is durable enough
    handle = os.open(root, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_stale(root: Path, kept: set[str]) -> None:
    """Remove array files of indexes that stood here before."""
    for name in ARRAYS:
        for path in root.glob(f"{name}-{'[0-9a-f]' * 16}.npy"):
            if path.name not in kept:
                path.unlink(missing_ok=True)


# ---- Reading


def _digest_of_json(content: dict[str, Any]) -> str:
    kept = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _read_manifest(root: Path) -> dict[str, Any]:
    path = root / _MANIFEST
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise IndexFormatError(
            f"{root} holds no index: there is no {_MANIFEST} in it; expected a directory that "
            "Searcher.serialize wrote"
        ) from None
    if len(data) > _MAX_MANIFEST_BYTES:
        raise CorruptIndexError(f"{path} is over {_MAX_MANIFEST_BYTES} bytes: not a manifest")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptIndexError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != "swann":
        raise IndexFormatError(f"{path} is not a manifest of swann")
    version, features = content.get("version"), content.get("features")
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{path} has format version {version!r}; this swann reads version {FORMAT_VERSION}. "
            "Open it with the swann that wrote it, or build the index again"
        )
    if features != []:
        raise FormatVersionError(
            f"{path} needs features {features!r} that this swann does not have; a newer one may"
        )
    if content.get("digest") != _digest_of_json(content):
        raise CorruptIndexError(f"{path} is damaged: its digest does not match its content")
    return content


def _natural(content: dict[str, Any], key: str) -> int:
    value = content[key]
    if type(value) is not int or not 1 <= value < 2**32:
        raise ValueError(f"{key} is {value!r}")
    return value


def _number(content: dict[str, Any], key: str) -> float:
    value = content[key]
    if type(value) is not float or not abs(value) <= _LARGEST:
        raise ValueError(f"{key} is {value!r}")
    return value


def _expected_shapes(
    config: IndexConfig, num_datapoints: int, dimension: int
) -> dict[str, tuple[int | None, ...]]:
    """Arrays that an index of this config has, and their shapes (None: any length)."""
    shapes: dict[str, tuple[int | None, ...]] = {"leaf_starts": (None,)}
    if config.tree is not None:
        shapes |= {"ids": (num_datapoints,), "centroids": (None, dimension)}
        if config.tree.soar_lambda is not None:
            shapes["entry_rows"] = (None,)
        if ranks_by_reach(config):
            shapes["spreads"] = (None,)
    if isinstance(config.score, AHConfig):
        blocks = -(-dimension // config.score.dimensions_per_block)
        shapes |= {"codes": (None, blocks, 16), "codebook": (dimension, 16)}
        if config.tree is not None and config.distance_measure == "squared_l2":
            shapes["corrections"] = (None,)
    exact = config.reorder if isinstance(config.score, AHConfig) else config.score
    if exact is not None:
        match exact.quantize:
            case ReorderType.FLOAT32:
                shapes["rows"] = (num_datapoints, dimension)
            case ReorderType.BFLOAT16:
                shapes["rows_bf16"] = (num_datapoints, dimension)
            case ReorderType.INT8:
                shapes["rows_i8"] = (num_datapoints, dimension)
                shapes["row_scales"] = (num_datapoints,)
                if config.distance_measure == "squared_l2":
                    shapes["row_squares"] = (num_datapoints,)
    return shapes


def _map_array(
    root: Path, name: str, entry: object, expected: tuple[int | None, ...], verify: Verify
) -> NDArray[Any]:
    try:
        file, digest = entry["file"], entry["sha256"]  # type: ignore[index]
        shape = tuple(entry["shape"])  # type: ignore[index]
        dtype = entry["dtype"]  # type: ignore[index]
        named = f"{name}-{digest[:16]}.npy"
    except (KeyError, TypeError) as error:
        raise CorruptIndexError(f"the manifest of {root} describes {name} badly") from error
    path = root / named
    if file != named or dtype != ARRAYS[name].str or not _matches(shape, expected):
        raise CorruptIndexError(
            f"the manifest of {root} gives {name} as {dtype} {shape} in {file!r}; expected "
            f"{ARRAYS[name].str} of shape {expected} in {named!r}"
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, IsADirectoryError):
        raise CorruptIndexError(f"{path} is missing") from None
    except (ValueError, EOFError, OverflowError) as error:
        raise CorruptIndexError(f"{path} is damaged: {error}") from error
    if array.dtype != ARRAYS[name] or array.shape != shape or not array.flags.c_contiguous:
        raise CorruptIndexError(
            f"{path} holds {array.dtype} of shape {array.shape}; its manifest says {dtype} of "
            f"shape {shape}"
        )
    size = array.offset + array.nbytes
    if path.stat().st_size != size:
        raise CorruptIndexError(f"{path} has {path.stat().st_size} bytes; expected {size}")
    if verify == "full" and _digest_of_array(array) != digest:
        raise CorruptIndexError(f"{path} is damaged: its digest does not match the manifest")
    native: NDArray[Any] = array.view(np.ndarray)
    return native if native.dtype.isnative else native.astype(native.dtype.newbyteorder("="))


def _matches(shape: tuple[object, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        type(size) is int and size >= 0 and (wanted is None or size == wanted)
        for size, wanted in zip(shape, expected, strict=True)
    )


def _digest_of_array(array: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    if array.size:
        data = np.asarray(array).reshape(-1).view(np.uint8)
        for begin in range(0, len(data), _PIECE):
            digest.update(data[begin : begin + _PIECE].data)
    return digest.hexdigest()


def _check_leaf_starts(root: Path, starts: NDArray[Any], entries: int) -> None:
    ordered = len(starts) >= 2 and starts[0] == 0 and starts[-1] == entries
    if not ordered or bool((starts[1:] < starts[:-1]).any()):
        raise CorruptIndexError(f"leaf_starts of {root} does not run from 0 to {entries}")

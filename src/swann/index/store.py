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
import re
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swann.config import AHConfig, IndexConfig
from swann.errors import ConfigError, CorruptIndexError, FormatVersionError, IndexFormatError
from swann.index.docids import Docids, Kind
from swann.index.packed import ARRAYS, PackedIndex, ranks_by_reach, unprojected_dim
from swann.index.routes import route_dtype, route_shapes
from swann.index.rows import row_shapes
from swann.index.state import State
from swann.kernels import block_bytes

__all__ = ["FORMAT_VERSION", "Verify", "holds_index", "load_state", "save_state"]

FORMAT_VERSION = 1
"""Of the layout on disk. A reader refuses versions that it does not know."""

Verify = Literal["manifest", "full"]

# Features that an index may need beyond version 1; a reader refuses those it does not know.
_PLAIN_CODES = "plain_codes"  # a tree's codes are of whole datapoints, not of residuals
_LUT256 = "lut256"  # codes of 8 bits
_ROW_IDS = "row_ids"  # numbers of datapoints do not run from 0 to n, or not in the order of rows
_DOCIDS = "docids"  # datapoints have names
_PLAN = "plan"  # a rebalance builds something else than what is there
_PROJECTED = "projected"  # the centroids and codes have a dimension of their own
_FEATURES = (_PLAIN_CODES, _LUT256, _ROW_IDS, _DOCIDS, _PLAN, _PROJECTED)

_DOCID_ARRAYS: dict[str, np.dtype[Any]] = {
    "docid_ints": np.dtype("<i8"),
    "docid_bytes": np.dtype("u1"),  # UTF-8, one after the other
    "docid_ends": np.dtype("<u8"),  # in docid_bytes
}
_DTYPES: dict[str, np.dtype[Any]] = ARRAYS | _DOCID_ARRAYS
_ARRAY_FILE = re.compile(r"(\w+)-[0-9a-f]{16}\.npy")
_MAX_NUMBER = 2**32 - 1

_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_PIECE = 1 << 24
_LARGEST = float(np.finfo(np.float32).max)


def save_state(state: State, directory: str | os.PathLike[str]) -> None:
    """Write an index, replacing the one that `directory` may hold.

    Parameters
    ----------
    state : State
        What to save; its index has no changes that are not folded in.
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
        for name, array in (state.packed.arrays() | _docid_arrays(state.docids)).items():
            entries[name] = _write_array(root, name, array)
        _replace(root / _MANIFEST, json.dumps(_manifest_of(state, entries), indent=1).encode())
    except BaseException:
        for entry in entries.values():
            if entry["file"] not in present:
                (root / entry["file"]).unlink(missing_ok=True)
        raise
    _sync_directory(root)
    _remove_stale(root, {entry["file"] for entry in entries.values()})


def load_state(directory: str | os.PathLike[str], *, verify: Verify = "manifest") -> State:
    """Open an index; its arrays are memory-mapped. Docids are read into memory.

    Parameters
    ----------
    directory : path
        Where `save_state` wrote it, or where that directory was moved.
    verify : {"manifest", "full"}
        ``"full"`` reads all of the arrays to check their digests.

    Returns
    -------
    State

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
        features = content["features"]
        config = IndexConfig.from_dict(content["config"])
        plan = IndexConfig.from_dict(content["plan"]) if _PLAN in features else config
        n, dimension = _natural(content, "num_datapoints", 0), _natural(content, "dimension", 1)
        next_number = _natural(content, "next_number", n) if _ROW_IDS in features else n
        scalars = {key: _number(content, key) for key in ("correction_low", "correction_span")}
        if _DOCIDS in features and next_number != n:
            raise ValueError(f"next_number is {next_number} for {n} datapoints with docids")
        if scalars["correction_span"] < 0:
            raise ValueError(f"correction_span is {scalars['correction_span']}")
        described = dict(content["arrays"])
        reduced_dim = _reduced_dim(config, dimension, described.get("projection"))
    except (LookupError, TypeError, ValueError) as error:
        raise CorruptIndexError(f"{root / _MANIFEST} is not a valid manifest: {error}") from error
    expected = _expected_shapes(config, features, n, dimension, reduced_dim)
    if config.tree is not None and config.tree.spherical and "spreads" not in described:
        expected.pop("spreads", None)  # those of older versions had none
    if "projection" in described:
        expected["projection"] = (reduced_dim, dimension)
    names = _expected_docids(described, n) if _DOCIDS in features else {}
    if set(described) != set(expected) | set(names):
        raise CorruptIndexError(
            f"{root / _MANIFEST} lists arrays {sorted(described)}; its config needs "
            f"{sorted(expected)}"
        )
    arrays = {
        name: _map_array(root, name, described[name], shape, verify)
        for name, shape in (expected | names).items()
    }
    docids = _docids_of(root, arrays) if _DOCIDS in features else None
    arrays = {name: arrays[name] for name in expected}
    entries = len(arrays["entry_rows"]) if "entry_rows" in arrays else n
    _check_leaf_starts(root, arrays["leaf_starts"], entries)
    if "ids" in arrays and n and int(arrays["ids"].max()) >= next_number:
        raise CorruptIndexError(f"ids of {root} are not all below {next_number}")
    try:
        residual = _PLAIN_CODES not in features
        own = {name: array for name, array in arrays.items() if name in ARRAYS}
        routes = {name: array for name, array in arrays.items() if name not in ARRAYS}
        kept: dict[str, Any] = {**scalars, **own, "residual": residual, "routes": routes}
        packed = PackedIndex(config, num_datapoints=n, dimension=dimension, **kept)
    except ValueError as error:
        raise CorruptIndexError(f"the arrays of {root} do not fit together: {error}") from error
    return State(packed, docids, next_number, plan)


def holds_index(directory: str | os.PathLike[str]) -> bool:
    """Whether there is an index of swann's, whole or not."""
    return (Path(directory) / _MANIFEST).exists()


# ---- Writing


def _manifest_of(state: State, entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    index = state.packed
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
    if not index.residual:
        content["features"].append(_PLAIN_CODES)
    if index.projects:
        content["features"].append(_PROJECTED)
    if isinstance(index.config.score, AHConfig) and index.config.score.codewords == 256:
        content["features"].append(_LUT256)
    if state.numbered:
        content["features"].append(_ROW_IDS)
        content["next_number"] = state.next_number
    if state.docids is not None:
        content["features"].append(_DOCIDS)
    if state.plan != index.config:
        content["features"].append(_PLAN)
        content["plan"] = state.plan.to_dict()
    return content | {"digest": _digest_of_json(content)}


def _docid_arrays(docids: Docids | None) -> dict[str, NDArray[Any]]:
    if docids is None or docids.kind is None:  # an index that never had one has no arrays
        return {}
    listed = docids.tolist()
    if docids.kind == "int":
        return {"docid_ints": np.array(listed, np.int64)}
    # Lone surrogates, which some file names hold, survive.
    encoded = [docid.encode("utf-8", "surrogatepass") for docid in listed]
    ends = np.cumsum([len(docid) for docid in encoded], dtype=np.uint64)
    return {"docid_bytes": np.frombuffer(b"".join(encoded), np.uint8), "docid_ends": ends}


def _writer() -> str:
    """Name this process and thread, for temporary files that no other writer uses."""
    return f"{os.getpid()}-{threading.get_ident()}"


def _write_array(root: Path, name: str, array: NDArray[Any]) -> dict[str, Any]:
    stored = np.ascontiguousarray(array, dtype=_dtype_of(name))
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
    for path in root.glob("*.npy"):
        named = _ARRAY_FILE.fullmatch(path.name)
        ours = named is not None and (named[1] in _DTYPES or route_dtype(named[1]) is not None)
        if ours and path.name not in kept:
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
    if not isinstance(features, list) or any(name not in _FEATURES for name in features):
        raise FormatVersionError(
            f"{path} needs features {features!r} that this swann does not have; a newer one may"
        )
    if content.get("digest") != _digest_of_json(content):
        raise CorruptIndexError(f"{path} is damaged: its digest does not match its content")
    return content


def _natural(content: dict[str, Any], key: str, least: int) -> int:
    value = content[key]
    if type(value) is not int or not least <= value <= _MAX_NUMBER:
        raise ValueError(f"{key} is {value!r}")
    return value


def _number(content: dict[str, Any], key: str) -> float:
    value = content[key]
    if type(value) is not float or not abs(value) <= _LARGEST:
        raise ValueError(f"{key} is {value!r}")
    return value


def _reduced_dim(config: IndexConfig, dimension: int, basis: object) -> int:
    """Return the dimension of the centroids and codes, given the manifest's entry of a basis."""
    asked = config.projection
    config.check_dimension(dimension)
    if basis is None:
        if config.projects and asked is not None and asked.kind == "pca" and asked.reduction_dim:
            raise ValueError("there is no projection")
        return unprojected_dim(config, dimension)
    if asked is None or asked.kind != "pca" or not config.projects:
        raise ValueError("there is a projection that the config does not ask for")
    reduced_dim = basis["shape"][0]  # type: ignore[index]
    if reduced_dim != (asked.reduction_dim or reduced_dim) or not 1 <= reduced_dim <= dimension:
        raise ValueError(f"projection has {reduced_dim!r} rows")
    return int(reduced_dim)


def _expected_shapes(
    config: IndexConfig,
    features: list[str],
    num_datapoints: int,
    dimension: int,
    reduced_dim: int,
) -> dict[str, tuple[int | None, ...]]:
    """Arrays that an index of this config has, and their shapes (None: any length)."""
    shapes: dict[str, tuple[int | None, ...]] = {"leaf_starts": (None,)}
    residual = _PLAIN_CODES not in features
    if _ROW_IDS in features:
        shapes["ids"] = (num_datapoints,)
    if config.tree is not None:
        shapes |= {"ids": (num_datapoints,), "centroids": (None, reduced_dim)}
        if config.tree.soar_lambda is not None:
            shapes["entry_rows"] = (None,)
        if ranks_by_reach(config):
            shapes["spreads"] = (None,)
        shapes |= route_shapes(config, reduced_dim)
    if isinstance(config.score, AHConfig):
        blocks = -(-reduced_dim // config.score.dimensions_per_block)
        codewords = config.score.codewords
        shapes |= {
            "codes": (None, blocks, block_bytes(codewords)),
            "codebook": (reduced_dim, codewords),
        }
        if residual and config.tree is not None and config.distance_measure == "squared_l2":
            shapes["corrections"] = (None,)
    exact = config.reorder if isinstance(config.score, AHConfig) else config.score
    if exact is not None:
        shapes |= row_shapes(exact.quantize, num_datapoints, dimension, config.distance_measure)
    return shapes


def _expected_docids(described: dict[str, Any], count: int) -> dict[str, tuple[int | None, ...]]:
    if count == 0 and not described.keys() & _DOCID_ARRAYS.keys():
        return {}
    if "docid_ints" in described:
        return {"docid_ints": (count,)}
    return {"docid_bytes": (None,), "docid_ends": (count,)}


def _docids_of(root: Path, arrays: dict[str, NDArray[Any]]) -> Docids:
    """Read docids back; they are unique, and ints are not negative."""
    kind: Kind | None = "int" if "docid_ints" in arrays else "str"
    if "docid_ints" in arrays:
        listed = arrays["docid_ints"].tolist()
        sound = all(docid >= 0 for docid in listed)
    elif "docid_ends" not in arrays:
        kind, listed, sound = None, [], True
    else:
        data, ends = arrays["docid_bytes"].tobytes(), arrays["docid_ends"].tolist()
        starts = [0, *ends[:-1]] if ends else []
        sound = all(a <= b for a, b in zip(starts, ends, strict=True))
        sound = sound and (ends[-1] if ends else 0) == len(data)
        try:
            pairs = zip(starts, ends, strict=True) if sound else ()
            listed = [data[a:b].decode("utf-8", "surrogatepass") for a, b in pairs]
        except UnicodeDecodeError:
            sound = False
    if not sound or len(set(listed)) < len(listed):
        raise CorruptIndexError(f"the docids of {root} are damaged")
    return Docids(listed, kind)


def _dtype_of(name: str) -> np.dtype[Any]:
    return route_dtype(name) or _DTYPES[name]


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
    if file != named or dtype != _dtype_of(name).str or not _matches(shape, expected):
        raise CorruptIndexError(
            f"the manifest of {root} gives {name} as {dtype} {shape} in {file!r}; expected "
            f"{_dtype_of(name).str} of shape {expected} in {named!r}"
        )
    try:
        array, begin = _open_array(path, shape)
    except (FileNotFoundError, IsADirectoryError):
        raise CorruptIndexError(f"{path} is missing") from None
    except OSError:
        raise
    except Exception as error:  # of a bad header, NumPy raises whatever its parser did
        raise CorruptIndexError(f"{path} is damaged: {error}") from error
    if array.dtype != _dtype_of(name) or array.shape != shape or not array.flags.c_contiguous:
        raise CorruptIndexError(
            f"{path} holds {array.dtype} of shape {array.shape}; its manifest says {dtype} of "
            f"shape {shape}"
        )
    size = begin + array.nbytes
    if path.stat().st_size != size:
        raise CorruptIndexError(f"{path} has {path.stat().st_size} bytes; expected {size}")
    if verify == "full" and _digest_of_array(array) != digest:
        raise CorruptIndexError(f"{path} is damaged: its digest does not match the manifest")
    native: NDArray[Any] = array.view(np.ndarray)
    return native if native.dtype.isnative else native.astype(native.dtype.newbyteorder("="))


def _open_array(path: Path, shape: tuple[int, ...]) -> tuple[NDArray[Any], int]:
    """Map an array file; return the array and where it begins in the file."""
    if all(shape):
        array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r")
        return array, array.offset
    with open(path, "rb") as file:  # nothing cannot be mapped
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("its header is of another version")
        found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if found != shape or fortran:
            raise ValueError(f"its shape is {found}")
        return np.empty(shape, dtype), file.tell()


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

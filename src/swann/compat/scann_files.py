"""The files of an index that ScaNN serialized: which there are, and their bytes.

``scann_assets.pbtxt`` lists them with their paths. The paths may be of another machine, or of a
place that the directory has left; all that counts is the file's name, within the directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.compat.proto_text import Name, parse_text
from swann.errors import ConfigError, CorruptIndexError, IndexFormatError
from swann.index.disk.file_system import open_plain

__all__ = ["CONFIG_FILE", "ScannFiles"]

CONFIG_FILE = "scann_config.pb"
_ASSETS_FILE = "scann_assets.pbtxt"

# Kinds of assets and the names that ScaNN gives them, which count where no list is.
_KINDS = {
    "AH_CENTERS": "ah_codebook.pb",
    "PARTITIONER": "serialized_partitioner.pb",
    "TOKENIZATION_NPY": "datapoint_to_token.npy",
    "AH_DATASET_NPY": "hashed_dataset.npy",
    "AH_DATASET_SOAR_NPY": "hashed_dataset_soar.npy",
    "DATASET_NPY": "dataset.npy",
    "INT8_DATASET_NPY": "int8_dataset.npy",
    "INT8_MULTIPLIERS_NPY": "int8_multipliers.npy",
    "INT8_NORMS_NPY": "dp_norms.npy",
    "BF16_DATASET_NPY": "bfloat16_dataset.npy",
}
_NUMBERS = {
    7: "AH_CENTERS",
    8: "PARTITIONER",
    9: "DATASET_NPY",
    10: "INT8_DATASET_NPY",
    11: "AH_DATASET_NPY",
    12: "TOKENIZATION_NPY",
    13: "INT8_MULTIPLIERS_NPY",
    14: "INT8_NORMS_NPY",
    15: "BF16_DATASET_NPY",
    16: "AH_DATASET_SOAR_NPY",
}

_MAX_TEXT = 1 << 20
_MAX_MESSAGE = 1 << 31  # protobuf's own limit


def _map_array(path: Path) -> NDArray[Any]:
    """Map a .npy file that holds one array and nothing after it; nothing is unpickled."""
    try:
        with open_plain(path) as file:  # a pipe would keep us waiting
            size = os.fstat(file.fileno()).st_size
        array = np.lib.format.open_memmap(path, mode="r")
    except CorruptIndexError:
        raise
    except OSError:
        raise CorruptIndexError(f"{path} is missing, or cannot be read") from None
    except Exception as error:  # of a bad header, NumPy raises whatever its parser did
        raise CorruptIndexError(f"{path} is damaged: {error}") from error
    if size != array.offset + array.nbytes:
        raise CorruptIndexError(f"{path} has {size} bytes; expected {array.offset + array.nbytes}")
    return array.view(np.ndarray)


class ScannFiles:
    """The files of one directory.

    Parameters
    ----------
    directory : path
        Where ScaNN serialized an index to.

    Raises
    ------
    IndexFormatError
        If it holds no such index, or one with assets of a kind that swann does not read.
    CorruptIndexError
        If the list of assets is damaged.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.root = Path(directory)
        if not (self.root / CONFIG_FILE).is_file():
            raise IndexFormatError(
                f"{self.root} holds no index of ScaNN: there is no {CONFIG_FILE} in it; expected a "
                "directory that ScaNN's searcher.serialize wrote"
            )
        self._paths = self._list()

    def _list(self) -> dict[str, Path]:
        path = self.root / _ASSETS_FILE
        if not path.is_file():  # written by a ScaNN before the list
            named = {kind: self.root / name for kind, name in _KINDS.items()}
            return {kind: path for kind, path in named.items() if path.is_file()}
        try:
            listed = parse_text(self._read(path, _MAX_TEXT).decode())
        except (ConfigError, UnicodeDecodeError) as error:
            raise CorruptIndexError(f"{path} is damaged: {error}") from error
        paths: dict[str, Path] = {}
        for asset in listed.get("assets", []):
            fields = asset if isinstance(asset, dict) else {}
            match fields.get("asset_type"), fields.get("asset_path"):
                case [[Name() as kind], [str(name)]]:
                    pass
                case [[int(number)], [str(name)]]:
                    kind = Name(_NUMBERS.get(number, number))
                case _:
                    raise CorruptIndexError(f"{path} lists an asset without its type and path")
            if kind not in _KINDS:
                raise IndexFormatError(
                    f"{path} lists an asset of type {kind}; expected one of {', '.join(_KINDS)}"
                )
            if kind in paths:
                raise CorruptIndexError(f"{path} lists two assets of type {kind}")
            # A path of another system, perhaps: only its last part is meant here.
            last = name.replace("\\", "/").rpartition("/")[2]
            if last in ("", ".", "..") or "\0" in last:
                raise CorruptIndexError(f"{path} has {name!r} as a path")
            paths[kind] = self.root / last
        return paths

    def __contains__(self, kind: str) -> bool:
        return kind in self._paths

    def message(self, kind: str) -> tuple[memoryview, str]:
        """Return the bytes of a protobuf asset, or of the configuration, and its path."""
        path = self.root / CONFIG_FILE if kind == CONFIG_FILE else self._path(kind)
        return memoryview(self._read(path, _MAX_MESSAGE)), str(path)

    def array(self, kind: str, dtype: str, *shape: int | None) -> NDArray[Any]:
        """Map an array; None stands for any length, but not 0.

        Raises
        ------
        CorruptIndexError
            If the file is missing, damaged, or has another dtype or shape.
        """
        path = self._path(kind)
        array = _map_array(path)
        fits = len(array.shape) == len(shape) and all(
            size == wanted or (wanted is None and size > 0)
            for size, wanted in zip(array.shape, shape, strict=True)
        )
        if array.dtype != np.dtype(dtype) or not fits or not array.flags.c_contiguous:
            raise CorruptIndexError(
                f"{path} holds {array.dtype} of shape {array.shape}; expected {dtype} of shape "
                f"({', '.join('any' if size is None else str(size) for size in shape)})"
            )
        return array

    def _path(self, kind: str) -> Path:
        if kind not in self._paths:
            raise CorruptIndexError(
                f"{self.root / _ASSETS_FILE} lists no asset of type {kind}, which the index needs"
            )
        return self._paths[kind]

    def _read(self, path: Path, limit: int) -> bytes:
        try:
            with open_plain(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size <= limit:
                    return file.read(limit)
        except OSError as error:
            raise CorruptIndexError(f"{path} is missing, or cannot be read") from error
        raise CorruptIndexError(f"{path} has {size} bytes; expected {limit} at most")

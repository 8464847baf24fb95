"""Any file of the ann-benchmarks collection, by its path: needs ``h5py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.datasets.base import DataSet, Floats

SUFFIX = ".hdf5"
_MEASURES = {"angular": "cosine", "dot": "dot_product", "euclidean": "squared_l2"}


def from_path(path: Path) -> DataSet:
    """Return the data set of an HDF5 file with ``train``, ``test`` and a ``distance`` attribute."""
    try:
        import h5py
    except ImportError as error:
        raise SystemExit(f"{path}: reading HDF5 files needs h5py; pip install h5py") from error

    with h5py.File(path, "r") as file:
        distance = str(file.attrs.get("distance", "angular"))
    if distance not in _MEASURES:
        raise SystemExit(f"{path}: distance {distance!r} is none of {', '.join(_MEASURES)}")

    def load(_: Path) -> tuple[Floats, Floats]:
        with h5py.File(path, "r") as file:
            return np.asarray(file["train"], np.float32), np.asarray(file["test"], np.float32)

    return DataSet(
        name=path.stem,
        about=f"{path.name}, {distance}",
        distance_measure=_MEASURES[distance],
        load=load,
    )

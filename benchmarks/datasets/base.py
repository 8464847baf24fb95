"""What a data set is, and its preparation: fetched once, kept as .npy beside its exact answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.exact import exact_neighbors
from benchmarks.paths import DATA

Floats = npt.NDArray[np.float32]
TRUE_NEIGHBORS = 100
MEASURES = ("cosine", "dot_product", "squared_l2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """A named set of vectors and queries.

    Attributes
    ----------
    name : str
        Folder name under ``benchmarks/.data`` and file name of its results.
    about : str
        One line for the report: what it is, where it is from, its licence.
    distance_measure : str
        ``"cosine"``, ``"dot_product"`` or ``"squared_l2"``. Under cosine all rows are scaled to
        unit length after loading: to every system it is then a dot product.
    load : callable
        ``load(downloads)`` fetches into the folder ``downloads`` and returns (train, test).
    load_sample : callable, optional
        Returns more queries, that no system is asked but some learn from.
    """

    name: str
    about: str
    distance_measure: str
    load: Callable[[Path], tuple[Floats, Floats]]
    load_sample: Callable[[], Floats] | None = None


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """A data set on disk: ``train.npy``, ``test.npy`` (float32) and ``neighbors.npy`` (int32).

    Some have a ``sample.npy``, too: queries that systems may learn from.
    """

    name: str
    about: str
    distance_measure: str
    folder: Path

    @property
    def train(self) -> Floats:
        """Datapoints [n, d], float32, memory-mapped."""
        rows: Floats = np.load(self.folder / "train.npy", mmap_mode="r")
        return rows

    @property
    def test(self) -> Floats:
        """Queries [queries, d], float32."""
        rows: Floats = np.load(self.folder / "test.npy")
        return rows

    @property
    def neighbors(self) -> npt.NDArray[np.int32]:
        """Exact neighbours [queries, 100], int32, best first."""
        ids: npt.NDArray[np.int32] = np.load(self.folder / "neighbors.npy")
        return ids


def unit(rows: Floats) -> Floats:
    """Rows [n, d] scaled to length one (a zero row stays zero), norms taken in float64."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    norms[norms == 0] = 1
    scaled: Floats = (rows / norms[:, None]).astype(np.float32)
    return scaled


def prepare(data_set: DataSet, say: Callable[[str], None] = print) -> PreparedData:
    """Fetch, convert and solve a data set; what is already there is kept.

    Cost: the download, then one exact search (about a minute for GloVe-100 on two cores).
    """
    folder = DATA / data_set.name
    prepared = PreparedData(data_set.name, data_set.about, data_set.distance_measure, folder)
    if (folder / "meta.json").exists():
        return prepared
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "train.npy").exists() or not (folder / "test.npy").exists():
        say(f"{data_set.name}: fetching")
        downloads = folder / "downloads"
        downloads.mkdir(exist_ok=True)
        train, test = data_set.load(downloads)
        if data_set.distance_measure == "cosine":
            train, test = unit(train), unit(test)
        if data_set.load_sample is not None:
            save(folder / "sample.npy", np.ascontiguousarray(data_set.load_sample(), np.float32))
        save(folder / "test.npy", np.ascontiguousarray(test, dtype=np.float32))
        save(folder / "train.npy", np.ascontiguousarray(train, dtype=np.float32))
        shutil.rmtree(downloads)
    train, test = prepared.train, prepared.test
    say(f"{data_set.name}: exact neighbours of {len(test):,} among {len(train):,}")
    found = exact_neighbors(
        np.asarray(train), test, min(TRUE_NEIGHBORS, len(train)), data_set.distance_measure
    )
    save(folder / "neighbors.npy", found)
    meta = {
        "name": data_set.name,
        "about": data_set.about,
        "distance_measure": data_set.distance_measure,
        "train": list(train.shape),
        "test": list(test.shape),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    return prepared


def save(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Write an array as .npy, whole or not at all."""
    # Written beside and renamed, so that an interrupted run never leaves half an array.
    beside = path.with_suffix(".part.npy")
    np.save(beside, array)
    beside.replace(path)

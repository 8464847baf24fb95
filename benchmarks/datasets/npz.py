"""Any NumPy archive with arrays ``train`` and ``test``, by its path.

Dot product, unless the archive says otherwise in a text array ``distance_measure``. A language
model's head is such a set: its output embeddings as datapoints, hidden states as queries. Queries
in an array ``sample`` are asked by nobody: ``swann-taught`` learns from them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.datasets.base import MEASURES, DataSet, Floats

SUFFIX = ".npz"


def from_path(path: Path) -> DataSet:
    """Return the data set of an archive; arrays of any real dtype become float32."""
    with np.load(path) as archive:
        missing = {"train", "test"} - set(archive.files)
        if missing:
            raise SystemExit(f"{path}: has {archive.files}, but train and test are needed")
        said = archive.get("distance_measure", "dot_product")
        has_sample = "sample" in archive.files
    measure = str(said)
    if measure not in MEASURES:
        raise SystemExit(f"{path}: distance_measure {measure!r} is none of {', '.join(MEASURES)}")

    def load(_: Path) -> tuple[Floats, Floats]:
        with np.load(path) as archive:
            return archive["train"].astype(np.float32), archive["test"].astype(np.float32)

    def load_sample() -> Floats:
        with np.load(path) as archive:
            sample: Floats = archive["sample"].astype(np.float32)
        return sample

    return DataSet(
        name=path.stem,
        about=f"{path.name}, {measure}",
        distance_measure=measure,
        load=load,
        load_sample=load_sample if has_sample else None,
    )

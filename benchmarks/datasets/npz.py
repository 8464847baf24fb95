"""Any NumPy archive with arrays ``train`` and ``test``, by its path.

Dot product, unless the archive says otherwise in a text array ``distance_measure``. A language
model's head is such a set: its output embeddings as datapoints, hidden states as queries.
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
    measure = str(said)
    if measure not in MEASURES:
        raise SystemExit(f"{path}: distance_measure {measure!r} is none of {', '.join(MEASURES)}")

    def load(_: Path) -> tuple[Floats, Floats]:
        with np.load(path) as archive:
            return archive["train"].astype(np.float32), archive["test"].astype(np.float32)

    return DataSet(
        name=path.stem,
        about=f"{path.name}, {measure}",
        distance_measure=measure,
        load=load,
    )

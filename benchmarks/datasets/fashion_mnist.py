"""Fashion-MNIST: pictures of clothes, 784 pixels each, the official split."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from benchmarks.datasets.base import DataSet, Floats
from benchmarks.datasets.fetch import deb

_HEADER = 16  # magic number, count, rows, columns: four big-endian integers


def load(downloads: Path) -> tuple[Floats, Floats]:
    """(train [60000, 784], test [10000, 784]), pixel values 0 to 255."""
    folder = deb("dataset-fashion-mnist", downloads) / "usr/share/datasets/fashion-mnist"

    def pictures(name: str) -> Floats:
        content = gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes())
        pixels = np.frombuffer(content, dtype=np.uint8, offset=_HEADER)
        return pixels.reshape(-1, 784).astype(np.float32)

    return pictures("train"), pictures("t10k")


DATA_SET = DataSet(
    name="fashion-mnist-784",
    about="Fashion-MNIST pictures (MIT), Debian dataset-fashion-mnist, squared l2",
    distance_measure="squared_l2",
    load=load,
)

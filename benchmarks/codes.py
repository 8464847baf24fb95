"""What codes lose, pass by pass: ``python -m benchmarks.codes [--data NAME] [--width 2]``.

Datapoints are coded under the anisotropic loss by coordinate descent that begins at the nearest
codewords, as in the paper, and by one that begins at prices (docs/architecture.md, Quantize). For
each number of passes: the mean loss, and milliseconds on one thread. ``wide`` stands for clusters
in 1,536 dimensions whose variance falls as a power, at unit length.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks import datasets
from benchmarks.datasets.base import Floats, prepare
from benchmarks.tables import short, table
from swann import kernels
from swann.kernels import Tiles
from swann.quantize import ProductQuantizer
from swann.quantize.anisotropic import anisotropic_weights

PASSES = (1, 2, 3, 4, 8, 20)
CODED = 8192
ROUNDS = 5


def wide() -> Floats:
    """Return 20,000 datapoints in 40 clusters."""
    rng = np.random.default_rng(0)
    spread = (np.arange(1, 1537) ** -0.6).astype(np.float32)
    centers = rng.standard_normal((40, 1536), dtype=np.float32) * spread
    rows = centers[rng.integers(0, 40, 20_000)]
    rows += 0.7 * rng.standard_normal(rows.shape, dtype=np.float32) * spread
    turned = rows @ np.linalg.qr(rng.standard_normal((1536, 1536)))[0].astype(np.float32)
    return np.asarray(turned / np.linalg.norm(turned, axis=1, keepdims=True), np.float32)


def coded(tiles: Tiles, codebook: Floats, width: int, passes: int, nearest: bool) -> list[str]:
    """Return the mean loss after so many passes, and milliseconds: the least of some rounds."""
    took = []
    plain = tiles._replace(directions=None, weights=None)
    for _ in range(ROUNDS):
        start = time.perf_counter()
        codes = kernels.encode_tiles(plain, codebook, width, 0, 1)[0] if nearest else None
        _, losses = kernels.encode_tiles(tiles, codebook, width, passes, 1, codes)
        took.append(time.perf_counter() - start)
    return [f"{losses.mean():.5f}", short(1e3 * min(took))]


def main() -> None:
    """Train a codebook and print what its codes lose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="glove-100", help="a data set, or wide")
    parser.add_argument("--width", type=int, default=2, help="dimensions a block")
    parser.add_argument("--threshold", type=float, default=0.2)
    given = parser.parse_args()
    rows = wide() if given.data == "wide" else prepare(datasets.find(given.data)).train
    rows = np.ascontiguousarray(rows[:: max(1, len(rows) // 16384)], np.float32)
    quantizer = ProductQuantizer(given.width, threshold=given.threshold).fit(rows)
    some = np.ascontiguousarray(rows[:CODED])
    weights = anisotropic_weights(np.linalg.norm(some, axis=1), some.shape[1], given.threshold)
    tiles = kernels.make_tiles(some, None, None, weights, 1)
    print(f"{given.data}, {given.width} dimensions a block, eta {1 + weights.mean():.1f}\n")
    head = ["passes", "from the nearest: loss", "ms", "from prices: loss", "ms"]
    lines = []
    for passes in PASSES:
        nearest, priced = (
            coded(tiles, quantizer.codebook, given.width, passes, begin) for begin in (True, False)
        )
        lines.append([str(passes), *nearest, *priced])
    print(table(head, lines))


if __name__ == "__main__":
    main()

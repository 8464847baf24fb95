"""Binary codes to compare with: planes at random, and along principal components."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.paper.lab import Floats
from swann.quantize.hamming import as_signs, pack, product_search, signs

Bytes = npt.NDArray[np.uint8]

_SAMPLE = 20_000
_ROUNDS = 50


class Planes:
    """Bits by the side of planes through the mean, decoded by least squares.

    Parameters
    ----------
    rows : float32 array of shape (n, d)
        Datapoints, coded as `codes`.
    normals : array of shape (d, bits)
        Of the planes.
    """

    def __init__(self, rows: Floats, normals: npt.NDArray[np.floating]) -> None:
        self.center = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.normals = normals.astype(np.float32)
        self.codes = self.encode(rows)
        inputs = np.concatenate([signs(self.codes), np.ones((len(rows), 1), np.float32)], axis=1)
        system = inputs.T @ inputs + np.eye(inputs.shape[1]) * (1e-4 * len(rows))
        self.decoder = np.linalg.solve(system, inputs.T @ rows)[:-1].astype(np.float32)

    def encode(self, rows: Floats) -> Bytes:
        """Return packed codes."""
        return pack((rows - self.center) @ self.normals > 0)

    def search_asymmetric(self, queries: Floats, k: int) -> npt.NDArray[np.int64]:
        """Return the k rows that score highest (the shift is the same for all)."""
        return product_search(queries @ self.decoder.T, self.codes, k)[0]


def baselines(rows: Floats, bits: int, seed: int) -> Iterator[tuple[str, Planes]]:
    """Yield random hyperplanes, and where there are dimensions enough PCA signs and ITQ."""
    rng = np.random.default_rng([seed, bits])
    d = rows.shape[1]
    yield "random hyperplanes", Planes(rows, rng.standard_normal((d, bits)))
    if bits > d:
        return
    sample = rows[np.sort(rng.permutation(len(rows))[:_SAMPLE])]
    sample = sample - rows.mean(axis=0)
    axes = np.linalg.eigh((sample.T @ sample).astype(np.float64))[1][:, ::-1][:, :bits]
    yield "signs of PCA", Planes(rows, axes)
    yield "ITQ", Planes(rows, axes @ _rotation(sample @ axes.astype(np.float32), rng))


def _rotation(projected: Floats, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Turn so that signs lie near (Gong and Lazebnik, "Iterative quantization", CVPR 2011)."""
    bits = projected.shape[1]
    turn = np.linalg.qr(rng.standard_normal((bits, bits)))[0]
    for _ in range(_ROUNDS):
        made = as_signs(projected @ turn.astype(np.float32) > 0)
        left, _, right = np.linalg.svd((projected.T @ made).astype(np.float64))
        turn = left @ right
    return turn

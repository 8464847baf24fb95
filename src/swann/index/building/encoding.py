"""Codes of datapoints: encoded as they come, packed by 32, unpacked where they are sorted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig, IndexConfig
from swann.distance import SQUARED_L2
from swann.kernels import GROUP
from swann.median import median
from swann.quantize.anisotropic import anisotropic_weights
from swann.quantize.codebook import MAX_SWEEPS
from swann.quantize.metric import SHAPED_SWEEPS
from swann.vectors import aligned

__all__ = [
    "Encoder",
    "code_center",
    "correction_range",
    "correction_sizes",
    "has_corrections",
    "pack",
    "pack_corrections",
    "unpack",
]

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]

_STEP = 1 << 18
_LEAST_EXPONENT, _EXPONENTS = -149, 278  # of float32
_USUAL_SHARE, _OUTLYING = 0.999, 16.0


class Encoder:
    """Encodes datapoints with a trained codebook; a code depends on nothing but its datapoint.

    Parameters
    ----------
    config : IndexConfig
        Its score is an `AHConfig`.
    codebook : float32 array of shape (r, 16 or 256)
        Of the reduced space.
    origins : float32 array of shape (leaves, r), or None
        Centroids, where codes are of residuals.
    metric : float32 array of shape (r, r), or None
        The loss that codes are chosen by; None for plain l2.
    center : float32 array of shape (r,), or None
        See `code_center`.
    threads : int
        The result does not depend on it.

    Attributes
    ----------
    codes : uint8 array of shape (groups, blocks, 16 or 32)
        Of all places; zeros where there is no datapoint.
    corrections : float32 array of shape (groups * 32,), or None
        NaN where there is no datapoint.
    """

    def __init__(
        self,
        config: IndexConfig,
        codebook: F32,
        origins: F32 | None,
        metric: F32 | None,
        center: F32 | None,
        threads: int,
    ) -> None:
        assert isinstance(config.score, AHConfig)
        self.config = config
        self.ah = config.score
        self.codebook = codebook
        self.origins = origins
        self.metric = metric
        self.center = center
        self.threads = threads
        self.codes: U8 = np.empty((0, 0, 0), np.uint8)
        self.corrections: F32 | None = None

    def begin(self, num_groups: int) -> None:
        """Make room for the codes of so many groups of datapoints."""
        blocks = kernels.num_blocks(len(self.codebook), self.ah.dimensions_per_block)
        shape = num_groups, blocks, kernels.block_bytes(self.ah.codewords)
        self.codes = aligned(shape, np.uint8, zeros=True)
        if has_corrections(self.config, self.origins is not None, self.center):
            self.corrections = np.full(num_groups * GROUP, np.nan, np.float32)

    def put(self, rows: F32, norms: F32, leaves: U32, places: NDArray[np.uint64]) -> None:
        """Encode reduced rows of these norms into their places."""
        directions = None
        if self.metric is not None and self.ah.anisotropic:
            directions, norms = kernels.metric_directions(rows, self.metric, self.threads)
        kernels.pack_codes(
            rows,
            self._weights(norms),
            self.origins,
            leaves,
            places,
            self.codebook,
            self.ah.dimensions_per_block,
            MAX_SWEEPS if self.metric is None else SHAPED_SWEEPS,
            self.codes,
            self.corrections,
            self.threads,
            metric=self.metric,
            directions=directions,
            center=self.center,
            dot_product=self.config.distance_measure != SQUARED_L2,
        )

    def _weights(self, norms: F32) -> F32 | None:
        if not self.ah.anisotropic:
            return None
        threshold = self.ah.anisotropic_quantization_threshold
        return anisotropic_weights(norms, len(self.codebook), threshold)

    def packed(self) -> dict[str, Any]:
        """Return what was made, by the names of the index's fields."""
        corrections, low, span = None, 0.0, 0.0
        if self.corrections is not None:
            low, high = float(np.nanmin(self.corrections)), float(np.nanmax(self.corrections))
            low, span = correction_range(low, high, correction_sizes(self.corrections))
            corrections = pack_corrections(self.corrections, low, span)
        return {
            "code_metric": self.metric,
            "codes": self.codes,
            "codebook": self.codebook,
            "code_center": self.center,
            "corrections": corrections,
            "correction_low": low,
            "correction_span": span,
        }


def has_corrections(config: IndexConfig, residual: bool, center: F32 | None) -> bool:
    """Whether scores by codes of residuals have a correction.

    Under squared l2 they do (without a center in indexes of older versions), under the dot product
    where there is a center.
    """
    return (
        residual
        and config.tree is not None
        and (config.distance_measure == SQUARED_L2 or center is not None)
    )


def code_center(centroids: F32) -> F32:
    """Return what tables and corrections are counted from.

    The squared distance to a datapoint c + r is that to c, and ``|r|^2 - 2 <q - m, r>`` of the
    tables, and the correction ``2 <c - m, r>``, whatever m is. Both are rounded to steps of what
    they range over, which grows as q and c are farther from m: it is in the middle of all, the
    median of each coordinate, which a few far centroids do not move. So it is with dot products.
    """
    return np.asarray(median(centroids), np.float32)


def unpack(packed: U8) -> U8:
    """Return the codes of all places, shape (groups * 32, blocks)."""
    if packed.shape[2] < GROUP:
        packed = np.concatenate([packed & 15, packed >> 4], axis=2)
    return packed.transpose(0, 2, 1).reshape(-1, packed.shape[1])


def pack(codes: U8, block_bytes: int) -> U8:
    """Undo `unpack`: return the packed codes of a whole number of groups."""
    groups = codes.reshape(-1, GROUP, codes.shape[1]).transpose(0, 2, 1)
    if block_bytes == GROUP:
        return np.ascontiguousarray(groups)
    low, high = groups[:, :, :block_bytes], groups[:, :, block_bytes:]
    packed: U8 = np.bitwise_or(low, high << 4, dtype=np.uint8)
    return packed


def correction_sizes(corrections: F32) -> NDArray[np.int64]:
    """Return how many corrections have each exponent: how many are below a power of two in size."""
    there = np.abs(corrections[~np.isnan(corrections)])
    exponents = np.where(there > 0, np.frexp(there)[1], _LEAST_EXPONENT)
    return np.bincount(exponents - _LEAST_EXPONENT, minlength=_EXPONENTS)


def correction_range(
    low: float, high: float, sizes: NDArray[np.integer[Any]]
) -> tuple[float, float]:
    """Return what corrections are rounded within: the least, and the length of the range.

    All of them, between `low` and `high`, but for outliers, which count as its ends: the steps of
    all would be theirs, and the lookup tables', since sums have 16 bits. They are where few
    datapoints, far from all others, share a leaf.
    """
    below = np.cumsum(sizes)
    exponent = int(np.argmax(below >= _USUAL_SHARE * below[-1])) + _LEAST_EXPONENT
    most = _OUTLYING * 2.0**exponent
    low = max(low, -most)
    return low, max(0.0, min(high, most) - low)


def pack_corrections(corrections: F32, low: float, span: float) -> NDArray[np.uint16]:
    """Store corrections in 16 bits over a range; places without a datapoint hold NaN."""
    packed = np.zeros(len(corrections), np.uint16)
    if span == 0.0:
        return packed
    for begin in range(0, len(corrections), _STEP):
        part = corrections[begin : begin + _STEP].astype(np.float64) - low
        inside = np.clip(np.nan_to_num(part), 0.0, span)
        packed[begin : begin + _STEP] = np.rint(inside * (65535.0 / span))
    return packed

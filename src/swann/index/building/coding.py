"""Codes of a build: the codebook, the loss, and whether they are of residuals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig
from swann.distance import SQUARED_L2
from swann.index.building.encoding import Encoder, code_center, unpack
from swann.index.building.learned import CODE_SAMPLE, Teacher
from swann.index.source import Source, most_rows
from swann.kernels import GROUP, LANES, Tiles
from swann.median import median
from swann.quantize.anisotropic import anisotropic_weights
from swann.quantize.product import ProductQuantizer

__all__ = ["Coder", "codebook_sample"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

_ENOUGH_TO_TRAIN, _ENOUGH_FOR_A_CODEWORD = 16384, 1024
_ENOUGH_TO_COMPARE, _ITERATIONS_TO_COMPARE = 4096, 3

_FAR_LONGER, _FEW = 8.0, 0.05
_LONGER, _HARDLY_ANY, _NOTHING = 4.0, 0.001, 1e-3
"""Times as long as most, and shares of all: see `Coder._usual`."""
_ALIKE, _NEAR = 0.9, 0.4
"""Of lengths, and of mean squares: see `Coder._corrections_pay`."""


def codebook_sample(ah: AHConfig, n: int) -> int:
    """Return how many of n datapoints a codebook is trained on; more change no recall.

    A third of the database where that is many: tiles take up to two floats a value.
    """
    enough = _ENOUGH_FOR_A_CODEWORD * ah.codewords
    return min(ah.training_sample_size, enough, max(_ENOUGH_TO_TRAIN, n // 3))


class Coder:
    """Trains a codebook.

    Parameters
    ----------
    source : Source
        The database.
    ah : AHConfig
        What codes to make.
    norms, residual_norms : float32 arrays of shape (n,)
        Of the datapoints, reduced, and of what is left without the centroids of their leaves.
    total : int
        Datapoints of the index, of which `source` may be a sample.
    metric : float32 array of shape (d, d), optional
        What queries taught an index before: the loss that codes are chosen by.
    teacher : Teacher, optional
        Chooses a metric.
    """

    def __init__(
        self,
        source: Source,
        ah: AHConfig,
        norms: F32,
        residual_norms: F32,
        total: int,
        metric: F32 | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.source = source
        self.ah = ah
        self.norms = norms
        self.residual_norms = residual_norms
        self.total = total
        self.metric = metric
        self.teacher = teacher
        self.origins: F32 | None = None

    def train(self, centroids: F32 | None, leaves: U32) -> Encoder:
        """Choose what codes are counted from, and train the codebook."""
        ah, source = self.ah, self.source
        self.origins = centroids
        if centroids is not None and not self._residuals_pay(centroids, leaves):
            self.origins = None
        if self.teacher is not None:
            self.metric = self._metric_that_pays(self.teacher, leaves)
        total = ah.training_iterations * (2 if ah.anisotropic else 1)
        codebook = self._trained(
            self._usual(source.sample_ids(codebook_sample(ah, source.n), stream=0)),
            leaves,
            self.metric,
            iterations=ah.training_iterations,
            on_iteration=lambda i, _: source.report("codebook", i + 1, total),
        )
        source.report("codebook", total, total)
        return self._encoder(codebook, self.metric)

    def _usual(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Leave out datapoints whose codes stand for something far longer than most do.

        They would have codewords of their own, by which the steps of tables become so wide that
        all others are alike. Without, they are coded as long as a codeword is, in their direction.

        Under squared l2 they are apart if hardly any are between them and the others: where
        lengths just vary much, codewords have to do for all. Under the dot product long ones are
        what is looked for, so they have to be fewer than the neighbors that are asked for.
        """
        config = self.source.config
        lengths = self.norms if self.origins is None else self.residual_norms
        coded = lengths[ids]
        usual = median(coded)
        longer = coded > _FAR_LONGER * usual
        if not longer.any() or usual <= _NOTHING * median(self.norms[ids]):  # mostly copies
            return ids
        if config.distance_measure == SQUARED_L2:
            between = (coded > _LONGER * usual) & ~longer
            apart = longer.mean() <= _FEW and between.mean() <= _HARDLY_ANY
        else:
            some = np.count_nonzero(lengths > _FAR_LONGER * usual)
            apart = some * self.total <= config.num_neighbors * len(lengths)
        return ids[~longer] if apart else ids

    def _encoder(self, codebook: F32, metric: F32 | None) -> Encoder:
        source = self.source
        center = None
        if self.origins is not None and self._corrections_pay(metric):
            center = code_center(self.origins)
            if source.config.distance_measure != SQUARED_L2:
                center /= self.norms.mean()  # queries have lengths of their own
        return Encoder(source.config, codebook, self.origins, metric, center, source.threads)

    def _corrections_pay(self, metric: F32 | None) -> bool:
        """Whether codes of residuals get corrections.

        Squared distances need them. An error e moves a dot product by `<q, e>`, and one with a
        correction by `<q - x, e>` where q and x are as long. That is less where the datapoints that
        a query looks for are near it, as those of a leaf are near each other.
        """
        if self.source.config.distance_measure == SQUARED_L2:
            return True
        norms = self.norms
        if metric is not None or norms.min() < _ALIKE * norms.max():
            return False
        near = float(np.mean(np.square(self.residual_norms, dtype=np.float64)))
        return 0.0 < near <= _NEAR * float(np.mean(np.square(norms, dtype=np.float64)))

    def _trained(
        self,
        ids: NDArray[np.int64],
        leaves: U32,
        metric: F32 | None,
        *,
        iterations: int,
        on_iteration: Callable[[int, float], None] | None = None,
    ) -> F32:
        """Return a codebook. Of a metric it knows the weight of each dimension alone."""
        scales = None if metric is None else np.sqrt(np.diag(metric))
        quantizer = self._quantizer(iterations, stream=2)
        quantizer.fit_tiles(
            self._tiles(ids, self.origins, leaves, metric, scales), on_iteration=on_iteration
        )
        if scales is None:
            return quantizer.codebook
        return np.asarray(quantizer.codebook / scales[:, None], np.float32)

    def _metric_that_pays(self, teacher: Teacher, leaves: U32) -> F32 | None:
        """Try codes of a sample under each metric."""
        source = self.source
        ids = source.sample_ids(CODE_SAMPLE, stream=2)
        sample, its_leaves = source.reduced_take(ids), leaves[ids]
        places = np.arange(len(ids), dtype=np.uint64)

        def decoded(metric: F32 | None) -> F32:
            quantizer = self._quantizer(_ITERATIONS_TO_COMPARE, stream=2)
            quantizer.codebook = self._trained(
                ids, leaves, metric, iterations=_ITERATIONS_TO_COMPARE
            )
            encoder = self._encoder(quantizer.codebook, metric)
            encoder.begin(-(-len(ids) // GROUP))
            encoder.put(sample, self.norms[ids], its_leaves, places)
            vectors = quantizer.decode(unpack(encoder.codes)[: len(ids)])
            return vectors if self.origins is None else vectors + self.origins[its_leaves]

        return teacher.choose_code_metric(sample, source.n, decoded)

    def _quantizer(self, iterations: int, stream: int) -> ProductQuantizer:
        ah, source = self.ah, self.source
        return ProductQuantizer(
            ah.dimensions_per_block,
            codewords=ah.codewords,
            threshold=ah.anisotropic_quantization_threshold,
            iterations=iterations,
            seed=[source.config.seed, stream],
            num_threads=source.threads,
        )

    def _weights(self, norms: F32) -> F32 | None:
        if not self.ah.anisotropic:
            return None
        threshold = self.ah.anisotropic_quantization_threshold
        return anisotropic_weights(norms, self.source.reduced_dim, threshold)

    def _residuals_pay(self, centroids: F32, leaves: U32) -> bool:
        """Whether codes of residuals lose less than codes of whole datapoints, on a small sample.

        They nearly always do. Where many values of the datapoints are alike (zeros, say), codewords
        hit these exactly, and centroids only blur them. Under dot products residuals always pay:
        what a centroid scores is then exact, and tables have less to span.
        """
        source = self.source
        if source.config.distance_measure != SQUARED_L2:
            return True
        ids = source.sample_ids(_ENOUGH_TO_COMPARE, stream=2)

        def loss(origins: F32 | None) -> float:
            seen: list[float] = []
            self._quantizer(_ITERATIONS_TO_COMPARE, stream=4).fit_tiles(
                self._tiles(ids, origins, leaves),
                on_iteration=lambda _, reached: seen.append(reached),
            )
            return seen[-1]

        return loss(centroids) <= loss(None)

    def _tiles(
        self,
        ids: NDArray[np.int64],
        origins: F32 | None,
        leaves: U32,
        metric: F32 | None = None,
        scales: F32 | None = None,
    ) -> Tiles:
        """Training data of some datapoints; a few come twice, since tiles are full."""
        source = self.source
        ids = np.resize(ids, -(-len(ids) // LANES) * LANES)
        norms = self.norms[ids]
        if scales is not None and origins is not None:
            origins = origins * scales
        tiles = kernels.empty_tiles(len(ids), source.reduced_dim, directed=self.ah.anisotropic)
        step = most_rows(source.dimension) // LANES * LANES
        for first in range(0, len(ids), step):  # never all rows beside all tiles
            part = ids[first : first + step]
            rows = source.reduced_take(part)
            if metric is not None and self.ah.anisotropic:
                _, norms[first : first + step] = kernels.metric_directions(
                    rows, metric, source.threads
                )
            if scales is not None:
                rows = rows * scales
            labels = None if origins is None else leaves[part]
            kernels.put_tiles(rows, origins, labels, tiles, first, source.threads)
        return tiles.weighted(self._weights(norms))

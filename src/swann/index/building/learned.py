"""What sample queries teach a build, and how far it pays to listen: measured, not assumed.

Two things are learned, each for itself: the space in which the tree is trained and datapoints are
assigned (`tree_map`), and the metric under which codes are chosen (`code_metric`). Candidates are
powers of the queries' second moments. A build tries each on a sample of the datapoints, with some
of the queries kept back, and keeps plain l2 unless a candidate is surely better. Neither costs a
search anything: centroids and codewords stay in the space of the datapoints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import TreeConfig
from swann.partition import tree
from swann.quantize.metric import QueryModel, map_rows, unmap_rows

__all__ = ["CODE_SAMPLE", "TREE_SAMPLE", "Learned", "Teacher"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

TREE_SAMPLE, CODE_SAMPLE = 8192, 4096
"""Datapoints that candidates are tried on."""

_JUDGES, _FEWEST_JUDGES, _ONE_IN = 512, 16, 5
"""Queries kept back: one in five, at most and at least so many; with fewer, plain l2 is kept."""

_TREE_POWERS, _CODE_POWERS = (0.5, 1.0), (0.5,)
"""Of the moments. Codes by power 1 find less everywhere that was measured, and cost time to try."""

_NEIGHBORS = 10
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of the datapoints scored at which trees are compared."""

_A_LEAF = 128
_FLOOR = 0.01
"""Share of the identity where a new projection shows directions that the old one left out."""

_SURE, _MARGIN = 3.0, 0.02
"""Standard errors, and recall, by which a candidate must be better than plain l2: trees differ by
chance too, in ways that all queries see."""


class Learned(NamedTuple):
    """What sample queries taught; None where plain l2 serves as well.

    Attributes
    ----------
    tree_map : float32 array of shape (r, d), or None
        Datapoints and centroids are mapped by it before they are compared. Its rows are
        orthogonal.
    code_metric : float32 array of shape (d, d), or None
        The loss that codes are chosen by; see `swann.kernels.pack_codes`.
    """

    tree_map: F32 | None = None
    code_metric: F32 | None = None

    @property
    def width(self) -> int | None:
        """The dimension it is of; None where there is nothing."""
        given = self.tree_map if self.code_metric is None else self.code_metric
        return None if given is None else given.shape[1]

    def lifted(self, basis: F32 | None, dimension: int) -> Learned:
        """Return the same in all `dimension` dimensions, from the space of a projection.

        What a projection leaves out counts nothing there.
        """
        width = self.width
        if width is None or (basis is None and width == dimension):
            return self
        if basis is None:
            basis = np.eye(width, dimension, dtype=np.float32)
        across = np.ascontiguousarray(basis.T)

        def lift(rows: F32) -> F32:
            return kernels.project_rows(rows, across, dimension, 1)

        whole = None if self.tree_map is None else lift(self.tree_map)
        metric = self.code_metric
        if metric is not None:
            metric = lift(np.ascontiguousarray(lift(metric).T))
        return Learned(whole, metric)

    def reduced(self, reduce: Callable[[F32], F32]) -> Learned:
        """Return the same in the space of a projection, from all dimensions."""
        mapped = self.tree_map
        if mapped is not None:
            mapped = QueryModel(reduce(mapped), shrinkage=_FLOOR).tree_map(1.0)
        metric = self.code_metric
        if metric is not None:
            metric = reduce(np.ascontiguousarray(reduce(metric).T))
            least = np.float32(_FLOOR * np.trace(metric) / len(metric))
            metric[np.diag_indices(len(metric))] += least
        return Learned(mapped, metric)


class Teacher:
    """Chooses what to learn of sample queries.

    Parameters
    ----------
    queries : float32 array of shape (m, d)
        Of unit length, before they were reduced.
    threads : int
        The result does not depend on it.
    """

    def __init__(self, queries: F32, threads: int) -> None:
        step = max(_ONE_IN, len(queries) // _JUDGES)
        self.judges = np.ascontiguousarray(queries[step - 1 :: step])
        self.threads = threads
        self.listens = len(self.judges) >= _FEWEST_JUDGES
        rest = np.ones(len(queries), np.bool_)
        rest[step - 1 :: step] = False
        if self.listens:
            self.model = QueryModel(np.ascontiguousarray(queries[rest]), threads)
            self.listens = self.model.shrinkage < 1.0

    def choose_tree_map(
        self, sample: F32, total: int, config: TreeConfig, rng: Callable[[], np.random.Generator]
    ) -> F32 | None:
        """Return the map under which a small tree of the sample finds most; None: none.

        Parameters
        ----------
        sample : float32 array of shape (n, d)
            Some datapoints, reduced, of `total`. The ten nearest of a sample are farther away than
            the ten nearest of all, where the directions of queries count for more: fewer are
            looked for.
        rng : callable
            Makes a generator, the same for every candidate.
        """
        if not self.listens or len(sample) < 2 * _A_LEAF:
            return None
        true = _best(self._scores(sample), _as_near(len(sample), total))
        maps = [None, *(self.model.tree_map(power) for power in _TREE_POWERS)]
        leaves = min(config.num_leaves, max(2, len(sample) // _A_LEAF))
        found = [self._tree_finds(sample, true, a, config, leaves, rng()) for a in maps]
        return maps[_choose(found)]

    def choose_code_metric(
        self, sample: F32, total: int, decoded: Callable[[F32 | None], F32]
    ) -> F32 | None:
        """Return the metric whose codes find most; None: plain l2.

        Parameters
        ----------
        sample : float32 array of shape (n, d)
            Some datapoints, reduced, of `total`; see `choose_tree_map`.
        decoded : callable
            What their codes stand for when they are chosen under a metric.
        """
        if not self.listens or len(sample) < 2 * _NEIGHBORS:
            return None
        wanted = _as_near(len(sample), total)
        true = _best(self._scores(sample), wanted)
        metrics = [None, *(self.model.code_metric(power, sample) for power in _CODE_POWERS)]
        found = []
        for metric in metrics:
            best = _best(self._scores(decoded(metric)), wanted)
            hits = (best[:, :, None] == true[:, None, :]).any(axis=2)
            found.append(hits.mean(axis=1))
        return metrics[_choose(found)]

    def _scores(self, rows: F32) -> F32:
        """Return scores (judges, n)."""
        return kernels.project_rows(self.judges, rows, len(rows), self.threads)

    def _tree_finds(
        self,
        sample: F32,
        true: NDArray[np.intp],
        tree_map: F32 | None,
        config: TreeConfig,
        leaves: int,
        rng: np.random.Generator,
    ) -> F64:
        """Return, by judge, the mean share of neighbors found over shares of datapoints scored."""
        small = dataclasses.replace(config, num_leaves=leaves, num_leaves_to_search=1, upper=None)
        rows = map_rows(sample, tree_map, self.threads)
        centroids = tree.train_tree(rows, small, rng=rng, threads=self.threads)
        labels, near = tree.assign_rows(rows, centroids, config.avq, self.threads)
        _, norms = kernels.check_rows(rows, self.threads)
        distances = tree.leaf_distances(labels, near, norms, len(centroids))
        reach = tree.leaf_spreads(distances, rows.shape[1], config.avq)
        flat = unmap_rows(centroids, tree_map, self.threads)
        _, lengths = kernels.check_rows(self.judges, self.threads)
        worth = self._scores(flat) + lengths[:, None] * reach
        order = np.argsort(-worth, axis=1, kind="stable")
        sizes = np.bincount(labels, minlength=len(centroids))
        scored = np.empty(worth.shape)
        np.put_along_axis(scored, order, np.cumsum(sizes[order], axis=1) / len(sample), axis=1)
        cost = np.take_along_axis(scored, labels[true].astype(np.intp), axis=1)
        found: F64 = np.mean([(cost <= share).mean(axis=1) for share in _SHARES], axis=0)
        return found


def _as_near(sampled: int, total: int) -> int:
    """Return how many of a sample are about as near as the ten nearest of all."""
    return max(1, round(_NEIGHBORS * sampled / total))


def _best(scores: F32, count: int = _NEIGHBORS) -> NDArray[np.intp]:
    """Return the places of the best scores of each row, in any order."""
    return np.argpartition(-scores, count - 1, axis=1)[:, :count]


def _choose(found: list[F64]) -> int:
    """Return which candidate to take: 0, the plain one, unless another is surely better."""
    chosen, least = 0, 0.0
    for i, values in enumerate(found[1:], 1):
        gain = values - found[0]
        mean, error = float(gain.mean()), float(gain.std()) / len(gain) ** 0.5
        if mean > max(least, _MARGIN, _SURE * error):
            chosen, least = i, mean
    return chosen

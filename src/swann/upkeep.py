"""What an index does while it is changed: builds itself anew, splits and merges leaves."""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial

import numpy as np
from numpy.typing import NDArray

from swann.autopilot import build_tuned, outgrown
from swann.autopilot.newest import Newest
from swann.config import BruteForceConfig, IncrementalMode, IndexConfig
from swann.errors import InvalidInputError, RecallWarning
from swann.index.building.build import Progress
from swann.index.changing.incoming import as_rows
from swann.index.changing.live import LiveIndex
from swann.limits import Limits

__all__ = ["Upkeep"]

F32 = NDArray[np.float32]

_ALL_CANDIDATES = 4096  # that tell what there is to find


class Upkeep:
    """Builds an index anew, when it is told to and when it was asked to see to that itself.

    Parameters
    ----------
    live : LiveIndex
        The index.

    Attributes
    ----------
    wanted : bool
        Whether changes have consequences: `after_change` does nothing where not.
    """

    def __init__(self, live: LiveIndex) -> None:
        self._live = live
        self._newest = Newest(live.plan.distance_measure)
        self._settle()

    def _settle(self) -> None:
        tree, autopilot = self._live.plan.tree, self._live.plan.autopilot
        self._alone = autopilot is not None and autopilot.mode is not IncrementalMode.NONE
        splits = tree is not None and tree.incremental_threshold is not None
        self.wanted = self._alone or splits

    def rebuild(
        self, config: IndexConfig | None, threads: int, progress: Progress | None = None
    ) -> None:
        """Build the index anew from its datapoints; see `Searcher.rebalance`."""
        plan = self._live.plan if config is None else config
        build = None
        if plan.autopilot is not None:
            build = partial(
                build_tuned,
                distance_measure=plan.distance_measure,
                num_neighbors=plan.num_neighbors,
                autopilot=dataclasses.replace(plan.autopilot, reasons=()),
                seed=plan.seed,
                num_threads=threads,
                progress=progress,
            )
        self._live.rebalance(config, threads, progress, build)
        self._settle()

    def after_change(self, threads: int, vectors: object = None) -> bool:
        """Do what the index was asked to do by itself after a change, if it can be done.

        If not: the change is done, and the index as good as it was.

        Parameters
        ----------
        threads : int
            To do it on.
        vectors : array_like of shape (m, d) or (d,), optional
            What was upserted.

        Returns
        -------
        bool
            Whether there are other leaves now, or other settings.
        """
        with contextlib.suppress(InvalidInputError, MemoryError, RecallWarning):
            if self._alone and self._unfit(threads, vectors):
                self.rebuild(None, threads)
                self._newest.rebuilt(self._target, partial(self._nearest, threads))
                return True
            tree = self._live.plan.tree
            if tree is not None and tree.incremental_threshold is not None:
                return self._live.keep_shape(tree.incremental_threshold, threads)
        return False

    @property
    def _target(self) -> float:
        autopilot = self._live.plan.autopilot
        return 0.0 if autopilot is None else autopilot.target_recall

    def _unfit(self, threads: int, vectors: object) -> bool:
        """Whether the settings, or what the index was trained on, suit no more."""
        plan, size = self._live.plan, self._live.size()
        dimension = self._live.view.packed.dimension
        if outgrown(plan, size, dimension):
            return True
        if vectors is None or isinstance(plan.score, BruteForceConfig):
            return False
        due = self._newest.add(as_rows(vectors, dimension), size)
        return due and self._newest.missed(self._target, partial(self._nearest, threads))

    def _nearest(self, threads: int, queries: F32, everything: bool) -> F32:
        """Return the distances of what is found by default, or of the nearest there are."""
        packed = self._live.view.packed
        limits = Limits(self._live.plan, packed.num_leaves).defaults
        candidates, leaves = limits.candidates, limits.leaves
        if everything:
            candidates, leaves = max(candidates, _ALL_CANDIDATES), packed.num_leaves
        ids = np.empty((len(queries), limits.neighbors), np.int64)
        distances = np.empty(ids.shape, np.float32)
        packed.native.search(queries, candidates, leaves, threads, ids, distances)
        return distances

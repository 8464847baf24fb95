"""What an index does while it is changed: builds itself anew, splits and merges leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.autopilot import build_tuned, sizes_that_fit
from swann.autopilot.newest import Newest, found_share
from swann.config import IncrementalMode, IndexConfig, ReorderType, check_progress
from swann.errors import InvalidInputError
from swann.index.building.build import Progress
from swann.index.building.writing import exact_rows
from swann.index.changing.live import LiveIndex
from swann.limits import Limits

__all__ = ["Upkeep"]

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

_SLACK = 0.05
"""What recall of the newest may lack: the index was not tuned for them."""


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
        self._newest = Newest()
        self._one_at_a_time = threading.Lock()
        self._settle()

    def _settle(self) -> None:
        plan = self._live.plan
        tree, autopilot = plan.tree, plan.autopilot
        self._alone = autopilot is not None and autopilot.mode is not IncrementalMode.NONE
        splits = tree is not None and tree.incremental_threshold is not None
        self.wanted = self._alone or splits
        packed = self._live.view.packed
        self._fitting = sizes_that_fit(plan, self._live.size(), packed.dimension)
        # Rows in 8 bits are rounded once more by each build: none is made where it is not needed.
        rows = exact_rows(plan)
        kept = rows is not None and rows.quantize is not ReorderType.INT8
        everything = packed.centroids is None and packed.codes is None
        self._looks = self._alone and kept and not everything

    def rebuild(
        self, config: IndexConfig | None, threads: int, progress: Progress | None = None
    ) -> None:
        """Build the index anew from its datapoints; see `Searcher.rebalance`."""
        check_progress("progress", progress)
        self._rebuild(self._live.plan if config is None else config, config, threads, progress)

    def _rebuild(
        self,
        plan: IndexConfig,
        config: IndexConfig | None,
        threads: int,
        progress: Progress | None = None,
        *,
        unasked: bool = False,
    ) -> bool:
        """Build it by `plan`; if unasked in silence, and only while that is the plan."""
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
                warn=not unasked,
            )
        asked = plan if unasked else None
        done = self._live.rebalance(config, threads, progress, build, asked)
        self._settle()
        return done

    def after_change(
        self, threads: int, changed: Callable[[], None], written: NDArray[Any] | None = None
    ) -> None:
        """Do what the index was asked to do by itself after a change, if it can be done.

        If not: the change is done, and the index as good as it was. While another thread does it,
        there is nothing to do here.

        Parameters
        ----------
        threads : int
            To do it on.
        changed : callable
            Called as soon as there are other leaves or settings.
        written : array of shape (m,), optional
            The docids or row ids of what was upserted.
        """
        if not self._one_at_a_time.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(InvalidInputError, MemoryError):
                if self._keep_fit(threads, written):
                    changed()
        finally:
            self._one_at_a_time.release()

    def _keep_fit(self, threads: int, written: NDArray[Any] | None) -> bool:
        """Return whether there are other leaves or settings."""
        plan = self._live.plan
        if self._alone and self._unfit(plan, threads, written):
            return self._rebuild(plan, None, threads, unasked=True)
        tree = plan.tree
        if tree is None or tree.incremental_threshold is None:
            return False
        return self._live.keep_shape(tree.incremental_threshold, threads)

    def _unfit(self, plan: IndexConfig, threads: int, written: NDArray[Any] | None) -> bool:
        """Whether the settings, or what the index was trained on, suit no more."""
        size = self._live.size()
        if size not in self._fitting:
            # Where it cannot be built now, that is tried again after a tenth more or less.
            self._fitting = range(size - size // 10, size + size // 10 + 1)
            return True
        if written is None or not self._looks or not self._newest.add(written, size):
            return False
        missed = self._misses(plan, threads)
        self._newest.looked(missed=missed)
        return missed

    def _misses(self, plan: IndexConfig, threads: int) -> bool:
        """Whether too little of what is near the newest is found."""
        names, share_kept = self._newest.take()
        packed, numbers, rows = self._live.present(names)
        if plan.autopilot is None:  # somebody has just built it otherwise
            return False
        limits = Limits(plan, packed.num_leaves).defaults

        def search(queries: F32) -> tuple[I64, F32]:
            ids = np.empty((len(queries), limits.neighbors + 1), np.int64)  # and itself
            distances = np.empty(ids.shape, np.float32)
            candidates = max(limits.candidates, ids.shape[1])
            packed.native.search(queries, candidates, limits.leaves, threads, ids, distances)
            return ids, distances

        found = found_share(numbers, rows, share_kept, plan.distance_measure, search)
        return found < plan.autopilot.target_recall - _SLACK

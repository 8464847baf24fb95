"""A database, settings and names -> an index that can be searched."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.autopilot import build_tuned
from swann.config import IndexConfig, with_finer_rows
from swann.errors import ShapeError
from swann.index.building.build import Progress, build_index
from swann.index.docids import Docids, check_docids
from swann.index.state import State
from swann.searcher import Searcher

__all__ = ["build_searcher", "checked_names"]


def build_searcher(
    db: NDArray[Any],
    config: IndexConfig,
    docids: object = None,
    *,
    num_threads: int = 0,
    progress: Progress | None = None,
    training_queries: NDArray[np.float32] | None = None,
    copy: bool = True,
) -> Searcher:
    """Build an index over `db`, an array as `as_database` returns it; see `Builder.build`."""
    names = checked_names(docids, len(db))
    config = with_finer_rows(config)
    if config.autopilot is None:
        packed = build_index(
            db,
            config,
            num_threads=num_threads,
            progress=progress,
            training_queries=training_queries,
            copy=copy,
        )
        return Searcher(State(packed, names, len(db), config))
    packed = build_tuned(
        db,
        config.distance_measure,
        config.num_neighbors,
        dataclasses.replace(config.autopilot, reasons=()),
        seed=config.seed,
        num_threads=num_threads,
        progress=progress,
        training_queries=training_queries,
        copy=copy,
    )
    return Searcher(State(packed, names, len(db), packed.config))


def checked_names(docids: object, count: int) -> Docids | None:
    """Return the names of `count` datapoints, as they are kept; None where there are none."""
    if docids is None:
        return None
    given = check_docids(docids)
    if len(given) != count:
        raise ShapeError(f"{len(given)} docids for {count} datapoints; expected one for each")
    return Docids(given)

"""One pass over datapoints whose places are known: keep the row where one is needed, encode it."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from swann.config import BruteForceConfig, IndexConfig, ReorderConfig, ReorderType
from swann.distance import normalizes
from swann.errors import ConfigError
from swann.index.building.encoding import Encoder
from swann.index.rows import RowArrays
from swann.index.source import Source
from swann.quantize.anisotropic import anisotropic_weights

__all__ = ["Places", "check_shareable", "exact_rows", "write"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]


class Places(Protocol):
    """Where datapoints go."""

    num_groups: int

    def rows(self, first: int, last: int) -> U32:
        """Return the rows of datapoints."""

    def entries(self, first: int, last: int) -> list[tuple[U32, U64]]:
        """Return the leaves of datapoints and the places of their codes there; once a copy."""


def exact_rows(config: IndexConfig) -> BruteForceConfig | ReorderConfig | None:
    """Return how rows that are scored one by one are kept; None: none are."""
    if isinstance(config.score, BruteForceConfig):
        return config.score
    return config.reorder


def check_shareable(db: NDArray[Any], config: IndexConfig) -> None:
    """Raise a ConfigError if an index needs a copy of `db`, and say why."""
    exact = exact_rows(config)
    why = ""
    if exact is None:
        return
    if exact.quantize is not ReorderType.FLOAT32:
        why = f"rows in {exact.quantize.name.lower()} are made of those of db"
    elif normalizes(config.distance_measure):
        why = (
            "under 'cosine' rows are kept at unit length; bring db to unit length yourself, and "
            "ask for 'dot_product'"
        )
    elif db.dtype != np.float32:
        why = f"db has dtype {db.dtype}; expected float32 of this machine's byte order"
    elif not (db.flags.c_contiguous and db.flags.aligned):
        why = "db is not C-contiguous and aligned; see numpy.ascontiguousarray"
    if why:
        raise ConfigError(f"copy=False, but rows cannot be searched as they lie: {why}")


def write(
    source: Source,
    places: Places,
    encoder: Encoder | None,
    row_origins: F32 | None,
    norms: F32,
    reduced_norms: F32,
    *,
    copy: bool = True,
) -> dict[str, Any]:
    """Read every datapoint once more; put its row and its codes where they belong.

    Parameters
    ----------
    encoder : Encoder, optional
        Gets the codes.
    row_origins : float32 array of shape (origins, d), optional
        As `swann.index.rows.train_origins` returns them.
    norms, reduced_norms : float32 arrays of shape (n,)
        Of the datapoints, and of these in the reduced space.
    copy : bool
        Whether rows are; else they are the source's own, which `check_shareable` has let pass.

    Returns
    -------
    dict of str to array
        The arrays of rows, by name.
    """
    config = source.config
    exact = exact_rows(config)
    kept = None
    if exact is not None and copy:
        kept = RowArrays(exact.quantize, source.n, source.dimension, row_origins)
    if encoder is not None:
        encoder.begin(places.num_groups)
    for first, last in source.spans():
        rows = source.rows(first, last)
        if kept is not None:
            weights = _row_weights(exact, norms[first:last], source.dimension)
            kept.put(places.rows(first, last), rows, weights, source.threads)
        if encoder is not None:
            reduced = source.reduce(rows)
            for leaves, where in places.entries(first, last):
                encoder.put(reduced, reduced_norms[first:last], leaves, where)
        source.report("rows" if encoder is None else "encode", last, source.n)
    if kept is not None:
        return kept.arrays(config.distance_measure)
    return {} if exact is None else {"rows": source.db}


def _row_weights(
    exact: BruteForceConfig | ReorderConfig | None, norms: F32, dimension: int
) -> F32 | None:
    if not isinstance(exact, ReorderConfig) or exact.quantize is ReorderType.FLOAT32:
        return None
    threshold = exact.anisotropic_quantization_threshold
    if math.isnan(threshold):
        return None
    return anisotropic_weights(norms, dimension, threshold)

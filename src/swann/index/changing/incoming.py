"""What an update brings: what counts as docids and vectors, and what is wrong with bad ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.errors import InvalidInputError, ShapeError, ZeroVectorError
from swann.index.building.build import LONGEST
from swann.index.docids import check_docids, check_row_ids
from swann.vectors import as_queries, check_finite

__all__ = ["as_row", "as_upsert", "bad_vector", "check_before_log"]

_FLOAT32 = np.dtype(np.float32)


def as_row(vectors: object, dimension: int) -> NDArray[np.float32] | None:
    """Return one vector (d,) that is ready for the native call, which finds bad values itself.

    None: it takes `as_upsert` to tell.
    """
    if (
        type(vectors) is np.ndarray
        and vectors.dtype is _FLOAT32
        and vectors.shape == (dimension,)
        and vectors.flags.carray
    ):
        return vectors
    return None


def _as_rows(vectors: object, dimension: int) -> NDArray[np.float32]:
    """Return vectors (m, d), or one (d,), as a matrix of contiguous float32 rows.

    Values are looked at only where they need converting.
    """
    if type(vectors) is np.ndarray and vectors.dtype == np.float32:
        flags = vectors.flags
        if flags.c_contiguous and flags.aligned:
            if vectors.shape == (dimension,):
                return vectors[None]
            if vectors.ndim == 2 and vectors.shape[1] == dimension:
                return vectors
    one = getattr(vectors, "ndim", 2) == 1
    if isinstance(vectors, (list, tuple)):
        one = len(vectors) > 0 and np.ndim(vectors[0]) == 0
    if one and len(vectors):  # type: ignore[arg-type]
        return as_queries(vectors, dimension, 1, "vectors").reshape(1, -1)
    return as_queries(vectors, dimension, 2, "vectors")


def as_upsert(
    docids: object, vectors: object, dimension: int, named: bool
) -> tuple[list[Any] | None, NDArray[np.float32]]:
    """Return checked docids (row ids where datapoints are not `named`), and as many rows.

    None in place of docids: new datapoints of an index without.

    Raises
    ------
    ShapeError, DTypeError, NonFiniteError, InvalidInputError
        As `Searcher.upsert` does.
    """
    rows = _as_rows(vectors, dimension)
    if docids is None:
        if named:
            raise InvalidInputError(
                "docids is None, but this index has docids; name the datapoints"
            )
        return None, rows
    given = (check_docids if named else check_row_ids)(docids)
    if len(given) != len(rows):
        raise ShapeError(f"{len(given)} docids and {len(rows)} vectors; expected as many of both")
    return given, rows


def check_before_log(rows: NDArray[np.float32]) -> None:
    """Raise a NonFiniteError for what would be refused, before readers of the log can see it."""
    if b"\0" in np.isfinite(rows).tobytes():  # for one row, a third of the time of `all`
        rows = np.atleast_2d(rows)
        check_finite(rows, "vectors", source=rows)


def bad_vector(rows: NDArray[np.float32], bad: int) -> Exception:
    """Say what is wrong with a row that the native call refused."""
    check_finite(rows, "vectors", source=rows)
    if not rows[bad].any():
        return ZeroVectorError(
            f"vectors[{bad}] is all zeros; under 'cosine' every vector needs a direction"
        )
    return InvalidInputError(
        f"vectors[{bad}] is longer than {LONGEST:g}; float32 scores would overflow"
    )

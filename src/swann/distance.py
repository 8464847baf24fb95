"""Distance measures: the only home of sign, order and normalisation.

==============  =======================  ================  ==========================
measure         what is reported         best comes        rows and queries
==============  =======================  ================  ==========================
dot_product     the inner product        largest first     as given
cosine          the cosine               largest first     normalised to unit length
squared_l2      the squared distance     smallest first    as given
==============  =======================  ================  ==========================

Nothing is cut off: a cosine of rounded values may be a little above 1.
"""

from __future__ import annotations

from typing import Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from swann.errors import ConfigError, ZeroVectorError

__all__ = [
    "COSINE",
    "DISTANCE_MEASURES",
    "DOT_PRODUCT",
    "SQUARED_L2",
    "DistanceMeasure",
    "check_distance_measure",
    "descending",
    "normalize_rows",
    "normalizes",
]

DistanceMeasure = Literal["dot_product", "squared_l2", "cosine"]

DOT_PRODUCT: Final = "dot_product"
SQUARED_L2: Final = "squared_l2"
COSINE: Final = "cosine"
DISTANCE_MEASURES: Final[tuple[DistanceMeasure, ...]] = (DOT_PRODUCT, SQUARED_L2, COSINE)

# Rows are normalised through float64 in pieces of about this many values (8 MB of scratch).
_PIECE_VALUES = 1 << 20


def check_distance_measure(measure: object) -> DistanceMeasure:
    """Return `measure` if it names a distance measure.

    Raises
    ------
    ConfigError
        If it does not.

    Examples
    --------
    >>> check_distance_measure("cosine")
    'cosine'
    """
    if isinstance(measure, str) and measure in DISTANCE_MEASURES:
        return cast(DistanceMeasure, str(measure))
    expected = ", ".join(repr(m) for m in DISTANCE_MEASURES)
    raise ConfigError(f"distance_measure is {measure!r}; expected one of {expected}")


def normalizes(measure: DistanceMeasure) -> bool:
    """Whether rows and queries are normalised to unit length under `measure`."""
    return measure == COSINE


def descending(measure: DistanceMeasure) -> bool:
    """Whether the nearest datapoint is the one with the largest value."""
    return measure != SQUARED_L2


def normalize_rows(x: NDArray[np.float32], name: str = "db", start: int = 0) -> NDArray[np.float32]:
    """Scale every row to unit length.

    Parameters
    ----------
    x : float32 array of shape (n, d)
        The rows; left as they are.
    name : str
        What to call `x` in an error.
    start : int
        The row number of ``x[0]`` in what the caller calls `name`.

    Returns
    -------
    float32 array of shape (n, d)
        A new array.

    Raises
    ------
    ZeroVectorError
        If a row is all zeros; the first such row is named.

    Notes
    -----
    Norms and quotients are float64, summed row by row, so a row comes out the same bits whatever
    its neighbours: an index does not depend on how its database was cut into chunks.

    Examples
    --------
    >>> import numpy as np
    >>> normalize_rows(np.array([[3, 4]], np.float32))
    array([[0.6, 0.8]], dtype=float32)
    """
    out = np.empty(x.shape, np.float32)
    step = max(1, _PIECE_VALUES // max(1, x.shape[1]))
    for begin in range(0, len(x), step):
        wide = x[begin : begin + step].astype(np.float64, order="C")
        norms = np.sqrt((wide * wide).sum(axis=1))
        zero = np.flatnonzero(norms == 0.0)
        if zero.size:
            row = start + begin + int(zero[0])
            raise ZeroVectorError(
                f"{name}[{row}] is all zeros; under 'cosine' every vector needs a direction"
            )
        out[begin : begin + step] = wide / norms[:, None]
    return out

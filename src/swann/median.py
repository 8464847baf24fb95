"""The median, without the module for masked arrays that NumPy's loads: it slows a first build."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["median"]


def median(values: NDArray[Any]) -> Any:
    """Return the median along the first axis.

    Parameters
    ----------
    values : float array of shape (n, ...)
        At least one, none of them NaN.

    Examples
    --------
    >>> float(median(np.array([4.0, 1.0, 2.0, 9.0])))
    3.0
    """
    middle = len(values) // 2
    if len(values) % 2:
        return np.partition(values, middle, axis=0)[middle]
    parted = np.partition(values, (middle - 1, middle), axis=0)
    return (parted[middle - 1] + parted[middle]) / 2

"""A budget of memory, and how the steps of a build keep it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from swann import kernels
from swann.config import AHConfig, BruteForceConfig, IndexConfig, ReorderType
from swann.errors import ConfigError
from swann.index.building.writing import exact_rows
from swann.kernels import GROUP

__all__ = ["Portions", "parse_bytes", "portions"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

_PROGRAM = 128 * 10**6
"""What Python, NumPy and the native code take before anything is read."""
_SPAN_BYTES = 256 * 10**6
"""Of a span's rows at most: what is lost with a worker."""
_ENOUGH = 131_072
"""Rows to train on, where the settings ask for fewer."""
_A_LEAF = 64
_CHUNKS = 16 * 1024 * 1024
"""Of rows that are read at a time, in all their forms."""


@dataclass(frozen=True)
class Portions:
    """How much is done at a time.

    Attributes
    ----------
    sample_rows : int
        Rows to train on.
    span_rows : int
        Rows of a span.
    bucket_bytes : int
        Of an array that is put together at a time.
    """

    sample_rows: int
    span_rows: int
    bucket_bytes: int


def parse_bytes(name: str, given: int | str) -> int:
    """Return a number of bytes: an int, or a string as in ``"2GB"``, ``"512 MiB"``.

    Raises
    ------
    ConfigError
        If it is neither, or not above 0.

    Examples
    --------
    >>> parse_bytes("memory_budget", "1.5GB")
    1500000000
    """
    size = -1
    if isinstance(given, str):
        told = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", given, re.IGNORECASE)
        if told is not None:
            units = _BINARY if told[3] else _UNITS
            number = float(told[1]) * units[told[2].upper()]
            size = int(number) if math.isfinite(number) else -1
    elif isinstance(given, int) and not isinstance(given, bool):
        size = given
    if size <= 0:
        raise ConfigError(f"{name} is {given!r}; expected bytes, as in 2_000_000_000 or '2GB'")
    return size


def portions(
    config: IndexConfig,
    n: int,
    dimension: int,
    itemsize: int,
    budget: int,
    workers: int = 1,
    sample_rows: int | None = None,
) -> Portions:
    """Part a budget.

    Parameters
    ----------
    config : IndexConfig
        What is built.
    n, dimension, itemsize : int
        Of the input.
    budget : int
        Bytes for all workers together, the program included.
    workers : int
        Tasks that run at a time; one trains.
    sample_rows : int, optional
        Rows to train on, whatever that takes. Without: all, if half of the budget holds them, or
        as many as the settings ask for and the budget allows.

    Raises
    ------
    ConfigError
        If the budget does not allow to train as many leaves as the settings ask for.
    """
    share = budget // workers
    usable = share - min(_PROGRAM, share // 2)
    reduced = config.projection.reduction_dim if config.projection and config.projects else None
    width = reduced or dimension
    leaves = 1 if config.tree is None else config.tree.num_leaves
    model = 4 * leaves * width * 4  # centroids, those that datapoints are assigned by, levels above
    if sample_rows is None:
        sample_rows = _sample_rows(config, n, dimension, width, itemsize, budget)
    row = _row_bytes(config, dimension, width, itemsize)
    room = max(usable // 2 - model - _CHUNKS, usable // 8)
    span_rows = max(GROUP, min(room, _SPAN_BYTES) // row)
    bucket_bytes = max(1, min(usable // 4, _SPAN_BYTES))
    return Portions(min(n, sample_rows), min(n, span_rows), bucket_bytes)


def _sample_rows(
    config: IndexConfig, n: int, dimension: int, width: int, itemsize: int, budget: int
) -> int:
    usable = budget - min(_PROGRAM, budget // 2)
    leaves = trained_on = codes_on = 0
    if config.tree is not None:
        leaves = config.tree.num_leaves
        trained_on = max(config.tree.training_sample_size, leaves)
    if isinstance(config.score, AHConfig):
        codes_on = min(config.score.training_sample_size, 1024 * config.score.codewords)
    wanted = max(_ENOUGH, trained_on, codes_on, _A_LEAF * leaves)
    if 2 * n * dimension * itemsize <= budget:
        wanted = n
    fixed = 8 * leaves * width * 4 + 32 * dimension**2 * (config.projection is not None) + _CHUNKS

    def taken(rows: int) -> int:
        tree = 4 * width * 4 * min(rows, trained_on)  # k-means, and what it looks at
        codes = 4 * width * 4 * min(rows, codes_on)
        return fixed + 32 * rows + max(tree, codes)

    rows = min(n, wanted)
    while taken(rows) > usable and rows > max(1, leaves):
        rows = max(1, leaves, rows * 9 // 10)
    if taken(rows) > usable:
        least = taken(rows) + min(_PROGRAM, taken(rows))
        raise ConfigError(
            f"memory_budget is {budget:,} bytes; expected at least "
            f"{least:,} to train {max(1, leaves):,} leaves of {width:,} dimensions"
        )
    return rows


def _row_bytes(config: IndexConfig, dimension: int, width: int, itemsize: int) -> int:
    """Return what a row of a span takes while it is mapped."""
    sizes = {ReorderType.FLOAT32: 4, ReorderType.BFLOAT16: 2, ReorderType.INT8: 1}
    exact = exact_rows(config)
    kept = 0 if exact is None else sizes[exact.quantize] * dimension + 9
    copies = 2 if config.tree is not None and config.tree.soar_lambda is not None else 1
    codes = 0
    if not isinstance(config.score, BruteForceConfig):
        blocks = kernels.num_blocks(width, config.score.dimensions_per_block)
        codes = copies * (4 * blocks + 4)
    return itemsize * dimension + kept + codes + 48 * copies + 16

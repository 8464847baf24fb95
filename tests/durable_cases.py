"""Small indexes that are open for changes, and what is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import swann
from swann import Searcher

D = 4
DB = np.random.default_rng(5).standard_normal((400, D)).astype(np.float32)
START = 12
KINDS = ["none", "int", "str"]
DURABILITIES = ["always", "batch", "none"]


def name(kind: str, number: int) -> Any:
    """The docid of a datapoint by its number."""
    return f"d{number}" if kind == "str" else number


def save(directory: Path, kind: str, tree: bool = False) -> Path:
    """Save an index of the first datapoints."""
    builder = swann.builder(DB[:START], 3, "squared_l2")
    if tree:
        builder.tree(3, 3, min_partition_size=1).score_ah(2).reorder(100)
    else:
        builder.score_brute_force()
    docids = None if kind == "none" else [name(kind, i) for i in range(START)]
    builder.build(docids=docids).save(directory)
    return directory


def contents(searcher: Searcher) -> dict[Any, bytes]:
    """What there is, exactly, by docid or row id."""
    numbers = searcher._live.numbers()
    vectors: NDArray[np.float32] = searcher._live.vectors(numbers)
    keys = numbers.tolist() if searcher.docids is None else searcher.docids
    assert len(searcher) == len(keys)
    found = searcher.search_batched(DB[:2], len(keys) + 3, 100, 100).indices
    for row in found.tolist():
        assert set(row) - {None, -1} == set(keys)
    return {key: vector.tobytes() for key, vector in zip(keys, vectors, strict=True)}


def log_of(directory: Path) -> Path:
    """The log file that is written to."""
    return max(directory.glob("log-*"))


def change(index: Any, kind: str) -> list[dict[Any, bytes]]:
    """Make a change of each kind; return what there was before the first and after each."""
    states = [contents(index)]
    changes: list[Callable[[], object]] = [
        lambda: index.upsert(None if kind == "none" else name(kind, 50), DB[50]),
        lambda: index.upsert([name(kind, 3), name(kind, 1)], DB[60:62]),
        lambda: index.delete(name(kind, 0)),
        lambda: index.upsert(
            None if kind == "none" else [name(kind, i) for i in range(70, 75)], DB[70:75]
        ),
        lambda: index.delete([name(kind, 5), name(kind, 7)]),
    ]
    for make in changes:
        make()
        states.append(contents(index))
    return states

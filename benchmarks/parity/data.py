"""Real data cut to a size at which hundreds of indexes are built in minutes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import datasets
from benchmarks.exact import exact_neighbors
from benchmarks.paths import DATA

Floats = npt.NDArray[np.float32]

NAMES = ("glove-100", "glove-100-raw", "fashion-mnist-784", "lm-head-smollm2")
MEASURES = {"glove-100": "cosine", "fashion-mnist-784": "squared_l2"}
WIDE = 300  # dimensions from which half the rows have to do


@dataclasses.dataclass(frozen=True)
class Cut:
    """Datapoints, queries and their exact neighbors.

    Attributes
    ----------
    measure : str
        "cosine" (its rows have unit length), "dot_product" or "squared_l2".
    db, queries : float32 arrays
        Of shape (n, d) and (q, d).
    true : int32 array of shape (q, 10)
        Exact neighbors, best first.
    """

    name: str
    measure: str
    db: Floats
    queries: Floats
    true: npt.NDArray[np.int32]


def prepare(name: str, rows: int, queries: int, say: Callable[[str], None]) -> Path | None:
    """Cut a data set, once, and solve it; None where it can be neither found nor fetched.

    Rows and queries are a random choice (seed 0), in their order.
    """
    if not (DATA / name / "meta.json").exists() and name not in datasets.names():
        return None
    folder = DATA / "parity" / f"{name}-{rows}-{queries}"
    if (folder / "true.npy").exists():
        return folder
    whole = DATA / name
    if not (whole / "meta.json").exists():
        datasets.prepare(datasets.find(name), say)
    db, asked = np.load(whole / "train.npy", mmap_mode="r"), np.load(whole / "test.npy")
    if db.shape[1] >= WIDE:
        rows //= 2
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    db = db[np.sort(random.choice(len(db), min(rows, len(db)), replace=False))]
    asked = asked[np.sort(random.choice(len(asked), min(queries, len(asked)), replace=False))]
    np.save(folder / "db.npy", db)
    np.save(folder / "queries.npy", asked)
    np.save(folder / "true.npy", exact_neighbors(db, asked, 10, _measure(name)))
    return folder


def load(name: str, folder: Path) -> Cut:
    """Read what `prepare` wrote."""
    arrays = (np.load(folder / f"{part}.npy") for part in ("db", "queries", "true"))
    return Cut(name, _measure(name), *arrays)


def reordered(cut: Cut, draw: int) -> Cut:
    """Return the same data with its rows in another order, one for each `draw`; 0 changes nothing.

    Whatever a library draws at random, it draws anew.
    """
    if draw == 0:
        return cut
    order = np.random.default_rng(draw).permutation(len(cut.db))
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return dataclasses.replace(cut, db=cut.db[order], true=place[cut.true])


def _measure(name: str) -> str:
    return MEASURES.get(name, "dot_product")

"""GloVe-100 at any size: a part of it, or all of it and vectors made of near neighbours.

A made vector starts at a real one, x, and moves a part of the way to a near neighbour y, so it lies
where real vectors lie. That alone would shrink the data towards the middle of each neighbourhood;
the difference of two other near neighbours, u and v, restores what is lost::

    (1 - t) x + t y + sqrt(t (1 - t)) (u - v),    t uniform in [.25, .75], then scaled to length one

Were x, y, u and v drawn from one local distribution, the sum would have its mean and its
covariance at every t: (1 - t)^2 + t^2 + 2 t (1 - t) = 1. Every real vector is used equally often,
and a smaller set is always the beginning of a larger one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

import swann
from benchmarks.datasets import PreparedData, find, prepare
from benchmarks.datasets.base import Floats, save, unit
from benchmarks.exact import exact_neighbors
from benchmarks.paths import DATA

SOURCE = "glove-100"
QUERIES = 2_000
K = 10
NEAR = 16
"""Near neighbours of a vector, of which three are drawn."""
CHUNK = 50_000
SEED = 0


def expanded(n: int) -> PreparedData:
    """Prepare n datapoints, 2,000 queries and their exact neighbours; kept for the next time."""
    source = prepare(find(SOURCE))
    folder = DATA / "growth" / f"{SOURCE}-{n}"
    about = f"{SOURCE} at {n:,} datapoints"
    data = PreparedData(folder.name, about, source.distance_measure, folder)
    if (folder / "meta.json").exists():
        return data
    folder.mkdir(parents=True, exist_ok=True)
    real = source.train[np.random.default_rng(SEED).permutation(len(source.train))]
    _write(folder / "train.npy", real, n)
    save(folder / "test.npy", source.test[:QUERIES])
    neighbors = exact_neighbors(np.asarray(data.train), data.test, K, data.distance_measure, 64)
    save(folder / "neighbors.npy", neighbors)
    meta = {"n": n, "made": max(0, n - len(real)), "made_among_neighbors": 0.0}
    meta["made_among_neighbors"] = float((neighbors >= len(real)).mean())
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    return data


def made_shares(n: int) -> tuple[float, float]:
    """Shares of made vectors among the datapoints and among the true neighbours of the queries.

    Where made vectors lie among the real ones as these do among each other, both are the same.
    """
    meta = json.loads((DATA / "growth" / f"{SOURCE}-{n}" / "meta.json").read_text())
    return meta["made"] / n, meta["made_among_neighbors"]


def made(real: Floats, near: npt.NDArray[np.int32], number: int) -> Floats:
    """Make the chunk of this number: vectors [CHUNK, d] of unit length."""
    rng = np.random.default_rng([SEED, number])
    start = (number * CHUNK + np.arange(CHUNK)) % len(real)
    drawn = np.argsort(rng.random((CHUNK, NEAR)), axis=1)[:, :3]
    y, u, v = (real[near[start, column]] for column in drawn.T)
    t = rng.uniform(0.25, 0.75, (CHUNK, 1)).astype(np.float32)
    return unit((1 - t) * real[start] + t * y + np.sqrt(t * (1 - t)) * (u - v))


def _write(path: Path, real: Floats, n: int) -> None:
    if n <= len(real):
        save(path, real[:n])
        return
    near = _near(real)
    beside = path.with_suffix(".part.npy")
    rows = np.lib.format.open_memmap(beside, "w+", np.float32, (n, real.shape[1]))
    rows[: len(real)] = real
    for number, start in enumerate(range(len(real), n, CHUNK)):
        stop = min(start + CHUNK, n)
        rows[start:stop] = made(real, near, number)[: stop - start]
    rows.flush()
    beside.replace(path)


def _near(real: Floats) -> npt.NDArray[np.int32]:
    """Ids [n, NEAR] of near neighbours, found by swann: good ones are enough here."""
    path = DATA / "growth" / f"{SOURCE}-near.npy"
    if not path.exists():
        builder = swann.builder(real, NEAR + 1, "dot_product").tree(600, 50)
        searcher = builder.score_ah(2, 0.2).reorder(100).build()
        found = searcher.search_batched_parallel(real).indices
        # A row finds itself; where a copy of it came first, its own place is kept last.
        others = np.argsort(found == np.arange(len(real))[:, None], axis=1, kind="stable")[:, :NEAR]
        save(path, np.take_along_axis(found, others, axis=1).astype(np.int32))
    ids: npt.NDArray[np.int32] = np.load(path)
    return ids

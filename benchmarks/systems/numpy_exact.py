"""Exact search by NumPy matrix products: what needs no index at all."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.base import Floats, Ids, Search, Settings, System


class NumpyExact(System):
    """Scores of every datapoint, then the k best by partition."""

    name = "numpy-exact"
    requirements = ("numpy",)
    module = "numpy"
    slow = True

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        return [{"distance_measure": distance_measure}]

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        return [{"queries_a_product": 64}]

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        l2 = distance_measure == "squared_l2"
        return train, np.einsum("ij,ij->i", train, train) / 2 if l2 else None

    def save(self, index: Any, folder: Path) -> None:
        np.save(folder / "train.npy", index[0])

    def load(self, folder: Path, train: Path, build: Settings, threads: int) -> Any:
        return self.build(np.load(train), build["distance_measure"], build, threads)

    def search(self, index: Any, k: int, settings: Settings, threads: int) -> Search:
        train, half_norms = index
        step = settings["queries_a_product"]

        def some(queries: Floats) -> Ids:
            scores = queries @ train.T
            if half_norms is not None:
                scores -= half_norms
            best = np.argpartition(scores, -k, axis=1)[:, -k:]
            order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
            return np.take_along_axis(best, order, axis=1)

        def batch(queries: Floats) -> Ids:
            starts = range(0, len(queries), step)
            return np.concatenate([some(queries[start : start + step]) for start in starts])

        return Search(lambda q: some(q[None])[0], batch)


SYSTEM = NumpyExact()

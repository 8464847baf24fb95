"""Exact neighbours by matrix products, and the recall measured against them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def exact_neighbors(
    train: Floats, test: Floats, k: int, distance_measure: str, block: int = 128
) -> npt.NDArray[np.int32]:
    """Ids [queries, k] of the exact nearest datapoints, best first, equal scores by id.

    Scores are float32 matrix products, a block of queries at a time; cost n * queries * d
    multiplications and ``block * n`` floats of memory.
    """
    l2 = distance_measure == "squared_l2"
    half_norms = np.einsum("ij,ij->i", train, train)[None, :] / 2 if l2 else None
    found = np.empty((len(test), k), dtype=np.int32)
    for start in range(0, len(test), block):
        scores = test[start : start + block] @ train.T
        if half_norms is not None:
            scores -= half_norms  # the same order as -|q - x|^2
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        best.sort(axis=1)
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        found[start : start + block] = np.take_along_axis(best, order, axis=1)
    return found


def recall(found: npt.NDArray[np.integer], true: npt.NDArray[np.integer], k: int) -> float:
    """Share of the k true neighbours that are among all found ids (recall k@k').

    Parameters
    ----------
    found : int array [queries, k']
        Answers; -1 where there is none.
    true : int array [queries, >= k]
        Exact neighbours, best first.
    k : int
        How many of the true neighbours count.
    """
    hits = (found[:, :, None] == true[: len(found), None, :k]).any(axis=1)
    return float(hits.mean())

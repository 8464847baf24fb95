"""Tasks for faiss, run in its own environment; rows come from a folder, answers go line by line.

``python -m benchmarks.paper.faiss_codes TASK FOLDER THREADS OUT REQUEST`` writes one JSON object a
line: a name and a value; an array is written into OUT, and its path is the value.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Answer = tuple[str, Any]

LSQ_TRAIN_ITERS, OPQ_ITERS = 10, 20
"""In place of 25 and 50, which take minutes more."""


def decoded(faiss: Any, folder: Path, keys: list[str], sample: int, seed: int) -> Iterator[Answer]:
    """Train each codec on a sample of the rows; yield what the codes of all rows stand for.

    Parameters
    ----------
    faiss : module
        The library.
    folder : Path
        Holds ``train.npy``.
    keys : list of str
        Of ``index_factory``.
    sample : int
        Rows to train on, at most.
    seed : int
        Chooses them.
    """
    rows = np.load(folder / "train.npy")
    for key in keys:
        codec = faiss.index_factory(rows.shape[1], key, faiss.METRIC_INNER_PRODUCT)
        if key.startswith("LSQ"):
            codec.lsq.train_iters = LSQ_TRAIN_ITERS
        if key.startswith("OPQ"):
            rotation = faiss.downcast_VectorTransform(codec.chain.at(0))
            rotation.niter = OPQ_ITERS
        start = time.process_time()
        codec.train(_sample(rows, sample, seed))
        trained = time.process_time()
        made = codec.sa_decode(codec.sa_encode(rows))
        seconds = {"train": trained - start, "encode": time.process_time() - trained}
        yield f"{key} seconds", {name: round(value, 1) for name, value in seconds.items()}
        yield key, made


def inverted(
    faiss: Any, folder: Path, measure: str, key: str, k: int, probes: list[int], seed: int
) -> Iterator[Answer]:
    """Build an inverted-file index of all rows; yield what it finds for each number of lists.

    ``queries.npy`` in `folder` is asked. ``bytes`` is the size of the index's file.
    """
    rows, queries = np.load(folder / "train.npy"), np.load(folder / "queries.npy")
    l2 = measure == "squared_l2"
    metric = faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(rows.shape[1], key, metric)
    index.train(_sample(rows, 100_000, seed))
    index.add(rows)
    yield "bytes", len(faiss.serialize_index(index))
    for count in probes:
        index.nprobe = count
        yield str(count), index.search(queries, k)[1].astype(np.int64)


def _sample(rows: Floats, size: int, seed: int) -> Floats:
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:size])
    return np.ascontiguousarray(rows[chosen])


TASKS: dict[str, Callable[..., Iterator[Answer]]] = {"decoded": decoded, "inverted": inverted}


def main() -> None:
    """Run the task that the command line names."""
    task, folder, threads, out, request = sys.argv[1:]
    # Only this environment has it; other modules of this package must not be imported here.
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(int(threads))
    for i, (name, value) in enumerate(
        TASKS[task](faiss, Path(folder), **json.loads(request)), start=1
    ):
        if isinstance(value, np.ndarray):
            path = Path(out) / f"{i}.npy"
            np.save(path, value)
            value = str(path)
        print(json.dumps({"name": name, "value": value}), flush=True)


if __name__ == "__main__":
    main()

"""What experiments work with: data sets, a seed, and the codes of faiss."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import datasets, envs, systems
from benchmarks.datasets import PreparedData
from benchmarks.exact import exact_neighbors
from benchmarks.paths import DATA, ROOT

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

SEED = 0
QUERIES = 1000
LM_HEAD = "lm-head-smollm2"
ENVIRONMENT = "faiss-ivfpq"
"""The system whose environment holds faiss."""


class Unavailable(Exception):
    """Something that an experiment needs is not on this machine."""


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set as experiments see it.

    Attributes
    ----------
    rows : float32 array of shape (n, d)
        The datapoints.
    queries : float32 array of shape (queries, d)
        A random choice of the data set's queries.
    neighbors : int64 array of shape (queries, k)
        Exact neighbours, best first.
    distance_measure : str
        ``"dot_product"`` or ``"squared_l2"``; cosine is a dot product of unit vectors.
    folder : Path
        Where the rows lie as ``train.npy``.
    """

    rows: Floats
    queries: Floats
    neighbors: Ids
    distance_measure: str
    folder: Path


@dataclasses.dataclass(frozen=True)
class Lab:
    """The means of a run.

    Attributes
    ----------
    data : callable
        ``data(name)``, or ``data(name, queries)`` for another number of them.
    faiss : callable
        ``faiss(task, folder, **request)`` runs a task of :mod:`benchmarks.paper.faiss_codes` on the
        rows in a folder, in the environment of faiss, and yields (name, answer).
    threads : int
        Of every library. No result depends on it.
    seed : int
        Of every choice made at random.
    """

    data: Callable[..., Data]
    faiss: Callable[..., Iterator[tuple[str, Any]]]
    threads: int = 1
    seed: int = SEED


def _prepared(name: str) -> PreparedData:
    meta = DATA / name / "meta.json"
    if meta.exists():
        about = json.loads(meta.read_text())
        return PreparedData(name, about["about"], about["distance_measure"], meta.parent)
    if name == LM_HEAD:
        raise Unavailable(
            f"{name} cannot be fetched by name: prepare it once with "
            f"`python -m benchmarks data PATH/{name}.npz`"
        )
    return datasets.prepare(datasets.find(name))


def load(name: str, queries: int = QUERIES, seed: int = SEED) -> Data:
    """Return a data set with a random choice of its queries, fetching what is missing.

    Raises
    ------
    Unavailable
        When it cannot be fetched.
    """
    data = _prepared(name)
    test = data.test
    chosen = np.sort(np.random.default_rng(seed).permutation(len(test))[:queries])
    measure = "dot_product" if data.distance_measure == "cosine" else data.distance_measure
    return Data(
        rows=np.ascontiguousarray(data.train),
        queries=np.ascontiguousarray(test[chosen]),
        neighbors=data.neighbors[chosen].astype(np.int64),
        distance_measure=measure,
        folder=data.folder,
    )


def ask_faiss(
    task: str, folder: Path, threads: int = 1, **request: Any
) -> Iterator[tuple[str, Any]]:
    """Run a task in the environment of faiss; yield its answers as they come.

    An answer that names a ``.npy`` file becomes its array.
    """
    try:
        python = envs.ensure(systems.find(ENVIRONMENT))
    except envs.EnvironmentFailed as error:
        raise Unavailable(f"faiss could not be installed: {error}") from error
    command = [str(python), "-m", "benchmarks.paper.faiss_codes", task, str(folder), str(threads)]
    with tempfile.TemporaryDirectory() as beside:
        process = subprocess.Popen(
            [*command, beside, json.dumps(request)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            answer = json.loads(line)
            yield answer["name"], _received(answer["value"])
        if process.wait() != 0:
            raise Unavailable(f"faiss: {task} ended with code {process.returncode}")


def _received(value: Any) -> Any:
    if isinstance(value, str) and value.endswith(".npy"):
        array = np.load(value)
        Path(value).unlink()
        return array
    return value


def cut(data: Data, count: int, folder: Path, seed: int = SEED) -> Data:
    """Return a random choice of the datapoints, solved anew and saved into a folder.

    Cost: ``queries count d`` multiplications.
    """
    chosen = np.sort(np.random.default_rng([seed, 1]).permutation(len(data.rows))[:count])
    rows = np.ascontiguousarray(data.rows[chosen])
    np.save(folder / "train.npy", rows)
    found = exact_neighbors(rows, data.queries, 10, data.distance_measure)
    return dataclasses.replace(data, rows=rows, neighbors=found.astype(np.int64), folder=folder)

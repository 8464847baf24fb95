"""The tasks of a build that read datapoints: check and train, and in `mapping.py` map.

Each is a pure function of its argument and the files that this names. Its result is a file named
by the digest of all that went in, so a task that was done is not done again, by whoever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import IndexConfig
from swann.distributed.building.sections import LostError, Sections, write_sections
from swann.index.building.build import train_index
from swann.index.building.trained import Trained
from swann.index.disk.npy import npy_header
from swann.index.source import Source
from swann.sources import Sources
from swann.tensors import is_bfloat16

__all__ = [
    "Check",
    "Train",
    "check_span",
    "digest_of_names",
    "finished",
    "load_trained",
    "train",
]

F32 = NDArray[np.float32]

FORMAT = 2
"""Of the files of tasks: others are not taken for one's own."""

_TRAINED_ARRAYS = (
    "projection",
    "tree_map",
    "code_metric",
    "centroids",
    "assigned_by",
    "reach_from",
    "codebook",
    "row_origins",
    "code_center",
)


def digest_of_names(*parts: Any) -> str:
    """Return a name for what is made of these: numbers, strings, and lists and dicts of them."""
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()[:32]


def finished(path: str | Path) -> dict[str, Any] | None:
    """Return what the result of a task tells, if it is there and not cut short."""
    try:
        return Sections(path).told
    except LostError:
        return None


# ---- Check


@dataclass(frozen=True)
class Check:
    """Read a span, refuse bad rows, and keep those that are trained on.

    Attributes
    ----------
    sources : Sources
        At least what the span is read from.
    first, last : int
        The span.
    config : IndexConfig
        What is built.
    sample : int64 array
        Which rows of the span to keep, ascending, counted from `first`.
    threads : int
        0 means all cores.
    out : str
        The file to write.
    """

    sources: Sources
    first: int
    last: int
    config: IndexConfig
    sample: NDArray[np.int64]
    threads: int
    out: str


def check_span(task: Check) -> dict[str, Any]:
    """Do it; return the length of the longest row, ``longest``.

    Raises
    ------
    NonFiniteError, ZeroVectorError, InvalidInputError
        If a row cannot be indexed: its file and its number there are named.
    """
    done = finished(task.out)
    if done is not None:
        return done
    dtype = stored_dtype(task.sources.dtype)
    kept = np.empty((len(task.sample), task.sources.dimension), dtype)
    longest, threads = 0.0, task.threads or kernels.hardware_threads()
    for part, low, high in task.sources.pieces(task.first, task.last):
        rows = part.read(low, high)
        source = Source(rows, task.config, threads, None, part.name, low)
        longest = max(longest, float(source.check().max()))
        begin = task.sources.start(part) + low - task.first
        inside = slice(*np.searchsorted(task.sample, [begin, begin + high - low]))
        kept[inside] = source.picked(task.sample[inside] - begin)
    told = {"longest": longest}
    write_sections(Path(task.out), told, {"rows": kept})
    return told


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that rows of another are kept in: NumPy has no name for bfloat16."""
    return np.dtype(np.float32) if is_bfloat16(dtype) else dtype


# ---- Train


@dataclass(frozen=True)
class Train:
    """Learn what there is to be learned, from the rows that were kept.

    Attributes
    ----------
    config : IndexConfig
        What is built.
    checks : tuple of str
        Files of `Check`, in the order of their spans.
    queries : float32 array of shape (m, d), or None
        Queries like those to come.
    total : int
        Datapoints of the index.
    threads : int
        0 means all cores.
    out : str
        The file to write.
    progress : callable, optional
        Told how far it is, in this process only.
    """

    config: IndexConfig
    checks: tuple[str, ...]
    queries: F32 | None
    total: int
    threads: int
    out: str
    progress: Callable[[str, int, int], None] | None = None


def train(task: Train) -> dict[str, Any]:
    """Do it; return nothing of interest, or which files are ``lost``."""
    done = finished(task.out)
    if done is not None:
        return done
    path = Path(task.out)
    sample = path.with_name(f"{path.stem}-sample.npy")
    try:
        lost = _gather(task.checks, sample)
        if lost:
            return {"lost": lost}
        trained = train_index(
            np.load(sample, mmap_mode="r", allow_pickle=False),
            task.config,
            num_threads=task.threads,
            progress=task.progress,
            training_queries=task.queries,
            total=task.total,
        )
        _save_trained(path, trained)
    finally:
        sample.unlink(missing_ok=True)
    return {}


def _gather(checks: tuple[str, ...], target: Path) -> list[str]:
    """Write the rows that were kept into one .npy file; return the files that are damaged."""
    lost: list[str] = []
    files: list[Sections] = []
    for path in checks:
        try:
            files.append(Sections(path))
        except LostError as error:
            lost.append(error.path)
    if lost:
        return lost
    count = sum(file.length("rows") for file in files)
    some = files[0].read("rows", 0, 0)
    temporary = target.with_suffix(".part")
    with open(temporary, "wb") as out:
        out.write(npy_header(some.dtype, (count, some.shape[1])))
        step = max(1, (1 << 24) // max(1, some.shape[1] * some.dtype.itemsize))
        for file in files:
            try:
                for first in range(0, file.length("rows"), step):
                    last = min(first + step, file.length("rows"))
                    out.write(file.read("rows", first, last).data)
            except LostError as error:
                lost.append(error.path)
    temporary.replace(target)
    return lost


def _save_trained(path: Path, trained: Trained) -> None:
    arrays = {name: getattr(trained, name) for name in _TRAINED_ARRAYS}
    told = {
        "config": trained.config.to_dict(),
        "dimension": trained.dimension,
        "reduced_dim": trained.reduced_dim,
        "residual": trained.residual,
        "routes": list(trained.routes),
    }
    present = {name: array for name, array in arrays.items() if array is not None}
    write_sections(path, told, present | trained.routes)


@lru_cache(maxsize=1)
def load_trained(path: str) -> Trained:
    """Read what `train` wrote.

    Raises
    ------
    LostError
        If it is missing or damaged.
    """
    file = Sections(path)
    told = file.told
    arrays = {name: file.read(name) for name in _TRAINED_ARRAYS if name in file}
    return Trained(
        IndexConfig.from_dict(told["config"]),
        told["dimension"],
        told["reduced_dim"],
        residual=told["residual"],
        routes={name: file.read(name) for name in told["routes"]},
        **arrays,
    )

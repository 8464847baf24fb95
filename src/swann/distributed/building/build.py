"""Builds larger than memory: map and reduce, by whoever runs tasks.

Everything lies in a folder of the output until it is whole. What was done is found there by a name
that tells what went in, so a build that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from swann.building import checked_names
from swann.config import IndexConfig, check_count, check_path, check_progress, with_finer_rows
from swann.distance import SQUARED_L2
from swann.distributed.building.executor import Executor, LocalExecutor, RayExecutor
from swann.distributed.building.finish import Finish
from swann.distributed.building.mapping import Map, map_span
from swann.distributed.building.memory import Portions, parse_bytes, portions
from swann.distributed.building.tasks import (
    Check,
    Train,
    check_span,
    digest_of_names,
    train,
)
from swann.errors import ConfigError, InvalidInputError
from swann.index.building.build import Progress, check_count_of_rows
from swann.index.disk.lock import LOCK_FILE, DirectoryLock
from swann.index.docids import Docids
from swann.partition.tree import square_bits
from swann.sources import Sources

__all__ = ["WORK", "build"]

F32 = NDArray[np.float32]
T = TypeVar("T")

WORK = ".build"
"""The folder of a build in its output."""

_ROUNDS = 10
"""Times that lost results are made again before the disk is to blame."""


def build(
    sources: object,
    config: IndexConfig,
    out: str | os.PathLike[str],
    *,
    num_shards: int = 1,
    memory_budget: int | str = "2GB",
    executor: Executor | None = None,
    ray_address: str | None = None,
    docids: object = None,
    training_queries: object = None,
    sample_rows: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Build an index of datapoints that memory does not hold, and save it to a directory.

    The same sources, settings, budget and seed give the same files, byte for byte, whoever does
    the work and however often it was interrupted. Where all rows are trained on, they are those
    that `swann.Builder.build` gives.

    Parameters
    ----------
    sources : path, array, list of either, or iterable of arrays
        The datapoints; see `swann.sources.Sources`. Give paths where others do the work.
    config : IndexConfig
        What to build; `swann.Builder.create_config` makes one. Without autopilot.
    out : path
        The directory, which other workers find under this path, too. An index that is there is
        replaced when the new one is whole.
    num_shards : int
        1 makes a plain index; more of them one whose leaves are spread over so many shards, for
        `DistributedSearcher` (`swann.load` opens it, too, in memory). At most as many as leaves.
    memory_budget : int or str
        Bytes for all that is done at a time on this machine, as in ``"2GB"``; on Ray, for each
        task. Files are read and written beside that, by the system's cache. Python and the
        libraries take 0.1 GB of it: less than 0.3 GB cannot be kept.
    executor : Executor, optional
        Who does the work: this process on all cores, unless given.
    ray_address : str, optional
        Of a Ray cluster that does it: the same as ``executor=RayExecutor(ray_address)``.
    docids : sequence of str or of int, optional
        Names of the datapoints, in memory.
    training_queries : array_like of shape (m, d), optional
        See `swann.Builder.build`.
    sample_rows : int, optional
        Rows to train on: all if half of the budget holds them, or as many as the settings ask for
        and the budget allows (131,072 at least), unless given.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    ShapeError, DTypeError, NonFiniteError, ZeroVectorError, InvalidInputError
        If the sources cannot be read, or hold what cannot be indexed; the file is named.
    ConfigError
        If a setting is bad, or the budget is too small for it.
    LockedError
        If another process builds to this directory, or has it open for changes.
    MissingExtraError
        If a file, or Ray, needs what is not installed.
    WorkerError
        If workers die again and again.

    Notes
    -----
    On disk it takes what the index takes twice, until it is done. What is left of a build that
    was stopped, or that met a bad file after others, is in ``.build`` in the directory; the next
    build of the same goes on from there, one of something else removes it.
    """
    if not isinstance(config, IndexConfig):
        raise ConfigError(f"config is {config!r}; expected an IndexConfig")
    if config.autopilot is not None:
        raise ConfigError("config has autopilot; expected settings that were chosen")
    config = with_finer_rows(config)
    if executor is not None and ray_address is not None:
        raise ConfigError("executor and ray_address are both given; expected one of them, or none")
    check_progress("progress", progress)
    budget = parse_bytes("memory_budget", memory_budget)
    most = 1 if config.tree is None else config.tree.num_leaves
    if check_count("num_shards", num_shards) > most:
        raise ConfigError(f"num_shards is {num_shards}; expected 1 to {most}, the number of leaves")
    if sample_rows is not None:
        sample_rows = check_count("sample_rows", sample_rows)
    runs_tasks = all(hasattr(executor, name) for name in ("run", "workers", "threads"))
    if executor is not None and not runs_tasks:
        raise ConfigError(f"executor is {executor!r}; expected an Executor, or None")
    root = check_path("out", out)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"out is {root}, which is not a directory")
    work = root / WORK
    runs = executor or (LocalExecutor() if ray_address is None else RayExecutor(ray_address))
    with _held(work):
        before = set(work.iterdir())
        try:
            opened = Sources.of(sources, work)
            if not runs.shares_memory and not opened.in_files:
                opened = opened.in_memory_kept(work)
            queries = _training_queries(training_queries, opened.dimension, config)
            config.check_dimension(opened.dimension)
            check_count_of_rows(opened.num_rows, config)
            names = checked_names(docids, opened.num_rows)
            itemsize = opened.dtype.itemsize
            shape = (opened.num_rows, opened.dimension, itemsize)
            parts = portions(config, *shape, budget, runs.workers, sample_rows)
        except BaseException:
            _remove_all(work, but=before)  # what an earlier build has left is of use
            raise
        job = _Job(opened, config, work.absolute(), parts, runs, queries, progress)
        try:
            job.run(Finish(root, work, num_shards, parts.bucket_bytes), names)
        finally:
            if executor is None:
                runs.close()
        _remove_all(work, but={work / LOCK_FILE})
    return root


@contextmanager
def _held(work: Path) -> Iterator[None]:
    """Hold the folder of a build, made if it is not there, and removed if nothing is left in it."""
    made = [] if work.parent.exists() else [work.parent]
    lock = _locked(work)
    try:
        with lock:
            yield
    finally:
        if os.name != "posix":
            with suppress(OSError):  # open elsewhere by now
                (work / LOCK_FILE).unlink(missing_ok=True)
        for folder in (work, *made):
            with suppress(OSError):  # something is in it
                folder.rmdir()


def _locked(work: Path) -> DirectoryLock:
    for _ in range(_ROUNDS):
        work.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # a build that ended meanwhile has removed it
            return DirectoryLock(work, "open")
    return DirectoryLock(work, "open")


def _remove_all(work: Path, but: set[Path]) -> None:
    for path in set(work.iterdir()) - but:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _training_queries(given: object, dimension: int, config: IndexConfig) -> F32 | None:
    if given is None:
        return None
    from swann.autopilot import check_sample_queries

    if config.distance_measure == SQUARED_L2:
        raise ConfigError("training_queries teach nothing under squared_l2; leave them out")
    measure = config.distance_measure
    return check_sample_queries(given, dimension, measure, "training_queries")


@dataclass
class _Step:
    """Tasks of a kind and the files that they make."""

    function: Callable[[Any], dict[str, Any]]
    tasks: list[Any]
    told: list[dict[str, Any]]


class _Job:
    """One build."""

    def __init__(
        self,
        sources: Sources,
        config: IndexConfig,
        work: Path,
        parts: Portions,
        executor: Executor,
        queries: F32 | None,
        progress: Progress | None,
    ) -> None:
        self.sources = sources
        self.config = config
        self.work = work
        self.parts = parts
        self.executor = executor
        self.queries = queries
        self.progress = progress
        self.spans = sources.spans(parts.span_rows)
        self.used: set[str] = set()
        self.makers: dict[str, tuple[_Step, int]] = {}

    def run(self, finish: Finish, names: Docids | None) -> None:
        checks = self.step("check", check_span, self.check_tasks())
        longest = max(told["longest"] for told in checks.told)
        paths = tuple(task.out for task in checks.tasks)
        trained = self.name("train", self.config.to_dict(), paths, _digest(self.queries))
        local = self.executor.shares_memory
        task = Train(
            self.config,
            paths,
            self.queries,
            self.sources.num_rows,
            self.executor.threads if local else 0,
            trained,
            self.report if local else None,
        )
        self.step("train", train, [task])
        bits = square_bits(longest, self.sources.num_rows)
        self.map_tasks_done(trained, bits, finish, names)

    def map_tasks_done(self, trained: str, bits: int, finish: Finish, names: Any) -> None:
        maps = self.step("map", map_span, self.map_tasks(trained, bits))
        firsts = tuple(first for first, _ in self.spans)
        self.remove_others()
        for _ in range(_ROUNDS):
            lost = finish.run(
                self.executor, maps.tasks, maps.told, firsts, trained, bits, self.report
            )
            if not lost:
                break
            self.again(lost)
        else:
            raise InvalidInputError(f"results in {self.work} are damaged again and again: {lost}")
        finish.commit(names, self.executor, self.report)

    # ---- Tasks

    def check_tasks(self) -> list[Check]:
        sources, config = self.sources, self.config
        ids = _sample_ids(sources.num_rows, self.parts.sample_rows, config.seed)
        tasks = []
        for first, last in self.spans:
            inside = slice(*np.searchsorted(ids, [first, last]))
            told = [config.distance_measure, config.seed, len(ids), sources.num_rows, first, last]
            out = self.name("check", *told, sources.fingerprint_of(first, last))
            part = sources.part_of(first, last)
            threads = self.executor.threads
            tasks.append(Check(part, first, last, config, ids[inside] - first, threads, out))
        return tasks

    def map_tasks(self, trained: str, bits: int) -> list[Map]:
        sources, tasks = self.sources, []
        for first, last in self.spans:
            told = [trained, bits, first, last, sources.fingerprint_of(first, last)]
            out = self.name("map", *told)
            part = sources.part_of(first, last)
            tasks.append(Map(part, first, last, trained, bits, self.executor.threads, out))
        return tasks

    def name(self, kind: str, *told: Any) -> str:
        """Return the file of a task's result; what went in tells its name, wherever it lies."""
        plain = [_plain(one) for one in told]
        path = str(self.work / f"{kind}-{digest_of_names(kind, *plain)}.swannsec")
        self.used.add(path)
        return path

    # ---- Doing them

    def step(self, stage: str, function: Callable[[Any], dict[str, Any]], tasks: list[T]) -> _Step:
        """Do tasks, and what they turn out to have lost before."""
        step = _Step(function, tasks, [])
        for number, task in enumerate(tasks):
            self.makers[task.out] = (step, number)  # type: ignore[attr-defined]
        done = 0

        def on_done(_: int, told: dict[str, Any]) -> None:
            nonlocal done
            done += "lost" not in told
            self.report(stage, done, len(tasks))

        step.told = self.executor.run(function, tasks, on_done)
        for _ in range(_ROUNDS):
            lost = {path for told in step.told for path in told.get("lost", [])}
            if not lost:
                return step
            self.again(sorted(lost))
            undone = [i for i, told in enumerate(step.told) if "lost" in told]
            again = self.executor.run(function, [tasks[i] for i in undone], on_done)
            for number, told in zip(undone, again, strict=True):
                step.told[number] = told
        raise InvalidInputError(f"results in {self.work} are damaged again and again: {lost}")

    def again(self, lost: list[str]) -> None:
        """Make results again that are missing or damaged, and what these need."""
        for path in lost:
            step, number = self.makers[path]
            Path(path).unlink(missing_ok=True)
            [told] = self.executor.run(step.function, [step.tasks[number]])
            if "lost" in told:
                self.again(told["lost"])
                [told] = self.executor.run(step.function, [step.tasks[number]])
            step.told[number] = told

    def remove_others(self) -> None:
        """Remove what another build left behind."""
        for path in self.work.glob("*.swannsec"):
            if str(path) not in self.used:
                path.unlink(missing_ok=True)

    def report(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)


def _plain(told: Any) -> Any:
    """Return what stays the same wherever the folder lies."""
    if isinstance(told, tuple):
        return [_plain(one) for one in told]
    if isinstance(told, str) and told.endswith(".swannsec"):
        return Path(told).name
    return told


def _digest(array: F32 | None) -> str:
    return "" if array is None else hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _sample_ids(n: int, size: int, seed: int) -> NDArray[np.int64]:
    """Draw distinct rows, ascending."""
    if size >= n:
        return np.arange(n)
    rng = np.random.default_rng([seed, 6])
    return np.sort(rng.choice(n, size, replace=False, shuffle=False))

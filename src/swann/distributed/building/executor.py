"""Who runs tasks: this process, a pool of processes, or Ray.

A task is a function of a module and one picklable argument; what it returns pickles too. Tasks
write their results under names that tell what went in, so it does no harm to run one twice: a
worker that dies costs its task's time, nothing else.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from swann.config import check_count
from swann.errors import ConfigError, MissingExtraError, WorkerError

__all__ = ["Executor", "LocalExecutor", "ProcessExecutor", "RayExecutor"]

T = TypeVar("T")
R = TypeVar("R")

Done = Callable[[int, Any], None]
"""Called as ``on_done(number, result)`` when a task is done, in any order."""

_TRIES = 5


class Executor(Protocol):
    """Runs tasks.

    Attributes
    ----------
    workers : int
        Tasks of this machine that run at a time.
    threads : int
        What a task may use; 0 means all cores.
    shares_memory : bool
        Whether tasks run in this process: their arguments may be arrays.
    """

    workers: int
    threads: int
    shares_memory: bool

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], on_done: Done | None = None
    ) -> list[R]:
        """Return the results in the order of the tasks.

        Raises
        ------
        WorkerError
            If a task's workers died again and again.
        Exception
            What a task raised; others may have been done meanwhile.
        """

    def close(self) -> None:
        """End the workers."""


class LocalExecutor:
    """Runs one task after another in this process, on all cores.

    Parameters
    ----------
    threads : int
        0 means all cores.
    """

    workers = 1
    shares_memory = True

    def __init__(self, threads: int = 0) -> None:
        self.threads = check_count("threads", threads, minimum=0)

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], on_done: Done | None = None
    ) -> list[R]:
        """See `Executor.run`."""
        results = []
        for number, task in enumerate(tasks):
            results.append(function(task))
            if on_done is not None:
                on_done(number, results[-1])
        return results

    def close(self) -> None:
        """Nothing is to be ended."""


class ProcessExecutor:
    """Runs tasks in processes of their own, which are started anew when one dies.

    Parameters
    ----------
    workers : int
        Processes.
    threads : int
        Of each.
    tries : int
        Times that workers may die before another task is done.
    """

    shares_memory = False

    def __init__(self, workers: int = 2, threads: int = 1, tries: int = _TRIES) -> None:
        self.workers = check_count("workers", workers)
        self.threads = check_count("threads", threads, minimum=0)
        self.tries = check_count("tries", tries)
        self._pool: Any = None

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], on_done: Done | None = None
    ) -> list[R]:
        """See `Executor.run`. When one worker dies, the others are ended and started anew."""
        from concurrent.futures import as_completed
        from concurrent.futures.process import BrokenProcessPool

        results: dict[int, R] = {}
        deaths = 0  # since a task was done
        while len(results) < len(tasks):
            waiting = [i for i in range(len(tasks)) if i not in results]
            pool = self._started()
            futures: dict[Any, int] = {}
            try:
                pending = iter(waiting)
                for number in _some(pending, self.workers):
                    futures[pool.submit(function, tasks[number])] = number
                while futures:
                    future = next(as_completed(futures))
                    number = futures.pop(future)
                    results[number] = future.result()
                    deaths = 0
                    if on_done is not None:
                        on_done(number, results[number])
                    for number in _some(pending, 1):
                        futures[pool.submit(function, tasks[number])] = number
            except BrokenProcessPool:
                self.close()
                deaths += 1
                if deaths >= self.tries:
                    raise WorkerError(
                        f"workers died {deaths} times while tasks of {function.__name__} ran, and "
                        "none was done"
                    ) from None
            except BaseException:
                self.close()
                raise
        return [results[i] for i in range(len(tasks))]

    def pids(self) -> list[int]:
        """Return the processes that run now."""
        return [] if self._pool is None else list(self._pool._processes or ())

    def close(self) -> None:
        """End the workers now: what they do is lost, but `run` returns when all is done.

        They are not waited for: one that was killed while it took a task may have left its lock
        behind, and the others would wait for that for ever.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            workers = list((pool._processes or {}).values())
            for process in workers:
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)

    def _started(self) -> Any:
        if self._pool is None:
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor

            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_end_with,
                initargs=(os.getpid(),),
            )
        return self._pool

    def __enter__(self) -> ProcessExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end_with(parent: int) -> None:
    """End this worker when the process dies that began it, however that dies."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _some(numbers: Any, count: int) -> list[int]:
    return [number for _, number in zip(range(count), numbers, strict=False)]


class RayExecutor:
    """Runs tasks on Ray, one CPU each; Ray runs those of dead workers again. Needs [ray].

    Files must be where every node finds them, under the same path.

    Parameters
    ----------
    address : str, optional
        Of a cluster; without, the one that this process is in, or a new one on this machine.
    threads : int
        Of each task, and the CPUs that it asks for.
    tries : int
        Times that a task is begun at most.

    Raises
    ------
    MissingExtraError
        If ray is not installed.
    """

    shares_memory = False

    def __init__(self, address: str | None = None, threads: int = 1, tries: int = _TRIES) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("Ray is not installed: pip install 'swann[ray]'") from error
        self._ray = ray
        self.threads = check_count("threads", threads)
        self.tries = check_count("tries", tries)
        self.workers = 1  # each task has the budget of memory for itself
        self._address = address

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], on_done: Done | None = None
    ) -> list[R]:
        """See `Executor.run`."""
        ray = self._ray
        if not ray.is_initialized():
            ray.init(address=self._address, log_to_driver=False, include_dashboard=False)
        remote = ray.remote(num_cpus=self.threads, max_retries=self.tries - 1)(function)
        references = {remote.remote(task): number for number, task in enumerate(tasks)}
        results: dict[int, R] = {}
        left = list(references)
        try:
            while left:
                ready, left = ray.wait(left, num_returns=1)
                for reference in ready:
                    number = references[reference]
                    results[number] = ray.get(reference)
                    if on_done is not None:
                        on_done(number, results[number])
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
            raise WorkerError(
                f"workers died {self.tries} times while a task of {function.__name__} ran: {error}"
            ) from error
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, Exception) else ConfigError(str(error)) from error
        finally:
            for reference in left:
                ray.cancel(reference, force=True)
        return [results[i] for i in range(len(tasks))]

    def close(self) -> None:
        """Leave Ray running: others may use it."""

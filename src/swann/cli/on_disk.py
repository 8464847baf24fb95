"""Building what memory does not hold, from the command line."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np

from swann.autopilot import choose
from swann.cli import show
from swann.cli.places import writing_to
from swann.config import AutopilotConfig, IndexConfig, ReorderType
from swann.distance import DistanceMeasure
from swann.distributed import LocalExecutor, ProcessExecutor, RayExecutor, build
from swann.distributed.building.build import WORK
from swann.errors import ConfigError, LockedError
from swann.index.disk.store import SUFFIX
from swann.sources import Sources

__all__ = ["build_on_disk", "how_to_go_on", "is_unfinished", "settings_for"]

_ROWS_MEASURED = 1000


def build_on_disk(
    db: str,
    out: Path,
    config: IndexConfig,
    reasons: list[str],
    *,
    memory: str,
    shards: int,
    processes: int | None,
    ray_address: str | None,
    threads: int | None,
    training_queries: object,
) -> None:
    """Build, and say what was made, and for which reasons."""
    if out.suffix == SUFFIX:
        raise ConfigError(f"OUT is {out}; expected a directory where --memory or --shards is given")
    if processes is not None and ray_address is not None:
        raise ConfigError("--processes and --ray-address are given; expected one of them at most")
    executor: LocalExecutor | ProcessExecutor | RayExecutor
    if ray_address is not None:
        executor = RayExecutor(ray_address, threads or 1)
    elif processes is not None:
        executor = ProcessExecutor(processes, threads or 1)
    else:
        executor = LocalExecutor(threads or 0)
    start = time.perf_counter()
    try:
        with show.progress() as bars, writing_to(out):
            build(
                db,
                config,
                out,
                num_shards=shards,
                memory_budget=memory,
                executor=executor,
                training_queries=training_queries,
                progress=bars.update,
            )
    except LockedError:
        raise
    except BaseException:
        if is_unfinished(out):
            show.warn(how_to_go_on(out))
        raise
    finally:
        executor.close()
    for reason in reasons:
        show.say(reason)
    parts = "" if shards == 1 else f", {shards} shards"
    built = time.perf_counter() - start
    show.say(f"built in {built:.1f} s, saved to {out} ({show.disk_size(out)}{parts})")


def is_unfinished(out: Path) -> bool:
    """Whether a directory holds what was done of a build that is not at its end."""
    return any((out / WORK).glob("*.swannsec"))


def how_to_go_on(out: Path) -> str:
    """Say what can be done with an unfinished build."""
    return (
        f"what was done of the build is kept in {out / WORK}: the same command goes on from there; "
        "to begin anew, remove that directory"
    )


def settings_for(
    sources: Sources,
    measure: DistanceMeasure,
    num_neighbors: int,
    seed: int,
    quantize: ReorderType,
) -> tuple[IndexConfig, list[str]]:
    """Choose settings from the size of what is to be indexed; return the reasons, too.

    Leaves to search and candidates are those that usually suffice: nothing is measured.
    """
    rows = sources.read(0, min(_ROWS_MEASURED, sources.num_rows)).astype(np.float64)
    length = float(np.sqrt((rows**2).sum(axis=1)).mean())
    length = length if np.isfinite(length) else 1.0  # the build says which value it is
    size = sources.num_rows, sources.dimension
    wanted = AutopilotConfig(quantize=quantize)
    choice = choose(*size, measure, num_neighbors, autopilot=wanted, row_length=length, seed=seed)
    reasons = [f"chosen: {reason}" for reason in choice.reasons]
    tree, reorder = choice.config.tree, choice.config.reorder
    if tree is not None:
        candidates = 0 if reorder is None else reorder.reordering_num_neighbors
        reasons.append(
            f"not measured: {tree.num_leaves_to_search:,} leaves to search, {candidates:,} "
            "candidates to reorder; `swann eval` tells what they find, and a search can ask for "
            "more"
        )
    return dataclasses.replace(choice.config, autopilot=None), reasons

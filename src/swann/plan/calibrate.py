"""What things take on the machine that this runs on.

Searches of made-up indexes of different sizes are timed, alone and in batches, and the constants of
`swann.plan.speed` are fitted to the times. Codes and rows are random numbers: how long a scan takes
does not depend on what is scanned. Builds are real ones, of random vectors.
"""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig, IndexConfig, ReorderConfig, TreeConfig, check_progress
from swann.errors import ConfigError
from swann.index.building.build import build_index
from swann.index.packed import PackedIndex
from swann.index.routes import build_routes
from swann.plan.machine import THIS, Machine
from swann.plan.profile import Look
from swann.plan.speed import BUILD_TERMS, QUERY_TERMS, Speed, build_terms, fit, query_terms
from swann.searcher import Searcher

__all__ = [
    "Built",
    "Observation",
    "StageTimer",
    "cache_bytes",
    "calibrate",
    "measured_machine",
    "serial_share",
    "speed_from",
    "time_builds",
    "time_query",
    "time_searches",
]

F32 = NDArray[np.float32]
Report = Callable[[str, int, int], None]

_QUERIES, _BATCH = 200, 1024
_REPEATS = 3

# Datapoints, dimensions, leaves, then pairs of leaves and candidates. Small ones fit the cache.
_INDEXES = (
    (20_000, 32, 140, ((5, 20), (70, 20), (70, 200))),
    (20_000, 256, 140, ((5, 20), (70, 20), (70, 200))),
    (40_000, 64, 4_000, ((5, 20), (400, 20), (5, 400))),
    (800_000, 96, 900, ((5, 20), (45, 20), (45, 400))),
    (1_500_000, 64, 1_200, ((10, 20), (120, 20), (60, 400))),
)
_STAGES = {
    "check": ("check",),
    "tree": ("tree",),
    "assign": ("assign", "spill", "centroids"),
    "codebook": ("codebook",),
    "encode": ("encode",),
}


class Observation(NamedTuple):
    """A search that was timed: nanoseconds a query, alone and in a batch."""

    config: IndexConfig
    n: int
    dimension: int
    look: Look
    code_bytes: float
    alone: float
    batch: float


class Built(NamedTuple):
    """A build that was timed: CPU seconds by stage, on one thread."""

    config: IndexConfig
    n: int
    dimension: int
    stages: dict[str, float]


def calibrate(report: Report | None = None) -> Machine:
    """Measure this machine; takes about a minute, one GB of memory and a machine left alone.

    Parameters
    ----------
    report : callable, optional
        Called as ``report(stage, done, total)``.

    Returns
    -------
    Machine
        Named "this". Its network and storage are not measured: they are what `Machine` takes
        unless told.

    Raises
    ------
    ConfigError
        If this system does not tell its memory, as Windows does not, or `report` cannot be called.
    """
    return measured_machine(check_progress("report", report))[0]


def measured_machine(report: Report | None = None) -> tuple[Machine, list[Observation]]:
    """Do what `calibrate` does; return the searches that were timed, too."""

    def say(done: int) -> None:
        if report is not None:
            report("measuring", done, len(_INDEXES) + 4)

    memory = _memory_bytes()
    seen = time_searches(say)
    builds, serial = time_builds()
    say(len(_INDEXES) + 3)
    speed = speed_from(seen, builds, serial, cache_bytes())
    machine = Machine(
        name=THIS,
        cores=kernels.hardware_threads(),
        memory=memory / 1e9,
        bandwidth=_bandwidth(kernels.hardware_threads()),
        cache=cache_bytes() / 1e6,
        source="measured by swann plan --calibrate; network and storage assumed",
        speed=speed,
    )
    say(len(_INDEXES) + 4)
    return machine, seen


def speed_from(seen: list[Observation], builds: list[Built], serial: float, cache: float) -> Speed:
    """Return the speed that explains searches and builds of this machine best."""
    alone = fit_queries(seen, cache, batch=False)
    # Batches read few codes from memory: too few to tell what a byte takes.
    batch = fit_queries(seen, cache, batch=True, known={"far_code": alone["far_code"]})
    return Speed(
        about=f"{_cpu_name()}, {kernels.active_level()}, measured {datetime.date.today()}",
        alone=alone,
        batch=batch,
        build=fit_builds(builds),
        serial=serial,
    )


# ---- Queries


def time_searches(say: Callable[[int], None] = lambda done: None) -> list[Observation]:
    """Time searches of made-up indexes."""
    rng = np.random.default_rng(0)
    seen = []
    for done, (n, dimension, leaves, limits) in enumerate(_INDEXES):
        say(done)
        packed = made_up(n, dimension, leaves, rng)
        queries = rng.standard_normal((_BATCH, dimension), dtype=np.float32)
        seen += [observe(packed, queries, *pair) for pair in limits]
    say(len(_INDEXES))
    packed = made_up(40_000, 64, 16_000, rng, rounded=True)
    queries = rng.standard_normal((_BATCH, 64), dtype=np.float32)
    seen.append(observe(packed, queries, 5, 20))
    say(len(_INDEXES) + 1)
    seen += [_scan_of_rows(n, rng) for n in (20_000, 200_000)]
    say(len(_INDEXES) + 2)
    return seen


def observe(packed: PackedIndex, queries: F32, leaves: int, candidates: int) -> Observation:
    """Time searches of an index with so many leaves and candidates."""
    searcher = Searcher(packed)
    alone, batch = time_query(searcher, queries, leaves, candidates)
    n = packed.num_datapoints
    scanned = _scanned(packed, queries, leaves)
    codes = 0 if packed.codes is None else packed.codes.nbytes
    look = Look(leaves, scanned, candidates)
    return Observation(packed.config, n, packed.dimension, look, max(1.0, codes), alone, batch)


def time_query(
    searcher: Searcher, queries: F32, leaves: int, candidates: int
) -> tuple[float, float]:
    """Return nanoseconds of CPU time a query, alone and in a batch: the least of some rounds."""
    single = queries[:_QUERIES]
    alone = batch = np.inf
    for _ in range(_REPEATS):
        start = time.thread_time()
        for query in single:
            searcher.search(query, None, candidates, leaves)
        alone = min(alone, (time.thread_time() - start) / len(single))
        start = time.thread_time()
        searcher.search_batched(queries, None, candidates, leaves)
        batch = min(batch, (time.thread_time() - start) / len(queries))
    return alone * 1e9, batch * 1e9


def fit_queries(
    seen: list[Observation],
    cache: float,
    batch: bool,
    known: dict[str, float] | None = None,
) -> dict[str, float]:
    """Return the constants of `QUERY_TERMS` that explain what was timed best."""
    rows = [
        query_terms(
            o.config,
            o.n,
            o.dimension,
            o.look,
            cache=cache,
            code_bytes=o.code_bytes,
            batch=batch,
        )
        for o in seen
    ]
    return fit(rows, [o.batch if batch else o.alone for o in seen], QUERY_TERMS, known)


def made_up(
    n: int, dimension: int, leaves: int, rng: np.random.Generator, rounded: bool = False
) -> PackedIndex:
    """Return an index of equal leaves whose arrays hold random numbers."""
    config = IndexConfig(
        num_neighbors=10,
        distance_measure="dot_product",
        tree=TreeConfig(num_leaves=leaves, num_leaves_to_search=1, quantize_centroids=rounded),
        score=AHConfig(dimensions_per_block=2),
        reorder=ReorderConfig(reordering_num_neighbors=20),
    )
    starts = np.linspace(0, n, leaves + 1).astype(np.uint32)
    groups = int((-(-np.diff(starts.astype(np.int64)) // kernels.GROUP)).sum())
    blocks = kernels.num_blocks(dimension, 2)
    centroids = rng.standard_normal((leaves, dimension), dtype=np.float32)
    block = rng.standard_normal((4096, dimension), dtype=np.float32)
    rows = np.resize(block, (n, dimension))
    return PackedIndex(
        config=config,
        num_datapoints=n,
        dimension=dimension,
        leaf_starts=starts,
        ids=rng.permutation(n).astype(np.uint32),
        centroids=centroids,
        spreads=np.full(leaves, 0.1, np.float32),
        rows=rows,
        codes=rng.integers(256, size=(groups, blocks, 16), dtype=np.uint8),
        codebook=rng.standard_normal((dimension, 16), dtype=np.float32) * np.float32(0.3),
        routes=build_routes(config, centroids, 1),
    )


def _scan_of_rows(n: int, rng: np.random.Generator) -> Observation:
    """Time brute force."""
    dimension = 64
    config = IndexConfig(num_neighbors=10, distance_measure="dot_product")
    packed = PackedIndex(
        config=config,
        num_datapoints=n,
        dimension=dimension,
        leaf_starts=np.array([0, n], np.uint32),
        rows=rng.standard_normal((n, dimension), dtype=np.float32),
    )
    queries = rng.standard_normal((_BATCH, dimension), dtype=np.float32)
    alone, batch = time_query(Searcher(packed), queries[:100], 1, 10)
    return Observation(config, n, dimension, Look(1, float(n), 0), 1.0, alone, batch)


def _scanned(packed: PackedIndex, queries: F32, leaves: int) -> float:
    """Return how many datapoints lie in the leaves that queries visit."""
    assert packed.centroids is not None
    sizes = np.diff(packed.leaf_starts.astype(np.int64))
    if sizes.min() == sizes.max():
        return float(leaves * sizes[0])
    some = queries[:256]
    if packed.config.distance_measure == "squared_l2":
        squares = np.einsum("ij,ij->i", packed.centroids, packed.centroids)
        scores = some @ packed.centroids.T - squares / 2
    else:
        scores = some @ packed.centroids.T
        if packed.spreads is not None:
            scores += np.linalg.norm(some, axis=1)[:, None] * packed.spreads
    leaves = min(leaves, packed.num_leaves)
    best = np.argpartition(-scores, leaves - 1, axis=1)[:, :leaves]
    return float(sizes[best].sum(axis=1).mean())


# ---- Builds


class StageTimer:
    """Counts the CPU seconds of the stages of a build, by the names of `BUILD_TERMS`."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.process_time()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Take a report of `build_index`."""
        now = time.process_time()
        name = next((name for name, parts in _STAGES.items() if stage in parts), stage)
        self.stages[name] = self.stages.get(name, 0.0) + now - self._last
        self._last = now


def fit_builds(seen: list[Built]) -> dict[str, float]:
    """Return the constants of `BUILD_TERMS` that explain builds best."""
    found = dict.fromkeys(BUILD_TERMS, 0.0)
    amounts = [build_terms(built.config, built.n, built.dimension) for built in seen]
    # Rows are kept in the pass that encodes.
    for names in (("check",), ("tree",), ("assign",), ("codebook",), ("encode", "rows")):
        rows = [{name: amount[name] for name in names} for amount in amounts]
        found |= fit(rows, [1e9 * built.stages[names[0]] for built in seen], names)
    return found


def time_builds() -> tuple[list[Built], float]:
    """Build indexes of random vectors; return also which share threads do not shorten."""
    rng = np.random.default_rng(0)
    seen = []
    for n, dimension in ((60_000, 64), (30_000, 256)):
        db = rng.standard_normal((n, dimension), dtype=np.float32)
        config = IndexConfig(
            num_neighbors=10,
            distance_measure="cosine",
            tree=TreeConfig(num_leaves=400, num_leaves_to_search=20),
            score=AHConfig(dimensions_per_block=2, anisotropic_quantization_threshold=0.2),
            reorder=ReorderConfig(reordering_num_neighbors=100),
        )
        timer, start = StageTimer(), time.perf_counter()
        build_index(db, config, num_threads=1, progress=timer.progress)
        one = time.perf_counter() - start
        seen.append(Built(config, n, dimension, timer.stages))
    threads = kernels.hardware_threads()
    if threads == 1:
        return seen, 0.2
    start = time.perf_counter()
    build_index(db, config, num_threads=threads)
    return seen, serial_share(one, time.perf_counter() - start, threads)


def serial_share(one: float, many: float, threads: int) -> float:
    """Return Amdahl's serial share from the seconds on one thread and on many.

    Examples
    --------
    >>> serial_share(10.0, 6.0, 2)
    0.2
    """
    ratio = many / one
    return round(min(1.0, max(0.0, (ratio * threads - 1.0) / (threads - 1.0))), 6)


# ---- The machine


def _bandwidth(threads: int) -> float:
    """Return gigabytes a second that all threads read together."""
    part = np.ones(16 * 2**20, np.float32)  # 64 MB a thread: more than a cache
    parts = [part.copy() for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(lambda p: np.max(p), parts))
            took = time.perf_counter() - start
            best = max(best, threads * part.nbytes / took / 1e9)
    return best


def cache_bytes() -> float:
    """Return what the last level of cache holds, 32 MB where the system does not say."""
    sizes = [
        int(file.read_text().strip().removesuffix("K"))
        for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    ]
    return max(sizes) * 1024.0 if sizes else 32e6


def _memory_bytes() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError) as error:
        raise ConfigError(
            "memory of this machine is not told by its system; expected a Machine of your own, "
            "or a .json file of one"
        ) from error


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()

"""Overhead, chaos and rolling of a distributed search: ``python -m benchmarks.cluster WHAT``.

``overhead`` compares a fan-out over workers with the same work in this process: the same head,
shards and merge, as many threads as there are workers. ``chaos`` kills workers while queries run,
``builds`` workers and drivers of builds.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import swann
from benchmarks.cluster import builds
from benchmarks.cluster.processes import processor_seconds
from benchmarks.paths import DATA
from swann.distributed import DistributedSearcher, build
from swann.distributed.opening import describe
from swann.distributed.storage import Storage
from swann.index.shards import merge

INDEX = DATA / "cluster"

Floats = NDArray[np.float32]
Here = Callable[[Floats, int], Any]
"""Searches with so many threads in this process."""


def glove() -> tuple[Floats, Floats]:
    """Return datapoints and queries of GloVe-100."""
    folder = DATA / "glove-100"
    if not (folder / "train.npy").exists():
        raise SystemExit("needs the data set: python -m benchmarks run --dataset glove-100")
    return np.load(folder / "train.npy"), np.load(folder / "test.npy")


def index_of(shards: int) -> tuple[Path, swann.Searcher]:
    """Return GloVe-100 in shards and whole; built once."""
    folder = INDEX / f"shards-{shards}"
    if not (folder / "manifest.json").exists():
        train, _ = glove()
        builder = swann.builder(train, 10, "cosine").tree(600, 30).score_ah(2, 0.2).reorder(100)
        build(train, builder.create_config(), folder, num_shards=shards)
    return folder, swann.load(folder)


def pool_of(kind: str) -> Any:
    """Return a pool; of Ray one whose actors claim no processors."""
    if kind != "ray":
        return kind
    import ray

    from swann.distributed.ray_pool import RayPool

    if not ray.is_initialized():
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    return RayPool(num_cpus=0)


def overhead(kind: str, shards: int, workers: int, count: int) -> None:
    """Print the time of a fan-out and of the same work in this process."""
    folder, _ = index_of(shards)
    _, queries = glove()
    here = searched_here(folder)
    with DistributedSearcher.open(
        folder, 2, workers=workers, pool=pool_of(kind), deadline=20
    ) as searcher:
        for _ in range(3):
            wanted, found = here(queries[:1000], 1), searcher.search_batched(queries[:1000])
            assert np.array_equal(wanted[0], found.indices)
            assert np.array_equal(wanted[1], found.distances)
        print(f"{kind}, {shards} shards, {workers} workers")
        print(one_by_one(here, searcher, queries[:count]))
        print(in_batches(here, searcher, queries, workers))
        print(processor_time(here, searcher, queries, workers))


def searched_here(folder: Path) -> Here:
    """Return what does the work of a fan-out in this process: the same head, shards and merge."""
    index = describe(Storage(folder)).index
    head, owners = index.open_head(), index.owners
    parts = [index.open_shard(i) for i in range(len(index.shards))]

    def here(some: Floats, threads: int) -> Any:
        choices = head.choose(some, 30, threads)
        found = []
        for number, shard in enumerate(parts):
            rows = np.flatnonzero((owners[choices.leaves] == number).any(axis=1)).astype(np.uint32)
            if len(rows):
                found.append((rows, shard.gather(some[rows], choices.of(rows), 10, 100, threads)))
        return merge(head.packed, found, len(some), 10, 100, threads)

    return here


def one_by_one(here: Here, searcher: DistributedSearcher, queries: Floats) -> str:
    """Time queries that come alone, here and there in turns."""
    times: dict[str, list[float]] = {"here": [], "there": []}
    for query in queries:
        for name, run in (
            ("here", lambda q=query: here(q[None], 1)),
            ("there", lambda q=query: searcher.search(q)),
        ):
            began = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - began))
    inside, fanned = np.array(times["here"]), np.array(times["there"])
    return (
        f"{len(queries)} queries one by one: p50 {np.median(fanned):.2f} ms, "
        f"p99 {np.quantile(fanned, 0.99):.2f}; in this process p50 {np.median(inside):.2f}, "
        f"p99 {np.quantile(inside, 0.99):.2f}; p50 of the difference "
        f"{np.median(fanned - inside):.2f} ms"
    )


def batch_of(queries: Floats, turn: int) -> Floats:
    """Return a thousand of ten thousand queries."""
    first = 1000 * (turn % 10)
    return queries[first : first + 1000]


def in_batches(here: Here, searcher: DistributedSearcher, queries: Floats, workers: int) -> str:
    """Time batches, here and there in turns, on one thread and on as many as there are workers."""
    ways: dict[str, Callable[[Floats], object]] = {
        "here, 1": lambda some: here(some, 1),
        f"here, {workers}": lambda some: here(some, workers),
        "there": searcher.search_batched,
        "there, parallel": searcher.search_batched_parallel,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(40):
        for name, search in ways.items():
            began = time.perf_counter()
            search(batch_of(queries, turn))
            times[name].append(1e3 * (time.perf_counter() - began))
    text = ", ".join(f"{n}: {np.median(t):.1f} ms" for n, t in times.items())
    more = np.median(times["there, parallel"]) / np.median(times[f"here, {workers}"]) - 1
    return f"batches of 1,000, median of 40: {text}; parallel {100 * more:+.0f} %"


def processor_time(here: Here, searcher: DistributedSearcher, queries: Floats, workers: int) -> str:
    """Tell, program by program, what batches on all threads take of the processors."""
    ways: dict[str, Callable[[Floats], object]] = {
        f"here, {workers}": lambda some: here(some, workers),
        "there, parallel": searcher.search_batched_parallel,
    }
    lines = []
    for name, search in ways.items():
        before = processor_seconds()
        for turn in range(50):
            search(batch_of(queries, turn))
        spent = {
            program: 20 * (seconds - before.get(program, 0.0))
            for program, seconds in processor_seconds().items()
        }
        each = ", ".join(f"{program} {ms:.1f}" for program, ms in spent.items() if ms >= 0.5)
        lines.append(f"processor ms a batch, {name}: {sum(spent.values()):.1f} ({each})")
    return "\n".join(lines)


def chaos(kind: str, shards: int, workers: int, count: int, kills: int) -> None:
    """Kill workers while queries run; print what was not as it should be."""
    folder, built = index_of(shards)
    _, queries = glove()
    queries = np.resize(queries, (count, queries.shape[1]))
    wanted = built.search_batched_parallel(queries)
    longest, wrong, incomplete, killed, late = 0.0, 0, 0, 0, 0
    done = threading.Event()
    progress = [0]
    with DistributedSearcher.open(
        folder, 2, workers=workers, pool=pool_of(kind), deadline=1.0
    ) as searcher:
        searcher.search_batched(queries[:100])

        def whole() -> bool:
            alive = all(member.handle.alive for member in searcher._fleet.members())
            return alive and all(n == 2 for n in searcher.health()["ready_replicas"])

        def kill() -> None:
            nonlocal killed
            rng = np.random.default_rng(0)
            while killed < kills and not done.is_set():
                time.sleep(0.02)
                if progress[0] < killed * count / kills or not whole():
                    continue  # with two replicas, one more may go when both are there
                members = searcher._fleet.members()
                handle: Any = members[int(rng.integers(len(members)))].handle
                os.kill(handle.pid if kind == "ray" else handle.process.pid, signal.SIGKILL)
                killed += 1
                while handle.alive and not done.is_set():  # until it is known to be gone
                    time.sleep(0.001)

        killer = threading.Thread(target=kill)
        killer.start()
        began = time.monotonic()
        for number, query in enumerate(queries):
            # Queries wait for kills that are due, so that all of them fall between queries' ends.
            while killed < kills and number > (killed + 1) * count / kills:
                time.sleep(0.001)
            start = time.perf_counter()
            found = searcher.search(query)
            took = time.perf_counter() - start
            longest, late = max(longest, took), late + (took > 1.0)
            incomplete += found.coverage < 1
            wrong += not (
                np.array_equal(found.indices, wanted.indices[number])
                and np.array_equal(found.distances, wanted.distances[number])
            )
            progress[0] = number + 1
        seconds = time.monotonic() - began
        done.set()
        killer.join()
        figures = searcher.metrics().figures()
    print(
        f"{kind}, {shards} shards, {workers} workers: {count} queries, {killed} workers killed in "
        f"{seconds:.0f} s: {incomplete} incomplete, {wrong} not those of one machine, {late} over "
        f"1 s, the longest {1e3 * longest:.0f} ms; {figures['hedges']} hedges, "
        f"{figures['failovers']} fail-overs, {figures['lost_workers']} workers replaced"
    )


def rolling(kind: str, workers: int, rolls: int) -> None:
    """Roll between two manifests while threads search; print failed and mixed answers."""
    _, queries = glove()
    some = queries[:50]
    (first, built), (second, _) = index_of(4), index_of(8)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train, _ = glove()
        other = swann.builder(train[:50_000], 10, "cosine").tree(200, 20).score_ah(2, 0.2)
        build(train[:50_000], other.reorder(100).create_config(), folder, num_shards=3)
        changed = swann.load(folder)
        wanted = [one.search_batched(some) for one in (built, changed)]
        counts = {"first": 0, "second": 0, "failed": 0, "mixed": 0}
        stop = threading.Event()
        with DistributedSearcher.open(
            first, 2, workers=workers, pool=pool_of(kind), deadline=5.0
        ) as searcher:

            def search() -> None:
                while not stop.is_set():
                    try:
                        found = searcher.search_batched(some)
                    except swann.SwannError:
                        counts["failed"] += 1
                        continue
                    fits = [np.array_equal(found.indices, one.indices) for one in wanted]
                    name = "first" if fits[0] else "second" if fits[1] else "mixed"
                    counts[name] += 1

            threads = [threading.Thread(target=search) for _ in range(2)]
            for thread in threads:
                thread.start()
            for turn in range(rolls):
                searcher.roll((folder, first, folder, second)[turn % 4])
            stop.set()
            for thread in threads:
                thread.join()
    print(f"{kind}: {rolls} rolls under load: {counts}")


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("what", choices=["overhead", "chaos", "rolling", "builds"])
    parser.add_argument("--pool", default="process", choices=["local", "process", "ray"])
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rolls", type=int, default=20)
    parser.add_argument("--builds", type=int, default=10, help="with 1 and with 4 shards, each")
    asked = parser.parse_args()
    if asked.what == "overhead":
        overhead(asked.pool, asked.shards, asked.workers, asked.queries or 1000)
    elif asked.what == "chaos":
        chaos(asked.pool, asked.shards, asked.workers, asked.queries or 10_000, asked.kills)
    elif asked.what == "rolling":
        rolling(asked.pool, asked.workers, asked.rolls)
    else:
        with tempfile.TemporaryDirectory() as folder:
            told = builds.chaos(Path(folder), asked.builds)
        print(
            f"{told['builds']} builds with 1 and 4 shards, {told['workers']} workers and "
            f"{told['drivers']} drivers killed: {told['others']} with other files"
        )


if __name__ == "__main__":
    main()

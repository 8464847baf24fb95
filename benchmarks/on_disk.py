"""A build from files of ten times its budget of memory: ``python -m benchmarks.on_disk``.

The vectors are made as in `benchmarks.expand`, in files of a million. A process of its own builds;
its memory is read in /proc from outside, every 10 ms: the most that was resident ever (VmHWM), and
the most that was its own (RssAnon) and mapped of files (RssFile). Then some hundred queries that
are not among the vectors are searched, and compared with exact neighbours; so is an index of a
part, which `swann.builder` built in memory with as many datapoints a leaf.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import swann
from benchmarks import expand
from benchmarks.datasets import find, prepare
from benchmarks.datasets.base import Floats, save
from benchmarks.exact import exact_neighbors, recall
from benchmarks.paths import DATA
from swann.distributed import LocalExecutor, ProcessExecutor, build
from swann.distributed.building.memory import parse_bytes

FOLDER = DATA / "on-disk"
A_FILE = 1_000_000
QUERIES = 300
K = 10
SHARES = (0.005, 0.02, 0.08)
"""Of the leaves that are visited."""
FIELDS = ("VmHWM", "RssAnon", "RssFile")


def write_files(rows: int) -> Path:
    """Write the vectors, unless they are there; return their folder."""
    folder = FOLDER / f"vectors-{rows}"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    source = prepare(find(expand.SOURCE))
    real = source.train[np.random.default_rng(expand.SEED).permutation(len(source.train))]
    pieces = _pieces(real, rows)
    for number, first in enumerate(range(0, rows, A_FILE)):
        count = min(A_FILE, rows - first)
        out = np.empty((count, real.shape[1]), np.float32)
        filled = 0
        while filled < count:
            piece = next(pieces)
            taken = piece[: count - filled]
            out[filled : filled + len(taken)] = taken
            filled += len(taken)
        save(folder / f"part-{number:04}.npy", out)
    (folder / "done").touch()
    return folder


def _pieces(real: Floats, rows: int) -> Iterator[Floats]:
    yield real
    near = expand._near(real)
    for number in range(-(-rows // expand.CHUNK)):
        yield expand.made(real, near, number)


def settings(rows: int, leaves: int, reorder: str) -> Any:
    """Return the builder that describes what is built; its array is read for its shape alone."""
    shape = np.broadcast_to(np.float32(1), (max(rows, 1), 100))
    return described(swann.builder(shape, K, "dot_product"), leaves, reorder)


def described(builder: Any, leaves: int, reorder: str) -> Any:
    """Set what is built."""
    kind = swann.ReorderType[reorder]
    return builder.tree(leaves, max(1, leaves // 50)).score_ah(2, 0.2).reorder(100, kind)


def build_there(asked: dict[str, Any]) -> None:
    """Build in this process; print a line of JSON for each step that is told."""
    config = settings(1, asked["leaves"], asked["reorder"]).create_config()

    def progress(stage: str, done: int, total: int) -> None:
        print(json.dumps([time.time(), stage, done, total]), flush=True)

    workers = asked["workers"]
    executor = LocalExecutor() if workers == 0 else ProcessExecutor(workers)
    try:
        build(
            f"{asked['vectors']}/part-*.npy",
            config,
            asked["out"],
            num_shards=asked["shards"],
            memory_budget=asked["budget"],
            executor=executor,
            progress=progress,
        )
    finally:
        executor.close()


def watched(asked: dict[str, Any]) -> dict[str, Any]:
    """Build in a process of its own; return its memory, and how long each stage took."""
    command = [sys.executable, "-m", "benchmarks.on_disk", "--asked", json.dumps(asked)]
    began = time.time()
    log = FOLDER / "progress.jsonl"
    memory: dict[str, dict[str, int]] = {}
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out)
        stage, seen = "start", 0
        while process.poll() is None:
            size = log.stat().st_size
            if size != seen:
                seen = size
                stage = json.loads(log.read_text().rstrip().split("\n")[-1])[1]
            for pid in [process.pid, *_children(process.pid)]:
                for name, value in _memory(pid).items():
                    most = memory.setdefault(stage, {})
                    most[name] = max(most.get(name, 0), value)
            time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"the build ended with {process.returncode}")
    told = [json.loads(line) for line in log.read_text().splitlines()]
    seconds: dict[str, float] = {}
    last = began
    for at, stage, _, _ in told:
        seconds[stage] = seconds.get(stage, 0.0) + at - last
        last = at
    seconds["rest"] = time.time() - last
    peak = {name: max(most.get(name, 0) for most in memory.values()) for name in FIELDS}
    return {"total": time.time() - began, "seconds": seconds, "peak": peak, "stages": memory}


def _children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _memory(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    found = (line.split() for line in lines if line.split(":")[0] in FIELDS)
    return {words[0][:-1]: int(words[1]) * 1024 for words in found}


def queries_of(vectors: Path, first: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return queries, and their exact neighbours among the first vectors, a file at a time."""
    queries = prepare(find(expand.SOURCE)).test[:QUERIES]
    scores = np.empty((QUERIES, 0), np.float32)
    ids = np.empty((QUERIES, 0), np.int64)
    begin = 0
    for path in sorted(vectors.glob("part-*.npy")):
        rows = np.load(path)[: first - begin]
        if not len(rows):
            break
        near = exact_neighbors(rows, queries, K, "dot_product").astype(np.int64)
        found = np.einsum("qkd,qd->qk", rows[near], queries)
        scores, ids = np.hstack([scores, found]), np.hstack([ids, near + begin])
        begin += len(rows)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    return queries, np.take_along_axis(ids, best, axis=1)


def recalls(searcher: swann.Searcher, leaves: int, vectors: Path, rows: int) -> dict[str, float]:
    """Return recall 10@10 by the number of leaves that are visited."""
    queries, true = queries_of(vectors, rows)
    visited = [max(1, round(share * leaves)) for share in SHARES]
    return {
        f"{some} of {leaves}": recall(
            searcher.search_batched_parallel(queries, leaves_to_search=some).indices, true, K
        )
        for some in visited
    }


def part_in_memory(vectors: Path, rows: int, leaves: int, reorder: str) -> dict[str, float]:
    """Build an index of the first vectors in memory; return its recalls."""
    paths = sorted(vectors.glob("part-*.npy"))
    some = np.concatenate([np.load(path) for path in paths[: -(-rows // A_FILE)]])[:rows]
    searcher = described(swann.builder(some, K, "dot_product"), leaves, reorder).build()
    return recalls(searcher, leaves, vectors, rows)


def main() -> None:
    """Do all of it and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_disk", description=__doc__)
    parser.add_argument("--rows", type=int, default=12_500_000, help="of 400 bytes each")
    parser.add_argument("--budget", default="500MB")
    parser.add_argument("--leaves", type=int, default=3_000)
    parser.add_argument("--reorder", default="FLOAT32", choices=[t.name for t in swann.ReorderType])
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 is this one")
    parser.add_argument("--part", type=int, default=10, help="the part is one of so many")
    parser.add_argument("--keep", action="store_true", help="the vectors and the index")
    parser.add_argument("--asked", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.asked:
        build_there(json.loads(given.asked))
        return
    vectors, out = write_files(given.rows), FOLDER / "index"
    shutil.rmtree(out, ignore_errors=True)
    asked = {
        "vectors": str(vectors),
        "out": str(out),
        "budget": parse_bytes("--budget", given.budget),
        **{name: getattr(given, name) for name in ("leaves", "reorder", "shards", "workers")},
    }
    figures = watched(asked)
    size = sum(path.stat().st_size for path in vectors.glob("part-*.npy"))
    figures |= {"input": size, "index": sum(path.stat().st_size for path in out.iterdir())}
    report(figures, given)
    found = recalls(swann.load(out), given.leaves, vectors, given.rows)
    rows, leaves = given.rows // given.part, given.leaves // given.part
    part = part_in_memory(vectors, rows, leaves, given.reorder)
    print("recall 10@10:", *(f"{name} leaves {value:.4f};" for name, value in found.items()))
    print(
        f"of {rows:,} rows, built in memory:", *(f"{n} {value:.4f};" for n, value in part.items())
    )
    if not given.keep:
        shutil.rmtree(FOLDER)


def report(figures: dict[str, Any], given: argparse.Namespace) -> None:
    """Print what a build took."""
    mb = 1e6
    size, peak = figures["input"], figures["peak"]
    print(
        f"{given.rows:,} rows, {size / mb:,.0f} MB, in a budget of {given.budget}, {given.leaves} "
        f"leaves, rows {given.reorder}, {given.shards} shards: {figures['total']:.0f} s "
        f"({size / mb / figures['total']:.0f} MB/s), index {figures['index'] / mb:,.0f} MB; "
        + ", ".join(f"{name} {peak[name] / mb:.0f} MB" for name in FIELDS)
    )
    for stage, seconds in figures["seconds"].items():
        most = figures["stages"].get(stage, {})
        memory = ", ".join(f"{name} {most.get(name, 0) / mb:.0f}" for name in FIELDS[1:])
        print(f"  {stage}: {seconds:.1f} s, {size / mb / max(seconds, 1e-9):.0f} MB/s; {memory} MB")


if __name__ == "__main__":
    main()

"""What keeping an index costs: ``python -m benchmarks.storage [--gigabytes 1] [--folder .]``.

Saving beside ``numpy.save`` of the same bytes, opening, verifying; and upserts that are logged
beside those that are not. Times are wall time, best of several, on one CPU where it matters not.
The disk decides much of them: the folder should be on the one that is meant.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import swann

D = 100


def timed(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the shortest of several wall times, in seconds."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def forget(path: Path) -> None:
    """Let the system drop what it holds of files, so that they are read from the disk again."""
    for file in path.iterdir() if path.is_dir() else [path]:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def saving(folder: Path, gigabytes: float) -> None:
    """Measure saving and opening an index of about this size, with docids."""
    count = int(gigabytes * 1e9 / (4 * D + 36))
    rows = np.random.default_rng(0).standard_normal((count, D), dtype=np.float32)
    builder = swann.builder(rows, 10, "dot_product").tree(200, 10, training_sample_size=20_000)
    searcher = builder.score_ah(10).reorder(100).build(docids=[f"word {i}" for i in range(count)])
    state = searcher._live.state()
    size = sum(array.nbytes for array in state.packed.arrays().values())
    print(f"{count:,} x {D}, {size / 1e9:.2f} GB and docids\n")

    def numpy_save(flush: bool) -> None:
        for name, array in state.packed.arrays().items():
            with open(folder / f"{name}.npy", "wb") as file:
                np.save(file, array)
                file.flush()
                if flush:
                    os.fsync(file.fileno())

    def report(what: str, seconds: float) -> None:
        print(f"| {what} | {seconds:.2f} s | {size / seconds / 1e9:.2f} GB/s |")

    print("| | time | rate |\n|---|---|---|")
    report("numpy.save of the arrays", timed(lambda: numpy_save(False)))
    report("numpy.save and fsync", timed(lambda: numpy_save(True)))
    for path in folder.glob("*.npy"):
        path.unlink()
    report("Searcher.save, a directory", timed(lambda: searcher.save(folder / "index")))
    report("Searcher.save, one file", timed(lambda: searcher.save(folder / "index.swann")))
    for name in ("index", "index.swann"):
        loading(folder / name, size)


def loading(path: Path, size: int) -> None:
    """Measure opening what was saved."""
    full = timed(lambda: swann.load(path, verify="full"))
    print(f'| load {path.name}, verify="full" | {full:.2f} s | {size / full / 1e9:.2f} GB/s |')
    warm = timed(lambda: swann.load(path), 9)
    forget(path)
    cold = timed(lambda: swann.load(path), 1)
    print(f"| load {path.name} | {warm * 1e3:.1f} ms, from disk {cold * 1e3:.1f} ms | |")


def upserts(folder: Path, count: int, batch: int) -> None:
    """Measure upserts in batches: plain, and logged."""
    rows = np.random.default_rng(1).standard_normal((3 * count, D), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"word {i}" for i in range(3 * count)]
    builder = swann.builder(rows[:count], 10, "dot_product").tree(100, 10)
    builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
    builder.build(docids=names[:count]).save(folder / "upserts")

    def run(index: Any, step: int, repeats: int) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        for i in range(count, count + step * repeats, step):
            index.upsert(names[i : i + step], rows[i : i + step])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall / (step * repeats) * 1e6, cpu / (step * repeats) * 1e6

    print(
        f"\nUpserts, microseconds a datapoint (wall, CPU), median of 5\n\n| | {batch} at a time | |"
    )
    print("|---|---|---|")
    kinds: list[Any] = [None, "none", "batch", "always"]
    for durability in kinds:
        times = []
        for turn in range(5):
            path = folder / f"{durability} {turn}"
            shutil.copytree(folder / "upserts", path)
            if durability is None:
                times.append(run(swann.load(path), batch, count // batch))
            else:
                with swann.open(path, durability=durability) as index:
                    times.append(run(index, batch, count // batch))
            shutil.rmtree(path)
        wall, cpu = (statistics.median(t[i] for t in times) for i in (0, 1))
        print(f"| {durability or 'not durable'} | {wall:.1f} | {cpu:.1f} |")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--only", choices=["saving", "upserts"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.only != "upserts":
            saving(Path(folder), arguments.gigabytes)
        if arguments.only != "saving":
            upserts(Path(folder), arguments.count, arguments.batch)


if __name__ == "__main__":
    main()

"""What tests of distributed searches share: indexes in shards, and file systems with faults."""

from __future__ import annotations

import linecache
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import interrupts
import numpy as np

import swann
from swann.distributed import DistributedSearcher
from swann.index.disk.contents import manifest_of
from swann.index.disk.leaves import spread_leaves, take_leaves
from swann.index.disk.lock import DirectoryLock
from swann.index.disk.sharded import ShardedWriter, ShardEntry
from swann.index.disk.store import arrays_of, place_array
from swann.index.state import State

_NEVER = ("with ", "generation.users.discard(")  # lines before which no interrupt comes
_DISTRIBUTED = str(Path(swann.__file__).parent / "distributed")


def vectors(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def tree(db: np.ndarray, measure: str = "dot_product", **settings: Any) -> swann.Builder:
    return swann.builder(db, 10, measure).tree(40, 10, **settings)


CONFIGS: dict[str, Callable[[np.ndarray], swann.Builder]] = {
    "dot": lambda db: tree(db).score_ah(2, 0.2).reorder(60),
    "cosine": lambda db: tree(db, "cosine").score_ah(2, 0.2).reorder(60),
    "l2": lambda db: tree(db, "squared_l2").score_ah(2).reorder(60),
    "soar": lambda db: tree(db, soar_lambda=1.0).score_ah(2, 0.2).reorder(60),
    "no reorder": lambda db: tree(db, "squared_l2").score_ah(2),
    "soar, no reorder": lambda db: tree(db, soar_lambda=1.5).score_ah(2, 0.2),
    "brute force": lambda db: tree(db, "cosine").score_brute_force(),
    "int8": lambda db: tree(db).score_ah(2, 0.2).reorder(60, quantize=True),
    "bf16": lambda db: (
        tree(db, "squared_l2").score_ah(2).reorder(60, quantize=swann.ReorderType.BFLOAT16)
    ),
    "pca": lambda db: tree(db).score_ah(2, 0.2).reorder(60).pca(8),
}


_SCORES: dict[str, Callable[[swann.Builder], swann.Builder]] = {
    "float32": lambda builder: builder.score_brute_force(),
    "bfloat16": lambda builder: builder.score_brute_force(swann.ReorderType.BFLOAT16),
    "int8": lambda builder: builder.score_brute_force(swann.ReorderType.INT8),
    "codes": lambda builder: builder.score_ah(2),
    "bytes": lambda builder: builder.score_ah(4, hash_type="lut256"),
    "codes, float32": lambda builder: builder.score_ah(2).reorder(60),
    "codes, bfloat16": lambda builder: builder.score_ah(2).reorder(
        60, quantize=swann.ReorderType.BFLOAT16
    ),
    "codes, int8": lambda builder: builder.score_ah(2).reorder(60, quantize=True),
    "bytes, float32": lambda builder: builder.score_ah(4, hash_type="lut256").reorder(60),
}


def every_config() -> dict[str, Callable[[np.ndarray], swann.Builder]]:
    """Return each measure with each score; second leaves, an upper tree, fewer dimensions."""
    trees: dict[str, Callable[..., swann.Builder]] = {
        "plain": tree,
        "soar": lambda db, measure: tree(db, measure, soar_lambda=1.0),
        "upper": lambda db, measure: tree(db, measure).upper_tree(8, 4),
        "pca": lambda db, measure: tree(db, measure).pca(8),
    }
    made: dict[str, Callable[[np.ndarray], swann.Builder]] = {}
    for kind, plant in trees.items():
        for measure in ("dot_product", "cosine", "squared_l2"):
            for score, scored in _SCORES.items():
                refused = kind == "soar" and measure == "squared_l2"
                repeated = kind == "pca" and score not in ("codes", "codes, float32")
                if not refused and not repeated:
                    made[f"{kind}, {measure}: {score}"] = (
                        lambda db, plant=plant, measure=measure, scored=scored: scored(
                            plant(db, measure)
                        )
                    )
    return made


def check_equality(folder: Path, pool: Any, names: list[str]) -> None:
    """Compare workers with one machine, bit for bit, for 1 to 16 shards."""
    db, queries = _rows_and_queries()
    searcher: DistributedSearcher | None = None
    try:
        for name in names:
            built = _built(name, db)
            for shards in (1, 2, 4, 8, 16):
                shutil.rmtree(folder / "index", ignore_errors=True)
                save(folder / "index", shards, built)
                if searcher is None:
                    searcher = DistributedSearcher.open(
                        folder / "index", 1, workers=2, pool=pool, deadline=20
                    )
                else:
                    searcher.roll(folder / "index")
                what = name, shards
                for limits in ((), (3, 30, 4), (40, 100, 40)):
                    found = searcher.search_batched(queries, *limits)
                    assert same(found, built.search_batched(queries, *limits)), (what, limits)
                    assert np.all(found.coverage == 1), (what, limits)
                assert same(searcher.search(queries[0]), built.search(queries[0])), what
    finally:
        if searcher is not None:
            searcher.close()


def check_changes(folder: Path, pool: Any, names: list[str]) -> None:
    """Compare workers with one machine after changes, and after the checkpoint of them."""
    db, queries = _rows_and_queries()
    new = vectors(50, seed=2)
    for number, name in enumerate(names):
        where = folder / str(number)
        built = save(where, 4, _built(name, db))
        with DistributedSearcher.open(
            where, 2, workers=2, pool=pool, deadline=20, mode="rw"
        ) as searcher:
            old: list[Any] = ["d7", "d900", "d12"] if _has_docids(name) else [7, 900, 12]
            for one in (built, searcher):
                one.delete(old[:2])
                one.upsert(old[2:], new[:1])
                one.upsert([f"n{i}" for i in range(49)] if _has_docids(name) else None, new[1:])
            # All leaves and candidates: where fewer are kept, ties may be broken otherwise.
            wanted = built.search_batched(queries, 20, 4000, 40)
            found = searcher.search_batched(queries, 20, 4000, 40)
            assert np.array_equal(found.distances, wanted.distances), name
            if "codes" != name.split(": ")[1] != "bytes":
                assert same(found, wanted), name
            searcher.checkpoint()
            plain = swann.load(where)
            for limits in ((), (3, 30, 4), (40, 100, 40)):
                found = searcher.search_batched(queries, *limits)
                assert same(found, plain.search_batched(queries, *limits)), (name, limits)


def _rows_and_queries() -> tuple[np.ndarray, np.ndarray]:
    """Return rows, some of them twice, and queries, some of which are rows."""
    db, queries = vectors(1600), vectors(40, seed=1)
    db[800:900] = db[:100]
    queries[:5] = db[:5]
    return db, queries


def _has_docids(name: str) -> bool:
    return list(every_config()).index(name) % 2 == 1


def _built(name: str, db: np.ndarray) -> swann.Searcher:
    docids = [f"d{i}" for i in range(len(db))] if _has_docids(name) else None
    return every_config()[name](db).build(docids=docids)


def save(folder: Path, shards: int, searcher: swann.Searcher) -> swann.Searcher:
    """Write an index in shards, all of it in memory; return it as it is on one machine."""
    state = searcher._live.state()
    packed = state.packed
    owners = spread_leaves(packed.centroids, np.diff(packed.leaf_starts), shards)
    folder.mkdir(parents=True, exist_ok=True)
    with DirectoryLock(folder, "save"), ShardedWriter(folder) as out:

        def write(owned: np.ndarray) -> ShardEntry:
            some = State(take_leaves(packed, owned), None, state.next_number, packed.config)
            entries = {name: place_array(folder, name, a) for name, a in arrays_of(some).items()}
            return out.shard_manifest(manifest_of(some, entries), int(some.packed.leaf_starts[-1]))

        out.finish(
            packed.config,
            num_datapoints=packed.num_datapoints,
            dimension=packed.dimension,
            head=write(np.zeros(len(owners), bool)),
            shards=[write(owners == shard) for shard in range(shards)],
            whole_starts=packed.leaf_starts,
            owners=owners,
            docids=state.docids,
            plan=state.plan,
            next_number=state.next_number,
            log=state.log,
        )
    return searcher


def same(found: Any, wanted: Any) -> bool:
    return np.array_equal(found.indices, wanted.indices) and np.array_equal(
        found.distances, wanted.distances, equal_nan=True
    )


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def interrupted(call: Callable[[], object], line: int) -> bool:
    """Run `call` with an interrupt before the line-th line of ours; return whether it came."""

    def follows(frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(_DISTRIBUTED)

    def counts(frame: FrameType) -> bool:
        # Where a lock is let go (its line is passed again), and between calls, none comes.
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        return not source.lstrip().startswith(_NEVER)

    return interrupts.interrupted(call, line, follows, counts)


class Faults:
    """Decides what goes wrong with a read, and counts it."""

    def __init__(self, rate: float, seed: int = 0) -> None:
        self.rate = rate
        self.count = 0
        self.stale: dict[str, bytes] = {}
        self._random, self._lock = random.Random(seed), threading.Lock()

    def spoil(self, path: str, data: bytes) -> bytes:
        with self._lock:
            if self._random.random() >= self.rate:
                return data
            self.count += 1
            kind = self._random.choice(["fail", "truncate", "stale", "flip", "longer"])
            place = self._random.randrange(max(1, len(data)))
        if kind == "fail":
            raise OSError(f"connection reset while reading {path}")
        if kind == "truncate":
            return data[:place]
        if kind == "stale":
            return self.stale.get(path.rsplit("/", 1)[-1], bytes(len(data)))
        if kind == "longer":
            return data + b"\0"
        return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]

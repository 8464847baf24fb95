"""Sizes past 2^31 and 2^32: the right answer, or an error that says what the limit is.

Arrays are zeros that were never written to, or files with holes, but for a few rows: an index of
17 GB takes little memory. Where a number would be cut to 32 bits, a planted row is not found.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import swann
from benchmarks.trust.experiment import Experiment, Options, Report
from swann import AHConfig, BruteForceConfig, IndexConfig, ReorderType, Searcher, TreeConfig, files
from swann.errors import ConfigError, InvalidInputError
from swann.index.packed import PackedIndex

_MOST_MEMORY = 8 << 30
_EDGES = (2**30, 2**31, 2**32)  # of values, and of bytes


def _refused(error: type[BaseException] | tuple[type[BaseException], ...], call: Any) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"expected {error}")


# ---- Limits that cost nothing to try


def too_many_rows() -> None:
    """Rows have numbers of 32 bits, entries of leaves too."""
    for n, soar in ((2**32 - 1, None), (2**33, None), (2**31, 1.0)):
        db = np.broadcast_to(np.zeros((1, 1), np.int8), (n, 1))
        builder = swann.builder(db, 1, "dot_product").tree(2, 1, soar_lambda=soar)
        _refused(InvalidInputError, builder.score_brute_force().build)


def too_many_dimensions() -> None:
    """Codes have so many blocks at most; whole rows may be as long as memory is."""
    db = np.broadcast_to(np.zeros((1, 1), np.int8), (3, 2**32 + 1))
    builder = swann.builder(db, 1, "dot_product")
    _refused(ConfigError, lambda: builder.score_ah(2))
    _refused(ConfigError, lambda: builder.pca(2**33))


def too_many_neighbors() -> None:
    """Ask for far more results than there are datapoints."""
    db = np.eye(4, dtype=np.float32)
    searcher = swann.builder(db, 1, "dot_product").score_brute_force().build()
    for k in (2**21, 2**45, 2**60, 2**62, 2**63 - 1):
        _refused(ConfigError, lambda k=k: searcher.search(db[0], k))
        _refused(ConfigError, lambda k=k: searcher.search_batched(db, k))
        _refused(ConfigError, lambda k=k: searcher.search_batched_parallel(db, k))
    assert searcher.search_batched(db, 1, 2**62, 2**62).indices[:, 0].tolist() == [0, 1, 2, 3]


def too_many_numbers() -> None:
    """Give row ids, docids and room beyond their limits."""
    db = np.eye(4, dtype=np.float32)
    searcher = swann.builder(db, 1, "dot_product").score_brute_force().build()
    for row in (2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1):
        _refused(swann.UnknownDocidError, lambda row=row: searcher.delete([row]))
        _refused(swann.UnknownDocidError, lambda row=row: searcher.upsert([row], db[:1]))
    _refused(InvalidInputError, lambda: searcher.reserve(2**32))
    _refused(InvalidInputError, lambda: searcher.upsert([2**63], db[:1]))
    assert len(searcher) == 4


# ---- Indexes of zeros


def _rows(n: int, of_row: int) -> list[int]:
    """Return rows on both sides of where 32 bits end, `of_row` being values or bytes of a row."""
    edges = {edge // of_row + i for edge in _EDGES for i in (-1, 0, 1)}
    return sorted({0, n - 1} | {row for row in edges if 0 <= row < n})


def _finds(searcher: Searcher, planted: list[int], queries: NDArray[np.float32]) -> None:
    """Each query is that of one planted row: alone, and in a batch that is scored otherwise."""
    for row, query in zip(planted, queries, strict=True):
        found = searcher.search(query, 1).indices[0]
        assert found == row, f"found {found}, expected {row}"
    many = np.tile(queries, (-(-30 // len(queries)), 1))
    found = searcher.search_batched(many, 1).indices[:, 0].reshape(-1, len(queries))
    assert (found == planted).all(), f"found {found[0]}, expected {planted}"


def _of_rows(kind: ReorderType, n: int, d: int) -> tuple[PackedIndex, list[int], Any]:
    dtype = {ReorderType.FLOAT32: np.float32, ReorderType.BFLOAT16: np.uint16}.get(kind, np.int8)
    rows = np.zeros((n, d), dtype)
    planted = sorted({*_rows(n, d), *_rows(n, d * rows.itemsize)})
    one = {ReorderType.FLOAT32: 1.0, ReorderType.BFLOAT16: 0x3F80}.get(kind, 127)
    for place, row in enumerate(planted):
        rows[row, -1 - place] = one
    config = IndexConfig(
        num_neighbors=1, distance_measure="dot_product", score=BruteForceConfig(quantize=kind)
    )
    name = {ReorderType.FLOAT32: "rows", ReorderType.BFLOAT16: "rows_bf16"}.get(kind, "rows_i8")
    arrays: dict[str, Any] = {name: rows}
    if kind is ReorderType.INT8:
        arrays["row_scales"] = np.zeros(n, np.float32)
        arrays["row_scales"][planted] = 1 / 127
    packed = PackedIndex(config, n, d, np.array([0, n], np.uint32), **arrays)
    return packed, planted, np.eye(d, dtype=np.float32)[::-1][: len(planted)].copy()


def whole_rows() -> None:
    """Search more than 2^32 values, and bytes, of rows in every precision."""
    for kind in ReorderType:
        packed, planted, queries = _of_rows(kind, 2**25 + 9, 128)
        _finds(Searcher(packed), planted, queries)


def codes() -> None:
    """Search more than 2^32 bytes of codes, in three leaves."""
    for words, d in ((16, 258), (256, 130)):
        n, width = 2**25 + 64, d // 2 if words == 16 else d
        starts = np.array([0, 70, n - 40, n], np.uint32)
        groups = (np.diff(starts.astype(np.int64)) + 31) // 32
        first = np.concatenate([[0], np.cumsum(groups)])
        packed_codes = np.zeros((int(first[-1]), d, 16 if words == 16 else 32), np.uint8)
        planted = sorted({*_rows(n, width), n - 41, n - 40, 70})
        for place, row in enumerate(planted):
            leaf = int(np.searchsorted(starts, row, "right")) - 1
            group, at = divmod(row - int(starts[leaf]), 32)
            code = 1 if at < 16 or words == 256 else 16
            packed_codes[first[leaf] + group, d - 1 - place, at % (16 if words == 16 else 32)] = (
                code
            )
        codebook = np.zeros((d, words), np.float32)
        codebook[:, 1] = 1
        config = IndexConfig(
            num_neighbors=1,
            distance_measure="dot_product",
            tree=TreeConfig(num_leaves=3, num_leaves_to_search=3),
            score=AHConfig(dimensions_per_block=1, hash_type=f"lut{words}"),
        )
        index = PackedIndex(
            config, n, d, starts, ids=np.arange(n, dtype=np.uint32), codes=packed_codes,
            centroids=np.zeros((3, d), np.float32), spreads=np.zeros(3, np.float32),
            codebook=codebook,
        )  # fmt: skip
        _finds(Searcher(index), planted, np.eye(d, dtype=np.float32)[::-1][: len(planted)].copy())


def most_rows() -> None:
    """Search as many rows as there are numbers for, of one dimension."""
    n = 2**32 - 2
    rows = np.zeros((n, 1), np.int8)
    scales = np.zeros(n, np.float32)
    rows[[2**31, n - 1], 0], scales[[2**31, n - 1]] = (100, 127), 1
    score = BruteForceConfig(quantize=ReorderType.INT8)
    config = IndexConfig(num_neighbors=1, distance_measure="dot_product", score=score)
    starts = np.array([0, n], np.uint32)
    searcher = Searcher(PackedIndex(config, n, 1, starts, rows_i8=rows, row_scales=scales))
    found = searcher.search(np.ones(1), 2)
    assert found.indices.tolist() == [n - 1, 2**31], found


# ---- Files with holes


def built_from_a_file() -> None:
    """Build from a database of more than 2^32 values, and bytes, read from a map of its file."""
    n, d = 2**25 + 5, 130
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder) / "db.npy"
        db = np.lib.format.open_memmap(path, "w+", np.uint8, (n, d))
        planted = _rows(n, d)
        for place, row in enumerate(planted):
            db[row, place] = 200
        db.flush()
        del db
        builder = swann.builder(files.read_array(path), 1, "dot_product")
        builder.truncate(len(planted)).score_ah(1, training_sample_size=1000)
        searcher = builder.set_n_training_threads(2).build()
        assert len(searcher) == n
        # Of so many zeros the sample has no other: codes say little, but where rows are.
        assert searcher.search(np.ones(d), 3).indices.tolist() == [0, 1, 2]


def vecs_file() -> None:
    """Read an .fvecs file of more than 4 GiB."""
    n, d = 1026, 2**20
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder) / "db.fvecs"
        raw = np.memmap(path, np.uint8, "w+", shape=(n, 4 + 4 * d))
        raw[:, :4] = np.frombuffer(np.int32(d).tobytes(), np.uint8)
        raw[-1, -4:] = np.frombuffer(np.float32(5).tobytes(), np.uint8)
        raw.flush()
        del raw
        array = files.read_array(path)
        assert array.shape == (n, d), array.shape
        assert array[-1, -1] == 5


def saved() -> None:
    """Keep an index of more than 4 GiB as a directory and as one file: the same answers."""
    packed, planted, queries = _of_rows(ReorderType.INT8, 2**25 + 9, 129)
    searcher = Searcher(packed)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for name in ("index", "index.swann"):
            searcher.save(Path(folder) / name)
            loaded = swann.load(Path(folder) / name)
            _finds(loaded, planted, queries)


_SHORT = (too_many_rows, too_many_dimensions, too_many_neighbors, too_many_numbers)
_LONG = (whole_rows, codes, built_from_a_file, vecs_file, saved, most_rows)
CHECKS: tuple[Callable[[], None], ...] = (*_SHORT, *_LONG)


def run(options: Options) -> Report:
    """Run the first `options.n` checks."""
    failures, seconds = [], {}
    for check in CHECKS[options.first :][: options.n]:
        begin = time.monotonic()
        try:
            check()
        except Exception as error:
            failures.append(f"{check.__name__}: {error!r}")
        seconds[check.__name__] = round(time.monotonic() - begin, 1)
        print(check.__name__, seconds[check.__name__], flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if options.n > len(_SHORT) and peak > _MOST_MEMORY:
        failures.append(f"took {peak / 1e9:.1f} GB of memory")
    return Report({"seconds": seconds, "memory (GB)": round(peak / 1e9, 2)}, failures)


EXPERIMENT = Experiment("sizes", "sizes past 2^31 and 2^32", len(_SHORT), len(CHECKS), run)

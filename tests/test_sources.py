"""Builds from files of every kind give what a build from the array gives, byte for byte."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann.distributed import LocalExecutor, build
from swann.sources import Sources

N, D = 700, 12
Rows = NDArray[Any]
Writer = Callable[[Path, Rows], object]


def rows_of(dtype: str = "<f4") -> Rows:
    made = np.random.default_rng(5).standard_normal((N, D)) * 20
    if np.dtype(dtype).kind == "u":
        return np.abs(made).astype(dtype)
    return made.astype(dtype)


def built(source: object, out: Path, **more: Any) -> dict[str, bytes]:
    """Build in small spans; return all files."""
    builder = swann.builder(np.zeros((N, D), np.float32), 5, "dot_product")
    config = builder.tree(8, 2).score_ah(2, 0.2).reorder(40).create_config()
    settings: dict[str, Any] = {"memory_budget": 150_000, "sample_rows": N}
    build(source, config, out, executor=LocalExecutor(1), **settings | more)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def npy(path: Path, rows: Rows) -> Path:
    np.save(path / "x.npy", rows)
    return path / "x.npy"


def vecs(suffix: str) -> Writer:
    def write(path: Path, rows: Rows) -> Path:
        with (path / f"x{suffix}").open("wb") as out:
            for row in rows:
                out.write(np.array([len(row)], "<i4").tobytes() + row.tobytes())
        return path / f"x{suffix}"

    return write


def bin_of(suffix: str) -> Writer:
    def write(path: Path, rows: Rows) -> Path:
        where = path / f"x{suffix}"
        where.write_bytes(np.array(rows.shape, "<u4").tobytes() + rows.tobytes())
        return where

    return write


def hdf5(key: str = "", **settings: Any) -> Writer:
    def write(path: Path, rows: Rows) -> str:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path / "x.hdf5", "w") as file:
            file.create_dataset(key or "train", data=rows, **settings)
            file.create_dataset("other", data=rows[:3])
        return f"{path / 'x.hdf5'}{':' * bool(key)}{key}"

    return write


def arrow_table(rows: Rows, fixed: bool, large: bool = False) -> Any:
    pa = pytest.importorskip("pyarrow")
    flat = pa.array(rows.reshape(-1))
    if fixed:
        column = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    else:
        offsets = np.arange(len(rows) + 1) * rows.shape[1]
        kind = pa.LargeListArray if large else pa.ListArray
        column = kind.from_arrays(pa.array(offsets, pa.int64() if large else pa.int32()), flat)
    return pa.table({"name": [f"n{i}" for i in range(len(rows))], "vector": column})


def parquet(fixed: bool, column: str = "", **settings: Any) -> Writer:
    def write(path: Path, rows: Rows) -> str:
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(arrow_table(rows, fixed), path / "x.parquet", **settings)
        return f"{path / 'x.parquet'}{column}"

    return write


def arrow(suffix: str, stream: bool, fixed: bool, compression: str | None = None) -> Writer:
    def write(path: Path, rows: Rows) -> Path:
        pa = pytest.importorskip("pyarrow")
        table = arrow_table(rows, fixed, large=True)
        options = pa.ipc.IpcWriteOptions(compression=compression)
        new = pa.ipc.new_stream if stream else pa.ipc.new_file
        with new(path / f"x{suffix}", table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=90)
        return path / f"x{suffix}"

    return write


def feather(path: Path, rows: Rows) -> Path:
    module = pytest.importorskip("pyarrow.feather")
    module.write_feather(arrow_table(rows, True), path / "x.feather", chunksize=64)
    return path / "x.feather"


def files(path: Path, rows: Rows) -> str:
    for number, some in enumerate(np.split(rows, [1, 100, 500])):
        np.save(path / f"part-{number}.npy", some)
    return str(path / "part-*.npy")


def listed(path: Path, rows: Rows) -> list[Any]:
    np.save(path / "b.npy", rows[:300])
    some = path / "a"
    some.mkdir()
    return [str(path / "b.npy"), bin_of(".fbin")(some, rows[300:])]


def chunks(path: Path, rows: Rows) -> Iterator[Rows]:
    for first, last in ((0, 1), (1, 1), (1, 200), (200, 201), (201, N)):
        yield rows[first:last]


KINDS: dict[str, tuple[str, Writer]] = {
    "npy float16": ("<f2", npy),
    "npy float32": ("<f4", npy),
    "npy float64": ("<f8", npy),
    "npy int8": ("i1", npy),
    "npy big-endian": (">f4", npy),
    "npy big-endian float64": (">f8", npy),
    "npy Fortran": ("<f4", lambda path, rows: npy(path, np.asfortranarray(rows))),
    "fvecs": ("<f4", vecs(".fvecs")),
    "bvecs": ("u1", vecs(".bvecs")),
    "ivecs": ("<i4", vecs(".ivecs")),
    "fbin": ("<f4", bin_of(".fbin")),
    "u8bin": ("u1", bin_of(".u8bin")),
    "i8bin": ("i1", bin_of(".i8bin")),
    "hdf5": ("<f4", hdf5()),
    "hdf5 key": ("<f4", hdf5("some/vectors")),
    "hdf5 chunked": ("<f4", hdf5(chunks=(64, 5))),
    "hdf5 compressed": ("<f8", hdf5("v", chunks=(50, D), compression="gzip")),
    "hdf5 big-endian": (">f4", hdf5(chunks=(64, 5))),
    "parquet fixed": ("<f4", parquet(True, row_group_size=150)),
    "parquet list": ("<f8", parquet(False, ":vector", row_group_size=1000)),
    "parquet int8": ("i1", parquet(False, row_group_size=33)),
    "parquet float16": ("<f2", parquet(True, row_group_size=150)),
    "arrow": ("<f4", arrow(".arrow", False, True)),
    "arrow lists": ("<f4", arrow(".arrow", False, False)),
    "arrow stream": ("<f4", arrow(".arrow", True, True)),
    "arrow compressed": ("<f4", arrow(".arrow", True, False, "zstd")),
    "feather": ("<f4", feather),
    "files": ("<f4", files),
    "list of files": ("<f4", listed),
    "list of arrays": ("<f4", lambda _, rows: [rows[:50], rows[50:]]),
    "iterable": ("<f4", chunks),
    "iterable of float16": ("<f2", chunks),
    "iterator": ("<f4", lambda _, rows: iter([rows[:400].tolist(), rows[400:]])),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    known: dict[str, dict[str, bytes]] = {}

    def of(dtype: str) -> dict[str, bytes]:
        if dtype not in known:
            known[dtype] = built(rows_of(dtype), tmp_path_factory.mktemp("array"))
        return known[dtype]

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_index_of_the_array(
    kind: str, tmp_path: Path, expected: Callable[[str], dict[str, bytes]]
) -> None:
    dtype, write = KINDS[kind]
    rows = rows_of(dtype)
    if kind == "iterator":
        rows = rows_of(dtype).astype(np.float64)
    source = write(tmp_path, rows)
    assert built(source, tmp_path / "index") == expected(dtype)


@pytest.mark.parametrize("kind", [k for k in KINDS if not k.startswith("iter")])
def test_spans_and_rows_are_those_of_the_array(kind: str, tmp_path: Path) -> None:
    """Read in spans, also by another process."""
    dtype, write = KINDS[kind]
    rows = rows_of(dtype)
    given = Sources.of(write(tmp_path, rows))
    for sources in (given, pickle.loads(pickle.dumps(given))):
        assert (sources.num_rows, sources.dimension) == rows.shape
        for most in (1, 64, 90, 10_000):
            spans = sources.spans(most)
            assert [first for first, _ in spans[1:]] == [last for _, last in spans[:-1]]
            assert max(last - first for first, last in spans) <= most
            read = np.concatenate([sources.read(first, last) for first, last in spans])
            np.testing.assert_array_equal(read, rows)
        for first, last in ((0, N), (99, 102), (149, 151), (N - 1, N)):
            part = pickle.loads(pickle.dumps(sources.part_of(first, last)))
            np.testing.assert_array_equal(part.read(first, last), rows[first:last])


def test_a_generator_is_read_once(tmp_path: Path) -> None:
    rows = rows_of()
    given: list[int] = []

    def read() -> Iterator[Rows]:
        for first in range(0, N, 123):
            given.append(first)
            yield rows[first : first + 123]

    built(read(), tmp_path / "index")
    assert given == [*range(0, N, 123)]
    assert not (tmp_path / "index" / ".build").exists()


def test_chunks_of_narrower_numbers_fit(tmp_path: Path) -> None:
    rows = rows_of().astype(np.float16).astype(np.float32)
    made = built(iter([rows[:9], rows[9:].astype(np.float16)]), tmp_path / "index")
    assert made == built(rows, tmp_path / "array")


def test_parts_of_several_dtypes_are_read_as_the_widest(tmp_path: Path) -> None:
    rows = rows_of("<f8")
    rows[:300] = rows[:300].astype(np.float32)
    np.save(tmp_path / "a.npy", rows[:300].astype(np.float32))
    np.save(tmp_path / "b.npy", rows[300:])
    assert built(str(tmp_path / "?.npy"), tmp_path / "index") == built(rows, tmp_path / "array")


def test_training_queries_teach_the_same(tmp_path: Path) -> None:
    """Queries that vary along few directions shape the loss, as in memory."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3000, 24)).astype(np.float32)
    queries = rng.standard_normal((1000, 24)) * np.geomspace(4, 0.05, 24)
    builder = swann.builder(rows, 10, "dot_product").tree(40, 6).score_ah(2, 2.0)
    out = build(
        npy(tmp_path, rows),
        builder.create_config(),
        tmp_path / "index",
        memory_budget=400_000,
        sample_rows=3000,
        training_queries=queries.tolist(),
    )
    builder.build(training_queries=queries).save(tmp_path / "expected")
    names = {path.name for path in out.iterdir()}
    assert any(name.startswith("code_metric") for name in names)
    assert names == {path.name for path in (tmp_path / "expected").iterdir()}


def test_names_with_brackets_and_colons_are_names(tmp_path: Path) -> None:
    rows = rows_of()
    for name in ("a[1].npy", "a:b.npy"):
        np.save(tmp_path / name, rows)
        np.testing.assert_array_equal(Sources.of(tmp_path / name).read(0, N), rows)
    pytest.importorskip("pyarrow")
    where = tmp_path / "a:b.parquet"
    parquet(True)(tmp_path, rows)
    (tmp_path / "x.parquet").rename(where)
    for told in (where, f"{where}:vector"):
        np.testing.assert_array_equal(Sources.of(told).read(0, N), rows)

"""Files that are not what they say, and rows that cannot be indexed: which file, which row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_sources import (
    KINDS,
    D,
    N,
    arrow,
    arrow_table,
    bin_of,
    built,
    hdf5,
    npy,
    parquet,
    rows_of,
    vecs,
)

import swann
from swann.sources import Sources

ALONE = [k for k in KINDS if k not in ("files", "list of files") and "iter" not in k]
IN_FILES = [k for k in ALONE if k != "list of arrays"]
FLOATS = [k for k in IN_FILES if KINDS[k][0] in ("<f2", "<f4", "<f8", ">f4", ">f8")]


def path_of(told: Any) -> Path:
    """Return the file of a source, without a key."""
    text = str(told)
    head, colon, _ = text.rpartition(":")
    return Path(head if colon else text)


@pytest.mark.parametrize("kind", IN_FILES)
def test_a_truncated_file_is_refused_at_any_length(kind: str, tmp_path: Path) -> None:
    """When it is opened, before any work."""
    dtype, write = KINDS[kind]
    told = write(tmp_path, rows_of(dtype))
    path = path_of(told)
    whole = path.read_bytes()
    lengths = {0, 1, 3, 7, 9, 40, 300, len(whole) // 2, len(whole) - 1}
    for length in sorted(lengths):
        if "vecs" in kind and length == len(whole) // 2:
            continue  # half of the rows are a whole file, too
        path.write_bytes(whole[:length])
        with pytest.raises(swann.SwannError, match=path.name.replace(".", r"\.")):
            Sources.of(told)


@pytest.mark.parametrize("kind", IN_FILES)
def test_damage_never_ends_in_another_librarys_error(kind: str, tmp_path: Path) -> None:
    """Random bytes changed: an error of ours that names the file, or rows."""
    dtype, write = KINDS[kind]
    told = write(tmp_path, rows_of(dtype))
    path, rng = path_of(told), np.random.default_rng(1)
    whole = path.read_bytes()
    for turn in range(60):
        damaged = bytearray(whole)
        # Where headers and footers are, more often than elsewhere.
        most = (len(whole), 200, 1000)[turn % 3]
        for place in rng.integers(0, most, 1 + turn % 4):
            damaged[place if turn % 2 else -1 - place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        error = ""
        try:
            sources = Sources.of(told)
            if sources.num_rows <= N:
                sources.read(0, sources.num_rows)
        except swann.SwannError as raised:
            error = str(raised)
        assert not error or path.name in error


@pytest.mark.parametrize("kind", FLOATS)
def test_a_nan_is_found_with_its_file_and_row(kind: str, tmp_path: Path) -> None:
    dtype, write = KINDS[kind]
    rows = rows_of(dtype)
    rows[433, 7] = np.nan
    told = write(tmp_path, rows)
    name = path_of(told).name.replace(".", r"\.")
    with pytest.raises(swann.NonFiniteError, match=rf"{name}(:[\w/]+)?\[433, 7\] is nan"):
        built(told, tmp_path / "index")
    assert not (tmp_path / "index" / "manifest.json").exists()


def test_a_nan_in_a_later_file_is_found_with_its_own_row(tmp_path: Path) -> None:
    rows = rows_of()
    for number in range(3):
        np.save(tmp_path / f"part-{number}.npy", rows)
    rows[699, 11] = np.inf
    np.save(tmp_path / "part-1.npy", rows)
    with pytest.raises(swann.NonFiniteError, match=r"part-1\.npy\[699, 11\] is inf"):
        built(str(tmp_path / "part-*.npy"), tmp_path / "index")
    with pytest.raises(swann.NonFiniteError, match=r"db\[1\]\[699, 11\] is inf"):
        built([rows_of(), rows], tmp_path / "index")


def test_a_nan_of_an_iterable_names_its_row(tmp_path: Path) -> None:
    rows = rows_of()
    rows[500, 2] = np.nan
    with pytest.raises(swann.NonFiniteError, match=r"\[500, 2\] is nan"):
        built(iter([rows[:300], rows[300:]]), tmp_path / "index")


@pytest.mark.parametrize("kind", ALONE)
def test_no_rows_are_nothing_to_read(kind: str, tmp_path: Path) -> None:
    dtype, write = KINDS[kind]
    if kind == "list of arrays":
        told: Any = [rows_of()[:0], rows_of()[:0]]
    else:
        settings = rows_of(dtype)[:0]
        try:
            told = write(tmp_path, settings)
        except ValueError:
            pytest.skip("such a file cannot be made")
    with pytest.raises(swann.InvalidInputError):
        Sources.of(told)
    with pytest.raises(swann.InvalidInputError):
        built(told, tmp_path / "index")


def test_headers_that_lie(tmp_path: Path) -> None:
    rows = rows_of()
    where = bin_of(".fbin")(tmp_path, rows)
    body = Path(str(where)).read_bytes()[8:]
    for n, d in ((N + 1, D), (N, D + 1), (N - 1, D), (0, D), (N, 0), (2**32 - 1, 2**32 - 1)):
        Path(str(where)).write_bytes(np.array([n, d], "<u4").tobytes() + body)
        with pytest.raises(swann.InvalidInputError, match=r"x\.fbin"):
            Sources.of(where)
    path = Path(str(npy(tmp_path, rows)))
    whole = path.read_bytes()
    for lie in (b"(701, 12)", b"(9999999999999, 12)", b"(-70, 12)", b"(700, 12, 1)", b"(700,)"):
        path.write_bytes(whole.replace(b"(700, 12), }" + b" " * len(lie), lie + b", }" + b" " * 12))
        with pytest.raises(swann.SwannError, match=r"x\.npy"):
            Sources.of(path)
    path = Path(str(vecs(".fvecs")(tmp_path, rows)))
    whole = path.read_bytes()
    for lie in (b"\x0d\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"):
        path.write_bytes(lie + whole[4:])
        with pytest.raises(swann.InvalidInputError, match=r"x\.fvecs"):
            Sources.of(path)


def test_a_row_of_another_length_is_found(tmp_path: Path) -> None:
    """Each row of .fvecs has its length before it."""
    path = Path(str(vecs(".fvecs")(tmp_path, rows_of())))
    damaged = bytearray(path.read_bytes())
    damaged[433 * (4 + 4 * D)] = D - 1
    path.write_bytes(damaged)
    with pytest.raises(swann.InvalidInputError, match=r"x\.fvecs: row 433 has 11 dimensions"):
        Sources.of(path)


def test_dimensions_that_differ_name_both_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 4), np.float32))
    np.save(tmp_path / "b.npy", np.ones((5, 3), np.float32))
    with pytest.raises(swann.ShapeError, match=r"b\.npy has 3 dimensions, but .*a\.npy has 4"):
        Sources.of(str(tmp_path / "*.npy"))
    with pytest.raises(swann.ShapeError, match="chunk 1 has 3 dimensions, but those before it"):
        Sources.of(iter([np.ones((5, 4)), np.ones((5, 3))]), tmp_path)
    with pytest.raises(swann.ShapeError, match=r"db\[1\] has 3 dimensions"):
        Sources.of([np.ones((5, 4)), np.ones((5, 3))])


def test_chunks_that_cannot_be_read(tmp_path: Path) -> None:
    def failing() -> Iterator[Any]:
        yield np.ones((3, D), np.float32)
        raise ZeroDivisionError("of whoever reads")

    with pytest.raises(ZeroDivisionError):
        built(failing(), tmp_path / "index")
    assert not list((tmp_path / "index" / ".build").glob("spool*"))
    with pytest.raises(swann.DTypeError, match="chunk 1 has dtype float64"):
        Sources.of(iter([np.ones((5, 4), np.float32), np.ones((5, 4))]), tmp_path)
    with pytest.raises(swann.InvalidInputError, match="no chunk has a row"):
        Sources.of(iter([np.ones((0, 4))]), tmp_path)
    with pytest.raises(swann.InvalidInputError, match="no chunk has a row"):
        Sources.of(iter([]), tmp_path)
    for bad in (3, ["a", "b"], "text", None, np.ones(3)):
        with pytest.raises(swann.SwannError, match="chunk 0"):
            Sources.of(iter([bad]), tmp_path)


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(swann.InvalidInputError, match="no file has such a name"):
        Sources.of(str(tmp_path / "*.npy"))
    with pytest.raises(swann.InvalidInputError, match="no such file"):
        Sources.of(tmp_path / "a.npy")
    for suffix in (".parquet", ".arrow", ".feather", ".hdf5", ".fbin"):
        with pytest.raises(swann.InvalidInputError, match="no such file"):
            Sources.of(tmp_path / f"a{suffix}")
    with pytest.raises(swann.InvalidInputError, match="suffix"):
        Sources.of(tmp_path / "a.csv")
    for bad in (None, 3, [], [[]], {}, [tmp_path, np.ones((2, 2))]):
        with pytest.raises(swann.SwannError):
            Sources.of(bad, tmp_path / "spool")


def test_hdf5_that_is_wrong(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    hdf5()(tmp_path, rows_of())
    with pytest.raises(swann.InvalidInputError, match=r"x\.hdf5.*'nothing'"):
        Sources.of(f"{tmp_path / 'x.hdf5'}:nothing")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_dataset("train", data=np.ones((30, 2, 2)), chunks=(3, 2, 2))
        file.create_dataset("text", data=[b"a", b"b"])
        file.create_dataset("line", data=np.ones(30), chunks=(3,))
        file.create_group("group")
    for key in ("", ":text", ":line", ":group"):
        with pytest.raises(swann.SwannError, match=r"y\.h5"):
            Sources.of(f"{tmp_path / 'y.h5'}{key}")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_columns_that_are_wrong(suffix: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    rows = rows_of()
    table = arrow_table(rows, True)

    def write(changed: Any) -> Path:
        path = tmp_path / f"y{suffix}"
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.write_table(changed, path, row_group_size=200)
        else:
            with pa.ipc.new_file(path, changed.schema) as writer:
                writer.write_table(changed, max_chunksize=200)
        return path

    def column(values: Any, kind: Any) -> Path:
        return write(pa.table({"v": pa.array(values, kind)}))

    lists, fixed = pa.list_(pa.float32()), pa.list_(pa.float32(), D)
    plain = rows.tolist()
    path = write(table.append_column("second", table["vector"]))
    with pytest.raises(
        swann.InvalidInputError, match=r"2 columns of lists .*: vector, second; name"
    ):
        Sources.of(path)
    assert Sources.of(f"{path}:second").num_rows == N
    with pytest.raises(
        swann.InvalidInputError, match="no column 'x'; it has: name, vector, second"
    ):
        Sources.of(f"{path}:x")
    with pytest.raises(swann.DTypeError, match="column 'name' is of string"):
        Sources.of(f"{path}:name")
    with pytest.raises(swann.InvalidInputError, match="has 0 columns of lists"):
        Sources.of(write(table.select(["name"])))
    for kind in (lists, fixed):
        some = [*plain]
        some[433] = None
        with pytest.raises(swann.InvalidInputError, match=rf"y{suffix}:v: row 433 is null"):
            built(column(some, kind), tmp_path / "index")
        some[433] = [1.0] * (D - 1) + [None]
        with pytest.raises(swann.InvalidInputError, match=rf"y{suffix}:v: row 433 holds a null"):
            built(column(some, kind), tmp_path / "index")
        some = [None, *plain]
        with pytest.raises(swann.SwannError, match=rf"y{suffix}:v: row 0 is (empty or )?null"):
            built(column(some, kind), tmp_path / "index")
    some = [*plain]
    some[433] = some[433][:-1]
    with pytest.raises(swann.ShapeError, match=r"row 433 has 11 numbers, but row 0 has 12"):
        built(column(some, lists), tmp_path / "index")
    some[433] = []
    with pytest.raises(swann.ShapeError, match=r"row 433 has 0 numbers, but row 0 has 12"):
        built(column(some, lists), tmp_path / "index")
    with pytest.raises(swann.ShapeError, match="row 0 is empty"):
        Sources.of(column([[], *plain], lists))
    with pytest.raises(swann.InvalidInputError, match="nothing to read"):
        Sources.of(column([], lists))
    with pytest.raises(swann.InvalidInputError, match="0 columns of lists"):
        Sources.of(column([["a"]], pa.list_(pa.string())))


def test_a_file_that_is_of_another_kind(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    parquet(True)(tmp_path, rows_of())
    (tmp_path / "x.parquet").rename(tmp_path / "y.arrow")
    with pytest.raises(swann.InvalidInputError, match=r"y\.arrow is not an Arrow file"):
        Sources.of(tmp_path / "y.arrow")
    arrow(".arrow", False, True)(tmp_path, rows_of())
    (tmp_path / "x.arrow").rename(tmp_path / "y.parquet")
    with pytest.raises(swann.InvalidInputError, match=r"y\.parquet is not a Parquet file"):
        Sources.of(tmp_path / "y.parquet")


def test_training_queries_that_are_wrong(tmp_path: Path) -> None:
    for bad in (np.ones((3, D + 1)), np.full((3, D), np.nan), "x"):
        with pytest.raises(swann.SwannError, match="training_queries"):
            built(rows_of(), tmp_path / "index", training_queries=bad)

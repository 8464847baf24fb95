"""Vectors in files."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from swann import files
from swann.errors import InvalidInputError, MissingExtraError


def write_vecs(path: Path, rows: NDArray[Any], dtype: str) -> Path:
    with path.open("wb") as out:
        for row in rows:
            out.write(np.array([len(row)], "<i4").tobytes() + row.astype(dtype).tobytes())
    return path


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".fvecs", "<f4"), (".bvecs", "u1"), (".ivecs", "<i4")]
)
def test_vecs(tmp_path: Path, suffix: str, dtype: str) -> None:
    rows = np.random.default_rng(0).integers(0, 255, (7, 5))
    path = write_vecs(tmp_path / f"x{suffix}", rows, dtype)
    read = files.read_array(path)
    assert read.dtype == np.dtype(dtype)
    assert np.array_equal(read, rows)
    assert not read.flags.owndata  # a memory map
    assert not read.flags.writeable


def test_a_bad_header_behind_many_rows_is_named(tmp_path: Path) -> None:
    """Of very many rows, some headers are looked at."""
    rows = np.ones((10_000, 1), "<f4")
    path = write_vecs(tmp_path / "x.fvecs", rows, "<f4")
    with path.open("r+b") as file:
        file.seek(9_000 * 8)
        file.write(b"\x02")
    with pytest.raises(InvalidInputError, match="row 9000 has 2 dimensions, but row 0 has 1"):
        files.read_array(path)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".fbin", "<f4"), (".u8bin", "u1"), (".i8bin", "i1")]
)
def test_bin(tmp_path: Path, suffix: str, dtype: str) -> None:
    rows = np.random.default_rng(0).integers(0, 127, (7, 5)).astype(dtype)
    path = tmp_path / f"x{suffix}"
    whole = np.array(rows.shape, "<u4").tobytes() + rows.tobytes()
    path.write_bytes(whole)
    read = files.read_array(path)
    assert isinstance(read, np.memmap)
    assert read.dtype == np.dtype(dtype)
    assert np.array_equal(read, rows)
    for other in (whole[:-1], whole + b"\0", whole[:7]):
        path.write_bytes(other)
        with pytest.raises(InvalidInputError, match=f"has {len(other)} bytes"):
            files.read_array(path)
    path.write_bytes(np.array([0, 5], "<u4").tobytes())
    with pytest.raises(InvalidInputError, match="holds 0 rows of 5 dimensions"):
        files.read_array(path)


def test_npy_is_mapped(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.float16).reshape(2, 3)
    np.save(tmp_path / "x.npy", rows)
    read = files.read_array(str(tmp_path / "x.npy"))
    assert isinstance(read, np.memmap)
    assert np.array_equal(read, rows)


def test_vecs_with_bad_headers(tmp_path: Path) -> None:
    rows = np.ones((4, 3))
    path = write_vecs(tmp_path / "x.fvecs", rows, "<f4")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(
        InvalidInputError, match=r"63 bytes .* first row has 3 dimensions; expected"
    ):
        files.read_array(path)
    path.write_bytes(b"\x00\x00\x00\x00" + whole[4:])
    with pytest.raises(InvalidInputError, match="first row has 0 dimensions"):
        files.read_array(path)
    path.write_bytes(b"\xff\xff\xff\xff" + whole[4:])
    with pytest.raises(InvalidInputError, match="first row has -1 dimensions"):
        files.read_array(path)
    path.write_bytes(whole[:32] + b"\x02\x00\x00\x00" + whole[36:])
    with pytest.raises(InvalidInputError, match="row 2 has 2 dimensions, but row 0 has 3"):
        files.read_array(path)
    path.write_bytes(b"\x03\x00")
    with pytest.raises(InvalidInputError, match="2 bytes"):
        files.read_array(path)
    path.write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"x\.fvecs is empty"):
        files.read_array(path)


def test_npy_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"not an array, but long enough to be one")
    with pytest.raises(InvalidInputError, match=r"x\.npy is not a \.npy file: it does not begin"):
        files.read_array(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(InvalidInputError, match=r"x\.npy holds Python objects"):
        files.read_array(path)
    np.save(path, np.ones((30, 4), np.float32))
    whole = path.read_bytes()
    for version in (1, 2):
        path.write_bytes(whole[:6] + bytes([version, 0]) + whole[8:200])
        with pytest.raises(InvalidInputError, match=r"(has 200 bytes; exp|is damaged)") as told:
            files.read_array(path)
        assert "mmap" not in str(told.value)
    for damaged in (whole[:40], whole[:6] + b"\x09\x09" + whole[8:], whole.replace(b"{", b"[")):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInputError, match=r"x\.npy is damaged: its header"):
            files.read_array(path)
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    (tmp_path / "x.npz").rename(path)
    with pytest.raises(InvalidInputError, match="an archive of several"):
        files.read_array(path)


def test_unknown_places(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"none\.npy: no such file"):
        files.read_array(tmp_path / "none.npy")
    with pytest.raises(InvalidInputError, match=r"has the suffix '\.txt'; expected one of \.npy"):
        files.read_array(tmp_path / "x.txt")


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.hdf5"
    train = np.random.default_rng(0).standard_normal((50, 4), dtype=np.float32)
    with h5py.File(path, "w") as file:
        file["train"] = train
        file["test"] = train[:3].astype(">f8")
        file.create_dataset("squeezed", data=train, chunks=(10, 4), compression="gzip")
        file.create_group("group")
        file.attrs["distance"] = "angular"
    read = files.read_array(path)
    assert isinstance(read, np.memmap)
    assert np.array_equal(read, train)
    assert np.array_equal(files.read_array(path, default_key="test"), train[:3])
    assert np.array_equal(files.read_array(f"{path}:squeezed"), train)
    assert np.array_equal(files.read_array(f"{path}:"), train)
    assert files.hdf5_distance_measure(files.locate(path)) == "cosine"
    assert str(files.locate(path)) == f"{path}:train"
    for key in ("none", "group"):
        with pytest.raises(
            InvalidInputError, match=f"has no array '{key}'; it has: squeezed, test, train"
        ):
            files.read_array(f"{path}:{key}")
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = b"euclidean"
    assert files.hdf5_distance_measure(files.locate(path)) == "squared_l2"
    with h5py.File(path, "w") as file:
        file["names"] = ["a", "b"]  # of any length: what lies in the file says where they are
    assert files.read_array(f"{path}:names").tolist() == [b"a", b"b"]
    with h5py.File(path, "w") as file:
        file["empty"] = np.empty((0, 4))
    assert files.hdf5_distance_measure(files.locate(path)) is None
    assert files.read_array(f"{path}:empty").shape == (0, 4)
    path.write_bytes(b"this is no HDF5")
    with pytest.raises(InvalidInputError, match="is not an HDF5 file"):
        files.read_array(path)


def test_hdf5_with_a_user_block(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    train = np.arange(40, dtype=np.float32).reshape(10, 4)
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=512) as file:
        file["train"] = train
    assert np.array_equal(files.read_array(tmp_path / "x.h5"), train)


def test_hdf5_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    path = tmp_path / "x.hdf5"
    path.write_bytes(b"x")
    with pytest.raises(MissingExtraError, match=r"needs h5py: pip install 'swann\[hdf5\]'"):
        files.read_array(path)


def test_writing(tmp_path: Path) -> None:
    indices = np.array([[4, 2, -1], [0, 1, 2]])
    distances = np.array([[1, 0.5, np.nan], [3, 2, 1]], np.float32)
    files.write_neighbors(tmp_path / "x.npz", indices, distances)
    with np.load(tmp_path / "x.npz") as both:
        assert np.array_equal(both["indices"], indices)
        assert np.array_equal(both["distances"], distances, equal_nan=True)
    for suffix in (".npy", ".ivecs"):
        files.write_neighbors(tmp_path / f"x{suffix}", indices, distances)
        assert np.array_equal(files.read_array(tmp_path / f"x{suffix}"), indices)
    with pytest.raises(InvalidInputError, match=r"suffix '\.csv'; expected one of \.npz, \.npy"):
        files.write_neighbors(tmp_path / "x.csv", indices, distances)
    greatest = indices + (2**31 - 1 - indices.max())
    files.write_neighbors(tmp_path / "x.ivecs", greatest, distances)
    assert np.array_equal(files.read_array(tmp_path / "x.ivecs"), greatest)
    with pytest.raises(InvalidInputError, match="do not fit into"):
        files.write_neighbors(tmp_path / "x.ivecs", greatest + 1, distances)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".ivecs"])
def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    files.write_neighbors(path, np.zeros((2, 3), int), np.zeros((2, 3), np.float32))
    before = path.read_bytes()

    def half(file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, half)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_errors_of_writing_name_the_file_that_was_given(tmp_path: Path) -> None:
    def full(number: int | None) -> Any:
        def write(_: object) -> None:
            raise OSError(number, "no space") if number else OSError("10 requested and 3 written")

        return write

    for number in (errno.ENOSPC, None):
        with pytest.raises(OSError, match=r"[^.]x\.bin") as told:
            files.write_whole(tmp_path / "x.bin", full(number))
        assert ".part" not in str(told.value)
        assert told.value.errno == number
    assert not list(tmp_path.iterdir())
    with pytest.raises(InvalidInputError, match=r"cannot be written: .*none is no directory"):
        files.check_output(tmp_path / "none" / "o.npy")

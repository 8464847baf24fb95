"""An index in one file: a plain zip of a saved directory, verified as that is."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipelines import PIPELINES, Pipeline, assert_same, search_all

import swann
from swann import ConfigError, CorruptIndexError, IndexFormatError
from swann.index.disk.bundle import BundleWriter, members_of
from swann.index.disk.file_system import map_file

DOCIDS = [f"word {i}" for i in range(120)]


def saved(path: Path, pipeline: Pipeline = PIPELINES[0], **options: Any) -> Path:
    pipeline.builder(**options).build(docids=DOCIDS).save(path)
    return path


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda p: p.name)
@pytest.mark.parametrize("verify", ["manifest", "full"])
def test_round_trip(pipeline: Pipeline, verify: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "x.swann", pipeline)
    searcher, loaded = pipeline.build(), swann.load(path, verify=verify)
    assert loaded.docids == DOCIDS
    for name, array in loaded._index.arrays().items():
        np.testing.assert_array_equal(array, searcher._index.arrays()[name])
        assert array.ctypes.data % 64 == 0
        assert not array.flags.writeable
    assert [p.name for p in tmp_path.iterdir()] == ["x.swann"]
    before = path.read_bytes()
    loaded.save(path)  # over itself
    assert path.read_bytes() == before
    loaded.upsert("new", np.ones(8, np.float32))
    loaded.save(path)
    assert "new" in (swann.load(path, verify="full").docids or [])


def test_it_is_the_directory_as_a_zip(tmp_path: Path) -> None:
    """Standard tools read it and can make the directory of it."""
    path = saved(tmp_path / "x.swann")
    saved(tmp_path / "directory")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        archive.extractall(tmp_path / "unpacked")
    unpacked, directory = (
        {p.name: p.read_bytes() for p in (tmp_path / f).iterdir()}
        for f in ("unpacked", "directory")
    )
    assert unpacked == directory
    with np.load(path) as arrays:
        assert {name.split("-")[0] for name in arrays.files} >= {"codes", "rows", "docid_bytes"}
    assert_same(search_all_named(tmp_path / "unpacked"), search_all_named(path))


def search_all_named(path: Path) -> Any:
    return swann.load(path, verify="full").search_batched(np.eye(8, dtype=np.float32))


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    searcher = PIPELINES[1].build()
    searcher.save("x.swann")
    assert os.path.isfile("x.swann")
    (tmp_path / "link.swann").symlink_to("x.swann")
    PIPELINES[2].build().save("link.swann")  # writes where it leads
    assert (tmp_path / "link.swann").is_symlink()
    for path in ("x.swann", "link.swann", Path("x.swann")):
        assert_same(search_all(swann.load(path)), search_all(PIPELINES[2].build()))
    shutil.copy("x.swann", "any name")
    assert len(swann.load("any name")) == 120
    searcher.serialize("y.swann")  # ScaNN's name always makes a directory
    assert len(swann.load("y.swann")) == 120
    with pytest.raises(ConfigError, match=r"y\.swann, which is a directory"):
        searcher.save("y.swann")
    searcher.save("missing/too/x.swann")
    assert len(swann.load("missing/too/x.swann")) == 120


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_failed_save_leaves_the_old_one(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "x.swann")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        with pytest.raises(OSError, match="No space left"):
            PIPELINES[2].build().save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.swann"]


def test_other_files(tmp_path: Path) -> None:
    cases: dict[str, bytes] = {"empty": b"", "text": b"swann", "json": b"{}", "half": b"PK\x03\x04"}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(IndexFormatError, match=name):
            swann.load(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.json", "{}")
    with pytest.raises(IndexFormatError, match=r"other\.zip"):
        swann.load(tmp_path / "other.zip")


def repacked(path: Path, target: Path, **options: Any) -> Path:
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w", **options) as out:
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
    return target


def test_zips_of_other_tools(tmp_path: Path) -> None:
    """They cannot be mapped as they are; the error says what helps."""
    path = saved(tmp_path / "x.swann")
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        other = repacked(path, tmp_path / "y.swann", compression=compression)
        with pytest.raises(CorruptIndexError, match=r"unpack it, load the directory"):
            swann.load(other)
        with zipfile.ZipFile(other) as archive:
            archive.extractall(tmp_path / "z")
        assert len(swann.load(tmp_path / "z", verify="full")) == 120


def test_files_past_4_gb(tmp_path: Path) -> None:
    """Sizes and places take 64 bits where they need them (a sparse file: it takes no room)."""
    path, large = tmp_path / "large.swann", (1 << 32) + 200
    data = np.arange(1000, dtype=np.uint8).tobytes()
    with open(path, "w+b") as file:
        bundle = BundleWriter(file)

        def write(file: Any, name: str = "large-1.npy", size: int = large) -> tuple[str, int]:
            file.write(data)
            file.seek(size - len(data) - 1, 1)
            file.write(b"x")
            return name, 0

        bundle.add(len("large-1.npy"), large, write)
        bundle.add_bytes("small-2.npy", b"small")
        bundle.add(len("larger.npy"), large + 9, lambda file: write(file, "larger.npy", large + 9))
        bundle.finish()
    if path.stat().st_blocks > 1 << 20:
        pytest.skip("the file system has no sparse files")
    members = members_of(map_file(path), path)
    assert len(members["large-1.npy"]) == large
    assert bytes(members["large-1.npy"][: len(data)]) == data
    assert bytes(members["large-1.npy"][-1:]) == b"x"
    assert bytes(members["small-2.npy"]) == b"small"
    assert len(members["larger.npy"]) == large + 9
    assert bytes(members["larger.npy"][: len(data)]) == data
    with zipfile.ZipFile(path) as archive:
        assert [info.file_size for info in archive.infolist()] == [large, 5, large + 9]
        assert archive.read("small-2.npy") == b"small"
        with archive.open("large-1.npy") as file_:
            assert file_.read(len(data)) == data


@pytest.mark.parametrize("field", ["offset", "size", "count", "directory"])
def test_places_that_lie(field: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "x.swann")
    whole = path.read_bytes()
    end = len(whole) - 22
    begin = struct.unpack_from("<L", whole, end + 16)[0]
    place, width = {
        "offset": (begin + 42, 4),
        "size": (begin + 24, 4),
        "count": (end + 10, 2),
        "directory": (end + 16, 4),
    }[field]
    for value in (0, 1, 63, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF):
        damaged = bytearray(whole)
        damaged[place : place + width] = value.to_bytes(4, "little")[:width]
        if damaged == whole:
            continue
        path.write_bytes(damaged)
        try:
            loaded = swann.load(path, verify="full")
        except IndexFormatError:
            continue
        assert loaded.docids == DOCIDS

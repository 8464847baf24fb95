"""Files of an index from file systems that fail: never a wrong byte."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharded import CONFIGS, Faults, same, save, vectors

import swann
from swann.distributed import DistributedSearcher
from swann.distributed.opening import StoredFiles, describe
from swann.distributed.storage import Storage
from swann.index.disk.npy import digest_of, npy_header

fsspec = pytest.importorskip("fsspec")

from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

FAULTS = Faults(0.0)


class FaultyFileSystem(MemoryFileSystem):
    """Files in memory; reads go wrong as `FAULTS` says."""

    protocol = "faulty"
    cachable = False
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("faulty://", "memory://"))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        file = super()._open(path, mode, **kwargs)
        if mode != "rb":
            return file
        return io.BytesIO(FAULTS.spoil(path, file.getvalue()))


fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swann.distributed.storage._FIRST_PAUSE", 1e-4)
    monkeypatch.setattr("swann.distributed.storage._LONGEST_PAUSE", 1e-3)


def upload(folder: Path, url: str) -> None:
    files = FaultyFileSystem()
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            files.pipe_file(f"{url.split('://')[1]}/{path.name}", path.read_bytes())


@pytest.mark.usefixtures("pauses")
def test_faults_change_no_answer(tmp_path: Path) -> None:
    queries = vectors(40, seed=1)
    old = CONFIGS["soar"](vectors(900, seed=5)).build(docids=[f"o{i}" for i in range(900)])
    built = CONFIGS["soar"](vectors(900)).build(docids=[f"d{i}" for i in range(900)])
    save(tmp_path / "old", 4, old)
    save(tmp_path / "new", 4, built)
    FAULTS.rate = 0
    FAULTS.stale = {
        p.name.split("-")[0]: p.read_bytes() for p in (tmp_path / "old").iterdir() if p.is_file()
    }
    stale = {}
    for path in (tmp_path / "new").iterdir():
        before = [p for p in (tmp_path / "old").glob(f"{path.name.split('-')[0]}*") if p.is_file()]
        if before and path.name != "manifest.json":  # a stale manifest is an older index
            stale[path.name] = before[0].read_bytes()
    FAULTS.stale = stale
    upload(tmp_path / "new", "faulty://index")
    wanted = built.search_batched(queries)
    answered = 0
    for turn in range(12):
        FAULTS.rate, before = 0.4, FAULTS.count
        try:
            searcher = DistributedSearcher.open(
                "faulty://index",
                2,
                workers=2,
                pool="local",
                deadline=30,
                cache=tmp_path / f"c{turn}",
            )
        except swann.StorageError:  # a file that came out wrong eight times
            continue
        with searcher:
            assert same(searcher.search_batched(queries), wanted)
        answered += 1
        assert FAULTS.count > before
        FAULTS.rate = 1.0  # all that is needed is in the cache, but for the manifest
        with pytest.raises((swann.StorageError, swann.IndexFormatError)):
            describe(Storage("faulty://index", tmp_path / f"c{turn}"))
    assert answered >= 6


@pytest.mark.usefixtures("pauses")
def test_nothing_wrong_stays_in_the_cache(tmp_path: Path) -> None:
    save(tmp_path / "index", 2, CONFIGS["dot"](vectors(500)).build())
    upload(tmp_path / "index", "faulty://bad")
    cache = tmp_path / "cache"
    FAULTS.rate = 0
    index = describe(Storage("faulty://bad", cache))
    files = StoredFiles(index.storage)
    name = next(path.name for path in (tmp_path / "index").glob("codes-*"))
    codes = np.load(tmp_path / "index" / name)
    header = npy_header(codes.dtype, codes.shape)
    FAULTS.rate = 1.0
    with pytest.raises(swann.StorageError, match=name):
        files.file(name, header)
    assert not list(cache.glob(f"*{name}*"))
    assert not list(cache.glob(".*"))
    FAULTS.rate = 0
    assert bytes(files.file(name, header)) == (tmp_path / "index" / name).read_bytes()
    FAULTS.rate = 1.0
    assert bytes(files.file(name, header)) == (tmp_path / "index" / name).read_bytes()  # cached
    FAULTS.rate = 0
    with pytest.raises(swann.IndexFormatError, match=r"has no manifest\.json"):
        describe(Storage("faulty://nothing", cache))


def test_the_cache_is_of_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWANN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of the user"))
    FAULTS.rate, files = 0, FaultyFileSystem()
    files.pipe_file("user/a-1", b"a")
    storage = Storage("faulty://user")
    kept = storage.fetch("a-1", "a-1", lambda _: None)
    assert kept == tmp_path / "of the user" / "swann" / "indexes" / "a-1"
    assert os.name != "posix" or kept.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("SWANN_CACHE", str(tmp_path / "named"))
    assert storage.fetch("a-1", "a-1", lambda _: None) == tmp_path / "named" / "a-1"
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWANN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(swann.StorageError, match=r"cache is .*SWANN_CACHE"):
        storage.fetch("a-1", "a-1", lambda _: None)


def test_who_has_no_home_names_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for variable in ("SWANN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert Storage(tmp_path).fetch("a-1", "a-1", lambda _: None) == tmp_path / "a-1"
    with pytest.raises(swann.ConfigError, match="XDG_CACHE_HOME"):
        Storage("faulty://user").fetch("a-1", "a-1", lambda _: None)


@pytest.mark.usefixtures("pauses")
def test_headers_are_checked_before_a_file_is_kept(tmp_path: Path) -> None:
    header, other = (npy_header(np.dtype("<f4"), (0, width)) for width in (16, 14))
    name = f"rows-{digest_of(np.empty(0))[:16]}.npy"
    FAULTS.rate, files = 0, FaultyFileSystem()
    files.pipe_file("headers/" + name, other)
    stored = StoredFiles(Storage("faulty://headers", tmp_path / "cache"))
    with pytest.raises(swann.StorageError, match="dtype and shape"):
        stored.file(name, header)
    files.pipe_file("headers/" + name, header)
    assert bytes(stored.file(name, header)) == header


def test_indexes_of_any_dimension_share_a_cache(tmp_path: Path) -> None:
    FAULTS.rate = 0
    for dimension in (16, 14):
        data = vectors(500)[:, :dimension].copy()
        built = CONFIGS["dot"](data).build()
        save(tmp_path / f"{dimension}", 2, built)
        upload(tmp_path / f"{dimension}", f"faulty://of-{dimension}")
        where, cache = f"faulty://of-{dimension}", tmp_path / "cache"
        with DistributedSearcher.open(where, 1, workers=2, pool="local", cache=cache) as searcher:
            assert same(searcher.search_batched(data[:9]), built.search_batched(data[:9]))


@pytest.mark.usefixtures("pauses")
def test_changes_to_an_index_elsewhere(tmp_path: Path) -> None:
    save(tmp_path / "index", 2, CONFIGS["dot"](vectors(500)).build())
    FAULTS.rate = 0
    upload(tmp_path / "index", "faulty://changed")
    settings: dict[str, Any] = {"pool": "local", "workers": 2, "cache": tmp_path / "cache"}
    with pytest.raises(swann.ConfigError, match="log"):
        DistributedSearcher.open("faulty://changed", 1, mode="rw", **settings)
    settings["log"] = tmp_path / "log"
    row = 50 * vectors(1, seed=8)[0]
    with DistributedSearcher.open("faulty://changed", 1, mode="rw", **settings) as searcher:
        assert searcher.upsert(None, row).tolist() == [500]
        searcher.checkpoint()
        searcher.delete(7)
        assert searcher.search(row, 1).indices.tolist() == [500]
    with DistributedSearcher.open("faulty://changed", 1, **settings) as searcher:
        assert searcher.search(row, 1).indices.tolist() == [500]
        assert len(searcher) == 500
        assert searcher._generation.description.base == 1


def test_a_url_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(swann.ConfigError, match="bogus"):
        Storage("bogus://bucket/index")

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(swann.MissingExtraError, match="s3fs"):
        Storage("s3://bucket/index")

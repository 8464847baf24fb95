"""Where the files of an index are, and how they are read: a directory, or one file of them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from swann.errors import ConfigError, CorruptIndexError, IndexFormatError
from swann.index.disk import file_system
from swann.index.disk.bundle import members_of
from swann.index.disk.contents import Entry
from swann.index.disk.manifest import MANIFEST, MAX_BYTES
from swann.index.disk.npy import digest_of, npy_header, read_npy

__all__ = ["BundleFiles", "DirectoryFiles", "Files", "Verify", "check_verify", "map_array"]

Verify = Literal["manifest", "full"]
"""What is checked: what the manifest says of each array, or the digest of all it holds, too."""

_OF_SCANN = "scann_config.pb"  # a file of ScaNN's own indexes


class Files(Protocol):
    """Where the files of an index are; `where` is the manifest, which errors name."""

    where: Path

    def manifest(self) -> bytes:
        """Return the manifest, or a little more than one may have."""

    def file(self, name: str, header: bytes = b"") -> memoryview:
        """Return a file, mapped; a FileNotFoundError if there is none.

        `header` is what an array's file begins with, for those that check what they fetch.
        """


class DirectoryFiles:
    """A directory that holds an index."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = root / MANIFEST

    def manifest(self) -> bytes:  # noqa: D102
        try:
            with file_system.open_plain(self.where) as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            wanted = "expected a directory or a file that Searcher.save wrote"
            if (self.root / _OF_SCANN).exists():
                wanted = "it is one of ScaNN, which swann.load_scann opens"
            raise IndexFormatError(
                f"{self.root} holds no index: there is no {MANIFEST} in it; {wanted}"
            ) from None

    def file(self, name: str, header: bytes = b"") -> memoryview:  # noqa: D102
        return file_system.map_file(self.root / name)


class BundleFiles:
    """A file that holds an index."""

    def __init__(self, path: Path) -> None:
        self.where = path
        self._members = members_of(file_system.map_file(path), path)

    def manifest(self) -> bytes:  # noqa: D102
        if MANIFEST not in self._members:
            raise IndexFormatError(f"{self.where} holds no index: there is no {MANIFEST} in it")
        return bytes(self._members[MANIFEST][: MAX_BYTES + 1])

    def file(self, name: str, header: bytes = b"") -> memoryview:  # noqa: D102
        if name not in self._members:
            raise FileNotFoundError(name)
        return self._members[name]


def check_verify(verify: Verify) -> None:
    """Raise a ConfigError unless this is how an index can be checked."""
    if not isinstance(verify, str) or verify not in ("manifest", "full"):
        raise ConfigError(f"verify is {verify!r}; expected 'manifest' or 'full'")


def map_array(source: Files, entry: Entry, verify: Verify) -> NDArray[Any]:
    """Return an array, mapped, once it is what the manifest says."""
    path = (
        source.where.parent / entry.file
        if isinstance(source, DirectoryFiles)
        else (f"{entry.file} in {source.where}")
    )
    try:
        data = source.file(entry.file, npy_header(entry.dtype, entry.shape))
    except FileNotFoundError:
        raise CorruptIndexError(f"{path} is missing") from None
    array = read_npy(data, path, entry.dtype, entry.shape)
    if verify == "full" and digest_of(array) != entry.sha256:
        raise CorruptIndexError(f"{path} is damaged: its digest does not match the manifest")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

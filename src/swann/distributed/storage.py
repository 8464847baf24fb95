"""The files of an index, in a local directory or on a file system that fsspec knows.

Files named by their content are fetched once, into a cache directory, and mapped there. A file gets
its name in the cache after its size and digest were found right, so that whatever the file system
does (truncate, fail, answer with what was there before, flip bits), no wrong byte is searched.
Files of a local directory are mapped where they are.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from swann.config import check_path
from swann.errors import ConfigError, IndexFormatError, MissingExtraError, StorageError
from swann.files import user_cache
from swann.index.disk import file_system
from swann.index.disk.manifest import MANIFEST

__all__ = ["Storage", "default_cache"]

T = TypeVar("T")

TRIES = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 2.0  # seconds between tries, doubled each time


def default_cache() -> Path:
    """Return the cache directory that is used unless another is named.

    ``$SWANN_CACHE``, or `indexes` in the user's cache of swann. Who can write there decides what is
    searched, so it is no place that others share.

    Raises
    ------
    ConfigError
        If the user has no home directory, and none of the variables is set.
    """
    named = os.environ.get("SWANN_CACHE")
    return Path(named) if named else user_cache() / "indexes"


class Storage:
    """Where the files of an index are.

    Parameters
    ----------
    location : str or path
        A directory, or its URL (``s3://bucket/index``, ``memory://index``); or that of the
        ``manifest.json`` in it.
    cache : path, optional
        Where files from elsewhere are kept; that of `default_cache` unless given. Any number of
        processes may share it, and it may be emptied while nobody starts a worker. Made for its
        owner alone if it is not there; what lies there is trusted.

    Raises
    ------
    MissingExtraError
        If it is a URL and fsspec is not installed, or what fsspec needs for it.
    ConfigError
        If it is a URL of a kind that fsspec does not know.
    """

    def __init__(
        self, location: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None
    ) -> None:
        check_path("manifest", location)
        text = os.fspath(location)
        if text.endswith("/" + MANIFEST) or text == MANIFEST:
            text = text[: -len(MANIFEST)].rstrip("/") or "."
        self._cache = None if cache is None else check_path("cache", cache)
        self.root: Path | None = None
        scheme = text.split("://", 1)[0] if "://" in text else "file"
        if scheme in ("file", "local"):
            self.root = Path(text.split("://", 1)[-1]).absolute()
            self.location = str(self.root)
            return
        try:
            import fsspec  # type: ignore[import-untyped, unused-ignore]
        except ImportError as error:
            raise MissingExtraError(
                f"{text} needs fsspec, and it is not installed: pip install 'swann[ray]'"
            ) from error
        self.location = text.rstrip("/")
        self._fs: Any
        try:
            self._fs, self._base = fsspec.core.url_to_fs(self.location, use_listings_cache=False)
        except ImportError as error:
            raise MissingExtraError(f"{text} cannot be opened by fsspec: {error}") from error
        except ValueError as error:
            raise ConfigError(
                f"manifest is {text!r}; expected a directory, or a URL that fsspec knows: {error}"
            ) from error

    def __repr__(self) -> str:
        return f"Storage({self.location!r})"

    # ---- Reading

    def read(self, name: str, most: int, accept: Callable[[bytes], T]) -> T:
        """Return what `accept` makes of a small file; it raises where that is not as it must be.

        Raises
        ------
        StorageError
            If no try brought what it must be.
        IndexFormatError
            If there is no such file.
        """

        def once() -> T:
            with self._open(name) as file:
                return accept(file.read(most + 1))

        return self._try(name, once)

    def fetch(self, name: str, kept_as: str, check: Callable[[memoryview], None]) -> Path:
        """Return the path of a file named by its content, after bringing it here if it is not.

        Parameters
        ----------
        name : str
            Its name in this index.
        kept_as : str
            Its name in the cache, that of no other content of any index.
        check : callable
            Raises a CorruptIndexError unless these bytes are right.

        Raises
        ------
        StorageError
            If no try brought what it must be, or there can be no cache.
        ConfigError
            As `default_cache`.
        """
        if self.root is not None:
            return self.root / name
        cache = default_cache() if self._cache is None else self._cache
        kept = cache / kept_as
        if kept.exists():
            return kept
        _make_private(cache)

        def write(file: BinaryIO) -> str:
            with self._open(name) as source:
                shutil.copyfileobj(source, file, 1 << 22)
            file.flush()
            check(file_system.map_file(Path(file.name)))
            return kept_as

        self._try(name, lambda: file_system.place_file(cache, kept_as, write))
        return kept

    def _open(self, name: str) -> Any:
        if self.root is not None:
            return file_system.open_plain(self.root / name)
        return self._fs.open(f"{self._base}/{name}", "rb")

    def _try(self, name: str, once: Callable[[], T]) -> T:
        pause = _FIRST_PAUSE
        missing = 0
        for last in [False] * (TRIES - 1) + [True]:
            try:
                return once()
            # What file systems raise has no common root.
            except Exception as error:
                missing += isinstance(error, FileNotFoundError)
                # A local file is what it is; one that is never there is not there.
                if self.root is not None or missing == TRIES // 2:
                    if isinstance(error, FileNotFoundError):
                        raise IndexFormatError(f"{self.location} has no {name}") from error
                    raise
                if last:
                    raise StorageError(
                        f"{name} could not be read from {self.location} in {TRIES} tries; "
                        f"the last: {type(error).__name__}: {error}"
                    ) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("unreachable")

    # ---- Writing

    def put(self, path: Path, name: str) -> None:
        """Bring a local file there; one that was there before has this content in its place."""
        if self.root is not None:
            if path != self.root / name:
                file_system.place_file(self.root, name, lambda file: _copy(path, file, name))
            return

        def once() -> None:
            with self._fs.open(f"{self._base}/{name}", "wb") as target, open(path, "rb") as source:
                shutil.copyfileobj(source, target, 1 << 22)
            found = self._fs.size(f"{self._base}/{name}")
            if found != path.stat().st_size:
                raise OSError(f"{found} of {path.stat().st_size} bytes were written")

        self._try(name, once)

    def remove(self, name: str) -> None:
        """Remove a file that nobody needs, if that is possible."""
        if self.root is not None:
            file_system.remove(self.root / name)
            return
        try:
            self._fs.rm_file(f"{self._base}/{name}")
        except Exception:
            return  # it is named by its content and does no harm


def _make_private(cache: Path) -> None:
    """Make the cache, if it is not there, for its owner alone."""
    try:
        cache.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cache is {cache}, which cannot be made ({error}); "
            "name another by cache= or SWANN_CACHE"
        ) from error


def _copy(path: Path, file: BinaryIO, name: str) -> str:
    with open(path, "rb") as source:
        shutil.copyfileobj(source, file, 1 << 22)
    return name

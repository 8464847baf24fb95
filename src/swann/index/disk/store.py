"""An index on disk: a directory of immutable array files under one small manifest.

::

    directory/
      manifest.json               what there is: version, config, shapes, dtypes, digests
      codes-3f2a91c05d7be846.npy  one plain .npy file an array, named by its content
      ...

or one file that holds these (`swann.index.disk.bundle`).

Array files are written and flushed first; the manifest, replaced in one step, then makes them the
index. Until that moment the index that was there before is whole. Nothing is unpickled, and every
size is checked before it is used. `docs/storage.md` says what may be relied upon.
"""

from __future__ import annotations

import os
import re
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from swann.errors import ConfigError, CorruptIndexError
from swann.index.disk import file_system
from swann.index.disk.bundle import BundleWriter
from swann.index.disk.contents import (
    Contents,
    Entry,
    dtype_of,
    is_array,
    log_entry,
    manifest_of,
    read_contents,
)
from swann.index.disk.index_files import (
    BundleFiles,
    DirectoryFiles,
    Files,
    Verify,
    check_verify,
    map_array,
)
from swann.index.disk.lock import DirectoryLock
from swann.index.disk.log_files import log_files
from swann.index.disk.manifest import (
    FORMAT_VERSION,
    LOG,
    MANIFEST,
    encode_manifest,
    open_unchanged,
    read_manifest,
)
from swann.index.disk.npy import npy_size, write_npy
from swann.index.docid_arrays import DOCID_ARRAYS, StoredDocids, docid_arrays
from swann.index.docids import Docids
from swann.index.packed import ARRAYS, PackedIndex
from swann.index.state import LogPoint, State

__all__ = [
    "FORMAT_VERSION",
    "SUFFIX",
    "arrays_of",
    "holds_index",
    "is_array_file",
    "is_placed",
    "load_state",
    "mark_log",
    "place_array",
    "place_manifest",
    "read_state",
    "remove_stale",
    "save_bundle",
    "save_state",
]

SUFFIX = ".swann"
"""Of a file that holds a whole index."""

_ARRAY_FILE = re.compile(r"(\w+)-[0-9a-f]{16}\.npy")
_SHARD_FILE = re.compile(r"shard-[0-9a-f]{16}\.json")


# ---- Writing


def save_state(
    state: State,
    directory: str | os.PathLike[str],
    lock: DirectoryLock | None = None,
    *,
    name: str = "path",
) -> None:
    """Write an index, replacing the one that `directory` may hold.

    Parameters
    ----------
    state : State
        What to save; its index has no changes that are not folded in.
    directory : path
        Made if it is missing.
    lock : DirectoryLock, optional
        That of the directory, if the caller has it.
    name : str
        What errors call `directory`.

    Raises
    ------
    LockedError
        If somebody has the directory open for changes.
    ConfigError
        If it is a file.
    OSError
        If the disk is full or the directory cannot be written; what was there is still whole.
    """
    root = Path(directory)
    if root.exists() and not root.is_dir():
        raise ConfigError(
            f"{name} is {root}, which is a file; expected a directory, or a name that ends in "
            f"{SUFFIX} for Searcher.save"
        )
    file_system.make_directory(root)
    with DirectoryLock(root, "save") if lock is None else nullcontext():
        file_system.remove_temporary(root)
        present = {path.name for path in root.iterdir()}
        entries: dict[str, Entry] = {}
        data = b""
        try:
            for name, array in arrays_of(state).items():
                entries[name] = place_array(root, name, array)
            file_system.sync_directory(root)  # no manifest without what it lists
            data = encode_manifest(manifest_of(state, entries))
            if lock is not None:
                lock.check()  # another directory may be there by now
            place_manifest(root, data)
        except BaseException:
            unlisted = [] if is_placed(root, data) else list(entries.values())
            for entry in unlisted if lock is None or lock.is_there() else ():
                if entry.file not in present:
                    with suppress(OSError):  # the next save removes them
                        (root / entry.file).unlink(missing_ok=True)
            raise
        file_system.sync_directory(root)
        if lock is not None:
            lock.check()
        remove_stale(root, {entry.file for entry in entries.values()}, state.log)


def save_bundle(state: State, path: str | os.PathLike[str]) -> None:
    """Write an index as one file, replacing the one that is there.

    Raises
    ------
    ConfigError
        If a directory is there.
    OSError
        If it cannot be written; what was there is still whole.
    """
    target = Path(os.path.realpath(path))  # a link goes on leading where it led
    if target.is_dir():
        raise ConfigError(
            f"path is {target}, which is a directory; expected a file: Searcher.serialize writes "
            "directories of any name"
        )
    file_system.make_directory(target.parent)

    def write(file: BinaryIO) -> str:
        bundle = BundleWriter(file)
        entries: dict[str, Entry] = {}
        for name, array in arrays_of(state).items():

            def add(file: BinaryIO, name: str = name, array: NDArray[Any] = array) -> Any:
                digest, checksum = write_npy(file, array, checksum=True)
                entries[name] = _entry_of(name, array, digest)
                return entries[name].file, checksum

            bundle.add(len(f"{name}-.npy") + 16, npy_size(array), add)
        bundle.add_bytes(MANIFEST, encode_manifest(manifest_of(state, entries)))
        bundle.finish()
        return target.name

    file_system.place_file(target.parent, target.name, write)
    file_system.sync_directory(target.parent)


def arrays_of(state: State) -> dict[str, NDArray[Any]]:
    """Return the arrays of an index as they are stored, docids too."""
    arrays = state.packed.arrays() | docid_arrays(state.docids)
    return {name: np.ascontiguousarray(a, dtype=dtype_of(name)) for name, a in arrays.items()}


def _entry_of(name: str, array: NDArray[Any], digest: str) -> Entry:
    return Entry(f"{name}-{digest[:16]}.npy", array.dtype, array.shape, digest)


def place_array(root: Path, name: str, array: NDArray[Any]) -> Entry:
    """Write an array, named by its content; `file_system.sync_directory` makes it last."""
    made: list[Entry] = []

    def write(file: BinaryIO) -> str:
        made.append(_entry_of(name, array, write_npy(file, array)[0]))
        return made[0].file

    file_system.place_file(root, name, write)
    return made[0]


def is_placed(root: Path, data: bytes) -> bool:
    """Whether a manifest may be in place: a rename can be done and fail, or be interrupted."""
    try:
        return data != b"" and (root / MANIFEST).read_bytes() == data
    except FileNotFoundError:
        return False
    except OSError:
        return True


def place_manifest(root: Path, data: bytes, name: str = MANIFEST) -> None:
    """Write a manifest in place of the one there; `file_system.sync_directory` makes it last."""

    def write(file: BinaryIO) -> str:
        file.write(data)
        return name

    file_system.place_file(root, name, write)


def remove_stale(root: Path, kept: set[str], log: LogPoint | None) -> None:
    """Remove the files of indexes that stood here before, logs too."""
    for path in root.glob("*-*"):
        if path.name not in kept and (is_array_file(path.name) or _SHARD_FILE.fullmatch(path.name)):
            file_system.remove(path)
    for first, path in log_files(root):
        if log is None or first <= log.sequence:
            file_system.remove(path)


def is_array_file(name: str) -> bool:
    """Whether a file of this name is an array of some index."""
    named = _ARRAY_FILE.fullmatch(name)
    return named is not None and is_array(named[1])


def mark_log(directory: str | os.PathLike[str], point: LogPoint) -> None:
    """Note in the manifest that a log follows. The caller has the directory's lock."""
    source = DirectoryFiles(Path(directory))
    content = read_manifest(source.manifest(), source.where)
    content["features"] = [name for name in content["features"] if name != LOG] + [LOG]
    content["log"] = log_entry(point)
    place_manifest(source.root, encode_manifest(content))
    file_system.sync_directory(source.root)


# ---- Reading


def load_state(path: str | os.PathLike[str], *, verify: Verify = "manifest") -> State:
    """Open an index; its arrays and docids are memory-mapped.

    Parameters
    ----------
    path : path
        Where `save_state` or `save_bundle` wrote it, or where that was moved.
    verify : {"manifest", "full"}
        ``"full"`` reads all of the arrays to check their digests.

    Returns
    -------
    State
        Without the changes that its log holds.

    Raises
    ------
    FormatVersionError
        If it was written by a newer version.
    CorruptIndexError
        If something is missing, or is not what the manifest says.
    IndexFormatError
        If there is no index.
    """
    check_verify(verify)
    root = Path(path)
    source: Files = BundleFiles(root) if root.is_file() else DirectoryFiles(root)

    def attempt(data: bytes) -> State:
        contents = read_contents(read_manifest(data, source.where), source.where)
        return read_state(source, contents, verify)

    return open_unchanged(source.manifest, attempt, root)


def holds_index(path: str | os.PathLike[str]) -> bool:
    """Whether there is an index of swann's, whole or not."""
    path = Path(path)
    return (path / MANIFEST).exists() or (path.suffix == SUFFIX and path.is_file())


def read_state(source: Files, contents: Contents, verify: Verify) -> State:
    """Return the state of an index whose manifest says `contents`; errors as of `load_state`."""
    arrays = {name: map_array(source, e, verify) for name, e in contents.arrays.items()}
    docids = None
    stored = {name: arrays.pop(name) for name in DOCID_ARRAYS if name in arrays}
    if contents.has_docids:
        docids = Docids(stored=StoredDocids(stored, source.where)) if stored else Docids()
        if verify == "full":
            docids.check()
    n = contents.num_datapoints
    entries = len(arrays["entry_rows"]) if "entry_rows" in arrays else n
    _check_leaf_starts(source.where, arrays["leaf_starts"], entries)
    if "ids" in arrays and n and int(arrays["ids"].max()) >= contents.next_number:
        raise CorruptIndexError(f"ids of {source.where} are not all below {contents.next_number}")
    own: dict[str, Any] = {name: array for name, array in arrays.items() if name in ARRAYS}
    try:
        packed = PackedIndex(
            contents.config,
            num_datapoints=n,
            dimension=contents.dimension,
            correction_low=contents.correction_low,
            correction_span=contents.correction_span,
            residual=contents.residual,
            routes={name: array for name, array in arrays.items() if name not in ARRAYS},
            **own,
        )
    except ValueError as error:
        message = f"the arrays of {source.where} do not fit together: {error}"
        raise CorruptIndexError(message) from error
    return State(packed, docids, contents.next_number, contents.plan, contents.log)


def _check_leaf_starts(where: object, starts: NDArray[Any], entries: int) -> None:
    ordered = len(starts) >= 2 and starts[0] == 0 and starts[-1] == entries
    if not ordered or bool((starts[1:] < starts[:-1]).any()):
        raise CorruptIndexError(f"leaf_starts of {where} does not run from 0 to {entries}")

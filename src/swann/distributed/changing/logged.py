"""The log of changes of an index in shards: opening it, and folding it into new shard files."""

from __future__ import annotations

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swann.distributed.changing.changes import Changes
from swann.distributed.opening import Description, StoredFiles, describe
from swann.distributed.storage import Storage
from swann.distributed.tail import Record
from swann.distributed.workers.fleet import Fleet
from swann.distributed.workers.folding import fold_message
from swann.distributed.workers.generation import Generation
from swann.errors import ConfigError, IndexFormatError
from swann.index.changing.durable import continue_log, new_log, replay
from swann.index.disk import file_system
from swann.index.disk.contents import log_entry
from swann.index.disk.lock import DirectoryLock
from swann.index.disk.log_files import log_files, log_signature
from swann.index.disk.manifest import (
    LOG,
    MANIFEST,
    MAX_BYTES,
    encode_manifest,
    open_unchanged,
    read_manifest,
)
from swann.index.disk.sharded import ShardedWriter
from swann.index.disk.store import remove_stale
from swann.index.docids import Docids
from swann.index.log.journal import Durability, FileJournal
from swann.index.state import LogPoint

__all__ = ["Cut", "Logged", "open_logged"]

_FLUSH = 0.05  # seconds within which durability "batch" flushes


@dataclass(frozen=True)
class Cut:
    """What a checkpoint saves: all up to a change."""

    generation: Generation
    point: LogPoint
    records: list[Record]
    following: int
    live: NDArray[np.int64]
    docids: Docids | None


class Logged:
    """The changes of an index and the log that they are in.

    Attributes
    ----------
    lock : RLock
        Held while a change is made.
    changes : Changes
        Of the generation that is searched.
    journal : FileJournal or None
        None where no changes are accepted.
    """

    def __init__(self, root: Path, changes: Changes) -> None:
        self._root = root
        self.lock = threading.RLock()
        self.changes = changes
        self.journal: FileJournal | None = None
        self._held: DirectoryLock | None = None

    def accept(self, held: DirectoryLock, point: LogPoint, durability: Durability) -> None:
        """Make the changes in the log once more, then log further ones."""
        reader = replay(self.changes.repeat, self._root, point)
        self.journal = continue_log(reader, self._root, point, durability, _FLUSH)
        self.changes.journal = self.journal
        self._held = held

    def flush(self) -> None:
        """Bring all changes to disk; a LogError if that fails."""
        if self.journal is not None:
            self.journal.flush()

    def close(self) -> None:
        """Bring all changes to disk and let other writers in."""
        with self.lock:
            try:
                if self.journal is not None:
                    self.journal.close()
            finally:  # an interrupt may come before it is closed
                if self._held is not None and (self.journal is None or self.journal.closed):
                    self._held.release()

    # ---- Checkpoints, in this order

    def cut(self) -> Cut:
        """Let the log go on in a new file, and return what there is. The lock is held."""
        assert self.journal is not None
        changes, generation = self.changes, self.changes.generation
        point = self.journal.rotate()
        live = changes.live_numbers()
        docids = None if generation.docids is None else generation.docids.kept(live)
        records = generation.tail.upto(point.sequence)
        return Cut(generation, point, records, changes.following, live, docids)

    def fold(self, cut: Cut, fleet: Fleet) -> Description:
        """Write new files of the shards, and the manifest that lists them."""
        generation, storage = cut.generation, cut.generation.description.storage
        gaps = np.ones(cut.following, bool)
        gaps[cut.live] = False
        # Users of docids do not see numbers: they begin at 0 again, in the same order.
        dead = np.flatnonzero(gaps if cut.docids is not None else gaps[:0]).astype(np.uint32)
        following = cut.following - len(dead)

        def one(shard: int) -> tuple[dict[str, Any], NDArray[np.int64]]:
            message = fold_message(generation.description, shard, cut.records, dead, following)
            reply = fleet.ask("fold", message)
            return reply.fields["manifest"], reply.arrays[0]

        with ThreadPoolExecutor(max(1, fleet.wanted)) as threads:
            folded = list(threads.map(one, range(generation.num_shards)))
        sizes = sum((sizes for _, sizes in folded), np.zeros(len(generation.owners), np.int64))
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]).astype(np.uint32)
        index, files = generation.description.index, StoredFiles(storage)
        head = read_manifest(bytes(files.file(index.head.file)), index.head.file)
        with tempfile.TemporaryDirectory() as folder:
            with ShardedWriter(Path(folder)) as out:
                out.finish(
                    index.config,
                    num_datapoints=len(cut.live),
                    dimension=index.dimension,
                    head=out.shard_manifest(head, 0),
                    shards=[out.shard_manifest(m, int(s.sum())) for m, s in folded],
                    whole_starts=starts,
                    owners=index.owners,
                    docids=cut.docids,
                    plan=index.plan,
                    next_number=following,
                    log=cut.point,
                )
            for path in sorted(Path(folder).iterdir(), key=lambda path: path.name == MANIFEST):
                if path.is_file():
                    storage.put(path, path.name)
            data = (Path(folder) / MANIFEST).read_bytes()
        return describe(storage, data)

    def follow(self, description: Description) -> Changes:
        """Make the changes since the cut once more, behind the new manifest. The lock is held."""
        assert self.journal is not None
        assert description.log is not None
        generation = Generation(description)
        changes = Changes(generation)
        replay(changes.repeat, self._root, description.log)
        changes.journal = self.journal
        return changes

    def forget(self, old: Description, new: Description) -> None:
        """Remove what only the old manifest needed, and what `clean` does."""
        assert self.journal is not None
        self.journal.forget_older_files()
        kept = _files_of(new)
        for name in _files_of(old) - kept:
            with suppress(OSError):
                new.storage.remove(name)
        self.clean(new)

    def clean(self, searched: Description) -> None:
        """Remove what is left of checkpoints that were killed, interrupted, or failed.

        Files stay that the manifest which is searched needs, or the one that is in place. Those of
        an index whose log lies elsewhere all do: this searcher has no lock of its directory.
        """
        with suppress(OSError, IndexFormatError):  # the next one does it
            for first, path in log_files(self._root):
                if first <= searched.base:
                    file_system.remove(path)
            if searched.storage.root == self._root:
                placed = describe(searched.storage)
                file_system.remove_temporary(self._root)
                remove_stale(self._root, _files_of(searched) | _files_of(placed), searched.log)


def open_logged(
    storage: Storage,
    mode: Literal["r", "rw"],
    log: str | os.PathLike[str] | None,
    durability: Durability,
) -> tuple[Generation, Logged | None]:
    """Open an index and make the changes in its log once more; the log, if there is one.

    Raises
    ------
    IndexFormatError, StorageError, LockedError
        As `DistributedSearcher.open` does.
    """
    if not isinstance(durability, str) or durability not in ("always", "batch", "none"):
        raise ConfigError(f"durability is {durability!r}; expected 'always', 'batch' or 'none'")
    if mode == "r":
        return _open_to_read(storage, log)
    describe(storage)  # before anything is written
    root = _log_root(storage, log)
    file_system.make_directory(root)
    held = DirectoryLock(root, "open")
    try:
        description = describe(storage)
        if description.log is None:
            description = _begin_log(storage, root)
        assert description.log is not None
        generation = Generation(description)
        logged = Logged(root, Changes(generation))
        logged.accept(held, description.log, durability)
        return generation, logged
    except BaseException:
        held.release()
        raise


def _open_to_read(
    storage: Storage, log: str | os.PathLike[str] | None
) -> tuple[Generation, Logged | None]:
    def read() -> tuple[Description, object]:
        description = describe(storage)
        if description.log is None:
            return description, None
        root = _log_root(storage, log)
        return description, (root, log_signature(root))

    def attempt(found: tuple[Description, object]) -> tuple[Generation, Logged | None]:
        description = found[0]
        generation = Generation(*found)
        if description.log is None:
            return generation, None
        root = _log_root(storage, log)
        logged = Logged(root, Changes(generation))
        replay(logged.changes.repeat, root, description.log)
        return generation, logged

    return open_unchanged(read, attempt, storage.location, lambda found: (found[0].key, found[1]))


def _log_root(storage: Storage, log: str | os.PathLike[str] | None) -> Path:
    root = storage.root if log is None else Path(log)
    if root is None:
        raise ConfigError(
            f"log is None, but {storage.location} is not a local directory; expected the local "
            "directory of its log of changes"
        )
    return root.absolute()  # wherever the process goes


def _begin_log(storage: Storage, root: Path) -> Description:
    """Begin the log of an index that has none."""
    point = new_log(root)
    files = StoredFiles(storage)
    content = read_manifest(files.manifest(), files.where)
    content["features"] = [*content["features"], LOG]
    content["log"] = log_entry(point)
    data = encode_manifest(content)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST).write_bytes(data)
        storage.put(Path(folder) / MANIFEST, MANIFEST)
    return describe(storage, data)


def _files_of(description: Description) -> set[str]:
    """Return the names of all files that a manifest needs."""
    files = StoredFiles(description.storage, description.manifest)
    contents = [read_manifest(description.manifest, files.where)]
    names = set()
    for entry in (description.index.head, *description.index.shards):
        names.add(entry.file)
        data = bytes(files.file(entry.file)[: MAX_BYTES + 1])
        contents.append(read_manifest(data, entry.file))
    return names | {e["file"] for content in contents for e in content["arrays"].values()}

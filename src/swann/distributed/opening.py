"""What the manifest of an index in shards says, and opening its parts from wherever they are."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.config import IndexConfig
from swann.distributed.storage import Storage
from swann.distributed.wire import Message
from swann.errors import CorruptIndexError
from swann.index.disk import file_system
from swann.index.disk.manifest import MANIFEST, MAX_BYTES, read_manifest
from swann.index.disk.sharded import ShardedIndex, ShardEntry, open_sharded
from swann.index.docids import Docids
from swann.index.shards import Head, Shard
from swann.index.state import LogPoint

__all__ = ["Description", "StoredFiles", "describe", "open_message", "open_shard"]


class StoredFiles:
    """The files of an index, as `swann.index.disk.index_files.Files`, from a `Storage`.

    Parameters
    ----------
    storage : Storage
        Where they are.
    manifest : bytes, optional
        The manifest, if it was read.
    """

    def __init__(self, storage: Storage, manifest: bytes | None = None) -> None:
        self.storage = storage
        self.where = Path(storage.location) / MANIFEST
        self._manifest = manifest

    def manifest(self) -> bytes:
        """Return the manifest."""
        if self._manifest is None:
            self._manifest = self.storage.read(MANIFEST, MAX_BYTES, self._whole)
        return self._manifest

    def _whole(self, data: bytes) -> bytes:
        read_manifest(data, self.where)
        return data

    def file(self, name: str, header: bytes = b"") -> memoryview:
        """Return a file, mapped."""
        # Names tell of the values alone: empty arrays of any shape have the same.
        kept = f"{_digest(header)}-{name}" if header else name
        path = self.storage.fetch(name, kept, lambda data: _check(name, header, data))
        return file_system.map_file(path)


def _check(name: str, header: bytes, data: memoryview) -> None:
    """Raise a CorruptIndexError unless a file has this header and the content its name tells."""
    if data[: len(header)] != header:
        raise CorruptIndexError(f"{name} does not begin as an array of its dtype and shape does")
    if _digest(data[len(header) :]) != Path(name).stem.rpartition("-")[2]:
        raise CorruptIndexError(f"{name} does not have the content that its name tells")


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Description:
    """What a manifest says.

    Attributes
    ----------
    key : str
        Of this manifest and no other.
    index : ShardedIndex
        What it lists.
    storage : Storage
        Where the files are.
    manifest : bytes
        The manifest itself.
    """

    key: str
    index: ShardedIndex
    storage: Storage
    manifest: bytes

    @property
    def plan(self) -> IndexConfig:
        """The settings."""
        return self.index.plan

    @property
    def dimension(self) -> int:
        """That of datapoints and queries."""
        return self.index.dimension

    @property
    def num_leaves(self) -> int:
        """Leaves of the whole."""
        return len(self.index.owners)

    @property
    def shards(self) -> tuple[ShardEntry, ...]:
        """The shards."""
        return self.index.shards

    @property
    def docids(self) -> Docids | None:
        """Docids, by number."""
        return self.index.docids

    @property
    def log(self) -> LogPoint | None:
        """Where changes go on."""
        return self.index.log

    @property
    def base(self) -> int:
        """The number of the last change that the shards hold."""
        return 0 if self.index.log is None else self.index.log.sequence

    def open_head(self) -> Head:
        """Open what chooses leaves."""
        return self.index.open_head()

    def alive(self) -> NDArray[np.bool_]:
        """Return which numbers datapoints have. Reads the numbers of all, where there are gaps."""
        index = self.index
        if index.docids is not None or index.num_datapoints == index.next_number:
            return np.ones(index.next_number, bool)
        alive = np.zeros(index.next_number, bool)
        for number in range(len(index.shards)):
            alive[index.open_shard(number).packed.numbers()] = True
        return alive


def describe(storage: Storage, manifest: bytes | None = None) -> Description:
    """Read a manifest, from `storage` unless it is given.

    Raises
    ------
    IndexFormatError
        If there is none of an index in shards, or it is damaged.
    StorageError
        If it cannot be read.
    """
    files = StoredFiles(storage, manifest)
    index, data = open_sharded(files), files.manifest()
    return Description(hashlib.sha256(data).hexdigest()[:32], index, storage, data)


def open_message(description: Description, shard: int) -> Message:
    """Return what a worker must know to open a shard. It never reads the manifest itself."""
    index = description.index
    fields = {
        "location": description.storage.location,
        "entry": index.shards[shard]._asdict(),
        "dimension": index.dimension,
        "config": index.config.to_dict(),
        "base": description.base,
    }
    owned = (index.owners == shard).astype(np.uint8)
    return Message(fields, [index.whole_starts, owned])


def open_shard(message: Message, cache: str | os.PathLike[str] | None) -> Shard:
    """Open the shard that `open_message` tells of; fetches what is not here."""
    fields: dict[str, Any] = message.fields
    whole_starts, owned = message.arrays[:2]
    entry, config = ShardEntry(**fields["entry"]), IndexConfig.from_dict(fields["config"])
    alone = ShardedIndex(
        files=StoredFiles(Storage(fields["location"], cache), b""),
        config=config,
        plan=config,
        num_datapoints=entry.rows,
        next_number=0,
        dimension=fields["dimension"],
        head=entry,
        shards=(entry,),
        whole_starts=whole_starts,
        owners=(1 - owned).astype(np.uint32),  # this one is number 0 of those it knows
        docids=None,
        log=None,
    )
    return alone.open_shard(0)

"""A disk that loses power: what may be on it, given what was written, flushed and renamed.

What a process writes reaches the disk when the file is flushed, and names when their directory is.
Until then any of it may be there, whatever its order, and the rest not: pieces of a write, a cut,
a name. A rename is there or it is not. A file may have grown without its bytes: zeros are there, or
what the place held before.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import PurePosixPath
from random import Random

_SECTOR, _PIECES = 512, 6
_DIRECTORY = -1
_GROWN, _STALE = 1, 2

Files = dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class Event:
    """A call that was recorded: its letter, its numbers, and its path or bytes."""

    what: str
    numbers: tuple[int, ...]
    path: str = ""
    other: str = ""
    data: bytes = b""


def events_of(record: bytes, folder: str) -> list[Event]:
    """Return what `Watched.recorded` holds; paths are relative to the folder."""
    place = 0

    def number() -> int:
        nonlocal place
        place += 8
        return int(struct.unpack_from("<Q", record, place - 8)[0])

    def text() -> bytes:
        nonlocal place
        size = number()
        place += size
        return record[place - size : place]

    def path() -> str:
        return text().decode().removeprefix(folder).strip("/")

    events = []
    while place < len(record):
        what = chr(record[place])
        place += 1
        if what == "o":
            events.append(Event(what, (number(), number(), number()), path()))
        elif what == "w":
            events.append(Event(what, (number(), number()), data=text()))
        elif what == "t":
            events.append(Event(what, (number(), number())))
        elif what in "csm":
            events.append(Event(what, (number(),)))
        elif what == "r":
            events.append(Event(what, (), path(), path()))
        else:
            events.append(Event(what, (), path()))
    return events


@dataclasses.dataclass(frozen=True)
class _Change:
    """Something that is not surely on the disk: bytes of a file, its length, or names."""

    owner: int | str  # a file, or the directory of the names
    offset: int = 0
    data: bytes | None = None  # None: the file is cut at `offset`
    names: tuple[tuple[str, int | None], ...] = ()


class Disk:
    """What processes see, what is on the disk, and what waits for it.

    Parameters
    ----------
    files : dict
        What is on the disk before: bytes by path.
    """

    def __init__(self, files: Files) -> None:
        self.names: dict[str, int] = {"": _DIRECTORY}
        self.data: dict[int, bytes] = {}
        for path, data in files.items():
            self.names[path] = len(self.data)
            self.data[len(self.data)] = data
            for parent in PurePosixPath(path).parents:
                self.names["" if str(parent) == "." else str(parent)] = _DIRECTORY
        self.kept_names, self.kept = dict(self.names), dict(self.data)
        self.waiting: list[_Change] = []
        self._handles: dict[int, int | str] = {}

    def apply(self, event: Event) -> None:
        """Let a process do that."""
        if event.what == "o":
            self._open(event)
        elif event.what == "w":
            self._write(event)
        elif event.what == "t":
            handle, length = event.numbers
            self._cut(self._file(handle), length)
        elif event.what == "s":
            self._flush(self._handles[event.numbers[0]])
        elif event.what == "r":
            self._name((event.path, None), (event.other, self.names[event.path]))
        elif event.what == "u":
            self._name((event.path, None))
        elif event.what == "d":
            self._name((event.path, _DIRECTORY))

    def _file(self, handle: int) -> int:
        found = self._handles[handle]
        assert isinstance(found, int)
        return found

    def _open(self, event: Event) -> None:
        handle, made, emptied = event.numbers
        if made and event.path not in self.names:
            file = len(self.data)
            self.data[file] = self.kept[file] = b""
            self._name((event.path, file))
        found = self.names[event.path]
        self._handles[handle] = event.path if found == _DIRECTORY else found
        if emptied and self.data[found]:
            self._cut(found, 0)

    def _write(self, event: Event) -> None:
        handle, offset = event.numbers
        file, data = self._file(handle), event.data
        self.data[file] = _written(self.data[file], offset, data)
        # A few pieces, cut where sectors end.
        step = max(_SECTOR, -(-len(data) // _PIECES // _SECTOR) * _SECTOR)
        begin = 0
        while begin < len(data):
            end = (offset + begin + step) // _SECTOR * _SECTOR - offset
            self.waiting.append(_Change(file, offset + begin, data[begin:end]))
            begin = end

    def _cut(self, file: int, length: int) -> None:
        self.data[file] = _cut(self.data[file], length)
        self.waiting.append(_Change(file, length))

    def _name(self, *names: tuple[str, int | None]) -> None:
        parent = str(PurePosixPath(names[0][0]).parent)
        _rename(self.names, names)
        self.waiting.append(_Change("" if parent == "." else parent, names=names))

    def _flush(self, owner: int | str) -> None:
        for change in self.waiting:
            if change.owner == owner and change.names:
                _rename(self.kept_names, change.names)
        if isinstance(owner, int):
            self.kept[owner] = self.data[owner]
        self.waiting = [change for change in self.waiting if change.owner != owner]

    # ---- After the power failed

    def choices(self, rng: Random, few: int, samples: int) -> Iterator[int]:
        """Return what may have reached the disk: bits of what waits, and two more.

        All of it where something waits in no more than `few` places; else nothing, all, each alone,
        all but each, and samples.
        """
        count = len(self.waiting)
        if not count:
            yield 0
            return
        if count <= few:
            yield from range(4 << count)
            return
        every = (1 << count) - 1
        for more in (0, _GROWN, _GROWN | _STALE):
            yield more
            yield every << 2 | more
            for i in range(count):
                yield 1 << (i + 2) | more
                yield (every & ~(1 << i)) << 2 | more
        for _ in range(samples):
            yield rng.getrandbits(count + 2) | rng.choice((0, rng.getrandbits(count + 2)))

    def left(self, choice: int) -> Files:
        """Return what is there then."""
        names, data = dict(self.kept_names), dict(self.kept)
        if choice & _GROWN:
            self._grow(data, b"\xa5" if choice & _STALE else b"\0")
        for i, change in enumerate(self.waiting):
            if not choice >> (i + 2) & 1:
                continue
            if change.names:
                _rename(names, change.names)
            elif change.data is None:
                data[int(change.owner)] = _cut(data[int(change.owner)], change.offset)
            else:
                file = int(change.owner)
                data[file] = _written(data[file], change.offset, change.data)
        directories = {path for path, file in names.items() if file == _DIRECTORY}
        return {
            path: data[file]
            for path, file in names.items()
            if file != _DIRECTORY and str(PurePosixPath(path).parent).strip(".") in directories
        }

    def _grow(self, data: dict[int, bytes], filler: bytes) -> None:
        for change in self.waiting:
            if change.data is not None:
                file = int(change.owner)
                more = change.offset + len(change.data) - len(data[file])
                data[file] += filler * more


def _written(old: bytes, offset: int, data: bytes) -> bytes:
    return old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]


def _cut(old: bytes, length: int) -> bytes:
    return old[:length].ljust(length, b"\0")


def _rename(names: dict[str, int], changes: tuple[tuple[str, int | None], ...]) -> None:
    for path, file in changes:
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file

"""The tasks of a build that put leaves together: each makes one array of the index.

Rows are in the order of the leaves, and within a leaf in that of the input. Every result of a map
has its rows in the same order, so what it gives to any run of the index's rows is a run of its own:
an array is made run by run, as many rows at a time as memory holds, each read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig
from swann.distributed.building.sections import LostError, Sections
from swann.distributed.building.tasks import load_trained
from swann.index.building.encoding import pack, pack_corrections
from swann.index.disk.assemble import place_pieces
from swann.index.disk.contents import Entry, dtype_of
from swann.index.source import most_rows
from swann.kernels import GROUP
from swann.partition import tree
from swann.partition.avq import evenly_spaced

__all__ = ["Layouts", "Reduce", "reduce_array"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Layouts:
    """What is known when all spans are mapped.

    Attributes
    ----------
    maps : tuple of str
        Files of `swann.distributed.building.mapping.Map`, in the order of their spans.
    firsts : tuple of int
        The first row of each span.
    trained : str
        The file of `Train`.
    starts : int64 array of shape (leaves + 1,)
        The first row of each leaf in the index.
    guests : int64 array of shape (leaves,), or None
        Datapoints whose second leaf this is.
    low, span : float
        Of the corrections.
    hidden : float
        What `swann.partition.tree.hidden_variance` returned.
    """

    maps: tuple[str, ...]
    firsts: tuple[int, ...]
    trained: str
    starts: I64
    guests: I64 | None
    low: float
    span: float
    hidden: float


@dataclass(frozen=True)
class Reduce:
    """Make an array.

    Attributes
    ----------
    layouts : Layouts
        What there is.
    name : str
        Which array.
    bucket_bytes : int
        How much of it to make at a time.
    folder : str
        Where the file goes.
    """

    layouts: Layouts
    name: str
    bucket_bytes: int
    folder: str


def reduce_array(task: Reduce) -> dict[str, Any]:
    """Do it; return the entry of the manifest, or which files are ``lost``."""
    try:
        entry = _Reduction(task).run()
    except LostError as error:
        return {"lost": [error.path]}
    finally:
        kernels.release_memory()
    return {
        "file": entry.file,
        "dtype": entry.dtype.str,
        "shape": list(entry.shape),
        "sha256": entry.sha256,
    }


class _Reduction:
    def __init__(self, task: Reduce) -> None:
        self.name = task.name
        self.folder = Path(task.folder)
        self.bucket_bytes = task.bucket_bytes
        self.known = task.layouts
        self.maps = [Sections(path) for path in task.layouts.maps]
        self.starts = task.layouts.starts
        self.rows = int(self.starts[-1])

    def run(self) -> Entry:
        match self.name:
            case "codes":
                return self.place(*self.codes())
            case "corrections":
                return self.place(*self.corrections())
            case "entry_rows":
                return self.place((2 * self.rows,), self.entry_rows())
            case "spreads":
                spreads = self.spreads()
                return self.place(spreads.shape, iter([spreads]))
        shape = (self.rows, *self.some(self.name).shape[1:])
        return self.place(shape, (piece for _, piece in self.row_pieces(self.name)))

    def place(self, shape: tuple[int, ...], pieces: Iterator[NDArray[Any]]) -> Entry:
        return place_pieces(self.folder, self.name, dtype_of(self.name), shape, pieces)

    def some(self, section: str) -> NDArray[Any]:
        """Return no rows of a section: its dtype and its shape."""
        return self.maps[0].read(section, 0, 0)

    # ---- Rows

    def row_pieces(self, section: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """Make an array that has a value for each row: pieces, with their first rows."""
        some = self.some(section)
        dtype = dtype_of(self.name) if self.name == section else some.dtype
        step = max(1, self.bucket_bytes // (some.itemsize * _width(some)))
        for first in range(0, self.rows, step):
            last = min(self.rows, first + step)
            low = int(np.searchsorted(self.starts, first, side="right")) - 1
            high = int(np.searchsorted(self.starts, last, side="left"))
            out = np.empty((last - first, *some.shape[1:]), dtype)
            # Where the datapoints that come next go, by leaf.
            following = self.starts[low:high] - first
            for begin, file in zip(self.known.firsts, self.maps, strict=True):
                places, at = _spread(file, "starts", low, high, following, len(out))
                if len(places):
                    values = file.read(section, at, at + len(places))
                    out[places] = values + np.uint32(begin) if section == "ids" else values
            yield first, out

    # ---- Entries

    def leaf_runs(self, most: int, sizes: I64) -> Iterator[tuple[int, int]]:
        """Cut the leaves into runs whose sizes sum up to `most`, or that are one leaf."""
        ends = np.cumsum(sizes)
        low = 0
        while low < len(sizes):
            done = int(ends[low - 1]) if low else 0
            high = max(low + 1, int(np.searchsorted(ends, done + most, side="right")))
            yield low, high
            low = high

    def guest_rows(self, low: int, high: int) -> tuple[I64, list[I64]]:
        """Return the guests of leaves, in order, and the place of each map's guests among them.

        Guests are named by their rows in the index.
        """
        leaves: list[I64] = []
        rows: list[I64] = []
        following = self.starts[:-1].copy()
        for file in self.maps:
            own = file.read("starts").astype(np.int64)
            hosts = file.read("guest_starts", low, high + 1).astype(np.int64)
            guests = file.read("guests", int(hosts[0]), int(hosts[-1])).astype(np.int64)
            home = np.searchsorted(own, guests, side="right") - 1
            rows.append(following[home] + guests - own[home])
            leaves.append(np.repeat(np.arange(high - low), np.diff(hosts)))
            following += np.diff(own)
        all_rows = np.concatenate(rows)
        order = np.lexsort((all_rows, np.concatenate(leaves)))
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        ends = np.cumsum([len(some) for some in rows])
        return all_rows[order], np.split(places, ends[:-1])

    def entry_rows(self) -> Iterator[NDArray[Any]]:
        assert self.known.guests is not None
        own, guests = np.diff(self.starts), self.known.guests
        for low, high in self.leaf_runs(max(1, self.bucket_bytes // 40), own + guests):
            rows, _ = self.guest_rows(low, high)
            sizes = own[low:high] + guests[low:high]
            begin = np.cumsum(sizes) - sizes
            out = np.empty(int(sizes.sum()), np.uint32)
            out[_runs(begin, own[low:high])] = np.arange(self.starts[low], self.starts[high])
            out[_runs(begin + own[low:high], guests[low:high])] = rows
            yield out

    def codes(self) -> tuple[tuple[int, ...], Iterator[NDArray[Any]]]:
        score = load_trained(self.known.trained).config.score
        assert isinstance(score, AHConfig)
        width = kernels.block_bytes(score.codewords)
        groups, pieces = self.groups("codes", 0)
        shape = (groups, _width(self.some("codes")), width)
        return shape, (pack(piece, width) for piece in pieces)

    def corrections(self) -> tuple[tuple[int, ...], Iterator[NDArray[Any]]]:
        groups, pieces = self.groups("corrections", np.nan)
        low, span = self.known.low, self.known.span
        return (groups * GROUP,), (pack_corrections(piece, low, span) for piece in pieces)

    def groups(self, section: str, empty: float) -> tuple[int, Iterator[NDArray[Any]]]:
        """Make an array that has a value for each place of a code, by whole groups.

        Returns the number of groups, and pieces of shape (places, ...).
        """
        own = np.diff(self.starts)
        guests = np.zeros_like(own) if self.known.guests is None else self.known.guests
        ends = np.cumsum(-(-(own + guests) // GROUP))
        begins = np.concatenate([[0], ends[:-1]]) * GROUP  # the first place of each leaf
        return int(ends[-1]), self._group_pieces(section, empty, own, begins, ends)

    def _group_pieces(
        self, section: str, empty: float, own: I64, begins: I64, ends: I64
    ) -> Iterator[NDArray[Any]]:
        some = self.some(section)
        size = GROUP * _width(some) * some.itemsize
        step = max(1, self.bucket_bytes // (3 * size))
        total = int(ends[-1])
        for first in range(0, total, step):
            last = min(total, first + step)
            low = int(np.searchsorted(ends, first, side="right"))
            high = int(np.searchsorted(ends, last - 1, side="right")) + 1
            out = np.full(((last - first) * GROUP, *some.shape[1:]), empty, some.dtype)
            following = begins[low:high] - first * GROUP
            guest_places: list[I64] = []
            if self.known.guests is not None:
                _, guest_places = self.guest_rows(low, high)
                guests = self.known.guests[low:high]
                # A guest's place is its leaf's, behind its own, and its number among the guests.
                before = following + own[low:high] - (np.cumsum(guests) - guests)
                by_guest = np.repeat(before, guests)
            for number, file in enumerate(self.maps):
                places, at = _spread(file, "starts", low, high, following, len(out))
                if len(places):
                    out[places] = file.read(section, at, at + len(places))
                if guest_places:
                    places = guest_places[number] + by_guest[guest_places[number]]
                    inside = slice(*np.searchsorted(places, [0, len(out)]))
                    at = int(file.read("guest_starts", low, low + 1)[0])
                    if inside.start < inside.stop:
                        out[places[inside]] = file.read(
                            f"guest_{section}", at + inside.start, at + inside.stop
                        )
            yield out

    # ---- Reach

    def spreads(self) -> NDArray[np.float32]:
        """Add up squared distances, leaf by leaf in the order of the input."""
        trained = load_trained(self.known.trained)
        config = trained.config.tree
        assert config is not None
        sizes = np.diff(self.starts)
        most = self.rows if config.avq is None else most_rows(trained.dimension)
        total = np.zeros(len(sizes))
        for first, squares in self.row_pieces("squares"):
            last = first + len(squares)
            low = int(np.searchsorted(self.starts, first, side="right")) - 1
            high = int(np.searchsorted(self.starts, last, side="left"))
            bounds = np.clip(self.starts[low : high + 1], first, last) - first
            leaves = np.repeat(np.arange(high - low), np.diff(bounds))
            for leaf in np.flatnonzero(sizes[low:high] > most):
                # Some datapoints stand for all of a large leaf, as when centroids were moved.
                begin = int(self.starts[low + leaf])
                some = evenly_spaced(int(sizes[low + leaf]), most) + begin - first
                others = np.ones(len(squares), np.bool_)
                others[some[(some >= 0) & (some < len(squares))]] = False
                leaves[others & (leaves == leaf)] = high - low
            kept = leaves < high - low
            leaves, squares = leaves[kept], squares[kept]
            # The first leaf may have begun before: go on where its sum was.
            if len(leaves) and leaves[0] == 0:
                squares[0] += total[low]
                total[low] = 0.0
            total[low:high] += np.bincount(leaves, squares, minlength=high - low)
        distances = total / np.maximum(np.minimum(sizes, most), 1)
        return tree.leaf_spreads(distances, trained.reduced_dim, config.avq, self.known.hidden)


def _width(some: NDArray[Any]) -> int:
    """Return how many values a row of a section has."""
    return int(np.prod(some.shape[1:], dtype=np.int64))


def _spread(
    file: Sections, section: str, low: int, high: int, following: I64, size: int
) -> tuple[I64, int]:
    """Return where datapoints of leaves go that fall into a piece, and the first of them.

    `following` has the place of the next datapoint of each leaf, and is moved on. Places from 0 to
    `size` are in the piece.
    """
    starts = file.read(section, low, high + 1).astype(np.int64)
    counts = np.diff(starts)
    places = _runs(following, counts)
    following += counts
    begin, end = np.searchsorted(places, [0, size])
    return places[begin:end], int(starts[0] + begin)


def _runs(begins: I64, counts: I64) -> I64:
    """Return the numbers of runs, one after the other."""
    shifts = begins - (np.cumsum(counts) - counts)
    return np.repeat(shifts, counts) + np.arange(int(counts.sum()))

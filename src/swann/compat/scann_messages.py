"""The trained parts that ScaNN serializes as protobufs: its partitioner and its codebook."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann.compat.scann_wire import WireValue, read_fields, read_packed
from swann.errors import CorruptIndexError, IndexFormatError

__all__ = ["Codebook", "Partitioner", "read_codebook", "read_partitioner"]

F32 = NDArray[np.float32]

_SKEWED = 1e-3  # the most that an inner product of unit vectors may be off
_LONGEST = 1e18  # as for datapoints: no score of such vectors overflows float32


# ---- The partitioner


class Partitioner(NamedTuple):
    """What ``serialized_partitioner.pb`` holds.

    Attributes
    ----------
    centroids : float32 array of shape (leaves, d)
        In the order of the leaves' numbers.
    basis : float32 array of shape (r, d), or None
        Orthonormal directions that datapoints are projected onto first.
    """

    centroids: F32
    basis: F32 | None


def read_partitioner(data: memoryview, what: str) -> Partitioner:
    """Read a k-means partitioner of one level and its projection; levels above are left out.

    Raises
    ------
    CorruptIndexError
        If the bytes are damaged.
    IndexFormatError
        If it is a partitioner of another kind.
    """
    kinds, projections = [], []
    for number, _, value in read_fields(data, what):
        if number == 2:
            kinds.append(_bytes_of(value, what))
        elif number == 4:
            raise IndexFormatError(f"{what} is a tree of linear projections; expected k-means")
        elif number == 5:
            projections.append(_bytes_of(value, what))
    tree = _inner(_only(kinds, "k-means partitioner", what), 1, "k-means tree", what)
    root = _inner(tree, 1, "root", what)
    centers, leaf_ids = [], []
    for number, _, value in read_fields(root, what):
        if number == 1:
            centers.append(_read_center(_bytes_of(value, what), what))
        elif number == 3:
            leaf_ids.append(_read_leaf_id(_bytes_of(value, what), what))
    if not centers or len(leaf_ids) != len(centers):
        raise CorruptIndexError(f"{what} has {len(centers)} centers and {len(leaf_ids)} leaves")
    places = np.array(leaf_ids, np.int64)
    if not np.array_equal(np.sort(places), np.arange(len(places))):
        raise CorruptIndexError(f"{what} does not number its {len(places)} leaves from 0 on")
    dimension = len(centers[0])
    if any(len(center) != dimension for center in centers):
        raise CorruptIndexError(f"{what} has centers of different dimensions")
    centroids = np.empty((len(centers), dimension), np.float32)
    for place, center in zip(leaf_ids, centers, strict=True):
        centroids[place] = center
    return Partitioner(centroids, _read_basis(projections, what) if projections else None)


def _read_basis(projections: list[memoryview], what: str) -> F32:
    rows = []
    for number, _, value in read_fields(_only(projections, "projection", what), what):
        if number == 1:
            rows.append(_read_vector(_bytes_of(value, what), what))
        elif number == 2:
            raise IndexFormatError(f"{what} has a projection to blocks of different dimensions")
    if not rows or len(rows) > len(rows[0]) or any(len(row) != len(rows[0]) for row in rows):
        raise CorruptIndexError(f"{what} has a projection without directions, or ragged ones")
    basis = np.array(rows, np.float32)
    # Other directions would stretch what they project, queries and all.
    wide = basis.astype(np.float64)
    if np.abs(wide @ wide.T - np.eye(len(wide))).max() > _SKEWED:
        raise CorruptIndexError(f"{what} has a projection whose directions are not orthonormal")
    return basis


def _read_center(data: memoryview, what: str) -> F32:
    parts = [
        read_packed(wire_type, value, "<f8" if number == 1 else "<f4", what)
        for number, wire_type, value in read_fields(data, what)
        if number in (1, 2)
    ]
    return _joined(parts, what)


def _joined(parts: list[NDArray[np.float64]], what: str) -> F32:
    """Return the numbers of one vector, of which there is at least one and all are finite."""
    values = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0), *parts])
    if len(values) == 0 or not (np.abs(values) <= _LONGEST).all():
        raise CorruptIndexError(f"{what} has an empty vector, or one that is not finite")
    return values.astype(np.float32)


def _read_leaf_id(data: memoryview, what: str) -> int:
    leaf_id = -1
    for number, _, value in read_fields(data, what):
        if number in (1, 3):
            raise IndexFormatError(f"{what} has a tree of several levels; expected one")
        if number == 5 and isinstance(value, int):
            leaf_id = value
    if not 0 <= leaf_id < 2**31:
        raise CorruptIndexError(f"{what} has a leaf without a number")
    return leaf_id


# ---- The codebook


class Codebook(NamedTuple):
    """What ``ah_codebook.pb`` holds.

    Attributes
    ----------
    codewords : float32 array of shape (d, k)
        Column j holds codeword j of every block.
    dimensions_per_block : int
        Of every block but the last, which may be shorter.
    """

    codewords: F32
    dimensions_per_block: int


def read_codebook(data: memoryview, what: str) -> Codebook:
    """Read the codewords of product quantization.

    Raises
    ------
    CorruptIndexError
        If the bytes are damaged.
    IndexFormatError
        If it is another kind of quantization, or its blocks are none that swann can have.
    """
    blocks = []
    for number, _, value in read_fields(data, what):
        if number == 1:
            blocks.append(_read_block(_bytes_of(value, what), what))
        elif number == 2 and value != 0:
            raise IndexFormatError(f"{what} has quantization scheme {value}; expected 0, PRODUCT")
    if not blocks:
        raise CorruptIndexError(f"{what} has no codewords")
    width, count = blocks[0].shape
    if any(block.shape[1] != count for block in blocks):
        raise IndexFormatError(f"{what} has blocks with different numbers of codewords")
    if any(len(block) != width for block in blocks[:-1]) or len(blocks[-1]) > width:
        raise IndexFormatError(
            f"{what} has blocks of {sorted({len(block) for block in blocks})} dimensions; expected "
            "one size, only the last being smaller"
        )
    return Codebook(np.concatenate(blocks), width)


def _read_block(data: memoryview, what: str) -> F32:
    """Return the codewords of one block, shape (dimensions, k)."""
    words = [
        _read_vector(_bytes_of(value, what), what)
        for number, _, value in read_fields(data, what)
        if number == 1
    ]
    if not words or any(len(word) != len(words[0]) for word in words):
        raise CorruptIndexError(f"{what} has a block without codewords, or with ragged ones")
    return np.array(words, np.float32).T


def _read_vector(data: memoryview, what: str) -> F32:
    parts = []
    for number, wire_type, value in read_fields(data, what):
        if number in (4, 5):
            parts.append(read_packed(wire_type, value, "<f4" if number == 4 else "<f8", what))
        elif number in (3, 6, 13, 30) or (number == 29 and value):
            raise IndexFormatError(f"{what} has vectors that are sparse or not of floats")
    return _joined(parts, what)


# ---- Both


def _inner(data: memoryview, number: int, name: str, what: str) -> memoryview:
    """Return the only message of a field."""
    found = [_bytes_of(value, what) for n, _, value in read_fields(data, what) if n == number]
    return _only(found, name, what)


def _bytes_of(value: WireValue, what: str) -> memoryview:
    if isinstance(value, int):
        raise CorruptIndexError(f"{what} has a number where a message is expected")
    return value


def _only(found: list[memoryview], name: str, what: str) -> memoryview:
    if len(found) != 1:
        raise CorruptIndexError(f"{what} has {len(found)} times a {name}; expected one")
    return found[0]

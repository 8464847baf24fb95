r"""Arrays as .npy files, or as members of a single file; they are mapped, not read.

::

    0           "\x93NUMPY", version 1.0, length of the header
    10          the header: a dict of dtype, order and shape, and blanks
    a multiple  the values, in C order, to the end of the file
    of 64
"""

from __future__ import annotations

import hashlib
import math
import threading
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from swann.errors import CorruptIndexError
from swann.index.disk.file_system import flush_to_disk

__all__ = ["digest_of", "npy_header", "npy_size", "read_npy", "write_npy"]

ALIGNMENT = 64
_MAGIC = b"\x93NUMPY\x01\x00"
_PIECE = 1 << 22


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what a file of such an array begins with, the same whatever NumPy's version."""
    text = _description(dtype, shape)
    length = len(_MAGIC) + 2 + len(text) + 1
    text += b" " * (-length % ALIGNMENT) + b"\n"
    return _MAGIC + len(text).to_bytes(2, "little") + text


def _description(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()


def npy_size(array: NDArray[Any]) -> int:
    """Return how many bytes `write_npy` writes."""
    return len(npy_header(array.dtype, array.shape)) + array.nbytes


class _Checks:
    """What is known of bytes afterwards: the digest of the values, the checksum of the file."""

    def __init__(self, header: bytes, data: memoryview, checksum: bool) -> None:
        self.digest = hashlib.sha256()
        self.checksum = zlib.crc32(header) if checksum else None
        self.stopped = False
        self._data = data

    def run(self) -> None:
        for begin in range(0, len(self._data), _PIECE):
            if self.stopped:
                return
            piece = self._data[begin : begin + _PIECE]
            self.digest.update(piece)
            if self.checksum is not None:
                self.checksum = zlib.crc32(piece, self.checksum)


def write_npy(file: BinaryIO, array: NDArray[Any], *, checksum: bool = False) -> tuple[str, int]:
    """Write a contiguous array; a second thread computes its digest meanwhile.

    Returns
    -------
    (str, int)
        The SHA-256 of the values, and with `checksum` the CRC-32 of header and values.
    """
    header = npy_header(array.dtype, array.shape)
    data = array.reshape(-1).view(np.uint8).data
    checks = _Checks(header, data, checksum)
    file.write(header)
    if len(data) <= _PIECE:
        file.write(data)
        checks.run()
        return checks.digest.hexdigest(), checks.checksum or 0
    helper = threading.Thread(target=checks.run)
    helper.start()
    try:
        for begin in range(0, len(data), _PIECE):
            file.write(data[begin : begin + _PIECE])
        file.flush()
        flush_to_disk(file.fileno())  # the caller's flush would wait for the digest first
    except BaseException:
        checks.stopped = True
        raise
    finally:
        helper.join()
    return checks.digest.hexdigest(), checks.checksum or 0


def read_npy(
    data: memoryview, where: object, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return the array that a mapped file holds.

    Nothing is parsed: the header must be that of this dtype and shape, and the size theirs.

    Raises
    ------
    CorruptIndexError
        If it holds something else.
    """
    begin = len(_MAGIC) + 2 + int.from_bytes(data[8:10], "little")
    if data[:8] != _MAGIC or begin > len(data) or begin % ALIGNMENT:
        raise CorruptIndexError(f"{where} is damaged: it does not begin as .npy files do")
    header = bytes(data[10:begin]).rstrip()
    if header != _description(dtype, shape):
        raise CorruptIndexError(
            f"{where} holds {header[:200]!r}; its manifest says {dtype.str} of shape {shape}"
        )
    size = begin + math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise CorruptIndexError(f"{where} has {len(data)} bytes; expected {size}")
    array: NDArray[Any] = np.frombuffer(data[begin:], np.uint8).view(dtype).reshape(shape)
    return array


def digest_of(array: NDArray[Any]) -> str:
    """Return the SHA-256 of the values."""
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()

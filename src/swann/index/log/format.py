"""The bytes of a log of changes; all numbers are little-endian.

::

    file     header, 64 bytes | record | record | ...

    header    0  "swannlog"
              8  version, uint32                  1
             12  flags, uint32                    none is known
             16  id, 16 bytes                     that in the manifest of the directory
             32  number of the first change, uint64
             40  zeros
             60  CRC-32 of the 60 bytes before

    record    0  "swr1"
              4  kind, uint32                     1 upsert, 2 delete, 3 close
              8  number of the change, uint64     one more than that before (close: that to come;
                                                  once, beside another thread, that before)
             16  bytes of the payload, uint64
             24  synced, uint64                   bytes of this file known to be on disk by then
             32  CRC-32 of the payload
             36  CRC-32 of the 36 bytes before
             40  payload, and zeros to a multiple of 8

    payload   0  docids, uint32                   0 new row ids, 1 ints, 2 strings
              4  dimension d, uint32              0 in a deletion
              8  datapoints m, uint64
             16  uint64                           first new row id; or bytes of all strings
             24  vectors, float32 [m][d]
                 ints, int64 [m]; or lengths of strings, uint32 [m], and their UTF-8

CRCs begin with that of the id, so that bytes of another log never look like a record. A log ends
where records end: what follows was never acknowledged, or never promised to be on disk. `synced`
tells damage from such a tail: it has reached the disk before a later record was written.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CLOSE",
    "DELETE",
    "FILE_HEADER",
    "MAGIC",
    "RECORD_HEADER",
    "UPSERT",
    "VERSION",
    "Change",
    "RecordHeader",
    "decode_change",
    "encode_change",
    "encode_file_header",
    "encode_record_header",
    "read_file_header",
    "read_record_header",
]

VERSION = 1
UPSERT, DELETE, CLOSE = 1, 2, 3
MAGIC = b"swr1"

FILE_HEADER = 64
RECORD_HEADER = 40
_FILE = struct.Struct("<8s2I16sQ20x")
_RECORD = struct.Struct("<4sI3QI")
_CRC = struct.Struct("<I")
_PAYLOAD = struct.Struct("<2I2Q")
_NEW, _INTS, _STRINGS = 0, 1, 2


class Change(NamedTuple):
    """An upsert (with vectors) or a deletion (without).

    Attributes
    ----------
    docids : list of int or str, or None
        None: new datapoints, with row ids from `first` on.
    first : int
        The first new row id; 0 where there are docids.
    rows : float32 array of shape (m, d) or None
        None: a deletion.
    """

    docids: list[Any] | None
    first: int
    rows: NDArray[np.float32] | None


class RecordHeader(NamedTuple):
    """What precedes the payload of a record."""

    kind: int
    sequence: int
    length: int
    synced: int
    crc: int

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return RECORD_HEADER + self.length + -self.length % 8


def encode_file_header(log_id: bytes, first: int) -> bytes:
    """Return what a log begins with."""
    fields = _FILE.pack(b"swannlog", VERSION, 0, log_id, first)
    return fields + _CRC.pack(zlib.crc32(fields))


def read_file_header(data: bytes) -> tuple[int, int, bytes, int] | None:
    """Return version, flags, id and number of the first change; None if it is no header."""
    if len(data) != FILE_HEADER or data[:8] != b"swannlog":
        return None
    _, version, flags, log_id, first = _FILE.unpack(data[:60])
    if data[60:] != _CRC.pack(zlib.crc32(data[:60])):
        return None
    return version, flags, log_id, first


def encode_record_header(header: RecordHeader, seed: int) -> bytes:
    """Return the header of a record of the log whose id has the CRC-32 `seed`."""
    fields = _RECORD.pack(MAGIC, *header)
    return fields + _CRC.pack(zlib.crc32(fields, seed))


def read_record_header(data: bytes, seed: int) -> RecordHeader | None:
    """Return the header that is in these 40 bytes; None if there is none, or it is damaged."""
    if len(data) != RECORD_HEADER or data[36:] != _CRC.pack(zlib.crc32(data[:36], seed)):
        return None
    magic, *fields = _RECORD.unpack(data[:36])
    return RecordHeader(*fields) if magic == MAGIC else None


def encode_change(change: Change) -> list[Any]:
    """Return the payload of a record, in parts: objects with the buffer interface."""
    docids, first, rows = change
    count = len(docids) if docids is not None else 0 if rows is None else len(rows)
    dimension = 0 if rows is None else rows.shape[1]
    tail: list[Any] = []
    kind, extra = _NEW, first
    if docids is not None and count and isinstance(docids[0], str):
        encoded = [docid.encode("utf-8", "surrogatepass") for docid in docids]
        lengths = np.array([len(docid) for docid in encoded], "<u4")
        text = b"".join(encoded)
        kind, extra, tail = _STRINGS, len(text), [lengths.data, text]
    elif docids is not None:
        kind, extra, tail = _INTS, 0, [np.array(docids, "<i8").data]
    vectors = [] if rows is None else [rows.astype("<f4", copy=False).reshape(-1).data]
    return [_PAYLOAD.pack(kind, dimension, count, extra), *vectors, *tail]


def decode_change(kind: int, payload: bytes) -> Change:
    """Return what a record says.

    Raises
    ------
    ValueError
        If it is not what `encode_change` makes.
    """
    if len(payload) < _PAYLOAD.size or kind not in (UPSERT, DELETE):
        raise ValueError("a record is neither an upsert nor a deletion")
    names, dimension, count, extra = _PAYLOAD.unpack_from(payload)
    place = _PAYLOAD.size + 4 * count * dimension
    size = place + {_NEW: 0, _INTS: 8 * count, _STRINGS: 4 * count + extra}.get(names, -1)
    if size != len(payload) or names > _STRINGS or (dimension == 0) is (kind == UPSERT):
        raise ValueError("the sizes in a record contradict each other")
    rows = None
    if kind == UPSERT:
        flat = np.frombuffer(payload, "<f4", count * dimension, _PAYLOAD.size)
        rows = flat.reshape(count, dimension).astype(np.float32, copy=False)
    if names == _NEW:
        return Change(None, extra, rows)
    if names == _INTS:
        return Change(np.frombuffer(payload, "<i8", count, place).tolist(), 0, rows)
    ends = np.cumsum(np.frombuffer(payload, "<u4", count, place), dtype=np.uint64).tolist()
    if (ends[-1] if ends else 0) != extra:
        raise ValueError("the lengths of strings in a record contradict each other")
    text = payload[place + 4 * count :]
    begins = [0, *ends[:-1]]
    docids = [text[a:b].decode("utf-8", "surrogatepass") for a, b in zip(begins, ends, strict=True)]
    return Change(docids, 0, rows)

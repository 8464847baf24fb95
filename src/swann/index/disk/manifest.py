"""The manifest of a saved index: what it says, and that it is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from swann.errors import CorruptIndexError, FormatVersionError, IndexFormatError

__all__ = [
    "CODE_CENTER",
    "CORRECTED",
    "DOCIDS",
    "FORMAT_VERSION",
    "LEARNED",
    "LOG",
    "LUT256",
    "MANIFEST",
    "MAX_BYTES",
    "PLAIN_CODES",
    "PLAN",
    "PROJECTED",
    "ROW_IDS",
    "ROW_ORIGINS",
    "SHARDED",
    "digest_of_json",
    "encode_manifest",
    "open_unchanged",
    "read_manifest",
]

FORMAT_VERSION = 1
"""Of the layout on disk. A reader refuses versions that it does not know."""

MANIFEST = "manifest.json"
MAX_BYTES = 1 << 20  # of a manifest
_TRIES = 10

T = TypeVar("T")
R = TypeVar("R")

# Features that an index may need beyond version 1; a reader refuses those it does not know.
PLAIN_CODES = "plain_codes"  # a tree's codes are of whole datapoints, not of residuals
LUT256 = "lut256"  # codes of 8 bits
ROW_IDS = "row_ids"  # numbers of datapoints do not run from 0 to n, or not in the order of rows
DOCIDS = "docids"  # datapoints have names
PLAN = "plan"  # a rebalance builds something else than what is there
PROJECTED = "projected"  # the centroids and codes have a dimension of their own
LEARNED = "learned"  # queries shaped the leaves or the codes, and updates go on so
ROW_ORIGINS = "row_origins"  # int8 rows are counted from origins
CODE_CENTER = "code_center"  # corrections are counted from the middle of the datapoints
CORRECTED = "corrected"  # codes have corrections under the dot product, too
LOG = "log"  # changes follow in a log beside it
SHARDED = "sharded"  # it lists the manifests of shards
FEATURES = (
    PLAIN_CODES,
    LUT256,
    ROW_IDS,
    DOCIDS,
    PLAN,
    PROJECTED,
    LEARNED,
    ROW_ORIGINS,
    CODE_CENTER,
    CORRECTED,
    LOG,
    SHARDED,
)


def encode_manifest(content: dict[str, Any]) -> bytes:
    """Return the file of a manifest, with the digest that tells whether it is whole."""
    return json.dumps(content | {"digest": digest_of_json(content)}, indent=1).encode()


def digest_of_json(content: dict[str, Any]) -> str:
    """Return the SHA-256 of everything but the digest itself."""
    kept = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_manifest(data: bytes, path: object) -> dict[str, Any]:
    """Return the content of a manifest that this version can read and that is whole.

    Raises
    ------
    IndexFormatError
        If it is none of ours.
    FormatVersionError
        If it was written by a newer version.
    CorruptIndexError
        If it is damaged.
    """
    if len(data) > MAX_BYTES:
        raise CorruptIndexError(f"{path} is over {MAX_BYTES} bytes: not a manifest")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptIndexError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != "swann":
        raise IndexFormatError(f"{path} is not a manifest of swann")
    version, features = content.get("version"), content.get("features")
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{path} has format version {version!r}; this swann reads version {FORMAT_VERSION}. "
            "Open it with the swann that wrote it, or build the index again"
        )
    if not isinstance(features, list) or any(name not in FEATURES for name in features):
        raise FormatVersionError(
            f"{path} needs features {features!r}; this swann has {FEATURES}. Install the version "
            "of swann that wrote it, or a newer one, or build the index again"
        )
    try:
        whole = content.get("digest") == digest_of_json(content)
    except RecursionError:
        whole = False
    if not whole:
        raise CorruptIndexError(f"{path} is damaged: its digest does not match its content")
    return content


def open_unchanged(
    read: Callable[[], T],
    attempt: Callable[[T], R],
    where: object,
    identity: Callable[[T], object] = lambda found: found,
) -> R:
    """Open an index that another process may be replacing: again where it was, meanwhile.

    A save or a checkpoint removes files that only the manifest before it lists, so what looks like
    damage may be that. It is damage where the manifest is still the same.

    Parameters
    ----------
    read : callable
        Returns what the manifest says now.
    attempt : callable
        Opens the index that ``read`` has found.
    where : object
        What an error names.
    identity : callable, optional
        What tells whether two of ``read`` are the same; all of it unless given.

    Returns
    -------
    object
        What `attempt` returned.

    Raises
    ------
    CorruptIndexError
        If `attempt` did, and what `identity` looks at has not changed.
    IndexFormatError
        If it changes again and again.
    """
    found = read()
    for _ in range(_TRIES):
        try:
            return attempt(found)
        except CorruptIndexError as error:
            before, found, last = identity(found), read(), error
            if identity(found) == before:
                raise
    raise IndexFormatError(
        f"{where} is replaced, or changed, faster than it can be opened; try again"
    ) from last

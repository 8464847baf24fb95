"""What the manifest of an index says: its settings, its numbers, its arrays and their shapes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from swann.config import AHConfig, IndexConfig
from swann.distance import SQUARED_L2
from swann.errors import CorruptIndexError
from swann.index.disk.manifest import (
    CODE_CENTER,
    CORRECTED,
    DOCIDS,
    FORMAT_VERSION,
    LEARNED,
    LOG,
    LUT256,
    PLAIN_CODES,
    PLAN,
    PROJECTED,
    ROW_IDS,
    ROW_ORIGINS,
    SHARDED,
)
from swann.index.docid_arrays import DOCID_ARRAYS
from swann.index.packed import ARRAYS, ranks_by_reach, unprojected_dim
from swann.index.routes import route_dtype, route_shapes
from swann.index.rows import row_shapes
from swann.index.state import LogPoint, State
from swann.kernels import block_bytes

__all__ = [
    "SHARDED_ARRAYS",
    "Contents",
    "Entry",
    "docid_shapes",
    "dtype_of",
    "is_array",
    "log_entry",
    "manifest_of",
    "natural",
    "read_contents",
    "read_entry",
    "read_log_point",
]

Shape = tuple[int | None, ...]  # None: any length

SHARDED_ARRAYS: dict[str, np.dtype[Any]] = {
    "leaf_starts": np.dtype("<u4"),
    "leaf_owners": np.dtype("<u4"),
}
"""Of the whole of a sharded index: first entry of each leaf, (num_leaves + 1,), and its shard."""

_DTYPES: dict[str, np.dtype[Any]] = ARRAYS | DOCID_ARRAYS | SHARDED_ARRAYS
_LEARNED_ARRAYS = ("tree_map", "code_metric")
_MAX_NUMBER = 2**32 - 1
_LARGEST = float(np.finfo(np.float32).max)
_LOG_ID = re.compile("[0-9a-f]{32}")


class Entry(NamedTuple):
    """An array as the manifest describes it."""

    file: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return how the manifest describes it."""
        described = {"file": self.file, "dtype": self.dtype.str, "shape": list(self.shape)}
        return described | {"sha256": self.sha256}


@dataclass(frozen=True)
class Contents:
    """What there is; attributes are those of `State` and `PackedIndex`, `arrays` the files."""

    config: IndexConfig
    plan: IndexConfig
    num_datapoints: int
    dimension: int
    next_number: int
    correction_low: float
    correction_span: float
    residual: bool
    has_docids: bool
    log: LogPoint | None
    arrays: dict[str, Entry]


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype that an array has wherever it is stored."""
    return route_dtype(name) or _DTYPES[name]


def is_array(name: str) -> bool:
    """Whether an index may have an array of this name."""
    return name in _DTYPES or route_dtype(name) is not None


def manifest_of(state: State, entries: dict[str, Entry]) -> dict[str, Any]:
    """Return the manifest of a state whose arrays are written; `encode_manifest` signs it."""
    index = state.packed
    content: dict[str, Any] = {
        "format": "swann",
        "version": FORMAT_VERSION,
        "features": [],
        "config": index.config.to_dict(),
        "num_datapoints": index.num_datapoints,
        "dimension": index.dimension,
        "correction_low": index.correction_low,
        "correction_span": index.correction_span,
        "arrays": {name: entry.to_dict() for name, entry in entries.items()},
    }
    if not index.residual:
        content["features"].append(PLAIN_CODES)
    if index.projects:
        content["features"].append(PROJECTED)
    if any(getattr(index, name) is not None for name in _LEARNED_ARRAYS):
        content["features"].append(LEARNED)
    if index.row_origins is not None:
        content["features"].append(ROW_ORIGINS)
    if index.code_center is not None:
        content["features"].append(CODE_CENTER)
        if index.config.distance_measure != SQUARED_L2:
            content["features"].append(CORRECTED)
    if isinstance(index.config.score, AHConfig) and index.config.score.codewords == 256:
        content["features"].append(LUT256)
    if state.numbered:
        content["features"].append(ROW_IDS)
        content["next_number"] = state.next_number
    if state.docids is not None:
        content["features"].append(DOCIDS)
    if state.plan != index.config:
        content["features"].append(PLAN)
        content["plan"] = state.plan.to_dict()
    if state.log is not None:
        content["features"].append(LOG)
        content["log"] = log_entry(state.log)
    return content


def log_entry(point: LogPoint) -> dict[str, Any]:
    """Return how the manifest tells where the log goes on."""
    return {"id": point.id, "sequence": point.sequence}


def read_contents(content: dict[str, Any], where: object) -> Contents:
    """Return what a whole manifest says.

    Raises
    ------
    CorruptIndexError
        If it contradicts itself, or is not what we write.
    """
    try:
        features = content["features"]
        config = IndexConfig.from_dict(content["config"])
        n, dimension = natural(content, "num_datapoints", 0), natural(content, "dimension", 1)
        next_number = natural(content, "next_number", n) if ROW_IDS in features else n
        if DOCIDS in features and next_number != n:
            raise ValueError(f"next_number is {next_number} for {n} datapoints with docids")
        if SHARDED in features:
            raise ValueError("it lists shards")
        described = dict(content["arrays"])
        expected = _expected_shapes(config, features, n, dimension, described)
        if set(described) != set(expected):
            raise ValueError(f"there are arrays {sorted(described)}, not {sorted(expected)}")
        made = Contents(
            config=config,
            plan=IndexConfig.from_dict(content["plan"]) if PLAN in features else config,
            num_datapoints=n,
            dimension=dimension,
            next_number=next_number,
            correction_low=_number(content, "correction_low"),
            correction_span=_number(content, "correction_span"),
            residual=PLAIN_CODES not in features,
            has_docids=DOCIDS in features,
            log=read_log_point(content["log"]) if LOG in features else None,
            arrays={k: read_entry(k, described[k], shape) for k, shape in expected.items()},
        )
        if made.correction_span < 0:
            raise ValueError(f"correction_span is {made.correction_span}")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorruptIndexError(f"{where} is not a valid manifest: {error}") from error
    return made


def natural(content: dict[str, Any], key: str, least: int, most: int = _MAX_NUMBER) -> int:
    """Return a whole number of the manifest; a ValueError if it is none, or out of bounds."""
    value = content[key]
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key} is {value!r}")
    return value


def _number(content: dict[str, Any], key: str) -> float:
    value = content[key]
    if type(value) is not float or not abs(value) <= _LARGEST:
        raise ValueError(f"{key} is {value!r}")
    return value


def _reduced_dim(config: IndexConfig, dimension: int, basis: object) -> int:
    """Return the dimension of the centroids and codes, given the manifest's entry of a basis."""
    asked = config.projection
    config.check_dimension(dimension)
    if basis is None:
        if config.projects and asked is not None and asked.kind == "pca" and asked.reduction_dim:
            raise ValueError("there is no projection")
        return unprojected_dim(config, dimension)
    if asked is None or asked.kind != "pca" or not config.projects:
        raise ValueError("there is a projection that the config does not ask for")
    reduced_dim = basis["shape"][0]  # type: ignore[index]
    if reduced_dim != (asked.reduction_dim or reduced_dim) or not 1 <= reduced_dim <= dimension:
        raise ValueError(f"projection has {reduced_dim!r} rows")
    return int(reduced_dim)


def read_log_point(content: dict[str, Any]) -> LogPoint:
    """Return where the log goes on, as `log_entry` tells it; a ValueError if it is wrong."""
    if not isinstance(content["id"], str) or not _LOG_ID.fullmatch(content["id"]):
        raise ValueError(f"the id of its log is {content['id']!r}")
    return LogPoint(content["id"], natural(content, "sequence", 0, 2**63))


def read_entry(name: str, entry: dict[str, Any], expected: Shape) -> Entry:
    """Return what the manifest says of an array, once it is as it must be."""
    digest, shape, dtype = entry["sha256"], tuple(entry["shape"]), dtype_of(name)
    file = f"{name}-{digest[:16]}.npy"
    if entry["file"] != file or entry["dtype"] != dtype.str or not _matches(shape, expected):
        raise ValueError(
            f"{name} is {entry['dtype']} {shape} in {entry['file']!r}; expected {dtype.str} of "
            f"shape {expected} in {file!r}"
        )
    return Entry(file, dtype, shape, digest)


def _expected_shapes(
    config: IndexConfig,
    features: list[str],
    num_datapoints: int,
    dimension: int,
    described: dict[str, Any],
) -> dict[str, Shape]:
    """Arrays that an index of this config has, and their shapes."""
    reduced_dim = _reduced_dim(config, dimension, described.get("projection"))
    shapes: dict[str, Shape] = {"leaf_starts": (None,)}
    if "projection" in described:
        shapes["projection"] = (reduced_dim, dimension)
    if LEARNED in features:
        learned = [name for name in _LEARNED_ARRAYS if name in described]
        shapes |= dict.fromkeys(learned, (reduced_dim, reduced_dim))
    residual = PLAIN_CODES not in features
    if ROW_IDS in features:
        shapes["ids"] = (num_datapoints,)
    if config.tree is not None:
        shapes |= {"ids": (num_datapoints,), "centroids": (None, reduced_dim)}
        if config.tree.soar_lambda is not None:
            shapes["entry_rows"] = (None,)
        # Spherical trees of older versions had no spreads.
        if ranks_by_reach(config) and ("spreads" in described or not config.tree.spherical):
            shapes["spreads"] = (None,)
        shapes |= route_shapes(config, reduced_dim)
    if isinstance(config.score, AHConfig):
        blocks = -(-reduced_dim // config.score.dimensions_per_block)
        codewords = config.score.codewords
        shapes |= {
            "codes": (None, blocks, block_bytes(codewords)),
            "codebook": (reduced_dim, codewords),
        }
        corrected = config.distance_measure == SQUARED_L2 or CORRECTED in features
        if residual and config.tree is not None and corrected:
            shapes["corrections"] = (None,)
            if CODE_CENTER in features:
                shapes["code_center"] = (reduced_dim,)
    exact = config.reorder if isinstance(config.score, AHConfig) else config.score
    if exact is not None:
        origins = ROW_ORIGINS in features
        shapes |= row_shapes(
            exact.quantize, num_datapoints, dimension, config.distance_measure, origins=origins
        )
        if origins:
            shapes["row_origins"] = (None, dimension)
    return shapes | (docid_shapes(described, num_datapoints) if DOCIDS in features else {})


def docid_shapes(described: dict[str, Any], count: int) -> dict[str, Shape]:
    """Return the arrays that hold `count` docids, of those that a manifest describes."""
    if count == 0 and not described.keys() & DOCID_ARRAYS.keys():
        return {}
    if "docid_ints" in described:
        return {"docid_ints": (count,)}
    return {"docid_bytes": (None,), "docid_ends": (count,)}


def _matches(shape: tuple[object, ...], expected: Shape) -> bool:
    return len(shape) == len(expected) and all(
        type(size) is int and size >= 0 and (wanted is None or size == wanted)
        for size, wanted in zip(shape, expected, strict=True)
    )

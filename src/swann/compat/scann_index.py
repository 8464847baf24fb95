"""From the files of an index that ScaNN 1.4.2 serialized to a `PackedIndex`.

What carries over, and to what:

==============================  =====================================================
ScaNN                           swann
==============================  =====================================================
centroids (doubles)             float32; leaves ranked by them alone, as ScaNN does
tokens, SOAR's second tokens    the order of the leaves, entries
codes, a byte each              packed codes
codes of whole datapoints       the same (``residual=False``): squared l2 with a tree
rows: float32, bfloat16         the same
rows: int8 and a multiplier     bfloat16: swann's int8 has a scale a row, so rounding
for each dimension              again would add as much error as ScaNN's rounding did
upper tree, int8 centroids      made anew from the centroids, by the same settings
==============================  =====================================================
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.compat.scann_config import config_from_message
from swann.compat.scann_files import CONFIG_FILE, ScannFiles
from swann.compat.scann_messages import Codebook, read_codebook, read_partitioner
from swann.compat.scann_rows import Rows, map_rows
from swann.compat.scann_schema import CONFIG
from swann.compat.scann_wire import read_message
from swann.config import (
    AHConfig,
    BruteForceConfig,
    IndexConfig,
    UpperTreeConfig,
    with_finer_rows,
)
from swann.errors import ConfigError, CorruptIndexError, IndexFormatError
from swann.index.packed import PackedIndex, ranks_by_reach
from swann.index.routes import build_routes
from swann.kernels import GROUP

__all__ = ["read_index"]

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]

_MOST_ROWS = 2**31 - 1
_CHUNK_VALUES = 1 << 22


def read_index(files: ScannFiles) -> PackedIndex:
    """Read everything but docids into memory.

    Raises
    ------
    IndexFormatError
        If swann has no counterpart of the index; the message says of what.
    CorruptIndexError
        If a file is missing or damaged.
    """
    config, residual, input_dim = _read_config(files)
    codebook, hashed, words = None, None, 0
    n: int | None = None
    if isinstance(config.score, AHConfig):
        codebook = _read_codebook(files, config.score)
        blocks = kernels.num_blocks(len(codebook.codewords), codebook.dimensions_per_block)
        hashed = files.array("AH_DATASET_NPY", "u1", None, blocks)
        n, words = len(hashed), config.score.codewords
    rows = map_rows(files, config, n)
    if rows is not None:
        n, input_dim = rows.stored.shape
    assert n is not None  # there are codes or rows
    if n > _MOST_ROWS:
        raise IndexFormatError(f"{files.root} has {n} datapoints; at most {_MOST_ROWS} are read")
    centroids, basis, leaves = None, None, _Leaves(np.array([0, n], np.uint32))
    if config.tree is not None:
        partitioner = read_partitioner(*files.message("PARTITIONER"))
        centroids, basis = partitioner
        leaves = _read_leaves(files, n, len(centroids), config.tree.soar_lambda is not None)
    dimension, codebook = _fit_dimensions(files, config, input_dim, codebook, centroids, basis)
    arrays: dict[str, Any] = {}
    if rows is not None:
        arrays |= rows.read(leaves.ids)
    if codebook is not None and hashed is not None:
        spilled = None
        if leaves.spilled is not None and leaves.spilled.any():
            spilled = files.array("AH_DATASET_SOAR_NPY", "u1", *hashed.shape)
        arrays["codes"] = _pack(files, leaves, hashed, spilled, codebook, words)
        arrays["codebook"] = _full(codebook, words)
    config = _fitted(config, codebook, centroids, rows)
    if centroids is not None:
        arrays["routes"] = build_routes(config, centroids, kernels.hardware_threads())
        if ranks_by_reach(config):
            arrays["spreads"] = np.zeros(len(centroids), np.float32)  # as ScaNN: centroids alone
    try:
        return PackedIndex(
            config=config,
            num_datapoints=n,
            dimension=dimension,
            leaf_starts=leaves.starts,
            ids=leaves.ids,
            entry_rows=leaves.entry_rows,
            projection=basis,
            centroids=centroids,
            residual=residual or centroids is None or codebook is None,
            **arrays,
        )
    except ValueError as error:
        raise CorruptIndexError(
            f"the files of {files.root} do not fit together: {error}"
        ) from error


# ---- Settings


def _read_config(files: ScannFiles) -> tuple[IndexConfig, bool, int | None]:
    """Return the settings, whether codes are of residuals, and the dimension where it is said."""
    data, what = files.message(CONFIG_FILE)
    message: dict[str, Any] = read_message(data, CONFIG, what)
    try:
        config = with_finer_rows(config_from_message(message))
    except ConfigError as error:
        raise IndexFormatError(f"{what} cannot be used: {error}") from error
    if config.distance_measure == "cosine":
        raise IndexFormatError(
            f"{what} has CosineDistance, which ScaNN computes from rows as they are; expected "
            "DotProductDistance or SquaredL2Distance"
        )
    input_dim = None
    if config.projection is not None:
        if config.tree is None:
            raise IndexFormatError(f"{what} has a projection without a tree, as ScaNN has none")
        said = message["partitioning"][0]["projection"][0].get("input_dim", [0])[0]
        input_dim = said if 0 < said < 2**31 else None
    residual = False
    if isinstance(config.score, AHConfig):
        # Of fewer datapoints than codewords ScaNN keeps the rows, whatever the settings say.
        if "AH_CENTERS" not in files and "DATASET_NPY" in files:
            config = dataclasses.replace(config, score=BruteForceConfig(), reorder=None)
        else:
            hashing = message["hash"][0]["asymmetric_hash"][0]
            residual = "true" in hashing.get("use_residual_quantization", [])
    if residual and config.tree is not None and config.distance_measure == "squared_l2":
        raise IndexFormatError(
            f"{what} has residuals under SquaredL2Distance, which ScaNN 1.4.2 does not have"
        )
    return config, residual, input_dim


def _fit_dimensions(
    files: ScannFiles,
    config: IndexConfig,
    input_dim: int | None,
    codebook: Codebook | None,
    centroids: F32 | None,
    basis: F32 | None,
) -> tuple[int, Codebook | None]:
    """Return the dimension of datapoints, and the codebook without what only fills a block up.

    Raises
    ------
    IndexFormatError
        If centroids, codes, rows and projection are not of the dimensions that they should be.
    """
    projection = config.projection
    if (basis is not None) != (projection is not None and projection.kind == "pca"):
        raise IndexFormatError(
            f"{files.root} has {'a' if basis is not None else 'no'} projection in its partitioner, "
            "and its configuration says otherwise"
        )
    dimension = input_dim if basis is None else basis.shape[1]
    if dimension is None:
        dimension = len(codebook.codewords) if codebook is not None else 0
    reduced = dimension
    if projection is not None:
        reduced = len(basis) if basis is not None else projection.reduction_dim or 0
    if codebook is not None and projection is not None:
        filling = len(codebook.codewords) - reduced
        if 0 < filling < codebook.dimensions_per_block:
            codebook = codebook._replace(codewords=codebook.codewords[:reduced])
    found = {
        "rows": input_dim if input_dim is not None else dimension,
        "codes": len(codebook.codewords) if codebook is not None else reduced,
        "centroids": centroids.shape[1] if centroids is not None else reduced,
        "projection": (projection.reduction_dim if projection else None) or reduced,
    }
    expected = {"rows": dimension, "codes": reduced, "centroids": reduced, "projection": reduced}
    if found != expected or not 0 < reduced <= dimension:
        raise CorruptIndexError(f"{files.root} has dimensions {found}; expected {expected}")
    return dimension, codebook


def _fitted(
    config: IndexConfig, codebook: Codebook | None, centroids: F32 | None, rows: Rows | None
) -> IndexConfig:
    """Return settings that say what the index has, where ScaNN's say what was asked for."""
    score, tree, reorder = config.score, config.tree, config.reorder
    if tree is not None and centroids is not None:
        tree = dataclasses.replace(
            tree,
            num_leaves=len(centroids),
            num_leaves_to_search=min(tree.num_leaves_to_search, len(centroids)),
            upper=_at_most(tree.upper, len(centroids)),
        )
    if isinstance(score, AHConfig):
        assert codebook is not None
        score = dataclasses.replace(score, dimensions_per_block=codebook.dimensions_per_block)
        if reorder is not None and rows is not None:
            reorder = dataclasses.replace(reorder, quantize=rows.kept)
    else:
        reorder = None  # exact scores are final
        if rows is not None:
            score = dataclasses.replace(score, quantize=rows.kept)
    return dataclasses.replace(config, tree=tree, score=score, reorder=reorder)


def _at_most(upper: UpperTreeConfig | None, leaves: int) -> UpperTreeConfig | None:
    """Return an upper tree that has no more leaves than there are centroids below it."""
    if upper is None or upper.num_leaves <= leaves:
        return upper
    searched = min(upper.num_leaves_to_search, leaves)
    return dataclasses.replace(upper, num_leaves=leaves, num_leaves_to_search=searched)


# ---- Leaves


class _Leaves(NamedTuple):
    """Where the datapoints lie; see `swann.index.packed` for the words.

    `spilled` says which entries are of second tokens; None: none.
    """

    starts: U32
    ids: U32 | None = None
    entry_rows: U32 | None = None
    spilled: NDArray[np.bool_] | None = None


def _read_leaves(files: ScannFiles, n: int, leaves: int, spills: bool) -> _Leaves:
    tokens = files.array("TOKENIZATION_NPY", "<i4", None)
    per_row = 2 if spills and len(tokens) == 2 * n else 1
    if len(tokens) != per_row * n:
        raise CorruptIndexError(
            f"{files.root} has {len(tokens)} tokens for {n} datapoints; expected one each"
            f"{', or two' * spills}"
        )
    tokens = np.array(tokens).reshape(n, per_row)
    # A datapoint without a second leaf has -1 there.
    if tokens[:, 0].min() < 0 or tokens.min() < -1 or tokens.max() >= leaves:
        raise CorruptIndexError(
            f"{files.root} has tokens from {tokens.min()} to {tokens.max()} for {leaves} leaves"
        )
    first = tokens[:, 0].astype(np.uint32)
    ids, starts = kernels.sort_by_leaf(first, leaves)
    if not spills:
        return _Leaves(starts, ids)
    # Every leaf is two runs: its own rows, then those that were spilled to it.
    second = tokens[ids, per_row - 1]
    guests = np.flatnonzero(second >= 0) if per_row == 2 else np.empty(0, np.int64)
    runs = np.concatenate([2 * first[ids], 2 * second[guests].astype(np.uint32) + 1])
    entries, run_starts = kernels.sort_by_leaf(runs, 2 * leaves)
    entry_rows = np.concatenate([np.arange(n), guests]).astype(np.uint32)[entries]
    return _Leaves(run_starts[::2].copy(), ids, entry_rows, entries >= n)


# ---- Codes


def _read_codebook(files: ScannFiles, score: AHConfig) -> Codebook:
    codebook = read_codebook(*files.message("AH_CENTERS"))
    count = codebook.codewords.shape[1]
    if count > score.codewords:
        raise CorruptIndexError(
            f"{files.root} has {count} codewords a block; expected {score.codewords}, as its "
            "configuration says"
        )
    return codebook


def _full(codebook: Codebook, words: int) -> F32:
    """Fill the codebook up to `words` codewords with some that no code names."""
    missing = words - codebook.codewords.shape[1]
    return np.ascontiguousarray(np.pad(codebook.codewords, ((0, 0), (0, missing)), mode="edge"))


def _pack(
    files: ScannFiles,
    leaves: _Leaves,
    hashed: U8,
    spilled: U8 | None,
    codebook: Codebook,
    words: int,
) -> U8:
    """Pack codes [datapoint][block] leaf by leaf, as `swann.index.packed` draws it."""
    starts = leaves.starts.astype(np.int64)
    firsts = np.concatenate([[0], np.cumsum(-(-np.diff(starts) // GROUP))])
    groups, blocks = int(firsts[-1]), hashed.shape[1]
    packed = np.empty((groups, blocks, kernels.block_bytes(words)), np.uint8)
    codewords = codebook.codewords.shape[1]
    step = max(1, _CHUNK_VALUES // (GROUP * blocks))
    for begin in range(0, groups, step):
        chunk = np.arange(begin, min(groups, begin + step))
        leaf = np.searchsorted(firsts, chunk, side="right") - 1
        places = (starts[leaf] + (chunk - firsts[leaf]) * GROUP)[:, None] + np.arange(GROUP)
        filled = places < starts[leaf + 1][:, None]
        codes = np.zeros((len(chunk), GROUP, blocks), np.uint8)
        codes[filled] = _codes_of(leaves, places[filled], hashed, spilled)
        if codes.max() >= codewords:
            raise CorruptIndexError(
                f"{files.root} has a code {codes.max()}; its blocks have {codewords} codewords"
            )
        if words == 16:
            packed[begin : begin + step] = _halves(codes).transpose(0, 2, 1)
        else:
            packed[begin : begin + step] = codes.transpose(0, 2, 1)
    return packed


def _halves(codes: U8) -> U8:
    """Put two 4-bit codes into a byte: those of datapoints i and 16 + i."""
    return codes[:, :16] | codes[:, 16:] << np.uint8(4)


def _codes_of(leaves: _Leaves, entries: I64, hashed: U8, spilled: U8 | None) -> U8:
    if leaves.ids is None:
        return hashed[entries]
    if leaves.entry_rows is None:
        return hashed[leaves.ids[entries]]
    datapoints = leaves.ids[leaves.entry_rows[entries]]
    codes = hashed[datapoints]
    if spilled is not None and leaves.spilled is not None:
        guests = leaves.spilled[entries]
        codes[guests] = spilled[datapoints[guests]]
    return codes

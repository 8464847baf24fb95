"""An index is a few immutable arrays.

Datapoints lie in the order of the leaves, so that a leaf is one contiguous run of every array. A
*row* is a place in that order; without a tree there is one leaf and rows are datapoints.

::

    leaf_starts  uint32  (leaves + 1,)        first entry of each leaf
    entry_rows   uint32  (entries,)           row of each entry              (spilling; see below)
    ids          uint32  (n,)                 number of each row's datapoint (tree or updates)
    projection   float32 (r, d)               orthonormal directions         (pca)
    tree_map     float32 (r, r)               leaves are chosen in its space (learned)
    code_metric  float32 (r, r)               the loss of codes              (learned)
    centroids    float32 (leaves, r)                                         (with a tree)
    spreads      float32 (leaves,)            reach above the centroid    (see ranks_by_reach)
    rows         float32 (n, d)               exact rows           (brute force or reordering)
    rows_bf16    uint16  (n, d)               or the upper halves of float32
    rows_i8      int8    (n, d)               or int8, times row_scales, beyond row_origins
    row_scales   float32 (n,)                                                (int8 rows)
    row_squares  float32 (n,)                 squared lengths of int8 rows   (squared l2)
    row_labels   uint8   (n,)                 origin of each row             (int8 rows)
    row_origins  float32 (origins, d)         what int8 rows are counted from (many of them)
    codes        uint8   (groups, blocks, 16) packed 4-bit codes             (asymmetric hashing)
                         or (..., 32)         8-bit codes                    (lut256)
    codebook     float32 (r, 16 or 256)       codeword k of all blocks       (asymmetric hashing)
    corrections  uint16  (groups * 32,)       what scores by codes of residuals leave out: see
                                              `pack_codes` (squared l2; others where it pays)
    code_center  float32 (r,)                 what tables and corrections count from (the same)

r is the dimension of the centroids and codes: d, or what a projection leaves of it
(`PackedIndex.reduced_dim`). `swann.index.routes` draws the
arrays that lead a query to its leaves.

An *entry* is a row in a leaf. Entries and rows are the same unless the tree spills (SOAR): then a
leaf has first the entries of its own rows and then those of rows spilled to it, and each row has
two entries (or one, in an index that ScaNN made). They differ, too, where rows are the caller's own
array: these lie in the order of the database, and each has one entry without spilling.

A leaf's codes are cut into groups of 32 datapoints; its last group may be part empty. Within a
group, 16 bytes a block follow each other; byte i holds datapoint i in its low four bits and
datapoint 16 + i in its high four: one 512-bit load brings four blocks of 32 datapoints.

::

    group   | block 0                       | block 1                       | ...
    byte    | 0      | 1      | ... | 15     | 16     | ...
    low     | dp 0   | dp 1   |     | dp 15  | dp 0   |
    high    | dp 16  | dp 17  |     | dp 31  | dp 16  |

Codes of 8 bits take 32 bytes a block: byte i holds datapoint i.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swann.config import AHConfig, IndexConfig
from swann.index.routes import native_routes
from swann.kernels import NativeIndex
from swann.quantize.projection import project
from swann.vectors import aligned

__all__ = ["ARRAYS", "MOST_ENTRIES", "PackedIndex", "ranks_by_reach", "unprojected_dim"]

MOST_ENTRIES = 2**32 - 2
"""Entries of an index, and numbers of its datapoints: both have 32 bits."""

ARRAYS: dict[str, np.dtype[Any]] = {
    "leaf_starts": np.dtype("<u4"),
    "ids": np.dtype("<u4"),
    "entry_rows": np.dtype("<u4"),
    "projection": np.dtype("<f4"),
    "tree_map": np.dtype("<f4"),
    "code_metric": np.dtype("<f4"),
    "centroids": np.dtype("<f4"),
    "spreads": np.dtype("<f4"),
    "rows": np.dtype("<f4"),
    "rows_bf16": np.dtype("<u2"),
    "rows_i8": np.dtype("i1"),
    "row_scales": np.dtype("<f4"),
    "row_squares": np.dtype("<f4"),
    "row_labels": np.dtype("u1"),
    "row_origins": np.dtype("<f4"),
    "codes": np.dtype("u1"),
    "codebook": np.dtype("<f4"),
    "corrections": np.dtype("<u2"),
    "code_center": np.dtype("<f4"),
}
"""Names of the arrays, and their dtypes wherever they are stored."""


@dataclass(frozen=True, eq=False)
class PackedIndex:
    """The arrays of an index (see the module's drawing), and the view the native code has of them.

    Attributes
    ----------
    config : IndexConfig
        What it was built with.
    num_datapoints, dimension : int
        Of the database.
    correction_low, correction_span : float
        A stored correction c stands for ``low + span * c / 65535``.
    residual : bool
        Where there is a tree: whether codes are of residuals, as swann builds them, or of whole
        datapoints, as ScaNN's are under squared l2.
    tree_map, code_metric : float32 arrays, optional
        What sample queries taught (`swann.index.building.learned`): searches need neither, updates
        do.
    routes : dict of str to array
        What `swann.index.routes.build_routes` makes of the centroids.
    """

    config: IndexConfig
    num_datapoints: int
    dimension: int
    leaf_starts: NDArray[np.uint32]
    ids: NDArray[np.uint32] | None = None
    entry_rows: NDArray[np.uint32] | None = None
    centroids: NDArray[np.float32] | None = None
    spreads: NDArray[np.float32] | None = None
    rows: NDArray[np.float32] | None = None
    rows_bf16: NDArray[np.uint16] | None = None
    rows_i8: NDArray[np.int8] | None = None
    row_scales: NDArray[np.float32] | None = None
    row_squares: NDArray[np.float32] | None = None
    row_labels: NDArray[np.uint8] | None = None
    row_origins: NDArray[np.float32] | None = None
    codes: NDArray[np.uint8] | None = None
    codebook: NDArray[np.float32] | None = None
    corrections: NDArray[np.uint16] | None = None
    code_center: NDArray[np.float32] | None = None
    correction_low: float = 0.0
    correction_span: float = 0.0
    residual: bool = True
    projection: NDArray[np.float32] | None = None
    tree_map: NDArray[np.float32] | None = None
    code_metric: NDArray[np.float32] | None = None
    routes: dict[str, NDArray[Any]] = field(default_factory=dict)
    native: NativeIndex = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for array in self.arrays().values():
            array.flags.writeable = False
        score = self.config.score
        native = NativeIndex(
            distance=self.config.distance_measure,
            dim=self.dimension,
            leaf_starts=self.leaf_starts,
            centroids=self.centroids,
            spreads=self.spreads,
            ids=self.ids,
            entry_rows=self.entry_rows,
            rows=self.rows,
            rows_bf16=self.rows_bf16,
            rows_i8=self.rows_i8,
            row_scales=self.row_scales,
            row_squares=self.row_squares,
            row_labels=self.row_labels,
            row_origins=self.row_origins,
            codes=self.codes,
            codebook=self.codebook,
            dims_per_block=score.dimensions_per_block if isinstance(score, AHConfig) else 0,
            corrections=self.corrections,
            correction_low=self.correction_low,
            correction_span=self.correction_span,
            residual=self.residual,
            reduced_dim=self.reduced_dim,
            projection=self.projection,
            spills=self.spills,
            code_center=self.code_center,
            **native_routes(self.config, self.routes),
        )
        object.__setattr__(self, "native", native)

    @property
    def num_leaves(self) -> int:
        """Leaves of the tree; 1 without a tree."""
        return len(self.leaf_starts) - 1

    @property
    def spills(self) -> bool:
        """Whether a datapoint may lie in two leaves."""
        tree = self.config.tree
        return self.entry_rows is not None and tree is not None and tree.soar_lambda is not None

    @property
    def in_database_order(self) -> bool:
        """Whether rows lie as the caller's do, which no saved index has without spilling."""
        return self.entry_rows is not None and not self.spills

    @property
    def changed(self) -> bool:
        """Whether datapoints were added or removed since these arrays were made."""
        return self.native.changed()

    def numbers(self) -> NDArray[np.int64]:
        """Return the number of each row's datapoint."""
        if self.ids is None:
            return np.arange(self.num_datapoints)
        return self.ids.astype(np.int64)

    @property
    def reduced_dim(self) -> int:
        """Dimension of the centroids and codes."""
        if self.projection is not None:
            return len(self.projection)
        return unprojected_dim(self.config, self.dimension)

    @property
    def projects(self) -> bool:
        """Whether the centroids and codes are in a space of their own."""
        return self.projection is not None or self.reduced_dim != self.dimension

    def reduce(self, rows: NDArray[np.float32], threads: int = 1) -> NDArray[np.float32]:
        """Return rows (n, d), normalised under cosine, in the space of the centroids and codes."""
        return project(rows, self.projection, self.reduced_dim, threads)

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return sum(array.nbytes for array in self.arrays().values())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the arrays and settings; the native view is made anew."""
        kept = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return _make_index, (kept,)

    def in_memory(self) -> PackedIndex:
        """Return the same with copies of the arrays, for which NumPy asks for large pages."""
        copies: dict[str, Any] = {name: _copy(array) for name, array in self.arrays().items()}
        routes = {name: copies.pop(name) for name in self.routes}
        return dataclasses.replace(self, **copies, routes=routes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that this index has, by name."""
        present = ((name, getattr(self, name)) for name in ARRAYS)
        return {name: array for name, array in present if array is not None} | self.routes


def _copy(array: NDArray[Any]) -> NDArray[Any]:
    copied = aligned(array.shape, array.dtype)
    copied[...] = array
    return copied


def _make_index(kept: dict[str, Any]) -> PackedIndex:
    return PackedIndex(**kept)


def unprojected_dim(config: IndexConfig, dimension: int) -> int:
    """Return the dimension of the centroids and codes of an index that has no basis."""
    if config.projects and config.projection is not None and config.projection.kind == "truncate":
        return config.projection.reduction_dim or dimension
    return dimension


def ranks_by_reach(config: IndexConfig) -> bool:
    """Whether leaves are ranked by what their best datapoint may score: `spreads` are kept.

    Not under squared l2, where it changes nothing.
    """
    return config.tree is not None and config.distance_measure != "squared_l2"

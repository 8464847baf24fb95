# What the native module has (native/bind_*.cpp). Only swann.kernels imports it.
from typing import Any, Literal

from numpy.typing import NDArray

_A = NDArray[Any]
_Rows = tuple[_A | None, _A | None, _A | None, _A | None, _A | None]
_Level = tuple[_A, _A | None, _A, _A, _Rows, int, float]

class Index:
    num_groups: int
    def __init__(
        self,
        distance: str,
        dim: int,
        leaf_starts: _A,
        centroids: _A | None,
        spreads: _A | None,
        ids: _A | None,
        entry_rows: _A | None,
        rows: _A | None,
        rows_bf16: _A | None,
        rows_i8: _A | None,
        row_scales: _A | None,
        row_squares: _A | None,
        row_labels: _A | None,
        row_origins: _A | None,
        codes: _A | None,
        codebook: _A | None,
        dims_per_block: int,
        corrections: _A | None,
        correction_low: float,
        correction_span: float,
        residual: bool = True,
        *,
        reduced_dim: int,
        projection: _A | None = None,
        rounded_centroids: _Rows | None = None,
        upper: list[_Level] = ...,
        spills: bool = True,
        code_center: _A | None = None,
    ) -> None: ...
    def search(
        self, queries: _A, candidates: int, leaves: int, threads: int, ids: _A, distances: _A, /
    ) -> int: ...
    def search_one(
        self, query: object, k: int, candidates: int, leaves: int, /
    ) -> tuple[_A, _A] | Literal[False] | None: ...
    def kept(self, k: int, candidates: int, /) -> int: ...
    def choose(self, queries: _A, threads: int, leaves: _A, scores: _A, /) -> int: ...
    def gather(
        self,
        queries: _A,
        leaves: _A,
        scores: _A,
        threads: int,
        whole_starts: _A,
        first: _A,
        last: _A,
        distances: _A,
        /,
    ) -> int: ...
    def begun(self) -> bool: ...
    def begin_updates(
        self,
        code_steps: _A | None,
        code_threshold: float,
        row_steps: _A | None,
        row_threshold: float,
        largest_ratio: float,
        soar_lambda: float,
        avq: float,
        sweeps: int,
        tree_map: _A | None,
        code_metric: _A | None,
        /,
    ) -> None: ...
    def upsert(
        self,
        rows: _A,
        ids: _A,
        threads: int,
        scales: _A | None = None,
        labels: _A | None = None,
        /,
    ) -> int: ...
    def upsert_one(self, row: _A, id: int, /) -> bool: ...
    def erase(self, ids: _A, /) -> None: ...
    def erase_one(self, id: int, /) -> None: ...
    def reserve(self, slots: int, /) -> None: ...
    def has_room(self, count: int, /) -> bool: ...
    def errors(self, first: int, out: _A, /) -> None: ...
    def rows_of(self, ids: _A, rows: _A, /) -> None: ...
    def row_of(self, id: int, /) -> int: ...
    def vectors(self, rows: _A, out: _A, /) -> None: ...
    def kept_as(self, rows: _A, scales: _A, labels: _A, /) -> None: ...
    def num_rows(self) -> int: ...
    def live_rows(self) -> int: ...
    def dead_rows(self) -> int: ...
    def changed(self) -> bool: ...
    def changes_nbytes(self) -> int: ...
    def mark_rows(self, leaves: _A, skip: _A, /) -> None: ...
    def numbers(self, out: _A, /) -> None: ...
    def fold_starts(self, skip: _A | None, leaf_starts: _A, /) -> int: ...
    def fold(
        self,
        skip: _A | None,
        leaf_starts: _A,
        ids: _A,
        entry_rows: _A | None,
        codes: _A | None,
        corrections: _A | None,
        rows: _A | None,
        rows_bf16: _A | None,
        rows_i8: _A | None,
        scales: _A | None,
        squares: _A | None,
        labels: _A | None,
        /,
    ) -> None: ...

def merge(
    parts: list[tuple[_A, _A, _A, _A]],
    candidates: int,
    threads: int,
    ids: _A,
    distances: _A,
    /,
) -> None: ...
def check_rows(rows: _A, norms: _A | None, threads: int, /) -> int: ...
def square_rows(rows: _A, squares: _A, threads: int, /) -> None: ...

class Centroids:
    def __init__(self, rows: _A, threads: int, /) -> None: ...

def assign_leaves(
    rows: _A,
    centroids: Centroids,
    labels: _A,
    scores: _A,
    eta: float,
    etas: _A | None,
    threads: int,
    /,
) -> None: ...
def assign_near(
    rows: _A,
    origins: _A,
    centroids: _A,
    width: int,
    order: _A,
    starts: _A,
    labels: _A,
    scores: _A,
    threads: int,
    /,
) -> None: ...
def anisotropic_centroids(
    rows: _A,
    order: _A,
    starts: _A,
    eta: float,
    etas: _A | None,
    scales: _A | None,
    centroids: _A,
    threads: int,
    /,
) -> None: ...
def round_to_bf16(rows: _A, weights: _A | None, out: _A, threads: int, /) -> None: ...
def round_to_i8(
    rows: _A,
    weights: _A | None,
    origins: _A | None,
    labels: _A | None,
    out: _A,
    scales: _A,
    squares: _A,
    threads: int,
    /,
) -> None: ...
def take_rows(rows: _A, ids: _A, out: _A, threads: int, /) -> None: ...
def put_rows(rows: _A, places: _A, out: _A, threads: int, /) -> None: ...
def spill_leaves(
    rows: _A, centroids: Centroids, labels: _A, soar_lambda: float, spilled: _A, threads: int, /
) -> None: ...
def sort_by_leaf(labels: _A, order: _A, starts: _A, /) -> None: ...
def leaf_means(rows: _A, order: _A, starts: _A, means: _A, threads: int, /) -> None: ...
def make_tiles(
    rows: _A,
    centroids: _A | None,
    labels: _A | None,
    targets: _A,
    directions: _A | None,
    threads: int,
    /,
) -> None: ...
def encode_tiles(
    targets: _A,
    directions: _A | None,
    weights: _A | None,
    codebook: _A,
    dims_per_block: int,
    sweeps: int,
    warm: bool,
    codes: _A,
    losses: _A,
    threads: int,
    /,
) -> None: ...
def start_codebook(
    targets: _A, dims_per_block: int, first: _A, draws: _A, codebook: _A, threads: int, /
) -> None: ...
def update_codebook(
    targets: _A,
    directions: _A | None,
    weights: _A | None,
    scales: _A | None,
    codes: _A,
    dims_per_block: int,
    codebook: _A,
    joint: bool,
    threads: int,
    /,
) -> None: ...
def pack_codes(
    rows: _A,
    weights: _A | None,
    centroids: _A | None,
    leaves: _A,
    places: _A,
    codebook: _A,
    dims_per_block: int,
    sweeps: int,
    codes: _A,
    corrections: _A | None,
    metric: _A | None,
    directions: _A | None,
    center: _A | None,
    dot_product: bool,
    threads: int,
    /,
) -> None: ...
def metric_directions(rows: _A, metric: _A, directions: _A, norms: _A, threads: int, /) -> None: ...
def release_memory() -> None: ...
def normalize_rows(rows: _A, out: _A, threads: int, /) -> int: ...
def project_rows(rows: _A, basis: _A | None, out: _A, threads: int, /) -> None: ...
def add_moments(
    rows: _A, shift: _A, scale: float, sums: _A, products: _A, threads: int, /
) -> None: ...
def symmetric_eigen(matrix: _A, values: _A, threads: int, /) -> None: ...
def hardware_threads() -> int: ...
def kernel_levels() -> list[str]: ...
def active_level() -> str: ...
def level_error() -> str: ...
def force_scan(way: str, /) -> None: ...
def kernel_pairs_f32(level: str, squared_l2: bool, queries: _A, rows: _A, out: _A, /) -> None: ...
def kernel_pairs_bf16(level: str, squared_l2: bool, queries: _A, rows: _A, out: _A, /) -> None: ...
def kernel_pairs_i8(level: str, queries: _A, rows: _A, out: _A, /) -> None: ...
def kernel_gather_f32(
    level: str, squared_l2: bool, query: _A, rows: _A, ids: _A, out: _A, /
) -> None: ...
def kernel_gather_bf16(
    level: str, squared_l2: bool, query: _A, rows: _A, ids: _A, out: _A, /
) -> None: ...
def kernel_gather_i8(level: str, query: _A, rows: _A, ids: _A, out: _A, /) -> None: ...
def kernel_keys_from_f32(
    level: str, scores: _A, reach: _A | None, length: float, keys: _A, /
) -> None: ...
def kernel_lut_f32(
    level: str,
    query: _A,
    codebook: _A,
    dims_per_block: int,
    squared_l2: bool,
    lut: _A,
    lows: _A,
    highs: _A,
    /,
) -> None: ...
def kernel_lut_quantize_u8(level: str, lut: _A, lows: _A, scale: float, out: _A, /) -> None: ...
def kernel_scan(
    level: str,
    codes: _A,
    corrections: _A | None,
    count: int,
    first_row: int,
    first_group: int,
    luts: _A,
    thresholds: list[int],
    biases: list[int],
    multipliers: list[int],
    keys: _A,
    sizes: _A,
    /,
) -> int: ...
def kernel_dot_tiles_f32(level: str, rows: _A, tiles: _A, out: _A, /) -> None: ...
def kernel_argmax_f32(level: str, scores: _A, bias: _A, /) -> tuple[int, float]: ...
def kernel_at_least_f32(level: str, scores: _A, threshold: float, out: _A, /) -> int: ...
def kernel_encode_tile(
    level: str,
    target: _A,
    direction: _A | None,
    weight: _A,
    codebook: _A,
    dims_per_block: int,
    sweeps: int,
    warm: bool,
    codes: _A,
    loss: _A,
    /,
) -> None: ...
def kernel_encode_one(
    level: str,
    target: _A,
    direction: _A | None,
    weight: float,
    codebook: _A,
    dims_per_block: int,
    sweeps: int,
    codes: _A,
    /,
) -> float: ...
def kernel_keep_best(level: str, keys: _A, limit: int, most: int, /) -> tuple[int, int]: ...
def kernel_least_of_best_f32(level: str, scores: _A, limit: int, /) -> float: ...

"""What a query needs: bytes and operations of each stage, as the kernels are written."""

from __future__ import annotations

import dataclasses

from benchmarks.roofline.limits import Limits, pattern

TOGETHER = {"512": 8, "256": 12}
"""Queries that share one pass over a leaf in a batch."""
BLOCK = 1024
"""Queries of a batch that go leaf by leaf together."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of an index, and what a query searches of it."""

    leaves: int
    dimension: int  # of centroids and codes
    entries: float  # scored by a query
    leaf_bytes: int  # codes of a leaf, on the mean
    code_bytes: int  # all codes
    blocks: int
    candidates: int
    row_bytes: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one stage and query: bytes that come in a pattern, and operations by kind."""

    bytes: float
    run: int
    total: int
    shuffles: float = 0
    sums: float = 0
    all: float = 0

    @property
    def pattern(self) -> str:
        """As `limits.measure` takes it."""
        return pattern(self.run, self.total)

    def by_bytes(self, limits: Limits) -> float:
        """Microseconds that the bytes take at least."""
        return self.bytes / limits.read(self.run, self.total) / 1000

    def by_operations(self, limits: Limits, width: str) -> float:
        """Microseconds that the operations take at least."""
        can = limits.operations[width]
        return (
            max(
                self.shuffles / can["shuffles"],
                self.sums / can["sums"],
                self.all / can["logic"],
            )
            / 1000
        )


def lookups(width: str, together: int) -> tuple[float, float, float]:
    """Return the shuffles, sums and all operations for two registers of lookups (128 or 64).

    As ``native/avx512vnni_scan.inl`` and ``native/avx2_scan.inl`` have them: the entries of three
    blocks are added in bytes before these are widened. Shifts are in the ports of shuffles.
    """
    added = 4 / 3
    if width == "256":  # three operations widen a register
        return 2 + 2 / 3 + 1 / together, 0, 2 + added + 2 + 3 / together
    widened = 2 / 3
    if together <= 2:  # what is found is turned
        return 2 + widened, widened, 2 + added + 2 * widened + 2 / together
    return 2 + 2 / together, widened, 2 + added + widened + 4 / together


def of_query(sizes: Sizes, width: str, batch: bool) -> dict[str, Work]:
    """Return the work of the stages whose limits are known."""
    together = TOGETHER[width] if batch else 1
    registers = sizes.entries * sizes.blocks / (128 if width == "512" else 64)
    shuffles, sums, everything = (registers * each for each in lookups(width, together))
    centroids = sizes.leaves * sizes.dimension
    products = centroids / (
        64 if width == "512" else 16
    )  # AVX2: two products and an addition for 32
    scanned = sizes.code_bytes / BLOCK if batch else sizes.entries * sizes.blocks / 2
    reordered = sizes.candidates * sizes.row_bytes
    if batch:  # queries share candidates: none is read twice, at best
        reordered = min(reordered, sizes.rows * sizes.row_bytes // BLOCK)
    return {
        "leaves": Work(
            centroids / (together if batch else 1), 0, centroids, sums=products, all=products
        ),
        "scan": Work(
            scanned,
            0 if batch else sizes.leaf_bytes,
            sizes.code_bytes,
            shuffles,
            sums,
            everything,
        ),
        "reordering": Work(reordered, sizes.row_bytes, sizes.rows * sizes.row_bytes),
    }

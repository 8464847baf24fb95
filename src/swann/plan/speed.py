"""How long one core takes: for a query and for the stages of a build, as sums of counted work.

A time is the sum of amounts (centroid values, bytes of codes, candidates, ...) times what one of
them takes. The amounts follow from settings and sizes; what they take is measured once a machine
(`swann.plan.calibrate`) and kept as a `Speed`. A query that comes alone and one of a batch have
constants of their own: batches read the codes of a leaf once for all queries that visit it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from swann import kernels
from swann.config import AHConfig, BruteForceConfig, IndexConfig, ReorderType, check_number
from swann.errors import ConfigError
from swann.index.building.build import ENOUGH_A_LEAF, ENOUGH_AT_FIRST
from swann.index.building.coding import codebook_sample
from swann.partition.kmeans import NEAR
from swann.plan.layout import reduced_dim
from swann.plan.profile import Look, check_fields, check_name

__all__ = [
    "BUILD_TERMS",
    "QUERY_TERMS",
    "Speed",
    "build_terms",
    "fit",
    "nanoseconds",
    "query_terms",
]

Terms = dict[str, float]

QUERY_TERMS = (
    "call",  # a query: Python, checks, results
    "centroid",  # a float32 value of a centroid that is scored, leaf by leaf
    "centroid_i8",  # the same in int8
    "table",  # an entry of the lookup tables
    "leaf",  # a leaf visited
    "code",  # a block of a datapoint's code
    "far_code",  # a byte of codes that is not in the cache
    "candidate",  # a candidate: selection, its row's place
    "candidate_byte",  # a byte of its row
    "far_row",  # a row that is not in the cache
    "row_byte",  # a byte of a row, in 8 bits, in a scan of all rows
)
"""What a query's time is made of; a `Speed` has nanoseconds for each."""

BUILD_TERMS = ("check", "tree", "assign", "codebook", "encode", "rows")
"""The same of a build: nanoseconds a value, a multiplication, a byte; see `build_terms`."""

_ROW_BYTES = {ReorderType.FLOAT32: 4, ReorderType.BFLOAT16: 2, ReorderType.INT8: 1}
_FULL_PASSES = 2
"""Iterations of k-means that compare with all centroids."""
_QUERIES_TOGETHER = 1024


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What things take on one core of a machine.

    Attributes
    ----------
    about : str
        Processor, level of kernels, and how it was measured.
    alone, batch : dict of str to float
        Nanoseconds by `QUERY_TERMS`.
    build : dict of str to float
        Nanoseconds by `BUILD_TERMS`.
    serial : float
        Share of a build in one process that threads do not shorten.
    """

    about: str
    alone: Mapping[str, float]
    batch: Mapping[str, float]
    build: Mapping[str, float]
    serial: float

    def __post_init__(self) -> None:
        check_name("about", self.about)
        object.__setattr__(self, "serial", check_number("serial", self.serial, most=1.0))
        wanted = {"alone": QUERY_TERMS, "batch": QUERY_TERMS, "build": BUILD_TERMS}
        for name, terms in wanted.items():
            part = getattr(self, name)
            if not isinstance(part, Mapping) or set(part) != set(terms):
                raise ConfigError(f"{name} of a speed is {part!r}; expected {', '.join(terms)}")
            for term in terms:
                check_number(f"{name}[{term!r}]", part[term])

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Make one from what `to_dict` returned; a ConfigError if it is no such thing."""
        return cls(**check_fields(cls, "speed", plain))


def query_terms(
    config: IndexConfig,
    n: int,
    dimension: int,
    look: Look,
    *,
    cache: float,
    code_bytes: float,
    batch: bool = False,
) -> Terms:
    """Return the amounts of a query by `QUERY_TERMS`; those that are 0 may be missing.

    Parameters
    ----------
    config : IndexConfig
        Of the index.
    n, dimension : int
        Datapoints and their dimension.
    look : Look
        What is looked at.
    cache : float
        Bytes of the last level of cache that a core can fill.
    code_bytes : float
        What the codes of the index take.
    batch : bool
        Whether the query is one of a thousand in a call.
    """
    r = reduced_dim(config, dimension)
    terms: Terms = {"call": 1.0}
    if config.tree is not None:
        terms |= _choosing(config, min(config.tree.num_leaves, n), r)
        terms["leaf"] = look.leaves
    if isinstance(config.score, BruteForceConfig):
        # Of floats, too, searches read a byte a value and five more (docs/architecture.md, Search).
        return terms | {"row_byte": look.scanned * (dimension + 5)}
    blocks = kernels.num_blocks(r, config.score.dimensions_per_block)
    code = blocks * kernels.block_bytes(config.score.codewords) / kernels.GROUP
    far = 1.0 - min(1.0, cache / code_bytes)
    read = look.scanned * code
    if batch:
        read = min(read, code_bytes / _QUERIES_TOGETHER)
    terms["table"] = r * config.score.codewords
    terms["code"] = look.scanned * blocks
    terms["far_code"] = far * read
    if config.reorder is not None:
        row = dimension * _ROW_BYTES[config.reorder.quantize]
        terms["candidate"] = look.candidates
        terms["candidate_byte"] = look.candidates * row
        terms["far_row"] = look.candidates * (1.0 - min(1.0, cache / (n * row)))
    return terms


def _choosing(config: IndexConfig, leaves: int, r: int) -> Terms:
    assert config.tree is not None
    if config.tree.upper is None:
        return {"centroid_i8" if config.tree.quantize_centroids else "centroid": leaves * r}
    upper = config.tree.upper
    share = min(1.0, upper.num_leaves_to_search / upper.num_leaves)
    copies = 1 if upper.soar_lambda is None else 2
    low = copies * share * leaves * r
    name = "centroid_i8" if upper.scoring_mode is ReorderType.INT8 else "centroid"
    return {"centroid": upper.num_leaves * r} | {
        name: low + (upper.num_leaves * r if name == "centroid" else 0.0)
    }


def build_terms(config: IndexConfig, n: int, dimension: int) -> Terms:
    """Return the amounts of a build by `BUILD_TERMS`.

    ``tree`` and ``assign`` count multiplications (of the k-means on a sample; of every datapoint
    with every centroid, once more with SOAR and where the sample is small), ``check``,
    ``codebook`` and ``encode`` values, ``rows`` bytes that are kept.
    """
    r = reduced_dim(config, dimension)
    terms: Terms = {"check": float(n * dimension)}
    if config.tree is not None:
        leaves = min(config.tree.num_leaves, n)
        sample = min(n, max(config.tree.training_sample_size, leaves))
        seen = (min(sample, ENOUGH_AT_FIRST * leaves) + float(sample)) / 2
        near = config.tree.training_iterations - _FULL_PASSES
        terms["tree"] = r * (
            _FULL_PASSES * seen * leaves
            + near * (seen * min(leaves, NEAR) + float(leaves) * leaves)
        )
        passes = 1 if config.tree.soar_lambda is None else 2
        if sample < min(n, ENOUGH_A_LEAF * leaves):
            passes += 1  # centroids become means of the whole database
        terms["assign"] = passes * float(n) * leaves * r
    copies = 2 if config.tree is not None and config.tree.soar_lambda is not None else 1
    exact: Any = config.reorder
    if isinstance(config.score, AHConfig):
        enough = min(n, codebook_sample(config.score, n))
        rounds = config.score.training_iterations * (2 if config.score.anisotropic else 1)
        words = config.score.codewords / 16
        terms["codebook"] = float(enough) * r * rounds * words
        sweeps = 2 if config.score.anisotropic else 1
        terms["encode"] = float(n) * r * copies * words * sweeps
    else:
        exact = config.score
    if exact is not None:
        terms["rows"] = float(n) * dimension * _ROW_BYTES[exact.quantize]
    return terms


def nanoseconds(constants: Mapping[str, float], terms: Terms) -> float:
    """Return what amounts take in all."""
    return sum(constants[name] * amount for name, amount in terms.items())


def fit(
    rows: list[Terms],
    times: list[float],
    names: tuple[str, ...],
    known: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return constants, none below 0, that make the sums come near to measured times.

    Relative errors count: a time of 10 microseconds is as important as one of 1,000. Names that no
    row has get 0, those that are known stay as they are.
    """
    known = {} if known is None else known
    names = tuple(name for name in names if name not in known)
    seen = np.array([sum(row.get(name, 0.0) * known[name] for name in known) for row in rows])
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    weights = 1.0 / np.asarray(times, np.float64)
    scaled = matrix * weights[:, None]
    lengths = np.sqrt((scaled * scaled).sum(axis=0))
    lengths[lengths == 0.0] = 1.0
    found = _nonnegative(scaled / lengths, 1.0 - seen * weights) / lengths
    return {name: float(value) for name, value in zip(names, found, strict=True)} | dict(known)


def _nonnegative(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares over values that are not negative, by coordinate descent."""
    gram, right = a.T @ a, a.T @ b
    x = np.zeros(a.shape[1])
    for _ in range(20_000):
        before = x.copy()
        for i in range(len(x)):
            if gram[i, i] > 0.0:
                x[i] = max(0.0, x[i] + (right[i] - gram[i] @ x) / gram[i, i])
        if np.abs(x - before).max() < 1e-12:
            break
    return x

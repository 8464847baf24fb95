"""The pipelines that tests run, what they run on, and what must hold of any result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import swann
from swann import Builder, Searcher, SearchResult

N, D, K = 120, 8, 5
# Small integers: every dtype holds them exactly, so every dtype must give the same index.
DB = np.random.default_rng(7).integers(1, 100, (N, D)).astype(np.float32)
QUERIES = np.random.default_rng(8).integers(1, 100, (9, D)).astype(np.float32)
LEAVES = 6


@dataclass(frozen=True)
class Pipeline:
    """One combination of stages; every leaf is searched unless told otherwise."""

    name: str
    tree: bool
    ah: bool
    reorder: bool
    hash_type: str = "lut16"

    def builder(
        self,
        db: object = DB,
        k: Any = K,
        measure: Any = "dot_product",
        tree: dict[str, Any] | None = None,
        ah: dict[str, Any] | None = None,
        reorder: Any = N,
    ) -> Builder:
        """A builder with this pipeline's stages, their settings changed as told."""
        builder = swann.builder(db, k, measure)
        if self.tree:
            leaves = {"num_leaves": LEAVES, "num_leaves_to_search": LEAVES}
            builder.tree(**(leaves | {"min_partition_size": 1} | (tree or {})))
        if self.ah:
            settings = {"dimensions_per_block": 2, "hash_type": self.hash_type}
            builder.score_ah(**(settings | (ah or {})))
        else:
            builder.score_brute_force()
        if self.reorder:
            builder.reorder(reorder)
        return builder

    def build(
        self, db: object = DB, k: Any = K, measure: Any = "dot_product", **rest: Any
    ) -> Searcher:
        """A searcher, as `builder` says."""
        return self.builder(db, k, measure, **rest).build()

    @property
    def exact(self) -> bool:
        """Whether the final scores are exact and nothing is missed when all is searched."""
        return self.reorder or not self.ah


PIPELINES = [
    Pipeline("tree+AH+reorder", tree=True, ah=True, reorder=True),
    Pipeline("AH", tree=False, ah=True, reorder=False),
    Pipeline("brute force", tree=False, ah=False, reorder=False),
    Pipeline("tree+brute force", tree=True, ah=False, reorder=False),
    Pipeline("tree+AH256+reorder", tree=True, ah=True, reorder=True, hash_type="lut256"),
]


class Dlpack:
    """An object that speaks DLPack and nothing else."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def variants(array: NDArray[np.float32]) -> dict[str, Any]:
    """The same numbers in other dtypes, layouts and containers."""
    strided = np.zeros((2 * len(array), 3 * D), np.float32)[::2, ::3]
    strided[:] = array
    read_only = array.copy()
    read_only.setflags(write=False)
    dtypes = ["f8", "f2", "i1", "u1", "i4", "u8", "i8", ">f4", ">f8", ">i2"]
    return {
        **{f"dtype {dtype}": array.astype(dtype) for dtype in dtypes},
        "Fortran order": np.asfortranarray(array),
        "strided": strided,
        "reversed": array[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
        "nested lists": array.tolist(),
        "list of rows": list(array),
        "DLPack": Dlpack(array),
        "memoryview": array.data,
        "Fortran float64": np.asfortranarray(array.astype(np.float64)),
    }


def check_sane(result: SearchResult, n: int, k: int, *, descending: bool = True) -> None:
    """Ids are rows, none twice; padding is -1 and NaN, at the end; the best comes first."""
    indices, distances = np.atleast_2d(result.indices), np.atleast_2d(result.distances)
    assert indices.shape[1:] == distances.shape[1:] == (k,)
    assert indices.dtype == np.int64
    assert distances.dtype == np.float32
    for ids, values in zip(indices, distances, strict=True):
        count = int((ids >= 0).sum())
        assert (ids[count:] == -1).all()
        assert np.isnan(values[count:]).all()
        assert (ids[:count] < n).all()
        assert len(set(ids[:count].tolist())) == count
        assert not np.isnan(values[:count]).any()
        steps = np.diff(values[:count])
        assert (steps <= 0).all() if descending else (steps >= 0).all()


def search_all(
    searcher: Searcher, queries: Any = QUERIES, k: int = K, **options: Any
) -> SearchResult:
    """Search in all three ways, check that they agree, and return what they found."""
    batched = searcher.search_batched(queries, k, **options)
    parallel = searcher.search_batched_parallel(queries, k, **options)
    np.testing.assert_array_equal(batched.indices, parallel.indices)
    np.testing.assert_array_equal(batched.distances, parallel.distances)
    for row, query in enumerate(queries):
        one = searcher.search(query, k, **options)
        np.testing.assert_array_equal(one.indices, batched.indices[row])
        np.testing.assert_array_equal(one.distances, batched.distances[row])
    descending = searcher.config.distance_measure != "squared_l2"
    check_sane(batched, len(searcher), k, descending=descending)
    return batched


def assert_same(a: SearchResult, b: SearchResult) -> None:
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(a.distances, b.distances)

"""A product quantizer on its own is that of an index: codewords and codes, byte for byte."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann.kernels import reference
from swann.quantize import ProductQuantizer

F32 = NDArray[np.float32]
N, D = 1000, 10

DB = np.random.default_rng(0).standard_normal((N, D), dtype=np.float32)
DB *= np.random.default_rng(1).uniform(0.5, 2.0, (N, 1)).astype(np.float32)


def entries(searcher: swann.Searcher) -> tuple[NDArray[np.int64], NDArray[np.int64], F32 | None]:
    """Return the leaf and the codes of every datapoint, and the centroids."""
    packed = searcher._live.view.packed
    assert packed.codes is not None
    codes = reference.unpack_codes(packed.codes)
    starts = packed.leaf_starts.astype(np.int64)
    leaf, found, group = np.empty(N, np.int64), np.empty((N, codes.shape[-1]), np.int64), 0
    for number, (first, last) in enumerate(itertools.pairwise(starts)):
        groups = -(-(last - first) // 32)
        rows = packed.numbers()[first:last]
        leaf[rows] = number
        found[rows] = codes[group : group + groups].reshape(-1, codes.shape[-1])[: last - first]
        group += groups
    return leaf, found, packed.centroids


@pytest.mark.parametrize("threshold", [None, 1.0])
@pytest.mark.parametrize("hash_type", ["lut16", "lut256"])
@pytest.mark.parametrize("leaves", [None, 12])
def test_an_index_has_the_codes_of_a_product_quantizer(
    leaves: int | None, hash_type: str, threshold: float | None
) -> None:
    builder = swann.builder(DB, 10, "dot_product")
    if leaves is not None:
        builder.tree(leaves, leaves)
    searcher = builder.score_ah(3, threshold, hash_type=hash_type).build()
    leaf, codes, centroids = entries(searcher)
    origins = {} if leaves is None else {"origins": centroids, "labels": leaf}
    seed = searcher.config.seed
    quantizer = ProductQuantizer(
        3, codewords=16 if hash_type == "lut16" else 256, threshold=threshold, seed=[seed, 2]
    ).fit(DB, **origins)
    assert quantizer.codebook.tobytes() == searcher._live.view.packed.codebook.tobytes()
    np.testing.assert_array_equal(quantizer.encode(DB, **origins), codes)
    # So scores of the quantizer rank as the index does, but for the rounding of its tables.
    queries = np.random.default_rng(2).standard_normal((50, D), dtype=np.float32)
    scores = quantizer.asymmetric_scores(queries, codes)
    if centroids is not None:
        scores += queries @ centroids[leaf].T
    best = np.argsort(-scores, axis=1)[:, :10]
    found = searcher.search_batched(queries).indices
    same = [len(np.intersect1d(a, b)) / 10 for a, b in zip(best, found, strict=True)]
    assert np.mean(same) > 0.95

"""Changed native indexes that keep codes alone, and merged parts, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_calls import f64, i64, u32
from numpy.typing import NDArray

from swann import _native

DIM, REDUCED, COUNT, LEAVES, WIDTH = 6, 4, 5, 2, 2
LEAF_OF = np.array([0, 0, 1, 1, 1])
RNG = np.random.default_rng(0)
CENTROIDS = 3 * RNG.standard_normal((LEAVES, REDUCED)).astype(np.float32)
PLAIN = (None, 0.0, None, 0.0, 1.0, 1.0, 1.0, 2, None)


class Coded:
    """An index of codes alone: two leaves, four dimensions of six."""

    def __init__(self, words: int, projected: bool, residual: bool, spilled: bool, metric: bool):
        self.residual, self.words = residual, words
        self.book = RNG.standard_normal((REDUCED, words)).astype(np.float32)
        self.basis = np.linalg.qr(RNG.standard_normal((DIM, REDUCED)))[0].T.astype(np.float32)
        if not projected:
            self.basis = np.eye(REDUCED, DIM, dtype=np.float32)
        self.codes = RNG.integers(0, words, (COUNT, REDUCED // WIDTH))
        starts, packed = u32(0, 2, COUNT), np.zeros((2, 2, 16 if words == 16 else 32), np.uint8)
        for row, leaf in enumerate(LEAF_OF):
            packed[leaf, :, row - int(starts[leaf])] = self.codes[row]
        self.index = _native.Index(
            distance="dot_product",
            dim=DIM,
            leaf_starts=starts,
            centroids=CENTROIDS,
            spreads=None,
            ids=u32(*range(COUNT)) if spilled else None,
            entry_rows=u32(*range(COUNT)) if spilled else None,
            rows=None,
            rows_bf16=None,
            rows_i8=None,
            row_scales=None,
            row_squares=None,
            row_labels=None,
            row_origins=None,
            codes=packed,
            codebook=self.book,
            dims_per_block=WIDTH,
            corrections=None,
            correction_low=0.0,
            correction_span=0.0,
            residual=residual,
            reduced_dim=REDUCED,
            projection=self.basis if projected else None,
        )
        same = np.eye(REDUCED, dtype=np.float32)  # a metric that changes nothing
        self.index.begin_updates(*PLAIN, same if metric else None)

    def words_of(self, codes: NDArray[Any]) -> NDArray[Any]:
        return np.array([self.book[j, codes[j // WIDTH]] for j in range(REDUCED)])

    def decoded(self, leaf: int, codes: NDArray[Any]) -> NDArray[Any]:
        return self.words_of(codes) + (CENTROIDS[leaf] if self.residual else 0)

    def nearest(self, target: NDArray[Any]) -> NDArray[Any]:
        """The codes of a vector: in each block the nearest codeword."""
        blocks = (target[:, None] - self.book).reshape(REDUCED // WIDTH, WIDTH, self.words)
        return (blocks**2).sum(axis=1).argmin(axis=1)


@pytest.mark.parametrize("words", [16, 256])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize(("residual", "spilled"), [(True, False), (False, False), (True, True)])
def test_vectors_and_errors(
    words: int, projected: bool, residual: bool, spilled: bool, metric: bool
) -> None:
    coded = Coded(words, projected, residual, spilled, metric)
    index = coded.index
    added = (RNG.standard_normal((40, DIM)) @ coded.basis.T @ coded.basis).astype(np.float32)
    assert index.upsert(added[:38], np.arange(10, 48, dtype=np.uint32), 2) == 38
    for row in (38, 39):  # of a few each is encoded by itself
        assert index.upsert_one(added[row], 10 + row)
    index.erase(u32(1, 12))
    want = [coded.decoded(leaf, codes) for leaf, codes in zip(LEAF_OF, coded.codes, strict=True)]
    leaf_of = list(LEAF_OF)
    for row in added @ coded.basis.T:
        leaf_of.append(((row - CENTROIDS) ** 2).sum(axis=1).argmin())
        target = row - CENTROIDS[leaf_of[-1]] if residual else row
        want.append(coded.decoded(leaf_of[-1], coded.nearest(target)))
    rows = np.arange(COUNT + 40, dtype=np.uint32)
    index.vectors(rows, found := np.zeros((len(rows), DIM), np.float32))
    np.testing.assert_allclose(found, np.array(want) @ coded.basis, rtol=1e-4, atol=1e-5)
    index.errors(0, errors := f64(len(rows)))
    index.errors(COUNT, of_new := f64(40))
    expected = ((np.array(want) - CENTROIDS[leaf_of]) ** 2).sum(axis=1)
    if spilled:  # the second copy, in the other leaf, has codes of its own
        assert (of_new > expected[COUNT:] - 1e-5).all()
        return
    np.testing.assert_allclose(of_new, expected[COUNT:], rtol=1e-4, atol=1e-5)
    expected[[1, COUNT + 2]] = 0  # the dead
    np.testing.assert_allclose(errors, expected, rtol=1e-4, atol=1e-5)


def keys(scores: NDArray[Any], numbers: NDArray[Any]) -> NDArray[np.uint64]:
    high = (scores.astype(np.int32).view(np.uint32) ^ np.uint32(0x80000000)).astype(np.uint64)
    return (high << np.uint64(32)) | (~numbers.astype(np.uint32)).astype(np.uint64)


@pytest.mark.parametrize("candidates", [1, 5, 100])
@pytest.mark.parametrize("threads", [1, 3])
def test_merged_parts(candidates: int, threads: int) -> None:
    """The best candidates by first keys; of these each datapoint once, by its best last key."""
    rng = np.random.default_rng(1)
    count, k, parts, wants = 150, 4, [], []
    found: list[list[tuple[int, int, int, float]]] = [[] for _ in range(count)]
    for part in range(3):
        queries = np.flatnonzero(rng.random(count) < 0.7).astype(np.uint32)
        width = 3 + 2 * part
        order = rng.permuted(np.tile(np.arange(1000), (len(queries), 1)), axis=1)[:, :width]
        first = keys(rng.integers(-50, 50, order.shape), 1000 * part + order)
        numbers, scores = rng.integers(0, 12, order.shape), rng.integers(-9, 9, order.shape)
        last, far = keys(scores, numbers), rng.random(order.shape, np.float32)
        short = rng.integers(0, width + 1, len(queries))
        first[np.arange(width) >= short[:, None]] = 0
        parts.append((queries, first, last, far))
        for q, n, a, b, c, d in zip(queries, short, first, last, numbers, far, strict=True):
            found[q] += [(int(a[i]), int(b[i]), int(c[i]), float(d[i])) for i in range(n)]
    ids, distances = i64(count, k), np.zeros((count, k), np.float32)
    _native.merge(parts, candidates, threads, ids, distances)
    for q in range(count):
        best = sorted(sorted(found[q], reverse=True)[:candidates], key=lambda f: -f[1])
        once = list({number: None for _, _, number, _ in best})[:k]
        wants.append(once + [-1] * (k - len(once)))
        assert np.isnan(distances[q]).sum() == k - len(once)
        for number, far_off in zip(once, distances[q], strict=False):
            last_key = max(f[1] for f in best if f[2] == number)
            assert far_off in {np.float32(f[3]) for f in best if f[1] == last_key}
    assert ids.tolist() == wants

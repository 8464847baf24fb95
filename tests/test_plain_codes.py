"""Codes of whole datapoints under a tree, as ScaNN has them under squared l2."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pipelines import DB, QUERIES, K, assert_same, search_all

import swann
from swann import FormatVersionError, Searcher
from swann.index.packed import PackedIndex

MEASURES = ["dot_product", "squared_l2", "cosine"]


def unpacked(codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The codes [entries][blocks] of packed ones."""
    groups, blocks, _ = codes.shape
    each = np.concatenate([codes & 15, codes >> 4], axis=2).transpose(0, 2, 1)
    starts = np.concatenate([[0], np.cumsum(-(-sizes // 32) * 32)])
    kept = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, sizes, strict=False)])
    return each.reshape(groups * 32, blocks)[kept]


def packed(codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    groups, begin = [], 0
    for size in sizes:
        padded = np.zeros((-(-int(size) // 32) * 32, codes.shape[1]), np.uint8)
        padded[:size] = codes[begin : begin + size]
        begin += size
        both = padded.reshape(-1, 2, 16, codes.shape[1])
        groups.append((both[:, 0] | both[:, 1] << 4).transpose(0, 2, 1))
    return np.ascontiguousarray(np.concatenate(groups))


def pair(measure: str, reorder: bool) -> tuple[Searcher, Searcher]:
    """A searcher without a tree, and one with the same codes in the leaves of a tree."""
    plain = swann.builder(DB, K, measure).score_ah(2)  # type: ignore[arg-type]
    tree = (
        swann.builder(DB, K, measure)  # type: ignore[arg-type]
        .tree(6, 2, min_partition_size=1)
        .score_ah(2)
    )
    if reorder:
        plain, tree = plain.reorder(len(DB)), tree.reorder(len(DB))
    flat, leaved = plain.build(), tree.build()
    a, b = flat._index, leaved._index
    assert a.codes is not None
    codes = unpacked(a.codes, np.array([len(DB)]))
    moved = dataclasses.replace(
        b,
        codebook=a.codebook,
        codes=packed(codes[b.ids], np.diff(b.leaf_starts.astype(int))),
        corrections=None,
        code_center=None,
        correction_low=0.0,
        correction_span=0.0,
        residual=False,
    )
    return flat, Searcher(moved)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("reorder", [False, True])
def test_leaves_only_choose_what_is_scored(measure: str, reorder: bool) -> None:
    flat, leaved = pair(measure, reorder)
    everything = flat.search_batched(QUERIES, len(DB))
    distance = np.empty((len(QUERIES), len(DB)), np.float32)
    np.put_along_axis(distance, everything.indices, everything.distances, axis=1)
    for leaves in (2, 6):
        found = search_all(leaved, leaves_to_search=leaves)
        same = np.take_along_axis(distance, found.indices, axis=1)
        np.testing.assert_array_equal(found.distances, same)
    np.testing.assert_array_equal(found.distances, everything.distances[:, :K])


@pytest.mark.parametrize("measure", MEASURES)
def test_the_store_keeps_them_and_says_so(measure: str, tmp_path: Path) -> None:
    _, leaved = pair(measure, reorder=False)
    leaved.serialize(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["features"] == ["plain_codes"]
    again = swann.load_searcher(tmp_path)
    assert not again._index.residual
    assert_same(search_all(leaved), search_all(again))


@pytest.mark.parametrize(
    ("measure", "features"),
    [("cosine", ["code_center", "corrected"]), ("squared_l2", ["code_center"])],
)
def test_residual_codes_need_no_feature_of_their_own(
    measure: str, features: list[str], tmp_path: Path
) -> None:
    swann.builder(DB, K, measure).tree(6, 2).score_ah(2).build().serialize(tmp_path)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "manifest.json").read_text())["features"] == features
    assert swann.load_searcher(tmp_path)._index.residual


def test_corrections_are_of_residuals() -> None:
    index = swann.builder(DB, K, "squared_l2").tree(6, 2).score_ah(2).build()._index
    assert isinstance(index, PackedIndex)
    with pytest.raises(ValueError, match="corrections"):
        dataclasses.replace(index, residual=False)


def test_unhashable_features_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": "swann", "version": 1, "features": [{}]}')
    with pytest.raises(FormatVersionError, match="features"):
        swann.load_searcher(tmp_path)


def test_the_build_chooses_what_loses_less() -> None:
    """Values that are all alike are hit exactly; a centroid would only blur them."""
    rng = np.random.default_rng(5)
    alike = rng.choice([0.0, 0.0, 0.0, 1.0, 2.0], (3000, 16)).astype(np.float32)
    spread = rng.standard_normal((3000, 16), dtype=np.float32) + 5 * rng.standard_normal(
        (10, 16), dtype=np.float32
    ).repeat(300, axis=0)

    def residual(db: NDArray[np.float32], measure: Any) -> bool:
        builder = swann.builder(db, K, measure).tree(12, 4).score_ah(2)
        return bool(builder.build()._index.residual)

    assert not residual(alike, "squared_l2")
    assert residual(spread, "squared_l2")
    # What a centroid scores is exact under dot products: residuals always pay.
    assert residual(alike, "dot_product")

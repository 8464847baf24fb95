"""Sample queries shape the loss: where they pay and where not, and what they taught stays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann import kernels
from swann.autopilot.tune import _keep_back
from swann.errors import (
    ConfigError,
    DTypeError,
    NonFiniteError,
    ShapeError,
    SwannError,
    ZeroVectorError,
)
from swann.index.building.learned import Learned
from swann.index.packed import PackedIndex
from swann.index.updates import folded
from swann.quantize.metric import QueryModel, map_rows, unmap_rows

F32 = NDArray[np.float32]
N, D = 3000, 24


def _data(seed: int = 0) -> tuple[F32, F32, F32]:
    """Datapoints, training queries and others: these vary along a few directions of their own."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((D, D)))[0]
    db = rng.standard_normal((N, D)) * rng.uniform(0.7, 1.3, (N, 1))
    queries = (rng.standard_normal((1300, D)) * np.geomspace(4.0, 0.05, D)) @ turn
    return (
        db.astype(np.float32),
        queries[:1000].astype(np.float32),
        queries[1000:].astype(np.float32),
    )


DB, TRAIN, TEST = _data()


def _builder(db: F32 = DB, measure: str = "dot_product", reorder: int = 0, **tree: object):  # type: ignore[no-untyped-def]
    made = swann.builder(db, 10, measure)  # type: ignore[arg-type]
    made.tree(40, 6, **tree).score_ah(2, 1.0)
    return made.reorder(reorder) if reorder else made


@pytest.fixture(scope="module")
def learned() -> swann.Searcher:
    return _builder().build(training_queries=TRAIN)


def _packed(searcher: swann.Searcher) -> PackedIndex:
    return searcher._live.view.packed


def _recall(searcher: swann.Searcher, leaves: int, candidates: int | None = None) -> float:
    true = np.argsort(-TEST @ DB.T, axis=1, kind="stable")[:, :10]
    found = searcher.search_batched(TEST, 10, candidates, leaves).indices
    return float(
        np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(true, found, strict=True)])
    )


def test_queries_of_their_own_kind_are_answered_better(learned: swann.Searcher) -> None:
    assert _packed(learned).tree_map is not None
    assert _packed(learned).code_metric is not None
    assert _recall(learned, 40) > _recall(_builder().build(), 40) + 0.1  # codes
    plain = _builder(reorder=200).build()
    better = _builder(reorder=200).build(training_queries=TRAIN)
    assert _recall(better, 4, 200) > _recall(plain, 4, 200) + 0.1  # leaves


def test_queries_like_the_datapoints_change_nothing() -> None:
    rows = np.random.default_rng(1).standard_normal((N + 1000, D), dtype=np.float32)
    plain = _builder(rows[:N], "cosine").build()
    taught = _builder(rows[:N], "cosine").build(training_queries=rows[N:])
    assert _packed(taught).arrays().keys() == _packed(plain).arrays().keys()
    for name, array in _packed(plain).arrays().items():
        np.testing.assert_array_equal(_packed(taught).arrays()[name], array)


@pytest.mark.parametrize("threads", [2, 5])
def test_any_number_of_threads_learns_the_same(learned: swann.Searcher, threads: int) -> None:
    again = _builder().set_n_training_threads(threads).build(training_queries=TRAIN)
    assert _packed(again).arrays().keys() == _packed(learned).arrays().keys()
    for name, array in _packed(learned).arrays().items():
        np.testing.assert_array_equal(_packed(again).arrays()[name], array)


def test_lengths_of_queries_do_not_matter(learned: swann.Searcher) -> None:
    lengths = 2.0 ** np.random.default_rng(2).integers(-8, 8, (len(TRAIN), 1))
    again = _builder().build(training_queries=TRAIN * lengths)
    np.testing.assert_array_equal(_packed(again).codes, _packed(learned).codes)


# ---- What was learned stays


def test_it_survives_the_disk(learned: swann.Searcher, tmp_path: Path) -> None:
    learned.serialize(tmp_path)
    assert "learned" in json.loads((tmp_path / "manifest.json").read_text())["features"]
    loaded = swann.load_searcher(tmp_path)
    for name in ("tree_map", "code_metric"):
        np.testing.assert_array_equal(
            getattr(_packed(loaded), name), getattr(_packed(learned), name)
        )
    np.testing.assert_array_equal(
        loaded.search_batched(TEST).indices, learned.search_batched(TEST).indices
    )


def _encoded(packed: PackedIndex) -> NDArray[np.int64]:
    """Return datapoint, leaf and codes of every entry, sorted."""
    starts = packed.leaf_starts.astype(np.int64)
    sizes = np.diff(starts)
    leaf = np.repeat(np.arange(len(sizes)), sizes)
    groups = np.concatenate([[0], np.cumsum(-(-sizes // 32))])
    at = 32 * groups[leaf] + np.arange(starts[-1]) - starts[leaf]
    assert packed.codes is not None
    halves = np.concatenate([packed.codes & 15, packed.codes >> 4], axis=2)
    codes = halves.transpose(0, 2, 1).reshape(-1, halves.shape[1])[at]
    rows = np.arange(starts[-1]) if packed.entry_rows is None else packed.entry_rows
    table = np.column_stack([packed.numbers()[rows], leaf, codes]).astype(np.int64)
    return table[np.lexsort(table.T[::-1])]


@pytest.mark.parametrize("tree", [{}, {"soar_lambda": 1.0}], ids=["plain", "soar"])
@pytest.mark.parametrize("threshold", [1.0, None])
def test_new_datapoints_are_encoded_as_a_build_does(
    tree: dict[str, float], threshold: float | None
) -> None:
    builder = swann.builder(DB, 10, "dot_product").tree(40, 6, **tree).score_ah(2, threshold)
    searcher = builder.build(training_queries=TRAIN)
    built = _encoded(_packed(searcher))
    searcher.upsert(list(range(1000)), DB[:1000])  # together
    for row in range(1000, 1200):  # and alone
        searcher.upsert([row], DB[row : row + 1])
    np.testing.assert_array_equal(_encoded(folded(_packed(searcher))), built)


def test_together_or_alone_they_get_the_same_codes_with_avq() -> None:
    tables = []
    for step in (300, 1):
        searcher = _builder(avq=2.0).build(training_queries=TRAIN)
        assert _packed(searcher).tree_map is not None
        for row in range(0, 300, step):
            searcher.upsert(list(range(row, row + step)), DB[row : row + step])
        tables.append(_encoded(folded(_packed(searcher))))
    np.testing.assert_array_equal(*tables)


def test_rebalancing_keeps_it() -> None:
    searcher = _builder(reorder=50).build(training_queries=TRAIN)
    before = _packed(searcher)
    searcher.rebalance()
    after = _packed(searcher)
    assert after is not before
    for name, array in before.arrays().items():
        np.testing.assert_array_equal(after.arrays()[name], array)


def test_rebalancing_keeps_it_behind_a_projection() -> None:
    searcher = _builder(reorder=50).pca(16).build(training_queries=TRAIN)
    before = _recall(searcher, 40, 20)
    assert _packed(searcher).code_metric is not None
    searcher.upsert(None, DB[:5] + np.float32(0.01))
    searcher.delete(list(range(N, N + 5)))
    searcher.rebalance()
    assert _packed(searcher).code_metric is not None
    assert _recall(searcher, 40, 20) > before - 0.03


def test_leaves_that_grow_are_split_in_the_learned_space() -> None:
    half = DB[: N // 2]
    searcher = _builder(half, incremental_threshold=0.2, reorder=50).build(training_queries=TRAIN)
    leaves = _packed(searcher).num_leaves
    searcher.upsert(None, DB[N // 2 :])
    searcher.upsert(None, np.repeat(DB[:1], 400, axis=0))
    searcher.delete(list(range(N, N + 400)))
    packed = _packed(searcher)
    assert packed.num_leaves > leaves
    assert packed.tree_map is not None
    assert packed.centroids is not None
    entries = _encoded(folded(packed))
    nearest, _ = kernels.assign_leaves(
        map_rows(DB, packed.tree_map), map_rows(packed.centroids, packed.tree_map), 1
    )
    assert (nearest[entries[:, 0]] == entries[:, 1]).mean() > 0.95
    plain = _builder(reorder=50).build()
    assert _recall(searcher, 4, 50) > _recall(plain, 4, 50)


# ---- Beside other settings


@pytest.mark.parametrize("hash_type", ["lut16", "lut256"])
def test_codes_alone(hash_type: str) -> None:
    builder = swann.builder(DB, 10, "dot_product").score_ah(3, 1.0, hash_type=hash_type)
    plain, taught = builder.build(), builder.build(training_queries=TRAIN)
    assert _packed(taught).tree_map is None
    assert _recall(taught, 1) > _recall(plain, 1)


def test_without_a_threshold_codes_learn_too() -> None:
    builder = swann.builder(DB, 10, "dot_product").score_ah(2)
    assert _recall(builder.build(training_queries=TRAIN), 1) > _recall(builder.build(), 1) + 0.1


def test_brute_force_has_nothing_to_learn() -> None:
    searcher = (
        swann.builder(DB, 10, "dot_product").score_brute_force().build(training_queries=TRAIN)
    )
    assert _recall(searcher, 1) == 1.0


def test_few_queries_teach_nothing() -> None:
    assert _packed(_builder().build(training_queries=TRAIN[:79])).tree_map is None


def test_autopilot_measures_with_them() -> None:
    db = np.random.default_rng(3).standard_normal((30000, D), dtype=np.float32)
    searcher = swann.build(db, training_queries=TRAIN, target_recall=0.9, num_threads=2)
    assert searcher.config.autopilot is not None
    assert "on 200 sample queries" in searcher.config.autopilot.reasons[-1]
    true = np.argsort(-TEST @ db.T, axis=1, kind="stable")[:, :10]
    found = searcher.search_batched(TEST).indices
    hits = [len(np.intersect1d(a, b)) / 10 for a, b in zip(true, found, strict=True)]
    assert np.mean(hits) > 0.87


def test_squared_l2_is_refused_but_for_measuring() -> None:
    with pytest.raises(ConfigError, match="training_queries teach nothing under squared_l2"):
        _builder(DB, "squared_l2").build(training_queries=TRAIN)
    searcher = swann.build(DB[:500], 10, "squared_l2", training_queries=TRAIN)
    assert searcher.size() == 500


@pytest.mark.parametrize(
    ("queries", "error", "words"),
    [
        (TRAIN[:, :-1], ShapeError, "training_queries"),
        (TRAIN[0], ShapeError, "training_queries"),
        (TRAIN[:0], ShapeError, "training_queries have no rows"),
        (
            np.where(np.arange(1000)[:, None] == 7, np.nan, TRAIN),
            NonFiniteError,
            "training_queries",
        ),
        (np.full((100, D), 1e30), SwannError, "training_queries"),
        ([["a"] * D], DTypeError, "training_queries"),
    ],
    ids=["dimension", "one", "empty", "nan", "long", "text"],
)
def test_bad_queries_are_refused(queries: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        _builder().build(training_queries=queries)


def test_a_zero_query_is_refused_under_cosine_only() -> None:
    queries = TRAIN.copy()
    queries[3] = 0.0
    with pytest.raises(ZeroVectorError, match=r"training_queries"):
        _builder(DB, "cosine").build(training_queries=queries)
    assert _packed(_builder().build(training_queries=queries)).tree_map is not None


# ---- The parts


def test_codes_reach_a_loss_that_no_block_can_lower() -> None:
    rng = np.random.default_rng(4)
    count, width, words = 40, 2, 16
    root = rng.standard_normal((D, D)) * 0.3 + np.eye(D)
    metric = (root @ root.T).astype(np.float32)
    rows = rng.standard_normal((count, D)).astype(np.float32)
    weights = rng.uniform(0, 4, count).astype(np.float32)
    codebook = rng.standard_normal((D, words)).astype(np.float32)
    directions, norms = kernels.metric_directions(rows, metric, 1)
    exact = np.sqrt(np.einsum("ij,jk,ik->i", rows, metric.astype(np.float64), rows))
    np.testing.assert_allclose(norms, exact, rtol=1e-5)
    np.testing.assert_allclose(directions, rows @ metric / exact[:, None], rtol=1e-4, atol=1e-5)

    def codes(sweeps: int) -> NDArray[np.uint8]:
        packed = np.zeros((2, D // width, 16), np.uint8)
        places = np.arange(count, dtype=np.uint64)
        leaves = np.zeros(count, np.uint32)
        kernels.pack_codes(
            rows, weights, None, leaves, places, codebook, width, sweeps, packed, None, 1,
            metric=metric, directions=directions,
        )  # fmt: skip
        whole = np.concatenate([packed & 15, packed >> 4], axis=2)
        return np.ascontiguousarray(whole.transpose(0, 2, 1).reshape(64, -1)[:count])

    def loss(chosen: NDArray[np.uint8]) -> NDArray[np.float64]:
        every = np.arange(D)
        errors = rows - codebook[every, chosen[:, every // width]].astype(np.float64)
        along = np.einsum("ij,ij->i", errors, directions)
        return np.einsum("ij,jk,ik->i", errors, metric, errors) + weights * along**2

    found = codes(50)
    reached = loss(found)
    assert (reached <= loss(codes(0)) * (1 + 1e-5)).all()
    assert reached.mean() < 0.7 * loss(codes(0)).mean()
    for block in range(D // width):
        for word in range(words):
            other = found.copy()
            other[:, block] = word
            assert (loss(other) >= reached * (1 - 1e-4)).all()


def test_moments_are_shrunk_the_more_the_fewer_queries_there_are() -> None:
    unit = TRAIN / np.linalg.norm(TRAIN, axis=1, keepdims=True)
    shares = [QueryModel(unit[:m]).shrinkage for m in (1, 10, 100, 1000)]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.02
    mapped = QueryModel(unit).tree_map(1.0)
    moments = unit.T @ unit
    moments = 0.98 * moments / np.trace(moments) * D + 0.02 * np.eye(D)
    np.testing.assert_allclose(mapped.T @ mapped, moments, atol=1e-4)
    np.testing.assert_allclose(unmap_rows(map_rows(DB, mapped), mapped), DB, atol=1e-4)


def test_the_metric_keeps_lengths_on_average() -> None:
    unit = TRAIN / np.linalg.norm(TRAIN, axis=1, keepdims=True)
    metric = QueryModel(unit).code_metric(0.5, DB)
    np.testing.assert_array_equal(metric, metric.T)
    lengths = np.einsum("ij,jk,ik->i", DB, metric, DB)
    np.testing.assert_allclose(lengths.sum(), (DB**2).sum(), rtol=1e-4)


def test_what_was_learned_moves_between_spaces() -> None:
    unit = TRAIN / np.linalg.norm(TRAIN, axis=1, keepdims=True)
    basis = np.linalg.qr(np.random.default_rng(5).standard_normal((D, D)))[0][:8].astype(np.float32)
    model = QueryModel(np.ascontiguousarray(unit @ basis.T))
    taught = Learned(model.tree_map(1.0), model.code_metric(0.5, DB @ basis.T))
    whole = taught.lifted(basis, D)
    assert whole.tree_map is not None and whole.code_metric is not None  # noqa: PT018
    assert whole.code_metric.shape == (D, D)
    back = whole.reduced(lambda rows: np.ascontiguousarray(rows @ basis.T))
    assert back.tree_map is not None and back.code_metric is not None  # noqa: PT018
    assert taught.tree_map is not None and taught.code_metric is not None  # noqa: PT018
    same = taught.tree_map.T @ taught.tree_map
    np.testing.assert_allclose(back.tree_map.T @ back.tree_map, same, atol=0.1)
    np.testing.assert_allclose(back.code_metric, taught.code_metric, atol=0.05)
    assert Learned().lifted(basis, D) == Learned()


@pytest.mark.parametrize("count", [999, 1000, 1003])
def test_what_is_measured_with_was_not_trained_on(count: int) -> None:
    queries = np.arange(count, dtype=np.float32)[:, None]
    trained, measured = (set(part.ravel().tolist()) for part in _keep_back(queries))
    assert trained | measured == set(range(count))
    if count < 1000:  # few do both
        assert trained == measured
    else:
        assert not trained & measured
        assert len(measured) == count // 5

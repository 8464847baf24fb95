"""Settings that nobody chose: what suits a size, what measuring finds, and growing out of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import swann
from swann import AHConfig, BruteForceConfig, ConfigError, IncrementalMode, ReorderType, ShapeError
from swann.autopilot import choose_config, outgrown, tune
from swann.autopilot.measure import rows_only

sizes, dimensions = st.integers(0, 10**8), st.integers(1, 4096)
measures = st.sampled_from(["dot_product", "squared_l2", "cosine"])


def clustered(n: int, d: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((40, d))
    rows = centers[rng.integers(0, 40, n)] + 0.7 * rng.standard_normal((n, d))
    return rows.astype(np.float32)


def same(one: swann.Searcher, other: swann.Searcher, queries: NDArray[np.float32]) -> bool:
    found = zip(one.search_batched(queries), other.search_batched(queries), strict=True)
    return all(np.array_equal(a, b) for a, b in found)


def stage(config: swann.IndexConfig) -> int:
    if config.tree is not None:
        return 2
    return int(isinstance(config.score, AHConfig))


@given(sizes, dimensions, measures, st.integers(1, 1000))
def test_every_size_has_settings_that_build(n: int, d: int, measure: Any, k: int) -> None:
    config = choose_config(n, d, measure, k)
    assert swann.IndexConfig.from_dict(config.to_dict()) == config
    if isinstance(config.score, AHConfig):
        config.score.check_dimension(d)
    assert not outgrown(config, n, d)
    assert stage(choose_config(2 * n, d, measure, k)) >= stage(config)


@given(st.integers(1, 10**7), dimensions)
def test_no_flapping(n: int, d: int) -> None:
    """What was chosen for a size is not outgrown by a tenth more or less."""
    config = choose_config(n, d, "cosine")
    for near in (n * 11 // 10, n * 10 // 11):
        assert not outgrown(config, near, d)


def test_the_threshold_belongs_to_the_dimension_and_the_length() -> None:
    def threshold(d: int, length: float) -> float:
        score = choose_config(10**6, d, "dot_product", row_length=length).score
        assert isinstance(score, AHConfig)
        return score.anisotropic_quantization_threshold

    assert threshold(768, 1.0) < threshold(100, 1.0) < 0.2
    assert threshold(100, 7.0) == pytest.approx(7 * threshold(100, 1.0))


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
def test_the_target_is_reached_on_other_queries(measure: Any) -> None:
    rows = clustered(12_500, 96)
    db, queries = rows[:12_000], rows[12_000:]
    searcher = swann.build(db, 10, measure)
    assert searcher.config.tree is not None
    true = swann.exact_neighbors(db, queries, 10, measure)
    assert swann.recall(searcher.search_batched(queries).indices, true.indices) >= 0.95
    settings = searcher.config.autopilot
    assert settings is not None
    assert any("leaves to search" in reason for reason in settings.reasons)


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2", "cosine"])
@pytest.mark.parametrize("copies", [2, 10, 40])
@pytest.mark.parametrize("near", [True, False], ids=["clusters", "no clusters"])
def test_copies_are_left_out_with_what_stands_in_for_a_query(
    measure: Any, copies: int, near: bool
) -> None:
    """Else its nearest is a copy of itself, in its own leaf, and one leaf seems to be enough."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((100, 16), dtype=np.float32)

    def draw(n: int) -> NDArray[np.float32]:
        rows = rng.standard_normal((n, 16), dtype=np.float32)
        return centers[rng.integers(100, size=n)] + np.float32(0.3) * rows if near else rows

    db = np.repeat(draw(40_000 // copies), copies, axis=0)
    db, queries = db[rng.permutation(len(db))], draw(500)
    searcher = swann.build(db, 10, measure)
    true = swann.exact_neighbors(db, queries, 10, measure)
    found = searcher.search_batched(queries)
    assert swann.recall_with_ties(found.distances, true.distances, measure) >= 0.92
    settings = searcher.config.autopilot
    assert settings is not None
    assert "400 datapoints as queries" in settings.reasons[-1]


@pytest.mark.parametrize("measure", ["squared_l2", "cosine"])
@pytest.mark.parametrize("copies", [8, 20, 100])
def test_what_is_almost_a_copy_is_left_out_too(measure: Any, copies: int) -> None:
    rows = clustered(40_000 // copies + 500, 48)
    db, queries = np.repeat(rows[:-500], copies, axis=0), rows[-500:]
    noise = np.random.default_rng(0).standard_normal(db.shape, dtype=np.float32)
    db += np.float32(1e-3) * noise
    searcher = swann.build(db, 10, measure)
    true = swann.exact_neighbors(db, queries, 10, measure)
    assert swann.recall(searcher.search_batched(queries).indices, true.indices) >= 0.92


@pytest.mark.parametrize("few", [1, 2, 5])
def test_a_few_sample_queries_are_not_relied_on_alone(few: int) -> None:
    rows = clustered(12_500, 96)
    db, queries = rows[:12_000], rows[12_000:]
    true = swann.exact_neighbors(db, queries, 10, "cosine")
    builder = swann.builder(db, 10, "cosine").autopilot(sample_queries=queries[:few])
    searcher = builder.build()
    assert swann.recall(searcher.search_batched(queries).indices, true.indices) >= 0.95
    settings = searcher.config.autopilot
    assert settings is not None
    assert f"on {few} sample queries, recall 10@10 of" in settings.reasons[-1]
    assert "400 datapoints as queries" in settings.reasons[-1]


def test_many_sample_queries_are() -> None:
    rows = clustered(12_500, 96)
    builder = swann.builder(rows[:12_000], 10, "cosine").autopilot(sample_queries=rows[12_000:])
    settings = builder.build().config.autopilot
    assert settings is not None
    assert "datapoints as queries" not in settings.reasons[-1]


def test_a_warning_where_the_target_is_out_of_reach() -> None:
    """Rows that lie far from zero and near each other are alike in 8 bits."""
    rows = clustered(12_000, 96) + np.float32(2_000)
    with pytest.warns(swann.RecallWarning, match="less than target_recall 0.95.*float32") as told:
        searcher = swann.build(rows, 10, "squared_l2", quantize=ReorderType.BFLOAT16)
    settings = searcher.config.autopilot
    assert settings is not None
    assert "short of the target" in settings.reasons[-1]
    assert told[0].filename == __file__


def test_what_has_too_many_copies_does_not_stand_in() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((15_000, 16), dtype=np.float32)
    db = np.concatenate([rows, np.zeros((15_000, 16), np.float32)])
    settings = swann.build(db, 10, "squared_l2").config.autopilot
    assert settings is not None
    measured = re.findall(r"on (\d+) datapoints as queries", settings.reasons[-1])
    assert 150 < int(measured[0]) < 250


def narrow(n: int, d: int) -> NDArray[np.float32]:
    """Rows that vary in a tenth of their dimensions, turned, and a little in all."""
    rng = np.random.default_rng(5)
    rows = clustered(n, d // 10) @ rng.standard_normal((d // 10, d))
    return (rows + 0.3 * rng.standard_normal((n, d))).astype(np.float32)


@pytest.mark.parametrize("measure", ["squared_l2", "cosine", "dot_product"])
def test_fewer_dimensions_where_the_data_vary_in_few(measure: Any, tmp_path: Path) -> None:
    rows = narrow(6_200, 200)
    db, queries = rows[:6_000], rows[6_000:]
    searcher = swann.build(db, distance_measure=measure)
    projection = searcher.config.projection
    if measure == "dot_product":  # whose queries often look elsewhere
        assert projection is None
        return
    kept = searcher._index.reduced_dim
    assert kept < 80
    assert f"{kept} of 200 dimensions kept" in searcher.config.autopilot.reasons  # type: ignore
    exact = swann.builder(db, 10, measure).score_brute_force().build().search_batched(queries)
    found = searcher.search_batched(queries)
    assert swann.evaluate.recall(found.indices, exact.indices) > 0.93
    searcher.upsert(None, db[:3])
    searcher.serialize(tmp_path)
    assert swann.load_searcher(tmp_path).config.projection == projection
    # Not where queries are known, nor where leaves grow for ever; nor of data that vary in all.
    known = swann.builder(db, 10, measure).autopilot(sample_queries=queries).build()
    grown = swann.builder(db, 10, measure).autopilot(IncrementalMode.ONLINE_INCREMENTAL).build()
    assert known.config.projection is None
    assert grown.config.projection is None
    even = np.random.default_rng(3).standard_normal((5_000, 200), dtype=np.float32)
    assert not swann.build(even, distance_measure=measure)._index.projects


@pytest.mark.parametrize("dear", [True, False])
def test_a_projection_that_needs_many_candidates_has_to_be_cheaper(
    dear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "_MANY_EACH", 0)  # any number is doubted
    monkeypatch.setattr(tune, "_PROJECTED_VALUE", 1e6 if dear else -1e6)
    searcher = swann.build(narrow(6_000, 200), 10, "cosine")
    settings = searcher.config.autopilot
    assert settings is not None
    told = any("all dimensions: with fewer" in reason for reason in settings.reasons)
    assert told is dear
    assert searcher._index.projects is not dear


def test_codes_that_cost_more_than_rows_are_dropped(tmp_path: Path) -> None:
    db = clustered(21_000, 8)
    db *= np.exp(2 * np.random.default_rng(1).standard_normal((len(db), 1)))
    searcher = swann.build(db, 10, "squared_l2")
    assert searcher.config.autopilot is not None
    assert searcher.config.autopilot.reasons[-2].startswith("codes dropped")
    searcher.save(tmp_path)
    assert same(swann.load(tmp_path, verify="full"), searcher, db[:20])


@pytest.mark.parametrize("measure", ["squared_l2", "cosine", "dot_product"])
def test_what_belongs_to_codes_is_dropped_with_them(measure: Any, tmp_path: Path) -> None:
    """Of an index without codes no manifest may list it."""
    db = clustered(2000, 8)
    db += 5  # near each other: codes have corrections under cosine, too
    builder = swann.builder(db, 10, measure).tree(20, 5).score_ah(1).reorder(50)
    packed = builder.build()._index
    assert (packed.code_center is None) is (measure == "dot_product")
    searcher = swann.Searcher(rows_only(packed))
    searcher.save(tmp_path)
    assert same(swann.load(tmp_path, verify="full"), searcher, db[:20])


def test_a_higher_target_costs_more() -> None:
    db = clustered(12_000, 96)
    leaves = []
    for target in (0.7, 0.9, 0.99):
        searcher = swann.builder(db, 10, "cosine").autopilot(target_recall=target).build()
        assert searcher.config.tree is not None
        leaves.append(searcher.config.tree.num_leaves_to_search)
    assert leaves == sorted(leaves)
    assert leaves[0] < leaves[-1]


def test_threads_change_nothing() -> None:
    db = clustered(12_000, 96)
    built = [
        swann.builder(db, 10, "cosine").autopilot().set_n_training_threads(threads).build()
        for threads in (1, 3)
    ]
    assert built[0].config == built[1].config
    for name, array in built[0]._index.arrays().items():
        np.testing.assert_array_equal(array, built[1]._index.arrays()[name])


@pytest.mark.parametrize(
    ("n", "d"),
    [(0, 3), (1, 1), (2, 1), (3, 2), (50, 3), (5000, 1), (5000, 2), (5000, 3), (20, 1536)],
)
def test_odd_shapes(n: int, d: int) -> None:
    db = np.random.default_rng(n).standard_normal((n, d)).astype(np.float32)
    searcher = swann.build(db, 5, "squared_l2")
    assert len(searcher) == n
    true = swann.exact_neighbors(db, db[:20], 5, "squared_l2")
    found = searcher.search_batched(db[:20])
    if n:
        assert swann.recall_with_ties(found.distances, true.distances, "squared_l2") >= 0.9


def test_all_rows_alike() -> None:
    searcher = swann.build(np.ones((6000, 300), np.float32), 5, "squared_l2")
    assert (searcher.search(np.ones(300)).distances == 0).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda b: b.autopilot().tree(5, 2), ConfigError, "autopilot chooses all stages"),
        (lambda b: b.score_ah(2).autopilot(), ConfigError, "autopilot chooses all stages"),
        (lambda b: b.autopilot().autopilot(), ConfigError, "already called"),
        (lambda b: b.autopilot("SOMETIMES"), ConfigError, "mode is 'SOMETIMES'"),
        (lambda b: b.autopilot(target_recall=0), ConfigError, "target_recall is 0"),
        (lambda b: b.autopilot(sample_queries=np.ones((3, 5))), ShapeError, "5 dimensions"),
        (lambda b: b.autopilot(sample_queries=np.ones((0, 8))), ShapeError, "no rows"),
    ],
)
def test_bad_settings(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(swann.builder(np.ones((9, 8), np.float32), 2, "cosine"))


def test_an_index_outgrows_its_settings_and_shrinks_back() -> None:
    """From nothing to brute force, to a tree and back, by itself; no datapoint is lost."""
    rows = clustered(9_000, 160)
    builder = swann.builder(rows[:0], 5, "squared_l2")
    searcher = builder.autopilot(IncrementalMode.ONLINE, ReorderType.FLOAT32).build()
    seen = []
    for first in range(0, 9_000, 1500):
        searcher.upsert(None, rows[first : first + 1500])
        seen.append(stage(searcher.config))
    assert seen[0] == 0
    assert seen[-1] == 2
    assert len(searcher) == 9_000
    found = searcher.search_batched(rows[::90], leaves_to_search=10**6)
    assert (found.indices[:, 0] == np.arange(0, 9_000, 90)).mean() > 0.98
    searcher.delete(np.arange(1_500, 9_000))
    assert isinstance(searcher.config.score, BruteForceConfig)
    assert searcher.search(rows[7]).indices[0] == 7


def test_without_a_mode_nothing_happens_by_itself() -> None:
    rows = clustered(9_000, 160)
    searcher = swann.builder(rows[:10], 5, "squared_l2").autopilot().build()
    searcher.upsert(None, rows[10:])
    assert stage(searcher.config) == 0
    searcher.rebalance()  # chooses again
    assert stage(searcher.config) == 2

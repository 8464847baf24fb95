"""The paper's experiments in small: every function on made-up data, no claim about its figures."""

from __future__ import annotations

import doctest
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.exact import exact_neighbors
from benchmarks.paper import measures, page, product, store
from benchmarks.paper.experiment import Experiment, Verdict
from benchmarks.paper.experiments import (
    all_experiments,
    figure_2,
    figure_3b,
    figure_4a,
    figure_5,
    ivf_pq,
    known_queries,
    recipe,
    table_1,
    table_2,
)
from benchmarks.paper.lab import Data, Lab, cut
from benchmarks.paper.planes import baselines


def small(folder: Path, name: str) -> Data:
    """Clustered unit vectors of 24 dimensions; lengths differ where they do in the real set."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 24))
    rows = centers[rng.integers(20, size=960)] + rng.normal(size=(960, 24))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if name == "lm-head-smollm2":
        rows *= rng.uniform(2, 4, size=(960, 1))
    rows32 = rows.astype(np.float32)
    measure = "squared_l2" if name == "fashion-mnist-784" else "dot_product"
    queries = rows32[:40] + rng.normal(scale=0.05, size=(40, 24)).astype(np.float32)
    near = exact_neighbors(rows32, queries, 10, measure)
    np.save(folder / "train.npy", rows32)
    return Data(rows32, queries, near.astype(np.int64), measure, folder)


def faiss(task: str, folder: Path, **request: Any) -> Iterator[tuple[str, Any]]:
    """Stands in for faiss: rows with noise, or the exact neighbours."""
    rows = np.load(folder / "train.npy")
    if task == "decoded":
        for key in request["keys"]:
            yield f"{key} seconds", {"train": 1.0}
            noise = np.random.default_rng(1).normal(scale=0.3, size=rows.shape)
            yield key, (rows + noise).astype(np.float32)
        return
    yield "bytes", 1000
    queries = np.load(folder / "queries.npy")
    found = exact_neighbors(rows, queries, request["k"], request["measure"])
    for count in request["probes"]:
        yield str(count), found.astype(np.int64)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(data=lambda name, queries=40: small(tmp_path, name), faiss=faiss)


@pytest.mark.parametrize("module", [measures, product, figure_5])
def test_examples(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", list(all_experiments()))
def test_an_experiment_runs_and_its_record_comes_back(
    name: str, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_1, "BITS", (64,))
    monkeypatch.setattr(table_2, "BITS", (64,))
    monkeypatch.setattr(recipe, "RATIOS", (0.1,))
    experiment = all_experiments()[name]
    record = store.perform(experiment, lab, tmp_path / "out")
    assert record == store.read(experiment, tmp_path / "out")
    assert record["verdict"]["because"]
    table = experiment.table(record["results"]).splitlines()
    assert len(table) >= 3
    assert store.draw(experiment, record["results"], tmp_path / "out") == f"{name}.png"
    assert (tmp_path / "out" / f"{name}.png").stat().st_size > 3000


def test_ranks_count_the_better_and_the_equal_before() -> None:
    rows = np.float32([[1, 0], [2, 0], [1, 0], [0, 1]])
    query = np.float32([[1, 0]])
    asked = Data(rows, query, np.array([[2]]), "dot_product", Path())
    assert measures.ranks(asked, rows).tolist() == [2]
    asked = Data(rows, query, np.array([[3]]), "squared_l2", Path())
    assert measures.ranks(asked, rows).tolist() == [3]


def test_codes_of_finer_blocks_err_less_and_scores_of_t_aware_codes_too(lab: Lab) -> None:
    data = lab.data("glove-100")
    errors = {}
    for width in (2, 6):
        for threshold in (None, 0.4):
            quantizer = product.trained(lab, data.rows, width, threshold=threshold)
            made = product.coded(data.rows, quantizer)
            errors[width, threshold] = measures.relative_error(data, made)
    assert errors[2, None] < errors[6, None]
    assert errors[6, 0.4] < errors[6, None]


def test_dimensions_spread_over_blocks_keep_their_products() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    spread, width = product.in_blocks(rows, 4)
    assert (spread.shape, width) == ((5, 12), 3)
    np.testing.assert_allclose(spread @ spread.T, rows @ rows.T, rtol=1e-5)
    assert (np.count_nonzero(spread[0].reshape(4, 3), axis=1) >= 2).all()


def test_a_cut_is_solved_anew(tmp_path: Path) -> None:
    data = small(tmp_path, "glove-100")
    (tmp_path / "cut").mkdir()
    part = cut(data, 100, tmp_path / "cut")
    assert part.rows.shape == (100, 24)
    best = (part.queries @ part.rows.T).argmax(axis=1)
    np.testing.assert_array_equal(part.neighbors[:, 0], best)


def test_planes_to_compare_with(lab: Lab) -> None:
    data = lab.data("glove-100")
    recalls = {}
    for name, planes in baselines(data.rows, 16, seed=0):
        assert planes.codes.shape == (960, 2)
        turn = planes.normals.T @ planes.normals
        if name != "random hyperplanes":
            np.testing.assert_allclose(turn, np.eye(16), atol=1e-4)
        made = (2.0 * np.unpackbits(planes.codes, axis=1, bitorder="little") - 1) @ planes.decoder
        scores = data.queries @ made.T
        found = planes.search_asymmetric(data.queries, 10)
        np.testing.assert_allclose(
            np.take_along_axis(scores, found, 1), -np.sort(-scores, axis=1)[:, :10], atol=1e-5
        )
        recalls[name] = (found == data.neighbors[:, :1]).any(axis=1).mean()
    assert list(recalls) == ["random hyperplanes", "signs of PCA", "ITQ"]
    assert recalls["ITQ"] > recalls["random hyperplanes"]
    assert [name for name, _ in baselines(data.rows, 32, seed=0)] == ["random hyperplanes"]


def test_claims_can_fail() -> None:
    plain, aware = [0.4, 0.2], [0.3, 0.1]
    rates = {"threshold": 0.2, "bits": [40, 80]}
    held = rates | {"reconstruction": plain, "score_aware": aware}
    assert figure_3b.judge(held).came_out
    assert not figure_3b.judge(rates | {"reconstruction": aware, "score_aware": plain}).came_out

    curves = {figure_4a.OURS: [0.5], "faiss PQ": [0.4]}
    rate = {"bits": 100, "codewords": 16, "curves": curves}
    rates_found = {"counts": [1], "queries": 1000, "rates": [rate]}
    assert figure_4a.judge(rates_found).came_out
    curves["faiss LSQ"] = [0.6]
    verdict = figure_4a.judge(rates_found)
    assert not verdict.came_out
    assert "faiss LSQ is ahead" in verdict.because

    recalls = {table_1.PLAIN: [0.5], table_1.AWARE: [0.4]}
    rate = {"bits": 256, "recalls": recalls, "lower": [False]}
    found = {"counts": [1], "query_mean": 0.5, "rates": [rate]}
    assert table_1.judge(found).came_out
    rate["lower"] = [True]
    assert "1@1 at 256 bits, 0.400 for 0.500" in table_1.judge(found).because
    assert not table_1.judge(found).came_out

    def queries(name: str, taught: float) -> dict[str, Any]:
        settings = {"some leaves": {"plain": 0.5, "taught": taught, "error": 0.01}}
        return {"data": name, "settings": settings, "same_answers": False}

    lm, elsewhere = queries("lm-head-smollm2", 0.6), queries("glove-50", 0.49)
    assert known_queries.judge({"cases": [lm, elsewhere]}).came_out
    missed = known_queries.judge({"cases": [queries("lm-head-smollm2", 0.51), elsewhere]})
    assert not missed.came_out
    assert "lm-head-smollm2 does not gain at some leaves" in missed.because
    lost = known_queries.judge({"cases": [lm, queries("glove-50", 0.4)]})
    assert not lost.came_out
    assert "glove-50 loses 0.100 at some leaves" in lost.because

    def codes(aware: list[float], plain: list[float]) -> dict[str, Any]:
        both = {table_2.PLAIN: plain, table_2.AWARE: aware}
        methods = {name: {"hamming": found, "asymmetric": found} for name, found in both.items()}
        return {"data": [{"name": "some", "rates": [{"bits": 64, "methods": methods}]}]}

    high, low = [0.5, 0.5, 0.5, 0.5], [0.5, 0.4, 0.3, 0.5]
    assert table_2.judge(codes(high, low)).came_out
    assert not table_2.judge(codes(low, high)).came_out
    assert "moves by -0.200 to -0.200" in table_2.judge(codes(low, high)).because

    def case(measure: str, ours: float) -> dict[str, Any]:
        both = {name: {"1@1": [r], "10@10": [r]} for name, r in (("swann", ours), ("faiss", 0.5))}
        return {"data": "", "measure": measure, "code_bytes": 1} | both

    won, even = case("dot_product", 0.6), case("squared_l2", 0.505)
    assert ivf_pq.judge({"cases": [won, even]}).came_out
    assert not ivf_pq.judge({"cases": [case("dot_product", 0.52), even]}).came_out
    assert not ivf_pq.judge({"cases": [won, case("squared_l2", 0.6)]}).came_out


def test_the_page_tells_what_came_out_and_what_was_not_run(lab: Lab, tmp_path: Path) -> None:
    failing = Experiment(
        name="made-up",
        title="Made up",
        claim="One is two.",
        paper="Nothing.",
        how="by counting.",
        cost="nothing",
        run=lambda _: {"value": 1.23456789},
        judge=lambda results: Verdict(False, f"it is {results['value']}"),
        table=lambda results: f"| {results['value']} |",
    )
    missing = all_experiments()["figure-5"]
    folder = tmp_path / "paper"
    store.perform(figure_2.EXPERIMENT, lab, folder)
    store.perform(failing, lab, folder)
    page.write([figure_2.EXPERIMENT, failing, missing], folder, tmp_path / "paper.md")
    text = (tmp_path / "paper.md").read_text()
    assert "![Figure 2: eta / (d - 1) against its limit](paper/figure-2.png)" in text
    assert "| Made up | **did not come out** | 0 | 0 |" in text
    assert "**Did not come out.** It is 1.23457." in text
    assert "| Figure 5: correlation and variance by dimension | not run yet |  |  |" in text
    assert (folder / "figure-2.png").stat().st_size < 60_000
    stored = json.loads((folder / "made-up.json").read_text())
    assert stored["results"] == {"value": 1.23457}

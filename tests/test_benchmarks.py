"""The comparison's own arithmetic: what is read off measurements, not the measuring."""

from __future__ import annotations

import copy
import doctest
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import exact, expand, front, goals, growth, report, turns
from benchmarks.results import Build, Latency, Point, Results, Scaling, SystemResult
from benchmarks.roofline import limits, stages, work
from benchmarks.systems import all_systems, find
from benchmarks.tables import short


def build(seconds: float = 1.0, resident: int = 0) -> Build:
    return Build({"num_leaves": 600}, seconds, seconds, 1000, 500, 2000, resident)


def system(*points: tuple[float, float, float], level: str = "", **more: Any) -> SystemResult:
    """Points are (recall, speed alone, speed in a batch)."""
    made = [
        Point(0, {}, recall, 1.0, {"one": [one], "batch": [batch]}, {"one": [1.0], "batch": [1.0]})
        for recall, one, batch in points
    ]
    return SystemResult(points=made, level=level, **({"builds": [build()]} | more))


def results(check: dict[str, Any] | None = None, **systems: SystemResult) -> Results:
    named = {name.replace("_", "-"): result for name, result in systems.items()}
    return Results({"n": 10}, {"clock": "wall"}, named, check or {})


def row(text: str, of: Results) -> dict[str, float]:
    (goal,) = [goal for goal in goals.GOALS if text in goal.text]
    return goal.measure(of)


@pytest.mark.parametrize("module", [front, growth, stages])
def test_examples(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_worst_value_decides_which_mark_is_reached() -> None:
    more = goals.Goal("", 6, 4, lambda _: {})
    less = goals.Goal("", 90, 130, lambda _: {}, less=True)
    assert more.verdict({"a": 6.0, "b": 9.0}) == "goal"
    assert more.verdict({"a": 4.0, "b": 9.0}) == "floor"
    assert more.verdict({"a": 3.9, "b": 9.0}) == "**below**"
    assert less.verdict({"a": 90.0, "b": 10.0}) == "goal"
    assert less.verdict({"a": 91.0, "b": 10.0}) == "floor"
    assert less.verdict({"a": 131.0, "b": 10.0}) == "**below**"
    assert more.verdict({}) == "not measured"


def test_speeds_are_compared_at_recalls_that_both_reach() -> None:
    found = results(
        swann=system((0.9, 600, 900), (0.99, 60, 90)),
        scann=system((0.9, 100, 300), (0.96, 10, 30)),
    )
    measured = row("one query at a time, over scann", found)
    assert list(measured) == ["0.90", "0.95"]
    assert measured["0.90"] == pytest.approx(6)


def test_the_fastest_peer_is_named_and_no_swann_is_a_peer() -> None:
    found = results(
        swann=system((0.99, 60, 90)),
        swann_exact=system((1.0, 999, 999)),
        scann=system((0.99, 20, 30)),
        hnswlib=system((0.96, 30, 30)),
    )
    measured = row("fastest of all peers", found)
    assert measured == pytest.approx({"0.90 (hnswlib)": 2, "0.95 (hnswlib)": 2, "0.99 (scann)": 3})


def test_batches_are_those_of_the_level() -> None:
    levels = {
        "swann": system((0.99, 1, 150), level="amx_int8"),
        "swann_avx512": system((0.99, 1, 60), level="avx512vnni"),
        "scann": system((0.99, 1, 10)),
    }
    assert row("with AMX", results(**levels))["0.99"] == pytest.approx(15)
    assert row("avx512", results(**levels))["0.99"] == pytest.approx(6)
    assert row("avx2", results(**levels)) == {}
    levels["swann"].level = "avx512vnni"  # the best there is: no AMX
    assert row("with AMX", results(**levels)) == {}


def test_the_smallest_index_that_reaches_the_recall_is_counted() -> None:
    swann = system((0.99, 1, 1), (0.98, 1, 1), builds=[build(resident=1300), build(resident=900)])
    swann.points[1].build = 1
    assert row("bytes a datapoint", results(swann=swann)) == {"0.99": 130}


def test_builds_are_compared_at_equal_settings() -> None:
    check = {
        "builds": {"tree": {"swann": {"seconds": 2.0}, "scann": {"seconds": 7.0}}},
        "grids": {"tree": {"swann": [0.9, 0.95], "scann": [0.9, 0.96]}},
    }
    measured = row("build time", results(check, swann=system()))
    assert measured == {"tree, recall -0.010 at worst": 3.5}


def test_memory_counts_the_vectors_once() -> None:
    small, large = build(), build()
    small.extra_bytes, large.extra_bytes = 300, 700  # of vectors of 1,000 bytes
    measured = row("peak memory", results(swann=system(builds=[small, large])))
    assert measured == pytest.approx({"largest": 1.7, "smallest": 1.3})


def test_exact_search_is_compared_where_it_is_exact() -> None:
    found = results(swann_exact=system((1.0, 1, 40)), faiss_flat=system((1.0, 1, 10)))
    assert row("exact search in batches, over faiss", found) == {"exact": 4}
    assert row("the same, over NumPy", found) == {}


def test_speeds_by_cpu_time_leave_out_waiting() -> None:
    point = Point(0, {}, 0.9, 1.0, {"one": [100.0, 50.0, 90.0]}, {"one": [0.5, 0.2, 0.5]})
    assert point.speed("one", "cpu") == 200
    assert point.speed("one", "wall") == 90


def test_costs_of_growth_are_in_their_units() -> None:
    built = Build({}, 3.0, 5.0, 4_000_000, 2_000_000, 0, 1_500_000)
    contender: Any = types.SimpleNamespace(result=system((0.95, 2000, 10_000), builds=[built]))
    costs = growth._costs(contender, "wall")
    assert costs == pytest.approx(
        {
            "build_seconds": 3.0,
            "peak_megabytes": 6.0,
            "resident_megabytes": 1.5,
            "one_microseconds": 500.0,
            "batch_microseconds": 100.0,
        }
    )
    assert growth._costs(contender, "cpu")["build_seconds"] == 5.0


# ---- The page


def page(check: dict[str, Any] | None = None, **systems: SystemResult) -> str:
    made = results(check, **systems)
    made.data |= {"name": "D", "about": "points", "d": 2, "queries": 3}
    made.machine |= {"threads": 2, "cpu": "a CPU", "python": "3", "date": "today", "rounds": 1}
    return report.markdown(made, {})


def cells(text: str, title: str) -> dict[str, list[str]]:
    """The rows of the tables below a title, by their first cells; later ones count."""
    section = text.partition(f"## {title}")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in rows}


def test_a_page_tells_speeds_and_how_many_times_faster_swann_is() -> None:
    text = page(
        swann=system((0.9, 123_456, 900), (0.99, 60, 90)),
        scann=system((0.9, 41_152, 1800), (0.96, 10, 30)),
    )
    alone, batch = cells(text, "One query a call"), cells(text, "All queries in one call")
    assert alone["swann"][1] == "123,000"  # at .90
    assert alone["scann"][:2] == ["3", "3"]
    assert alone["scann"][3] == "–"
    assert batch["scann"][1] == "0.5"


def test_a_page_tells_what_builds_cost() -> None:
    built = Build({"num_leaves": 600}, 1.5, 2.5, 1000, 500, 2_000_000, 3_000_000)
    found = cells(page(swann=system((0.9, 1, 1), builds=[built])), "Building and keeping")
    assert found["swann"] == ["num_leaves 600", "1.5", "2.5", "1.50", "2", "3"]


def test_a_page_compares_recalls_at_equal_settings() -> None:
    costs = vars(build())
    text = page(
        {
            "num_leaves": 600,
            "threshold": 0.2,
            "settings": [{"leaves_to_search": 5, "pre_reorder_num_neighbors": 50}],
            "grids": {"tree": {"swann": [0.91], "scann": [0.90]}},
            "builds": {"tree": {"swann": costs, "scann": costs}},
            "without_reordering": {"swann": {"plain": 0.5}, "scann": {"plain": 0.25}},
        },
        swann=system((0.9, 1, 1)),
    )
    found = cells(text, "swann and scann at equal settings")
    assert found["5"] == ["50", "0.9100", "0.9000", "+0.0100"]
    assert found["plain l2"] == ["0.5000", "0.2500"]


def test_a_page_notes_what_makes_figures_doubtful() -> None:
    swann, scann = system((0.9, 1, 1), (0.95, 1, 1)), system((0.9, 1, 1))
    swann.points[0].cpu = {"one": [1.0], "batch": [1.5]}  # of two threads
    swann.points[1].cpu = scann.points[0].cpu = {"one": [1.0], "batch": [2.0]}
    swann.points[1].agree = 0.97
    notes = page(swann=swann, scann=scann, faiss=SystemResult(error="no wheel\n")).partition(
        "## Notes\n\n"
    )[2]
    assert "swann had less than 80% of its CPU time in 1 of 4 measurements" in notes
    assert "swann: one at a time and batched agree on 97.0% at worst" in notes
    assert "faiss is missing: no wheel" in notes
    assert "scann" not in notes


def test_numbers_have_three_digits_or_all_before_the_point() -> None:
    assert [short(x) for x in (0.12345, 12.345, 123.45, 999.7, 12_345.6)] == [
        "0.123",
        "12.3",
        "123",
        "1,000",
        "12,346",
    ]


# ---- What is compared with


@pytest.mark.parametrize("measure", ["dot_product", "squared_l2"])
def test_true_neighbors_are_the_nearest_and_equal_ones_are_in_order(measure: str) -> None:
    rng = np.random.default_rng(3)
    train = rng.integers(-3, 4, (60, 3)).astype(np.float32)  # many are as near as others
    test = rng.integers(-3, 4, (20, 3)).astype(np.float32)
    found = exact.exact_neighbors(train, test, 7, measure, block=8)
    scores = test @ train.T
    if measure == "squared_l2":
        scores = -((test[:, None] - train[None]) ** 2).sum(axis=2)
    best = np.sort(scores, axis=1)[:, ::-1][:, :7]
    np.testing.assert_array_equal(np.take_along_axis(scores, found, axis=1), best)
    ties = np.diff(best, axis=1) == 0
    assert (np.diff(found, axis=1)[ties] > 0).all()


def test_recall_is_the_share_of_the_true_ones_among_all_found() -> None:
    true = np.array([[1, 2, 3], [4, 5, 6]])
    found = np.array([[2, 9, 1, 3], [-1, -1, 6, 4]])
    assert exact.recall(found, true, 2) == 0.75
    assert exact.recall(found, true, 3) == pytest.approx(5 / 6)


# ---- What is written


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    swann = system((0.9, 1, 2), level="avx2")
    swann.latency = Latency(0, {"p50": [10.0, 20.0, 10.0], "p99": [15.0, 60.0, 20.0]})
    swann.scaling = Scaling({}, {}, [6.0, 4.0], [100.0, 190.0])
    written = results(swann=swann)
    written.write(tmp_path / "it.json")
    read = Results.read(tmp_path / "it.json")
    assert read == written
    assert row("p99 over p50", read) == {"tail": 2.0}
    assert row("one, builds", read) == {"builds": 1.5}
    assert row("one, batches", read) == {"batches": 1.9}


def test_the_setting_nearest_to_a_recall_is_one_of_the_front() -> None:
    swann = system((0.90, 100, 1), (0.95, 10, 1), (0.96, 50, 1))
    assert swann.nearest("one", "wall", 0.95) == 2
    assert SystemResult().nearest("one", "wall", 0.95) is None


@pytest.mark.parametrize(("threads", "clock"), [(1, "cpu"), (2, "wall")])
def test_what_another_setting_clearly_beats_is_measured_once(threads: int, clock: str) -> None:
    contender = turns.Contender(
        find("swann"), Path(), types.SimpleNamespace(test=[]), threads, True
    )
    contender.result = system((0.9, 100, 100), (0.9, 131, 129), (0.89, 900, 900), (0.95, 50, 50))
    for point in contender.result.points:  # by the other clock all would be as fast as each other
        if clock == "cpu":
            point.cpu = {mode: [1.0 / qps[0]] for mode, qps in point.qps.items()}
            point.qps = {mode: [1.0] for mode in point.qps}
        else:
            point.cpu = {mode: list(qps) for mode, qps in point.qps.items()}
    asked: list[str] = []

    def ask(command: str, **_: Any) -> dict[str, float]:
        asked.append(command)
        return {"qps": 1.0, "cpu": 1.0}

    contender.worker = types.SimpleNamespace(ask=ask)
    wanted = [["batch"], ["one", "batch"], ["one", "batch"], ["one", "batch"]]
    for point, modes in zip(contender.result.points, wanted, strict=True):
        contender.measure(copy.deepcopy(point), first=False)
        assert asked == modes
        asked.clear()


def test_a_system_like_another_has_its_environment() -> None:
    alike = [entry for entry in all_systems().values() if entry.like]
    assert len(alike) > 2
    for entry in alike:
        assert find(entry.like).requirements == entry.requirements, entry.name
        assert entry.module == find(entry.like).module, entry.name


def test_made_vectors_lie_where_the_real_ones_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "CHUNK", 4000)
    rng = np.random.default_rng(1)
    n, d = 2000, 20
    center = np.eye(d)[0] * 4  # one neighbourhood, from which all are drawn
    real = expand.unit((center + rng.normal(size=(n, d))).astype(np.float32))
    near = np.array([rng.permutation(n)[: expand.NEAR] for _ in range(n)], np.int32)
    made = expand.made(real, near, 0)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    assert made[:, 0].mean() == pytest.approx(real[:, 0].mean(), abs=0.01)
    assert made[:, 1].std() == pytest.approx(real[:, 1].std(), rel=0.05)
    assert not np.array_equal(made, expand.made(real, near, 1))
    np.testing.assert_array_equal(made, expand.made(real, near, 0))


def test_a_query_takes_no_less_than_its_bytes_or_its_operations() -> None:
    sizes = work.Sizes(
        leaves=600, dimension=100, entries=12800, leaf_bytes=14000, code_bytes=8_400_000,
        blocks=50, candidates=100, row_bytes=400, rows=330_000,
    )  # fmt: skip
    found = limits.Limits(
        3.7,
        {"512": {"shuffles": 4.0, "sums": 4.0, "logic": 8.0}},
        {"0:60000": 100.0, "14000:8400000": 50.0, "0:8400000": 80.0, "400:132000000": 8.0},
    )
    alone = work.of_query(sizes, "512", batch=False)
    assert alone["reordering"].by_bytes(found) == pytest.approx(100 * 400 / 8 / 1000)
    # 12,800 entries of 50 blocks: 5,000 times 128 lookups, each 20 / 3 operations; 25 bytes each.
    assert alone["scan"].by_operations(found, "512") == pytest.approx(5000 * 20 / 3 / 8 / 1000)
    assert alone["scan"].by_bytes(found) == pytest.approx(12800 * 25 / 50 / 1000)
    batch = work.of_query(sizes, "512", batch=True)
    assert batch["scan"].all == 5000 * (4 + 4 / 8)
    assert batch["scan"].bytes == 8_400_000 / 1024

"""The program of `make parity`: what counts as worse, and that its cases run against swann."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.parity import report  # noqa: E402
from benchmarks.parity.case import Answer, Case, Lib, recall  # noqa: E402
from benchmarks.parity.cases import CASES  # noqa: E402
from benchmarks.parity.data import Cut, reordered  # noqa: E402
from benchmarks.parity.process import Process  # noqa: E402
from benchmarks.parity.verdict import in_doubt, mean_of, text, verdict, worse  # noqa: E402

PLAIN = Case("topic/plain", lambda lib, cut: Answer())
ABOVE = dataclasses.replace(PLAIN, above=True)
DIED = {"error": "died: SIGSEGV"}


def seen(recall: float | None = None, shape: str = "3x10", *wrong: str) -> dict[str, Any]:
    return dataclasses.asdict(Answer(shape, "int64/float32", recall, "", list(wrong)))


@pytest.mark.parametrize(
    ("case", "scann", "swann", "expected"),
    [
        (PLAIN, seen(0.9), seen(0.9), "same"),
        (PLAIN, seen(0.9), seen(0.896), "same"),
        (PLAIN, seen(0.9), seen(0.894), "WORSE"),
        (PLAIN, seen(0.9), seen(0.906), "better"),
        (ABOVE, seen(0.9), seen(0.9), "WORSE"),
        (ABOVE, seen(0.9), seen(0.9001), "same"),
        (ABOVE, DIED, seen(0.1), "better"),
        (PLAIN, DIED, seen(), "better"),
        (PLAIN, DIED, DIED, "WORSE"),
        (PLAIN, seen(), DIED, "WORSE"),
        (PLAIN, seen(), seen(None, "3x9"), "WORSE"),
        (PLAIN, seen(None, "3x9", "too narrow"), seen(), "better"),
        (PLAIN, seen(None, "3x10", "odd"), seen(None, "3x10", "odd"), "WORSE"),
        (PLAIN, seen(), seen(), "same"),
    ],
)
def test_verdicts(case: Case, scann: Any, swann: Any, expected: str) -> None:
    assert verdict(case, scann, swann) == expected
    assert bool(worse(case, scann, swann)) == (expected == "WORSE")


def test_one_build_that_finds_less_is_in_doubt_and_nothing_else_is() -> None:
    real = dataclasses.replace(PLAIN, data="some")
    assert in_doubt(real, seen(0.9), seen(0.8))
    assert not in_doubt(real, seen(0.9), seen(0.9))
    assert not in_doubt(PLAIN, seen(0.9), seen(0.8))  # made-up data is the same each time
    assert not in_doubt(real, seen(0.9), DIED)
    assert not in_doubt(real, seen(0.9), seen(0.8, "3x9"))


def test_means_of_several_builds() -> None:
    mean = mean_of([seen(0.8), seen(0.9), seen(0.85)])
    assert mean["recall"] == pytest.approx(0.85)
    assert mean["says"] == "mean of 3 builds, 0.8000 to 0.9000"
    assert mean["shape"] == "3x10"
    assert mean_of([seen(0.8), DIED]) == DIED
    wrong = seen(0.8, "3x10", "odd")
    assert mean_of([seen(0.9), wrong]) == wrong


def test_another_order_of_the_rows_has_the_same_neighbors() -> None:
    db = np.random.default_rng(0).standard_normal((50, 3), dtype=np.float32)
    true = np.arange(20, dtype=np.int32).reshape(2, 10)
    cut = Cut("some", "squared_l2", db, db[:2], true)
    assert reordered(cut, 0) is cut
    one, two = reordered(cut, 1), reordered(cut, 2)
    assert not np.array_equal(one.db, two.db)
    for other in (one, two):
        np.testing.assert_array_equal(other.db[other.true], db[true])


def test_tables_show_both_answers_and_every_failure() -> None:
    rows = [(PLAIN, seen(0.9), seen(0.8)), (ABOVE, DIED, seen(0.5, "1|2"))]
    page, lines = report.markdown(rows), report.terminal(rows)
    for shown in (page, lines):
        assert "recall -0.1000" in shown
        assert "died: SIGSEGV" in shown
        assert "2 cases: 0 same, 1 better, 1 WORSE" in shown
    assert r"1\|2" in page
    assert text(seen(0.25, "3x9", "odd")) == "3x9, int64/float32, recall 0.2500, WRONG: odd"
    assert [case.name for case in report.failed(rows)] == [PLAIN.name]


def test_recall_counts_true_neighbors_found() -> None:
    assert recall([[3, 1], [9, 9]], np.array([[1, 2], [3, 4]]), 2) == 0.25


def test_refusals() -> None:
    def fail(error: Exception) -> None:
        raise error

    assert Answer().refused("it", lambda: fail(ValueError("why"))).says == "it: ValueError: why"
    assert not Answer().refused("it", lambda: fail(KeyError(1)), KeyError).wrong
    assert Answer().refused("it", lambda: fail(KeyError(1))).wrong == ["it raises a stray error"]
    assert Answer().refused("it", lambda: None).wrong == ["it is accepted in silence"]


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert all("/" in name and "\n" not in name for name in names)


def test_a_death_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.parity.process.RESULTS", tmp_path)
    with Process(Path(sys.executable), "no_such_library", {}) as process:
        assert process.ask(PLAIN) == {"error": "died: exit 1"}
        assert process.ask(dataclasses.replace(PLAIN, deadly=True)) == {"error": "died: exit 1"}


@pytest.mark.parametrize("case", [case for case in CASES if not case.data], ids=lambda c: c.name)
def test_swann_is_right_in_every_case_of_made_up_data(case: Case) -> None:
    answer = case.run(Lib("swann"), None)
    assert answer.wrong == []

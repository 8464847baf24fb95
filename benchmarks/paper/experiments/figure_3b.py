"""Figure 3b: relative error of the top-1 inner product against bits."""

from __future__ import annotations

from typing import Any

from benchmarks.paper.experiment import Experiment, Results, Verdict
from benchmarks.paper.lab import Lab
from benchmarks.paper.measures import relative_error
from benchmarks.paper.product import coded, trained
from benchmarks.tables import table

DATA = "glove-100"
THRESHOLD = 0.2
WIDTHS = (10, 8, 6, 5, 4, 3, 2, 1)


def run(lab: Lab) -> Results:
    """Code all rows at each number of bits, by either loss."""
    data = lab.data(DATA)
    results: Results = {"threshold": THRESHOLD, "bits": [], "reconstruction": [], "score_aware": []}
    for width in WIDTHS:
        for name, threshold in {"reconstruction": None, "score_aware": THRESHOLD}.items():
            quantizer = trained(lab, data.rows, width, threshold=threshold)
            made = coded(data.rows, quantizer)
            results[name].append(round(relative_error(data, made), 5))
        results["bits"].append(quantizer.bits)
    return results


def judge(results: Results) -> Verdict:
    """Ask for a smaller error at every number of bits."""
    pairs = list(zip(results["reconstruction"], results["score_aware"], strict=True))
    shares = [aware / plain for plain, aware in pairs]
    because = (
        f"the score-aware error is {min(shares):.0%} to {max(shares):.0%} of that of "
        f"reconstruction, from {results['bits'][0]} to {results['bits'][-1]} bits"
    )
    return Verdict(max(shares) < 1, because)


def write(results: Results) -> str:
    """One row a number of bits."""
    rows = [
        [f"{b}", f"{plain:.4f}", f"{aware:.4f}", f"{aware / plain:.2f}"]
        for b, plain, aware in zip(
            results["bits"], results["reconstruction"], results["score_aware"], strict=True
        )
    ]
    return table(
        ["bits", "reconstruction", f"score-aware, T = {results['threshold']:g}", "ratio"], rows
    )


def draw(figure: Any, results: Results) -> None:
    """Two curves."""
    axes = figure.subplots()
    axes.plot(
        results["bits"], results["reconstruction"], "o-", color="#555555", label="reconstruction"
    )
    axes.plot(results["bits"], results["score_aware"], "s-", color="#d55e00", label="score-aware")
    axes.set_xlabel("bits")
    axes.set_ylabel("relative error of the top-1 inner product")
    axes.set_ylim(bottom=0)
    axes.legend()


EXPERIMENT = Experiment(
    name="figure-3b",
    title="Figure 3b: relative error of the top-1 inner product",
    claim="At every number of bits the score-aware loss (T = 0.2) estimates the inner product of "
    "the true top-1 with less error than reconstruction.",
    paper="A plot, on Glove1.2M: the score-aware curve is below throughout.",
    how="4-bit product codes of GloVe-100, 10 to 1 dimensions a block, each dictionary trained "
    "with its loss; the mean over queries of |<q, x> - <q, x~>| / |<q, x>|.",
    cost="about half a minute",
    run=run,
    judge=judge,
    table=write,
    draw=draw,
)

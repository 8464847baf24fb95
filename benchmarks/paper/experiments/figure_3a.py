"""Figure 3a: recall against the threshold T of the score-aware loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.paper.experiment import Experiment, Results, Verdict
from benchmarks.paper.lab import Data, Lab
from benchmarks.paper.measures import ranks, recall_at
from benchmarks.paper.product import coded, trained, with_threshold
from benchmarks.tables import table
from swann.quantize import ProductQuantizer, eta

DATA = "glove-100"
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
WIDTHS = (4, 2)
"""Dimensions a block: 100 and 200 bits."""
WORDS = {"same": "same dictionary", "own": "dictionary trained with T"}


def run(lab: Lab) -> Results:
    """Code all rows at each T, with the dictionary of reconstruction and with one of its own."""
    data = lab.data(DATA)
    d = data.rows.shape[1]
    results: Results = {"thresholds": list(THRESHOLDS), "eta": [], "curves": []}
    results["eta"] = [round(eta(threshold, d), 2) for threshold in THRESHOLDS]
    for width in WIDTHS:
        common = trained(lab, data.rows, width)
        results["curves"].append({
            "bits": common.bits,
            "reconstruction": _recall(data, common),
            "same": [_recall(data, with_threshold(common, at)) for at in THRESHOLDS],
            "own": [
                _recall(data, trained(lab, data.rows, width, threshold=at)) for at in THRESHOLDS
            ],
        })  # fmt: skip
    return results


def _recall(data: Data, quantizer: ProductQuantizer) -> float:
    return recall_at(ranks(data, coded(data.rows, quantizer)), (10,))[0]


def judge(results: Results) -> Verdict:
    """Compare, at T = 0.2, codes of the same dictionary."""
    at = results["thresholds"].index(0.2)
    said, better = [], []
    for curve in results["curves"]:
        plain, aware = curve["reconstruction"], curve["same"][at]
        better.append(aware > plain)
        best = int(np.argmax(curve["same"]))
        said.append(
            f"at {curve['bits']} bits {aware:.3f} against {plain:.3f} (best: "
            f"{curve['same'][best]:.3f} at T = {results['thresholds'][best]:g})"
        )
    return Verdict(all(better), "Recall 1@10 at T = 0.2 is " + "; ".join(said))


def write(results: Results) -> str:
    """One row a threshold."""
    head, rows = ["T", "eta"], [["reconstruction", "1"]]
    rows += [
        [f"{t:g}", f"{e:.1f}"] for t, e in zip(results["thresholds"], results["eta"], strict=True)
    ]
    for curve in results["curves"]:
        for kind, words in WORDS.items():
            head.append(f"{curve['bits']} bits, {words}")
            for row, value in zip(rows, [curve["reconstruction"], *curve[kind]], strict=True):
                row.append(f"{value:.4f}")
    return table(head, rows)


def draw(figure: Any, results: Results) -> None:
    """One panel a number of bits."""
    panels = figure.subplots(1, len(results["curves"]), squeeze=False)[0]
    for axes, curve in zip(panels, results["curves"], strict=True):
        axes.axhline(curve["reconstruction"], color="#555555", label="reconstruction")
        axes.plot(results["thresholds"], curve["same"], "o-", color="#0072b2", label=WORDS["same"])
        axes.plot(results["thresholds"], curve["own"], "s-", color="#d55e00", label=WORDS["own"])
        axes.set_title(f"{curve['bits']} bits")
        axes.set_xlabel("T")
    panels[0].set_ylabel("Recall 1@10")
    panels[-1].legend()


EXPERIMENT = Experiment(
    name="figure-3a",
    title="Figure 3a: Recall 1@10 against T",
    claim="With the same dictionary, codes chosen by the score-aware loss with T = 0.2 have a "
    "higher Recall 1@10 than codes chosen by reconstruction.",
    paper="A plot, on Glove1.2M: score-aware codes at T = 0.2 are well above reconstruction.",
    how="4-bit product codes of whole datapoints of GloVe-100; scores from the codes alone. A "
    "second curve trains the dictionary, too, with the loss.",
    cost="about 2 minutes",
    run=run,
    judge=judge,
    table=write,
    draw=draw,
)

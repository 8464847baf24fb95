"""Asymmetric beside symmetric scores: what it costs to quantize the query, too."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.paper.experiment import Experiment, Results, Verdict
from benchmarks.paper.lab import Lab
from benchmarks.paper.measures import ranks, recall_at
from benchmarks.paper.product import coded, trained
from benchmarks.tables import table

DATA = "glove-100"
WIDTHS = (4, 2)
LOSSES = {"reconstruction": None, "score-aware": 0.2}
COUNTS = (1, 10, 100)


def run(lab: Lab) -> Results:
    """Score the same codes with queries as they are, and with quantized ones."""
    data = lab.data(DATA)
    results: Results = {"counts": list(COUNTS), "codes": []}
    for width in WIDTHS:
        for loss, threshold in LOSSES.items():
            quantizer = trained(lab, data.rows, width, threshold=threshold)
            made, asked = coded(data.rows, quantizer), coded(data.queries, quantizer)
            results["codes"].append({
                "bits": quantizer.bits,
                "loss": loss,
                "asymmetric": recall_at(ranks(data, made), COUNTS),
                "symmetric": recall_at(ranks(data, made, asked), COUNTS),
            })  # fmt: skip
    return results


def judge(results: Results) -> Verdict:
    """Ask that asymmetric scores find more, whatever the loss."""
    pairs = [
        (code, asymmetric, symmetric)
        for code in results["codes"]
        for asymmetric, symmetric in zip(code["asymmetric"], code["symmetric"], strict=True)
    ]
    at = results["counts"].index(10)
    said = [
        f"{code['symmetric'][at]:.3f} in place of {code['asymmetric'][at]:.3f} "
        f"({code['bits']} bits, {code['loss']})"
        for code in results["codes"]
    ]
    return Verdict(
        all(a >= s for _, a, s in pairs),
        "quantizing the query, too, leaves a Recall 1@10 of " + ", ".join(said),
    )


def write(results: Results) -> str:
    """One row a code and way of scoring."""
    rows = [
        [f"{code['bits']} bits, {code['loss']}, {way}", *(f"{value:.3f}" for value in code[way])]
        for code in results["codes"]
        for way in ("asymmetric", "symmetric")
    ]
    return table(["", *(f"1@{count}" for count in results["counts"])], rows)


def draw(figure: Any, results: Results) -> None:
    """Recall 1@10 of both ways, side by side."""
    axes = figure.subplots()
    at = np.arange(len(results["codes"]))
    place = results["counts"].index(10)
    for offset, way, color in ((-0.2, "asymmetric", "#d55e00"), (0.2, "symmetric", "#555555")):
        values = [code[way][place] for code in results["codes"]]
        axes.bar(at + offset, values, 0.38, label=way, color=color)
    axes.set_xticks(at, [f"{code['bits']} bits\n{code['loss']}" for code in results["codes"]])
    axes.set_ylabel("Recall 1@10")
    axes.legend()


EXPERIMENT = Experiment(
    name="asymmetric",
    title="Asymmetric and symmetric scores",
    claim="Scores of queries as they are find the nearest more often than scores of quantized "
    "queries, at the same codes.",
    paper="It scores asymmetrically throughout, as Jégou et al. 2011 have shown to be better.",
    how="4-bit product codes of GloVe-100; for symmetric scores queries are coded as datapoints "
    "are, with the same dictionary and loss.",
    cost="half a minute",
    run=run,
    judge=judge,
    table=write,
    draw=draw,
)

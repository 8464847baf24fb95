"""Figure 5: how correlated dimensions are, and how their variances differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.paper.experiment import Experiment, Results, Verdict
from benchmarks.paper.lab import LM_HEAD, Floats, Lab, Unavailable
from benchmarks.tables import table

DATA = ("glove-100", "glove-50", "fashion-mnist-784", LM_HEAD)
CLAIMED = "glove-100"
SAMPLE = 50_000
WEAK = 0.1
ALIKE = 4.0
"""How many times the variance of the 5th percentile that of the 95th may be."""
POINTS = 50


def run(lab: Lab) -> Results:
    """Correlations and variances of the datapoints' and of the queries' dimensions."""
    results: Results = {"sets": {}}
    for name in DATA:
        try:
            data = lab.data(name)
        except Unavailable:
            continue
        chosen = np.random.default_rng(lab.seed).permutation(len(data.rows))[:SAMPLE]
        results["sets"][name] = {
            "datapoints": describe(data.rows[np.sort(chosen)]),
            "queries": describe(data.queries),
        }
    return results


def describe(rows: Floats) -> dict[str, Any]:
    """Summarise the covariance of some rows; dimensions that never change are left out.

    Quantiles of the absolute correlations of pairs of dimensions; variances by rank, over their
    mean; and the share of the variance that the strongest tenth of the principal components holds.

    Examples
    --------
    >>> told = describe(np.random.default_rng(0).normal(size=(5000, 20)).astype(np.float32))
    >>> told["correlation"]["p95"] < 0.05, told["spread"] < 1.2
    (True, True)
    """
    centred = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / len(rows)
    kept = np.diag(covariance) > 1e-9 * np.trace(covariance)
    covariance = covariance[np.ix_(kept, kept)]
    variances = np.diag(covariance)
    deviations = np.sqrt(variances)
    pairs = np.triu_indices(len(variances), 1)
    strengths = np.abs(covariance / np.outer(deviations, deviations))[pairs]
    ranked = np.sort(variances)[::-1] / variances.mean()
    at = np.linspace(0, len(ranked) - 1, min(POINTS, len(ranked))).round().astype(int)
    low, high = np.percentile(variances, [5, 95])
    components = np.linalg.eigvalsh(covariance)[::-1]
    tenth = max(1, len(components) // 10)
    return {
        "correlation": {f"p{q}": float(np.percentile(strengths, q)) for q in (50, 95, 99)},
        "variances": [float(v) for v in ranked[at]],
        "spread": float(high / low),
        "leading": float(components[:tenth].sum() / components.sum()),
    }


def judge(results: Results) -> Verdict:
    """Hold GloVe against both marks."""
    told = results["sets"][CLAIMED]["datapoints"]
    middle, spread = told["correlation"]["p50"], told["spread"]
    others = {name: both["datapoints"] for name, both in results["sets"].items() if name != CLAIMED}
    beside = "; ".join(
        f"{name}: {entry['correlation']['p50']:.3f} and {entry['spread']:,.1f}"
        for name, entry in others.items()
    )
    because = (
        f"half of {CLAIMED}'s pairs of dimensions correlate by less than {middle:.3f} (asked: "
        f"{WEAK:g}), and its variances spread by {spread:.1f} from the 5th to the 95th percentile "
        f"(asked: {ALIKE:g})" + (f". The others: {beside}" if beside else "")
    )
    return Verdict(middle < WEAK and spread < ALIKE, because)


def write(results: Results) -> str:
    """One row a set, datapoints and queries apart."""
    rows = [
        [
            f"{name}, {kind}",
            *(f"{told['correlation'][q]:.3f}" for q in ("p50", "p95", "p99")),
            f"{told['spread']:,.1f}",
            f"{told['leading']:.2f}",
        ]
        for name, both in results["sets"].items()
        for kind, told in both.items()
    ]
    head = ["", "absolute correlation: median", "p95", "p99", "variance, p95 / p5"]
    return table([*head, "held by a tenth of the components"], rows)


def draw(figure: Any, results: Results) -> None:
    """Variances by rank, one curve a set."""
    axes = figure.subplots()
    for name, both in results["sets"].items():
        values = both["datapoints"]["variances"]
        axes.semilogy(np.linspace(0, 1, len(values)), values, label=name)
    axes.set_xlabel("dimension, by falling variance (share of all)")
    axes.set_ylabel("variance over the mean")
    axes.legend()


EXPERIMENT = Experiment(
    name="figure-5",
    title="Figure 5: correlation and variance by dimension",
    claim="The dimensions of GloVe vectors are weakly correlated and of like variance, so that "
    "queries of uniform direction, which the loss assumes, are a fair model there.",
    paper="Plots of both, in the appendix, as support for that assumption.",
    how=f"{SAMPLE:,} datapoints and the queries of each set. Weak: half of all pairs under "
    f"{WEAK:g}; alike: the 95th percentile of variances under {ALIKE:g} times the 5th (our marks).",
    cost="a quarter of a minute",
    run=run,
    judge=judge,
    table=write,
    draw=draw,
)

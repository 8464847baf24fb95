"""Figure 2: how fast eta / (d - 1) comes near its limit."""

from __future__ import annotations

import itertools
from typing import Any

from benchmarks.paper.experiment import Experiment, Results, Verdict
from benchmarks.paper.lab import Lab
from benchmarks.tables import table
from swann.quantize import eta_limit, eta_recursion

RATIO = 0.2
DIMENSIONS = (2, 5, 10, 20, 50, 100, 200, 300, 500, 768, 1000, 2000, 5000)
NEAR = 0.05
"""Share of the limit within which a value counts as near."""


def run(lab: Lab) -> Results:
    """Evaluate Theorem 3.4 for T / |x| = 0.2."""
    exact = [eta_recursion(RATIO, d) / (d - 1) for d in DIMENSIONS]
    return {
        "ratio": RATIO,
        "dimensions": list(DIMENSIONS),
        "exact": exact,
        "limit": eta_limit(RATIO, 2),
        "eta_100": eta_recursion(RATIO, 100),
        "eta_limit_100": eta_limit(RATIO, 100),
    }


def judge(results: Results) -> Verdict:
    """Ask that it falls all the way, and gets near."""
    exact, limit = results["exact"], results["limit"]
    falls = all(a > b > limit for a, b in itertools.pairwise(exact))
    near = [
        d
        for d, value in zip(results["dimensions"], exact, strict=True)
        if value < limit * (1 + NEAR)
    ]
    at_100 = results["eta_100"] / results["eta_limit_100"] - 1
    because = (
        f"it falls towards {limit:.4f} at every step and is within {NEAR:.0%} of it from d = "
        f"{near[0] if near else 'nowhere'} on; at d = 100 the exact eta, {results['eta_100']:.2f}, "
        f"is still {at_100:.0%} above the limit's {results['eta_limit_100']:.3f}"
    )
    return Verdict(falls and bool(near), because)


def write(results: Results) -> str:
    """One row a dimension."""
    rows = [
        [f"{d:,}", f"{value:.4f}", f"{value / results['limit']:.3f}", f"{value * (d - 1):.2f}"]
        for d, value in zip(results["dimensions"], results["exact"], strict=True)
    ]
    return table(["d", "eta / (d - 1)", "over the limit", "eta"], rows)


def draw(figure: Any, results: Results) -> None:
    """As in the paper: the ratio, and its limit."""
    axes = figure.subplots()
    axes.loglog(results["dimensions"], results["exact"], "o-", color="#d55e00", label="exact")
    axes.axhline(results["limit"], color="#0072b2", label=f"limit, {results['limit']:.4f}")
    axes.set_xlabel("d")
    axes.set_ylabel("eta / (d - 1)")
    axes.legend()


EXPERIMENT = Experiment(
    name="figure-2",
    title="Figure 2: eta / (d - 1) against its limit",
    claim="For w(t) = I(t >= T), T / |x| = 0.2, eta / (d - 1) comes near its limit quickly.",
    paper="The limit is r² / (1 - r²) = 0.0417 at r = T / |x| = 0.2: eta = 4.125 at d = 100.",
    how="the recursion of Theorem 3.4, `swann.quantize.eta_recursion`, in float64.",
    cost="under a second",
    run=run,
    judge=judge,
    table=write,
    draw=draw,
)

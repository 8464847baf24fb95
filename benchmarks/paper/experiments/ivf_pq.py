"""The claim of 10 to 30 % higher recall than FAISS IVF-PQ at the same memory."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import swann
from benchmarks.exact import recall
from benchmarks.paper.experiment import Experiment, Results, Verdict
from benchmarks.paper.lab import Data, Lab
from benchmarks.tables import table
from swann.distance import DistanceMeasure

K = 10
LOW, VANISHED = 0.10, 0.02


@dataclasses.dataclass(frozen=True)
class Case:
    """A data set and its codes.

    Attributes
    ----------
    name : str
        Of the data set.
    leaves : int
        Of both trees, about the square root of n.
    width : int
        Dimensions a 4-bit code.
    ratio : float
        T over the mean length of a datapoint; under squared l2 the loss is plain.
    """

    name: str
    leaves: int
    width: int
    ratio: float = 0.2


CASES = (
    Case("glove-100", 600, 4),
    Case("glove-100", 600, 2),
    Case("fashion-mnist-784", 240, 16),
    Case("fashion-mnist-784", 240, 8),
)
SHARES = (0.05, 0.2, 1.0)
"""Leaves searched, of all."""


def run(lab: Lab) -> Results:
    """Build both indexes of each case, without reordering, and search as many leaves of each."""
    return {"k": K, "cases": [_case(lab, case) for case in CASES]}


def _case(lab: Lab, case: Case) -> dict[str, Any]:
    data = lab.data(case.name)
    d = data.rows.shape[1]
    leaves = min(case.leaves, len(data.rows) // 40)
    probes = [max(1, round(share * leaves)) for share in SHARES]
    blocks = -(-d // case.width)
    return {
        "data": case.name,
        "measure": data.distance_measure,
        "leaves": leaves,
        "probes": probes,
        "code_bytes": blocks / 2,
        "swann": _swann(lab, data, case, leaves, probes),
        "faiss": _faiss(lab, data, f"IVF{leaves},PQ{blocks}x4", probes),
    }


def _swann(lab: Lab, data: Data, case: Case, leaves: int, probes: list[int]) -> dict[str, Any]:
    l2 = data.distance_measure == "squared_l2"
    threshold = None if l2 else case.ratio * float(np.linalg.norm(data.rows, axis=1).mean())
    measure: DistanceMeasure = "squared_l2" if l2 else "dot_product"
    searcher = (
        swann.builder(data.rows, K, measure)
        .tree(leaves, probes[0])
        .score_ah(case.width, threshold)
        .set_n_training_threads(lab.threads)
        .build()
    )
    found = {
        str(count): searcher.search_batched(data.queries, K, leaves_to_search=count).indices
        for count in probes
    }
    return {"bytes": searcher.nbytes} | _recalls(data, found)


def _faiss(lab: Lab, data: Data, key: str, probes: list[int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.npy").symlink_to(data.folder / "train.npy")
        np.save(folder / "queries.npy", data.queries)
        found = dict(
            lab.faiss(
                "inverted",
                folder,
                measure=data.distance_measure,
                key=key,
                k=K,
                probes=probes,
                seed=lab.seed,
            )
        )
    size = found.pop("bytes")
    return {"key": key, "bytes": size} | _recalls(data, found)


def _recalls(data: Data, found: dict[str, Any]) -> dict[str, list[float]]:
    """Recall 1@1 and 10@10 for each number of leaves."""
    every = [np.asarray(ids).astype(np.int64) for ids in found.values()]
    return {
        "1@1": [round(recall(ids[:, :1], data.neighbors, 1), 4) for ids in every],
        "10@10": [round(recall(ids, data.neighbors, K), 4) for ids in every],
    }


def gain(case: dict[str, Any], kind: str) -> float:
    """How much higher swann's recall is, as a share of faiss's; all leaves searched."""
    return float(case["swann"][kind][-1] / case["faiss"][kind][-1] - 1)


def judge(results: Results) -> Verdict:
    """Ask for 10 % at some size for a dot product, and next to nothing for l2."""
    dot = [case for case in results["cases"] if case["measure"] != "squared_l2"]
    l2 = [case for case in results["cases"] if case["measure"] == "squared_l2"]
    said = [
        f"{case['data']}, {case['code_bytes']:g} bytes a code: "
        + " and ".join(f"{gain(case, kind):+.1%} ({kind})" for kind in ("1@1", "10@10"))
        for case in results["cases"]
    ]
    gains = [gain(case, "10@10") for case in dot]
    behind = [
        f"{case['data']}, {case['code_bytes']:g} bytes" for case in l2 if gain(case, "1@1") < 0
    ]
    if behind:
        said.append(f"the very nearest alone (1@1) faiss finds more often for {', '.join(behind)}")
    gone = all(abs(gain(case, "10@10")) <= VANISHED for case in l2)
    return Verdict(max(gains) >= LOW and min(gains) > 0 and gone, "; ".join(said))


def write(results: Results) -> str:
    """One row a case and number of leaves."""
    rows = []
    for case in results["cases"]:
        for i, count in enumerate(case["probes"]):
            rows.append([
                f"{case['data']}, {case['code_bytes']:g} bytes, {count} of {case['leaves']} leaves",
                *(
                    f"{case[system][kind][i]:.3f}"
                    for kind in ("1@1", "10@10")
                    for system in ("swann", "faiss")
                ),
                *(f"{case[system]['bytes'] / 1e6:.1f}" for system in ("swann", "faiss")),
            ])  # fmt: skip
    head = ["", "1@1, swann", "1@1, faiss", "10@10, swann", "10@10, faiss"]
    return table([*head, "MB, swann", "MB, faiss"], rows)


def draw(figure: Any, results: Results) -> None:
    """Recall 10@10 of both, side by side, all leaves searched."""
    axes = figure.subplots()
    at = np.arange(len(results["cases"]))
    for offset, system, color in ((-0.2, "swann", "#0072b2"), (0.2, "faiss", "#e69f00")):
        values = [case[system]["10@10"][-1] for case in results["cases"]]
        axes.bar(at + offset, values, 0.38, label=system, color=color)
    labels = [f"{c['data']}\n{c['code_bytes']:g} bytes" for c in results["cases"]]
    axes.set_xticks(at, labels, fontsize=8)
    axes.set_ylabel("Recall 10@10, all leaves")
    axes.legend()


EXPERIMENT = Experiment(
    name="ivf-pq",
    title="Against FAISS IVF-PQ at the same memory",
    claim="With codes of the same size recall is 10 to 30 % higher than that of FAISS IVF-PQ for "
    "dot products; for squared l2 the advantage vanishes (within 2 %).",
    paper="Not a figure of the paper, but a claim made of it; the loss is derived for inner "
    "products, and is no other than plain l2 for squared l2.",
    how="both with as many leaves, residual codes of 4 bits and as many dimensions a code; nothing "
    "is reordered. faiss scans with float tables (its `x4`, not the 8-bit `x4fs`), swann with "
    "8-bit ones. Gains are relative, all leaves searched; 10@10 decides.",
    cost="about 2 minutes",
    run=run,
    judge=judge,
    table=write,
    draw=draw,
)

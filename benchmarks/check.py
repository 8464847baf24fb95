"""swann beside ScaNN at equal settings: recall over a grid, and what the threshold brings."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.remote import Remote
from benchmarks.systems.base import leaves_near
from benchmarks.turns import Contender, Say

LEAVES = (10, 20, 30, 50, 80, 120)
REORDER = (20, 40, 60, 100, 200)
QUICK = ((30, 60), (50, 100), (120, 200))
THRESHOLD = 0.2


def equal_settings(contenders: list[Contender], quick: bool, say: Say) -> dict[str, Any]:
    """Recall of each contender, all given the same trees, blocks, threshold and search settings.

    Returns
    -------
    dict
        ``grids``: for each kind of tree, recall 10@10 by system for each of ``settings``;
        ``builds``: what building these took;
        ``without_reordering``: recall 1@10 by system, with the threshold and with plain l2.
    """
    data = contenders[0].data
    n = len(data.train)
    leaves = leaves_near(n, 1)[0]
    # Under squared l2 there is no such threshold: plain codes are compared.
    l2 = data.distance_measure == "squared_l2"
    threshold = {} if l2 else {"anisotropic_quantization_threshold": THRESHOLD}
    trees: dict[str, dict[str, Any]] = {"default tree": {}}
    best = {"training_sample_size": n}
    if data.distance_measure == "cosine":
        trees["spherical tree, trained on all"] = best | {"spherical": True}
    # Leaves are a share of all: of 600, these counts.
    pairs = QUICK if quick else [(a, b) for a in LEAVES for b in REORDER]
    searches = [
        {"leaves_to_search": max(1, round(a * leaves / 600)), "pre_reorder_num_neighbors": b}
        for a, b in pairs
    ]
    every = [{"leaves_to_search": leaves}]
    grids: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, dict[str, Any]] = {}
    for label, tree in trees.items():
        settings = {"num_leaves": leaves, **tree, **threshold}
        costs[label] = {
            c.system.name: dataclasses.asdict(c.build(settings, False, say)) for c in contenders
        }
        grids[label] = {c.system.name: _recalls(c, settings, searches, 10) for c in contenders}
    bare = {"num_leaves": leaves, **list(trees.values())[-1], "reorder": False}
    before: dict[str, dict[str, float]] = {}
    for contender in contenders:
        losses = before[contender.system.name] = {}
        for loss, settings in (("threshold", bare | threshold), ("plain", bare)):
            if loss == "threshold" and l2:
                continue
            contender.build(settings, False, say)
            losses[loss] = _recalls(contender, settings, every, 1)[0]
    return {
        "num_leaves": leaves,
        "threshold": None if l2 else THRESHOLD,
        "settings": searches,
        "grids": grids,
        "builds": costs,
        "without_reordering": before,
    }


def _recalls(
    contender: Contender, build: dict[str, Any], searches: list[dict[str, Any]], true: int
) -> list[float]:
    folder = str(contender.folder(build))
    system, threads = contender.system.name, contender.threads
    with Remote(contender.python, system, contender.data, threads) as worker:
        worker.ask("open", key="check", folder=folder, settings=build)
        answers = [worker.ask("recall", key="check", settings=s, true=true) for s in searches]
    return [float(answer["recall"]) for answer in answers]

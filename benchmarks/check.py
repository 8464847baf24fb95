"""swann beside ScaNN at equal settings: recall over a grid, and what the threshold brings."""

from __future__ import annotations

from typing import Any

from benchmarks.remote import Remote
from benchmarks.turns import Contender, Say

LEAVES = (10, 20, 30, 50, 80, 120)
REORDER = (20, 40, 60, 100, 200)
THRESHOLD = 0.2


def equal_settings(contenders: list[Contender], quick: bool, say: Say) -> dict[str, Any]:
    """Recall of each contender, all given the same trees, blocks, threshold and search settings.

    Returns
    -------
    dict
        ``grid``: recall 10@10 by system for each pair of leaves searched and neighbours reordered;
        ``without_reordering``: recall 1@10 by system, with the threshold and with plain l2.
    """
    n = len(contenders[0].data.train)
    leaves = contenders[0].system.builds(n, "dot_product", True)[0]["num_leaves"]
    base = {"num_leaves": leaves, "anisotropic_quantization_threshold": THRESHOLD}
    # The same scale as 600 leaves at GloVe-100's size.
    searched = [max(1, round(count * leaves / 600)) for count in LEAVES]
    pairs = [(a, b) for a in searched for b in REORDER]
    if quick:
        pairs = [(searched[2], 60), (searched[3], 100), (searched[5], 200)]
    asked = [{"leaves_to_search": a, "pre_reorder_num_neighbors": b} for a, b in pairs]
    plain = {"num_leaves": leaves, "reorder": False}
    shaped = {**base, "reorder": False}
    all_leaves = [{"leaves_to_search": leaves}]
    grid: dict[str, list[float]] = {}
    before: dict[str, dict[str, float]] = {}
    for contender in contenders:
        name = contender.system.name
        grid[name] = _recalls(contender, base, asked, 10, say)
        before[name] = {
            "threshold": _recalls(contender, shaped, all_leaves, 1, say)[0],
            "plain": _recalls(contender, plain, all_leaves, 1, say)[0],
        }
    return {
        "num_leaves": leaves,
        "threshold": THRESHOLD,
        "settings": asked,
        "grid": grid,
        "without_reordering": before,
    }


def _recalls(
    contender: Contender,
    build: dict[str, Any],
    searches: list[dict[str, Any]],
    true: int,
    say: Say,
) -> list[float]:
    # The run has just built what stands for the system, and nothing has changed since.
    folder = contender.folder(build)
    if not folder.with_suffix(".json").exists() or "reorder" in build:
        contender.build(build, False, say)
    system, threads = contender.system.name, contender.threads
    queries = len(contender.data.test)
    with Remote(contender.python, system, contender.data, threads) as worker:
        worker.ask("open", key="check", folder=str(folder), settings=build)
        return [
            float(
                worker.ask("recall", key="check", settings=s, queries=queries, true=true)["recall"]
            )
            for s in searches
        ]

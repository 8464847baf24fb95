"""Recall at equal settings: tree x AH x reordering x SOAR x upper tree, on real data."""

from __future__ import annotations

import itertools
import math
from typing import Any

from benchmarks.parity.case import Answer, Case, Lib, searched
from benchmarks.parity.data import NAMES, Cut

REORDERS = (None, "INT8", "BFLOAT16", "FLOAT32")
SOARS = ((), (1.5, 2.0), (1.5, 1.2))
# At 576 dimensions a threshold of .2 would all but forget what is orthogonal to a datapoint.
THRESHOLDS = {"glove-100": 0.2, "glove-100-raw": 0.2, "lm-head-smollm2": 0.08}


def cell(
    lib: Lib,
    cut: Cut,
    tree: bool = True,
    ah: bool = True,
    reorder: str | None = None,
    soar: tuple[float, ...] = (),
    quantize: str = "FLOAT32",
    hash_type: str = "lut16",
    dimensions_per_block: int = 2,
    reorder_threshold: float = math.nan,
    upper: dict[str, Any] | None = None,
    **more: Any,
) -> Answer:
    """Build with these stages and ask; a tenth of the leaves is searched.

    `more` goes to the projection it names, or to `tree`.
    """
    builder = lib.builder(cut.db, cut.measure)
    if "pca" in more:
        kept = more.pop("pca")
        builder.pca(kept, None) if kept else builder.pca()
    if "truncate" in more:
        builder.truncate(more.pop("truncate"))
    if tree:
        leaves = len(cut.db) // 150
        if soar:
            more |= {"soar_lambda": soar[0], "overretrieve_factor": soar[1]}
        builder.tree(leaves, leaves // 10, **({"training_sample_size": len(cut.db)} | more))
        if upper is not None:
            mode = getattr(lib.ReorderType, upper.get("scoring_mode", "INT8"))
            builder.upper_tree(leaves // 10, leaves // 20, **(upper | {"scoring_mode": mode}))
    if ah:
        threshold = THRESHOLDS.get(cut.name, math.nan)
        builder.score_ah(dimensions_per_block, threshold, hash_type=hash_type)
    else:
        builder.score_brute_force(getattr(lib.ReorderType, quantize))
    if reorder:
        builder.reorder(100, getattr(lib.ReorderType, reorder), reorder_threshold)
    return searched(builder.build(), cut)


def _case(data: str, name: str, *, quick: bool = False, above: bool = False, **stages: Any) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        return cell(lib, cut, **stages)

    return Case(f"matrix/{data}/{name}", run, data, above=above, quick=quick)


def _name(reorder: str | None, soar: tuple[float, ...]) -> str:
    spilled = f" SOAR({soar[0]}, {soar[1]})" if soar else ""
    return f"tree{spilled} AH reorder={(reorder or 'none').lower()}"


def _cases(data: str) -> list[Case]:
    cases = []
    for reorder, soar in itertools.product(REORDERS, SOARS):
        # ScaNN has no residuals under squared l2, and codes alone show it.
        above = data == "fashion-mnist-784" and reorder is None
        quick = (reorder, soar) in ((None, ()), ("FLOAT32", ()), ("INT8", SOARS[1]))
        cases.append(
            _case(data, _name(reorder, soar), above=above, quick=quick, reorder=reorder, soar=soar)
        )
    for reorder in REORDERS:
        name = f"AH reorder={(reorder or 'none').lower()}"
        cases.append(_case(data, name, tree=False, reorder=reorder))
    for quantize in REORDERS[1:]:
        name = f"brute force {quantize.lower()}"
        cases.append(_case(data, name, tree=False, ah=False, quantize=quantize, quick=True))
        cases.append(_case(data, f"tree {name}", ah=False, quantize=quantize))
    return cases


CASES = [case for data in NAMES for case in _cases(data)]

"""swann, taught by sample queries, which ScaNN and the others have no use for."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.systems.base import Floats, Settings, leaves_near
from benchmarks.systems.swann import THRESHOLD, Swann


class SwannTaught(Swann):
    """``build(training_queries=...)``; left out where the data set has no sample of queries."""

    name = "swann-taught"
    like = "swann"

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        middle, more = leaves_near(n, 1, 1.66)
        taught = {"anisotropic_quantization_threshold": THRESHOLD, "taught": True}
        soar = {"soar_lambda": 1.5, "overretrieve_factor": 1.5, "training_sample_size": n}
        tried: list[Settings] = [
            {"num_leaves": middle, **taught},
            {"num_leaves": middle, **taught, **soar, "reorder": "BFLOAT16"},
            {"num_leaves": more, **taught, **soar},
            {"num_leaves": more, **taught, **soar, "reorder": "BFLOAT16"},
        ]
        return tried[:2] if quick else tried

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        assert self.sample is not None
        plain = {name: value for name, value in settings.items() if name != "taught"}
        queries = np.load(self.sample)
        return self.builder(train, distance_measure, plain, threads).build(training_queries=queries)

    def idle(self) -> str:
        return "" if self.sample is not None else "the data set has no sample of queries"


SYSTEM = SwannTaught()

"""swann's exhaustive search: the float32 scores of every datapoint, batches only."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from typing import Any

from benchmarks.systems.base import Floats, Search, Settings, peer, scored
from benchmarks.systems.swann import Swann


class SwannExact(Swann):
    """``score_brute_force``."""

    name = "swann-exact"
    like = "swann"
    modes = ("batch",)

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        return [{"score_brute_force": "FLOAT32"}]

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        return [{}]

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        builder = peer(self.module).builder(train, 10, scored(distance_measure))
        return builder.score_brute_force().set_n_training_threads(threads).build()

    def search(self, index: Any, k: int, settings: Settings, threads: int) -> Search:
        batch = index.search_batched if threads == 1 else index.search_batched_parallel
        return Search(lambda q: index.search(q, k)[0], lambda queries: batch(queries, k)[0])


SYSTEM = SwannExact()

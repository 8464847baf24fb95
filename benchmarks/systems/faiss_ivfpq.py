"""faiss: inverted lists, 4-bit product quantization by fast scan, exact refinement."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.base import Floats, Search, Settings, System, leaves_near, peer

_TABLE_BYTES = 1 << 31


class FaissIvfPq(System):
    """``IVF,PQx4fsr,RFlat``: the design nearest to ScaNN's."""

    name = "faiss-ivfpq"
    requirements = ("numpy", "faiss-cpu==1.15.1")
    module = "faiss"

    def builds(self, n: int, distance_measure: str, quick: bool) -> list[Settings]:
        middle, more, most = leaves_near(n, 1, 1.66, 3.33)
        pairs = (
            [(middle, 2), (middle, 4), (more, 2), (more, 4)]
            if distance_measure == "squared_l2"  # long rows: shorter codes pay
            else [(middle, 2), (more, 2), (most, 2)]
        )
        builds: list[Settings] = [{"nlist": count, "dims_per_code": dims} for count, dims in pairs]
        return builds[:2] if quick else builds

    def searches(self, build: Settings, quick: bool) -> list[Settings]:
        pairs = [(20, 10), (50, 20), (150, 40)] if quick else [
            (8, 6), (12, 6), (15, 10), (20, 10), (30, 10), (30, 15), (40, 15), (50, 20), (80, 20),
            (80, 30), (120, 30), (150, 40), (200, 60),
        ]  # fmt: skip
        scale = build["nlist"] / 600
        return [{"nprobe": max(1, round(p * scale)), "k_factor": f} for p, f in pairs]

    def build(self, train: Floats, distance_measure: str, settings: Settings, threads: int) -> Any:
        faiss = peer(self.module)
        faiss.omp_set_num_threads(threads)
        l2 = distance_measure == "squared_l2"
        metric = faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT
        d = train.shape[1]
        factory = f"IVF{settings['nlist']},PQ{d // settings['dims_per_code']}x4fsr,RFlat"
        index = faiss.index_factory(d, factory, metric)
        index.train(train)
        index.add(train)
        return index

    def save(self, index: Any, folder: Path) -> None:
        peer(self.module).write_index(index, str(folder / "index.faiss"))

    def load(self, folder: Path, train: Path, build: Settings, threads: int) -> Any:
        faiss = peer(self.module)
        faiss.omp_set_num_threads(threads)
        return faiss.read_index(str(folder / "index.faiss"))

    def search(self, index: Any, k: int, settings: Settings, threads: int) -> Search:
        lists = peer(self.module).downcast_index(index.base_index)
        lists.nprobe = settings["nprobe"]
        index.k_factor = settings["k_factor"]
        ask = index.search
        # It makes the tables of all lists of all queries first, in float32: of 10,000 queries and
        # 392 codes a datapoint 20 GB, for which it ends the process.
        step = max(1, _TABLE_BYTES // (lists.nprobe * lists.pq.M * 16 * 4))
        return Search(
            lambda q: ask(q[None], k)[1][0],
            lambda queries: np.concatenate(
                [ask(queries[i : i + step], k)[1] for i in range(0, len(queries), step)]
            ),
        )


SYSTEM = FaissIvfPq()

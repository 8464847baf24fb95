"""Every public entry point, a good call of it, and what each of its arguments takes."""

from __future__ import annotations

import copy
import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from bad_values import FINE, Takes
from pipelines import DB, QUERIES

import swann
from swann import (
    ConfigError,
    IncrementalMode,
    ReorderType,
    Searcher,
    ShapeError,
    scann_ops_pybind,
)

N = len(DB)
NAMES = [f"n{i}" for i in range(N)]


@dataclass(frozen=True)
class Entry:
    """How an entry point is called with all of its arguments by name, and what these take.

    Attributes
    ----------
    free : tuple of str
        Arguments that anything may be given for: callbacks, and what is ignored for ScaNN's sake.
    """

    call: Callable[..., Any]
    takes: dict[str, Takes] = field(default_factory=dict)
    free: tuple[str, ...] = ()


# ---- Good values


@functools.cache
def built(names: bool = False) -> Searcher:
    builder = swann.builder(DB, 5, "cosine").tree(6, 3, min_partition_size=1).score_ah(2)
    return builder.reorder(20).build(docids=NAMES if names else None)


def changing(names: bool = False) -> Searcher:
    return copy.deepcopy(built(names))


@functools.cache
def saved() -> Path:
    folder = Path(tempfile.mkdtemp()) / "index"
    built(True).save(folder)
    return folder


def durable() -> swann.DurableSearcher:
    folder = Path(tempfile.mkdtemp()) / "index"
    shutil.copytree(saved(), folder)
    return swann.open(folder, durability="none", checkpoint_at=None)


def answers(searcher: Any) -> Any:
    """What a searcher finds."""
    searcher = getattr(searcher, "searcher", getattr(searcher, "searcher_handle", searcher))
    rng = np.random.default_rng(0)
    return searcher.search_batched(rng.random((4, searcher.dimension), np.float32), 3)


def cosine() -> swann.Builder:
    return swann.builder(DB, 5, "cosine")


class Reused:
    """Runs calls on one searcher after the other, which changes may change.

    What was refused must have changed nothing, and what reads changes nothing: later calls, which
    are compared with those on a new searcher, get the same one. After a change a new one is made.
    """

    made: ClassVar[list[Reused]] = []

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make, self.spare = make, None
        self.made.append(self)

    def __call__(self, use: Callable[..., Any], changes: bool = True, **arguments: Any) -> Any:
        searcher, self.spare = self.spare or self.make(), None
        try:
            found = use(searcher, **arguments)
        except swann.SwannError:
            self.spare = searcher
            raise
        if changes:
            searcher.close()
        else:
            self.spare = searcher
        return found

    def close(self) -> None:
        if self.spare is not None:
            self.spare.close()
        self.spare = None


TEXT = scann_ops_pybind.builder(DB, 5, "cosine").score_brute_force().create_config()
MEASURE = Takes("choice", "cosine")
K = Takes("count", 5)
LIMITS = {
    "final_num_neighbors": Takes("limit", 5),
    "pre_reorder_num_neighbors": Takes("limit", 9),
    "leaves_to_search": Takes("limit", 4),
}
SCANN_LIMITS = {name: Takes("limit", t.good, but={"-1": FINE}) for name, t in LIMITS.items()}
DATABASE = Takes("database", DB)
QUERY = {"q": Takes("vector", QUERIES[0])}
BATCH = {"queries": Takes("vectors", QUERIES)}
BATCH_SIZE = {"batch_size": Takes("count", 3)}
ANY_SEED = Takes("count or zero", 7)
THREADS = Takes("count", 2)
THRESHOLD = Takes("number or none", 0.2)
PROGRESS = Takes("progress", lambda stage, done, total: None)
PRECISION = Takes("precision", ReorderType.INT8)
MODE = Takes("choice", IncrementalMode.ONLINE, but={"upper case": ConfigError})
# Zeros have no direction, but under cosine only; here nothing is normalised.
PLAIN = {"zero row": FINE}
SAMPLE = Takes(
    "vectors", QUERIES, but={"no rows": ShapeError, "empty list": ShapeError, "None": FINE}
)

TREE = {
    "num_leaves": Takes("count", 6),
    "num_leaves_to_search": Takes("count", 3),
    "training_sample_size": Takes("count", 100),
    "min_partition_size": Takes("count or zero", 3),
    "training_iterations": Takes("count", 3),
    "spherical": Takes("flag", False),
    "quantize_centroids": Takes("flag", True),
    "random_init": Takes("flag", False),
    "soar_lambda": Takes("number or none", 1.0, but={"0": FINE}),
    "overretrieve_factor": Takes("number or none", 2.0),
    "incremental_threshold": Takes("number or none", 0.5, but={"NaN": ConfigError}),
    "avq": Takes("number or none", 2.0),
}
UPPER = {
    "num_leaves": Takes("count", 3),
    "num_leaves_to_search": Takes("count", 2),
    "avq": Takes("number or none", 2.0),
    "soar_lambda": Takes("number or none", 1.0, but={"0": FINE}),
    "overretrieve_factor": Takes("number or none", 2.0),
    "scoring_mode": PRECISION,
    "anisotropic_quantization_threshold": THRESHOLD,
}
AH = {
    "dimensions_per_block": Takes("count", 2),
    "anisotropic_quantization_threshold": THRESHOLD,
    "training_sample_size": Takes("count", 100),
    "hash_type": Takes("choice", "lut16"),
    "training_iterations": Takes("count", 2),
}
REORDER = {
    "reordering_num_neighbors": Takes("count", 20),
    "quantize": PRECISION,
    "anisotropic_quantization_threshold": THRESHOLD,
}
PCA = {
    "reduction_dim": Takes("limit", 4),
    "pca_significance_threshold": Takes("number", 0.7, but={"None": FINE}),
    "pca_truncation_threshold": Takes("number or none", 0.6, but={"NaN": ConfigError}),
}
AUTOPILOT = {
    "mode": MODE,
    "quantize": PRECISION,
    "target_recall": Takes("number", 0.9),
}
INDEX = {
    "num_neighbors": K,
    "distance_measure": MEASURE,
    "tree": Takes("config", swann.TreeConfig(num_leaves=6, num_leaves_to_search=3)),
    "score": Takes("config", swann.AHConfig()),
    "reorder": Takes("config", swann.ReorderConfig(reordering_num_neighbors=9)),
    "projection": Takes("config", swann.ProjectionConfig(kind="truncate", reduction_dim=3)),
    "autopilot": Takes("config", swann.AutopilotConfig()),
    "seed": ANY_SEED,
}


def config_rows() -> dict[str, Entry]:
    """The settings themselves, from arguments and from a dict."""
    kinds: dict[str, tuple[Any, dict[str, Takes]]] = {
        "TreeConfig": (swann.TreeConfig, TREE | {"upper": Takes(
            "config", swann.UpperTreeConfig(num_leaves=3, num_leaves_to_search=1))}),
        "UpperTreeConfig": (swann.UpperTreeConfig, UPPER | {"upper": Takes(
            "config", swann.UpperTreeConfig(num_leaves=2, num_leaves_to_search=1))}),
        "AHConfig": (swann.AHConfig, AH),
        "BruteForceConfig": (swann.BruteForceConfig, {"quantize": PRECISION}),
        "ReorderConfig": (swann.ReorderConfig, REORDER),
        "ProjectionConfig": (
            lambda **a: swann.ProjectionConfig(
                **a, reduction_dim=None if "pca_significance_threshold" in a else 3),
            {"kind": Takes("choice", "pca", says="kind")} | {
                name: PCA[name] for name in ("pca_significance_threshold",
                                             "pca_truncation_threshold")}),
        "AutopilotConfig": (swann.AutopilotConfig, AUTOPILOT | {"reasons": Takes(
            "choice", ("because",), but={"a list": ConfigError})}),
        "IndexConfig": (swann.IndexConfig, INDEX),
    }  # fmt: skip
    rows = {}
    for name, (make, takes) in kinds.items():
        made = make(**{key: t.good for key, t in takes.items()})
        rows[f"swann.{name}"] = Entry(
            lambda make=make, **a: make(**a).to_dict(), takes, ("reduction_dim",)
        )
        kind = getattr(swann, name)
        rows[f"swann.{name}.from_dict"] = Entry(
            lambda settings, kind=kind: kind.from_dict(settings).to_dict(),
            {"settings": Takes("settings", made.to_dict(), says="settings")},
        )
    return rows


def searcher_rows(name: str, run: Callable[..., Any]) -> dict[str, Entry]:
    """The methods of `Searcher`; `run` gives a function a searcher and the arguments."""

    def row(method: str, takes: dict[str, Takes], then: Any = None, *free: str) -> Entry:
        def call(**arguments: Any) -> Any:
            def use(s: Any, **a: Any) -> Any:
                found = getattr(s, method)(**a)
                return (found, answers(s)) if then else found

            return run(use=use, changes=then is not None, **arguments)

        return Entry(call, takes, free)

    new = [f"x{i}" for i in range(len(QUERIES))]
    upsert = {
        "docids": Takes("docids", new),
        "vectors": Takes("vectors", QUERIES, but={"no rows": ShapeError, "empty list": ShapeError}),
        **BATCH_SIZE,
    }
    return {
        f"{name}.search": row("search", QUERY | LIMITS),
        f"{name}.search_batched": row("search_batched", BATCH | LIMITS),
        f"{name}.search_batched_parallel": row(
            "search_batched_parallel", BATCH | LIMITS | BATCH_SIZE
        ),
        f"{name}.upsert": row("upsert", upsert, answers),
        f"{name}.delete": row("delete", {"docids": Takes("present", NAMES[:9])}, answers),
        f"{name}.reserve": row("reserve", {"num_datapoints": Takes("count or zero", 500)}, answers),
        f"{name}.rebalance": row(
            "rebalance", {"config": Takes("config", built().config), "progress": PROGRESS}, answers
        ),
        f"{name}.set_num_threads": row("set_num_threads", {"num_threads": THREADS}, answers),
        f"{name}.save": row("save", {"path": Takes("target", Path(tempfile.mkdtemp()) / "a")}),
        f"{name}.serialize": row(
            "serialize", {"artifacts_dir": Takes("target", Path(tempfile.mkdtemp()) / "a")}
        ),
    }

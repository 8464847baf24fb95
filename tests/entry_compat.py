"""Rows of the table for ScaNN's names."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from bad_values import FINE, Takes
from entry_points import (
    BATCH,
    BATCH_SIZE,
    DATABASE,
    MEASURE,
    NAMES,
    QUERY,
    SCANN_LIMITS,
    TEXT,
    Entry,
    K,
    answers,
    changing,
    searcher_rows,
)
from pipelines import DB

from swann import ConfigError, scann_ops, scann_ops_pybind

PYBIND, OPS = "swann.compat.scann_ops_pybind", "swann.compat.scann_ops"
TEXTS = {"scann_config": Takes("text", TEXT)}
ALL_CORES = Takes("count or zero", 2)


@functools.cache
def saved_by_scann() -> Path:
    folder = Path(tempfile.mkdtemp()) / "index"
    scann_ops_pybind.ScannSearcher(changing(True)).serialize(folder)
    return folder


def searcher() -> scann_ops_pybind.ScannSearcher:
    return scann_ops_pybind.ScannSearcher(changing(True))


def compat_rows() -> dict[str, Entry]:
    start = {"db": DATABASE, "num_neighbors": K, "distance_measure": MEASURE}
    docids = Takes("docids", NAMES, but={"None": FINE})
    made = f"{PYBIND}.ScannSearcher"
    tensors = f"{OPS}.ScannSearcher"
    kept = searcher_rows(made, lambda use, changes, **a: use(searcher(), **a))
    unlike = ("rebalance", "save", "search", "search_batched", "search_batched_parallel", "upsert")
    folder = {"artifacts_dir": Takes("path", saved_by_scann())}
    plain = scann_ops.ScannSearcher(changing())
    queries = {"q": BATCH["queries"]} | SCANN_LIMITS

    def upsert(**arguments: Any) -> Any:
        one = searcher()
        return one.upsert(**arguments), answers(one)

    def rebalance(config: Any) -> Any:
        one = searcher()
        return one.rebalance(config), answers(one)

    def build(**arguments: Any) -> Any:
        brute = scann_ops_pybind.builder(DB, 5, "cosine").score_brute_force()
        return answers(brute.build(**arguments))

    new = kept[f"{made}.upsert"].takes
    differ = dict.fromkeys(("too many", "too few", "none at all"), ConfigError)
    empty = {"None": FINE, "empty": FINE}
    return {
        **{name: row for name, row in kept.items() if name.rpartition(".")[2] not in unlike},
        f"{made}.serialize": Entry(
            lambda **a: searcher().serialize(**a),
            {"artifacts_dir": Takes("target", Path(tempfile.mkdtemp()) / "a")},
            ("relative_path",),
        ),
        f"{made}.upsert": Entry(
            upsert, {"docids": new["docids"], "database": new["vectors"], **BATCH_SIZE}
        ),
        f"{made}.rebalance": Entry(
            rebalance, {"config": Takes("text", searcher().config(), but=empty)}
        ),
        f"{made}.search": Entry(searcher().search, QUERY | SCANN_LIMITS),
        f"{made}.search_batched": Entry(searcher().search_batched, BATCH | SCANN_LIMITS),
        f"{made}.search_batched_parallel": Entry(
            searcher().search_batched_parallel, BATCH | SCANN_LIMITS | BATCH_SIZE
        ),
        made: Entry(
            lambda **a: answers(scann_ops_pybind.ScannSearcher(**a)),
            {
                "searcher": Takes("config", changing(True)),
                "docids": Takes("docids", NAMES, but={"None": FINE, **differ}),
            },
        ),
        f"{PYBIND}.builder": Entry(
            lambda **a: answers(scann_ops_pybind.builder(**a).score_brute_force().build()), start
        ),
        f"{PYBIND}.ScannBuilder": Entry(
            lambda **a: answers(scann_ops_pybind.ScannBuilder(**a).score_brute_force().build()),
            start,
        ),
        f"{PYBIND}.ScannBuilder.build": Entry(build, {"docids": docids}),
        f"{PYBIND}.ScannBuilder.set_builder_lambda": Entry(
            lambda builder_lambda: (
                scann_ops_pybind.builder(DB, 5, "cosine")
                .score_brute_force()
                .set_builder_lambda(builder_lambda)
                .build()
            ),
            {"builder_lambda": Takes("name", lambda *_, **__: 3)},
        ),
        f"{PYBIND}.create_searcher": Entry(
            lambda **a: answers(scann_ops_pybind.create_searcher(**a)),
            {"db": DATABASE, **TEXTS, "training_threads": ALL_CORES, "docids": docids},
        ),
        f"{PYBIND}.load_searcher": Entry(
            lambda **a: answers(scann_ops_pybind.load_searcher(**a)),
            folder,
            ("assets_backcompat_shim",),
        ),
        f"{OPS}.builder": Entry(
            lambda **a: answers(scann_ops.builder(**a).score_brute_force().build()), start
        ),
        f"{OPS}.create_searcher": Entry(
            lambda **a: answers(scann_ops.create_searcher(**a)),
            {"db": DATABASE, **TEXTS, "training_threads": ALL_CORES},
            ("container", "shared_name", "docids"),
        ),
        f"{OPS}.load_searcher": Entry(lambda **a: answers(scann_ops.load_searcher(**a)), folder),
        f"{OPS}.searcher_from_module": Entry(
            lambda **a: answers(scann_ops.searcher_from_module(**a)),
            {"module": Takes("config", plain.serialize_to_module())},
            ("db",),
        ),
        tensors: Entry(
            lambda **a: answers(scann_ops.ScannSearcher(**a)),
            {"searcher_handle": Takes("config", changing())},
        ),
        f"{tensors}.search": Entry(plain.search, QUERY | SCANN_LIMITS),
        f"{tensors}.search_batched": Entry(plain.search_batched, queries),
        f"{tensors}.search_batched_parallel": Entry(plain.search_batched_parallel, queries),
        f"{tensors}.serialize": Entry(
            plain.serialize, {"artifacts_dir": Takes("target", Path(tempfile.mkdtemp()) / "a")}
        ),
    }

"""Rows of the table for builds larger than memory, and for searchers of shards."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import sharded
from bad_values import FINE, Takes
from entry_points import (
    NAMES,
    PROGRESS,
    THREADS,
    Entry,
    Reused,
    answers,
    built,
    searcher_rows,
)
from pipelines import DB, QUERIES

import swann
from swann import IndexFormatError, InvalidInputError
from swann.distributed import DistributedSearcher, LocalExecutor, ProcessExecutor, build

DISTRIBUTED = "swann.distributed.DistributedSearcher"
WAIT = Takes("number", 9.0, but={"0": FINE})


@functools.cache
def saved_in_shards() -> Path:
    folder = Path(tempfile.mkdtemp()) / "index"
    sharded.save(folder, 2, built(True))
    return folder


def manifest() -> Takes:
    return Takes("path", saved_in_shards(), but={"too long": IndexFormatError})


def opened(**arguments: Any) -> DistributedSearcher:
    usual = {"manifest": saved_in_shards(), "replicas": 1, "pool": "local", "deadline": 60.0}
    return DistributedSearcher.open(**(usual | arguments))


def changing() -> DistributedSearcher:
    folder = Path(tempfile.mkdtemp()) / "index"
    shutil.copytree(saved_in_shards(), folder)
    return opened(manifest=folder, mode="rw", durability="none")


def start(**arguments: Any) -> Any:
    with opened(**arguments) as searcher:
        return answers(searcher)


def distributed_rows() -> dict[str, Entry]:
    run = Reused(changing)
    rows = searcher_rows(DISTRIBUTED, run)
    unlike = ("reserve", "rebalance", "set_num_threads", "save", "serialize")

    def threads(searcher: Any, value: Any) -> Any:
        searcher.num_threads = value
        return searcher.num_threads, answers(searcher)

    def method(name: str, **fixed: Any) -> Any:
        def use(searcher: Any, **arguments: Any) -> Any:
            return getattr(searcher, name)(**arguments), answers(searcher)

        return lambda **a: reading(use, **a)

    reading = Reused(opened)
    return {
        **{name: row for name, row in rows.items() if name.rpartition(".")[2] not in unlike},
        f"{DISTRIBUTED}.num_threads": Entry(
            lambda value: run(threads, value=value), {"value": THREADS}
        ),
        f"{DISTRIBUTED}.add_workers": Entry(
            method("add_workers"), {"count": Takes("count", 1), "wait": WAIT}
        ),
        f"{DISTRIBUTED}.remove_workers": Entry(
            method("remove_workers"), {"count": Takes("count", 1), "wait": WAIT}
        ),
        f"{DISTRIBUTED}.roll": Entry(
            method("roll"),
            {"manifest": manifest(), "log": Takes("optional", saved_in_shards())},
        ),
        f"{DISTRIBUTED}.open": Entry(
            start,
            {"manifest": manifest(), "replicas": Takes("count", 1),
             "workers": Takes("limit", 2), "pool": Takes("choice", "local", but={"None": FINE}),
             "deadline": Takes("number", 60.0), "strict": Takes("flag", True),
             "hedge_after": Takes("number", 9.0, but={"None": FINE}),
             "wait": Takes("number", 60.0),
             "mode": Takes("choice", "r"), "durability": Takes("choice", "none"),
             "cache": Takes("optional", Path(tempfile.mkdtemp())),
             "log": Takes("optional", saved_in_shards())},
            ("ray_address",),  # needs ray
        ),
        "swann.distributed.LocalExecutor": Entry(
            lambda **a: LocalExecutor(**a).threads, {"threads": Takes("count or zero", 2)}
        ),
        "swann.distributed.ProcessExecutor": Entry(
            lambda **a: vars(ProcessExecutor(**a)),
            {"workers": Takes("count", 2), "threads": Takes("count or zero", 1),
             "tries": Takes("count", 3)},
        ),
        "swann.distributed.build": Entry(
            lambda **a: answers(swann.load(build(out=Path(tempfile.mkdtemp()) / "a", **a))),
            {"sources": Takes("no numbers", DB, but={"a string": InvalidInputError}),
             "config": Takes("config", built().config),
             "num_shards": Takes("count", 2), "memory_budget": Takes("size", "1GB"),
             "docids": Takes("docids", NAMES, but={"None": FINE}),
             "executor": Takes("config", LocalExecutor(2)),
             "sample_rows": Takes("limit", 100),
             "training_queries": Takes("no numbers", QUERIES, but={"None": FINE}),
             "progress": PROGRESS},
            ("ray_address", "out"),
        ),
        "swann.distributed.build (place)": Entry(
            lambda out: answers(swann.load(build(DB, built().config, out))),
            {"out": Takes("target", Path(tempfile.mkdtemp()) / "a")},
        ),
    }  # fmt: skip

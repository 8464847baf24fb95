"""Rows of the table beside building and searching: evaluation, plans, sources, integrations."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_values import FINE, Takes
from entry_points import MEASURE, THREADS, Entry, K, answers, built, changing
from pipelines import DB, QUERIES

import swann
from swann import ConfigError, InvalidInputError, ShapeError, plan, quantize
from swann.integrations import candidates
from swann.plan.machine import cache_file
from swann.sources import Sources

TRUE = np.arange(36).reshape(9, 4)
NEAR = np.linspace(0, 1, 36).reshape(9, 4)
GOLDEN = Path(__file__).parent / "golden" / "scann"
OPTIONAL = {"None": FINE}


def rows_of_evaluation() -> dict[str, Entry]:
    ids = Takes("integers", TRUE, but={"huge": FINE, "rank 3": ShapeError})
    found = dataclasses.replace(ids, but=ids.but | {"negative": FINE})
    near = Takes("numbers", NEAR, but={"NaN": FINE, "negative": FINE})
    return {
        "swann.recall": Entry(swann.recall, {"found": found, "true": ids}),
        "swann.recall_with_ties": Entry(
            swann.recall_with_ties,
            {"found_distances": near, "true_distances": near, "distance_measure": MEASURE,
             "eps": Takes("number", 1e-5, but={"0": FINE})},
        ),
        "swann.speed_recall": Entry(
            lambda **a: [point[:3] for point in swann.speed_recall(**a)],
            {"searcher": Takes("config", built()),
             "queries": Takes("vectors", QUERIES, but={"no rows": ShapeError,
                                                       "empty list": ShapeError}),
             "true": ids, "settings": Takes("pairs", [(1, 5), (None, None)]),
             "single_queries": Takes("count", 2), "repeats": Takes("count", 1)},
        ),
    }  # fmt: skip


@functools.cache
def sample() -> Path:
    path = Path(tempfile.mkdtemp()) / "sample.npy"
    rng = np.random.default_rng(0)
    np.save(path, rng.standard_normal((2000, 8), dtype=np.float32))
    return path


def measured(**arguments: Any) -> Any:
    return plan.measured(**arguments).to_dict()


def rows_of_plans() -> dict[str, Entry]:
    machine = plan.machines()["genoa-32"]
    usual = plan.plan(10**6, 100)
    profile = plan.Profile.from_dict(PROFILE())
    cluster = plan.Cluster(scatter=0.9, uneven=0.5, hop=100.0, message=20.0)
    factor = Takes("number", 2.0)
    part = Takes("number", 0.9, but={"0": FINE})
    config = Takes("config", usual.config)
    size = {"n": Takes("count", 10**6), "dimension": Takes("count", 100)}
    name = Takes("name", "mine")
    speed = machine.core
    terms = {key: Takes("settings", dict(getattr(speed, key)), but={"values of NaN": ConfigError})
             for key in ("alone", "batch", "build")}  # fmt: skip
    kept = Path(tempfile.mkdtemp())
    return {
        "swann.plan.plan": Entry(
            lambda **a: plan.plan(**a).to_dict(),
            {**size, "distance_measure": MEASURE, "recall": Takes("number", 0.9),
             "num_neighbors": K, "queries_per_second": Takes("number", 1e5, but={"0": FINE}),
             "machine": Takes("config", machine), "replicas": Takes("count", 2),
             "latency_milliseconds": Takes("number", 9.0, but=OPTIONAL),
             "quantize": Takes("precision", "INT8"), "leaves": Takes("limit", 1000),
             "soar_lambda": Takes("number or none", 1.0, but={"0": FINE}),
             "batched": Takes("flag", True), "profile": Takes("config", profile),
             "cluster": Takes("config", cluster)},
        ),
        "swann.plan.array_bytes": Entry(
            plan.array_bytes,
            {"config": config, **size, "groups": Takes("number", 40_000.0, but=OPTIONAL),
             "residual": Takes("flag", True), "corrected": Takes("flag", False)},
        ),
        "swann.plan.Machine": Entry(
            lambda **a: plan.Machine(**a).to_dict(),
            {"name": name, "source": name, "cores": Takes("count", 8),
             "speed": Takes("config", speed),
             **dict.fromkeys(("memory", "bandwidth", "network", "storage", "cache"), factor)},
        ),
        "swann.plan.Machine.from_dict": Entry(
            lambda plain: plan.Machine.from_dict(plain).to_dict(),
            {"plain": Takes("settings", machine.to_dict())},
        ),
        "swann.plan.Speed": Entry(
            lambda **a: plan.Speed(**a).to_dict(),
            {"about": name, **terms, "serial": Takes("number", 0.2, but={"0": FINE})},
        ),
        "swann.plan.Speed.from_dict": Entry(
            lambda plain: plan.Speed.from_dict(plain).to_dict(),
            {"plain": Takes("settings", speed.to_dict())},
        ),
        "swann.plan.Cluster": Entry(
            plan.Cluster,
            dict.fromkeys(("scatter", "uneven", "hop", "message", "batch_message"), part),
        ),
        "swann.plan.Cluster.visited": Entry(
            cluster.visited, {"shards": Takes("count", 4), "leaves": Takes("count", 9)}
        ),
        "swann.plan.Cluster.slowest": Entry(cluster.slowest, {"visited": Takes("number", 3.0)}),
        "swann.plan.Profile": Entry(
            lambda **a: plan.Profile(**a).to_dict(),
            {"name": name, "larger": factor, "scanned": Takes("config", profile.scanned),
             "candidates": Takes("config", profile.candidates),
             "measured": Takes("ends", profile.measured),
             "recalls": Takes("ends", profile.recalls)},
        ),
        "swann.plan.Profile.from_dict": Entry(
            lambda plain: plan.Profile.from_dict(plain).to_dict(),
            {"plain": Takes("settings", PROFILE())},
        ),
        "swann.plan.Profile.look": Entry(
            profile.look,
            {"n": Takes("count", 10**5), "leaves": Takes("count", 300),
             "recall": Takes("number", 0.9), "neighbors": K},
        ),
        "swann.plan.Plan.from_dict": Entry(
            lambda plain: plan.Plan.from_dict(plain).to_dict(),
            {"plain": Takes("settings", usual.to_dict())},
        ),
        "swann.plan.keep": Entry(kept_in(kept), {"measured": Takes("config", machine)}),
        "swann.plan.measured": Entry(
            measured,
            {"usual": Takes("config", profile), "db": Takes("no numbers", np.load(sample())),
             "config": config, "recall": Takes("number", 0.9),
             "queries": Takes("no numbers", np.load(sample())[:50], but=OPTIONAL),
             "name": name, "num_threads": Takes("count or zero", 2)},
        ),
        "swann.plan.profile_of_file": Entry(
            lambda **a: plan.profile_of_file(**a).to_dict(),
            {"path": Takes("path", str(sample()), but=dict.fromkeys(
                ("nowhere", "an empty folder", "another file", "below a file", "too long"),
                InvalidInputError)),
             "n": Takes("count", 10**6), "dimension": Takes("count", 8),
             "distance_measure": MEASURE, "recall": Takes("number", 0.9)},
        ),
    }  # fmt: skip


def PROFILE() -> dict[str, Any]:
    from swann.plan.machine import usual_profile

    return usual_profile().to_dict()


def kept_in(folder: Path) -> Callable[..., Any]:
    def keep(measured: Any) -> Any:
        import os
        from unittest import mock

        with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(folder)):
            return plan.keep(measured) == cache_file()

    return keep


def rows_of_sources() -> dict[str, Entry]:
    def read(**arguments: Any) -> Any:
        opened = Sources.of(**({"spool": Path(tempfile.mkdtemp())} | arguments))
        with np.errstate(over="ignore"):
            return opened.read(0, opened.num_rows).astype(np.float32)

    values = ("NaN", "inf", "-inf", "over float32", "too long", "zero row")
    given = Takes("database", DB, but=dict.fromkeys(values, FINE) | {
        "no rows": ShapeError, "a string": InvalidInputError})  # fmt: skip
    return {
        "swann.sources.Sources.of": Entry(read, {"given": given}, ("spool",)),
        "swann.sources.Sources.of (chunks)": Entry(
            lambda spool: read(given=iter([DB, DB]), spool=spool),
            {"spool": Takes("target", Path(tempfile.mkdtemp()), but={"None": InvalidInputError})},
        ),
    }


def rows_of_setters() -> dict[str, Entry]:
    def threads(value: Any) -> Any:
        searcher = changing()
        searcher.num_threads = value
        return searcher.num_threads, answers(searcher)

    def codebook(quantizer: Any) -> Callable[..., Any]:
        def call(value: Any) -> Any:
            quantizer.codebook = value
            return quantizer.codebook

        return call

    product = quantize.ProductQuantizer(2, iterations=1).fit(DB)
    vector = quantize.VectorQuantizer(8, iterations=1).fit(DB)
    words = {"no rows": ShapeError, "zero row": FINE, "subnormal": FINE}
    return {
        "swann.Searcher.num_threads": Entry(threads, {"value": THREADS}),
        "swann.quantize.ProductQuantizer.codebook": Entry(
            codebook(product),
            {"value": Takes("no numbers", np.asarray(product.codebook))},
        ),
        "swann.quantize.VectorQuantizer.codebook": Entry(
            codebook(vector),
            {"value": Takes("database", DB[:8], but=words)},
        ),
    }


def rows_of_integrations() -> dict[str, Entry]:
    ids = np.arange(len(DB), dtype=np.int32)
    made = candidates.Candidates.build(DB, ids, 5, built().config)
    db = {"embeddings": Takes("database", DB, but={"no rows": ShapeError, "zero row": FINE})}
    numbers = {"ids": Takes("integers", ids, but={"None": FINE, "negative": FINE})}
    folder = Path(tempfile.mkdtemp())

    def found(kept: candidates.Candidates) -> Any:
        return kept.search(QUERIES, 3)

    return {
        "swann.integrations.candidates.Candidates.build": Entry(
            lambda embeddings, **a: answers(candidates.Candidates.build(embeddings, **a).searcher),
            {**db, **numbers, "k": K, "target_recall": Takes("number", 0.9),
             "sample_queries": Takes("vectors", QUERIES, but={
                 "None": FINE, "no rows": ShapeError, "empty list": ShapeError,
                 "zero row": FINE})},
            ("config",),
        ),
        "swann.integrations.candidates.Candidates.build (settings)": Entry(
            lambda config: answers(candidates.Candidates.build(DB, ids, 5, config).searcher),
            {"config": Takes("config", built().config)},
        ),
        "swann.integrations.candidates.Candidates.search": Entry(
            made.search,
            {"queries": Takes("vectors", QUERIES, but={
                "rank 1": FINE, "rank 3": FINE, "no columns": ShapeError}),
             "k": K, "pre_reorder_num_neighbors": Takes("limit", 9),
             "leaves_to_search": Takes("limit", 3)},
        ),
        "swann.integrations.candidates.Candidates.save": Entry(
            made.save, {"folder": Takes("target", folder)}
        ),
        "swann.integrations.candidates.Candidates.load": Entry(
            lambda folder: (lambda kept: kept and found(kept))(candidates.Candidates.load(folder)),
            {"folder": Takes("path", saved_candidates(made), but=dict.fromkeys(
                ("nowhere", "an empty folder", "another file", "below a file", "too long"),
                FINE))},
        ),
        "swann.integrations.candidates.check_config": Entry(
            candidates.check_config, {"config": Takes("config", built().config)}
        ),
        "swann.load_scann": Entry(
            lambda **a: answers(swann.load_scann(**a)),
            {"directory": Takes("path", sorted(p for p in GOLDEN.iterdir() if p.is_dir())[0]),
             "docids": Takes("choice", "strings")},
        ),
    }  # fmt: skip


def saved_candidates(made: candidates.Candidates) -> Path:
    folder = Path(tempfile.mkdtemp())
    made.save(folder)
    return folder


def other_rows() -> dict[str, Entry]:
    return {
        **rows_of_evaluation(), **rows_of_plans(), **rows_of_sources(), **rows_of_setters(),
        **rows_of_integrations(),
    }  # fmt: skip

"""The table: every public entry point of swann; `test_entry_points.py` reads it."""

from __future__ import annotations

from typing import Any

import entry_others
import numpy as np
from bad_values import FINE, Takes
from entry_compat import PYBIND, compat_rows
from entry_distributed import distributed_rows
from entry_points import (
    AH,
    ANY_SEED,
    AUTOPILOT,
    BATCH,
    DATABASE,
    MEASURE,
    MODE,
    NAMES,
    PLAIN,
    PRECISION,
    PROGRESS,
    REORDER,
    SAMPLE,
    THREADS,
    THRESHOLD,
    TREE,
    UPPER,
    Entry,
    K,
    Reused,
    answers,
    changing,
    config_rows,
    cosine,
    durable,
    saved,
    searcher_rows,
)
from pipelines import DB, QUERIES

import swann
from swann import (
    ConfigError,
    ShapeError,
    quantize,
    scann_ops_pybind,
)
from swann.autopilot import choose, choose_config

NORMS = np.linspace(0.5, 2, 6).astype(np.float32)
CODES = np.arange(12, dtype=np.uint8).reshape(6, 2)
WEIGHT = Takes("function", quantize.threshold_weight(0.1))
COUNT_OR_ALL = Takes("count or zero", 2)
PATH = {"path": Takes("path", saved())}
VERIFY = Takes("choice", "full")
DOCIDS = Takes("docids", NAMES, but={"None": FINE})
TRAINING = Takes("database", DB, but={"no rows": ShapeError, "zero row": FINE, "subnormal": FINE})
LABELS = np.zeros(len(DB), np.int64)


def built_by(builder: Any) -> Any:
    return answers(builder.score_brute_force().build())


def builder_rows(name: str, make: Any) -> dict[str, Entry]:
    def upper(**arguments: Any) -> Any:
        return built_by(make().tree(6, 3).upper_tree(**arguments))

    takes_sample = {"sample_queries": SAMPLE} if name == "swann.Builder" else {}
    return {
        f"{name}.tree": Entry(lambda **a: built_by(make().tree(**a)), TREE),
        f"{name}.upper_tree": Entry(upper, UPPER),
        f"{name}.score_ah": Entry(
            lambda **a: answers(make().score_ah(**a).build()), AH, ("min_cluster_size",)
        ),
        f"{name}.score_brute_force": Entry(
            lambda **a: answers(make().score_brute_force(**a).build()), {"quantize": PRECISION}
        ),
        f"{name}.reorder": Entry(
            lambda **a: answers(make().score_ah(2).reorder(**a).build()), REORDER
        ),
        f"{name}.truncate": Entry(
            lambda **a: answers(make().truncate(**a).score_ah(1).build()),
            {"reduction_dim": Takes("count", 3)},
        ),
        f"{name}.pca": Entry(
            lambda **a: answers(make().pca(**a).score_ah(1).build()),
            {"reduction_dim": Takes("limit", 4)},
            ("pca_significance_threshold", "pca_truncation_threshold"),  # see ProjectionConfig
        ),
        f"{name}.autopilot": Entry(
            lambda **a: answers(make().autopilot(**a).build()),
            (AUTOPILOT if takes_sample else {"mode": MODE, "quantize": PRECISION}) | takes_sample,
        ),
        f"{name}.set_n_training_threads": Entry(
            lambda **a: built_by(make().set_n_training_threads(**a)),
            {"threads": THREADS if takes_sample else COUNT_OR_ALL},
        ),
    }


def start(build: Any) -> dict[str, Entry]:
    takes = {"db": DATABASE, "num_neighbors": K, "distance_measure": MEASURE}
    return Entry(lambda **a: built_by(build(**a)), takes)  # type: ignore[return-value]


def fitted(kind: Any, *settings: Any) -> Any:
    return kind(*settings).fit(DB)


PRODUCT = fitted(quantize.ProductQuantizer, 2)
VECTOR = fitted(quantize.VectorQuantizer, 8)
BINARY = fitted(quantize.BinaryQuantizer, 16)
BITS = BINARY.encode(DB)
LOSS = {"threshold": THRESHOLD, "seed": Takes("count or zero", 3, but={"a list": FINE})}
ENCODED = Takes("vectors", DB, but=PLAIN)
ORIGINS = Takes("vectors", DB[:5], but=PLAIN | {"no rows": ShapeError, "empty list": ShapeError,
                                               "None": ConfigError})  # fmt: skip
LABELLED = Takes("integers", LABELS, but={"None": ConfigError})


def loss_of(kind: Any) -> Any:
    """The weight and the threshold exclude each other."""
    return lambda **a: kind(**a).fit(DB).encode(DB)


def quantizer_rows() -> dict[str, Entry]:
    product, vector, binary = (
        f"swann.quantize.{n}Quantizer" for n in ("Product", "Vector", "Binary")
    )
    threads = {"num_threads": COUNT_OR_ALL, "iterations": Takes("count", 2)}
    widths = {"dimensions_per_block": Takes("count", 2), "codewords": Takes("count", 16)}
    epochs = {name: Takes("count", good) for name, good in (
        ("bits", 16), ("epochs", 1), ("batch_size", 32),
        ("training_sample_size", 100))}  # fmt: skip
    rates = {"learning_rate": Takes("number", 0.03),
             "prior_weight": Takes("number", 0.1, but={"0": FINE})}  # fmt: skip
    fit = {"datapoints": TRAINING}
    return {
        product: Entry(loss_of(quantize.ProductQuantizer), LOSS | threads | widths | {
            "update": Takes("choice", "joint")}, ("weight",)),
        vector: Entry(loss_of(quantize.VectorQuantizer), LOSS | threads | {
            "codewords": Takes("count", 8)}, ("weight",)),
        binary: Entry(loss_of(quantize.BinaryQuantizer), LOSS | epochs | rates, ("weight",)),
        f"{product}.fit": Entry(
            lambda **a: quantize.ProductQuantizer(2, iterations=1).fit(**a).codebook,
            fit | {"origins": ORIGINS, "labels": LABELLED}, ("on_iteration",)),
        f"{vector}.fit": Entry(
            lambda **a: quantize.VectorQuantizer(4, iterations=1).fit(**a).codebook, fit,
            ("on_iteration",)),
        f"{binary}.fit": Entry(
            lambda **a: quantize.BinaryQuantizer(8, epochs=1).fit(**a).model.encoder, fit,
            ("on_epoch",)),
        f"{product}.encode": Entry(
            PRODUCT.encode, {"datapoints": ENCODED, "origins": ORIGINS, "labels": LABELLED}),
        f"{vector}.encode": Entry(VECTOR.encode, {"datapoints": ENCODED}),
        f"{binary}.encode": Entry(
            BINARY.encode, {"datapoints": ENCODED, "sweeps": Takes("count or zero", 1)}),
        f"{product}.decode": Entry(
            PRODUCT.decode, {"codes": Takes("integers", PRODUCT.encode(DB))}),
        f"{vector}.decode": Entry(VECTOR.decode, {"codes": Takes("integers", VECTOR.encode(DB))}),
        f"{binary}.decode": Entry(BINARY.decode, {"codes": Takes("codes", BITS)}),
        f"{product}.lookup_tables": Entry(
            PRODUCT.lookup_tables, {"queries": Takes("vectors", QUERIES, but=PLAIN | {
                "too long": FINE})}),
        f"{product}.asymmetric_scores": Entry(
            PRODUCT.asymmetric_scores,
            {"queries": Takes("vectors", QUERIES, but=PLAIN | {"too long": FINE}),
             "codes": Takes("integers", PRODUCT.encode(DB))}),
        f"{product}.symmetric_scores": Entry(
            PRODUCT.symmetric_scores,
            {"query_codes": Takes("integers", PRODUCT.encode(DB)[:3]),
             "codes": Takes("integers", PRODUCT.encode(DB))}),
        f"{binary}.search": Entry(BINARY.search, {
            "query_codes": Takes("codes", BITS[:4]), "codes": Takes("codes", BITS), "k": K}),
        f"{binary}.search_asymmetric": Entry(BINARY.search_asymmetric, {
            "queries": Takes("vectors", QUERIES, but=PLAIN | {"too long": FINE}),
            "codes": Takes("codes", BITS), "k": K}),
    }  # fmt: skip


def function_rows() -> dict[str, Entry]:
    ratio = {"ratio": Takes("number", 0.2, but={"0": FINE}), "dimension": Takes("count", 8)}
    norms = {"norms": Takes("numbers", NORMS), "dimension": Takes("count", 8)}
    cost = Takes("numbers", NORMS, but={"negative": FINE})
    row = Takes("numbers", DB[:6], but={"negative": FINE})
    two = {"left": Takes("codes", CODES), "right": Takes("codes", CODES)}
    return {
        "eta": Entry(quantize.eta, ratio),
        "eta_limit": Entry(quantize.eta_limit, ratio),
        "eta_recursion": Entry(quantize.eta_recursion, ratio),
        "anisotropic_weights": Entry(
            quantize.anisotropic_weights, norms | {"threshold": Takes("number", 0.2)}
        ),
        "exponential_weight": Entry(
            lambda rate: quantize.exponential_weight(rate).name,
            {"rate": Takes("number", 2.0, but={"0": FINE, "-1": FINE})},
        ),
        "threshold_weight": Entry(
            lambda threshold: quantize.threshold_weight(threshold).name,
            {"threshold": Takes("number", 2.0, but={"0": FINE, "-1": FINE})},
        ),
        "constant_weight": Entry(lambda: quantize.constant_weight().name),
        "relative_weights": Entry(quantize.relative_weights, norms | {"weight": WEIGHT}),
        "score_aware_weights": Entry(quantize.score_aware_weights, norms | {"weight": WEIGHT}),
        "score_aware_loss": Entry(
            quantize.score_aware_loss, {"x": row, "x_tilde": row, "h_par": cost, "h_perp": cost}
        ),
        "hamming_distances": Entry(quantize.hamming_distances, two),
        "hamming_search": Entry(
            quantize.hamming_search,
            {"query_codes": Takes("codes", CODES), "codes": Takes("codes", CODES), "k": K},
        ),
    }


def other_rows() -> dict[str, Entry]:
    start_takes = {
        "db": DATABASE, "num_neighbors": K, "distance_measure": MEASURE,
        "copy": Takes("flag", True),
    }  # fmt: skip
    shapes = {"n": Takes("count or zero", 500), "d": Takes("count", 8), "distance_measure": MEASURE}
    chosen = shapes | {
        "num_neighbors": K, "autopilot": Takes("config", swann.AutopilotConfig()),
        "row_length": Takes("number", 1.0, but={"0": FINE}), "seed": ANY_SEED,
        "project": Takes("flag", True),
    }  # fmt: skip

    def opened(**arguments: Any) -> Any:
        with swann.open(**({"path": saved()} | arguments)) as index:
            return answers(index)

    return {
        "swann.Builder": Entry(lambda **a: built_by(swann.Builder(**a)), start_takes),
        "swann.builder": Entry(lambda **a: built_by(swann.builder(**a)), start_takes),
        "swann.build": Entry(
            lambda **a: answers(swann.build(**a)),
            {
                **start_takes, "docids": DOCIDS, "mode": MODE, "quantize": PRECISION,
                "target_recall": Takes("number", 0.9), "seed": ANY_SEED,
                "num_threads": Takes("limit", 2), "training_queries": SAMPLE,
                "sample_queries": SAMPLE, "progress": PROGRESS,
            },
        ),
        "swann.Builder.build": Entry(
            lambda **a: answers(cosine().score_brute_force().build(**a)),
            {"docids": DOCIDS, "training_queries": SAMPLE, "progress": PROGRESS},
        ),
        "swann.Builder.seed": Entry(lambda **a: built_by(cosine().seed(**a)), {"seed": ANY_SEED}),
        "swann.exact_neighbors": Entry(
            swann.exact_neighbors,
            {"db": DATABASE, **BATCH, "k": Takes("count", 3, says="num_neighbors"),
             "distance_measure": MEASURE, "num_threads": COUNT_OR_ALL, "docids": DOCIDS},
        ),
        "swann.load": Entry(
            lambda **a: answers(swann.load(**a)),
            {**PATH, "verify": VERIFY, "memory_map": Takes("flag", False)},
        ),
        "swann.load_searcher": Entry(
            lambda **a: answers(swann.load_searcher(**a)),
            {"artifacts_dir": Takes("path", saved()), "verify": VERIFY,
             "memory_map": Takes("flag", False)},
        ),
        "swann.open": Entry(
            opened,
            {**PATH, "mode": Takes("choice", "r"), "durability": Takes("choice", "none"),
             "verify": VERIFY},
            ("flush_interval", "checkpoint_at"),
        ),
        "swann.leaf_ladder": Entry(swann.leaf_ladder, {"num_leaves": Takes("count", 60)}),
        "swann.autopilot.choose": Entry(lambda **a: choose(**a).config.to_dict(), chosen),
        "swann.autopilot.choose_config": Entry(lambda **a: choose_config(**a).to_dict(), chosen),
    }  # fmt: skip


def all_rows() -> dict[str, Entry]:
    made = {
        **config_rows(),
        **other_rows(),
        **builder_rows("swann.Builder", cosine),
        **searcher_rows("swann.Searcher", lambda use, changes, **a: use(changing(True), **a)),
        **searcher_rows("swann.DurableSearcher", Reused(durable)),
        **{f"swann.quantize.{name}": row for name, row in function_rows().items()},
        **quantizer_rows(),
        **entry_others.other_rows(),
        **compat_rows(),
        **builder_rows(f"{PYBIND}.ScannBuilder", lambda: scann_ops_pybind.builder(DB, 5, "cosine")),
        **distributed_rows(),
    }
    return made


ENTRIES = all_rows()

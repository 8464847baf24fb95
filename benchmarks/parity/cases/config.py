"""Configurations as text: written, read back, and read by the other name."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.parity.case import Answer, Case, Lib, answer
from benchmarks.parity.small import DB, PIPELINES, QUERIES, build, named

HEAD = 'num_neighbors: 10 distance_measure { distance_measure: "DotProductDistance" }'


def _round_trip(pipeline: str, measure: str) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        searcher = build(lib, PIPELINES[pipeline], measure=measure)
        seen = answer(searcher.search_batched(QUERIES))
        for text in (searcher.config(), str(searcher.config())):
            again = lib.ops.create_searcher(DB, text)
            found = again.search_batched(QUERIES)
            seen.check(np.shape(found[0]) == (len(QUERIES), 10), "another shape")
            agree = float(np.mean(np.asarray(found[0]) == searcher.search_batched(QUERIES)[0]))
            seen.check(agree > 0.9, f"only {agree:.2f} of the ids are the same")
        return seen

    return Case(f"config/create_searcher(config())/{measure}/{pipeline}", run)


def written_by_hand(lib: Lib, cut: Any) -> Answer:
    """A text as ScaNN's documentation has it."""
    text = f"""{HEAD}
      partitioning {{ num_children: 20 min_cluster_size: 50 max_clustering_iterations: 12
        partitioning_distance {{ distance_measure: "SquaredL2Distance" }}
        query_spilling {{ spilling_type: FIXED_NUMBER_OF_CENTERS max_spill_centers: 20 }}
        expected_sample_size: 100000
        query_tokenization_distance_override {{ distance_measure: "DotProductDistance" }}
        partitioning_type: GENERIC query_tokenization_type: FLOAT }}
      brute_force {{ fixed_point {{ enabled: false }} }}"""
    return answer(lib.ops.create_searcher(DB, text).search_batched(QUERIES))


def with_docids(lib: Lib, cut: Any) -> Answer:
    """`create_searcher` takes docids too."""
    text = HEAD + " brute_force { }"
    return answer(lib.ops.create_searcher(DB, text, docids=named()).search_batched(QUERIES))


def malformed(lib: Lib, cut: Any) -> Answer:
    """Texts that mean nothing."""
    seen = Answer()
    for name, text in {
        "no braces": "num_neighbors 10",
        "unknown field": HEAD + " brute_force { } neighbours: 3",
        "no scoring": HEAD,
        "unknown distance": HEAD.replace("DotProduct", "Taxicab") + " brute_force { }",
        "nothing": "",
    }.items():
        seen.refused(name, lambda t=text: lib.ops.create_searcher(DB, t), ValueError)  # type: ignore[misc]
    return seen


def _misuse(name: str, call: Any) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        # ScaNN raises Exception itself for what is configured twice.
        return Answer().refused("build", lambda: call(lib).build(), Exception)

    return Case(f"config/{name}", run)


def _start(lib: Lib) -> Any:
    return lib.builder(DB, "dot_product")


CASES = [
    *(_round_trip(name, "dot_product") for name in PIPELINES),
    *(_round_trip(name, "squared_l2") for name in ("brute force", "AH", "tree AH reorder")),
    Case("config/written by hand", written_by_hand),
    Case("config/create_searcher with docids", with_docids),
    Case("config/malformed texts", malformed, deadly=True),
    _misuse("scored twice", lambda lib: _start(lib).score_brute_force().score_brute_force()),
    _misuse("scored in two ways", lambda lib: _start(lib).score_brute_force().score_ah(2)),
    _misuse("not scored", lambda lib: _start(lib).tree(20, 10)),
    _misuse("pca and truncate", lambda lib: _start(lib).pca(4, None).truncate(4).score_ah(2)),
    _misuse("an unknown measure", lambda lib: lib.builder(DB, "taxicab").score_brute_force()),
    _misuse("an unknown hash", lambda lib: _start(lib).score_ah(2, hash_type="lut64")),
]

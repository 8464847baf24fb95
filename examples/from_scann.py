"""A ScaNN program after a change of its import: the rest of the file is as ScaNN's users write it.

ScaNN leaves it to the user to normalise for cosine similarity, so this program does it itself.
"""

import glove
import numpy as np

from swann import scann_ops_pybind  # was: from scann import scann_ops_pybind

words, vectors = glove.load()
normalized = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

searcher = (
    scann_ops_pybind.builder(normalized, 10, "dot_product")
    .tree(num_leaves=200, num_leaves_to_search=20, training_sample_size=20_000)
    .score_ah(2, anisotropic_quantization_threshold=0.2)
    .reorder(100)
    .build()
)

queries = normalized[:1000]
neighbors, distances = searcher.search_batched(queries)
exact = np.argsort(-(queries @ normalized.T), axis=1)[:, :10]
hits = sum(len(np.intersect1d(a, b)) for a, b in zip(neighbors, exact, strict=True))
print(f"recall@10 of 1,000 queries: {hits / exact.size:.3f}")

neighbors, distances = searcher.search_batched(
    queries, leaves_to_search=50, pre_reorder_num_neighbors=250
)
hits = sum(len(np.intersect1d(a, b)) for a, b in zip(neighbors, exact, strict=True))
print(f"... with 50 leaves and 250 reordered: {hits / exact.size:.3f}")

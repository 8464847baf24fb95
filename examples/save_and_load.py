"""Save an index to a directory, load it again by memory map, and search a batch of queries."""

import tempfile
from pathlib import Path

import glove
import numpy as np

import swann

words, vectors = glove.load()
words, vectors = words[:10_000], vectors[:10_000]
searcher = (
    swann.builder(vectors, num_neighbors=5, distance_measure="cosine")
    .tree(num_leaves=100, num_leaves_to_search=10)
    .score_ah(dimensions_per_block=2, anisotropic_quantization_threshold=0.2)
    .reorder(50)
    .build()
)

with tempfile.TemporaryDirectory() as folder:
    directory = Path(folder) / "index"
    searcher.serialize(directory)
    for file in sorted(directory.rglob("*")):
        print(f"{file.stat().st_size:>10,}  {file.name}")

    loaded = swann.load_searcher(directory)
    queries = vectors[[words.index(word) for word in ("music", "winter", "doctor")]]
    before = searcher.search_batched(queries)
    after = loaded.search_batched(queries)
    assert np.array_equal(before.indices, after.indices)
    for row in after.indices:
        print("  ".join(words[i] for i in row))

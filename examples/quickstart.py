"""The ten lines: build an index over word vectors, ask for the neighbours of a word."""

import glove

import swann

words, vectors = glove.load()
searcher = (
    swann.builder(vectors, num_neighbors=6, distance_measure="cosine")
    .tree(num_leaves=200, num_leaves_to_search=20)
    .score_ah(dimensions_per_block=2, anisotropic_quantization_threshold=0.2)
    .reorder(100)
    .build()
)
neighbors, cosines = searcher.search(vectors[words.index("ocean")])
for neighbor, cosine in zip(neighbors, cosines, strict=True):
    print(f"{cosine:.3f}  {words[neighbor]}")

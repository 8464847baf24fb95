"""ScaNN's names of what swann's settings can be."""

from __future__ import annotations

from swann.distance import DistanceMeasure

MEASURES: dict[str, DistanceMeasure] = {
    "DotProductDistance": "dot_product",
    "SquaredL2Distance": "squared_l2",
    "CosineDistance": "cosine",
}
MEASURE_NAMES = {measure: name for name, measure in MEASURES.items()}
L2 = "SquaredL2Distance"

# ScaNN's enums by number. Of two names of one number, the first is written.
SPILLING = {"NO_SPILLING": 0, "FIXED_NUMBER_OF_CENTERS": 4}
SOAR = {"NO_SPILLING": 0, "TWO_CENTER_ORTHOGONALITY_AMPLIFIED": 4, "SOAR": 4}
INITIALIZATION = {"DEFAULT_KMEANS_PLUS_PLUS": 0, "RANDOM_INITIALIZATION": 1}
TOKENIZATION = {"FLOAT": 1, "FIXED_POINT_INT8": 2}
PARTITIONING = {"GENERIC": 0, "SPHERICAL": 1}
QUANTIZATION = {"FLOAT32": 0, "BFLOAT16": 1, "FIXED8": 2}
LOOKUP = {"FLOAT": 0, "INT8": 1, "INT16": 2, "INT8_LUT16": 3}
REDUCTION = {"NONE": 0, "PCA": 8, "TRUNCATE": 14}
BLOCKS = {"NONE": 0, "CHUNK": 1, "VARIABLE_CHUNK": 2, "IDENTITY_CHUNK": 13}
MODE = {"NONE": 0, "ONLINE": 1, "ONLINE_INCREMENTAL": 2}
DATA_TYPE = {"FLOAT32": 1, "BFLOAT16": 2, "INT8": 3}

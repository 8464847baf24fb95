"""Approximate nearest neighbours: ScaNN's design, as a fast and typed Python package.

>>> import numpy as np
>>> import swann
>>> db = np.random.default_rng(0).standard_normal((2000, 16), dtype=np.float32)
>>> searcher = (
...     swann.builder(db, 10, "dot_product")
...     .tree(num_leaves=40, num_leaves_to_search=20)
...     .score_ah(2, anisotropic_quantization_threshold=0.2)
...     .reorder(100)
...     .build()
... )
>>> neighbors, distances = searcher.search(db[3])
>>> neighbors.shape, distances.shape
((10,), (10,))
"""

from swann import scann_ops, scann_ops_pybind
from swann.builder import Builder, build, builder
from swann.compat.scann_builder import ScannBuilder
from swann.compat.scann_load import load_scann
from swann.config import (
    AHConfig,
    AutopilotConfig,
    BruteForceConfig,
    IncrementalMode,
    IndexConfig,
    ProjectionConfig,
    ReorderConfig,
    ReorderType,
    TreeConfig,
    UpperTreeConfig,
)
from swann.errors import (
    ConfigError,
    CorruptIndexError,
    DTypeError,
    FormatVersionError,
    IncompleteError,
    IndexFormatError,
    InvalidInputError,
    LockedError,
    LogError,
    MissingExtraError,
    NonFiniteError,
    ReadOnlyError,
    RecallWarning,
    ShapeError,
    StorageError,
    SwannError,
    UnknownDocidError,
    WorkerError,
    ZeroVectorError,
)
from swann.evaluate import (
    OperatingPoint,
    exact_neighbors,
    leaf_ladder,
    recall,
    recall_with_ties,
    speed_recall,
)
from swann.searcher import Searcher, SearchResult
from swann.storage import DurableSearcher, load, load_searcher, open

__version__ = "0.1.0"

__all__ = [
    "AHConfig",
    "AutopilotConfig",
    "BruteForceConfig",
    "Builder",
    "ConfigError",
    "CorruptIndexError",
    "DTypeError",
    "DurableSearcher",
    "FormatVersionError",
    "IncompleteError",
    "IncrementalMode",
    "IndexConfig",
    "IndexFormatError",
    "InvalidInputError",
    "LockedError",
    "LogError",
    "MissingExtraError",
    "NonFiniteError",
    "OperatingPoint",
    "ProjectionConfig",
    "ReadOnlyError",
    "RecallWarning",
    "ReorderConfig",
    "ReorderType",
    "ScannBuilder",
    "SearchResult",
    "Searcher",
    "ShapeError",
    "StorageError",
    "SwannError",
    "TreeConfig",
    "UnknownDocidError",
    "UpperTreeConfig",
    "WorkerError",
    "ZeroVectorError",
    "__version__",
    "build",
    "builder",
    "exact_neighbors",
    "leaf_ladder",
    "load",
    "load_scann",
    "load_searcher",
    "open",
    "recall",
    "recall_with_ties",
    "scann_ops",
    "scann_ops_pybind",
    "speed_recall",
]

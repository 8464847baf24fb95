"""Settings of an index: frozen dataclasses, checked when made, to and from plain JSON types.

::

    IndexConfig
    ├── projection  ProjectionConfig   or None: the tree and the codes have all dimensions
    ├── tree        TreeConfig         or None: every datapoint is scored
    │   └── upper   UpperTreeConfig    or None: every centroid is scored
    ├── score       AHConfig           approximate scores from product-quantized codes
    │               BruteForceConfig   exact scores
    ├── reorder     ReorderConfig      or None: approximate scores are final
    └── autopilot   AutopilotConfig    or None: the settings above were given by hand

Names and defaults are ScaNN's.
"""

from swann.config.checks import (
    IncrementalMode,
    ReorderType,
    check_count,
    check_flag,
    check_number,
    check_path,
    check_progress,
)
from swann.config.index import AutopilotConfig, IndexConfig, ProjectionConfig, with_finer_rows
from swann.config.score import AHConfig, BruteForceConfig, ReorderConfig
from swann.config.tree import TreeConfig, UpperTreeConfig

__all__ = [
    "AHConfig",
    "AutopilotConfig",
    "BruteForceConfig",
    "IncrementalMode",
    "IndexConfig",
    "ProjectionConfig",
    "ReorderConfig",
    "ReorderType",
    "TreeConfig",
    "UpperTreeConfig",
    "check_count",
    "check_flag",
    "check_number",
    "check_path",
    "check_progress",
    "with_finer_rows",
]

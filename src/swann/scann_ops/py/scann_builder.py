"""`swann.compat.scann_builder`, where ScaNN has it."""

from swann.compat.scann_builder import ScannBuilder
from swann.config import IncrementalMode, ReorderType

__all__ = ["IncrementalMode", "ReorderType", "ScannBuilder"]

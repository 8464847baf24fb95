"""ScaNN's folder of modules."""

from swann.scann_ops.py import scann_builder, scann_ops, scann_ops_pybind

__all__ = ["scann_builder", "scann_ops", "scann_ops_pybind"]

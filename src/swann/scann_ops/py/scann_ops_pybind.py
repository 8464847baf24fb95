"""`swann.compat.scann_ops_pybind`, where ScaNN has it."""

from swann.compat.scann_ops_pybind import *  # noqa: F403

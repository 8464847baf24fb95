"""`swann.compat.scann_ops_pybind` by ScaNN's name."""

from swann.compat.scann_ops_pybind import *  # noqa: F403

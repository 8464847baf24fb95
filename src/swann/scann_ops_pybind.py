"""`swann.compat.scann_ops_pybind` by ScaNN's name."""

from swann.compat import scann_ops_pybind as _home
from swann.compat.scann_ops_pybind import *  # noqa: F403

__doc__ = f"{__doc__}\n\n{_home.__doc__}"
__all__: list[str] = []
__all__ += _home.__all__

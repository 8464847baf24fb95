"""`swann.compat.scann_ops` by ScaNN's name, with the folders in which ScaNN has its modules.

So that programs go on with another import and nothing else::

    from swann import scann_ops, scann_ops_pybind
    from swann.scann_ops.py import scann_ops_pybind
    from swann.scann_ops.py.scann_ops_pybind import load_searcher
"""

from swann.compat import scann_ops as _home
from swann.compat.scann_ops import *  # noqa: F403

__doc__ = f"{__doc__}\n\n{_home.__doc__}"
__all__: list[str] = []
__all__ += _home.__all__

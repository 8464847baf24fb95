"""`swann.compat.scann_ops`, where ScaNN has it."""

from swann.compat import scann_ops as _home
from swann.compat.scann_ops import *  # noqa: F403

__doc__ = f"{__doc__}\n\n{_home.__doc__}"
__all__: list[str] = []
__all__ += _home.__all__

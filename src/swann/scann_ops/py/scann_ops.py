"""`swann.compat.scann_ops`, where ScaNN has it."""

from swann.compat.scann_ops import *  # noqa: F403

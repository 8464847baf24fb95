"""swann at a lower instruction set than this machine's best: batches only."""

# The methods are documented where they are declared, in base.py.
# ruff: noqa: D102

from __future__ import annotations

from benchmarks.systems.base import peer
from benchmarks.systems.swann import Swann


class SwannAvx2(Swann):
    """The same indices and settings, with ``SWANN_SIMD`` set."""

    name = "swann-avx2"
    like = "swann"
    variables = {"SWANN_SIMD": "avx2"}  # noqa: RUF012
    modes = ("batch",)

    def idle(self) -> str:
        kernels = peer("swann.kernels")
        best = kernels.kernel_levels()[0]
        return f"swann runs at {best} by itself" if kernels.active_level() == best else ""


SYSTEM = SwannAvx2()

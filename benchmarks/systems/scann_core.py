"""ScaNN's core packaged anew, with the AVX-512 kernels that the original wheel leaves off."""

from __future__ import annotations

from benchmarks.systems.scann import Scann


class ScannCore(Scann):
    """The same Python interface under the same module name, from another package."""

    name = "scann-core"
    requirements = ("numpy", "scann-core==0.2.1")


SYSTEM = ScannCore()

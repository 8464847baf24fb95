"""swann at the best level of the AVX-512 family: what it does without AMX."""

from __future__ import annotations

from benchmarks.systems.swann_avx2 import SwannAvx2


class SwannAvx512(SwannAvx2):
    """Left out where AVX-512 is the best there is."""

    name = "swann-avx512"
    variables = {"SWANN_SIMD": "avx512"}  # noqa: RUF012


SYSTEM = SwannAvx512()

"""What the core can do: operations and bytes a nanosecond, by a small program of its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

from benchmarks.paths import ENVS

SOURCE = Path(__file__).with_name("limits.cpp")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of this machine.

    Attributes
    ----------
    clock : float
        GHz.
    operations : dict
        By width of registers in bits (``"512"``, where there are those with VBMI and VNNI, and
        ``"256"``): shuffles, sums (dot products of bytes; additions) and logic a nanosecond.
    bytes : dict
        By "run:total": bytes a nanosecond in runs of so many bytes at random places of so many, or,
        where the run is 0, from one end to the other.
    """

    clock: float
    operations: dict[str, dict[str, float]]
    bytes: dict[str, float]

    def read(self, run: int, total: int) -> float:
        """Return the bytes a nanosecond of a pattern that was measured."""
        return self.bytes[pattern(run, total)]


def pattern(run: int, total: int) -> str:
    """Name runs of so many bytes in so many."""
    return f"{run}:{total}"


def measure(patterns: list[str]) -> Limits:
    """Compile the program and let it measure these patterns.

    Raises
    ------
    subprocess.CalledProcessError
        When there is no C++ compiler, or no x86 processor with AVX2.
    """
    ENVS.mkdir(parents=True, exist_ok=True)
    program = ENVS / "limits"
    subprocess.run(["g++", "-O2", "-std=c++17", "-o", program, SOURCE], check=True)
    told = subprocess.run([program, *patterns], check=True, stdout=subprocess.PIPE, text=True)
    return Limits(**json.loads(told.stdout))

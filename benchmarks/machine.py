"""What the machine is, as results tell it."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path


def describe(threads: int, rounds: int, clock: str) -> dict[str, object]:
    """Name the processor, how it was used, and how busy it was before."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    return {
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "threads": threads,
        "rounds": rounds,
        "clock": clock,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "load_before": os.getloadavg()[0],
    }


def free_bytes() -> int:
    """Memory that new processes may take."""
    text = Path("/proc/meminfo").read_text()
    return int(text.split("MemAvailable:")[1].split()[0]) * 1024

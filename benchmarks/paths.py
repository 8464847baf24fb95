"""Where the comparison keeps its things."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "benchmarks" / ".data"
ENVS = ROOT / "benchmarks" / ".envs"
RESULTS = ROOT / "benchmarks" / ".results"
PUBLISHED = ROOT / "docs" / "bench"

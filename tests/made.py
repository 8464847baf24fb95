"""What many tests draw: datapoints, and losses that quantizers train under."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from swann.quantize import exponential_weight, threshold_weight

LOSSES: list[dict[str, Any]] = [
    {},
    {"threshold": 1.5},
    {"weight": threshold_weight(1.5)},
    {"weight": exponential_weight(1.0)},
    {"weight": lambda scores: np.exp(-(scores**2))},  # errors across matter more: eta < 1
]
each_loss = pytest.mark.parametrize(
    "loss", LOSSES, ids=["l2", "threshold", "steps", "exponential", "around zero"]
)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)

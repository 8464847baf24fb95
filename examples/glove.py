"""The 51,000 most frequent words of GloVe-100, as the examples use them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PATH = Path(__file__).parent / "data" / "glove-100-51k.npz"


def load() -> tuple[list[str], NDArray[np.float32]]:
    """Return the words, most frequent first, and their vectors, float32 [51000, 100]."""
    with np.load(PATH) as data:
        words = data["words"].tobytes().decode().split("\n")
        vectors = data["codes"] * data["scales"].astype(np.float32)[:, None]
    return words, vectors

"""The second phase: codes that keep inner products, and the loss they are trained with.

`ProductQuantizer`, `VectorQuantizer` and `BinaryQuantizer` train, encode, decode and score on their
own. The loss is that of a threshold (`eta`), or of any weight function of the score
(`score_aware_weights`).
"""

from __future__ import annotations

from swann.quantize.anisotropic import anisotropic_weights, eta, eta_limit, eta_recursion
from swann.quantize.binary import BinaryQuantizer
from swann.quantize.hamming import hamming_distances, hamming_search
from swann.quantize.product import ProductQuantizer
from swann.quantize.vector import VectorQuantizer
from swann.quantize.weight_functions import (
    Weight,
    constant_weight,
    exponential_weight,
    threshold_weight,
)
from swann.quantize.weights import relative_weights, score_aware_loss, score_aware_weights

__all__ = [
    "BinaryQuantizer",
    "ProductQuantizer",
    "VectorQuantizer",
    "Weight",
    "anisotropic_weights",
    "constant_weight",
    "eta",
    "eta_limit",
    "eta_recursion",
    "exponential_weight",
    "hamming_distances",
    "hamming_search",
    "relative_weights",
    "score_aware_loss",
    "score_aware_weights",
    "threshold_weight",
]

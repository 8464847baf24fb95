"""What the quantizers share: the loss that they are asked for, and checks of what they get."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swann import kernels
from swann.config.checks import check_count, check_count_or_zero, check_threshold
from swann.errors import ConfigError, InvalidInputError, ShapeError
from swann.quantize.anisotropic import anisotropic_weights
from swann.quantize.weight_functions import Weight, as_weight
from swann.quantize.weights import relative_weights
from swann.vectors import Originals, as_database, as_integers, check_finite, slice_rows

__all__ = ["LONGEST", "Loss", "Origins", "Quantizer", "as_codes", "checked_norms"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]

LONGEST = 1e18
"""Vectors longer than this are refused: their squares would overflow float32."""

WeightFunction = Callable[[F64], ArrayLike]


@dataclass(frozen=True)
class Loss:
    """What an error costs: by a threshold, by a weight function, or all directions alike.

    Parameters
    ----------
    threshold : float
        T of the weight I(t >= T), every datapoint counting alike; NaN for none.
    weight : Weight, optional
        Any weight, datapoints counting as often as queries score them high.
    """

    threshold: float
    weight: Weight | None

    @classmethod
    def chosen(cls, threshold: float | None, weight: WeightFunction | None) -> Self:
        """Check the settings, of which one at most may be given."""
        at = check_threshold("threshold", threshold)
        if weight is not None and not math.isnan(at):
            raise ConfigError("threshold and weight are both given; expected one of them, or none")
        return cls(at, None if weight is None else as_weight(weight))

    def weigh(self, norms: F32, dimension: int) -> tuple[F32 | None, F32 | None]:
        """Return eta and the scale of datapoints; None where both directions, or all, are alike."""
        if self.weight is not None:
            return relative_weights(norms, dimension, self.weight)
        if math.isnan(self.threshold):
            return None, None
        return anisotropic_weights(norms, dimension, self.threshold) + np.float32(1.0), None

    def extra(self, norms: F32, dimension: int) -> tuple[F32 | None, F32 | None]:
        """Return eta - 1, as an index has it, and the scale of datapoints; None as in `weigh`."""
        if self.weight is None and not math.isnan(self.threshold):
            return anisotropic_weights(norms, dimension, self.threshold), None
        eta, scale = self.weigh(norms, dimension)
        return None if eta is None else eta - np.float32(1.0), scale


class Quantizer:
    """A codebook, and how it is trained; see `ProductQuantizer` and `VectorQuantizer`."""

    def __init__(
        self,
        *,
        threshold: float | None,
        weight: WeightFunction | None,
        iterations: int,
        seed: int | Sequence[int],
        num_threads: int,
    ) -> None:
        self.loss = Loss.chosen(threshold, weight)
        self.iterations = check_count("iterations", iterations)
        seeds = seed if isinstance(seed, Sequence) else [seed]
        self.seed = [check_count_or_zero("seed", part) for part in seeds]
        self.num_threads = check_count_or_zero("num_threads", num_threads)
        self._codebook: F32 | None = None

    @property
    def codebook(self) -> F32:
        """The codewords: all that an encoder or a decoder needs besides the settings.

        Raises
        ------
        ConfigError
            When read before there is one.
        """
        if self._codebook is None:
            raise ConfigError(f"this {type(self).__name__} has no codebook; call fit first")
        return self._codebook

    @codebook.setter
    def codebook(self, codebook: object) -> None:
        array = as_database(codebook, "codebook")
        words = slice_rows(array, 0, len(array))
        checked_norms(words, "codebook", 1, source=array)
        self._check_codebook(words)
        self._codebook = words

    def _check_codebook(self, codebook: F32) -> None:
        """Raise `ShapeError` if the settings do not allow such a codebook."""

    @property
    def dimension(self) -> int:
        """Of the datapoints."""
        raise NotImplementedError

    @property
    def _threads(self) -> int:
        return self.num_threads or kernels.hardware_threads()

    def _training_rows(self, datapoints: object) -> tuple[F32, F32]:
        """Return the rows to train on and their norms."""
        array = as_database(datapoints, "datapoints")
        rows = slice_rows(array, 0, len(array))
        return rows, checked_norms(rows, "datapoints", self._threads, source=array)

    def _given(self, datapoints: object, name: str = "datapoints") -> NDArray[Any]:
        """Return what is to be encoded or scored, its values not yet looked at."""
        array = as_database(datapoints, name, allow_empty=True)
        if array.shape[1] != self.dimension:
            raise ShapeError(
                f"{name} have {array.shape[1]} dimensions, but this {type(self).__name__} "
                f"expects {self.dimension}"
            )
        return array


class Origins:
    """Checked origins of residuals, or none; see `ProductQuantizer.fit`."""

    def __init__(
        self, origins: object, labels: object, shape: tuple[int, ...], threads: int
    ) -> None:
        self.table: F32 | None = None
        if (origins is None) != (labels is None):
            raise ConfigError("origins and labels go together; expected both, or none")
        if origins is None:
            return
        array = as_database(origins, "origins")
        if array.shape[1] != shape[1]:
            raise ShapeError(
                f"origins have {array.shape[1]} dimensions, but datapoints have {shape[1]}"
            )
        self.table = slice_rows(array, 0, len(array))
        checked_norms(self.table, "origins", threads, source=array)
        given = as_integers(labels, "labels")
        if given.shape != shape[:1]:
            raise ShapeError(f"labels has shape {given.shape}; expected {shape[:1]}")
        if given.size and not 0 <= int(given.min()) <= int(given.max()) < len(array):
            raise InvalidInputError(
                f"labels has values from {given.min()} to {given.max()}; there are {len(array)} "
                "origins"
            )
        self._labels = given.astype(np.uint32)

    def of(self, ids: NDArray[Any]) -> U32 | None:
        """Return the labels of some datapoints."""
        return None if self.table is None else self._labels[ids]


def checked_norms(
    rows: F32, name: str, threads: int, *, start: int = 0, source: Originals | None = None
) -> F32:
    """Return the norms of rows; refuse what float32 arithmetic cannot do with.

    Parameters
    ----------
    rows : float32 array of shape (n, d)
        Rows from number `start` on of what the caller calls `name`.
    source : ndarray, optional
        All of what the rows were converted from: values by row number and place.

    Raises
    ------
    NonFiniteError
        A value is NaN or infinite.
    InvalidInputError
        A row is longer than `LONGEST`.
    """
    bad, norms = kernels.check_rows(rows, threads)
    if bad < len(rows):
        check_finite(rows, name, start, source=source)
        raise InvalidInputError(
            f"{name}[{start + bad}] is longer than {LONGEST:g}; float32 scores would overflow"
        )
    return norms


def as_codes(codes: object, name: str, shape: tuple[int, ...], codewords: int) -> NDArray[Any]:
    """Return codes as an array of integers below `codewords`.

    Parameters
    ----------
    shape : tuple of int
        What is expected behind the first axis.

    Raises
    ------
    DTypeError, ShapeError, InvalidInputError
        Not integers; another shape; no such codeword.
    """
    array = as_integers(codes, name)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        wanted = ", ".join(["n", *map(str, shape)]) + ("," if not shape else "")
        raise ShapeError(f"{name} has shape {array.shape}; expected ({wanted})")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < codewords:
        raise InvalidInputError(
            f"{name} has values from {array.min()} to {array.max()}; expected 0 to {codewords - 1}"
        )
    return array

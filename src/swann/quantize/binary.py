"""Binary quantization: a datapoint becomes b bits, and is scored by them.

Guo et al. 2020, section 7.7: stochastic generative hashing (Dai et al. 2017), trained to
reconstruct datapoints, or trained with the score-aware loss. `swann.quantize.hashing` trains; the
layout of codes and their search by Hamming distance are in `swann.quantize.hamming`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swann import kernels
from swann.config.checks import check_count, check_count_or_zero, check_factor
from swann.errors import ConfigError, InvalidInputError, ShapeError
from swann.quantize.base import Loss, checked_norms
from swann.quantize.hamming import (
    as_binary_codes,
    as_signs,
    hamming_search,
    pack,
    product_search,
    signs,
)
from swann.quantize.hashing import HashModel, Target, descend_codes, train_hash
from swann.vectors import as_database, as_queries, slice_rows

__all__ = ["BinaryQuantizer"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

_ROWS_AT_ONCE = 8192


class BinaryQuantizer:
    """Codes of bits, with a linear encoder and a linear decoder, under either loss.

    Parameters
    ----------
    bits : int
        Of a code; a multiple of 8.
    threshold : float, optional
        T of the weight I(t >= T): the inner products, with unit queries, from which accuracy
        matters. Without it (and without `weight`) the loss is the plain squared error.
    weight : Weight or callable, optional
        Any weight function of the score in place of a threshold (see `swann.quantize.Weight`).
        Datapoints then count by their own h_perp.
    epochs : int
        Passes over the training rows.
    batch_size : int
        Datapoints of a step.
    learning_rate : float
        Of Adam at the start; it falls to 0 along a cosine. Rows are brought to a mean square of 1
        a dimension while training, so that the same rate fits all data.
    prior_weight : float
        How much of the description length of the codes counts beside the loss: 1 is the minimum
        description length as published, 0 leaves the loss alone.
    training_sample_size : int
        Datapoints to train on at most, chosen at random.
    seed : int or sequence of int
        Of all that is random.

    Raises
    ------
    ConfigError
        If a setting is bad, or both `threshold` and `weight` are given.

    Notes
    -----
    Guo et al. 2020, section 7.7; Dai et al., "Stochastic Generative Hashing", ICML 2017.

    A code says on which sides of `bits` planes a datapoint lies: bit j is 1 where
    ``(x - center) @ encoder[:, j] + bias[j] > 0``, center being the mean of the training rows.
    It stands for the datapoint ``signs @ decoder + shift``, signs being -1 and 1.

    There are two rankings. `search` compares the codes of queries and datapoints by Hamming
    distance; the decoder plays no part, and the loss matters only as far as it shapes the planes:
    the score-aware one changes recall by little, up or down. `search_asymmetric` ranks by the inner
    product of the query itself with the decoded datapoint, the score that the loss is about, and
    gains much by it. Which of the two finds more depends on the data: asymmetric scores do on
    GloVe-100, Hamming distances on Fashion-MNIST, whose pictures differ by little beside the errors
    of their decoded lengths.

    The same rows and settings give the same codes on one machine. On another processor, version of
    NumPy's BLAS or number of its threads, sums are rounded differently, and codes may differ.

    Examples
    --------
    >>> rows = np.random.default_rng(0).standard_normal((2000, 16))
    >>> quantizer = BinaryQuantizer(32, epochs=2).fit(rows)
    >>> codes = quantizer.encode(rows)
    >>> codes.shape, codes.dtype
    ((2000, 4), dtype('uint8'))
    >>> found, distances = quantizer.search(quantizer.encode(rows[:3]), codes, 10)
    >>> found.shape, distances[:, 0]
    ((3, 10), array([0, 0, 0], dtype=int32))
    """

    def __init__(
        self,
        bits: int,
        *,
        threshold: float | None = None,
        weight: Callable[[F64], ArrayLike] | None = None,
        epochs: int = 10,
        batch_size: int = 512,
        learning_rate: float = 0.03,
        prior_weight: float = 0.1,
        training_sample_size: int = 100_000,
        seed: int | Sequence[int] = 0,
    ) -> None:
        self.bits = check_count("bits", bits)
        if self.bits % 8:
            raise ConfigError(f"bits is {self.bits}; expected a multiple of 8")
        self.loss = Loss.chosen(threshold, weight)
        self.epochs = check_count("epochs", epochs)
        self.batch_size = check_count("batch_size", batch_size)
        self.learning_rate = _number("learning_rate", learning_rate)
        if not self.learning_rate:
            raise ConfigError("learning_rate is 0; expected a number above 0")
        self.prior_weight = _number("prior_weight", prior_weight)
        self.training_sample_size = check_count("training_sample_size", training_sample_size)
        seeds = seed if isinstance(seed, Sequence) else [seed]
        self.seed = [check_count_or_zero("seed", part) for part in seeds]
        self._model: HashModel | None = None

    @property
    def model(self) -> HashModel:
        """The arrays that encode and decode; all there is to keep besides the settings.

        Raises
        ------
        ConfigError
            When read before there is one.
        """
        if self._model is None:
            raise ConfigError("this BinaryQuantizer is not trained; call fit first")
        return self._model

    @property
    def dimension(self) -> int:
        """Of the datapoints."""
        return len(self.model.center)

    def fit(
        self, datapoints: object, *, on_epoch: Callable[[int, float], None] | None = None
    ) -> Self:
        """Train encoder and decoder.

        Parameters
        ----------
        datapoints : array_like of shape (n, d)
            Of any lengths, in no need of centring or scaling.
        on_epoch : callable, optional
            Called as ``on_epoch(number, mean_loss)`` after each pass, the loss being that of the
            random bits drawn in it.

        Returns
        -------
        BinaryQuantizer
            This one.

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, InvalidInputError
            As `swann.vectors.as_database` does; or no score that the datapoints can have matters.

        Notes
        -----
        Costs about ``10 n d bits epochs`` multiplications.
        """
        array = as_database(datapoints, "datapoints")
        rng = np.random.default_rng(self.seed)
        if len(array) > self.training_sample_size:
            array = array[np.sort(rng.permutation(len(array))[: self.training_sample_size])]
        target = self._target(slice_rows(array, 0, len(array)), 0, array)
        if not target.scale.any():
            raise InvalidInputError("weight is 0 for all scores that these datapoints can have")
        self._model = train_hash(
            target,
            self.bits,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            prior_weight=self.prior_weight,
            rng=rng,
            on_epoch=on_epoch,
        )
        return self

    def encode(self, datapoints: object, sweeps: int = 0) -> U8:
        """Return the codes of datapoints, or of queries for `search`.

        Parameters
        ----------
        datapoints : array_like of shape (n, d)
            Datapoints or queries; n may be 0.
        sweeps : int
            0 for the encoder's bits, as published. Otherwise bits are then turned over wherever
            that lowers the loss, in so many passes at most. Codes then stand for their datapoints
            better, which asymmetric scores gain by; Hamming distances between them may lose. A
            pass costs about twice what the encoder does (``n d bits`` multiplications).

        Returns
        -------
        uint8 array of shape (n, bits / 8)
            Bit j is bit ``j % 8``, counted from the lowest, of byte ``j // 8``.

        Raises
        ------
        ConfigError, ShapeError, DTypeError, NonFiniteError, InvalidInputError
            Not trained, or `sweeps` is bad; another dimension; bad values.
        """
        passes = check_count_or_zero("sweeps", sweeps)
        array = as_database(datapoints, "datapoints", allow_empty=True)
        if array.shape[1] != self.dimension:
            raise ShapeError(
                f"datapoints have {array.shape[1]} dimensions, but this BinaryQuantizer expects "
                f"{self.dimension}"
            )
        model = self.model
        codes = np.empty((len(array), self.bits // 8), np.uint8)
        for start in range(0, len(array), _ROWS_AT_ONCE):
            chunk = slice_rows(array, start, start + _ROWS_AT_ONCE)
            target = self._target(chunk, start, array)
            positive = (chunk - model.center) @ model.encoder + model.bias > 0.0
            if passes:
                turned = as_signs(positive)
                descend_codes(model, target, turned, passes)
                positive = turned > 0.0
            codes[start : start + len(chunk)] = pack(positive)
        return codes

    def decode(self, codes: object) -> F32:
        """Return the datapoints that codes stand for.

        Parameters
        ----------
        codes : uint8 array of shape (n, bits / 8)
            As `encode` returns them.

        Returns
        -------
        float32 array of shape (n, d)
            For ``n bits d`` multiplications.

        Raises
        ------
        ConfigError, DTypeError, ShapeError
            Not trained; not packed codes of so many bits.
        """
        decoded: F32 = signs(self._codes(codes, "codes")) @ self.model.decoder
        decoded += self.model.shift
        return decoded

    def search(self, query_codes: object, codes: object, k: int) -> tuple[I64, I32]:
        """Find the k codes at the least Hamming distance of each query's code.

        Parameters
        ----------
        query_codes, codes : uint8 array of shape (m, bits / 8) and (n, bits / 8)
            Of queries and datapoints, as `encode` returns them.
        k : int
            How many to find; of fewer codes, all.

        Returns
        -------
        tuple of (int64 array of shape (m, min(k, n)), int32 array of the same shape)
            Rows and distances, as `swann.quantize.hamming_search` does, for as much work.

        Raises
        ------
        ConfigError, DTypeError, ShapeError
            `k` is below 1; not packed codes of so many bits.
        """
        return hamming_search(
            self._codes(query_codes, "query_codes"), self._codes(codes, "codes"), k
        )

    def search_asymmetric(self, queries: object, codes: object, k: int) -> tuple[I64, F32]:
        """Find the k codes that stand for datapoints of the greatest inner products with a query.

        Parameters
        ----------
        queries : array_like of shape (m, d)
            As they are, not encoded.
        codes : uint8 array of shape (n, bits / 8)
            Of datapoints.
        k : int
            How many to find; of fewer codes, all.

        Returns
        -------
        tuple of (int64 array of shape (m, min(k, n)), float32 array of the same shape)
            Rows, the highest score first and of equal scores the lowest row first; and the scores
            ``queries @ decode(codes).T``.

        Raises
        ------
        ConfigError, DTypeError, ShapeError, NonFiniteError
            Not trained, or `k` below 1; not packed codes of so many bits; bad queries.

        Notes
        -----
        ``m n bits`` multiplications: the decoder is applied to the queries, once.
        """
        model = self.model
        asked = as_queries(queries, self.dimension)
        rows, products = product_search(asked @ model.decoder.T, self._codes(codes, "codes"), k)
        products += (asked @ model.shift)[:, None]
        return rows, products

    def _codes(self, codes: object, name: str) -> U8:
        return as_binary_codes(codes, name, self.bits // 8)

    def _target(self, rows: F32, start: int, source: object) -> Target:
        """Check rows from number `start` on, and say what errors of theirs cost."""
        array = source if isinstance(source, np.ndarray) else None
        norms = checked_norms(
            rows, "datapoints", kernels.hardware_threads(), start=start, source=array
        )
        extra, scale = self.loss.extra(norms, rows.shape[1])
        units = rows / np.where(norms > 0.0, norms, 1.0).astype(np.float32)[:, None]
        ones = np.ones(len(rows), np.float32)
        extra = np.zeros_like(ones) if extra is None else extra
        return Target(rows, units, extra, ones if scale is None else scale)


def _number(name: str, value: object) -> float:
    number = check_factor(0.0)(name, value)
    if number is None:
        raise ConfigError(f"{name} is {value!r}; expected a finite number of at least 0")
    return float(number)

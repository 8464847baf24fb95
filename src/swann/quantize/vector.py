"""Anisotropic vector quantization: every datapoint is replaced by one of k codewords.

Guo et al. 2020, Definition 4.1: codewords and assignment minimise the score-aware loss, summed over
the datapoints. Assignment and update take turns, as in k-means (Lloyd); the best codeword of given
datapoints has a closed form (Theorem 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swann import kernels
from swann.config.checks import check_count
from swann.errors import InvalidInputError
from swann.partition.kmeans import train_centroids
from swann.quantize.base import Quantizer, as_codes, checked_norms
from swann.vectors import chunks

__all__ = ["VectorQuantizer"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]

_CONVERGED = 1e-4
_ROWS_AT_ONCE = 16384


class VectorQuantizer(Quantizer):
    """Vector quantization under the score-aware loss, or under plain squared l2.

    Parameters
    ----------
    codewords : int
        How many codewords to train; of fewer datapoints, as many as there are datapoints.
    threshold : float, optional
        T of the weight I(t >= T): the inner products, with unit queries, from which accuracy
        matters. Every datapoint counts alike, as in an index; those too short to reach T count as
        barely reaching it.
    weight : Weight or callable, optional
        Any weight function of the score in place of a threshold (see `swann.quantize.Weight`).
        Datapoints then count by their own h_par and h_perp, so long ones count more.
    iterations : int
        Rounds of assignment and update at most, first under l2 (k-means), then under the loss.
    seed : int or sequence of int
        Chooses where the codewords start.
    num_threads : int
        Threads to use, 0 for all cores; the result does not depend on it.

    Attributes
    ----------
    codebook : float32 array of shape (k, d)
        The codewords. Can be set: an array that was saved makes a fitted quantizer.

    Raises
    ------
    ConfigError
        If a setting is bad, or both `threshold` and `weight` are given.

    Notes
    -----
    Guo et al. 2020, Definition 4.1. An update is the closed form of Theorem 4.2: the codeword
    ``(sum_i A_i)^-1 sum_i A_i x_i`` of the datapoints that chose it, with
    ``A = h_perp I + (h_par - h_perp) x x^T / |x|^2``, found by conjugate gradients.

    Examples
    --------
    >>> import numpy as np
    >>> datapoints = np.random.default_rng(0).standard_normal((1000, 8))
    >>> quantizer = VectorQuantizer(16, threshold=1.0).fit(datapoints)
    >>> codes = quantizer.encode(datapoints)
    >>> quantizer.decode(codes).shape
    (1000, 8)
    """

    def __init__(
        self,
        codewords: int,
        *,
        threshold: float | None = None,
        weight: Callable[[F64], ArrayLike] | None = None,
        iterations: int = 12,
        seed: int | Sequence[int] = 0,
        num_threads: int = 0,
    ) -> None:
        super().__init__(
            threshold=threshold,
            weight=weight,
            iterations=iterations,
            seed=seed,
            num_threads=num_threads,
        )
        self.codewords = check_count("codewords", codewords)

    @property
    def dimension(self) -> int:
        """Of the datapoints."""
        return int(self.codebook.shape[1])

    def fit(
        self,
        datapoints: object,
        *,
        on_iteration: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Train the codebook.

        Parameters
        ----------
        datapoints : array_like of shape (n, d)
            Of any lengths; those of zeros have no direction, and any error of theirs is across.
        on_iteration : callable, optional
            Called as ``on_iteration(number, mean_loss)`` after each assignment. Under the
            score-aware loss (its rounds begin with number 0 once more) the loss never rises.

        Returns
        -------
        VectorQuantizer
            This one.

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, InvalidInputError
            As `swann.vectors.as_database` does; or no score that the datapoints can have matters.

        Notes
        -----
        Stops early where a round lowers the loss by less than a part in 10,000. A round costs about
        ``n k d`` multiplications. Codewords that no datapoint chooses stay where they are.
        """
        rows, norms = self._training_rows(datapoints)
        eta, scale = self.loss.weigh(norms, rows.shape[1])
        if scale is not None and not scale.any():
            raise InvalidInputError("weight is 0 for all scores that these datapoints can have")
        codebook = train_centroids(
            rows,
            min(self.codewords, len(rows)),
            iterations=self.iterations,
            min_partition_size=1,
            random_init=False,
            rng=np.random.default_rng(self.seed),
            threads=self._threads,
            on_iteration=on_iteration,
        )
        if eta is not None:
            self._descend(rows, eta, scale, codebook, on_iteration)
        self._codebook = codebook
        return self

    def _descend(
        self,
        rows: F32,
        eta: F32,
        scale: F32 | None,
        codebook: F32,
        on_iteration: Callable[[int, float], None] | None,
    ) -> None:
        """Assign and update in turn, in place, from codewords that are good under l2."""
        before = np.inf
        for number in range(self.iterations):
            labels, _ = kernels.assign_leaves(rows, codebook, self._threads, eta)
            loss = mean_loss(rows, codebook, labels, eta, scale)
            if on_iteration is not None:
                on_iteration(number, loss)
            order, starts = kernels.sort_by_leaf(labels, len(codebook))
            kernels.anisotropic_centroids(rows, order, starts, eta, codebook, self._threads, scale)
            if before - loss < _CONVERGED * before:
                break
            before = loss

    def encode(self, datapoints: object) -> U32:
        """Return the numbers of the codewords that lose least.

        Parameters
        ----------
        datapoints : array_like of shape (n, d)
            n may be 0.

        Returns
        -------
        uint32 array of shape (n,)
            Ties go to the lowest number. A datapoint's code does not depend on the others.

        Raises
        ------
        ConfigError, ShapeError, DTypeError, NonFiniteError, InvalidInputError
            As their names say.
        """
        array = self._given(datapoints)
        codes = np.empty(len(array), np.uint32)
        held = kernels.Centroids(self.codebook, self._threads)
        for start, rows in chunks(array, _ROWS_AT_ONCE):
            norms = checked_norms(rows, "datapoints", self._threads, start=start, source=array)
            eta, _ = self.loss.weigh(norms, self.dimension)
            codes[start : start + len(rows)], _ = kernels.assign_leaves(
                rows, held, self._threads, 1.0 if eta is None else eta
            )
        return codes

    def decode(self, codes: object) -> F32:
        """Return the codewords that codes stand for.

        Parameters
        ----------
        codes : integer array of shape (n,)
            As `encode` returns them.

        Returns
        -------
        float32 array of shape (n, d)

        Raises
        ------
        ConfigError, ShapeError, DTypeError, InvalidInputError
            There is no codebook yet; there are no such codes.
        """
        words: F32 = self.codebook[as_codes(codes, "codes", (), len(self.codebook))]
        return words


def mean_loss(rows: F32, codebook: F32, labels: U32, eta: F32, scale: F32 | None) -> float:
    """Return the mean of ``|e|^2 + (eta - 1) <e, x / |x|>^2`` of rows, weighted by their scales."""
    total = 0.0
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        x = rows[part].astype(np.float64)
        error = x - codebook[labels[part]]
        square = np.einsum("ij,ij->i", x, x)
        along = np.einsum("ij,ij->i", x, error) ** 2
        along = np.divide(along, square, out=np.zeros_like(along), where=square > 0.0)
        losses = np.einsum("ij,ij->i", error, error) + (eta[part] - 1.0) * along
        total += float(np.sum(losses if scale is None else scale[part] * losses))
    return total / (len(rows) if scale is None else float(scale.sum(dtype=np.float64)))

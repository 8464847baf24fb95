"""A product quantizer: it trains a codebook, encodes, decodes and scores.

Guo et al. 2020, Definition 4.3. What a codebook is, and how it is trained: `codebook.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swann import kernels
from swann.config.checks import check_count
from swann.errors import ConfigError, InvalidInputError, ShapeError
from swann.kernels import LANES, Tiles
from swann.quantize.base import Origins, Quantizer, as_codes, checked_norms
from swann.quantize.codebook import MAX_SWEEPS, train_codebook
from swann.vectors import as_queries, chunks

__all__ = ["ProductQuantizer"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]

_ROWS_AT_ONCE = 16384
_UPDATES = ("blockwise", "joint")


class ProductQuantizer(Quantizer):
    """Product quantization under the score-aware loss, or under plain squared l2.

    The codebooks of an index are trained by this class, on the residuals of its leaves.

    Parameters
    ----------
    dimensions_per_block : int
        Dimensions that share one code.
    codewords : {16, 256}
        Of a block: codes of 4 bits or of 8.
    threshold : float, optional
        T of the weight I(t >= T): the inner products, with unit queries, from which accuracy
        matters. Every datapoint counts alike, as in an index; those too short to reach T count as
        barely reaching it.
    weight : Weight or callable, optional
        Any weight function of the score in place of a threshold (see `swann.quantize.Weight`).
        Datapoints then count by their own h_par and h_perp, so long ones count more.
    iterations : int
        Rounds of assignment and update at most, first under l2, then under the loss.
    update : {"blockwise", "joint"}
        Whether an update of the codebook solves one block after the other, each once, or goes on
        until all blocks together are at their optimum.
    seed : int or sequence of int
        Chooses where the codewords start.
    num_threads : int
        Threads to use, 0 for all cores; the result does not depend on it.

    Attributes
    ----------
    codebook : float32 array of shape (d, codewords)
        Column k holds codeword k of every block. Can be set: an array that was saved makes a
        fitted quantizer.

    Raises
    ------
    ConfigError
        If a setting is bad, or both `threshold` and `weight` are given.

    Notes
    -----
    Guo et al. 2020, Definition 4.3; how codes are chosen and codewords are updated, section 7.5.

    Examples
    --------
    >>> import numpy as np
    >>> datapoints = np.random.default_rng(0).standard_normal((1000, 8))
    >>> quantizer = ProductQuantizer(2, threshold=1.0).fit(datapoints)
    >>> codes = quantizer.encode(datapoints)
    >>> codes.shape, quantizer.bits
    ((1000, 4), 16)
    >>> quantizer.asymmetric_scores(datapoints[:3], codes).shape
    (3, 1000)
    """

    def __init__(
        self,
        dimensions_per_block: int,
        *,
        codewords: int = 16,
        threshold: float | None = None,
        weight: Callable[[F64], ArrayLike] | None = None,
        iterations: int = 10,
        update: str = "blockwise",
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
        self.dimensions_per_block = check_count("dimensions_per_block", dimensions_per_block)
        self.codewords = check_count("codewords", codewords)
        if self.codewords not in (16, 256):
            raise ConfigError(f"codewords is {codewords}; expected 16 or 256")
        if not isinstance(update, str) or update not in _UPDATES:
            raise ConfigError(f"update is {update!r}; expected one of {', '.join(_UPDATES)}")
        self.update = update

    def _check_codebook(self, codebook: F32) -> None:
        if codebook.shape[1] != self.codewords:
            raise ShapeError(f"codebook has shape {codebook.shape}; expected (d, {self.codewords})")
        self._check_width(codebook.shape[0])

    def _check_width(self, dimension: int) -> None:
        if self.dimensions_per_block > dimension:
            raise ConfigError(
                f"dimensions_per_block is {self.dimensions_per_block}, but there are only "
                f"{dimension} dimensions"
            )

    @property
    def dimension(self) -> int:
        """Of the datapoints."""
        return len(self.codebook)

    @property
    def num_blocks(self) -> int:
        """How many codes a datapoint has."""
        return kernels.num_blocks(self.dimension, self.dimensions_per_block)

    @property
    def bits(self) -> int:
        """How many bits the codes of a datapoint take."""
        return self.num_blocks * (4 if self.codewords == 16 else 8)

    # ---- Training

    def fit(
        self,
        datapoints: object,
        *,
        origins: object = None,
        labels: object = None,
        on_iteration: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Train the codebook.

        Parameters
        ----------
        datapoints : array_like of shape (n, d)
            Of any lengths; those of zeros have no direction, and any error of theirs is across.
            Where n is no multiple of 16, up to 15 of them count twice.
        origins : array_like of shape (m, d), optional
            With `labels`, residuals to these are quantized. What matters is still an error along
            the datapoint itself.
        labels : integer array of shape (n,), optional
            The origin of each datapoint.
        on_iteration : callable, optional
            Called as ``on_iteration(number, mean_loss)`` after each assignment; see
            `swann.quantize.codebook.train_codebook`.

        Returns
        -------
        ProductQuantizer
            This one.

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, InvalidInputError
            As `swann.vectors.as_database` does; or no score that the datapoints can have matters.
        ConfigError
            If blocks are wider than the datapoints; `origins` without `labels`, or the reverse.

        Notes
        -----
        A round costs about ``codewords n d`` multiplications; there are at most `iterations` under
        l2 and as many under the loss, fewer where a round lowers it by less than a part in 1,000.
        """
        rows, norms = self._training_rows(datapoints)
        self._check_width(rows.shape[1])
        centers = Origins(origins, labels, rows.shape, self._threads)
        every = np.resize(np.arange(len(rows)), -(-len(rows) // LANES) * LANES)
        return self.fit_tiles(
            self._tiles(rows[every], norms[every], centers.table, centers.of(every)),
            on_iteration=on_iteration,
        )

    def fit_tiles(
        self, tiles: Tiles, *, on_iteration: Callable[[int, float], None] | None = None
    ) -> Self:
        """Train the codebook on datapoints laid out by `swann.kernels.make_tiles`.

        With directions and weights the loss is theirs, whatever the settings say.

        Parameters
        ----------
        tiles : Tiles
            Datapoints, 16 a tile.
        on_iteration : callable, optional
            As for `fit`.

        Returns
        -------
        ProductQuantizer
            This one.

        Raises
        ------
        ConfigError, InvalidInputError
            If blocks are wider than the datapoints; if none of these counts.
        """
        self._check_width(tiles.targets.shape[1])
        if tiles.scales is not None and not tiles.scales.any():
            raise InvalidInputError("weight is 0 for all scores that these datapoints can have")
        self._codebook = train_codebook(
            tiles,
            self.dimensions_per_block,
            codewords=self.codewords,
            iterations=self.iterations,
            rng=np.random.default_rng(self.seed),
            threads=self._threads,
            on_iteration=on_iteration,
            joint=self.update == "joint",
        )
        return self

    def _tiles(self, rows: F32, norms: F32, table: F32 | None, labels: U32 | None) -> Tiles:
        """Rows as tiles, with the weights that the loss gives them."""
        weights, scales = self.loss.extra(norms, rows.shape[1])
        return kernels.make_tiles(rows, table, labels, weights, self._threads, scales)

    # ---- Codes

    def encode(self, datapoints: object, *, origins: object = None, labels: object = None) -> U8:
        """Return codes of datapoints, or of their residuals.

        Each block first chooses at a price for its part of the error along the datapoint, then
        coordinate descent over the blocks lowers the loss (section 7.5), in six passes at most
        over all. A pass costs ``codewords n d`` multiplications.

        Parameters
        ----------
        datapoints : array_like of shape (n, d)
            n may be 0.
        origins, labels : array_like, optional
            As for `fit`.

        Returns
        -------
        uint8 array of shape (n, num_blocks)
            A datapoint's codes do not depend on the others.

        Raises
        ------
        ConfigError
            There is no codebook yet; `origins` without `labels`, or the reverse.
        ShapeError, DTypeError, NonFiniteError, InvalidInputError
            As their names say.
        """
        array = self._given(datapoints)
        centers = Origins(origins, labels, array.shape, self._threads)
        out = np.empty((len(array), self.num_blocks), np.uint8)
        for start, rows in chunks(array, _ROWS_AT_ONCE):
            checked_norms(rows, "datapoints", self._threads, start=start, source=array)
            every = np.resize(np.arange(len(rows)), -(-len(rows) // LANES) * LANES)
            rows = rows[every]
            _, norms = kernels.check_rows(rows, self._threads)
            tiles = self._tiles(rows, norms, centers.table, centers.of(start + every))
            codes, _ = kernels.encode_tiles(
                tiles, self.codebook, self.dimensions_per_block, MAX_SWEEPS, self._threads
            )
            by_row = codes.transpose(0, 2, 1).reshape(-1, out.shape[1])
            out[start : start + _ROWS_AT_ONCE] = by_row[: len(out) - start]
        return out

    def decode(self, codes: object) -> F32:
        """Return what codes stand for: datapoints, or residuals where those were encoded.

        Parameters
        ----------
        codes : integer array of shape (n, num_blocks)
            As `encode` returns them.

        Returns
        -------
        float32 array of shape (n, d)

        Raises
        ------
        ConfigError, ShapeError, DTypeError, InvalidInputError
            There is no codebook yet; there are no such codes.
        """
        blocks = self.num_blocks
        given = as_codes(codes, "codes", (blocks,), self.codewords)
        words = np.ascontiguousarray(self._words().transpose(0, 2, 1))
        decoded = words[np.arange(blocks), given].reshape(len(given), -1)
        return np.ascontiguousarray(decoded[:, : self.dimension])

    # ---- Scores

    def lookup_tables(self, queries: object) -> F32:
        """Return the inner products of queries with every codeword, block by block.

        The score of a datapoint is the sum of the entries that its codes choose, one a block.

        Parameters
        ----------
        queries : array_like of shape (q, d)
            q may be 0.

        Returns
        -------
        float32 array of shape (q, num_blocks, codewords)
            For ``q codewords d`` multiplications.

        Raises
        ------
        ConfigError, ShapeError, DTypeError, NonFiniteError
            There is no codebook yet; queries that cannot be used.
        """
        rows = as_queries(queries, self.dimension)
        words = self._words()
        padded = np.zeros((len(rows), words.shape[0] * words.shape[1]), np.float32)
        padded[:, : self.dimension] = rows
        by_block = padded.reshape(len(rows), *words.shape[:2])
        tables = np.zeros((len(rows), len(words), self.codewords), np.float32)
        for j in range(words.shape[1]):
            tables += by_block[:, :, j, None] * words[:, j]
        return tables

    def asymmetric_scores(self, queries: object, codes: object) -> F32:
        """Return inner products of queries, as they are, with datapoints as their codes have them.

        Parameters
        ----------
        queries : array_like of shape (q, d)
            What is searched for.
        codes : integer array of shape (n, num_blocks)
            As `encode` returns them.

        Returns
        -------
        float32 array of shape (q, n)
            The sums of `lookup_tables`' entries, up to rounding; computed from decoded datapoints,
            which takes ``q n d`` multiplications. A score does not depend on the others.

        Raises
        ------
        ShapeError, DTypeError, NonFiniteError, InvalidInputError
            As their names say.
        """
        rows = as_queries(queries, self.dimension)
        given = as_codes(codes, "codes", (self.num_blocks,), self.codewords)
        out = np.empty((len(rows), len(given)), np.float32)
        for start in range(0, len(given), _ROWS_AT_ONCE):
            part = self.decode(given[start : start + _ROWS_AT_ONCE])
            out[:, start : start + len(part)] = kernels.project_rows(
                rows, part, len(part), self._threads
            )
        return out

    def symmetric_scores(self, query_codes: object, codes: object) -> F32:
        """Return inner products of queries with datapoints, both as their codes have them.

        Queries then cost as little memory as datapoints, and scores are less accurate than
        `asymmetric_scores`: the error of the query comes on top.

        Parameters
        ----------
        query_codes : integer array of shape (q, num_blocks)
            Of the queries, encoded as datapoints are.
        codes : integer array of shape (n, num_blocks)
            Of the datapoints.

        Returns
        -------
        float32 array of shape (q, n)
            For ``q n d`` multiplications.

        Raises
        ------
        ConfigError, ShapeError, DTypeError, InvalidInputError
            There is no codebook yet; there are no such codes.

        Notes
        -----
        Jégou et al., "Product quantization for nearest neighbor search", 2011, compare both.
        """
        checked = as_codes(query_codes, "query_codes", (self.num_blocks,), self.codewords)
        return self.asymmetric_scores(self.decode(checked), codes)

    def _words(self) -> F32:
        """Return the codebook as (blocks, width, codewords); zeros fill up the last block."""
        blocks, width = self.num_blocks, self.dimensions_per_block
        padded = np.zeros((blocks * width, self.codewords), np.float32)
        padded[: self.dimension] = self.codebook
        return padded.reshape(blocks, width, self.codewords)

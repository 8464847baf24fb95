"""Settings of scoring and reordering."""

from __future__ import annotations

import math
from dataclasses import dataclass

from swann.config.checks import (
    Config,
    ReorderType,
    check_count,
    check_reorder_type,
    check_threshold,
)
from swann.errors import ConfigError

__all__ = ["AHConfig", "BruteForceConfig", "ReorderConfig"]

# Scores of all blocks add up in 16 bits: with more blocks, too few steps are left for each.
_MOST_BLOCKS = 2**14


@dataclass(frozen=True, kw_only=True, eq=False)
class AHConfig(Config):
    """Settings of asymmetric hashing: product-quantized codes scored with lookup tables.

    Parameters
    ----------
    dimensions_per_block : int
        Dimensions that share one code; 2 is the usual choice. At most the dimension of the
        database. The last block is shorter where it does not divide.
    anisotropic_quantization_threshold : float
        The T of the score-aware loss, above 0: a score that matters. It belongs to the length of
        the rows: 0.2 suits unit vectors of about 100 dimensions, 1.0 the same vectors five times
        as long. NaN or None: plain reconstruction error.
    training_sample_size : int
        Datapoints that the codebooks are trained on, at most; never more than 1,024 a codeword,
        and of a small database a third or 16,384.
    hash_type : {"lut16", "lut256"}
        16 codewords a block and 4-bit codes, or 256 and 8-bit codes: more accurate at twice the
        memory, and slower to search and to build.
    training_iterations : int
        Upper limit on training iterations.
    """

    dimensions_per_block: int = 2
    anisotropic_quantization_threshold: float = math.nan
    training_sample_size: int = 100_000
    hash_type: str = "lut16"
    training_iterations: int = 10

    def __post_init__(self) -> None:
        self.normalize(
            check_count, "dimensions_per_block", "training_sample_size", "training_iterations"
        )
        self.normalize(check_threshold, "anisotropic_quantization_threshold")
        if not isinstance(self.hash_type, str) or self.hash_type not in ("lut16", "lut256"):
            raise ConfigError(f"hash_type is {self.hash_type!r}; expected 'lut16' or 'lut256'")

    @property
    def codewords(self) -> int:
        """Codewords of a block."""
        return 256 if self.hash_type == "lut256" else 16

    @property
    def anisotropic(self) -> bool:
        """Whether a threshold is set."""
        return not math.isnan(self.anisotropic_quantization_threshold)

    @staticmethod
    def narrowest(dimension: int, dimensions_per_block: int) -> int:
        """Return the least width of blocks, from `dimensions_per_block` on, that is allowed.

        Parameters
        ----------
        dimension : int
            Of what is encoded.
        dimensions_per_block : int
            The width that is asked for.

        Returns
        -------
        int
            At most `dimension`.
        """
        return max(min(dimension, dimensions_per_block), -(-dimension // _MOST_BLOCKS))

    def check_dimension(self, dimension: int, reduced_dim: int | None = None) -> None:
        """Check that blocks are no wider than what they cut, and not too many.

        Parameters
        ----------
        dimension : int
            Of the database.
        reduced_dim : int, optional
            What a projection leaves of it.

        Raises
        ------
        ConfigError
            If they are.
        """
        whose = "db has only" if reduced_dim is None else "the projection leaves only"
        dimension = dimension if reduced_dim is None else reduced_dim
        if self.dimensions_per_block > dimension:
            raise ConfigError(
                f"dimensions_per_block is {self.dimensions_per_block}, but {whose} "
                f"{dimension} dimension{'s' * (dimension > 1)}"
            )
        blocks = -(-dimension // self.dimensions_per_block)
        if blocks > _MOST_BLOCKS:
            least = -(-dimension // _MOST_BLOCKS)
            raise ConfigError(
                f"dimensions_per_block is {self.dimensions_per_block}, which cuts {dimension} "
                f"dimensions into {blocks} blocks; expected at least {least}, for "
                f"{_MOST_BLOCKS} blocks at most"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class BruteForceConfig(Config):
    """Scores of whole rows.

    Parameters
    ----------
    quantize : ReorderType
        Precision of the rows; True means INT8.
    """

    quantize: ReorderType = ReorderType.FLOAT32

    def __post_init__(self) -> None:
        self.normalize(check_reorder_type, "quantize")


@dataclass(frozen=True, kw_only=True, eq=False)
class ReorderConfig(Config):
    """Settings of reordering.

    Parameters
    ----------
    reordering_num_neighbors : int
        Candidates whose exact scores decide the final order. A search that asks for more
        neighbors than this reorders as many as it returns.
    quantize : ReorderType
        Precision of the rows; True means INT8.
    anisotropic_quantization_threshold : float
        With INT8 or BFLOAT16: round each value up or down so that the score-aware loss of the row
        falls. NaN or None: to the nearest.
    """

    reordering_num_neighbors: int
    quantize: ReorderType = ReorderType.FLOAT32
    anisotropic_quantization_threshold: float = math.nan

    def __post_init__(self) -> None:
        self.normalize(check_count, "reordering_num_neighbors")
        self.normalize(check_reorder_type, "quantize")
        self.normalize(check_threshold, "anisotropic_quantization_threshold")

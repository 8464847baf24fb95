"""Settings of an index: frozen dataclasses, checked when made, to and from plain JSON types.

::

    IndexConfig
    ├── tree     TreeConfig         or None: every datapoint is scored
    ├── score    AHConfig           approximate scores from product-quantized codes
    │            BruteForceConfig   exact scores
    └── reorder  ReorderConfig      or None: approximate scores are final

Names and defaults are ScaNN's.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from swann.distance import DistanceMeasure, check_distance_measure
from swann.errors import ConfigError

__all__ = [
    "AHConfig",
    "BruteForceConfig",
    "IndexConfig",
    "ReorderConfig",
    "ReorderType",
    "TreeConfig",
    "check_count",
]

_LARGEST = 2**63 - 1

# Scores of all blocks add up in 16 bits: with more blocks, too few steps are left for each.
_MOST_BLOCKS = 2**14


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an int that is at least `minimum`.

    Raises
    ------
    ConfigError
        If it is a bool, not an integer, or below `minimum`.

    Examples
    --------
    >>> check_count("num_leaves", 600)
    600
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(
            f"{name} is {value!r} ({type(value).__name__}); expected an integer"
        ) from None
    if not minimum <= count <= _LARGEST:
        raise ConfigError(f"{name} is {count}; expected at least {minimum}, at most 2**63 - 1")
    return count


def _check_count_or_zero(name: str, value: object) -> int:
    return check_count(name, value, minimum=0)


def _check_flag(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{name} is {value!r}; expected True or False")
    return bool(value)


class _Config:
    """What all settings share: counts and flags normalised, equality, JSON."""

    def _normalize(self, check: Any, *names: str) -> None:
        for name in names:
            object.__setattr__(self, name, check(name, getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON types; NaN becomes None."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Make settings from what `to_dict` returned.

        Raises
        ------
        ConfigError
            If a key is unknown or missing, or a value is bad.
        """
        if not isinstance(settings, Mapping):
            raise ConfigError(f"{cls.__name__} is {settings!r}; expected a mapping of settings")
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        known = {field.name for field in fields}
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        if unknown := sorted(map(str, settings.keys() - known)):
            raise ConfigError(f"{cls.__name__} has unknown settings: {', '.join(unknown)}")
        if missing := sorted(needed - settings.keys()):
            raise ConfigError(f"{cls.__name__} lacks settings: {', '.join(missing)}")
        return cls(**settings)

    # NaN differs from itself, so equality goes through the JSON form.
    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.to_dict() == self.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.name if isinstance(value, enum.Enum) else value


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeConfig(_Config):
    """Settings of the partition.

    Parameters
    ----------
    num_leaves : int
        Leaves of the tree. About the square root of the number of datapoints is a good start.
    num_leaves_to_search : int
        Leaves that a search visits by default; time and recall grow with it.
    training_sample_size : int
        Datapoints that the centroids are trained on.
    min_partition_size : int
        Leaves that would hold fewer datapoints are dissolved into others; 0: none are.
    training_iterations : int
        Upper limit on k-means iterations.
    spherical : bool
        Keep centroids on the unit sphere.
    quantize_centroids : bool
        Not supported yet: only False.
    random_init : bool
        Start from random datapoints; False: from datapoints that are far apart (k-means++).
    soar_lambda : float, optional
        Give every datapoint a second leaf, chosen by SOAR with this weight on residuals that are
        parallel to the first; 1.0 to 1.5 is usual. Codes take twice the memory, and fewer
        datapoints are scored for the same recall.
    overretrieve_factor : float, optional
        With `soar_lambda`: candidates kept for each one asked for, since some come twice; 2 by
        default, at least 1.
    """

    num_leaves: int
    num_leaves_to_search: int
    training_sample_size: int = 100_000
    min_partition_size: int = 50
    training_iterations: int = 12
    spherical: bool = False
    quantize_centroids: bool = False
    random_init: bool = True
    soar_lambda: float | None = None
    overretrieve_factor: float | None = None

    def __post_init__(self) -> None:
        self._normalize(
            check_count,
            "num_leaves",
            "num_leaves_to_search",
            "training_sample_size",
            "training_iterations",
        )
        self._normalize(_check_count_or_zero, "min_partition_size")
        self._normalize(_check_flag, "spherical", "quantize_centroids", "random_init")
        if self.num_leaves_to_search > self.num_leaves:
            raise ConfigError(
                f"num_leaves_to_search is {self.num_leaves_to_search}, but there are only "
                f"num_leaves={self.num_leaves}"
            )
        self._normalize(_check_factor(0.0), "soar_lambda")
        self._normalize(_check_factor(1.0), "overretrieve_factor")
        if self.overretrieve_factor is not None and self.soar_lambda is None:
            raise ConfigError(
                "overretrieve_factor is given without soar_lambda; it says how many candidates to "
                "keep where spilled datapoints come twice"
            )
        if self.quantize_centroids:
            raise ConfigError("quantize_centroids=True is not supported yet; leave it at False")


@dataclass(frozen=True, kw_only=True, eq=False)
class AHConfig(_Config):
    """Settings of asymmetric hashing: product-quantized codes scored with lookup tables.

    Parameters
    ----------
    dimensions_per_block : int
        Dimensions that share one 4-bit code; 2 is the usual choice. At most the dimension of the
        database. The last block is shorter where it does not divide.
    anisotropic_quantization_threshold : float
        The T of the score-aware loss, in the open interval (0, 1); 0.2 suits unit vectors of
        about 100 dimensions. NaN or None: plain reconstruction error.
    training_sample_size : int
        Datapoints that the codebooks are trained on, at most; of a small database, a third or
        16,384.
    hash_type : {"lut16"}
        16 codewords a block. ScaNN's "lut256" is not supported yet.
    training_iterations : int
        Upper limit on training iterations.
    """

    dimensions_per_block: int = 2
    anisotropic_quantization_threshold: float = math.nan
    training_sample_size: int = 100_000
    hash_type: str = "lut16"
    training_iterations: int = 10

    def __post_init__(self) -> None:
        self._normalize(
            check_count, "dimensions_per_block", "training_sample_size", "training_iterations"
        )
        self._normalize(_check_threshold, "anisotropic_quantization_threshold")
        if self.hash_type == "lut256":
            raise ConfigError("hash_type 'lut256' is not supported yet; expected 'lut16'")
        if self.hash_type != "lut16":
            raise ConfigError(f"hash_type is {self.hash_type!r}; expected 'lut16'")

    @property
    def anisotropic(self) -> bool:
        """Whether a threshold is set."""
        return not math.isnan(self.anisotropic_quantization_threshold)

    def check_dimension(self, dimension: int) -> None:
        """Raise `ConfigError` if blocks would be wider than the database, or too many."""
        if self.dimensions_per_block > dimension:
            raise ConfigError(
                f"dimensions_per_block is {self.dimensions_per_block}, but db has only "
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


def _check_factor(least: float) -> Any:
    def check(name: str, value: object) -> float | None:
        if value is None:
            return None
        expected = f"expected a finite number of at least {least:g}, or None"
        try:
            if isinstance(value, (bool, str, bytes)):
                raise TypeError
            factor = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ConfigError(f"{name} is {value!r}; {expected}") from None
        if not least <= factor < math.inf:
            raise ConfigError(f"{name} is {factor}; {expected}")
        return factor

    return check


def _check_threshold(name: str, value: object) -> float:
    if value is None:
        return math.nan
    expected = "expected a number between 0 and 1, both excluded, or NaN for none"
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        threshold = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}; {expected}") from None
    if not (math.isnan(threshold) or 0.0 < threshold < 1.0):
        raise ConfigError(f"{name} is {threshold}; {expected}")
    return threshold


class ReorderType(enum.Enum):
    """Precision of the rows that are scored one by one, in ScaNN's names and numbers.

    Attributes
    ----------
    FLOAT32
        Exact; 4 bytes a dimension.
    INT8
        1 byte a dimension and 4 a row (8 under squared l2): values times a scale of the row's own.
    BFLOAT16
        2 bytes a dimension, 8 significant bits.
    """

    FLOAT32 = 1
    INT8 = 2
    BFLOAT16 = 3

    def __repr__(self) -> str:
        return f"ReorderType.{self.name}"


def _check_reorder_type(name: str, value: object) -> ReorderType:
    """Accept a `ReorderType`, its name, or ScaNN's plain True (INT8) and False (FLOAT32)."""
    if isinstance(value, ReorderType):
        return value
    if isinstance(value, (bool, np.bool_)):
        return ReorderType.INT8 if value else ReorderType.FLOAT32
    # ScaNN's own enum has the same names.
    given = getattr(value, "name", value)
    if isinstance(given, str) and given in ReorderType.__members__:
        return ReorderType[given]
    raise ConfigError(f"{name} is {value!r}; expected a ReorderType, True or False")


@dataclass(frozen=True, kw_only=True, eq=False)
class BruteForceConfig(_Config):
    """Scores of whole rows.

    Parameters
    ----------
    quantize : ReorderType
        Precision of the rows; True means INT8.
    """

    quantize: ReorderType = ReorderType.FLOAT32

    def __post_init__(self) -> None:
        self._normalize(_check_reorder_type, "quantize")


@dataclass(frozen=True, kw_only=True, eq=False)
class ReorderConfig(_Config):
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
        self._normalize(check_count, "reordering_num_neighbors")
        self._normalize(_check_reorder_type, "quantize")
        self._normalize(_check_threshold, "anisotropic_quantization_threshold")


@dataclass(frozen=True, kw_only=True, eq=False)
class IndexConfig(_Config):
    """All settings of an index.

    Parameters
    ----------
    num_neighbors : int
        Neighbors that a search returns by default.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means.
    tree : TreeConfig, optional
        The partition; without one, every search scores every datapoint.
    score : AHConfig or BruteForceConfig
        How datapoints are scored.
    reorder : ReorderConfig, optional
        Exact reordering of the best candidates.
    seed : int
        Of all randomness in training: the same input, settings and seed give the same index.

    Examples
    --------
    >>> config = IndexConfig(num_neighbors=10, distance_measure="cosine", score=AHConfig())
    >>> IndexConfig.from_dict(config.to_dict()) == config
    True
    """

    num_neighbors: int
    distance_measure: DistanceMeasure
    tree: TreeConfig | None = None
    score: AHConfig | BruteForceConfig = BruteForceConfig()
    reorder: ReorderConfig | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self._normalize(check_count, "num_neighbors")
        self._normalize(_check_count_or_zero, "seed")
        self._normalize(lambda _, value: check_distance_measure(value), "distance_measure")
        self._check_part("tree", TreeConfig, type(None))
        self._check_part("score", AHConfig, BruteForceConfig)
        self._check_part("reorder", ReorderConfig, type(None))

    def _check_part(self, name: str, *types: type) -> None:
        value = getattr(self, name)
        if not isinstance(value, types):
            expected = " or ".join("None" if t is type(None) else t.__name__ for t in types)
            raise ConfigError(f"{name} is {value!r}; expected {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON types; the kind of scoring stands under ``"type"``."""
        kind = "ah" if isinstance(self.score, AHConfig) else "brute_force"
        return {
            "num_neighbors": self.num_neighbors,
            "distance_measure": self.distance_measure,
            "tree": self.tree and self.tree.to_dict(),
            "score": {"type": kind, **self.score.to_dict()},
            "reorder": self.reorder and self.reorder.to_dict(),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Make settings from what `to_dict` returned.

        Raises
        ------
        ConfigError
            If a key is unknown or missing, or a value is bad.
        """
        if not isinstance(settings, Mapping):
            return super().from_dict(settings)  # raises
        parts = dict(settings)
        if parts.get("tree") is not None:
            parts["tree"] = TreeConfig.from_dict(parts["tree"])
        if parts.get("reorder") is not None:
            parts["reorder"] = ReorderConfig.from_dict(parts["reorder"])
        if "score" in parts:
            parts["score"] = _score_from_dict(parts["score"])
        return super().from_dict(parts)


def _score_from_dict(settings: object) -> AHConfig | BruteForceConfig:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"score is {settings!r}; expected a mapping of settings")
    rest = {key: value for key, value in settings.items() if key != "type"}
    match settings.get("type"):
        case "ah":
            return AHConfig.from_dict(rest)
        case "brute_force":
            return BruteForceConfig.from_dict(rest)
        case kind:
            raise ConfigError(f"score type is {kind!r}; expected 'ah' or 'brute_force'")

"""All settings of an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from swann.config.checks import (
    Config,
    IncrementalMode,
    ReorderType,
    check_count,
    check_count_or_zero,
    check_incremental_mode,
    check_reorder_type,
    check_sentences,
    check_share,
    check_target,
)
from swann.config.score import AHConfig, BruteForceConfig, ReorderConfig
from swann.config.tree import TreeConfig
from swann.distance import DistanceMeasure, check_distance_measure
from swann.errors import ConfigError

__all__ = ["AutopilotConfig", "IndexConfig", "ProjectionConfig", "with_finer_rows"]

_EXACT = BruteForceConfig()
_FROM_COARSE_TO_FINE = (ReorderType.INT8, ReorderType.BFLOAT16, ReorderType.FLOAT32)


@dataclass(frozen=True, kw_only=True, eq=False)
class ProjectionConfig(Config):
    """Settings of a projection to fewer dimensions, for the tree and the codes.

    Datapoints that are scored one by one (reordering, brute force) keep all of their dimensions:
    with a tree and brute force, leaves are chosen in the reduced space and scores are exact;
    brute force without a tree has nothing to project. Where nothing is reordered, the scores of
    codes are those of the reduced space: distances without what lies outside of it.

    Parameters
    ----------
    kind : {"pca", "truncate"}
        Onto the leading principal components of the database, or the first dimensions as they
        are (for matryoshka embeddings). Under cosine, rows are normalised first.
    reduction_dim : int, optional
        Dimensions to keep; of a PCA it may be left to the thresholds.
    pca_significance_threshold : float, optional
        Keep as many components as explain more than this share of the variance, and
        `dimensions_per_block` at least.
    pca_truncation_threshold : float, optional
        Only if these are less than this share of the dimensions; else project nothing away.
    """

    kind: Literal["pca", "truncate"]
    reduction_dim: int | None = None
    pca_significance_threshold: float | None = None
    pca_truncation_threshold: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in ("pca", "truncate"):
            raise ConfigError(f"kind of projection is {self.kind!r}; expected 'pca' or 'truncate'")
        if self.reduction_dim is not None:
            self.normalize(check_count, "reduction_dim")
        self.normalize(check_share, "pca_significance_threshold", "pca_truncation_threshold")
        by_threshold = self.pca_significance_threshold is not None
        if by_threshold == (self.reduction_dim is not None):
            raise ConfigError(
                f"{self.kind} has reduction_dim={self.reduction_dim} and "
                f"pca_significance_threshold={self.pca_significance_threshold}; expected just one"
            )
        if self.kind == "truncate" and by_threshold:
            raise ConfigError("truncate takes reduction_dim only")
        if self.pca_truncation_threshold is not None and not by_threshold:
            raise ConfigError(
                "pca_truncation_threshold is given without pca_significance_threshold"
            )

    def check_dimension(self, dimension: int) -> None:
        """Check that no more is to be kept than there is.

        Parameters
        ----------
        dimension : int
            Of the datapoints.

        Raises
        ------
        ConfigError
            If it is.
        """
        most = dimension - (self.kind == "truncate")
        if self.reduction_dim is not None and self.reduction_dim > most:
            least = "less than" if self.kind == "truncate" else "at most"
            raise ConfigError(
                f"reduction_dim is {self.reduction_dim}; expected {least} {dimension}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class AutopilotConfig(Config):
    """What to leave to `swann.autopilot`: all other settings are chosen by it.

    Parameters
    ----------
    mode : IncrementalMode
        What the index does by itself while it is updated.
    quantize : ReorderType
        Precision of the rows that are scored one by one.
    target_recall : float
        Share of the true `num_neighbors` neighbors that a search with the index's own settings
        should find, on average over queries; above 0, at most 1.
    reasons : sequence of str
        Written by autopilot: what it chose, why, and what it measured.
    """

    mode: IncrementalMode = IncrementalMode.NONE
    quantize: ReorderType = ReorderType.FLOAT32
    target_recall: float = 0.95
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.normalize(check_incremental_mode, "mode")
        self.normalize(check_reorder_type, "quantize")
        self.normalize(check_target, "target_recall")
        self.normalize(check_sentences, "reasons")


@dataclass(frozen=True, kw_only=True, eq=False)
class IndexConfig(Config):
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
    projection : ProjectionConfig, optional
        Fewer dimensions for the tree and the codes.
    autopilot : AutopilotConfig, optional
        The other settings were chosen by autopilot, and are chosen again when the index is built
        anew.
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
    score: AHConfig | BruteForceConfig = _EXACT
    reorder: ReorderConfig | None = None
    projection: ProjectionConfig | None = None
    autopilot: AutopilotConfig | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.normalize(check_count, "num_neighbors")
        self.normalize(check_count_or_zero, "seed")
        self.normalize(lambda _, value: check_distance_measure(value), "distance_measure")
        self._check_part("tree", TreeConfig, type(None))
        self._check_part("score", AHConfig, BruteForceConfig)
        self._check_part("reorder", ReorderConfig, type(None))
        self._check_part("projection", ProjectionConfig, type(None))
        self._check_part("autopilot", AutopilotConfig, type(None))

    @property
    def projects(self) -> bool:
        """Whether a projection is asked for and there are centroids or codes that it serves."""
        served = self.tree is not None or isinstance(self.score, AHConfig)
        return self.projection is not None and served

    def check_dimension(self, dimension: int) -> None:
        """Check that the settings suit datapoints of some dimension.

        Parameters
        ----------
        dimension : int
            Of the datapoints.

        Raises
        ------
        ConfigError
            If they do not.
        """
        reduced: int | None = None
        if self.projection is not None:
            self.projection.check_dimension(dimension)
            reduced = self.projection.reduction_dim
        if isinstance(self.score, AHConfig):
            self.score.check_dimension(dimension, reduced)

    def _check_part(self, name: str, *types: type) -> None:
        value = getattr(self, name)
        if not isinstance(value, types):
            expected = " or ".join("None" if t is type(None) else t.__name__ for t in types)
            raise ConfigError(f"{name} is {value!r}; expected {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON types; the kind of scoring stands under ``"type"``."""
        kind = "ah" if isinstance(self.score, AHConfig) else "brute_force"
        settings = super().to_dict()
        return {**settings, "score": {"type": kind, **settings["score"]}}

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
        for name, kind in _PARTS.items():
            if parts.get(name) is not None:
                parts[name] = kind.from_dict(parts[name])
        if "score" in parts:
            parts["score"] = _score_from_dict(parts["score"])
        return super().from_dict(parts)


_PARTS: dict[str, type[Config]] = {
    "tree": TreeConfig,
    "reorder": ReorderConfig,
    "projection": ProjectionConfig,
    "autopilot": AutopilotConfig,
}


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


def with_finer_rows(config: IndexConfig) -> IndexConfig:
    """Return what an index is built with where these settings are asked for.

    It keeps its rows once. Reordering what brute force has found by coarse rows takes finer ones:
    then brute force scores these, which finds at least as much.

    Examples
    --------
    >>> asked = IndexConfig(
    ...     num_neighbors=10,
    ...     distance_measure="cosine",
    ...     score=BruteForceConfig(quantize=True),
    ...     reorder=ReorderConfig(reordering_num_neighbors=50),
    ... )
    >>> with_finer_rows(asked).score
    BruteForceConfig(quantize=ReorderType.FLOAT32)
    """
    if isinstance(config.score, AHConfig) or config.reorder is None:
        return config
    precisions = config.score.quantize, config.reorder.quantize
    finer = max(precisions, key=_FROM_COARSE_TO_FINE.index)
    return replace(config, score=BruteForceConfig(quantize=finer))

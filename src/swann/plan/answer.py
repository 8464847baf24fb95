"""What a plan says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from swann.config import IndexConfig
from swann.errors import ConfigError
from swann.plan.machine import Machine
from swann.plan.profile import Look, check_fields

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings, machines, memory and times; `swann.plan.plan` makes it.

    Attributes
    ----------
    datapoints, dimension : int
    recall, queries_per_second : float
        What was asked for.
    machine : Machine
    profile : str
        The data that recall was measured on.
    config : IndexConfig
        Of each index.
    look : Look
        Leaves, datapoints and candidates that a query looks at in each index.
    arrays : dict of str to int
        Bytes of an index by array.
    indexes : int
        More than one where 32-bit numbers do not suffice.
    shards, replicas : int
        Of each index, and of each shard.
    machines : int
        ``indexes * shards * replicas``.
    shards_visited : float
        Of all indexes, by a query, on average.
    shard_bytes : int
        Memory of a shard's arrays.
    bound : str
        What made so many machines necessary: ``"memory"``, ``"cores"``, ``"bandwidth"``,
        ``"network"``, ``"latency"``, ``"replicas"``, or ``"one copy"`` where one machine suffices.
    work_microseconds : dict of str to float
        CPU time of a query on all machines, by what it is spent on.
    latency_microseconds : float
        From a query's arrival to its answer, on average, at this load.
    most_queries_per_second : float
        What all machines can answer.
    utilisation : float
        Of what binds, at `queries_per_second`.
    build_seconds : dict of str to float
        By stage, on the machines that hold one copy.
    build_peak_bytes : int
        Memory of the fullest machine while building, without the input.
    notes : tuple of str
        Where the plan leaves what was measured.
    """

    datapoints: int
    dimension: int
    recall: float
    queries_per_second: float
    machine: Machine
    profile: str
    config: IndexConfig
    look: Look
    arrays: Mapping[str, int]
    indexes: int
    shards: int
    replicas: int
    machines: int
    shards_visited: float
    shard_bytes: int
    bound: str
    work_microseconds: Mapping[str, float]
    latency_microseconds: float
    most_queries_per_second: float
    utilisation: float
    build_seconds: Mapping[str, float]
    build_peak_bytes: int
    notes: tuple[str, ...]

    @property
    def leaves(self) -> int:
        """Leaves of an index; 1 without a tree."""
        return 1 if self.config.tree is None else self.config.tree.num_leaves

    @property
    def index_bytes(self) -> int:
        """Bytes of the arrays of all indexes, once."""
        return self.indexes * sum(self.arrays.values())

    @property
    def bytes_a_datapoint(self) -> float:
        """Of the arrays."""
        return self.index_bytes / self.datapoints

    @property
    def cpu_microseconds(self) -> float:
        """CPU time of a query, on all machines."""
        return sum(self.work_microseconds.values())

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {
            "machine": self.machine.to_dict(),
            "config": self.config.to_dict(),
            "look": self.look._asdict(),
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Make a plan from what `to_dict` returned.

        Raises
        ------
        ConfigError
            If something is missing or unknown.
        """
        check_fields(cls, "plan", plain)
        look, notes = plain["look"], plain["notes"]
        if not isinstance(look, Mapping) or look.keys() != set(Look._fields):
            raise ConfigError(f"look is {look!r}; expected {', '.join(Look._fields)}")
        if not isinstance(notes, (list, tuple)):
            raise ConfigError(f"notes is {notes!r}; expected a list of strings")
        return cls(
            **{
                **plain,
                "machine": Machine.from_dict(plain["machine"]),
                "config": IndexConfig.from_dict(plain["config"]),
                "look": Look(**plain["look"]),
                "notes": tuple(plain["notes"]),
            }
        )

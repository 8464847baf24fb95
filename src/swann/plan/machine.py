"""Machines to plan for: a table of some, this one, or one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Self

from swann.config import check_count, check_number
from swann.errors import ConfigError
from swann.files import user_cache, write_whole
from swann.plan.cluster import Cluster
from swann.plan.profile import Profile, check_name
from swann.plan.speed import Speed

__all__ = [
    "THIS",
    "Machine",
    "cache_file",
    "keep",
    "machine",
    "machines",
    "usual_cluster",
    "usual_profile",
    "usual_speed",
]

THIS = "this"
"""The name of the machine that `swann plan --calibrate` measured."""

_GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A kind of machine.

    Attributes
    ----------
    name : str
    cores : int
        That run at full speed together: two hardware threads of a core count once.
    memory : float
        Gigabytes.
    bandwidth : float
        Gigabytes that all cores together read from memory in a second.
    network : float
        Gigabits a second.
    storage : float
        Gigabytes that are read or written in a second.
    cache : float
        Megabytes of the last level of cache that a core can fill.
    source : str
        Where the figures are from.
    speed : Speed, optional
        Of a core; the one that the package's own figures were fitted to unless given.
    """

    name: str
    cores: int
    memory: float
    bandwidth: float
    network: float = 10.0
    storage: float = 0.5
    cache: float = 32.0
    source: str = "given"
    speed: Speed | None = None

    def __post_init__(self) -> None:
        for name in ("name", "source"):
            check_name(name, getattr(self, name))
        object.__setattr__(self, "cores", check_count("cores", self.cores))
        for name in ("memory", "bandwidth", "network", "storage", "cache"):
            told = f"{name} of machine {self.name}"
            value = check_number(told, getattr(self, name), open_ends=(True, False))
            object.__setattr__(self, name, value)
        if not (self.speed is None or isinstance(self.speed, Speed)):
            raise ConfigError(f"speed of machine {self.name} is {self.speed!r}; expected a Speed")

    @property
    def memory_bytes(self) -> float:
        """What it has of memory, in bytes."""
        return self.memory * _GB

    @property
    def core(self) -> Speed:
        """The speed of a core."""
        return usual_speed() if self.speed is None else self.speed

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"speed": None if self.speed is None else self.speed.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Make one from what `to_dict` returned.

        Raises
        ------
        ConfigError
            If it is no such thing.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(plain, Mapping) or not {"name", "cores", "memory"} <= plain.keys():
            raise ConfigError(f"machine is {plain!r}; expected a mapping with name, cores, memory")
        if unknown := sorted(map(str, plain.keys() - known)):
            raise ConfigError(f"machine {plain['name']} has unknown figures: {', '.join(unknown)}")
        speed = plain.get("speed")
        return cls(**{**plain, "speed": None if speed is None else Speed.from_dict(speed)})


def machines() -> dict[str, Machine]:
    """Return the machines that have a name, `THIS` among them where it was measured."""
    table = [Machine.from_dict(plain) for plain in _data("machines.json")]
    found = {known.name: known for known in table}
    if cache_file().exists():
        found[THIS] = _read(cache_file())
    return found


def machine(given: str | Machine) -> Machine:
    """Return a machine by its name, or by the path of a JSON file.

    Raises
    ------
    ConfigError
        If it is not known.

    Examples
    --------
    >>> machine("milan-32").cores
    32
    """
    if isinstance(given, Machine):
        return given
    if not isinstance(given, str):
        raise ConfigError(f"machine is {given!r}; expected a name or a Machine")
    if given.endswith(".json"):
        return _read(Path(given))
    known = machines()
    if given not in known:
        hint = "; measure it first: swann plan --calibrate" if given == THIS else ""
        raise ConfigError(
            f"machine is {given!r}; expected one of {', '.join(known)}, or a .json file{hint}"
        )
    return known[given]


def cache_file() -> Path:
    """Return where the figures of this machine are kept."""
    return user_cache() / "machine.json"


def keep(measured: Machine) -> Path:
    """Keep the figures of this machine; return where."""
    if not isinstance(measured, Machine):
        raise ConfigError(f"measured is {measured!r}; expected a Machine")
    file = cache_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(measured.to_dict(), indent=1) + "\n"
    write_whole(file, lambda out: out.write(text.encode()))
    return file


def usual_speed() -> Speed:
    """Return the speed of the core that the package's figures were fitted on."""
    return Speed.from_dict(_data("fitted.json")["speed"])


def usual_profile() -> Profile:
    """Return what GloVe-100 is like to search, and growing sets made of it."""
    return Profile.from_dict(_data("fitted.json")["profile"])


def usual_cluster() -> Cluster:
    """Return what fanning out costs."""
    return Cluster(**_data("fitted.json")["cluster"])


def _read(path: Path) -> Machine:
    try:
        plain = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"machine file {path} cannot be read: {error}") from error
    return Machine.from_dict(plain)


def _data(name: str) -> Any:
    return json.loads(resources.files("swann.plan").joinpath(name).read_text())

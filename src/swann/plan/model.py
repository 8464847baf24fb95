"""From sizes and targets to shards, replicas, memory, build time and latency."""

from __future__ import annotations

import math
from typing import Any

from swann.config import AHConfig, IndexConfig, ReorderType, check_count, check_flag, check_number
from swann.config.checks import check_factor
from swann.distance import DistanceMeasure
from swann.errors import ConfigError
from swann.index.packed import MOST_ENTRIES
from swann.plan.answer import Plan
from swann.plan.building import Building, plan_build
from swann.plan.cluster import Cluster, message_bytes, waiting
from swann.plan.layout import SHARED, array_bytes
from swann.plan.machine import Machine, machine, usual_cluster, usual_profile
from swann.plan.profile import Look, Profile
from swann.plan.settings import configure
from swann.plan.speed import query_terms

__all__ = ["plan"]

_USABLE = 0.8
"""Of a machine's memory for arrays: the rest is for queries, for new files beside old ones, and for
the system."""

_BUSY = 0.6
"""Share of the time that cores and memory channels work: beyond, queries wait for each other."""


def plan(
    n: int,
    dimension: int,
    *,
    distance_measure: DistanceMeasure = "cosine",
    recall: float = 0.95,
    num_neighbors: int = 10,
    queries_per_second: float = 0.0,
    machine: str | Machine = "genoa-32",
    replicas: int = 1,
    latency_milliseconds: float | None = None,
    quantize: ReorderType | str = ReorderType.FLOAT32,
    leaves: int | None = None,
    soar_lambda: float | None = None,
    batched: bool = False,
    profile: Profile | None = None,
    cluster: Cluster | None = None,
) -> Plan:
    """Plan an index: settings, memory, shards and replicas, build time, latency and throughput.

    A pure function: nothing is measured. docs/scale.md says how far it can be believed.

    Parameters
    ----------
    n, dimension : int
        Datapoints and their dimension. More than 2^32 - 2 become several indexes, which a query
        asks all.
    distance_measure : {"dot_product", "squared_l2", "cosine"}
        What "near" means.
    recall : float
        Share of the true neighbors to find; at least .5, below 1.
    num_neighbors : int
        How many neighbors a search returns.
    queries_per_second : float
        What all machines together must answer.
    machine : str or Machine
        A name that `machines` knows, the path of a JSON file, or a machine.
    replicas : int
        Copies of every shard at least, for fail-over.
    latency_milliseconds : float, optional
        What a query may take on average: more shards share its work until it does.
    quantize : ReorderType or str
        Precision of the exact rows.
    leaves : int, optional
        Leaves of the tree; what autopilot chooses unless given.
    soar_lambda : float, optional
        Second leaves, as in `TreeConfig`. The laws for recall were fitted without: this counts
        memory and build time, and a scan that is too long.
    batched : bool
        Whether queries come in batches of a thousand. One by one unless told.
    profile : Profile, optional
        What the data are like to search; growing parts of GloVe-100 unless given.
    cluster : Cluster, optional
        What fanning out costs; docs/bench/plan.md unless given.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If an argument is bad, or no number of shards will do.

    Examples
    --------
    >>> small = plan(1_000_000, 100, queries_per_second=1000)
    >>> small.leaves, small.shards, small.bound
    (1000, 1, 'one copy')
    """
    n = check_count("n", n)
    dimension = check_count("dimension", dimension)
    replicas = check_count("replicas", replicas)
    recall = _within("recall", recall, 0.5, 1.0)
    queries_per_second = _within("queries_per_second", queries_per_second, 0.0, math.inf)
    if latency_milliseconds is not None:
        latency_milliseconds = _within("latency_milliseconds", latency_milliseconds, 0.0, math.inf)
    batched = check_flag("batched", batched)
    soar_lambda = check_factor(0.0)("soar_lambda", soar_lambda)
    usual = usual_profile() if profile is None else profile
    links = usual_cluster() if cluster is None else cluster
    if not isinstance(usual, Profile):
        raise ConfigError(f"profile is {profile!r}; expected a Profile")
    if not isinstance(links, Cluster):
        raise ConfigError(f"cluster is {cluster!r}; expected a Cluster")
    most = MOST_ENTRIES if soar_lambda is None else MOST_ENTRIES // 2
    indexes = -(-n // most)
    part = -(-n // indexes)
    config, look = configure(
        part,
        dimension,
        distance_measure=distance_measure,
        recall=recall,
        num_neighbors=num_neighbors,
        quantize=quantize,
        leaves=leaves,
        soar_lambda=soar_lambda,
        profile=usual,
    )
    model = _Model(
        config,
        part,
        dimension,
        look,
        _machine(machine),
        indexes,
        batched,
        usual,
        links,
    )
    shards = model.shards_for_memory()
    bound = "memory" if shards > 1 else "one copy"
    if latency_milliseconds is not None:
        shards, changed = model.shards_for_latency(shards, latency_milliseconds * 1e3)
        bound = "latency" if changed else bound
    needed, why = model.replicas(shards, queries_per_second)
    if needed > replicas:
        bound, replicas = why, needed
    elif replicas > 1 and bound == "one copy":
        bound = "replicas"
    return model.answer(
        n=n,
        shards=shards,
        replicas=replicas,
        bound=bound,
        recall=recall,
        queries_per_second=queries_per_second,
    )


class _Model:
    """The sums behind a plan, for one of `indexes` equal indexes."""

    def __init__(
        self,
        config: IndexConfig,
        n: int,
        dimension: int,
        look: Look,
        kind: Machine,
        indexes: int,
        batched: bool,
        profile: Profile,
        cluster: Cluster,
    ) -> None:
        self.config, self.n, self.dimension, self.look = config, n, dimension, look
        self.kind, self.indexes, self.batched = kind, indexes, batched
        self.profile, self.cluster = profile, cluster
        self.arrays = array_bytes(config, n, dimension)
        self.shared = sum(
            size
            for name, size in self.arrays.items()
            if name in SHARED or name.startswith(("upper", "centroid"))
        )
        self.index_bytes = sum(self.arrays.values())

    # ---- Memory

    def shards_for_memory(self) -> int:
        room = _USABLE * self.kind.memory_bytes - self.shared
        if room <= 0:
            raise ConfigError(
                f"a machine of {self.kind.memory:g} GB does not hold the centroids that every "
                f"shard has, {self.shared / 1e9:.1f} GB; expected more memory, or fewer leaves"
            )
        owned = self.index_bytes - self.shared
        leaves = 1 if self.config.tree is None else self.config.tree.num_leaves
        shards = max(1, math.ceil(owned / room))
        if shards > leaves:
            raise ConfigError(
                f"{shards:,} shards are needed, but there are only {leaves:,} leaves to give them; "
                "expected machines with more memory"
            )
        return shards

    def shard_bytes(self, shards: int) -> float:
        return self.shared + (self.index_bytes - self.shared) / shards

    # ---- Time

    def visited(self, shards: int) -> float:
        """Shards of one index that a query goes to."""
        return self.cluster.visited(shards, self.look.leaves) if shards > 1 else 1.0

    def work(self, shards: int) -> dict[str, float]:
        """Microseconds of CPU time that a query costs all machines, by term."""
        kind = self.kind
        codes = self.arrays.get("codes", 0) / shards
        terms = query_terms(
            self.config,
            self.n,
            self.dimension,
            self.look,
            cache=kind.cache * 1e6,
            code_bytes=max(1.0, codes),
            batch=self.batched,
        )
        visited = self.visited(shards)
        # Tables, calls and candidates: in every shard that is visited.
        for name in ("call", "table", "candidate", "candidate_byte", "far_row"):
            terms[name] = terms.get(name, 0.0) * visited
        speed = kind.core.batch if self.batched else kind.core.alone
        found = {
            name: self.indexes * speed[name] * amount / 1e3
            for name, amount in terms.items()
            if amount > 0.0
        }
        if shards * self.indexes > 1:
            message = self.cluster.batch_message if self.batched else self.cluster.message
            found["fan-out"] = self.indexes * visited * message
        return found

    def latency(self, shards: int, utilisation: float = 0.0) -> float:
        """Microseconds from a query's arrival to its answer, on average."""
        work = {name: value / self.indexes for name, value in self.work(shards).items()}
        visited = self.visited(shards)
        head = sum(work.pop(name, 0.0) for name in ("centroid", "centroid_i8"))
        scan = sum(work.pop(name, 0.0) for name in ("leaf", "code", "far_code", "row_byte"))
        messages = work.pop("fan-out", 0.0)
        shard = sum(work.values()) / visited + scan * self.cluster.slowest(visited)
        waits = 1.0 + waiting(self.kind.cores, utilisation) if utilisation else 1.0
        hop = self.cluster.hop if shards * self.indexes > 1 else 0.0
        # Messages are made one after the other by whoever asks: half of their cost.
        return (head + shard) * waits + hop + 0.5 * messages * self.indexes

    def shards_for_latency(self, least: int, wanted: float) -> tuple[int, bool]:
        if self.latency(least) <= wanted:
            return least, False
        leaves = 1 if self.config.tree is None else self.config.tree.num_leaves
        shards, best = least, math.inf
        while shards < leaves:
            shards = min(leaves, max(shards + 1, int(shards * 1.25)))
            took = self.latency(shards)
            if took <= wanted:
                return shards, True
            best = min(best, took)
        best = min(best, self.latency(least))
        raise ConfigError(
            f"latency_milliseconds is {wanted / 1e3:g}; expected at least {best / 1e3:.2f}: "
            "no number of shards is faster"
        )

    def bytes_read(self, shards: int) -> float:
        """Bytes that a query reads from memory, all machines together."""
        work = query_terms(
            self.config,
            self.n,
            self.dimension,
            self.look,
            cache=self.kind.cache * 1e6,
            code_bytes=max(1.0, self.arrays.get("codes", 0) / shards),
            batch=self.batched,
        )
        rows = work.get("candidate_byte", 0.0) * self.visited(shards)
        return self.indexes * (work.get("far_code", 0.0) + rows + work.get("row_byte", 0.0))

    def throughput(self, shards: int) -> dict[str, float]:
        """Return the queries a second that one copy of all can answer, by what limits them."""
        machines = shards * self.indexes
        kind = self.kind
        cores = machines * kind.cores * _BUSY * 1e6 / sum(self.work(shards).values())
        read = self.bytes_read(shards)
        limits = {"cores": cores}
        if read > 0.0:
            limits["bandwidth"] = machines * kind.bandwidth * 1e9 * _BUSY / read
        if machines > 1:
            asked, answered = message_bytes(
                self.dimension, self.look.leaves, max(1, self.look.candidates)
            )
            sent = self.indexes * self.visited(shards) * (asked + answered)
            # Each message leaves one machine and comes to another.
            limits["network"] = machines * kind.network / 8 * 1e9 * _BUSY / sent
        return limits

    def replicas(self, shards: int, queries_per_second: float) -> tuple[int, str]:
        limits = self.throughput(shards)
        why = min(limits, key=lambda name: limits[name])
        return max(1, math.ceil(queries_per_second / limits[why])), why

    # ---- The answer

    def answer(
        self,
        *,
        n: int,
        shards: int,
        replicas: int,
        bound: str,
        recall: float,
        queries_per_second: float,
    ) -> Plan:
        config = self.config
        machines = shards * replicas * self.indexes
        limits = self.throughput(shards)
        can = min(limits.values()) * replicas
        used = min(0.99, _BUSY * queries_per_second / can)
        building: Building = plan_build(
            config, self.n, self.dimension, self.kind, shards, self.indexes
        )
        return Plan(
            datapoints=n,
            dimension=self.dimension,
            recall=recall,
            queries_per_second=float(queries_per_second),
            machine=self.kind,
            profile=self.profile.name,
            config=config,
            look=self.look,
            arrays=self.arrays,
            indexes=self.indexes,
            shards=shards,
            replicas=replicas,
            machines=machines,
            shards_visited=self.visited(shards) * self.indexes,
            shard_bytes=round(self.shard_bytes(shards)),
            bound=bound,
            work_microseconds=self.work(shards),
            latency_microseconds=self.latency(shards, used),
            most_queries_per_second=can,
            utilisation=used,
            build_seconds=building.seconds,
            build_peak_bytes=building.peak_bytes,
            notes=self.notes(n, recall, building),
        )

    def notes(self, n: int, recall: float, building: Building) -> tuple[str, ...]:
        notes = []
        if self.indexes > 1:
            notes.append(
                f"{n:,} datapoints are more than 32-bit numbers count: {self.indexes} indexes of "
                f"{self.n:,}, and every query asks all of them"
            )
        low, high = self.profile.measured
        if self.config.tree is not None and not low <= self.n <= high:
            notes.append(
                f"the laws for recall were fitted to {low:,} to {high:,} datapoints: beyond, they "
                "are extrapolated"
            )
        least, most = self.profile.recalls
        if not least <= recall <= most:
            notes.append(f"recalls were measured from {least:g} to {most:g}")
        if self.kind.speed is None:
            notes.append(
                f"cores of {self.kind.name} are taken to be as fast as {self.kind.core.about}"
            )
        if isinstance(self.config.score, AHConfig) and self.look.scanned >= self.n:
            notes.append("so much recall takes a scan of all datapoints")
        return (*notes, *building.notes)


def _machine(given: str | Machine) -> Machine:
    return machine(given)


def _within(name: str, value: Any, low: float, high: float) -> float:
    return check_number(name, value, low, high, open_ends=(False, True))

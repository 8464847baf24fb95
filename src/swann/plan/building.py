"""How long a build takes, and how much memory."""

from __future__ import annotations

from typing import NamedTuple

from swann.config import AHConfig, IndexConfig
from swann.distance import COSINE
from swann.plan.layout import array_bytes, reduced_dim
from swann.plan.machine import Machine
from swann.plan.speed import build_terms

__all__ = ["Building", "build_cpu_seconds", "peak_bytes", "plan_build"]

_BASE = 10e6
"""Of a process that builds: chunks, heap, libraries."""

_A_DATAPOINT = 9
"""Bytes beside the arrays while rows and codes are written: leaves, places, numbers."""

_CHUNK = 512 * 1024 * 4
"""Bytes of a chunk of input; a worker has some of them at a time."""

_LONG = 3600.0
"""Seconds that a build in one process may take: a longer one is shared by processes."""

_MOST_FILES = 1_000_000


class Building(NamedTuple):
    """Seconds by stage, the greatest memory of a machine, and what is to be said about it."""

    seconds: dict[str, float]
    peak_bytes: int
    notes: tuple[str, ...]


def build_cpu_seconds(
    config: IndexConfig, n: int, dimension: int, machine: Machine
) -> dict[str, float]:
    """Return the CPU seconds of the stages of a build, by the names of `BUILD_TERMS`."""
    constants = machine.core.build
    terms = build_terms(config, n, dimension)
    return {name: constants[name] * amount / 1e9 for name, amount in terms.items()}


def peak_bytes(config: IndexConfig, n: int, dimension: int) -> int:
    """Return the greatest memory of a build in one process, without the caller's vectors.

    Either while the tree is trained, or at the end, when the arrays are there and what tells the
    place of each datapoint.
    """
    arrays = array_bytes(config, n, dimension)
    a_datapoint = _A_DATAPOINT + (0 if config.distance_measure == COSINE else 4)
    copies = 1
    if config.tree is not None and config.tree.soar_lambda is not None:
        copies = 2
    written = sum(arrays.values()) + copies * a_datapoint * n
    trained = 0.0
    if config.tree is not None:
        sample = min(n, max(config.tree.training_sample_size, config.tree.num_leaves))
        r = reduced_dim(config, dimension)
        trained = 4.0 * r * (sample + 3 * config.tree.num_leaves) + a_datapoint * n
    return round(_BASE + max(written, trained))


def plan_build(
    config: IndexConfig, n: int, dimension: int, machine: Machine, shards: int, indexes: int
) -> Building:
    """Return what building equal indexes takes on the machines that hold one copy of them."""
    cpu = build_cpu_seconds(config, n, dimension, machine)
    cores, serial = machine.cores, machine.core.serial
    threaded = serial + (1.0 - serial) / cores
    input_bytes = 4.0 * n * dimension
    peak = peak_bytes(config, n, dimension)
    alone = {
        "read": input_bytes / (machine.storage * 1e9),
        "train": (cpu.get("tree", 0.0) + cpu.get("codebook", 0.0)) * threaded,
        "assign": cpu.get("assign", 0.0) * threaded,
        "encode": (cpu["check"] + cpu.get("encode", 0.0) + cpu.get("rows", 0.0)) * threaded,
    }
    fits = peak + input_bytes <= machine.memory_bytes
    if shards * indexes == 1 and fits and sum(alone.values()) <= _LONG:
        return Building(alone, peak, ())
    # Larger than memory, long, or on many machines, each index having its own. Its tree is trained
    # by one of them; the rest is shared by processes, one a core, so that nothing of it is serial.
    arrays = sum(array_bytes(config, n, dimension).values())
    everywhere = shards * cores
    moved = min(machine.storage, machine.network / 8) * 1e9 * shards
    seconds = {
        "read": 2.0 * input_bytes / moved,  # checked and mapped
        "train": alone["train"],
        "assign": cpu.get("assign", 0.0) / everywhere,
        "encode": (cpu["check"] + cpu.get("encode", 0.0) + cpu.get("rows", 0.0)) / everywhere,
        "gather": 4.0 * arrays / moved,  # each byte written and read twice: entries, pieces, shards
    }
    leaves = 1 if config.tree is None else config.tree.num_leaves
    r = reduced_dim(config, dimension)
    workers = cores * (2.0 * leaves * r * 4 + 8 * _CHUNK + _BASE)
    sample = 0 if config.tree is None else max(config.tree.training_sample_size, leaves)
    driver = 4.0 * r * sample
    notes = []
    maps = max(1, round(input_bytes / 2e9))
    if maps * shards > _MOST_FILES:
        notes.append(
            f"{maps:,} maps of 2 GB and {shards:,} shards: {maps * shards:,} parts to move"
        )
    if not isinstance(config.score, AHConfig):
        notes.append("without codes a shard is as large as its rows")
    return Building(seconds, round(max(workers, driver + _BASE)), tuple(notes))

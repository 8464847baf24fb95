"""All experiments, by name."""

from __future__ import annotations

from benchmarks.trust import fork, interrupt, sizes, together
from benchmarks.trust.damage import run as damage
from benchmarks.trust.experiment import Experiment
from benchmarks.trust.memory import run as memory
from benchmarks.trust.oracle import run as oracle
from benchmarks.trust.peers import run as peers
from benchmarks.trust.storage import kill9, power, syscalls

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        damage.EXPERIMENT,
        peers.EXPERIMENT,
        fork.EXPERIMENT,
        interrupt.EXPERIMENT,
        memory.EXPERIMENT,
        oracle.EXPERIMENT,
        sizes.EXPERIMENT,
        together.EXPERIMENT,
        syscalls.EXPERIMENT,
        kill9.EXPERIMENT,
        power.EXPERIMENT,
    )
}

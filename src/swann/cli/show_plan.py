"""How the command line shows a plan."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from swann.cli.show import in_bytes, say
from swann.plan import Plan

__all__ = ["plan"]


def plan(made: Plan) -> None:
    """Print a plan as tables, its notes below."""
    machine = made.machine
    table = Table("", "", title=f"{made.datapoints:,} x {made.dimension:,}, recall {made.recall:g}")
    for name, value in (
        ("machine", f"{machine.name}: {machine.cores} cores, {machine.memory:g} GB"),
        ("machines", _machines(made)),
        ("bound by", made.bound),
        ("leaves", f"{made.leaves:,}, {made.look.leaves:,} searched"),
        ("scored by codes, by rows", f"{made.look.scanned:,.0f}, {made.look.candidates:,}"),
        ("index", f"{in_bytes(made.index_bytes)}, {made.bytes_a_datapoint:.1f} bytes a datapoint"),
        ("a shard", in_bytes(made.shard_bytes)),
        ("latency, mean", f"{made.latency_microseconds / 1e3:,.3f} ms"),
        ("CPU time of a query", f"{made.cpu_microseconds:,.0f} us, on all machines"),
        ("queries a second, at most", f"{made.most_queries_per_second:,.0f}"),
        ("build", _seconds(sum(made.build_seconds.values()))),
        ("memory of a build", f"{in_bytes(made.build_peak_bytes)} a machine, without the input"),
    ):
        table.add_row(name, value)
    work = Table("CPU time of a query", "us")
    for name, micros in sorted(made.work_microseconds.items(), key=lambda item: -item[1]):
        work.add_row(name, f"{micros:,.1f}")
    stages = Table("build", "")
    for name, seconds in made.build_seconds.items():
        stages.add_row(name, _seconds(seconds))
    sizes = Table("array", "an index")
    for name, size in made.arrays.items():
        sizes.add_row(name, in_bytes(size))
    for part in (work, stages, sizes):
        part.columns[1].justify = "right"
    Console().print(table, work, stages, sizes)
    for note in made.notes:
        say(f"note: {note}")


def _machines(made: Plan) -> str:
    times = f" x {made.indexes} indexes" if made.indexes > 1 else ""
    return f"{made.machines:,} = {made.shards:,} shards x {made.replicas:,} replicas{times}"


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"

"""The command that tells what an index would cost."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from swann import plan as plans
from swann.cli import show, show_plan
from swann.cli.options import VECTORS, check_precision
from swann.distance import check_distance_measure
from swann.errors import ConfigError

__all__ = ["plan"]


def plan(
    datapoints: Annotated[
        float | None, typer.Option("--datapoints", "-n", help="How many; 1e9 is understood.")
    ] = None,
    dimension: Annotated[int | None, typer.Option("--dimension", "-d", help="Of each.")] = None,
    distance_measure: Annotated[
        str, typer.Option(help="dot_product, squared_l2 or cosine.")
    ] = "cosine",
    recall: Annotated[float, typer.Option(help="Share of the true neighbors to find.")] = 0.95,
    num_neighbors: Annotated[int, typer.Option("-k", help="Neighbors of a query.")] = 10,
    qps: Annotated[float, typer.Option(help="Queries a second, over all machines.")] = 0.0,
    machine: Annotated[
        str, typer.Option(help="A kind of machine, `this`, or a .json file.")
    ] = "genoa-32",
    replicas: Annotated[int, typer.Option(help="Copies of every shard, at least.")] = 1,
    latency: Annotated[
        float | None, typer.Option(help="Milliseconds that a query may take on average.")
    ] = None,
    quantize: Annotated[
        str, typer.Option(help="Precision of exact rows: FLOAT32, BFLOAT16 or INT8.")
    ] = "FLOAT32",
    leaves: Annotated[int | None, typer.Option(help="Of the tree; else chosen.")] = None,
    batched: Annotated[bool, typer.Option("--batched", help="Queries come in batches.")] = False,
    sample: Annotated[
        str | None,
        typer.Option(
            help=f"Some ten thousand of the datapoints, to see how hard they are: {VECTORS}.",
            metavar="FILE",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first: half a minute.")
    ] = False,
) -> None:
    """Tell what an index would cost: memory, shards and replicas, build time, latency."""
    measure = check_distance_measure(distance_measure.lower())
    precision = check_precision(quantize)
    if calibrate:
        with show.progress() as bars:
            place = plans.keep(plans.calibrate(bars.update))
        machine = plans.THIS
        if not as_json:
            show.say(f"this machine was measured; kept in {place}")
        if datapoints is None:
            if as_json:
                show.say(place.read_text())
            return
    for name, value in (("--datapoints", datapoints), ("--dimension", dimension)):
        if value is None:
            raise ConfigError(f"{name} is missing; expected a number")
    assert datapoints is not None
    assert dimension is not None
    if not (math.isfinite(datapoints) and datapoints == int(datapoints)):
        raise ConfigError(f"--datapoints is {datapoints}; expected a whole number")
    profile = None
    if sample is not None:
        with show.waiting("searching a sample"):
            profile = plans.profile_of_file(sample, int(datapoints), dimension, measure, recall)
    made = plans.plan(
        int(datapoints),
        dimension,
        distance_measure=measure,
        recall=recall,
        num_neighbors=num_neighbors,
        queries_per_second=qps,
        machine=machine,
        replicas=replicas,
        latency_milliseconds=latency,
        quantize=precision,
        leaves=leaves,
        batched=batched,
        profile=profile,
    )
    if as_json:
        show.say(made.to_json())
    else:
        show_plan.plan(made)

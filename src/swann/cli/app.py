"""The commands. Imported only when the extra [cli] is there."""

from __future__ import annotations

import math
import os
import time
import warnings
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from swann import files
from swann import plan as plans
from swann.autopilot.choose import TREE_ROWS
from swann.builder import Builder
from swann.cli import on_disk, show, show_plan
from swann.config import ReorderType, check_count
from swann.config.checks import check_reorder_type
from swann.distance import check_distance_measure
from swann.errors import ConfigError, RecallWarning
from swann.evaluate import exact_neighbors, leaf_ladder, speed_recall
from swann.index.disk.store import SUFFIX
from swann.searcher import Searcher
from swann.sources import Sources
from swann.storage import load_searcher
from swann.vectors import as_queries

__all__ = ["app"]

app = typer.Typer(
    help="Approximate nearest neighbours: build an index, search it, measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Queries that one native call answers, so that the progress bar moves.
_QUERIES_A_CALL = 16_384

_VECTORS = ".npy, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin, or file.hdf5:key"
IndexArgument = Annotated[
    Path, typer.Argument(help="Directory or .swann file of an index.", metavar="INDEX")
]
Leaves = Annotated[int | None, typer.Option(help="Leaves to visit; the index's own by default.")]
PreReorder = Annotated[int | None, typer.Option(help="Candidates to score exactly.")]
Threads = Annotated[int | None, typer.Option(help="Threads to use; all cores by default.")]


class _Stages(NamedTuple):
    """Options that say how an index is built; None where they were not given."""

    leaves: int | None
    leaves_to_search: int | None
    dimensions_per_block: int | None
    threshold: float | None
    reorder: int | None
    pca: int | None
    truncate: int | None


def _give_stages(
    builder: Builder,
    stages: _Stages,
    brute_force: bool,
    n: int,
    num_neighbors: int,
    quantize: ReorderType,
) -> None:
    """Make a builder's stages what the options say, and the usual where they are silent."""
    leaves = stages.leaves
    if leaves is None:
        leaves = round(math.sqrt(n)) if n >= TREE_ROWS else 0
    if leaves:
        visited = stages.leaves_to_search
        builder.tree(leaves, max(1, leaves // 20) if visited is None else visited)
    elif stages.leaves_to_search is not None:
        raise ConfigError(f"--leaves-to-search is {stages.leaves_to_search}, but there is no tree")
    reorder = stages.reorder
    if brute_force:
        for name, value in (
            ("--dimensions-per-block", stages.dimensions_per_block),
            ("--threshold", stages.threshold),
        ):
            if value is not None:
                raise ConfigError(f"{name} and --brute-force contradict each other")
        builder.score_brute_force(quantize)
        reorder = reorder or 0
    else:
        width = 2 if stages.dimensions_per_block is None else stages.dimensions_per_block
        builder.score_ah(width, stages.threshold)
    if reorder is None:
        reorder = 10 * num_neighbors
    if reorder:
        builder.reorder(reorder, quantize)
    if stages.pca is not None:
        builder.pca(stages.pca)
    if stages.truncate is not None:
        builder.truncate(stages.truncate)


@app.command()
def build(
    db: Annotated[str, typer.Argument(help=f"Datapoints: {_VECTORS}.", metavar="DB")],
    out: Annotated[
        Path, typer.Argument(help="Directory to write, or a file X.swann.", metavar="OUT")
    ],
    distance_measure: Annotated[
        str | None,
        typer.Option(
            help="dot_product, squared_l2 or cosine. Needed, unless an HDF5 file names it."
        ),
    ] = None,
    num_neighbors: Annotated[
        int, typer.Option("--num-neighbors", "-k", help="Neighbors a search returns by default.")
    ] = 10,
    leaves: Annotated[
        int | None,
        typer.Option(
            help=f"Leaves of the tree; 0: no tree. Default beside other stages: the square root "
            f"of the number of datapoints, from {TREE_ROWS:,} datapoints on."
        ),
    ] = None,
    leaves_to_search: Annotated[
        int | None, typer.Option(help="Leaves a search visits. Default: a twentieth of them.")
    ] = None,
    dimensions_per_block: Annotated[
        int | None, typer.Option(help="Dimensions that share a 4-bit code. Default: 2.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Anisotropic quantization threshold; try 0.2 times the length of a row."),
    ] = None,
    reorder: Annotated[
        int | None,
        typer.Option(help="Candidates to score exactly; 0: none. Default: ten times -k."),
    ] = None,
    brute_force: Annotated[
        bool, typer.Option("--brute-force", help="Exact scores instead of codes.")
    ] = False,
    pca: Annotated[
        int | None,
        typer.Option(help="Principal components to keep, for the tree and the codes."),
    ] = None,
    truncate: Annotated[
        int | None,
        typer.Option(help="First dimensions to keep, for the tree and the codes (matryoshka)."),
    ] = None,
    quantize: Annotated[
        str, typer.Option(help="Precision of exact rows: FLOAT32, BFLOAT16 or INT8.")
    ] = "FLOAT32",
    recall: Annotated[
        float | None,
        typer.Option(help="Share of the true neighbors to find, where stages are chosen: 0.95."),
    ] = None,
    sample_queries: Annotated[
        str | None,
        typer.Option(
            help=f"Some hundred queries like those to come, to measure with: {_VECTORS}.",
            metavar="FILE",
        ),
    ] = None,
    training_queries: Annotated[
        str | None,
        typer.Option(
            help=f"Queries like those to come, to build the loss from: {_VECTORS}.",
            metavar="FILE",
        ),
    ] = None,
    docids: Annotated[
        Path | None,
        typer.Option(
            help="Names of the datapoints: lines of text, or an array of a .npy.", metavar="FILE"
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Build within so much memory, as in 2GB, chunk by chunk and over files. DB may "
            "then be a pattern of files, also Parquet, Arrow and .fbin.",
        ),
    ] = None,
    shards: Annotated[
        int, typer.Option(help="Parts that many machines can search; more than 1 imply --memory.")
    ] = 1,
    processes: Annotated[
        int | None, typer.Option(help="With --memory: processes that share the work.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="With --memory: a Ray cluster that does the work.")
    ] = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
) -> None:
    """Build an index over DB and save it to the directory OUT.

    Where nothing is said of its stages, they are chosen: from the size of DB, and by measuring
    (within --memory from its size alone).
    """
    _check_place(out)
    stages = _Stages(
        leaves, leaves_to_search, dimensions_per_block, threshold, reorder, pca, truncate
    )
    given = brute_force or any(value is not None for value in stages)
    precision = check_reorder_type("--quantize", quantize)
    if given and (recall is not None or sample_queries is not None):
        option = "--recall" if recall is not None else "--sample-queries"
        raise ConfigError(f"{option} is given, but nothing is left to choose: leave out the stages")
    queries = samples = None
    if training_queries is not None:
        queries = files.read_array(training_queries, default_key="test")
    if sample_queries is not None:
        samples = files.read_array(sample_queries, default_key="test")
    if memory is not None or shards != 1 or processes is not None or ray_address is not None:
        for option, value in (
            ("--recall", recall),
            ("--sample-queries", samples),
            ("--docids", docids),
        ):
            if value is not None:
                raise ConfigError(f"{option} and a build within --memory contradict each other")
        wanted = check_distance_measure(_needed(distance_measure))
        sources = Sources.of(db)
        if given:
            nothing = np.empty((0, sources.dimension), np.float32)
            builder = Builder(nothing, num_neighbors, wanted).seed(seed)
            _give_stages(builder, stages, brute_force, sources.num_rows, num_neighbors, precision)
            config = builder.create_config()
        else:
            config = on_disk.settings_for(sources, wanted, num_neighbors, seed, precision)
        on_disk.build_on_disk(
            db,
            out,
            config,
            memory=memory or "2GB",
            shards=shards,
            processes=processes,
            ray_address=ray_address,
            threads=threads,
            training_queries=queries,
        )
        return
    if not Path(db).exists() and any(character in db for character in "*?["):
        raise ConfigError(f"DB is {db}: a pattern of files needs --memory, as in --memory 2GB")
    location = files.locate(db)
    measure = _needed(distance_measure or files.hdf5_distance_measure(location))
    datapoints = files.read_array(db)
    builder = Builder(datapoints, num_neighbors, check_distance_measure(measure)).seed(seed)
    if threads is not None:
        builder.set_n_training_threads(threads)
    if given:
        _give_stages(builder, stages, brute_force, len(datapoints), num_neighbors, precision)
    else:
        target = 0.95 if recall is None else recall
        builder.autopilot(quantize=precision, target_recall=target, sample_queries=samples)
    names = None if docids is None else files.read_docids(docids)

    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as told, show.progress() as bars:
        warnings.simplefilter("always", RecallWarning)
        searcher = builder.build(names, bars.update, training_queries=queries)
    built = time.perf_counter() - start
    for warning in told:
        show.warn(str(warning.message))
    searcher.save(out)
    for reason in [] if searcher.config.autopilot is None else searcher.config.autopilot.reasons:
        show.say(f"chosen: {reason}")
    show.say(f"{searcher!r}\nbuilt in {built:.1f} s, saved to {out} ({show.disk_size(out)})")


@app.command()
def search(
    index: IndexArgument,
    queries: Annotated[str, typer.Argument(help=f"Queries: {_VECTORS}.", metavar="QUERIES")],
    k: Annotated[
        int | None, typer.Option("-k", help="Neighbors to return; the index's own by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write .npz (indices, distances), .npy or .ivecs (indices)."),
    ] = None,
    leaves_to_search: Leaves = None,
    pre_reorder: PreReorder = None,
    threads: Threads = None,
) -> None:
    """Search INDEX for the neighbors of QUERIES, and print or write them."""
    if out is not None:
        files.check_output(out)
    searcher = _load(index, threads)
    given = files.read_array(queries, default_key="test")
    checked = as_queries(given[None] if given.ndim == 1 else given, searcher.dimension)
    k = searcher.config.num_neighbors if k is None else check_count("-k", k)
    parts = []
    start = time.perf_counter()
    with show.progress() as bars:
        for begin in range(0, max(1, len(checked)), _QUERIES_A_CALL):
            part = checked[begin : begin + _QUERIES_A_CALL]
            parts.append(searcher.search_batched_parallel(part, k, pre_reorder, leaves_to_search))
            bars.update("searching", begin + len(part), len(checked))
    took = time.perf_counter() - start
    indices, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if out is None:
        show.neighbors(indices, distances)
    else:
        files.write_neighbors(out, indices, distances)
        show.say(f"{len(checked):,} queries in {took:.3f} s, written to {out}")


@app.command("eval")
def evaluate(
    index: IndexArgument,
    db: Annotated[
        str, typer.Argument(help=f"What the index was built from: {_VECTORS}.", metavar="DB")
    ],
    queries: Annotated[
        str | None,
        typer.Argument(help="Queries; for HDF5 the same file by default.", metavar="[QUERIES]"),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Neighbors: recall k@k.")] = 10,
    leaves_to_search: Annotated[
        str | None, typer.Option(help="Numbers of leaves, as in 10,20,50. Default: a ladder.")
    ] = None,
    pre_reorder: PreReorder = None,
    max_queries: Annotated[int, typer.Option(help="Use at most this many of the queries.")] = 1000,
    threads: Threads = None,
) -> None:
    """Measure recall and speed of INDEX against exact search over DB.

    An index with docids names the rows of DB by them, in the order in which it has them.
    """
    searcher = _load(index, threads)
    location = files.locate(db)
    if queries is None:
        if not location.is_hdf5:
            raise ConfigError(f"QUERIES is missing; only an HDF5 file holds both, and {db} is not")
        queries = str(location.path)
    datapoints = files.read_array(db)
    if searcher.num_datapoints == 0:
        raise ConfigError(f"{index} holds no datapoints: there is nothing to find")
    asked = files.read_array(queries, default_key="test")[
        : check_count("--max-queries", max_queries)
    ]
    if datapoints.shape != (searcher.num_datapoints, searcher.dimension):
        raise ConfigError(
            f"DB has shape {datapoints.shape}, but the index was built from "
            f"{(searcher.num_datapoints, searcher.dimension)}"
        )
    docids = searcher.docids
    if docids is None and int(searcher._live.numbers()[-1]) >= len(datapoints):
        raise ConfigError(
            f"{index} was changed since it was built: its row ids are not the rows of a file any "
            "more, by which recall is measured; give datapoints docids"
        )
    checked = as_queries(asked, searcher.dimension)
    measure = searcher.config.distance_measure
    with show.waiting("searching exactly"):
        true = exact_neighbors(datapoints, checked, k, measure, threads or 0, docids)
    settings = [(leaves, pre_reorder) for leaves in _ladder(searcher, leaves_to_search)]
    points = []
    with show.progress() as bars:
        for done, setting in enumerate(settings):
            points += speed_recall(searcher, checked, true.indices, [setting])
            bars.update("measuring", done + 1, len(settings))
    show.curve(points, k, searcher.num_threads, len(checked))


@app.command()
def info(index: IndexArgument) -> None:
    """Show the settings, the sizes and the arrays of INDEX."""
    show.index(load_searcher(index), index)


@app.command()
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
            help=f"Some ten thousand of the datapoints, to see how hard they are: {_VECTORS}.",
            metavar="FILE",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first: half a minute.")
    ] = False,
) -> None:
    """Tell what an index would cost: memory, shards and replicas, build time, latency."""
    measure = check_distance_measure(distance_measure)
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
        quantize=quantize,
        leaves=leaves,
        batched=batched,
        profile=profile,
    )
    if as_json:
        show.say(made.to_json())
    else:
        show_plan.plan(made)


def _needed(measure: str | None) -> str:
    if measure is None:
        raise ConfigError(
            "--distance-measure is missing; expected dot_product, squared_l2 or cosine"
        )
    return measure


def _check_place(out: Path) -> None:
    """Find out before the work, not after it, that OUT cannot be written."""
    if out.suffix == SUFFIX and out.is_dir():
        raise ConfigError(f"OUT is {out}, which is a directory")
    if out.suffix != SUFFIX and out.exists() and not out.is_dir():
        raise ConfigError(f"OUT is {out}, which is not a directory")
    nearest = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not os.access(nearest, os.W_OK):
        raise ConfigError(f"OUT is {out}, but {nearest} cannot be written")


def _load(index: Path, threads: int | None) -> Searcher:
    searcher = load_searcher(index)
    if threads is not None:
        searcher.set_num_threads(threads)
    return searcher


def _ladder(searcher: Searcher, given: str | None) -> list[int | None]:
    if given is not None:
        try:
            return [int(part) for part in given.split(",")]
        except ValueError:
            raise ConfigError(
                f"--leaves-to-search is {given!r}; expected numbers, as in 10,20,50"
            ) from None
    tree = searcher.config.tree
    return [None] if tree is None else [*leaf_ladder(tree.num_leaves)]

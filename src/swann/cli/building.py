"""The command that builds an index."""

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
from swann.autopilot.choose import TREE_ROWS
from swann.builder import Builder
from swann.cli import on_disk, show
from swann.cli.options import VECTORS, Threads, check_precision, place
from swann.cli.places import writing_to
from swann.config import ReorderType
from swann.distance import check_distance_measure
from swann.distributed.building.memory import parse_bytes
from swann.errors import ConfigError, RecallWarning
from swann.index.disk.lock import DirectoryLock
from swann.index.disk.store import SUFFIX
from swann.sources import Sources

__all__ = ["build"]


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
    elif leaves > n:
        raise ConfigError(f"--leaves is {leaves:,}; expected at most {n:,}, one for each datapoint")
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


def build(
    db: Annotated[str, typer.Argument(help=f"Datapoints: {VECTORS}.", metavar="DB")],
    out: Annotated[
        Path,
        typer.Argument(help="Directory to write, or a file X.swann.", metavar="OUT", parser=place),
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
            help=f"Some hundred queries like those to come, to measure with: {VECTORS}.",
            metavar="FILE",
        ),
    ] = None,
    training_queries: Annotated[
        str | None,
        typer.Option(
            help=f"Queries like those to come, to build the loss from: {VECTORS}.",
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
            "then be a pattern of files, also Parquet, Arrow and .fbin. Python and the libraries "
            "take 0.1 GB of it: less than 0.3 GB is not kept. A build that was stopped goes on "
            "where it was when it is given again.",
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
    precision = check_precision(quantize)
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
        memory = memory or "2GB"
        parse_bytes("--memory", memory)
        sources = Sources.of(db)
        wanted = check_distance_measure(_needed(distance_measure))
        reasons: list[str] = []
        if given:
            nothing = np.empty((0, sources.dimension), np.float32)
            builder = Builder(nothing, num_neighbors, wanted).seed(seed)
            _give_stages(builder, stages, brute_force, sources.num_rows, num_neighbors, precision)
            config = builder.create_config()
        else:
            config, reasons = on_disk.settings_for(sources, wanted, num_neighbors, seed, precision)
        on_disk.build_on_disk(
            db,
            out,
            config,
            reasons,
            memory=memory,
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
    datapoints = files.read_array(db)
    measure = _needed(distance_measure or files.hdf5_distance_measure(location))
    builder = Builder(datapoints, num_neighbors, check_distance_measure(measure)).seed(seed)
    if threads is not None:
        builder.set_n_training_threads(threads)
    if given:
        _give_stages(builder, stages, brute_force, len(datapoints), num_neighbors, precision)
    else:
        target = 0.95 if recall is None else recall
        builder.autopilot(quantize=precision, target_recall=target, sample_queries=samples)
    _build_in_memory(builder, None if docids is None else files.read_docids(docids), out, queries)


def _build_in_memory(builder: Builder, docids: object, out: Path, training_queries: object) -> None:
    """Build and save, and say what was made."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as told, show.progress() as bars:
        warnings.simplefilter("always", RecallWarning)
        searcher = builder.build(docids, bars.update, training_queries=training_queries)
    built = time.perf_counter() - start
    for warning in told:
        show.warn(str(warning.message))
    with writing_to(out):
        searcher.save(out)
    for reason in [] if searcher.config.autopilot is None else searcher.config.autopilot.reasons:
        show.say(f"chosen: {reason}")
    show.say(f"{searcher!r}\nbuilt in {built:.1f} s, saved to {out} ({show.disk_size(out)})")


def _needed(measure: str | None) -> str:
    if measure is None:
        raise ConfigError(
            "--distance-measure is missing; expected dot_product, squared_l2 or cosine"
        )
    return measure.lower()


def _check_place(out: Path) -> None:
    """Find out before the work, not after it, that OUT cannot be written."""
    if out.suffix == SUFFIX and out.is_dir():
        raise ConfigError(f"OUT is {out}, which is a directory")
    if out.suffix != SUFFIX and out.exists() and not out.is_dir():
        raise ConfigError(f"OUT is {out}, which is not a directory")
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if nearest != out and not nearest.is_dir():
        raise ConfigError(f"OUT is {out}, but {nearest} is not a directory")
    if not os.access(nearest, os.W_OK):
        raise ConfigError(f"OUT is {out}, but {nearest} cannot be written")
    if out.is_dir():
        DirectoryLock(out, "save").release()  # a LockedError if it is open for changes

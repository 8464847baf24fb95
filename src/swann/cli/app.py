"""The commands. Imported only when the extra [cli] is there."""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from swann import files
from swann.cli import on_disk, show
from swann.cli.building import build
from swann.cli.options import VECTORS, IndexArgument, Leaves, PreReorder, Threads
from swann.cli.planning import plan
from swann.config import check_count
from swann.errors import ConfigError, IndexFormatError
from swann.evaluate import exact_neighbors, leaf_ladder, speed_recall
from swann.index.disk.store import holds_index
from swann.searcher import Searcher
from swann.storage import load_searcher
from swann.vectors import as_queries

__all__ = ["app"]

app = typer.Typer(
    help="Approximate nearest neighbours: build an index, search it, measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(asked: bool) -> None:
    if asked:
        show.say(f"swann {importlib.metadata.version('swann')}")
        raise typer.Exit


@app.callback()
def general(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Approximate nearest neighbours: build an index, search it, measure it."""


# Queries that one native call answers, so that the progress bar moves.
_QUERIES_A_CALL = 16_384

app.command()(build)


@app.command()
def search(
    index: IndexArgument,
    queries: Annotated[str, typer.Argument(help=f"Queries: {VECTORS}.", metavar="QUERIES")],
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
        str, typer.Argument(help=f"What the index was built from: {VECTORS}.", metavar="DB")
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
    if not len(checked):
        raise ConfigError(f"{queries} holds no queries: there is nothing to measure")
    measure = searcher.config.distance_measure
    with show.waiting("searching exactly"):
        true = exact_neighbors(datapoints, checked, k, measure, threads or 0, docids)
    settings = [(leaves, pre_reorder) for leaves in _ladder(searcher, leaves_to_search)]
    points = []
    with show.progress() as bars:
        for done, setting in enumerate(settings):
            points += speed_recall(searcher, checked, true.indices, [setting])
            bars.update("measuring", done + 1, len(settings))
    tree = searcher.config.tree
    own = None if tree is None else tree.num_leaves_to_search
    show.curve(points, k, searcher.num_threads, len(checked), own)


@app.command()
def info(index: IndexArgument) -> None:
    """Show the settings, the sizes and the arrays of INDEX."""
    show.index(_load(index, None), index)
    if on_disk.is_unfinished(index):
        show.warn(f"a build to {index} is not finished; {on_disk.how_to_go_on(index)}")


app.command()(plan)


def _load(index: Path, threads: int | None) -> Searcher:
    try:
        searcher = load_searcher(index)
    except IndexFormatError as error:
        if holds_index(index) or not on_disk.is_unfinished(index):
            raise
        raise IndexFormatError(
            f"{index} holds no index yet: its build is not finished; {on_disk.how_to_go_on(index)}"
        ) from error
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
    if tree is None:
        return [None]
    return [*sorted({*leaf_ladder(tree.num_leaves), tree.num_leaves_to_search})]

"""Index 50,000 words by their GloVe vectors and search them: `make demo`.

A thousand words are held out. Their nearest neighbours among the others, by cosine, are searched
for with an index and, for the truth and the comparison, exactly with NumPy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import glove
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

import swann
from swann.evaluate import recall

Floats = NDArray[np.float32]

K = 10
NUM_QUERIES = 1000
NUM_WORDS = 50_000
NUM_LEAVES = 250
SHOWN_WORDS = ("king", "paris", "python", "physics", "guitar")
# leaves_to_search and pre_reorder_num_neighbors: from fast to thorough.
SETTINGS = ((3, 20), (6, 30), (12, 50), (25, 80), (50, 120), (100, 200), (NUM_LEAVES, 500))

console = Console(highlight=False)


@dataclass(frozen=True)
class Measurement:
    """What one setting reaches: recall@10 and microseconds a query in three ways of asking."""

    name: str
    recall: float
    single: float
    batched: float
    parallel: float


def microseconds(run: Callable[[], object], count: int, seconds: float = 0.4) -> float:
    """Return microseconds a query, the best of the runs that fit into `seconds` (at least one)."""
    best = float("inf")
    stop = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        run()
        end = time.perf_counter()
        best = min(best, end - start)
        if end > stop:
            return best / count * 1e6


def build(database: Floats) -> swann.Searcher:
    """Train and fill the index, with a progress bar a stage."""
    with Progress(
        TextColumn("  {task.description:<32}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>4.0f} %"),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage)
            bars.update(tasks[stage], completed=done, total=total)

        return (
            swann.builder(database, num_neighbors=K, distance_measure="cosine")
            .tree(num_leaves=NUM_LEAVES, num_leaves_to_search=25)
            .score_ah(dimensions_per_block=2, anisotropic_quantization_threshold=0.2)
            .reorder(80)
            .build(progress=progress)
        )


def show_neighbors(searcher: swann.Searcher, words: list[str], vectors: Floats) -> None:
    """Print the neighbours of a few words, and of one sum of words."""
    vector = dict(zip(words, vectors, strict=True))
    queries = {word: vector[word] for word in SHOWN_WORDS}
    queries["king - man + woman"] = vector["king"] - vector["man"] + vector["woman"]
    table = Table(title="Nearest neighbours", title_justify="left", box=None, pad_edge=False)
    table.add_column("query", style="bold")
    table.add_column("neighbours, nearest first")
    for name, query in queries.items():
        found = [words[i] for i in searcher.search(query).indices]
        table.add_row(name, "  ".join([word for word in found if word not in name.split()][:5]))
    console.print(table)


def measure_numpy(database: Floats, queries: Floats) -> tuple[NDArray[np.int64], Measurement]:
    """Exact search in NumPy: normalise once, multiply, take the best ten."""
    unit = database / np.linalg.norm(database, axis=1, keepdims=True)

    def search(query: Floats) -> NDArray[np.int64]:
        scores = unit @ query
        best = np.argpartition(scores, -K)[-K:]
        return best[np.argsort(-scores[best])]

    def search_batched(rows: Floats) -> NDArray[np.int64]:
        scores = rows @ unit.T
        best = np.argpartition(scores, -K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        return np.take_along_axis(best, order, axis=1)

    truth = search_batched(queries)
    some = queries[:100]
    single = microseconds(lambda: [search(query) for query in some], len(some))
    batched = microseconds(lambda: search_batched(queries), len(queries))
    return truth, Measurement("exact, NumPy", 1.0, single, float("nan"), batched)


def measure(
    name: str,
    searcher: swann.Searcher,
    queries: Floats,
    truth: NDArray[np.int64],
    leaves: int | None = None,
    pre_reorder: int | None = None,
) -> Measurement:
    """Search with one setting: recall, then speed one at a time, in a batch, on all cores."""
    found = searcher.search_batched(queries, K, pre_reorder, leaves).indices
    some = queries if leaves is not None else queries[:100]
    return Measurement(
        name,
        recall(found, truth),
        microseconds(lambda: [searcher.search(q, K, pre_reorder, leaves) for q in some], len(some)),
        microseconds(
            lambda: searcher.search_batched(queries, K, pre_reorder, leaves), len(queries)
        ),
        microseconds(
            lambda: searcher.search_batched_parallel(queries, K, pre_reorder, leaves), len(queries)
        ),
    )


def show_measurements(rows: list[Measurement], exact: list[Measurement], threads: int) -> None:
    """Print the table of recall and speed."""
    table = Table(
        title=f"Recall@{K} and microseconds a query ({NUM_QUERIES:,} held-out words)",
        title_justify="left",
    )
    table.add_column("leaves /\nreordered")
    batched = ("batched,\n1 thread", f"batched,\n{threads} threads")
    for column in (f"\nrecall@{K}", "one at\na time", *batched):
        table.add_column(column, justify="right")
    for row in [*rows, *exact]:
        if row is exact[0]:
            table.add_section()
        times = (row.single, row.batched, row.parallel)
        table.add_row(row.name, f"{row.recall:.3f}", *(_time(value) for value in times))
    console.print(table)


def _time(value: float) -> str:
    return "" if np.isnan(value) else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def draw(rows: list[Measurement], numpy_row: Measurement, threads: int, path: Path) -> None:
    """Write the speed-recall picture."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    # The last percents cost the most: stretch them.
    axes.set_xscale("function", functions=(_stretch, _unstretch))
    axes.set_xlim(0.6, 1.0003)
    axes.set_xticks([0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    x = [row.recall for row in rows]
    ways = (
        (f"batched, {threads} threads", "parallel", "#12466b"),
        ("batched, 1 thread", "batched", "#3c9dc9"),
        ("one at a time, 1 thread", "single", "#e07b39"),
    )
    for label, field, color in ways:
        speed = [1e6 / getattr(row, field) for row in rows]
        axes.plot(x, speed, "o-", color=color, markersize=4.5, linewidth=1.8, label=label)
    for label, value in (("batched", numpy_row.parallel), ("one at a time", numpy_row.single)):
        axes.axhline(1e6 / value, color="#777777", linewidth=1.2, linestyle="--")
        axes.annotate(
            f"exact search in NumPy, {label}",
            (0.61, 1e6 / value),
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=9,
            color="#555555",
        )
    for row in rows:
        axes.annotate(
            row.name.split(" /")[0],
            (row.recall, 1e6 / min(row.parallel, row.batched)),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color="#12466b",
        )
    axes.set_xlabel(f"recall@{K}  (at the points: leaves searched, of {NUM_LEAVES})")
    axes.set_ylabel("queries per second")
    axes.set_title(f"swann on {NUM_WORDS:,} words of GloVe-100, cosine", fontsize=11)
    axes.grid(which="major", color="#e2e2e2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    figure.savefig(path, dpi=150)


def _stretch(recall: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log10(np.maximum(1.002 - recall, 1e-9))


def _unstretch(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.002 - 10.0**-x


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description="Index 50,000 words and search them.")
    parser.add_argument("--output", type=Path, default=Path("demo-out"), help="where results go")
    args = parser.parse_args()

    words, vectors = glove.load()
    shuffled = np.random.default_rng(0).permutation(len(words))
    queries, known = vectors[shuffled[:NUM_QUERIES]], np.sort(shuffled[-NUM_WORDS:])
    database, words = vectors[known], [words[i] for i in known]
    console.print(
        f"[bold]swann {swann.__version__}[/]: {len(database):,} words of GloVe, "
        f"{database.shape[1]} dimensions, cosine\n\nBuilding the index"
    )
    start = time.perf_counter()
    searcher = build(database)
    console.print(f"  in {time.perf_counter() - start:.1f} seconds: {searcher}\n")

    show_neighbors(searcher, words, database)

    console.print("\nMeasuring ...")
    truth, numpy_row = measure_numpy(database, queries)
    rows = [
        measure(f"{leaves} / {pre_reorder}", searcher, queries, truth, leaves, pre_reorder)
        for leaves, pre_reorder in SETTINGS
    ]
    brute_force = (
        swann.builder(database, num_neighbors=K, distance_measure="cosine")
        .score_brute_force()
        .build()
    )
    exact = [measure("exact, swann", brute_force, queries, truth), numpy_row]
    show_measurements(rows[1:], exact, searcher.num_threads)
    console.print("One at a time: swann on one thread, NumPy on as many as its BLAS takes.")

    args.output.mkdir(parents=True, exist_ok=True)
    picture = args.output / "speed-recall.png"
    draw(rows, numpy_row, searcher.num_threads, picture)
    console.print(f"\nSpeed against recall, as a picture: [bold]{picture}[/]")


if __name__ == "__main__":
    main()

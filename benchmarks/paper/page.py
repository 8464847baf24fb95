"""The page: what the paper claims, what was measured here, and whether it came out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.paper.experiment import Experiment
from benchmarks.paper.store import Record, draw, read
from benchmarks.tables import table

HEAD = """# The paper's experiments

Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", ICML 2020
(arXiv 1908.10396), run again on public data. `make paper` does all of it and writes this page from
`docs/paper/*.json`; `make paper ARGS="figure-3a table-1"` runs single experiments, `ARGS=--page`
only writes the page, `ARGS=--list` says what each costs. Every claim is decided by code, from the
figures beside it.

The paper's data sets are larger (Glove1.2M: 1.2 million vectors; Amazon-670k) and cannot be had
here, so its figures are not to be met, but its claims are. Figures of the paper are named only
where they are certain; where it has a plot, what the plot shows is told in words.
"""


def write(experiments: Iterable[Experiment], folder: Path, page: Path) -> None:
    """Write the page and the pictures of all experiments that have results.

    Parameters
    ----------
    experiments : iterable of Experiment
        In the order of the page.
    folder : Path
        Holds the results; pictures are written into it.
    page : Path
        Lies beside the folder.
    """
    found = [(experiment, read(experiment, folder)) for experiment in experiments]
    parts = [HEAD, _summary(found)]
    parts += [_section(e, record, folder) for e, record in found if record is not None]
    page.write_text("\n".join(parts))


def _summary(found: list[tuple[Experiment, Record | None]]) -> str:
    rows = []
    for experiment, record in found:
        name = experiment.title
        if record is None:
            rows.append([name, "not run yet", "", ""])
            continue
        said = "came out" if record["verdict"]["came_out"] else "**did not come out**"
        spent = [f"{record[key]:,.0f}" for key in ("cpu_seconds", "seconds")]
        rows.append([name, said, *spent])
    total = sum(record["cpu_seconds"] for _, record in found if record is not None)
    note = (
        f"Together {total / 60:,.0f} minutes of one core. Seconds by the clock depend on what else "
        "the machine did; each section names its load.\n"
    )
    return table(["experiment", "claim", "CPU seconds", "seconds"], rows) + "\n\n" + note


def _section(experiment: Experiment, record: Record, folder: Path) -> str:
    results, verdict = record["results"], record["verdict"]
    picture = draw(experiment, results, folder)
    said = "Came out" if verdict["came_out"] else "Did not come out"
    lines = [
        f"## {experiment.title}\n",
        f"Claim: {experiment.claim}\n",
        f"The paper: {experiment.paper}\n",
        f"Here: {experiment.how}\n",
        experiment.table(results) + "\n",
    ]
    if picture:
        lines.append(f"![{experiment.title}]({folder.name}/{picture})\n")
    lines.append(f"**{said}.** {verdict['because'][0].upper()}{verdict['because'][1:]}.\n")
    about = record["machine"]
    threads = about["threads"]
    lines.append(
        f"<sub>{experiment.name}, {about['date']}: {record['seconds']:,.0f} s "
        f"({record['cpu_seconds']:,.0f} s of CPU) on {threads} thread"
        f"{'s' if threads != 1 else ''} of {about['cpu']} (load before: "
        f"{about['load_before']:.1f}); seed {record['seed']}.</sub>\n"
    )
    return "\n".join(lines)

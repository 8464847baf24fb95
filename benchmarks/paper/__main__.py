"""The command line: ``python -m benchmarks.paper [NAME ...]``, which is what `make paper` runs."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time

from benchmarks.paper import page, store
from benchmarks.paper.experiments import all_experiments
from benchmarks.paper.lab import Lab, Unavailable, ask_faiss, load

_START = time.perf_counter()


def _say(text: str) -> None:
    print(f"[{time.perf_counter() - _START:6.0f} s] {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; default all")
    parser.add_argument("--list", action="store_true", help="say what there is and what it costs")
    parser.add_argument("--page", action="store_true", help="only write the page, from results")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="default: all; no result changes"
    )
    return parser


def main() -> int:
    """Run the experiments asked for; 1 where one could not be."""
    options = _parser().parse_args()
    known = all_experiments()
    unknown = [name for name in options.names if name not in known]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; expected some of {', '.join(known)}")
    chosen = [known[name] for name in options.names] or list(known.values())
    if options.list:
        for experiment in chosen:
            print(f"{experiment.name:12} {experiment.cost:32} {experiment.title}")
        return 0
    left_out = 0
    if not options.page:
        faiss = functools.partial(ask_faiss, threads=options.threads)
        lab = Lab(data=load, faiss=faiss, threads=options.threads)
        for experiment in chosen:
            _say(f"{experiment.name}: {experiment.cost}")
            try:
                record = store.perform(experiment, lab, store.FOLDER)
            except Unavailable as error:
                _say(f"{experiment.name}: left out: {error}")
                left_out = 1
                continue
            said = "came out" if record["verdict"]["came_out"] else "did not come out"
            _say(f"{experiment.name}: {said}: {record['verdict']['because']}")
    written = store.FOLDER.with_suffix(".md")
    page.write(known.values(), store.FOLDER, written)
    _say(f"{written}")
    return left_out


if __name__ == "__main__":
    sys.exit(main())

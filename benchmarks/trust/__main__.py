"""The command line: ``python -m benchmarks.trust [NAME ...]``, which is what `make trust` runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.trust import page
from benchmarks.trust.experiment import Options, publish
from benchmarks.trust.registry import EXPERIMENTS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; default all")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--short", action="store_true", help="what the tests run")
    parser.add_argument(
        "--page", action="store_true", help="only write the tables of docs/trust.md"
    )
    parser.add_argument("--n", type=int, help="how many; default: of the long form")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--publish", action="store_true", help="keep figures in docs/trust/")
    return parser


def main() -> int:
    """Run the experiments asked for; 1 where a promise was broken."""
    options = _parser().parse_args()
    if options.page:
        page.write()
        return 0
    unknown = [name for name in options.names if name not in EXPERIMENTS]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; expected some of {list(EXPERIMENTS)}")
    failed = 0
    for experiment in [EXPERIMENTS[name] for name in options.names or EXPERIMENTS]:
        if options.list:
            print(f"{experiment.name:12} {experiment.short:>8} {experiment.long:>10} "
                  f"{experiment.title}")  # fmt: skip
            continue
        n = options.n or (experiment.short if options.short else experiment.long)
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            asked = Options(n, options.seed, options.first, options.workers, Path(folder))
            report = experiment.run(asked)
        print(f"{experiment.name}: {json.dumps(report.figures, indent=1)}")
        for failure in report.failures[:50]:
            print(f"  FAILED {failure}")
        if options.publish:
            print(publish(experiment, asked, report))
        failed += bool(report.failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

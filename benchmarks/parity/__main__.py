"""The command line: ``python -m benchmarks.parity``."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import envs
from benchmarks.parity import data, report
from benchmarks.parity.case import Case
from benchmarks.parity.cases import CASES
from benchmarks.parity.process import Process
from benchmarks.parity.verdict import DRAWS, Found, in_doubt, mean_of
from benchmarks.paths import RESULTS
from benchmarks.systems import find

_START = time.perf_counter()


def _say(text: str) -> None:
    print(f"[{time.perf_counter() - _START:6.0f} s] {text}", file=sys.stderr, flush=True)


def _ask_all(python: Path, lib: str, cases: list[Case], folders: dict[str, Path]) -> list[Found]:
    found = []
    with Process(python, lib, folders) as process:
        for case in cases:
            start = time.perf_counter()
            found.append(process.ask(case))
            _say(f"{lib}: {case.name} ({time.perf_counter() - start:.1f} s)")
    return found


def _ask_again(
    python: Path, lib: str, asked: dict[Case, Found], folders: dict[str, Path]
) -> list[Found]:
    found = []
    with Process(python, lib, folders) as process:
        for case, first in asked.items():
            more = [process.ask(case, draw) for draw in range(1, DRAWS)]
            found.append(mean_of([first, *more]))
            _say(f"{lib}: {case.name}, {DRAWS - 1} builds more")
    return found


def _chosen(options: argparse.Namespace, folders: dict[str, Path]) -> list[Case]:
    return [
        case
        for case in CASES
        if (case.quick or not options.quick)
        and fnmatch.fnmatch(case.name, options.only)
        and (not case.data or case.data in folders)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less data, a third of the matrix")
    parser.add_argument("--only", default="*", help="cases to run, as 'updates/*'")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument(
        "--swann-env",
        choices=["own", "current"],
        default="own",
        help="install swann into an environment of its own, or use this one's",
    )
    return parser


def main() -> int:
    """Run the program against both libraries; return 1 where swann is worse."""
    options = _parser().parse_args()
    if options.list:
        print("\n".join(case.name for case in CASES))
        return 0
    own = options.swann_env == "own"
    pythons = {
        "scann": envs.ensure(find("scann")),
        "swann": envs.ensure(find("swann")) if own else Path(sys.executable),
    }
    size, queries = (6_000, 500) if options.quick else (20_000, 1_000)
    folders = {}
    for name in data.NAMES:
        folder = data.prepare(name, size, queries, _say)
        if folder is None:
            _say(f"{name}: not there, left out (see benchmarks/README.md)")
        else:
            folders[name] = folder
    cases = _chosen(options, folders)
    with ThreadPoolExecutor(len(pythons)) as pool:
        asked = {
            lib: pool.submit(_ask_all, python, lib, cases, folders)
            for lib, python in pythons.items()
        }
        found = {lib: future.result() for lib, future in asked.items()}
        rows = list(zip(cases, found["scann"], found["swann"], strict=True))
        doubtful = [place for place, row in enumerate(rows) if in_doubt(*row)]
        asked = {
            lib: pool.submit(
                _ask_again, python, lib, {cases[i]: found[lib][i] for i in doubtful}, folders
            )
            for lib, python in pythons.items()
        }
        means = zip(doubtful, asked["scann"].result(), asked["swann"].result(), strict=True)
        for place, scann, swann in means:
            rows[place] = (cases[place], scann, swann)
    (RESULTS / "parity.md").write_text(report.markdown(rows))
    print(report.terminal(rows))
    _say(f"written to {RESULTS / 'parity.md'}")
    return 1 if report.failed(rows) else 0


if __name__ == "__main__":
    sys.exit(main())

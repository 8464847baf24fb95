"""The command line: ``python -m benchmarks run``, and the steps it is made of."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from benchmarks import check, datasets, envs, goals, machine, plot, report, scaling
from benchmarks.datasets import PreparedData
from benchmarks.paths import PUBLISHED, RESULTS
from benchmarks.remote import WorkerError
from benchmarks.results import Build, Results, SystemResult
from benchmarks.systems import System, all_systems, find
from benchmarks.turns import Contender, closing, take_turns

_START = time.perf_counter()


def _say(text: str) -> None:
    print(f"[{time.perf_counter() - _START:6.0f} s] {text}", file=sys.stderr, flush=True)


def _chosen(names: str | None) -> list[System]:
    return [find(name) for name in names.split(",")] if names else list(all_systems().values())


def _environments(
    systems: list[System], swann_env: str
) -> tuple[dict[str, Path], dict[str, SystemResult]]:
    """Interpreters of the systems that could be installed, and the errors of the others."""
    pythons: dict[str, Path] = {"swann": Path(sys.executable)} if swann_env == "current" else {}
    failed: dict[str, str] = {}
    homes = {system.name: system.like or system.name for system in systems}
    for home in dict.fromkeys(homes.values()):
        if home in pythons:
            continue
        _say(f"{home}: environment")
        try:
            pythons[home] = envs.ensure(find(home))
        except envs.EnvironmentFailed as error:
            _say(f"{home}: left out\n{error}")
            failed[home] = f"not installed: {error}"
    return (
        {name: pythons[home] for name, home in homes.items() if home in pythons},
        {name: SystemResult(error=failed[home]) for name, home in homes.items() if home in failed},
    )


def _run(options: argparse.Namespace) -> None:
    if options.clock == "cpu" and options.threads > 1:
        raise SystemExit("--clock cpu means nothing for more than one thread")
    data = datasets.prepare(datasets.find(options.data), _say)
    systems = _chosen(options.systems)
    pythons, errors = _environments(systems, options.swann_env)
    rounds = options.rounds or (1 if options.quick else 3)
    about = machine.describe(options.threads, rounds, options.clock)
    made: dict[Path, Build] = {}
    contenders = [
        Contender(system, pythons[system.name], data, options.threads, options.quick, made)
        for system in systems
        if system.name in pythons
    ]
    with closing(contenders):
        take_turns(contenders, rounds, options.rebuild, options.clock, _say)
        if options.clock == "wall" and options.threads == 1 and (os.cpu_count() or 1) > 1:
            _scale(contenders)
    results = Results(
        data=_about(data),
        machine=about,
        systems={c.system.name: c.result for c in contenders} | errors,
        check=_check(contenders, options.quick),
    )
    results.write(RESULTS / f"{data.name}.json")
    _report(RESULTS / f"{data.name}.json", RESULTS)
    print((RESULTS / f"{data.name}.md").read_text())
    _say(f"written to {RESULTS}")


def _about(data: PreparedData) -> dict[str, object]:
    n, d = data.train.shape
    return {
        "name": data.name,
        "about": data.about,
        "distance_measure": data.distance_measure,
        "n": n,
        "d": d,
        "queries": len(data.test),
    }


def _scale(contenders: list[Contender]) -> None:
    for contender in contenders:
        if contender.system.name in scaling.SYSTEMS and not contender.result.error:
            try:
                contender.result.scaling = scaling.measure(contender, _say)
            except WorkerError as error:
                _say(str(error))


def _check(contenders: list[Contender], quick: bool) -> dict[str, object]:
    pair = [c for c in contenders if c.system.name in ("swann", "scann") and not c.result.error]
    if not pair:
        return {}
    _say("equal settings: " + " and ".join(c.system.name for c in pair))
    return check.equal_settings(pair, quick, _say)


def _report(source: Path, folder: Path) -> None:
    results = Results.read(source)
    plots = plot.draw(results, folder)
    (folder / f"{results.data['name']}.md").write_text(report.markdown(results, plots))
    if source.parent != folder:
        shutil.copy(source, folder / source.name)


def _report_all(options: argparse.Namespace) -> None:
    folder = PUBLISHED if options.publish else RESULTS
    for source in _sources(options):
        _report(source, folder)
        _say(f"{folder / source.stem}.md")


def _goals(options: argparse.Namespace) -> None:
    for source in _sources(options):
        results = Results.read(source)
        print(f"# {results.data['name']}\n\n{goals.markdown(results)}\n")


def _sources(options: argparse.Namespace) -> list[Path]:
    sources = [RESULTS / f"{options.data}.json"] if options.data else sorted(RESULTS.glob("*.json"))
    if not sources or not sources[0].exists():
        raise SystemExit("no results yet: python -m benchmarks run")
    return sources


def _data(options: argparse.Namespace) -> None:
    names = options.names or datasets.names()
    for name in names:
        data = datasets.prepare(datasets.find(name), _say)
        _say(f"{name}: {data.train.shape} and {data.test.shape} in {data.folder}")


def _envs(options: argparse.Namespace) -> None:
    _, errors = _environments(_chosen(options.systems), "own")
    if errors:
        raise SystemExit(f"could not be installed: {', '.join(errors)}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    known = ", ".join(all_systems())

    run = commands.add_parser("run", help="measure systems beside each other, and report")
    run.add_argument("--data", default="glove-100", help="a name, or a .hdf5 or .npz file")
    run.add_argument("--systems", help=f"comma-separated; default all: {known}")
    run.add_argument("--threads", type=_positive, default=1, help="for every system (default 1)")
    run.add_argument("--rounds", type=_positive, help="measurements a setting (default 3)")
    run.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: by the CPU time of one thread, for a machine that others use meanwhile",
    )
    run.add_argument("--quick", action="store_true", help="fewer settings, one round")
    run.add_argument("--rebuild", action="store_true", help="build peers anew, too")
    run.add_argument(
        "--swann-env",
        choices=("own", "current"),
        default="own",
        help="swann from the working tree in its own environment, or as this Python imports it",
    )
    run.set_defaults(act=_run)

    data = commands.add_parser("data", help="fetch data sets and compute exact neighbours")
    data.add_argument("names", nargs="*", help=f"default all: {', '.join(datasets.names())}")
    data.set_defaults(act=_data)

    environments = commands.add_parser("envs", help="make the systems' environments")
    environments.add_argument("--systems", help=f"comma-separated; default all: {known}")
    environments.set_defaults(act=_envs)

    tell = commands.add_parser("report", help="write tables and pictures of the last results")
    tell.add_argument("--data", help="one data set only")
    tell.add_argument("--publish", action="store_true", help="into docs/bench")
    tell.set_defaults(act=_report_all)

    wanted = commands.add_parser("goals", help="what swann must show, beside the last results")
    wanted.add_argument("--data", help="one data set only")
    wanted.set_defaults(act=_goals)
    return parser


def main() -> None:
    """Run the command line."""
    options = _parser().parse_args()
    options.act(options)


if __name__ == "__main__":
    main()

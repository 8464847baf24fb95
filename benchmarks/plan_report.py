"""Fits the constants of `swann.plan` to what ``benchmarks.plan`` measured, and tells its errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import swann.plan
from benchmarks.paths import PUBLISHED
from benchmarks.plan import CASES, RECALLS, SAMPLE, Case
from benchmarks.results import rounded
from benchmarks.tables import table
from swann.config import IndexConfig
from swann.plan.building import build_cpu_seconds, peak_bytes
from swann.plan.calibrate import Built, Observation, cache_bytes, serial_share, speed_from
from swann.plan.cluster import Cluster
from swann.plan.layout import array_bytes
from swann.plan.machine import Machine
from swann.plan.profile import Law, Look, Profile, law_terms
from swann.plan.speed import Speed, nanoseconds, query_terms

Found = dict[str, Any]
SHOWN = 0.95
HOP, MESSAGE, BATCH_MESSAGE = 500.0, 270.0, 4.0
"""Microseconds. Not measured here: four shards in processes of one host took .98 ms longer for a
query than one index, and 15 microseconds a query of a batch (docs/scale.md)."""


def fit_laws(found: dict[Case, Found]) -> Profile:
    """Fit the laws for recall to the cases that are for it."""
    rows, scanned, candidates = [], [], []
    fitted = [case for case in found if case.fitted]
    for case in fitted:
        leaves = leaves_of(found[case])
        for recall, look in zip(RECALLS, found[case]["looks"], strict=True):
            if look is not None and look[0] < leaves:
                rows.append(law_terms(case.n, leaves, recall))
                scanned.append(np.log(look[1]))
                candidates.append(np.log(look[2]))
    laws = [
        Law(tuple(np.linalg.lstsq(np.array(rows), np.array(y), rcond=None)[0].tolist()))
        for y in (scanned, candidates)
    ]
    sizes = [case.n for case in fitted]
    return Profile(
        name="GloVe-100",
        scanned=laws[0],
        candidates=laws[1],
        larger=float(np.mean([found[case]["larger"] for case in fitted])),
        measured=(min(sizes), max(sizes)),
        recalls=(RECALLS[0], RECALLS[-1]),
    )


def leaves_of(found: Found) -> int:
    """Return how many leaves a case has."""
    return int(found["config"]["tree"]["num_leaves"])


def observations(case: Case, found: Found) -> list[Observation]:
    """Return the searches of a case that were timed."""
    config = IndexConfig.from_dict(found["config"])
    looks = dict(zip(map(str, RECALLS), found["looks"], strict=True))
    return [
        Observation(
            config,
            case.n,
            found["dimension"],
            Look(*looks[recall]),
            float(found["arrays"]["codes"]),
            alone,
            batch,
        )
        for recall, (alone, batch, _) in found["times"].items()
    ]


def fit_speed(found: dict[Case, Found], calibration: Found) -> Speed:
    """Fit what things take to the cases that are for it, and to what `calibrate` timed."""
    seen = [
        Observation(IndexConfig.from_dict(o[0]), o[1], o[2], Look(*o[3]), *o[4:])
        for o in calibration["searches"]
    ]
    builds = []
    serial = []
    for case, one in found.items():
        if case.fitted:
            seen += observations(case, one)
            config = IndexConfig.from_dict(one["config"])
            builds.append(Built(config, case.n, one["dimension"], one["stages"]))
            alone, both = one["wall"]
            serial.append(serial_share(alone, both, 2))
    return speed_from(seen, builds, float(np.median(serial)), cache_bytes())


def fit_spread(found: dict[Case, Found]) -> tuple[float, float]:
    """Return `Cluster.scatter` and `Cluster.uneven` that explain the bisected leaves best."""
    rows = np.array(
        [row for case, one in found.items() if case.fitted for row in one["spread"] or []]
    )
    shards, leaves, visited, busiest = rows.T

    def error(scatter: float) -> float:
        told = shards * (1 - (1 - 1 / shards) ** (leaves**scatter))
        return float(np.mean(np.log(told / visited) ** 2))

    scatter = min(np.linspace(0.1, 1, 181), key=error)
    logs = np.log(np.maximum(visited, 1.0001))
    return float(scatter), float(-(logs @ np.log(busiest)) / (logs @ logs))


def predicted(case: Case, found: Found, profile: Profile, speed: Speed) -> dict[str, float]:
    """Return what the model says of a case, by the names of `measured`."""
    config = IndexConfig.from_dict(found["config"])
    n, d, leaves = case.n, found["dimension"], leaves_of(found)
    machine = Machine(name="here", cores=1, memory=1, bandwidth=1, speed=speed)
    corrected = found.get("corrected", False)  # older runs had none
    arrays = array_bytes(config, n, d, residual=found["residual"], corrected=corrected)
    look = profile.look(n, leaves, SHOWN)
    times = [
        nanoseconds(
            part,
            query_terms(
                config, n, d, look, cache=cache_bytes(), code_bytes=arrays["codes"], batch=batch
            ),
        )
        for part, batch in ((speed.alone, False), (speed.batch, True))
    ]
    return {
        "index, MB": sum(arrays.values()) / 1e6,
        "build, CPU s": sum(build_cpu_seconds(config, n, d, machine).values()),
        "peak of a build, MB": peak_bytes(config, n, d) / 1e6,
        "scanned": look.scanned,
        "candidates": look.candidates,
        "alone, µs": times[0] / 1e3,
        "batch, µs": times[1] / 1e3,
    }


def measured(found: Found) -> dict[str, float]:
    """Return what came out for a case at the recall shown."""
    look = found["looks"][RECALLS.index(SHOWN)]
    times = found["times"].get(str(SHOWN), [np.nan] * 3)
    return {
        "index, MB": sum(found["arrays"].values()) / 1e6,
        "build, CPU s": sum(found["stages"].values()),
        "peak of a build, MB": found["peak"] / 1e6,
        "scanned": look[1],
        "candidates": look[2],
        "alone, µs": times[0] / 1e3,
        "batch, µs": times[1] / 1e3,
    }


def own_look(found: Found, profile: Profile) -> Profile:
    """Return the laws made true for the data by a sample of them."""
    look, leaves, larger = found["sample"]
    return profile.matched("sample", SAMPLE, leaves, SHOWN, Look(*look), larger)


def known_look(case: Case, found: Found, profile: Profile) -> Profile:
    """Return the laws made true at the case itself: what is left are errors of the times."""
    look = Look(*found["looks"][RECALLS.index(SHOWN)])
    return profile.matched("known", case.n, leaves_of(found), SHOWN, look, found["larger"])


def read(folder: Path) -> dict[Case, Found]:
    """Return what was measured."""
    files = {case: folder / f"{case.name}.json" for case in CASES}
    return {case: json.loads(file.read_text()) for case, file in files.items() if file.exists()}


def report(folder: Path, publish: bool) -> None:
    """Fit, predict, and write ``plan.md`` and ``plan.png``; the constants, too, to publish."""
    found = read(folder)
    calibration = json.loads((folder / "calibration.json").read_text())
    profile = fit_laws(found)
    speed = fit_speed(found, calibration)
    calibrated = Speed.from_dict(calibration["machine"]["speed"])
    scatter, uneven = fit_spread(found)
    cluster = Cluster(
        scatter=round(scatter, 3),
        uneven=round(uneven, 3),
        hop=HOP,
        message=MESSAGE,
        batch_message=BATCH_MESSAGE,
    )
    ways: dict[str, Callable[[Case, Found], dict[str, float]]] = {
        "by GloVe's laws": lambda case, one: predicted(case, one, profile, speed),
        "by a sample": lambda case, one: predicted(case, one, own_look(one, profile), speed),
        "recall known": lambda case, one: predicted(
            case, one, known_look(case, one, profile), speed
        ),
        "recall known, calibrated": lambda case, one: predicted(
            case, one, known_look(case, one, profile), calibrated
        ),
    }
    told = {
        way: {case: tell(case, one) for case, one in found.items()} for way, tell in ways.items()
    }
    (folder / "plan.md").write_text(_page(found, told, profile, speed, cluster))
    _draw(found, told, folder / "plan.png")
    print((folder / "plan.md").read_text())
    if publish:
        package = Path(swann.plan.__file__).parent / "fitted.json"
        content = {
            "profile": profile.to_dict(),
            "speed": speed.to_dict(),
            "cluster": dataclasses.asdict(cluster),
        }
        package.write_text(json.dumps(_short(content), indent=1) + "\n")
        for name in ("plan.md", "plan.png"):
            shutil.copy(folder / name, PUBLISHED / name)
        (PUBLISHED / "plan.json").write_text(
            json.dumps(rounded({case.name: one for case, one in found.items()})) + "\n"
        )


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _ratio(told: float, seen: float) -> str:
    return "–" if not np.isfinite(seen) else f"{told / seen:.2f}"


def _page(
    found: dict[Case, Found],
    told: dict[str, dict[Case, dict[str, float]]],
    profile: Profile,
    speed: Speed,
    cluster: Cluster,
) -> str:
    first = next(iter(found.values()))["machine"]
    parts = [
        "# What the cost model is worth",
        f"{first['cpu']}, {speed.about}; one thread, CPU time, recall 10@10 of {SHOWN}. "
        "`python -m benchmarks.plan` measures, fits and writes this page. Every figure of the "
        "tables of errors is predicted over measured: 1 is right.",
        "![Predicted and measured](plan.png)",
        "## Measured",
        table(
            ["data", "datapoints", "leaves", "fitted", *measured(next(iter(found.values())))],
            [
                [
                    case.data,
                    f"{case.n:,}",
                    f"{leaves_of(one):,}",
                    "yes" if case.fitted else "no",
                    *(f"{value:,.4g}" for value in measured(one).values()),
                ]
                for case, one in found.items()
            ],
        ),
        "## Errors where nothing was fitted",
    ]
    names = list(measured(next(iter(found.values()))))
    for group, held in (("", False), ("## Errors where the constants were fitted", True)):
        parts += [group] if group else []
        cases = [case for case in found if case.fitted is held]
        rows = []
        for case in cases:
            seen = measured(found[case])
            fixed = [_ratio(told["recall known"][case][name], seen[name]) for name in names[:3]]
            looks = [
                " / ".join(_ratio(told[way][case][name], seen[name]) for way in list(told)[:2])
                for name in names[3:5]
            ]
            times = [
                " / ".join(_ratio(told[way][case][name], seen[name]) for way in told)
                for name in names[5:]
            ]
            label = f"{case.data}, {case.n:,}, {leaves_of(found[case]):,} leaves"
            rows.append([label, *fixed, *looks, *times])
        parts.append(table(["data", *names], rows))
    parts.append(
        "Looks (datapoints scanned, candidates) are told by the laws of GloVe-100 alone / by these "
        f"laws times what a sample of {SAMPLE:,} datapoints shows. Times: the same two, "
        "then with the looks known, so that only the constants of times err, and the last with the "
        "constants of `swann plan --calibrate`, which saw none of these data."
    )
    parts += ["## Constants", *_constants(profile, speed, cluster)]
    return "\n\n".join(parts) + "\n"


def _constants(profile: Profile, speed: Speed, cluster: Cluster) -> list[str]:
    rows = [[name, f"{speed.alone[name]:.4g}", f"{speed.batch[name]:.4g}"] for name in speed.alone]
    built = ", ".join(f"{name} {value:.3g}" for name, value in speed.build.items())
    laws = [
        [
            name,
            *(f"{c:.3g}" for c in law.constants),
        ]
        for name, law in (("scanned", profile.scanned), ("candidates", profile.candidates))
    ]
    return [
        table(["law", "a", "b", "c", "n to the", "leaves / sqrt(n) to the"], laws),
        table(["nanoseconds", "alone", "batch"], rows),
        f"Build, nanoseconds: {built}; share that a second thread does not shorten: "
        f"{speed.serial:.2f}.",
        f"Leaves bisected among shards: a query's L leaves lie as "
        f"L^{cluster.scatter:g} leaves spread at random would; "
        f"of v shards visited the busiest has v^-{cluster.uneven:g} of the work.",
    ]


def _draw(
    found: dict[Case, Found], told: dict[str, dict[Case, dict[str, float]]], path: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [
        "index, MB",
        "build, CPU s",
        "peak of a build, MB",
        "scanned",
        "alone, µs",
        "batch, µs",
    ]
    figure, grid = pyplot.subplots(2, 3, figsize=(12, 8), layout="constrained")
    for axes, name in zip(grid.flat, names, strict=True):
        for way, marker, fitted, color in (
            ("by a sample", "o", True, "#999999"),
            ("by a sample", "o", False, "#0072b2"),
            ("by GloVe's laws", "x", False, "#d55e00"),
        ):
            cases = [case for case in found if case.fitted is fitted]
            x = [measured(found[case])[name] for case in cases]
            y = [told[way][case][name] for case in cases]
            label = f"{way}, {'fitted' if fitted else 'not fitted'}"
            axes.loglog(x, y, marker, color=color, label=label, linestyle="none")
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], color="#000000", linewidth=0.8)
        axes.set_title(name)
        axes.set_xlabel("measured")
        axes.set_ylabel("predicted")
        axes.grid(True, which="both", alpha=0.2)
    grid.flat[0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

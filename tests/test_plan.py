"""Plans: what grows must grow, what cannot be is refused, and JSON loses nothing."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swann.autopilot import choose_config
from swann.cli import main
from swann.config import AHConfig, ReorderType
from swann.errors import ConfigError
from swann.index.building.build import ENOUGH_A_LEAF, build_index
from swann.index.packed import MOST_ENTRIES
from swann.plan import Cluster, Machine, Plan, machines, measured, plan
from swann.plan.calibrate import calibrate, serial_share
from swann.plan.cluster import message_bytes, waiting
from swann.plan.machine import (
    THIS,
    cache_file,
    keep,
    machine,
    usual_cluster,
    usual_profile,
    usual_speed,
)
from swann.plan.speed import QUERY_TERMS, fit

SIZES = [20_000, 100_000, 1_000_000, 30_000_000, 1_000_000_000, 4_000_000_000]


def one(n: int = 10_000_000, **asked: Any) -> Plan:
    return plan(n, asked.pop("dimension", 100), **asked)


# ---- What grows


def rising(values: list[float]) -> bool:
    return all(a <= b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("measure", ["cosine", "squared_l2", "dot_product"])
def test_costs_grow_with_the_datapoints(measure: Any) -> None:
    plans = [one(n, distance_measure=measure, queries_per_second=1000) for n in SIZES]
    assert rising([p.index_bytes for p in plans])
    assert rising([p.shards for p in plans])
    assert rising([p.machines for p in plans])
    work = [p.cpu_microseconds - p.work_microseconds.get("fan-out", 0.0) for p in plans]
    assert rising(work)
    assert rising([p.look.scanned for p in plans])
    single = [p for p in plans if p.shards == 1]
    assert rising([sum(p.build_seconds.values()) for p in single])
    assert rising([p.build_peak_bytes for p in single])


def test_costs_grow_with_the_recall() -> None:
    plans = [one(recall=recall) for recall in (0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99)]
    assert rising([p.look.scanned for p in plans])
    assert rising([p.look.candidates for p in plans])
    assert rising([p.cpu_microseconds for p in plans])
    assert plans[-1].cpu_microseconds > 1.5 * plans[0].cpu_microseconds


def test_candidates_grow_with_the_neighbors() -> None:
    few, many = (one(num_neighbors=k).look for k in (10, 100))
    assert many.candidates == pytest.approx(10 * few.candidates, rel=0.05)
    assert many.scanned == few.scanned


def test_machines_grow_with_the_queries() -> None:
    plans = [one(queries_per_second=q) for q in (0, 10, 1e4, 1e5, 1e6, 1e7)]
    assert rising([p.machines for p in plans])
    assert plans[0].replicas == 1
    assert plans[-1].replicas > 10
    assert plans[-1].bound in ("cores", "bandwidth")
    for p in plans:
        assert p.most_queries_per_second >= p.queries_per_second
        assert p.machines == p.shards * p.replicas * p.indexes
        assert one(queries_per_second=0.9999 * p.most_queries_per_second).machines == p.machines
        assert one(queries_per_second=1.0001 * p.most_queries_per_second).machines > p.machines


def test_a_thin_network_binds() -> None:
    thin = dataclasses.replace(machine("genoa-32"), name="thin", network=0.1)
    p = one(1_000_000_000, machine=thin, queries_per_second=100_000)
    assert p.bound == "network"
    asked, answered = message_bytes(p.dimension, p.look.leaves, p.look.candidates)
    sent = p.most_queries_per_second * p.shards_visited * (asked + answered)
    assert 8 * sent == pytest.approx(0.6 * p.machines * 0.1e9)


def test_narrower_rows_take_less() -> None:
    full, half, byte = (one(quantize=q) for q in ("FLOAT32", ReorderType.BFLOAT16, "int8"))
    assert full.index_bytes > half.index_bytes > byte.index_bytes
    assert full.index_bytes - half.index_bytes == 2 * 100 * 10_000_000


def test_a_shard_fits_its_machine() -> None:
    plans = [one(n, machine="milan-32") for n in SIZES]
    assert plans[-1].shards > 1
    for p in plans:
        assert p.shard_bytes <= 0.8 * p.machine.memory_bytes
        if p.shards > 1:
            assert p.bound == "memory"
            assert p.shard_bytes * (p.shards / (p.shards - 1)) > 0.8 * p.machine.memory_bytes * 0.95


def test_a_latency_takes_shards() -> None:
    quick = Cluster(scatter=1, uneven=0.7, hop=10, message=1)
    slow = one(1_000_000_000, cluster=quick)
    wanted = slow.latency_microseconds * 0.9 / 1e3
    fast = one(1_000_000_000, cluster=quick, latency_milliseconds=wanted)
    assert fast.shards > slow.shards
    assert fast.latency_microseconds <= wanted * 1e3
    assert fast.bound == "latency"


def test_more_than_32_bits_count_become_several_indexes() -> None:
    assert one(MOST_ENTRIES, machine="genoa-96").indexes == 1
    p = one(MOST_ENTRIES + 1, machine="genoa-96")
    assert p.indexes == 2
    assert "32-bit" in p.notes[0]
    assert one(MOST_ENTRIES, soar_lambda=1.0, machine="genoa-96").indexes == 2
    assert p.machines == 2 * p.shards
    messages = p.work_microseconds["fan-out"] / usual_cluster().message
    assert messages == pytest.approx(p.shards_visited)
    assert messages >= 2  # every query asks both


# ---- What a plan consists of


def test_many_leaves_are_trained_on_more() -> None:
    p = one(1_000_000_000)
    assert p.config.tree is not None
    assert p.config.tree.training_sample_size >= ENOUGH_A_LEAF * p.leaves


def test_settings_are_those_of_autopilot() -> None:
    p = one(1_000_000)
    chosen = choose_config(1_000_000, 100, "cosine")
    assert p.config.tree is not None
    assert chosen.tree is not None
    assert p.leaves == chosen.tree.num_leaves
    assert p.config.score.dimensions_per_block == 2  # type: ignore[union-attr]
    assert p.config.tree.num_leaves_to_search == p.look.leaves
    few = one(500, dimension=8)
    assert few.config.tree is None
    assert few.work_microseconds.keys() <= {"call", "row_byte"}
    many = one(1_000_000_000)
    assert many.config.tree is not None
    assert many.config.tree.upper is not None


def test_bytes_are_those_of_an_index_that_is_built() -> None:
    db = np.random.default_rng(0).standard_normal((6000, 24), dtype=np.float32)
    p = plan(6000, 24, distance_measure="dot_product")
    index = build_index(db, p.config)
    assert p.index_bytes == pytest.approx(index.nbytes, rel=0.01)


def test_plans_survive_json() -> None:
    for asked in ({}, {"machine": "genoa-96", "quantize": "INT8"}, {"replicas": 3}):
        p = one(2_000_000_000, **asked)
        assert Plan.from_dict(json.loads(p.to_json())) == p
    with pytest.raises(ConfigError, match="shards"):
        Plan.from_dict({"datapoints": 3})


# ---- What is refused


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"n": 0}, "n is 0"),
        ({"dimension": 0}, "dimension is 0"),
        ({"recall": 1.0}, "recall is 1.0"),
        ({"recall": 0.2}, "recall is 0.2"),
        ({"recall": "high"}, "recall is 'high'"),
        ({"queries_per_second": -1}, "queries_per_second is -1"),
        ({"queries_per_second": float("nan")}, "queries_per_second is nan"),
        ({"machine": "pdp-11"}, "expected one of milan-2"),
        ({"machine": 3}, "expected a name or a Machine"),
        ({"quantize": "INT3"}, "expected one of FLOAT32"),
        ({"replicas": 0}, "replicas is 0"),
        ({"latency_milliseconds": 1e-4}, "no number of shards is faster"),
        ({"n": 500, "dimension": 8, "leaves": 10}, "need no tree"),
        ({"leaves": 0}, "leaves is 0"),
        ({"n": 10**5, "leaves": 10**6}, "leaves is 1,000,000; expected at most 100,000"),
    ],
)
def test_refusals(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        one(**asked)


def test_too_small_machines_are_refused() -> None:
    tiny = Machine(name="tiny", cores=1, memory=0.001, bandwidth=1)
    with pytest.raises(ConfigError, match="more memory, or fewer leaves"):
        one(100_000_000, machine=tiny)
    small = Machine(name="small", cores=1, memory=0.03, bandwidth=1)
    with pytest.raises(ConfigError, match="leaves to give them"):
        one(10_000_000, machine=small, leaves=100, dimension=100)
    with pytest.raises(ConfigError, match="bandwidth of machine x is 0"):
        Machine(name="x", cores=1, memory=1, bandwidth=0)
    with pytest.raises(ConfigError, match="unknown figures: wheels"):
        Machine.from_dict({"name": "x", "cores": 1, "memory": 1, "bandwidth": 1, "wheels": 4})


# ---- Machines


def test_every_machine_says_where_its_figures_are_from() -> None:
    assert len(machines()) > 2
    for name, known in machines().items():
        assert known.name == name
        assert len(known.source) > 20
        assert Machine.from_dict(known.to_dict()) == known


def test_this_machine_is_known_once_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="swann plan --calibrate"):
        machine(THIS)
    mine = Machine(name=THIS, cores=4, memory=8, bandwidth=10, speed=usual_speed())
    assert keep(mine) == cache_file()
    assert machine(THIS) == mine
    assert machine(str(cache_file())) == mine
    cache_file().write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        machine(str(cache_file()))


def test_fitted_constants_are_sane() -> None:
    speed = usual_speed()
    for part in (speed.alone, speed.batch):
        assert set(part) == set(QUERY_TERMS)
        assert all(value >= 0 for value in part.values())
        assert part["code"] > 0
    assert 0 <= speed.serial <= 1


# ---- Parts


def test_a_fit_finds_the_constants_that_made_the_times() -> None:
    rng = np.random.default_rng(0)
    names = ("a", "b", "c")
    rows = [dict(zip(names, rng.uniform(1, 100, 3).tolist(), strict=True)) for _ in range(30)]
    times = [3 * row["a"] + 0.5 * row["b"] for row in rows]
    assert fit(rows, times, names) == pytest.approx({"a": 3, "b": 0.5, "c": 0}, abs=1e-6)


def test_a_sample_scales_the_laws() -> None:
    db = np.random.default_rng(0).standard_normal((3000, 16), dtype=np.float32)
    config = one(100_000, dimension=16).config
    assert isinstance(config.score, AHConfig)
    usual = usual_profile()
    hard = measured(usual, db, config, recall=0.9, num_threads=1)
    # Noise has no leaves to speak of: far more is to be scanned than of words.
    assert hard.scanned.at(3000, 55, 0.9) > 1.3 * usual.scanned.at(3000, 55, 0.9)
    assert one(1_000_000, profile=hard).look.scanned > one(1_000_000).look.scanned
    with pytest.raises(ConfigError, match="2,000 at least"):
        measured(usual, db[:100], config)


def test_shards_visited() -> None:
    spread = Cluster(scatter=1, uneven=0.5, hop=0, message=0)
    assert spread.visited(10, 1) == pytest.approx(1)
    assert spread.visited(10, 1000) == pytest.approx(10)
    assert Cluster(scatter=0.5, uneven=0.5, hop=0, message=0).visited(64, 50) < spread.visited(
        64, 50
    )
    assert spread.slowest(4) == 0.5


def test_waiting_is_that_of_one_server() -> None:
    assert waiting(1, 0.5) == pytest.approx(1.0)  # M/M/1: rho / (1 - rho)
    assert waiting(32, 0.6) < 0.01


@pytest.mark.parametrize("lacks", ["sysconf", "its names"])
def test_memory_is_asked_for_before_all_is_measured(
    lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacks == "sysconf":
        monkeypatch.delattr(os, "sysconf", raising=False)
    else:
        monkeypatch.setattr(os, "sysconf", int, raising=False)  # a ValueError
    module = importlib.import_module("swann.plan.calibrate")  # the function has its name
    monkeypatch.setattr(module, "time_searches", pytest.fail)
    with pytest.raises(ConfigError, match="memory of this machine"):
        calibrate()
    with pytest.raises(ConfigError, match="report is 1; expected a callable"):
        calibrate(1)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1000, 10_000, 10**7])
def test_settings_that_a_small_index_has_no_use_for_are_checked(n: int) -> None:
    for wrong in ("abc", -1.0):
        with pytest.raises(ConfigError, match="soar_lambda is"):
            plan(n, 16, soar_lambda=wrong)  # type: ignore[arg-type]


def test_cores_do_not_shorten_what_is_serial() -> None:
    few, many = (
        dataclasses.replace(machine("genoa-32"), name="cores", cores=cores) for cores in (1, 4096)
    )
    alone, together = one(1_000_000, machine=few), one(1_000_000, machine=many)
    serial = few.core.serial
    assert serial > 0.0
    for stage in ("train", "assign", "encode"):
        share = together.build_seconds[stage] / alone.build_seconds[stage]
        assert serial <= share < serial + 0.01


def test_second_leaves_are_chosen_among_all_once_more() -> None:
    once, twice = one(1_000_000), one(1_000_000, soar_lambda=1.0)
    assert twice.build_seconds["assign"] == pytest.approx(2 * once.build_seconds["assign"])


def test_amdahl() -> None:
    assert serial_share(1.0, 1.2, 2) == 1.0
    assert serial_share(1.0, 0.4, 2) == 0.0


# ---- The command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["plan", *map(str, arguments)])
    assert isinstance(stop.value.code, int)
    return (stop.value.code, *capsys.readouterr())


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("typer")
    monkeypatch.setenv("COLUMNS", "200")
    asked = ("--datapoints", "1e9", "--dimension", 100, "--recall", 0.9, "--qps", 10_000)
    code, out, err = run(capsys, *asked, "--machine", "genoa-96")
    assert code == 0, err
    p = one(1_000_000_000, recall=0.9, queries_per_second=10_000, machine="genoa-96")
    assert f"{p.machines} = {p.shards} shards x {p.replicas} replicas" in out
    assert "note: " in out
    code, out, err = run(capsys, *asked, "--machine", "genoa-96", "--json")
    assert code == 0, err
    assert Plan.from_dict(json.loads(out)) == p


def test_the_command_with_a_sample(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("typer")
    file = tmp_path / "sample.npy"
    np.save(file, np.random.default_rng(0).standard_normal((2500, 20), dtype=np.float32))
    asked = ("-n", "1e6", "-d", 20, "--recall", 0.9, "--json", "--sample", file)
    code, out, err = run(capsys, *asked)
    assert code == 0, err
    assert json.loads(out)["profile"] == "a sample of 2,500"
    code, _, err = run(capsys, "-n", "1e6", "-d", 10, "--sample", file)
    assert code == 2
    assert "the sample has 20 dimensions" in err


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("-d", 10), "--datapoints is missing"),
        (("-n", 10), "--dimension is missing"),
        (("-n", 10.5, "-d", 10), "expected a whole number"),
        (("-n", "inf", "-d", 10), "expected a whole number"),
        (("-n", 1e9, "-d", 10, "--machine", "x"), "expected one of"),
    ],
)
def test_the_command_refuses(
    capsys: pytest.CaptureFixture[str], asked: tuple[object, ...], says: str
) -> None:
    pytest.importorskip("typer")
    code, _, err = run(capsys, *asked)
    assert code == 2
    assert says in err


def test_what_does_not_fit_beside_its_input_is_built_by_processes() -> None:
    within = one(100_000_000, machine="genoa-96", quantize="INT8")
    beyond = one(2_000_000_000, machine="genoa-96", quantize="INT8")
    assert within.shards == beyond.shards == 1
    assert "gather" not in within.build_seconds
    assert "gather" in beyond.build_seconds
    assert beyond.build_peak_bytes < within.build_peak_bytes

"""The command line: what it prints, writes and returns."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import swann
from swann.cli import main

pytest.importorskip("typer")
pytest.importorskip("rich")

RNG = np.random.default_rng(0)
DB = RNG.standard_normal((400, 12), dtype=np.float32)
QUERIES = RNG.standard_normal((25, 12), dtype=np.float32)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        code = stop.value.code
        assert isinstance(code, int)
        return code, out, err

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.save(tmp_path / "db.npy", DB)
    np.save(tmp_path / "queries.npy", QUERIES)
    return tmp_path


@pytest.fixture
def built(data: Path, run: Run) -> Path:
    """A directory with an index of brute force over a tree."""
    code, _, err = run(
        "build", data / "db.npy", data / "index", "--distance-measure", "dot_product",
        "--leaves", 10, "--leaves-to-search", 10, "--brute-force", "-k", 5,
    )  # fmt: skip
    assert code == 0, err
    return data


def test_build_search_and_write(built: Path, run: Run) -> None:
    exact = swann.exact_neighbors(DB, QUERIES, 5, "dot_product")
    for suffix in ("npz", "npy", "ivecs"):
        out = built / f"found.{suffix}"
        code, text, err = run(
            "search", built / "index", built / "queries.npy", "--out", out, "--threads", 1
        )
        assert code == 0, err
        assert "25 queries" in text
        assert out.exists()
    with np.load(built / "found.npz") as found:
        assert np.array_equal(found["indices"], exact.indices)
        np.testing.assert_allclose(found["distances"], exact.distances, rtol=1e-5)
    assert np.array_equal(np.load(built / "found.npy"), exact.indices)

    code, text, err = run("search", built / "index", built / "queries.npy", "-k", 3)
    assert code == 0, err
    lines = [line.split("\t") for line in text.splitlines()]
    assert [line[:2] for line in lines] == [
        [str(query), str(i)] for query in range(25) for i in exact.indices[query, :3]
    ]
    assert float(lines[1][2]) == exact.distances[0, 1]


def test_a_terminal_sees_a_table(built: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = swann.exact_neighbors(DB, QUERIES, 5, "dot_product")
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, text, err = run("search", built / "index", built / "queries.npy", "-k", 3)
    assert code == 0, err
    assert str(exact.indices[0, 0]) in text
    assert "15 queries more" in text


@pytest.mark.parametrize("kind", ["str", "int"])
def test_docids(data: Path, run: Run, kind: str) -> None:
    names = [f"d{i}" if kind == "str" else 7 * i + 3 for i in range(len(DB))]
    swann.build(DB, 5, docids=names).save(data / "index")
    exact = swann.exact_neighbors(DB, QUERIES, 5, "dot_product", docids=names)
    for suffix in ("npz", "npy"):
        out = data / f"found.{suffix}"
        code, _, err = run("search", data / "index", data / "queries.npy", "--out", out)
        assert code == 0, err
        found = np.load(out)
        assert np.array_equal(found["indices"] if suffix == "npz" else found, exact.indices)
    code, text, err = run("search", data / "index", data / "queries.npy", "-k", 401)
    assert code == 0, err
    assert text.splitlines()[0].split("\t")[1] == str(exact.indices[0, 0])
    assert len(text.splitlines()) == 25 * 400
    out = data / "found.ivecs"
    code, _, err = run("search", data / "index", data / "queries.npy", "--out", out)
    assert (code == 0) is (kind == "int")
    code, text, err = run("eval", data / "index", data / "db.npy", data / "queries.npy")
    assert code == 0, err
    assert "1.0000" in text


def test_docids_that_look_like_something_else(
    data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = ["[doc0] [/b]", "item [red]", "a\tb", "two\u2028lines", "\u00e9"]
    names = odd + [f"d{i}" for i in range(5, len(DB))]
    (data / "names.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(names).encode())
    code, _, err = run(
        "build", data / "db.npy", data / "index", "--distance-measure", "squared_l2",
        "--brute-force", "--docids", data / "names.txt",
    )  # fmt: skip
    assert code == 0, err
    assert swann.load(data / "index").docids == names
    np.save(data / "odd.npy", DB[:5])
    code, text, err = run("search", data / "index", data / "odd.npy", "-k", 1)
    assert code == 0, err
    told = [line.split("\t")[1] for line in text.splitlines()]
    assert told == ["[doc0] [/b]", "item [red]", '"a\\tb"', '"two\\u2028lines"', "\u00e9"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, text, err = run("search", data / "index", data / "odd.npy", "-k", 1)
    assert code == 0, err
    assert "[doc0] [/b] (0)" in text
    assert "item [red] (0)" in text


def test_a_warning_is_a_line(data: Path, run: Run) -> None:
    rng = np.random.default_rng(0)
    np.save(data / "far.npy", rng.standard_normal((12_000, 96), dtype=np.float32) + 2_000)
    code, _, err = run(
        "build", data / "far.npy", data / "index", "--distance-measure", "squared_l2",
        "--quantize", "BFLOAT16",
    )  # fmt: skip
    assert code == 0, err
    assert err.startswith("swann: recall 10@10 is ")
    assert "typer" not in err


def test_an_empty_index_is_not_evaluated(data: Path, run: Run) -> None:
    swann.build(DB[:0], 5).save(data / "index")
    code, _, err = run("eval", data / "index", data / "db.npy", data / "queries.npy")
    assert code == 2
    assert "holds no datapoints" in err


@pytest.mark.parametrize("folded", [False, True])
def test_what_was_changed_is_not_evaluated_by_its_row_ids(
    data: Path, run: Run, folded: bool
) -> None:
    swann.build(DB, 5).save(data / "index")
    with swann.open(data / "index") as searcher:
        searcher.delete(range(10))
        searcher.upsert(None, DB[:10])
        if folded:
            searcher.checkpoint()
    code, _, err = run("eval", data / "index", data / "db.npy", data / "queries.npy")
    assert code == 2
    assert "was changed since it was built" in err


def test_search_with_one_query_and_with_none(built: Path, run: Run) -> None:
    np.save(built / "one.npy", QUERIES[0])
    np.save(built / "none.npy", np.empty((0, 12)))
    assert run("search", built / "index", built / "one.npy")[0] == 0
    out = built / "none.npz"
    assert run("search", built / "index", built / "none.npy", "--out", out)[0] == 0
    with np.load(out) as found:
        assert found["indices"].shape == (0, 5)


def test_every_option_of_build(data: Path, run: Run) -> None:
    code, text, err = run(
        "build", data / "db.npy", data / "index", "--distance-measure", "cosine",
        "--num-neighbors", 4, "--leaves", 12, "--leaves-to-search", 6,
        "--dimensions-per-block", 3, "--threshold", 0.3, "--reorder", 40, "--threads", 1,
        "--seed", 7,
    )  # fmt: skip
    assert code == 0, err
    assert "saved to" in text
    config = swann.load_searcher(data / "index").config
    assert config.num_neighbors == 4
    assert config.distance_measure == "cosine"
    assert config.tree is not None
    assert (config.tree.num_leaves, config.tree.num_leaves_to_search) == (12, 6)
    assert config.score == swann.AHConfig(
        dimensions_per_block=3, anisotropic_quantization_threshold=0.3
    )
    assert config.reorder == swann.ReorderConfig(reordering_num_neighbors=40)
    assert config.seed == 7


def test_precision_target_and_docids(data: Path, run: Run) -> None:
    names = [f"name {i}" for i in range(len(DB))]
    (data / "names.txt").write_text("\n".join(names) + "\n")
    np.save(data / "numbers.npy", np.arange(len(DB)) * 5)
    args = ("build", data / "db.npy", data / "index", "--distance-measure", "cosine")
    code, _, err = run(
        *args, "--quantize", "BFLOAT16", "--recall", 0.8, "--docids", data / "names.txt",
        "--sample-queries", data / "queries.npy",
    )  # fmt: skip
    assert code == 0, err
    searcher = swann.load(data / "index")
    autopilot = searcher.config.autopilot
    assert autopilot is not None
    assert (autopilot.quantize, autopilot.target_recall) == (swann.ReorderType.BFLOAT16, 0.8)
    assert searcher.docids == names
    for stages, quantize in ((("--brute-force",), "INT8"), (("--reorder", 30), "BFLOAT16")):
        code, _, err = run(*args, *stages, "--quantize", quantize, "--docids", data / "numbers.npy")
        assert code == 0, err
        searcher = swann.load(data / "index")
        exact = searcher.config.reorder or searcher.config.score
        assert exact.quantize is swann.ReorderType[quantize]  # type: ignore[union-attr]
        assert searcher.docids == list(range(0, 2_000, 5))


def test_projections(data: Path, run: Run) -> None:
    args = ("build", data / "db.npy", data / "index", "--distance-measure", "cosine")
    for kind in ("pca", "truncate"):
        code, text, err = run(*args, f"--{kind}", 6)
        assert code == 0, err
        assert f"{kind}(6)" in text
        projection = swann.load_searcher(data / "index").config.projection
        assert projection == swann.ProjectionConfig(kind=kind, reduction_dim=6)  # type: ignore[arg-type]


def test_build_with_training_queries(data: Path, run: Run) -> None:
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    queries = (rng.standard_normal((500, 12)) * np.geomspace(4.0, 0.05, 12)) @ turn
    np.save(data / "training.npy", queries.astype(np.float32))
    code, _, err = run(
        "build", data / "db.npy", data / "taught", "--distance-measure", "dot_product",
        "--leaves", 0, "--threshold", 0.5, "--training-queries", data / "training.npy",
    )  # fmt: skip
    assert code == 0, err
    assert list((data / "taught").glob("code_metric-*.npy"))
    code, _, err = run(
        "build", data / "db.npy", data / "refused", "--distance-measure", "squared_l2",
        "--leaves", 0, "--threshold", 0.5, "--training-queries", data / "training.npy",
    )  # fmt: skip
    assert code != 0
    assert "training_queries" in err


def test_defaults_of_build(data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("build", data / "db.npy", data / "index", "--distance-measure", "squared_l2")
    assert run(*args, "--dimensions-per-block", 2)[0] == 0
    config = swann.load_searcher(data / "index").config
    assert config.tree is None
    assert config.score == swann.AHConfig()
    assert config.reorder == swann.ReorderConfig(reordering_num_neighbors=100)

    monkeypatch.setattr("swann.cli.building.TREE_ROWS", 400)
    assert run(*args[:2], data / "tree", *args[3:], "--reorder", 0)[0] == 0
    config = swann.load_searcher(data / "tree").config
    assert config.tree is not None
    assert (config.tree.num_leaves, config.tree.num_leaves_to_search) == (20, 1)
    assert config.reorder is None


def test_build_chooses_stages_of_which_nothing_is_said(data: Path, run: Run) -> None:
    code, text, err = run(
        "build", data / "db.npy", data / "index", "--distance-measure", "cosine", "--seed", 3
    )
    assert code == 0, err
    config = swann.load_searcher(data / "index").config
    assert config.autopilot is not None
    assert config.seed == 3
    assert f"chosen: {config.autopilot.reasons[0]}" in " ".join(text.split())


@pytest.mark.parametrize("stages", [("--leaves", 10, "--leaves-to-search", 10), ()])
def test_build_within_memory_and_in_shards(
    data: Path, run: Run, stages: tuple[object, ...]
) -> None:
    for part in range(2):
        np.save(data / f"part-{part}.npy", DB[200 * part : 200 * part + 200])
    shards = 3 if stages else 1
    code, text, err = run(
        "build", data / "part-*.npy", data / "index", "--distance-measure", "dot_product",
        "--memory", "400MB", "--shards", shards, *stages,
    )  # fmt: skip
    assert code == 0, err
    assert ("3 shards" in text) == bool(stages)
    assert ("chosen:" in text) != bool(stages)
    found = swann.load(data / "index").search_batched(QUERIES)
    exact = swann.exact_neighbors(DB, QUERIES, 10, "dot_product").indices
    assert swann.recall(found.indices, exact) > 0.9
    code, _, err = run("build", data / "part-*.npy", data / "x.swann", "--distance-measure",
                       "cosine", "--memory", "400MB")  # fmt: skip
    assert code != 0
    assert "expected a directory" in err


def test_processes_build_what_one_builds(data: Path, run: Run) -> None:
    rest = ("--distance-measure", "cosine", "--memory", "400MB", "--leaves", 10)
    made = []
    for name, who in (("one", ()), ("two", ("--processes", 2, "--threads", 2))):
        code, _, err = run("build", data / "db.npy", data / name, *rest, *who)
        assert code == 0, err
        made.append({p.name: p.read_bytes() for p in (data / name).glob("*.npy")})
    assert made[0] == made[1]
    code, _, err = run("build", data / "db.npy", data / "x", *rest, "--processes", 2,
                       "--ray-address", "local")  # fmt: skip
    assert code != 0
    assert "--processes and --ray-address are given" in err
    assert not (data / "x").exists()


def test_eval(built: Path, run: Run) -> None:
    code, text, err = run(
        "eval", built / "index", built / "db.npy", built / "queries.npy", "-k", 4,
        "--max-queries", 20,
    )  # fmt: skip
    assert code == 0, err
    assert "* 10" in text  # what the index searches by default
    assert "recall 4@4" in text
    assert "20 queries" in text
    assert "1.0000" in text
    code, text, err = run(
        "eval", built / "index", built / "db.npy", built / "queries.npy",
        "--leaves-to-search", "3,10",
    )  # fmt: skip
    assert code == 0, err
    assert "1.0000" in text


def test_eval_measures_what_the_index_searches_by_default(built: Path, run: Run) -> None:
    swann.builder(DB, 5, "dot_product").tree(40, 7).score_brute_force().build().save(built / "own")
    code, text, err = run("eval", built / "own", built / "db.npy", built / "queries.npy")
    assert code == 0, err
    rows = [line.strip("│ ").split(" │")[0].strip() for line in text.splitlines() if "│" in line]
    assert [row.split("│")[0].strip() for row in rows] == ["1", "2", "5", "* 7", "10", "20", "40"]
    assert "* what the index searches by default" in text


def test_only_the_files_of_the_index_are_counted(built: Path, run: Run) -> None:
    (built / "notes").mkdir()
    (built / "notes" / "x.npy").write_bytes(b"x" * 10**6)
    code, text, err = run("build", built / "db.npy", built, "--distance-measure", "cosine")
    assert code == 0, err
    size = text.rpartition("(")[2].partition(")")[0]
    assert size.endswith("kB")
    code, text, err = run("info", built)
    assert code == 0, err
    assert size in text
    assert "manifest.json" in text
    for name in ("db.npy", "queries.npy", "x.npy"):
        assert name not in text
    code, text, err = run(
        "build", built / "db.npy", built / "parts", "--distance-measure", "cosine",
        "--shards", 2, "--leaves", 4,
    )  # fmt: skip
    assert code == 0, err
    assert "shard-" in run("info", built / "parts")[1]


def test_an_interrupted_build_says_that_it_goes_on(
    data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("build", data / "db.npy", data / "index", "--distance-measure", "cosine",
               "--memory", "1GB")  # fmt: skip

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("swann.distributed.building.build._Job.map_tasks_done", interrupt)
        code, text, err = run(*command)
    assert code == 130
    assert "chosen:" not in text
    told = f"kept in {data / 'index' / '.build'}: the same command goes on from there"
    assert told in err
    assert "to begin anew, remove that directory" in err
    for asked in (("info", data / "index"), ("search", data / "index", data / "queries.npy")):
        code, _, err = run(*asked)
        assert code == 2
        assert "holds no index yet: its build is not finished" in err
        assert told in err
    swann.build(DB, 5).save(data / "index")
    code, text, err = run("info", data / "index")
    assert code == 0
    assert told in err
    assert ".build" not in text
    code, _, err = run(*command)
    assert code == 0, err
    assert not (data / "index" / ".build").exists()
    assert run("info", data / "index")[2] == ""


def test_full_disks_are_named_as_the_user_did(
    data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_beside(root: Path, label: str, *_: object) -> None:
        raise OSError(errno.EACCES, "no", str(root / f".{label}-1-2.tmp"))

    for name in ("new", "deep/new", "new.swann"):
        for failure in (full, full_beside):
            monkeypatch.setattr("swann.index.disk.store.file_system.place_file", failure)
            code, _, err = run(
                "build", data / "db.npy", data / name, "--distance-measure", "cosine"
            )
            assert code == 1
            assert err.strip().endswith(f": '{data / name}'")
            assert not (data / "new").exists()
            assert not (data / "deep").exists()


def test_version_and_short_help(run: Run) -> None:
    code, text, _ = run("--version")
    assert (code, text.strip()) == (0, f"swann {swann.__version__}")
    for command in ((), ("build",), ("plan",)):
        code, text, _ = run(*command, "-h")
        assert code == 0
        assert "Usage" in text


def test_names_in_any_case(data: Path, run: Run) -> None:
    code, _, err = run(
        "build", data / "db.npy", data / "index", "--distance-measure", "Cosine",
        "--quantize", "int8", "--brute-force",
    )  # fmt: skip
    assert code == 0, err
    config = swann.load(data / "index").config
    assert config.distance_measure == "cosine"
    assert config.score == swann.BruteForceConfig(quantize=swann.ReorderType.INT8)
    assert run("plan", "-n", "1e6", "-d", 100, "--quantize", "bfloat16")[0] == 0


def test_an_interrupt_while_commands_are_imported(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "swann.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "swann.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert run("info", "index") == (130, "", "")


def test_info(built: Path, run: Run) -> None:
    code, text, err = run("info", built / "index")
    assert code == 0, err
    for part in ("400", "12", "tree.num_leaves", "brute_force", "dot_product", "total"):
        assert part in text


def test_one_file(data: Path, run: Run) -> None:
    out = data / "index.swann"
    code, text, err = run("build", data / "db.npy", out, "--distance-measure", "squared_l2")
    assert code == 0, err
    assert out.is_file()
    code, shown, err = run("info", out)
    assert code == 0, err
    assert "index.swann" in shown
    size = text.rpartition("(")[2].partition(")")[0]
    assert size in shown
    assert not size.startswith("0 ")
    (data / "y.swann").mkdir()
    code, _, err = run(
        "build", data / "db.npy", data / "y.swann", "--distance-measure", "squared_l2"
    )
    assert code != 0
    assert "is a directory" in " ".join(err.split())


def test_hdf5(tmp_path: Path, run: Run) -> None:
    h5py = pytest.importorskip("h5py")
    path, index = tmp_path / "x.hdf5", tmp_path / "index"
    with h5py.File(path, "w") as file:
        file["train"] = DB
        file["test"] = QUERIES
        file["other"] = QUERIES
        file.attrs["distance"] = "angular"
    with h5py.File(tmp_path / "plain.hdf5", "w") as file:  # names no measure either
        file["train"] = DB
    for rest in ((), ("--memory", "1GB")):
        code, _, err = run("build", tmp_path / "plain.hdf5:nokey", index, *rest)
        assert code == 2
        assert "has no array 'nokey'" in err
    assert run("build", path, index, "--brute-force")[0] == 0
    assert swann.load_searcher(index).config.distance_measure == "cosine"
    assert run("search", index, path)[0] == 0
    assert run("search", index, f"{path}:other")[0] == 0
    code, text, _ = run("eval", index, path)
    assert code == 0
    assert "25 queries" in text


BUILD = ["build", "db.npy", "new"]
L2 = ["--distance-measure", "squared_l2"]
BAD = [
    ("no such file", ["build", "nowhere.npy", "new", *L2], "nowhere.npy: no such file"),
    ("no measure", BUILD, "--distance-measure is missing"),
    ("unknown measure", [*BUILD, "--distance-measure", "l3"], "distance_measure is 'l3'"),
    ("threads", [*BUILD, *L2, "--threads", "0"], "threads is 0"),
    (
        "too many leaves",
        [*BUILD, *L2, "--leaves", "1000"],
        "--leaves is 1,000; expected at most",
    ),
    ("memory", [*BUILD, *L2, "--memory", "much"], "--memory is 'much'"),
    ("shards", [*BUILD, *L2, "--shards", "0"], "num_shards is 0"),
    ("no place", ["search", "index", "queries.npy", "--out", "none/x.npy"], "none is no directory"),
    ("case", [*BUILD, *L2, "--quantize", "int9"], "expected one of FLOAT32, INT8, BFLOAT16"),
    ("case of plan", ["plan", "-n", "9", "-d", "9", "--quantize", "x"], "expected one of FLOAT32"),
    ("leaves", [*BUILD, *L2, "--leaves", "-2"], "num_leaves is -2"),
    ("blocks", [*BUILD, *L2, "--dimensions-per-block", "13"], "db has only 12"),
    ("no blocks", [*BUILD, *L2, "--dimensions-per-block", "0"], "dimensions_per_block is 0"),
    (
        "no leaves",
        [*BUILD, *L2, "--leaves", "9", "--leaves-to-search", "0"],
        "num_leaves_to_search is 0",
    ),
    ("file as OUT", ["build", "db.npy", "queries.npy", *L2], "is not a directory"),
    ("below a file", ["build", "db.npy", "queries.npy/x", *L2], "queries.npy is not a directory"),
    ("directory as DB", ["build", "d.npy", "new", *L2], "d.npy: not a file, but a directory"),
    ("no queries to eval", ["eval", "index", "db.npy", "none.npy"], "none.npy holds no queries"),
    ("no OUT", ["build", "db.npy", "", *L2], "it is empty"),
    ("no OUT on disk", ["build", "db.npy", "", *L2, "--memory", "1GB"], "it is empty"),
    ("no INDEX", ["info", ""], "it is empty"),
    ("directory as --out", ["search", "index", "queries.npy", "--out", "d.npy"], "is a directory"),
    ("threshold", [*BUILD, *L2, "--threshold", "-1.5"], "threshold is -1.5"),
    ("reorder", [*BUILD, *L2, "--reorder", "-1"], "reordering_num_neighbors is -1"),
    ("pca", [*BUILD, *L2, "--pca", "13"], "reduction_dim is 13; expected at most 12"),
    ("truncate", [*BUILD, *L2, "--pca", "5", "--truncate", "5"], "contradict"),
    ("no tree", [*BUILD, *L2, "--leaves-to-search", "3"], "there is no tree"),
    ("contradiction", [*BUILD, *L2, "--brute-force", "--threshold", ".2"], "contradict"),
    ("not a number", [*BUILD, *L2, "--leaves", "many"], "leaves"),
    ("precision", [*BUILD, *L2, "--quantize", "INT4"], "--quantize is 'INT4'"),
    ("target", [*BUILD, *L2, "--recall", "1.5"], "target_recall is 1.5"),
    ("target and stages", [*BUILD, *L2, "--leaves", "9", "--recall", ".9"], "leave out the stages"),
    ("docids in shards", [*BUILD, *L2, "--shards", "2", "--docids", "x"], "--docids and a build"),
    ("docids", [*BUILD, *L2, "--docids", "nowhere.txt"], "nowhere.txt: no such file"),
    ("lines twice", [*BUILD, *L2, "--docids", "index/manifest.json"], "docids hold"),
    ("pattern", ["build", "*.npy", "new", *L2], "a pattern of files needs --memory"),
    ("unknown option", [*BUILD, "--speed", "9"], "--speed"),
    ("no index", ["info", "nowhere"], "nowhere"),
    ("no index to search", ["search", "nowhere", "queries.npy"], "nowhere"),
    ("bad suffix", ["search", "index", "queries.npy", "--out", "x.csv"], "expected one of .npz"),
    ("k", ["search", "index", "queries.npy", "-k", "0"], "-k is 0"),
    ("leaves 0", ["search", "index", "queries.npy", "--leaves-to-search", "0"], "is 0"),
    ("dimension", ["search", "index", "narrow.npy"], "3 dimensions, but this index expects 12"),
    ("no queries", ["eval", "index", "db.npy"], "QUERIES is missing"),
    ("other db", ["eval", "index", "queries.npy", "queries.npy"], "DB has shape (25, 12)"),
    (
        "ladder",
        ["eval", "index", "db.npy", "queries.npy", "--leaves-to-search", "few"],
        "expected numbers, as in 10,20,50",
    ),
    ("unknown command", ["fly"], "fly"),
]


@pytest.mark.parametrize(("arguments", "message"), [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_bad_usage(
    built: Path, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(built)
    np.save("narrow.npy", np.ones((2, 3)))
    np.save("none.npy", np.ones((0, 12)))
    Path("d.npy").mkdir()
    code, text, err = run(*arguments)
    assert code == 2
    assert message in err
    assert text == ""  # no reasons for an index that is not built
    assert "Traceback" not in err
    assert not Path("new").exists()


def test_failures_of_the_work(built: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("swann.files.write_neighbors", full)
    code, _, err = run("search", built / "index", built / "queries.npy", "--out", built / "x.npy")
    assert code == 1
    assert err.strip() == "swann: OSError: no space left on device"


def test_a_place_that_cannot_be_written(
    built: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The superuser may write anywhere, so the answer is put into the system's mouth.
    monkeypatch.setattr("swann.cli.building.os.access", lambda *_: False)
    code, _, err = run(
        "build", built / "db.npy", built / "deep" / "new", "--distance-measure", "cosine"
    )
    assert code == 2
    assert f"{built} cannot be written" in err


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
def test_closed_streams() -> None:
    def run(closed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "swann", *arguments]
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
        return subprocess.run(shell, capture_output=True, text=True, check=False)

    told = run("2>&-", "info", "nowhere")
    assert (told.returncode, told.stdout) == (2, "")  # stdout is for results
    told = run(">&-", "--version")
    assert told.returncode == 1
    assert "stdout is closed" in told.stderr


def test_a_place_that_is_open_for_changes(
    built: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swann.cli.building.files.read_array", None)  # it does not come so far
    with swann.open(built / "index"):
        code, _, err = run("build", built / "db.npy", built / "index", *L2)
        assert code == 2
        assert "is open for changes" in err
    assert not (built / "index" / ".lock").exists()


def test_a_missing_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "swann.cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    code, _, err = run("info", "index")
    assert code == 2
    assert "the command line needs typer" in err
    assert "pip install 'swann[cli]'" in err


def test_help_and_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "swann", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("build", "search", "eval", "info"):
        assert command in done.stdout

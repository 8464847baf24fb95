"""SWANN_SIMD forces a level for a whole process; the answers stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import swann
from swann.kernels import kernel_levels

LEVELS = kernel_levels()

SEARCH = """
import sys
import numpy as np
import swann
from swann.kernels import active_level
directory, level = sys.argv[1:]
assert active_level() == level, active_level()
queries = np.load(directory + "/queries.npy")
found = {}
for measure in ("dot_product", "squared_l2", "cosine"):
    searcher = swann.load_searcher(directory + "/" + measure)
    found[measure] = searcher.search_batched(queries).indices
    found[measure + " one"] = np.array([searcher.search(q).indices for q in queries])
    found[measure + " built"] = (
        swann.builder(np.load(directory + "/db.npy"), 10, measure)
        .tree(20, 5).score_ah(2, 0.2).reorder(50).build().search_batched(queries).indices
    )
    searcher = swann.load_searcher(directory + "/" + measure + " lut256")
    found[measure + " lut256"] = searcher.search_batched(queries).indices
    found[measure + " lut256 one"] = np.array([searcher.search(q).indices for q in queries])
moved = np.load(directory + "/many.npy")
searcher = (
    swann.builder(moved, 10, "squared_l2")
    .tree(200, 9, soar_lambda=1.5).score_ah(3).reorder(50).build()
)
found["many leaves built"] = searcher.search_batched(moved[:100]).indices
queries = np.load(directory + "/long.npy")
searcher = swann.load_searcher(directory + "/projected")
found["projected"] = searcher.search_batched(queries).indices
found["projected one"] = np.array([searcher.search(q).indices for q in queries])
np.savez(directory + "/" + level + ".npz", **found)
"""


def run(code: str, level: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"SWANN_SIMD": level},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_level_gives_the_same_answers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    db = rng.standard_normal((2000, 17), dtype=np.float32)
    queries = rng.standard_normal((50, 17), dtype=np.float32)
    np.save(tmp_path / "db.npy", db)
    np.save(tmp_path / "queries.npy", queries)
    for measure in ("dot_product", "squared_l2", "cosine"):
        builder = swann.builder(db, 10, measure)  # type: ignore[arg-type]
        builder.tree(20, 5).score_ah(2, 0.2).reorder(50).build().serialize(tmp_path / measure)
        wide = swann.builder(db, 10, measure)  # type: ignore[arg-type]
        wide.tree(20, 5).score_ah(2, 0.2, hash_type="lut256")
        wide.build().serialize(tmp_path / f"{measure} lut256")
    long = rng.standard_normal((2000, 300), dtype=np.float32)
    np.save(tmp_path / "long.npy", long[:50])
    # Far from zero, so that scores by which rows find their leaves are near each other.
    np.save(tmp_path / "many.npy", rng.standard_normal((4000, 33), dtype=np.float32) + 20)
    projected = swann.builder(long, 10, "squared_l2").tree(20, 5).pca(60)
    projected.score_ah(2).reorder(50).build().serialize(tmp_path / "projected")
    found = {}
    for level in LEVELS:
        done = run(SEARCH, level, str(tmp_path), level)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / f"{level}.npz") as results:
            found[level] = dict(results)
    best = found[LEVELS[0]]
    for level in LEVELS:
        for name, ids in found[level].items():
            # Without fma the last bit of a score may differ, and with it the order of near ties
            # (or, where it built the index itself, a border between two leaves).
            if level == "scalar" and name.startswith("many leaves"):
                continue  # one border that moves, moves others
            least = 1.0 if level != "scalar" else 0.9 if name.endswith("built") else 0.99
            assert (ids == best[name]).mean() >= least, (level, name)
            np.testing.assert_array_equal(ids[:, 0] >= 0, True)
    alone = [name for name in best if name.endswith(" one")]
    assert "projected one" in alone
    for name in alone:
        np.testing.assert_array_equal(best[name], best[name.removesuffix(" one")])


@pytest.mark.parametrize("level", ["sse9", "AVX2", "avx", "x" * 300])
def test_a_level_that_cannot_run_is_an_error_at_import(level: str) -> None:
    code = """
try:
    import swann
except Exception as error:
    print([kind.__name__ for kind in type(error).__mro__], error)
"""
    done = run(code, level)
    assert "ConfigError" in done.stdout
    assert level[:40] in done.stdout
    assert all(name in done.stdout for name in LEVELS)


def test_avx512_means_the_best_of_them() -> None:
    family = [level for level in LEVELS if level.startswith("avx512")]
    done = run("from swann.kernels import active_level; print(active_level())", "avx512")
    if family:
        assert done.stdout.strip() == family[0]
    else:
        assert 'SWANN_SIMD is "avx512", but this machine can run' in done.stderr


def test_an_empty_level_means_the_best() -> None:
    code = "from swann.kernels import active_level; print(active_level())"
    assert run(code, "").stdout.strip() == LEVELS[0]

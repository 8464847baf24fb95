import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name, *arguments, cwd):
    env = os.environ | {"PYTHONWARNINGS": "error", "COLUMNS": "100", "MPLCONFIGDIR": str(cwd)}
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=cwd, env=env, check=True, capture_output=True, text=True, timeout=300,
    ).stdout  # fmt: skip


def test_sample_is_the_documented_one():
    digest = hashlib.sha256((EXAMPLES / "data" / "glove-100-51k.npz").read_bytes()).hexdigest()
    assert digest in (EXAMPLES / "data" / "README.md").read_text()


def test_sample_has_words_and_vectors(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import glove

    words, vectors = glove.load()
    assert words[:3] == ["the", ",", "."]
    assert len(set(words)) == len(words) == 51_000
    assert vectors.shape == (51_000, 100)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1).min() > 1


def test_quickstart_finds_the_neighbours_of_ocean(tmp_path):
    lines = run("quickstart.py", cwd=tmp_path).splitlines()
    assert len(lines) == 6
    assert lines[0].endswith("ocean")
    assert {"sea", "atlantic"} <= {line.split()[1] for line in lines}


def test_save_and_load_names_files_and_neighbours(tmp_path):
    output = run("save_and_load.py", cwd=tmp_path)
    assert "manifest.json" in output
    assert "musical" in output


def test_from_scann_reaches_a_good_recall(tmp_path):
    recalls = [float(line.split()[-1]) for line in run("from_scann.py", cwd=tmp_path).splitlines()]
    assert recalls[0] > 0.85
    assert recalls[1] > 0.95


def test_demo_prints_tables_and_writes_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("demo.py", "--output", "out", cwd=tmp_path)
    assert "queen" in output
    assert "exact, NumPy" in output
    assert (tmp_path / "out" / "speed-recall.png").read_bytes().startswith(b"\x89PNG")

"""Single files and logs of every released format load for good, and answer as ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import swann
from swann.index.disk.manifest import FORMAT_VERSION
from swann.index.log.format import VERSION

GOLDEN = Path(__file__).parent / "golden"
BUNDLES = sorted(GOLDEN.glob("bundle_v*/*.swann"))
LOGS = sorted(path.parent for path in GOLDEN.glob("log_v*/*/manifest.json"))


def check(searcher: swann.Searcher, answers: Path) -> None:
    with np.load(answers) as expected:
        found = searcher.search_batched(expected["queries"])
        indices = found.indices
        if indices.dtype == object:
            indices = indices.astype("U")
        np.testing.assert_array_equal(indices, expected["indices"])
        np.testing.assert_allclose(found.distances, expected["distances"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", BUNDLES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_single_files(path: Path) -> None:
    check(swann.load(path, verify="full"), path.with_suffix(".npz"))


@pytest.mark.parametrize("path", LOGS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_logs(path: Path, tmp_path: Path) -> None:
    check(swann.load(path, verify="full"), path / "answers.npz")
    shutil.copytree(path, tmp_path / "copy")
    with swann.open(tmp_path / "copy", verify="full") as index:
        check(index, path / "answers.npz")
        index.checkpoint()
    check(swann.load(tmp_path / "copy", verify="full"), path / "answers.npz")


def test_there_are_some_of_the_current_versions() -> None:
    assert len([p for p in BUNDLES if p.parent.name == f"bundle_v{FORMAT_VERSION}"]) == 3
    assert len([p for p in LOGS if p.parent.name == f"log_v{VERSION}"]) == 6

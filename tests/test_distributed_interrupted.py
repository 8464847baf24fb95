"""Changes and searches on workers that Ctrl-C stops: before any line that the caller runs."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from sharded import save, tree, vectors

import swann
from swann.distributed import DistributedSearcher

ROOT = str(Path(swann.__file__).parent / "distributed")
DB = vectors(300)


def interrupted(call: Callable[[], object], line: int) -> bool:
    """Run `call` with an interrupt before the line-th line of this thread; whether it came."""
    passed = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        # Where a lock is let go there is no interrupt, though its line is passed again.
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and not source.lstrip().startswith("with "):
            passed += 1
            if passed == line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("named", [True, False])
def test_an_interrupted_change_is_made_or_not(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swann.distributed.workers.fleet._WATCH", 0.01)
    docids = [f"d{i}" for i in range(len(DB))] if named else None
    save(tmp_path, 2, tree(DB).score_brute_force().build(docids=docids))
    with DistributedSearcher.open(
        tmp_path, 1, workers=1, pool="local", mode="rw", durability="none", deadline=20
    ) as searcher:

        def check(row: np.ndarray, docid: Any, more: int) -> None:
            """Whether searches show what the searcher says of its size."""
            found = searcher.search(row, 400, leaves_to_search=40)
            assert found.coverage == 1.0
            known = found.indices[found.indices != np.array(None if named else -1)].tolist()
            assert len(known) == len(searcher)
            assert len(searcher) - before == (more if (docid in known) == (more > 0) else 0)

        came, line = True, 0
        while came:
            line += 1
            before = len(searcher)
            row = (10 + line) * DB[0]
            docid = f"new{line}" if named else searcher._logged.changes.following  # type: ignore[union-attr]
            came = interrupted(lambda: searcher.upsert(docid if named else None, row), line)  # noqa: B023
            check(row, docid, 1)
        lines = line
        for line in range(1, lines, 3):
            before = len(searcher)
            interrupted(lambda: searcher.delete(docid), line)  # noqa: B023
            check(row, docid, -1)
            if len(searcher) < before:
                docid = searcher.upsert("again" if named else None, row)[0]
        size = len(searcher)
    assert lines > 30
    assert len(swann.load(tmp_path)) == size

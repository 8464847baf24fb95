"""Changes and searches on workers that Ctrl-C stops: before any line that the caller runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharded import interrupted, same, save, tree, vectors, wait_until

import swann
from swann.distributed import DistributedSearcher

DB = vectors(300)


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


def test_an_interrupted_search_leaves_nothing_behind(tmp_path: Path) -> None:
    built = save(tmp_path, 2, tree(DB).score_brute_force().build())
    queries = vectors(3, seed=1)
    with DistributedSearcher.open(tmp_path, 1, workers=1, pool="local", deadline=20) as searcher:
        came, line = True, 0
        member = searcher._fleet.members()[0]
        while came:
            line += 1
            came = interrupted(lambda: searcher.search_batched(queries), line)
            assert not searcher._generation.users
            assert wait_until(lambda: member.busy == 0)
        assert line > 30
        found = searcher.search_batched(queries)
        assert same(found, built.search_batched(queries))

"""Saves golden files of the formats beside saved directories: single files, and logs of changes.

They stay in the repository for good; `test_golden_storage.py` loads them. Run once a version of a
format: ``python tests/golden/make_storage.py``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import swann
from swann.index.disk.manifest import FORMAT_VERSION
from swann.index.log.format import VERSION

DOCIDS: dict[str, Any] = {
    "none": None,
    "int": list(range(100, 140)),
    "str": [f"wörd {i}" for i in range(40)],
}


def change(index: Any, db: Any, kind: str) -> None:
    """Make some changes of each kind."""
    first: Any = None if kind == "none" else 7 if kind == "int" else "new"
    index.upsert(first, db[40])
    index.upsert(None if kind == "none" else [8, 9] if kind == "int" else ["", "\ud800"], db[41:43])
    there = [0, 1, 2, 3] if kind == "none" else DOCIDS[kind][:4]
    index.upsert(there[:2], db[43:45])
    index.delete(there[2])
    index.delete([there[3], there[0]])


def main() -> None:
    """Write all of them; a crash is a copy made before closing."""
    root = Path(__file__).parent
    logs, bundles = root / f"log_v{VERSION}", root / f"bundle_v{FORMAT_VERSION}"
    if logs.exists() or bundles.exists():
        sys.exit(f"{logs} or {bundles} is there already; golden files never change")
    bundles.mkdir()
    db = np.random.default_rng(3).standard_normal((50, 6)).astype(np.float32)
    for kind, docids in DOCIDS.items():
        builder = swann.builder(db[:40], 4, "squared_l2")
        builder.tree(4, 4, min_partition_size=1).score_ah(2).reorder(50)
        searcher = builder.build(docids=docids)
        searcher.save(bundles / f"{kind}.swann")
        save_answers(bundles / f"{kind}.npz", searcher, db)
        with tempfile.TemporaryDirectory() as folder:
            searcher.save(folder)
            with swann.open(folder) as index:
                change(index, db, kind)
                ignored = shutil.ignore_patterns(".lock")
                shutil.copytree(folder, logs / f"{kind}_crashed", ignore=ignored)
            shutil.copytree(folder, logs / f"{kind}_closed")
            for end in ("crashed", "closed"):
                save_answers(logs / f"{kind}_{end}" / "answers.npz", index, db)


def save_answers(path: Path, searcher: Any, queries: Any) -> None:
    """Save what is found; strings as they are, in UTF-32."""
    found = searcher.search_batched(queries)
    indices = found.indices if found.indices.dtype != object else found.indices.astype("U")
    np.savez(path, queries=queries, indices=indices, distances=found.distances)


if __name__ == "__main__":
    main()

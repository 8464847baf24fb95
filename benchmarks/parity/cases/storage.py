"""Saved and loaded again: every pipeline, absolute, relative and moved directories, deep paths."""

from __future__ import annotations

import copy
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parity.case import Answer, Case, K, Lib, answer
from benchmarks.parity.small import PIPELINES, QUERIES, N, build, named

Save = Callable[[Lib, Any, Path], Any]


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def absolute_path(lib: Lib, searcher: Any, folder: Path) -> Any:
    """Saved and loaded under one absolute path."""
    searcher.serialize(str(folder))
    return lib.ops.load_searcher(str(folder))


def relative_path(lib: Lib, searcher: Any, folder: Path) -> Any:
    """With ``relative_path=True``, loaded from the directory itself."""
    searcher.serialize(str(folder), relative_path=True)
    with _inside(folder):
        return lib.ops.load_searcher(".")


def relative_path_from_elsewhere(lib: Lib, searcher: Any, folder: Path) -> Any:
    """With ``relative_path=True``, loaded from another working directory."""
    searcher.serialize(str(folder), relative_path=True)
    with _inside(folder.parent):
        return lib.ops.load_searcher(folder.name)


def relative_directory(lib: Lib, searcher: Any, folder: Path) -> Any:
    """Saved under a relative name, loaded from another working directory."""
    with _inside(folder.parent):
        searcher.serialize(folder.name)
    return lib.ops.load_searcher(str(folder))


def moved(lib: Lib, searcher: Any, folder: Path) -> Any:
    """The directory moves between saving and loading."""
    searcher.serialize(str(folder))
    target = folder.with_name("moved")
    folder.rename(target)
    return lib.ops.load_searcher(str(target))


def moved_while_open(lib: Lib, searcher: Any, folder: Path) -> Any:
    """The directory moves after loading."""
    searcher.serialize(str(folder))
    loaded = lib.ops.load_searcher(str(folder))
    folder.rename(folder.with_name("moved"))
    return loaded


def deep_path(lib: Lib, searcher: Any, folder: Path) -> Any:
    """A path of ten folders with spaces and accents."""
    target = folder.joinpath(*["a dïr" for _ in range(10)])
    target.mkdir(parents=True)
    searcher.serialize(str(target))
    return lib.ops.load_searcher(str(target))


def new_directory(lib: Lib, searcher: Any, folder: Path) -> Any:
    """The directory is not there yet."""
    target = folder / "new" / "one"
    searcher.serialize(str(target))
    return lib.ops.load_searcher(str(target))


def path_object(lib: Lib, searcher: Any, folder: Path) -> Any:
    """Path objects in place of strings."""
    searcher.serialize(folder)
    return lib.ops.load_searcher(folder)


def saved_twice(lib: Lib, searcher: Any, folder: Path) -> Any:
    """Saved over what is there, and once more from what was loaded."""
    searcher.serialize(str(folder))
    searcher.serialize(str(folder))
    lib.ops.load_searcher(str(folder)).serialize(str(folder))
    return lib.ops.load_searcher(str(folder))


def pickled(lib: Lib, searcher: Any, folder: Path) -> Any:
    """Through pickle."""
    return pickle.loads(pickle.dumps(searcher))


def copied(lib: Lib, searcher: Any, folder: Path) -> Any:
    """Through copy and deepcopy."""
    return copy.deepcopy(copy.copy(searcher))


def _case(save: Save, pipeline: str, measure: str = "dot_product", names: bool = False) -> Case:
    def run(lib: Lib, cut: Any) -> Answer:
        docids = named() if names else None
        searcher = build(lib, PIPELINES[pipeline], measure=measure, docids=docids)
        before = searcher.search_batched(QUERIES)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "index"
            place.mkdir()
            after = save(lib, searcher, place).search_batched(QUERIES)
        seen = answer(after)
        same = np.array_equal(np.asarray(before[0]), np.asarray(after[0]))
        seen.check(same, "other ids than before")
        near = not same or np.allclose(before[1], after[1], rtol=1e-6, atol=1e-6)
        return seen.check(near, "distances differ by more than 1e-6")

    text = save.__name__.replace("_", " ") + (" with docids" if names else "")
    return Case(f"storage/{text}/{measure}/{pipeline}", run)


def changed_then_saved(lib: Lib, cut: Any) -> Answer:
    """Delete everything, save, load, put back."""
    searcher = build(lib, PIPELINES["tree AH reorder"], docids=named())
    searcher.delete(named())
    seen = Answer()
    with tempfile.TemporaryDirectory() as folder:
        searcher.serialize(folder)
        loaded = lib.ops.load_searcher(folder)
        seen.check(loaded.size() == 0, f"size {loaded.size()} when loaded")
        loaded.upsert(named(50), QUERIES[:50], batch_size=50)
        found = [row[0] for row in loaded.search_batched(QUERIES[:50], 1)[0]]
    return seen.check(found == named(50), "a datapoint put back is not found")


def updated_then_saved(lib: Lib, cut: Any) -> Answer:
    """Upserts and deletes survive."""
    searcher = build(lib, PIPELINES["tree AH reorder"], docids=named())
    searcher.upsert([f"new{i}" for i in range(20)], QUERIES[:20])
    searcher.delete(["d3", "d4"])
    # With all as candidates: of those with equal codes, others may be among the first 60.
    before = searcher.search_batched(QUERIES, K, N)
    with tempfile.TemporaryDirectory() as folder:
        searcher.serialize(folder)
        loaded = lib.ops.load_searcher(folder)
        after = loaded.search_batched(QUERIES)
        again = loaded.search_batched(QUERIES, K, N)
    seen = answer(after).check(again[0] == before[0], "other docids than before")
    return seen.check(loaded.size() == searcher.size(), f"size {loaded.size()}")


def nothing_there(lib: Lib, cut: Any) -> Answer:
    """Loading what is no index."""
    seen = Answer()
    with tempfile.TemporaryDirectory() as folder:
        absent = str(Path(folder) / "absent")
        wanted = (ValueError, OSError)
        seen.refused("an absent directory", lambda: lib.ops.load_searcher(absent), *wanted)
        return seen.refused("an empty one", lambda: lib.ops.load_searcher(folder), *wanted)


SAVES = (
    relative_path,
    relative_path_from_elsewhere,
    relative_directory,
    moved,
    moved_while_open,
    deep_path,
    new_directory,
    path_object,
    saved_twice,
    pickled,
    copied,
)

CASES = [
    *(_case(absolute_path, name) for name in PIPELINES),
    *(_case(absolute_path, name, "squared_l2") for name in PIPELINES if "SOAR" not in name),
    _case(absolute_path, "tree AH reorder", names=True),
    *(_case(save, "tree AH reorder") for save in SAVES),
    *(_case(save, "brute force") for save in SAVES[:5]),
    Case("storage/delete all, save, load, put back", changed_then_saved, deadly=True),
    Case("storage/updates survive", updated_then_saved, deadly=True),
    Case("storage/nothing to load", nothing_there, deadly=True),
]

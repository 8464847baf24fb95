"""Damaged indexes, a few thousand of them: a typed error, or the answers of the whole one."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swann
from swann import IndexFormatError, ReorderType, Searcher
from swann.index.disk.manifest import digest_of_json

N, D = 60, 6
DB = np.random.default_rng(1).standard_normal((N, D)).astype(np.float32)
QUERIES = np.random.default_rng(2).standard_normal((3, D)).astype(np.float32)
TREE: dict[str, Any] = {"num_leaves": 6, "num_leaves_to_search": 3, "min_partition_size": 1}
BUILDERS: dict[str, Callable[[], swann.Builder]] = {
    "tree, AH, reorder": lambda: (
        swann.builder(DB, 4, "squared_l2").tree(**TREE).score_ah(2).reorder(20)
    ),
    "soar, int8": lambda: (
        swann.builder(DB, 4, "dot_product")
        .tree(**TREE, soar_lambda=1.0)
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(20, ReorderType.INT8)
    ),
    "upper tree, lut256": lambda: (
        swann.builder(DB, 4, "cosine").tree(**TREE).upper_tree(2, 2).score_ah(3, hash_type="lut256")
    ),
    "pca, bfloat16": lambda: (
        swann.builder(DB, 4, "squared_l2")
        .pca(4)
        .tree(**TREE)
        .score_ah(2)
        .reorder(20, ReorderType.BFLOAT16)
    ),
    "brute force": lambda: swann.builder(DB, 4, "dot_product").score_brute_force(),
}
DOCIDS: dict[str, Any] = {
    "tree, AH, reorder": [f"ä{i}" for i in range(N)],
    "brute force": list(range(5, N + 5)),
}
NUMBERS = [0, 1, -1, 7, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64, 10**30]
VALUES: list[Any] = [*NUMBERS, None, True, "", "x", [], {}, [1], 0.5, 1e300, float("nan"), "../a"]


@functools.cache
def built(name: str) -> Searcher:
    return BUILDERS[name]().build(docids=DOCIDS.get(name))


def answers(searcher: Searcher) -> Any:
    found = searcher.search_batched(QUERIES)
    return found.indices.tolist(), found.distances.tobytes(), searcher.docids, searcher.config


def check(path: Path, expected: Any) -> None:
    """Whatever was done to it, it is refused or gives the same answers, and soon."""
    begin = time.process_time()
    try:
        found = answers(swann.load(path, verify="full"))
    except IndexFormatError:
        pass
    else:
        assert found == expected
    assert time.process_time() - begin < 2


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Truncate, lengthen, flip, or stomp on bytes."""
    kind, place = rng.integers(8), int(rng.integers(max(len(data), 1)))
    if kind == 0 or not data:
        return data[:place]
    if kind == 1:
        return data + bytes(int(rng.integers(1, 100)))
    changed = bytearray(data)
    if kind < 5:
        changed[place] ^= 1 << int(rng.integers(8))
    elif kind == 5:
        changed[place : place + 64] = rng.bytes(len(changed[place : place + 64]))
    else:
        width = int(rng.choice([2, 4, 8]))
        number = NUMBERS[rng.integers(len(NUMBERS))] % 2 ** (8 * width)
        changed[place : place + width] = number.to_bytes(width, "little")
    return bytes(changed)


@pytest.mark.parametrize("form", ["index", "index.swann"])
@pytest.mark.parametrize("name", BUILDERS)
def test_damaged_bytes(name: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / form
    built(name).save(path)
    expected = answers(built(name))
    check(path, expected)
    rng = np.random.default_rng(len(name))
    files = [path] if path.is_file() else sorted(path.iterdir())
    for turn in range(150):
        file = files[turn % len(files)]
        whole = file.read_bytes()
        file.write_bytes(damaged(whole, rng))
        check(path, expected)
        file.write_bytes(whole)
    check(path, expected)


def places(part: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document."""
    if way:
        yield way
    inner = part.items() if isinstance(part, dict) else enumerate(part)
    for key, value in inner if isinstance(part, (dict, list)) else ():
        yield from places(value, (*way, key)) if isinstance(value, (dict, list)) else [(*way, key)]


@pytest.mark.parametrize("name", BUILDERS)
def test_manifests_that_lie(name: str, tmp_path: Path) -> None:
    """Signed, as somebody who means harm would: refused, or an index that answers."""
    built(name).save(tmp_path)
    path = tmp_path / "manifest.json"
    whole = json.loads(path.read_text())
    rng = np.random.default_rng(len(name))
    for way in places(whole):
        for value in rng.choice(np.arange(len(VALUES)), 2, replace=False):
            content = copy.deepcopy(whole)
            part = functools.reduce(lambda part, key: part[key], way[:-1], content)
            part[way[-1]] = VALUES[value]
            content["digest"] = digest_of_json(content)
            path.write_text(json.dumps(content))
            try:
                loaded = swann.load(tmp_path, verify="full")
            except IndexFormatError:
                continue
            loaded.search_batched(QUERIES, 4, 20, 6)  # numbers of its own may be too many


@pytest.mark.parametrize("name", BUILDERS)
def test_arrays_that_lie(name: str, tmp_path: Path) -> None:
    """Signed too: whatever numbers arrays hold, searching them is safe."""
    built(name).save(tmp_path)
    manifest = tmp_path / "manifest.json"
    whole = json.loads(manifest.read_text())
    rng = np.random.default_rng(len(name))
    for key, entry in whole["arrays"].items():
        array = np.load(tmp_path / entry["file"])
        for _ in range(6):
            changed = bytearray(array.tobytes())
            for _ in range(int(rng.integers(1, 4))):
                place = int(rng.integers(len(changed))) // 4 * 4
                stomp = NUMBERS[rng.integers(len(NUMBERS))] % 2**32
                changed[place : place + 4] = stomp.to_bytes(4, "little")[: len(changed) - place]
            digest = hashlib.sha256(changed).hexdigest()
            content = copy.deepcopy(whole)
            content["arrays"][key] |= {"file": f"{key}-{digest[:16]}.npy", "sha256": digest}
            content["digest"] = digest_of_json(content)
            file = tmp_path / content["arrays"][key]["file"]
            np.save(file, np.frombuffer(changed, array.dtype).reshape(array.shape))
            manifest.write_text(json.dumps(content))
            try:
                loaded = swann.load(tmp_path, verify="full")
            except IndexFormatError:
                continue
            loaded.search_batched(QUERIES, 4, 20, 6)
            loaded.search(QUERIES[0], 4, 20, 6)


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
def test_files_that_are_something_else(tmp_path: Path) -> None:
    name = "tree, AH, reorder"
    built(name).save(tmp_path / "index")
    expected = answers(built(name))
    files = sorted((tmp_path / "index").iterdir())
    others: list[Callable[[Path], None]] = [
        Path.unlink,
        lambda path: (path.unlink(), path.mkdir())[0],
        lambda path: (path.unlink(), path.symlink_to(path))[0],
        lambda path: (path.unlink(), path.symlink_to("/dev/zero"))[0],
        lambda path: (path.unlink(), path.symlink_to("nowhere"))[0],
        lambda path: (path.unlink(), os.mkfifo(path))[0],
        *(lambda path, f=f: (path.unlink(), path.symlink_to(f))[0] for f in files[:4]),
    ]
    for file in files:
        data = file.read_bytes()
        for change in others:
            change(file)
            check(tmp_path / "index", expected)
            file.rmdir() if file.is_dir() else file.unlink(missing_ok=True)
            file.write_bytes(data)
    for a in files:
        for b in files:
            first, second = a.read_bytes(), b.read_bytes()
            a.write_bytes(second)
            b.write_bytes(first)
            check(tmp_path / "index", expected)
            a.write_bytes(first)
            b.write_bytes(second)
    check(tmp_path / "index", expected)
    for special in ("/dev/zero", "/dev/null"):
        with pytest.raises(IndexFormatError):
            swann.load(special)

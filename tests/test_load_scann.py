"""Indexes that ScaNN 1.4.2 serialized open, and answer as it did."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import assert_same, search_all

import swann
from swann import ConfigError, CorruptIndexError, IndexFormatError, ReorderType, Searcher
from swann.compat.scann_index import _fitted

GOLDEN = Path(__file__).parent / "golden" / "scann"
NAMES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
WHEEL = os.environ.get("SWANN_SCANN_PYTHON")


def opened(name: str, root: Path = GOLDEN) -> Searcher:
    return swann.load_scann(root / name, docids="ignore")


def table(indices: np.ndarray, distances: np.ndarray, n: int) -> np.ndarray:
    """Distances by query and datapoint; NaN where a datapoint was not found."""
    out = np.full((len(indices), n), np.nan)
    for row, ids, values in zip(out, indices.astype(int), distances, strict=True):
        found = ~np.isnan(values)  # ScaNN pads with index 0
        row[ids[found]] = values[found]
    return out


def tolerance(searcher: Searcher) -> float:
    """How far distances may be from ScaNN's, in units of their spread, as a root mean square.

    Its tables have 8 bits and one scale for all blocks; ours are finer. Under squared l2 its
    entries are squares, and the error grows. Of a datapoint in two leaves it takes the mean of
    two approximate scores, swann the better one.
    """
    config = searcher.config
    exact = config.reorder or config.score
    if exact is not config.score or isinstance(exact, swann.BruteForceConfig):
        return 1e-5 if exact.quantize is ReorderType.FLOAT32 else 0.02
    if config.tree is not None and config.tree.soar_lambda is not None:
        return 0.2
    return 0.15 if config.distance_measure == "squared_l2" else 0.06


def check_answers(name: str, root: Path) -> None:
    searcher = opened(name, root)
    with np.load(root / name / "answers.npz") as answers:
        scann: dict[str, Any] = dict(answers)
    queries, n = scann["queries"], len(searcher)
    found = search_all(searcher, queries, scann["indices"].shape[1])
    allowed = tolerance(searcher)
    # All datapoints of all leaves that ScaNN searched: the same are found, at its distances.
    config = searcher.config
    leaves = None
    if config.tree is not None and isinstance(config.score, swann.AHConfig):
        leaves = config.tree.num_leaves
    full = search_all(searcher, queries, n, pre_reorder_num_neighbors=n, leaves_to_search=leaves)
    theirs = table(scann["full_indices"], scann["full_distances"], n)
    ours = table(full.indices, full.distances, n)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    error = np.sqrt(np.nanmean((ours - theirs) ** 2))
    assert error <= allowed * np.nanstd(theirs)
    # By default the same neighbors, but for those that are as near up to that error.
    same = np.mean(
        [np.isin(a, b).mean() for a, b in zip(scann["indices"], found.indices, strict=True)]
    )
    assert same >= (0.95 if allowed < 1e-4 else 0.6)
    sign = -1 if config.distance_measure == "squared_l2" else 1
    their_best = np.take_along_axis(theirs, scann["indices"].astype(int), axis=1)
    our_best = np.take_along_axis(theirs, found.indices, axis=1)
    lost = sign * (their_best.mean() - our_best.mean())
    assert lost <= allowed * np.nanstd(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_scann(name: str) -> None:
    check_answers(name, GOLDEN)


@pytest.mark.skipif(WHEEL is None, reason="SWANN_SCANN_PYTHON names no Python with scann")
def test_against_the_wheel(tmp_path: Path) -> None:
    """New indexes of other data, by the ScaNN that is installed."""
    assert WHEEL is not None
    made = subprocess.run(
        [WHEEL, GOLDEN / "make.py", tmp_path], capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
    for name in NAMES:
        check_answers(name, tmp_path)


# ---- What an opened index is


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_saved_as_swanns_own(name: str, tmp_path: Path) -> None:
    searcher = opened(name)
    with np.load(GOLDEN / name / "answers.npz") as answers:
        queries = answers["queries"]
    searcher.serialize(tmp_path)
    again = swann.load_searcher(tmp_path, verify="full")
    assert again.config == searcher.config
    assert_same(search_all(again, queries), search_all(searcher, queries))


def test_the_files_are_not_needed_afterwards(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "brute_force", tmp_path / "moved")
    searcher = swann.load_scann(tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved")
    assert_same(searcher.search(np.ones(10)), opened("brute_force").search(np.ones(10)))


def test_settings_say_what_the_index_has() -> None:
    config = opened("soar_reorder").config
    assert config.num_neighbors == 5
    assert config.tree == swann.TreeConfig(
        num_leaves=7,
        num_leaves_to_search=3,
        min_partition_size=1,
        soar_lambda=1.2,
        overretrieve_factor=1.4,
        incremental_threshold=0.1,
    )
    assert config.score == swann.AHConfig(
        dimensions_per_block=3, anisotropic_quantization_threshold=0.2
    )
    assert config.reorder == swann.ReorderConfig(reordering_num_neighbors=40)
    assert config.seed == 0


def test_int8_rows_become_bfloat16() -> None:
    reordered, scored = opened("tree_ah_int8").config, opened("brute_force_int8").config
    assert reordered.reorder is not None
    assert reordered.reorder.quantize is ReorderType.BFLOAT16
    assert scored.score == swann.BruteForceConfig(quantize=ReorderType.BFLOAT16)


@pytest.mark.parametrize("finer", [ReorderType.FLOAT32, ReorderType.BFLOAT16])
def test_brute_force_by_int8_takes_the_rows_of_its_reordering(finer: ReorderType) -> None:
    name = "brute_force_int8_reorder" + "_bf16" * (finer is ReorderType.BFLOAT16)
    assert opened(name).config.score == swann.BruteForceConfig(quantize=finer)


def test_upper_trees_and_int8_centroids_are_made_anew() -> None:
    upper, int8 = opened("upper_tree"), opened("tree_spherical_int8_centroids")
    assert upper.config.tree is not None
    assert upper.config.tree.upper == swann.UpperTreeConfig(num_leaves=3, num_leaves_to_search=3)
    assert len(upper._index.routes["upper0_centroids"]) == 3
    assert int8.config.tree is not None
    assert int8.config.tree.quantize_centroids
    assert int8.config.tree.spherical
    assert int8._index.routes["centroids_i8"].shape == (7, 10)


def test_projections_carry_over() -> None:
    pca, truncated = opened("pca"), opened("truncate")
    assert pca.config.projection == swann.ProjectionConfig(kind="pca", reduction_dim=6)
    assert truncated.config.projection == swann.ProjectionConfig(kind="truncate", reduction_dim=6)
    for searcher in (pca, truncated, opened("pca_threshold")):
        assert searcher.dimension == 10
        assert searcher._index.projects


def test_few_datapoints_are_scored_as_they_are() -> None:
    """ScaNN trains no codebook of fewer datapoints than codewords, and keeps the rows."""
    searcher = opened("few")
    assert len(searcher) == 10
    assert searcher.config.score == swann.BruteForceConfig()


def test_no_more_leaves_are_searched_than_there_are() -> None:
    """Of few or equal datapoints, ScaNN makes fewer leaves than it was asked for."""
    asked = swann.builder(np.eye(9), 1, "cosine").tree(20, 15).upper_tree(18, 12)
    tree = _fitted(
        asked.score_brute_force().create_config(), None, np.eye(7, 9, dtype=np.float32), None
    ).tree
    assert tree is not None
    assert tree.num_leaves == tree.num_leaves_to_search == 7
    assert tree.upper == swann.UpperTreeConfig(num_leaves=7, num_leaves_to_search=7)


# ---- The directory


def copied(name: str, tmp_path: Path) -> Path:
    target = tmp_path / name
    shutil.copytree(GOLDEN / name, target)
    return target


def test_a_directory_without_a_list_of_assets_opens(tmp_path: Path) -> None:
    """Versions of ScaNN before the list wrote the same files."""
    directory = copied("tree_ah_reorder", tmp_path)
    (directory / "scann_assets.pbtxt").unlink()
    query = np.ones(10)
    assert_same(swann.load_scann(directory).search(query), opened("tree_ah_reorder").search(query))


@pytest.mark.parametrize("folder", ["/home/somebody/index/", "C:\\\\indexes\\\\", ""])
def test_paths_of_another_machine_are_those_of_its_directory(folder: str, tmp_path: Path) -> None:
    directory = copied("brute_force", tmp_path)
    (directory / "scann_assets.pbtxt").write_text(
        f'assets {{ asset_type: DATASET_NPY asset_path: "{folder}dataset.npy" }}'
    )
    assert len(swann.load_scann(directory)) == 150


def test_no_file_outside_the_directory_is_read(tmp_path: Path) -> None:
    directory = copied("brute_force", tmp_path)
    (directory / "dataset.npy").rename(tmp_path / "dataset.npy")
    for path in (tmp_path / "dataset.npy", "../dataset.npy"):
        (directory / "scann_assets.pbtxt").write_text(
            f'assets {{ asset_type: DATASET_NPY asset_path: "{path}" }}'
        )
        with pytest.raises(CorruptIndexError, match=r"dataset\.npy is missing"):
            swann.load_scann(directory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("assets {", "damaged"),
        ("assets: 3", "without its type"),
        ("assets { asset_type: DATASET_NPY }", "without its type"),
        ('assets { asset_path: "dataset.npy" }', "without its type"),
        ('assets { asset_type: DATASET asset_path: "x" }', "type DATASET;"),
        ('assets { asset_type: 99 asset_path: "x" }', "type 99;"),
        ('assets { asset_type: DATASET_NPY asset_path: "x/" }', "as a path"),
        ('assets { asset_type: 9 asset_path: "a" asset_path: "b" }', "without its type"),
        ('assets { asset_type: 9 asset_path: "a" } ' * 2, "two assets"),
        ("", "lists no asset of type DATASET_NPY"),
    ],
)
def test_a_bad_list_of_assets_is_refused(text: str, message: str, tmp_path: Path) -> None:
    directory = copied("brute_force", tmp_path)
    (directory / "scann_assets.pbtxt").write_text(text)
    with pytest.raises(IndexFormatError, match=message):
        swann.load_scann(directory)


def test_other_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match="holds no index of ScaNN"):
        swann.load_scann(tmp_path)
    with pytest.raises(IndexFormatError, match="holds no index of ScaNN"):
        swann.load_scann(tmp_path / "missing")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", ["dataset.npy", "ah_codebook.pb"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "ah_reorder", tmp_path / "index")
    (tmp_path / "index" / name).unlink()
    os.mkfifo(tmp_path / "index" / name)
    with pytest.raises(IndexFormatError):
        swann.load_scann(tmp_path / "index")


def test_a_huge_text_is_not_read(tmp_path: Path) -> None:
    directory = copied("brute_force", tmp_path)
    with open(directory / "scann_assets.pbtxt", "r+b") as file:
        file.truncate(1 << 40)  # sparse: nothing is on the disk
    with pytest.raises(CorruptIndexError, match="bytes; expected"):
        swann.load_scann(directory)


def replace_array(path: Path, change: Any) -> None:
    np.save(path, change(np.load(path)))


def without_17(rows: np.ndarray) -> np.ndarray:
    rows[17] = np.nan
    return rows


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("brute_force", "dataset.npy", lambda a: a * np.nan, "datapoint 0 is not finite"),
        ("tree_ah_reorder", "dataset.npy", without_17, "datapoint 17 is not finite"),
        ("brute_force", "dataset.npy", lambda a: a.astype("f8"), "expected <f4"),
        ("brute_force", "dataset.npy", lambda a: np.asfortranarray(a), "expected <f4"),
        ("brute_force", "dataset.npy", lambda a: a[:0], "shape"),
        ("brute_force", "dataset.npy", lambda a: a[0], "shape"),
        ("tree_ah", "datapoint_to_token.npy", lambda a: a + 1, "tokens from 1 to 7"),
        ("tree_ah", "datapoint_to_token.npy", lambda a: a - 1, "tokens from -1"),
        ("tree_ah", "datapoint_to_token.npy", lambda a: a[1:], "149 tokens"),
        ("tree_ah", "datapoint_to_token.npy", lambda a: np.repeat(a, 2), "300 tokens"),
        ("soar", "datapoint_to_token.npy", lambda a: a - 1, "tokens from -2"),
        ("tree_ah", "hashed_dataset.npy", lambda a: a + 9, "has a code"),
        ("tree_ah", "hashed_dataset.npy", lambda a: np.where(a == a.max(), 16, a), "has a code 16"),
        ("tree_ah", "hashed_dataset.npy", lambda a: a[:, 1:], "shape"),
        ("soar", "hashed_dataset_soar.npy", lambda a: a[1:], "shape"),
        ("soar", "hashed_dataset_soar.npy", lambda a: a + 16, "has a code"),
        ("tree_ah_reorder", "dataset.npy", lambda a: a[1:], "shape"),
        ("tree_ah_int8", "int8_multipliers.npy", lambda a: a * 0, "multipliers"),
        ("tree_ah_int8", "int8_multipliers.npy", lambda a: a[1:], "shape"),
        ("tree_ah_int8", "int8_multipliers.npy", lambda a: a * np.float32(1e-40), "not finite"),
        ("tree_ah_int8", "int8_dataset.npy", lambda a: a[:, 1:], "shape"),
        ("tree_ah_reorder", "dataset.npy", lambda a: a[:, 1:].copy(), "dimensions"),
        ("brute_force_int8", "int8_dataset.npy", lambda a: a[:, 1:].copy(), "shape"),
        ("pca", "dataset.npy", lambda a: a[:, 1:].copy(), "dimensions"),
        ("truncate", "dataset.npy", lambda a: a[:, 5:].copy(), "dimensions"),
        ("tree_ah_bf16", "bfloat16_dataset.npy", lambda a: a | 0x7F80, "not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    name: str, file: str, change: Any, message: str, tmp_path: Path
) -> None:
    directory = copied(name, tmp_path)
    replace_array(directory / file, change)
    with pytest.raises(CorruptIndexError, match=message):
        swann.load_scann(directory)


@pytest.mark.parametrize(
    ("name", "other", "file"),
    [
        ("tree_ah", "pca", "serialized_partitioner.pb"),
        ("pca", "tree_ah", "serialized_partitioner.pb"),
        ("truncate", "tree_ah", "serialized_partitioner.pb"),
        ("tree_ah_reorder", "pca", "ah_codebook.pb"),
        ("tree_ah", "pca", "scann_config.pb"),
        ("tree_ah", "tree_lut256", "ah_codebook.pb"),
        ("truncate", "pca", "scann_config.pb"),
    ],
)
def test_files_of_another_index_are_refused(
    name: str, other: str, file: str, tmp_path: Path
) -> None:
    directory = copied(name, tmp_path)
    shutil.copyfile(GOLDEN / other / file, directory / file)
    with pytest.raises(IndexFormatError):
        swann.load_scann(directory)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"PK\x03\x04 zip", b"\x93NUMPY\x01\x00\x04\x00{'a\n"]
)
def test_a_damaged_array_is_refused(content: bytes, tmp_path: Path) -> None:
    directory = copied("brute_force", tmp_path)
    (directory / "dataset.npy").write_bytes(content)
    with pytest.raises(CorruptIndexError, match="damaged"):
        swann.load_scann(directory)


def test_an_array_with_something_behind_it_is_refused(tmp_path: Path) -> None:
    directory = copied("brute_force", tmp_path)
    with open(directory / "dataset.npy", "ab") as file:
        file.write(b"\0")
    with pytest.raises(CorruptIndexError, match=r"dataset\.npy has .* bytes; expected"):
        swann.load_scann(directory)


FILES = [
    *((name, "scann_config.pb") for name in ("soar_reorder", "upper_tree", "brute_force_int8")),
    *((name, "serialized_partitioner.pb") for name in ("tree_ah", "upper_tree", "pca")),
    ("tree_ah", "ah_codebook.pb"),
    ("soar", "datapoint_to_token.npy"),
    ("soar", "hashed_dataset.npy"),
    ("tree_ah_int8", "int8_multipliers.npy"),
    ("tree_ah", "scann_assets.pbtxt"),
]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damaged")
    for name in {name for name, _ in FILES}:
        shutil.copytree(GOLDEN / name, root / name)
    return root


@settings(max_examples=150)
@given(data=st.data())
def test_damage_is_a_typed_error_or_an_index(scratch: Path, data: st.DataObject) -> None:
    """Bytes lost, changed or put in: never a crash, a hang, or another kind of error."""
    name, file = data.draw(st.sampled_from(FILES))
    path = scratch / name / file
    whole = (GOLDEN / name / file).read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        match data.draw(st.sampled_from(["cut", "flip", "insert", "remove"])):
            case "cut":
                del damaged[at:]
            case "flip" if at < len(damaged):
                damaged[at] ^= 1 << data.draw(st.integers(0, 7))
            case "insert":
                damaged[at:at] = data.draw(st.binary(min_size=1, max_size=12))
            case "remove":
                del damaged[at : at + data.draw(st.integers(1, 12))]
    path.write_bytes(bytes(damaged))
    try:
        searcher = swann.load_scann(scratch / name)
        searcher.search_batched(np.ones((2, searcher.dimension)))
    except IndexFormatError:
        pass
    finally:
        path.write_bytes(whole)


def test_docids_are_refused_unless_told() -> None:
    with pytest.raises(IndexFormatError, match="docids='strings'"):
        swann.load_scann(GOLDEN / "docids")
    with pytest.raises(ConfigError, match="docids is 'pickle'"):
        swann.load_scann(GOLDEN / "docids", docids="pickle")  # type: ignore[arg-type]
    assert len(swann.load_scann(GOLDEN / "docids", docids="ignore")) == 150


# ---- Docids


def names() -> list[str]:
    found: list[str] = json.loads((GOLDEN / "docids" / "docids.json").read_text())
    return found


def test_docids_are_read_as_strings() -> None:
    searcher = swann.load_scann(GOLDEN / "docids", docids="strings")
    assert searcher.docids == names()
    numbered = opened("docids")
    assert not numbered.has_docids
    query = np.ones(10)
    assert [names()[i] for i in numbered.search(query).indices] == list(
        searcher.search(query).indices
    )


def test_docids_of_an_updated_index() -> None:
    """ScaNN puts the last datapoint in the place of one that is deleted."""
    searcher = swann.load_scann(GOLDEN / "updated", docids="strings")
    assert searcher.docids == json.loads((GOLDEN / "updated" / "docids.json").read_text())
    assert "new" in searcher.docids
    assert "döc 7" not in searcher.docids


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (["a"] * 150, IndexFormatError, "hold 'a' twice"),
        ([str(i) for i in range(149)], CorruptIndexError, "149 docids for 150 datapoints"),
        ([], CorruptIndexError, "0 docids for 150"),
        ([*range(149), "a"], IndexFormatError, "all of a kind.*docids='ignore'"),
        ([*range(149), -1], IndexFormatError, "ints from 0 on.*docids='ignore'"),
        (None, IndexFormatError, "no part of a plain list"),
        (np.zeros((150, 1), int), IndexFormatError, "NumPy array of 2 axes"),
    ],
)
def test_docids_that_do_not_fit(
    value: object, error: type[Exception], message: str, tmp_path: Path
) -> None:
    directory = copied("docids", tmp_path)
    (directory / "scann_docids.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(IndexFormatError, match=message) as caught:
        swann.load_scann(directory, docids="strings")
    assert type(caught.value) is error  # an index that is whole is not called damaged
    assert not swann.load_scann(directory, docids="ignore").has_docids


@pytest.mark.parametrize(
    "value",
    [
        list(range(1000, 1150)),
        tuple(range(1000, 1150)),
        list(np.arange(1000, 1150)),
        np.arange(1000, 1150, dtype=np.int32),
    ],
)
def test_int_docids(value: object, tmp_path: Path) -> None:
    directory = copied("docids", tmp_path)
    (directory / "scann_docids.pkl").write_bytes(pickle.dumps(value))
    searcher = swann.load_scann(directory, docids="strings")
    assert (searcher.search(np.ones(10)).indices >= 1000).all()


@pytest.mark.parametrize("make", [list, np.asarray, tuple])
def test_strings_of_numpy(make: Callable[[object], object], tmp_path: Path) -> None:
    directory = copied("docids", tmp_path)
    (directory / "scann_docids.pkl").write_bytes(pickle.dumps(make(np.array(names()))))
    assert swann.scann_ops_pybind.load_searcher(directory).docids == names()


# ---- ScaNN's own names


def test_load_searcher_of_scann_ops_pybind_opens_them() -> None:
    searcher = swann.scann_ops_pybind.load_searcher(GOLDEN / "docids")
    assert searcher.docids == names()
    with np.load(GOLDEN / "docids" / "answers.npz") as answers:
        neighbors, distances = searcher.search(answers["queries"][0])
        assert neighbors == [names()[i] for i in answers["indices"][0]]
        np.testing.assert_allclose(distances, answers["distances"][0], rtol=1e-5)


def test_load_searcher_prefers_swanns_own(tmp_path: Path) -> None:
    directory = copied("brute_force", tmp_path)
    swann.builder(np.eye(3), 1, "squared_l2").score_brute_force().build().serialize(directory)
    assert swann.scann_ops_pybind.load_searcher(directory).size() == 3
    assert len(swann.load_scann(directory)) == 150


# ---- Afterwards


@pytest.mark.parametrize("name", NAMES)
def test_an_opened_index_can_be_changed(name: str, tmp_path: Path) -> None:
    searcher = opened(name)
    n, d = len(searcher), searcher.dimension
    far = 9 * np.eye(d, dtype=np.float32)
    added = searcher.upsert(None, far)
    searcher.delete([0, 1])
    assert len(searcher) == n + d - 2
    l2 = searcher.config.distance_measure == "squared_l2"
    queries = far if l2 else 100 * far
    best = searcher.search_batched(queries, 1, leaves_to_search=searcher.config.tree and 99)
    exact = isinstance(searcher.config.score, swann.BruteForceConfig) or searcher.config.reorder
    if l2 and exact:
        assert best.indices[:, 0].tolist() == list(added)
    elif l2:
        assert np.isin(best.indices[:, 0], added).mean() >= 0.7
    assert not np.isin(searcher.search_batched(queries, n).indices, [0, 1]).any()
    searcher.serialize(tmp_path)
    again = swann.load_searcher(tmp_path)
    assert_same(again.search_batched(queries), searcher.search_batched(queries))

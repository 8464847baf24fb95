"""Projections: the tree and the codes in fewer dimensions, exact scores in all of them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pipelines import assert_same, search_all

import swann
from swann import Builder, ConfigError, CorruptIndexError, ProjectionConfig, Searcher, kernels
from swann.distance import normalize_rows
from swann.index.building.build import build_index
from swann.index.disk.manifest import digest_of_json
from swann.partition.tree import SPREADS_ABOVE, left_out
from swann.quantize.projection import principal_components, project, train_projection

F32 = NDArray[np.float32]
MEASURES = ["dot_product", "squared_l2", "cosine"]
each_measure = pytest.mark.parametrize("measure", MEASURES)
each_hash_type = pytest.mark.parametrize("hash_type", ["lut16", "lut256"])
each_kind = pytest.mark.parametrize("kind", ["pca", "truncate"])

N, D, R, K = 600, 12, 5, 7


def correlated(seed: int, n: int, d: int = D) -> F32:
    """Rows whose variance is in a few directions, far from the origin."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((d, d)) * 0.8 ** np.arange(d)[:, None]
    return (rng.standard_normal((n, d)) @ mix + np.linspace(-1, 2, d)).astype(np.float32)


DB, QUERIES = correlated(1, N), correlated(2, 9)


def projected(builder: Builder, kind: str, r: int = R) -> Builder:
    return builder.pca(r) if kind == "pca" else builder.truncate(r)


def staged(
    builder: Builder,
    *,
    tree: bool,
    ah: bool,
    reorder: Any = None,
    soar: bool = False,
    hash_type: str = "lut16",
) -> Builder:
    if tree:
        builder.tree(8, 3, min_partition_size=1, soar_lambda=1.0 if soar else None)
    if ah:
        builder.score_ah(2, 0.2, hash_type=hash_type)
    else:
        builder.score_brute_force(reorder or "FLOAT32")
    if ah and reorder:
        builder.reorder(40, reorder)
    return builder


def twin(searcher: Searcher, measure: str, **stages: Any) -> Searcher:
    """An index of the projected rows, whose tree and codes should be the same.

    Leaves of a projected index are ranked with what the projection hides in mind: the same variance
    is added to all of them.
    """
    rows = as_indexed(DB, measure)
    index = searcher._index
    reduced = index.reduce(rows)
    plain: Any = "squared_l2" if measure == "squared_l2" else "dot_product"
    made = staged(swann.builder(reduced, K, plain), **stages).build()
    if index.spreads is None:
        return made
    hidden = left_out(
        *(np.linalg.norm(part, axis=1) for part in (rows, reduced)), D, index.reduced_dim
    )
    assert hidden > 0
    assert made._index.spreads is not None
    spreads = np.sqrt(made._index.spreads**2 + SPREADS_ABOVE**2 * hidden)
    np.testing.assert_allclose(index.spreads, spreads, rtol=1e-5)
    return Searcher(dataclasses.replace(made._index, spreads=index.spreads))


def as_indexed(rows: F32, measure: str) -> F32:
    return normalize_rows(rows, "rows", 0) if measure == "cosine" else rows


def exact_distances(queries: F32, ids: NDArray[Any], measure: str) -> NDArray[Any]:
    q = as_indexed(queries, measure).astype(np.float64)
    x = as_indexed(DB, measure).astype(np.float64)[ids]
    if measure == "squared_l2":
        return ((x - q[:, None]) ** 2).sum(axis=2)
    return np.einsum("qkd,qd->qk", x, q)


# ---- Eigenvectors and principal components


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(0, 60), st.integers(-200, 200), st.integers(0, 2**32 - 1))
def test_eigenvectors(n: int, rank: int, exponent: int, seed: int) -> None:
    factor = np.random.default_rng(seed).standard_normal((n, rank))
    matrix = factor @ factor.T * 10.0**exponent
    vectors = matrix.copy()
    values = kernels.symmetric_eigen(vectors, 1)
    size = np.abs(values).max() or 1.0
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(values / size, np.linalg.eigvalsh(matrix / size)[::-1], atol=1e-13)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(n), atol=1e-13)
    np.testing.assert_allclose((vectors.T * (values / size)) @ vectors, matrix / size, atol=1e-13)


def test_eigenvectors_of_many_dimensions() -> None:
    """So many that rotations are applied in parts, by several threads."""
    n = 660
    factor = np.random.default_rng(4).standard_normal((n, n))
    matrix = factor @ factor.T / n
    vectors = matrix.copy()
    values = kernels.symmetric_eigen(vectors, 2)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1], atol=1e-12)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(n), atol=1e-12)
    np.testing.assert_allclose((vectors.T * values) @ vectors, matrix, atol=1e-12)


def sample(db: F32) -> tuple[Any, int, float]:
    chunks = (db[i : i + 100] for i in range(0, len(db), 100))
    return chunks, db.shape[1], float(np.linalg.norm(db.astype(np.float64), axis=1).max())


def train(db: F32, r: int | None = None, **settings: Any) -> Any:
    chunks, d, longest = sample(db)
    config = ProjectionConfig(kind="pca", reduction_dim=r, **settings)
    return train_projection(chunks, config, d, longest)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e16])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_principal_components_are_those_of_numpy(scale: float, offset: float) -> None:
    db = ((correlated(3, 5000) + offset) * scale).astype(np.float32)
    found, directions = principal_components(*sample(db))
    centred = db.astype(np.float64) / scale
    centred -= centred.mean(axis=0)
    _, _, wanted = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs((directions * wanted).sum(axis=1)), 1.0, atol=1e-4)
    np.testing.assert_allclose(directions @ directions.T, np.eye(D), atol=1e-13)
    variances = (centred @ directions.T).var(axis=0)
    np.testing.assert_allclose(found / found[0], variances / variances[0], rtol=1e-4, atol=1e-8)
    assert (np.diff(found) <= 0).all()
    greatest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    assert (greatest > 0).all()  # the sign is chosen, not found


def test_fewer_datapoints_than_dimensions() -> None:
    for n in (1, 2, 5):
        _, directions = principal_components(*sample(DB[:n]))
        np.testing.assert_allclose(directions @ directions.T, np.eye(D), atol=1e-13)
        centred = DB[:n] - DB[:n].mean(axis=0)
        np.testing.assert_allclose(centred @ directions[n - 1 :].T, 0.0, atol=1e-5)
        basis = train(DB[:n], R)
        np.testing.assert_allclose(basis @ basis.T, np.eye(R), atol=1e-6)


def test_the_basis_spans_the_leading_components_and_spreads_them() -> None:
    explained = []
    for r in range(1, D + 1):
        basis = train(DB, r).astype(np.float64)
        np.testing.assert_allclose(basis @ basis.T, np.eye(r), atol=1e-6)
        _, directions = principal_components(*sample(DB))
        leading = directions[:r]
        np.testing.assert_allclose(basis.T @ basis, leading.T @ leading, atol=1e-6)
        variances = (DB @ basis.T).var(axis=0)
        assert variances.max() < 2.1 * variances.mean()
        explained.append(variances.sum())
    assert (np.diff(explained) > 0).all()


def test_thresholds_count_as_scann_does() -> None:
    # Variances 8, 4, 2, 1, 1: shares .5, .75, .875, .9375, 1, far from the origin.
    variances = np.array([1, 8, 2, 1, 4])
    cross = np.concatenate([np.eye(5), -np.eye(5)]) * np.sqrt(5 * variances)
    db = (cross + 10).astype(np.float32)

    def kept(significance: float, truncation: float | None = None) -> int | None:
        basis = train(
            db, pca_significance_threshold=significance, pca_truncation_threshold=truncation
        )
        return None if basis is None else len(basis)

    assert [kept(share) for share in (0.1, 0.49, 0.51, 0.74, 0.76, 0.9)] == [1, 1, 2, 2, 3, 4]
    assert kept(0.97) is kept(1.0) is None  # all would be kept
    assert [kept(0.76, limit) for limit in (0.5, 0.6, 0.61, 1.0)] == [None, None, 3, 3]
    constant = np.ones((9, 4), np.float32)
    assert train(constant, pca_significance_threshold=0.5, pca_truncation_threshold=0.5) is None


# ---- Bases of some size, in whole steps

WIDE, NARROW = 130, 40  # 5,200 values


def in_steps(basis: F32) -> tuple[NDArray[np.int64], float]:
    step = float(np.abs(basis).max()) / 127
    whole = np.rint(basis / step).astype(np.int64)
    np.testing.assert_array_equal((whole * step).astype(np.float32), basis)
    return whole, step


def as_projected(queries: F32, basis: F32) -> F32:
    """A NumPy twin of how queries are projected by such a basis."""
    whole, step = in_steps(basis)
    out = project(queries, basis, len(basis))
    for i, query in enumerate(queries):
        greatest = np.abs(query).max()
        if greatest == 0:
            continue
        rounded = np.rint(query * (np.float32(63) / greatest)).astype(np.int64)
        if (rounded**2).sum() * 64 >= len(query) * 63**2:
            factor = np.float32(step) * (greatest / np.float32(63))
            out[i] = (whole @ rounded).astype(np.float32) * factor
    return out


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_a_large_basis_is_whole_steps_and_nearly_orthonormal(scale: float) -> None:
    basis = train(correlated(5, 2000, WIDE) * np.float32(scale), NARROW)
    whole, _ = in_steps(basis)
    assert np.abs(whole).max() == 127
    np.testing.assert_allclose(basis @ basis.T, np.eye(NARROW), atol=0.01)


@each_measure
def test_queries_are_rounded_where_the_basis_is(measure: Any) -> None:
    db, queries = correlated(5, 2000, WIDE), correlated(6, 300, WIDE)
    queries[3, 7] = 1e4  # too great beside the others
    queries[4] = np.eye(WIDE)[0]
    builder = swann.builder(db, K, measure).tree(12, 4).pca(NARROW).score_ah(2, 0.2)
    searcher = builder.build()
    index = searcher._index
    assert index.projection is not None
    given = as_indexed(queries, measure)
    reduced = as_projected(given, index.projection)
    assert (reduced != index.reduce(given)).any(axis=1).sum() > 250
    plain: Any = "squared_l2" if measure == "squared_l2" else "dot_product"
    config = dataclasses.replace(index.config, projection=None, distance_measure=plain)
    twin = Searcher(
        dataclasses.replace(index, config=config, dimension=NARROW, projection=None, routes={})
    )
    wanted = twin.search_batched(reduced)
    found = search_all(searcher, queries, K)
    same = (found.indices == wanted.indices).mean()
    assert same == 1.0 if measure != "cosine" else same > 0.99  # normalised natively
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-4, atol=1e-5)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_rows_are_projected_one_by_one(d: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    r = int(rng.integers(1, d + 1))
    rows = rng.standard_normal((n, d), dtype=np.float32)
    basis = rng.standard_normal((r, d), dtype=np.float32)
    together = project(rows, basis, r, 3)
    np.testing.assert_allclose(together, rows @ basis.T, atol=1e-4)
    for i in range(n):
        np.testing.assert_array_equal(project(rows[i : i + 1], basis, r), together[i : i + 1])
    np.testing.assert_array_equal(project(rows, None, r), rows[:, :r])


# ---- Indexes, against indexes of the projected rows


@each_kind
@each_measure
@pytest.mark.parametrize("soar", [False, True])
@each_hash_type
def test_tree_and_codes_are_those_of_the_projected_rows(
    kind: str, measure: Any, soar: bool, hash_type: str
) -> None:
    stages: Any = {"tree": True, "ah": True, "soar": soar, "hash_type": hash_type}
    searcher = projected(staged(swann.builder(DB, K, measure), **stages), kind).build()
    reduced = twin(searcher, measure, **stages)
    ours, theirs = searcher._index.arrays(), reduced._index.arrays()
    assert ours.keys() - {"projection"} == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    # What is scored by codes alone is scored in the reduced space.
    queries = searcher._index.reduce(as_indexed(QUERIES, measure))
    wanted = reduced.search_batched(queries)
    found = search_all(searcher, QUERIES, K)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    tolerance = 1e-6 if measure == "cosine" else 0  # queries are normalised natively
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=tolerance)


@each_kind
@each_measure
@pytest.mark.parametrize("tree", [False, True])
def test_candidates_of_the_codes_are_scored_in_all_dimensions(
    kind: str, measure: Any, tree: bool
) -> None:
    searcher = projected(
        staged(swann.builder(DB, K, measure), tree=tree, ah=True, reorder="FLOAT32"), kind
    ).build()
    reduced = twin(searcher, measure, tree=tree, ah=True)
    queries = searcher._index.reduce(as_indexed(QUERIES, measure))
    candidates = reduced.search_batched(queries, 40).indices
    found = search_all(searcher, QUERIES, K)
    exact = exact_distances(QUERIES, candidates, measure)
    order = np.argsort(exact if measure == "squared_l2" else -exact, axis=1)[:, :K]
    np.testing.assert_array_equal(found.indices, np.take_along_axis(candidates, order, axis=1))
    np.testing.assert_allclose(
        found.distances, np.take_along_axis(exact, order, axis=1), rtol=1e-4, atol=1e-5
    )


@each_kind
@each_measure
def test_leaves_are_chosen_in_the_reduced_space_and_their_rows_scored_exactly(
    kind: str, measure: Any
) -> None:
    searcher = projected(staged(swann.builder(DB, K, measure), tree=True, ah=False), kind).build()
    reduced = twin(searcher, measure, tree=True, ah=False)
    queries = searcher._index.reduce(as_indexed(QUERIES, measure))
    for leaves in (1, 3, 8):
        members = reduced.search_batched(queries, N, leaves_to_search=leaves).indices
        found = search_all(searcher, QUERIES, N, leaves_to_search=leaves)
        np.testing.assert_array_equal(np.sort(found.indices), np.sort(members))
        distances = np.where(
            found.indices < 0, np.nan, exact_distances(QUERIES, found.indices, measure)
        )
        np.testing.assert_allclose(found.distances, distances, rtol=1e-4, atol=1e-5)


@each_kind
def test_brute_force_without_a_tree_has_nothing_to_project(kind: str) -> None:
    plain = swann.builder(DB, K, "squared_l2").score_brute_force().build()
    searcher = projected(swann.builder(DB, K, "squared_l2").score_brute_force(), kind).build()
    assert not searcher._index.projects
    assert searcher._index.arrays().keys() == plain._index.arrays().keys()
    assert_same(search_all(searcher, QUERIES), search_all(plain, QUERIES))


@each_measure
@pytest.mark.parametrize(("tree", "ah"), [(True, True), (False, True), (True, False)])
def test_all_components_lose_nothing(measure: Any, tree: bool, ah: bool) -> None:
    def build(pca: bool) -> Searcher:
        builder = staged(swann.builder(DB, K, measure), tree=tree, ah=ah, reorder="FLOAT32")
        return (builder.pca(D) if pca else builder).build()

    rotated, plain = build(True), build(False)
    everything: Any = {"pre_reorder_num_neighbors": N, "leaves_to_search": 8}
    assert_same(
        search_all(rotated, QUERIES, **everything), search_all(plain, QUERIES, **everything)
    )
    exact = swann.builder(DB, 10, measure).score_brute_force().build().search_batched(DB[:200])

    def recall(searcher: Searcher) -> float:
        return swann.evaluate.recall(searcher.search_batched(DB[:200], 10).indices, exact.indices)

    assert recall(rotated) > recall(plain) - 0.03


@each_kind
@each_measure
@pytest.mark.parametrize(
    ("tree", "ah", "reorder", "soar"),
    [
        *((True, True, reorder, soar) for reorder in (None, "FLOAT32", "BFLOAT16", "INT8")
          for soar in (False, True)),
        *((False, True, reorder, False) for reorder in (None, "FLOAT32", "INT8")),
        *((True, False, reorder, soar) for reorder in ("FLOAT32", "BFLOAT16", "INT8")
          for soar in (False, True)),
    ],
)  # fmt: skip
def test_every_combination_works_and_is_kept(
    kind: str, measure: Any, tree: bool, ah: bool, reorder: Any, soar: bool, tmp_path: Path
) -> None:
    searcher = projected(
        staged(swann.builder(DB, K, measure), tree=tree, ah=ah, reorder=reorder, soar=soar), kind
    ).build()
    assert searcher._index.projects
    assert searcher._index.reduced_dim == R
    assert f"{kind}({R})" in repr(searcher)
    found = search_all(searcher, QUERIES)
    if reorder:
        exact = exact_distances(QUERIES, found.indices, measure)
        near = {"FLOAT32": 1e-5, "BFLOAT16": 0.02, "INT8": 0.03}[reorder]
        np.testing.assert_allclose(found.distances, exact, atol=near * np.abs(exact).max())
    searcher.serialize(tmp_path / "index")
    loaded = swann.load_searcher(tmp_path / "index", verify="full")
    for other in (loaded, pickle.loads(pickle.dumps(searcher)), copy.deepcopy(searcher)):
        assert other.config == searcher.config
        for name, array in searcher._index.arrays().items():
            np.testing.assert_array_equal(other._index.arrays()[name], array)
        assert_same(search_all(other, QUERIES), found)


@each_kind
@each_measure
def test_the_same_bytes_on_any_number_of_threads(kind: str, measure: Any) -> None:
    db = correlated(5, 3000, 300)
    indexes = [
        projected(staged(swann.builder(db, K, measure), tree=True, ah=True), kind, 100)
        .set_n_training_threads(threads)
        .build()
        ._index.arrays()
        for threads in (1, 2, 7)
    ]
    for other in indexes[1:]:
        for name, array in indexes[0].items():
            assert other[name].tobytes() == array.tobytes()


def test_a_database_is_read_alike_in_any_dtype_and_layout() -> None:
    db = np.random.default_rng(7).integers(-50, 50, (N, D))
    wanted = staged(swann.builder(db, K, "cosine"), tree=True, ah=True).pca(R).build()
    for same in (db.astype(np.float16), np.asfortranarray(db.astype(np.float64))):
        found = staged(swann.builder(same, K, "cosine"), tree=True, ah=True).pca(R).build()
        for name, array in wanted._index.arrays().items():
            np.testing.assert_array_equal(found._index.arrays()[name], array)


def test_thresholds_decide_when_the_index_is_built(tmp_path: Path) -> None:
    def build(**settings: float) -> Searcher:
        builder = staged(swann.builder(DB, K, "dot_product"), tree=True, ah=True)
        return builder.pca(**settings).build()

    variances = np.linalg.eigvalsh(np.cov(DB.T))[::-1]
    shares = np.cumsum(variances) / variances.sum()
    for significance in (0.3, 0.7, 0.95):
        wanted = max(2, int((shares <= significance).sum()) + 1)  # a block has 2
        searcher = build(pca_significance_threshold=significance, pca_truncation_threshold=1.0)
        assert searcher._index.reduced_dim == wanted
        searcher.serialize(tmp_path / "index")
        loaded = swann.load_searcher(tmp_path / "index")
        assert_same(search_all(loaded, QUERIES), search_all(searcher, QUERIES))
    whole = build(pca_significance_threshold=0.95, pca_truncation_threshold=0.3)
    plain = staged(swann.builder(DB, K, "dot_product"), tree=True, ah=True).build()
    assert_same(search_all(whole, QUERIES), search_all(plain, QUERIES))
    whole.serialize(tmp_path / "whole")
    assert_same(
        search_all(swann.load_searcher(tmp_path / "whole"), QUERIES), search_all(plain, QUERIES)
    )
    default = swann.builder(DB, K, "dot_product").pca().score_ah(1).create_config().projection
    assert default == ProjectionConfig(
        kind="pca", pca_significance_threshold=0.8, pca_truncation_threshold=0.6
    )


# ---- Changes


@each_kind
@each_measure
@each_hash_type
def test_new_datapoints_are_encoded_as_those_of_a_projected_index(
    kind: str, measure: Any, hash_type: str
) -> None:
    stages: Any = {"tree": True, "ah": True, "soar": True, "hash_type": hash_type}
    searcher = projected(staged(swann.builder(DB, K, measure), **stages), kind).build()
    reduced = twin(searcher, measure, **stages)
    new = correlated(8, 100)
    for some in (new[:97], new[97:98], new[98:]):  # few are encoded in another way than many
        reduced.upsert(None, searcher._index.reduce(as_indexed(some, measure)))
        searcher.upsert(None, some)
    queries = searcher._index.reduce(as_indexed(QUERIES, measure))
    found, wanted = search_all(searcher, QUERIES, 50), reduced.search_batched(queries, 50)
    assert (found.indices >= N).any()
    # Natively, rows are normalised with other roundings.
    same = (found.indices == wanted.indices).mean()
    assert same == 1.0 if measure != "cosine" else same > 0.95
    ours, theirs = searcher._live.vectors(np.arange(N, N + 9)), as_indexed(new[:9], measure)
    if kind == "pca":
        assert np.linalg.norm(ours - theirs) < np.linalg.norm(theirs)
    else:
        assert not ours[:, R:].any()


@each_kind
@each_measure
@pytest.mark.parametrize("ah", [True, False])
def test_health_shape_and_rebalance(kind: str, measure: Any, ah: bool) -> None:
    builder = staged(swann.builder(DB, K, measure), tree=True, ah=ah, reorder="FLOAT32")
    searcher = projected(builder, kind).build()
    searcher.initialize_health_stats()
    stats = searcher.get_health_stats()
    rows = searcher._index.reduce(as_indexed(DB, measure))
    squares = ((rows[:, None] - searcher._index.centroids) ** 2).sum(axis=2).min(axis=1)
    error = float(np.sqrt(squares.mean()))
    assert stats["avg_quantization_error"] == pytest.approx(error, rel=1e-3)
    new = np.concatenate([correlated(9, 900), DB[:1] + 0.01 * correlated(10, 500)])
    searcher.upsert(None, new)
    assert searcher._live.keep_shape(1)
    assert searcher._index.centroids.shape[1] == R
    everything: Any = {"pre_reorder_num_neighbors": 2000, "leaves_to_search": 2000}
    every = np.concatenate([DB, new])
    wanted = swann.builder(every, K, measure).score_brute_force().build()
    for _ in range(2):
        found = search_all(searcher, QUERIES, **everything)
        np.testing.assert_array_equal(found.indices, wanted.search_batched(QUERIES, 5).indices)
        searcher.rebalance()
    assert searcher._index.reduced_dim == R


# ---- What is refused


def test_bad_settings() -> None:
    def builder() -> Builder:
        return swann.builder(DB, K, "dot_product")

    for bad in (0, -1, 2.5, "x", True):
        for kind in ("pca", "truncate"):
            with pytest.raises(ConfigError, match="reduction_dim is"):
                projected(builder(), kind, bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="reduction_dim is 13; expected at most 12"):
        builder().pca(D + 1)
    with pytest.raises(ConfigError, match="reduction_dim is 12; expected less than 12"):
        builder().truncate(D)
    for first, second in itertools.product(("pca", "truncate"), repeat=2):
        message = "already called" if first == second else "contradict"
        with pytest.raises(ConfigError, match=message):
            projected(projected(builder(), first), second)
    message = "dimensions_per_block is 6, but the projection leaves only 5 dimensions"
    for kind in ("pca", "truncate"):
        with pytest.raises(ConfigError, match=message):
            projected(builder(), kind).score_ah(6)
        with pytest.raises(ConfigError, match=message):
            projected(builder().score_ah(6), kind)
    config = projected(builder().score_ah(2), "pca").create_config()
    with pytest.raises(ConfigError, match="reduction_dim is 5; expected at most 4"):
        build_index(DB[:, :4], config)
    wide = dataclasses.replace(config, score=swann.AHConfig(dimensions_per_block=6))
    with pytest.raises(ConfigError, match=message):
        build_index(DB, wide)


@each_kind
def test_damaged_projections_are_refused(kind: str, tmp_path: Path) -> None:
    builder = staged(swann.builder(DB, K, "dot_product"), tree=True, ah=True)
    projected(builder, kind).build().serialize(tmp_path)
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    assert content["features"] == ["projected"]

    def refused(**changes: Any) -> None:
        changed = copy.deepcopy(content) | changes
        changed["digest"] = digest_of_json(changed)
        path.write_text(json.dumps(changed))
        with pytest.raises(CorruptIndexError):
            swann.load_searcher(tmp_path)

    def config(**settings: Any) -> dict[str, Any]:
        return content["config"] | {"projection": {"kind": kind} | settings}

    refused(config=content["config"] | {"projection": None})
    refused(config=config(reduction_dim=R + 1))
    refused(config=config(reduction_dim=D + 1))
    if kind == "truncate":
        refused(config=content["config"] | {"projection": {"kind": "pca", "reduction_dim": R}})
        return
    arrays = content["arrays"]
    refused(arrays={name: entry for name, entry in arrays.items() if name != "projection"})
    for shape in ([R - 1, D], [R, D - 1], [D, R], [], [0, D], ["5", D], [True, D], None):
        refused(arrays=arrays | {"projection": arrays["projection"] | {"shape": shape}})
    refused(arrays=arrays | {"projection": 5})
    refused(config=content["config"] | {"tree": None, "score": {"type": "brute_force"}})

"""Product quantization: codes, codebook updates and training, under both losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import normal
from numpy.typing import NDArray

from swann import kernels
from swann.kernels import GROUP, LANES, Tiles, reference
from swann.quantize.codebook import train_codebook

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

some = settings(max_examples=40)
each_size = pytest.mark.parametrize("words", [16, 256])
both_losses = pytest.mark.parametrize("anisotropic", [False, True], ids=["l2", "anisotropic"])
# Dimensions and block widths: even, short last block, one block, blocks of one.
SHAPES = [(12, 2), (13, 2), (10, 4), (6, 6), (5, 1), (1, 1)]
each_shape = pytest.mark.parametrize(("dimension", "width"), SHAPES)


def make(
    seed: int, count: int, dimension: int, anisotropic: bool, *, scaled: bool = False
) -> tuple[Tiles, F32, F32]:
    """Tiles of residuals to a few centroids; the rows; the residuals."""
    rows, centroids = normal(seed, count, dimension), normal(seed + 1, 3, dimension) / 2
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.uint32)
    weights = rng.uniform(0, 8, count).astype(np.float32) if anisotropic else None
    scales = rng.choice([0.0, 0.1, 1.0, 3.0], count).astype(np.float32) if scaled else None
    tiles = kernels.make_tiles(rows, centroids, labels, weights, 2, scales)
    return tiles, rows, rows - centroids[labels]


def flat(array: F32) -> F64:
    """(tiles, d, 16) as (datapoints, d)."""
    return array.transpose(0, 2, 1).reshape(-1, array.shape[1]).astype(np.float64)


def errors(tiles: Tiles, codes: U8, codebook: F32, width: int) -> F64:
    """What quantization changes, shape (datapoints, d)."""
    dimension = len(codebook)
    by_dimension = flat(codes)[:, np.arange(dimension) // width].astype(int)
    return flat(tiles.targets) - codebook[np.arange(dimension), by_dimension]


def loss_of(tiles: Tiles, codes: U8, codebook: F32, width: int) -> float:
    """The mean loss, by its definition."""
    error = errors(tiles, codes, codebook, width)
    loss = (error**2).sum(axis=1)
    if tiles.directions is not None and tiles.weights is not None:
        loss += tiles.weights.ravel() * (error * flat(tiles.directions)).sum(axis=1) ** 2
    return float((loss * counts(tiles)).mean())


def counts(tiles: Tiles) -> F64:
    """How much each datapoint counts."""
    if tiles.scales is None:
        return np.ones(len(tiles.targets) * LANES)
    return tiles.scales.ravel().astype(np.float64)


def least_loss(tiles: Tiles, codes: U8, dimension: int, width: int) -> float:
    """The least mean loss of any codebook for these codes: one least-squares problem in all
    codewords of all blocks."""
    targets = flat(tiles.targets)
    n = len(targets)
    words = int(codes.max()) + 1
    used = np.zeros((n, dimension, dimension, words))
    by_dimension = flat(codes)[:, np.arange(dimension) // width].astype(int)
    every = np.arange(dimension)
    used[np.arange(n)[:, None], every, every, by_dimension] = 1
    used = used.reshape(n, dimension, -1)
    if tiles.directions is not None and tiles.weights is not None:
        u = flat(tiles.directions)
        root = np.sqrt(tiles.weights.ravel().astype(np.float64))[:, None]
        used = np.concatenate([used, ((root * u)[:, None] @ used)], axis=1)
        targets = np.concatenate([targets, root * (u * targets).sum(axis=1, keepdims=True)], axis=1)
    scale = np.sqrt(counts(tiles))[:, None]
    used, targets = used * scale[:, :, None], targets * scale
    matrix, right = used.reshape(-1, used.shape[2]), targets.ravel()
    solution = np.linalg.lstsq(matrix, right, rcond=None)[0]
    return float(((right - matrix @ solution) ** 2).sum() / n)


# ---- Tiles


@both_losses
def test_tiles_hold_residuals_and_directions(anisotropic: bool) -> None:
    tiles, rows, residuals = make(0, 48, 7, anisotropic)
    np.testing.assert_array_equal(flat(tiles.targets), residuals)
    assert (tiles.directions is not None) == anisotropic
    if tiles.directions is not None:
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(flat(tiles.directions), units, rtol=1e-6, atol=1e-7)


def test_a_zero_row_has_no_direction() -> None:
    rows = np.zeros((16, 3), np.float32)
    tiles = kernels.make_tiles(rows, None, None, np.ones(16, np.float32), 1)
    assert tiles.directions is not None
    assert not tiles.directions.any()


# ---- Codes


@both_losses
@each_shape
@each_size
def test_codes_are_those_of_the_twin(
    words: int, dimension: int, width: int, anisotropic: bool
) -> None:
    tiles, _, _ = make(dimension, 320, dimension, anisotropic)
    codebook = normal(9, dimension, words)
    codes, losses = kernels.encode_tiles(tiles, codebook, width, 4, 2)
    same = 0
    for t, target in enumerate(tiles.targets):
        direction = None if tiles.directions is None else tiles.directions[t]
        weight = np.zeros(LANES, np.float32) if tiles.weights is None else tiles.weights[t]
        twin, loss = reference.encode_tile(target, direction, weight, codebook, width, 4)
        same += int((codes[t] == twin).all(axis=0).sum())
        np.testing.assert_allclose(losses[t].mean(), loss.mean(), rtol=1e-2)
    assert same >= 0.98 * 320  # near ties may fall otherwise
    np.testing.assert_allclose(
        losses.mean(), loss_of(tiles, codes, codebook, width), rtol=1e-5, atol=1e-6
    )


@each_shape
def test_more_sweeps_never_worsen_a_datapoint(dimension: int, width: int) -> None:
    tiles, _, _ = make(1, 160, dimension, True)
    codebook = normal(2, dimension, LANES)
    before = np.full((10, LANES), np.inf)
    for sweeps in range(1, 6):
        _, losses = kernels.encode_tiles(tiles, codebook, width, sweeps, 1)
        assert (losses <= before * (1 + 1e-5) + 1e-6).all()
        before = losses
    plain, _ = kernels.encode_tiles(
        tiles._replace(directions=None, weights=None), codebook, width, 0, 1
    )
    assert before.mean() <= loss_of(tiles, plain, codebook, width) * (1 + 1e-6)


def test_the_descent_is_worth_it() -> None:
    """Or the tests above could pass with a descent that does nothing."""
    tiles, _, _ = make(1, 160, 12, True)
    codebook = normal(2, 12, LANES)
    _, none = kernels.encode_tiles(tiles, codebook, 2, 0, 1)
    _, four = kernels.encode_tiles(tiles, codebook, 2, 4, 1)
    assert four.mean() < 0.9 * none.mean()


def test_prices_spare_the_descent_most_of_its_way() -> None:
    """From the nearest codewords the first blocks would bear all of the error along datapoints."""
    tiles, _, _ = make(1, 640, 400, True)
    assert tiles.weights is not None
    tiles = tiles._replace(weights=np.full_like(tiles.weights, 60.0))
    plain = tiles._replace(directions=None, weights=None)
    codebook = train_codebook(plain, 2, rng=np.random.default_rng(0))
    codes, _ = kernels.encode_tiles(plain, codebook, 2, 0, 1)
    _, descended = kernels.encode_tiles(tiles, codebook, 2, 4, 1, codes)
    _, priced = kernels.encode_tiles(tiles, codebook, 2, 2, 1)
    assert priced.mean() < 0.9 * descended.mean()


@pytest.mark.parametrize(("words", "dimension", "width"), [(256, 16, 2), (16, 4, 1), (16, 8, 4)])
def test_prices_never_begin_worse_than_the_nearest_codewords(
    words: int, dimension: int, width: int
) -> None:
    """With few blocks, or fine ones, what a price changes is no small step."""
    rows = normal(7, 4096, dimension)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    weights = np.full(len(rows), 16.0, np.float32)
    tiles = kernels.make_tiles(rows, None, None, weights, 1)
    plain = tiles._replace(directions=None, weights=None)
    codebook, _ = train(tiles, width, words=words)
    codes, _ = kernels.encode_tiles(plain, codebook, width, 0, 1)
    _, descended = kernels.encode_tiles(tiles, codebook, width, 4, 1, codes)
    _, priced = kernels.encode_tiles(tiles, codebook, width, 2, 1)
    assert priced.mean() <= descended.mean()


def test_codes_are_nearly_the_best_there_are() -> None:
    tiles, _, _ = make(1, 160, 6, True)
    codebook = normal(2, 6, LANES)
    _, found = kernels.encode_tiles(tiles, codebook, 2, 2, 1)
    every = np.stack(np.meshgrid(*[np.arange(LANES)] * 3, indexing="ij"), -1).reshape(-1, 3)
    words = codebook.reshape(3, 2, LANES)[np.arange(3)[:, None], :, every.T]
    decoded = words.transpose(1, 0, 2).reshape(-1, 6)
    errors = flat(tiles.targets)[:, None] - decoded
    along = np.einsum("nkd,nd->nk", errors, flat(tiles.directions))
    assert tiles.weights is not None
    losses = (errors**2).sum(-1) + tiles.weights.reshape(-1, 1) * along**2
    best = losses.min(axis=1)
    assert (found.ravel() >= best * (1 - 1e-4) - 1e-6).all()
    assert found.mean() < 1.02 * best.mean()


@some
@given(words=st.sampled_from([16, 256]), seed=st.integers(0, 2**32 - 1), sweeps=st.integers(0, 3))
def test_a_warm_start_never_ends_worse_than_it_began(words: int, seed: int, sweeps: int) -> None:
    tiles, _, _ = make(seed % 1000, 32, 9, True)
    codebook = normal(seed % 77, 9, words)
    codes = np.random.default_rng(seed).integers(0, words, (2, 5, LANES), np.uint8)
    before = loss_of(tiles, codes, codebook, 2)
    same, losses = kernels.encode_tiles(tiles, codebook, 2, sweeps, 1, codes)
    assert same is codes
    assert losses.mean() <= before * (1 + 1e-5)
    np.testing.assert_allclose(losses.mean(), loss_of(tiles, codes, codebook, 2), rtol=1e-5)


# ---- Where training starts


def spread(targets: F32, width: int, first: Any, draws: F64) -> F32:
    """k-means++ by its definition."""
    points = targets.transpose(0, 2, 1).reshape(-1, targets.shape[1])
    chosen = np.empty((points.shape[1], len(draws) + 1), np.float32)
    for block in range(len(first)):
        span = slice(block * width, (block + 1) * width)
        nearest = np.full(len(points), np.inf)
        at = int(first[block])
        for k in range(len(draws) + 1):
            if k:
                sums = np.cumsum(nearest)
                share = draws[k - 1, block] * sums[-1]
                at = min(int(np.searchsorted(sums, share, side="right")), len(points) - 1)
            chosen[span, k] = points[at, span]
            squares = (points[:, span] - points[at, span]) ** 2
            nearest = np.minimum(nearest, squares.sum(axis=1, dtype=np.float64))
    return chosen


@some
@given(
    shape=st.sampled_from(SHAPES),
    words=st.sampled_from([16, 256]),
    distinct=st.sampled_from([1, 3, 40]),
    seed=st.integers(0, 1000),
)
def test_codebooks_start_by_k_means_plus_plus(
    shape: tuple[int, int], words: int, distinct: int, seed: int
) -> None:
    """Also where there are fewer datapoints than codewords."""
    dimension, width = shape
    rng = np.random.default_rng(seed)
    rows = normal(seed, distinct, dimension)[rng.integers(0, distinct, 96)]
    targets = kernels.make_tiles(rows, None, None, None, 1).targets
    first = rng.integers(0, 96, -(-dimension // width)).astype(np.uint32)
    draws = rng.random((words - 1, len(first)))
    want = spread(targets, width, first, draws)
    for threads in (1, 3):
        got = kernels.start_codebook(targets, width, first, draws, threads)
        np.testing.assert_array_equal(got, want)


# ---- Codebook updates


@both_losses
@pytest.mark.parametrize(
    ("dimension", "width", "words"), [*((*shape, 16) for shape in SHAPES), (5, 2, 256)]
)
def test_updates_never_raise_the_loss_and_end_at_its_least(
    dimension: int, width: int, words: int, anisotropic: bool
) -> None:
    """For fixed codes the problem is convex: block after block leads to the joint optimum."""
    tiles, _, _ = make(3, 96, dimension, anisotropic)
    codebook = normal(4, dimension, words)
    codes, _ = kernels.encode_tiles(tiles, codebook, width, 2, 1)
    losses = [loss_of(tiles, codes, codebook, width)]
    for _ in range(300 if anisotropic else 1):
        kernels.update_codebook(tiles, codes, width, codebook, 2)
        losses.append(loss_of(tiles, codes, codebook, width))
    assert (np.diff(losses) <= 1e-6 * losses[0]).all()
    best = least_loss(tiles, codes, dimension, width)
    assert losses[-1] == pytest.approx(best, rel=1e-3, abs=1e-6)
    if width == dimension:  # a single block has its optimum at once
        assert losses[1] == pytest.approx(best, rel=1e-5, abs=1e-9)


@both_losses
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("dimension", "width", "words"), [*((*shape, 16) for shape in SHAPES), (5, 2, 256)]
)
def test_the_joint_update_is_the_solution_of_the_joint_system(
    dimension: int, width: int, words: int, scaled: bool, anisotropic: bool
) -> None:
    tiles, _, _ = make(3, 96, dimension, anisotropic, scaled=scaled)
    codebook = normal(4, dimension, words)
    codes, _ = kernels.encode_tiles(tiles, codebook, width, 2, 1)
    other = codebook.copy()
    kernels.update_codebook(tiles, codes, width, codebook, 1, joint=True)
    kernels.update_codebook(tiles, codes, width, other, 3, joint=True)
    assert codebook.tobytes() == other.tobytes()
    best = least_loss(tiles, codes, dimension, width)
    assert loss_of(tiles, codes, codebook, width) == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_one_joint_update_does_what_many_of_blocks_do() -> None:
    """With errors along datapoints so dear that blocks depend on each other."""
    tiles, _, _ = make(6, 1600, 16, True)
    assert tiles.weights is not None
    tiles = tiles._replace(weights=10 * tiles.weights)
    codebook = normal(7, 16, 16)
    codes, _ = kernels.encode_tiles(tiles, codebook, 2, 2, 1)
    once, often = codebook.copy(), codebook.copy()
    kernels.update_codebook(tiles, codes, 2, codebook, 1, joint=True)
    kernels.update_codebook(tiles, codes, 2, once, 1)
    for _ in range(200):
        kernels.update_codebook(tiles, codes, 2, often, 1)
    joint = loss_of(tiles, codes, codebook, 2)
    assert joint == pytest.approx(loss_of(tiles, codes, often, 2), rel=1e-5)
    assert joint < 0.98 * loss_of(tiles, codes, once, 2)


@both_losses
@each_size
def test_datapoints_that_count_twice_are_as_good_as_two(words: int, anisotropic: bool) -> None:
    tiles, _, _ = make(8, 64, 6, anisotropic)
    scales = np.repeat(np.array([2, 0], np.float32), 32).reshape(4, LANES)
    codebook = normal(9, 6, words)
    codes, _ = kernels.encode_tiles(tiles, codebook, 2, 2, 1)
    half = Tiles(*(None if part is None else part[:2] for part in tiles))  # type: ignore[arg-type]
    for joint in (False, True):
        mine, twice = codebook.copy(), codebook.copy()
        kernels.update_codebook(tiles._replace(scales=scales), codes, 2, mine, 1, joint)
        kernels.update_codebook(half, codes[:2], 2, twice, 1, joint)
        np.testing.assert_allclose(mine, twice, rtol=1e-4, atol=1e-5)
        assert (mine != codebook).any()


@both_losses
@each_size
def test_the_block_updated_last_cannot_be_better(words: int, anisotropic: bool) -> None:
    """Any step away from its codewords costs: it is the optimum given the others."""
    dimension, width = 11, 3
    tiles, _, _ = make(5, 160, dimension, anisotropic)
    codebook = normal(6, dimension, words)
    codes, _ = kernels.encode_tiles(tiles, codebook, width, 2, 1)
    kernels.update_codebook(tiles, codes, width, codebook, 1)
    reached = loss_of(tiles, codes, codebook, width)
    for j in range(9, 11):  # the last block is short
        for k in range(0, words, words // 16):
            for step in (0.01, -0.01):
                moved = codebook.copy()
                moved[j, k] += np.float32(step)
                cost = loss_of(tiles, codes, moved, width) - reached
                used = int((flat(codes)[:, 3] == k).sum())
                assert cost >= 0.5 * used / 160 * 0.01**2


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sums_by_sixteens_are_those_one_by_one(width: int) -> None:
    """Where datapoints have scales, blocks are summed one by one: as well where all are 1."""
    tiles, _, _ = make(5, 800, 37, True)
    assert tiles.weights is not None
    tiles = tiles._replace(weights=10 * tiles.weights)  # so that blocks depend on each other
    codebook = normal(6, 37, 16)
    codes, _ = kernels.encode_tiles(tiles, codebook, width, 2, 1)
    one_by_one = codebook.copy()
    kernels.update_codebook(tiles, codes, width, codebook, 2)
    scaled = tiles._replace(scales=np.ones_like(tiles.weights))
    kernels.update_codebook(scaled, codes, width, one_by_one, 2)
    np.testing.assert_allclose(codebook, one_by_one, rtol=1e-4, atol=1e-4)


@each_size
def test_plain_codewords_become_means(words: int) -> None:
    tiles, _, residuals = make(7, 160, 7, False)
    codebook = normal(8, 7, words)
    codes, _ = kernels.encode_tiles(tiles, codebook, 3, 0, 1)
    start = codebook.copy()
    kernels.update_codebook(tiles, codes, 3, codebook, 1)
    assigned = flat(codes).astype(int)
    for j in range(7):
        for k in range(words):
            members = residuals[assigned[:, j // 3] == k, j]
            expected = members.mean(dtype=np.float64) if len(members) else start[j, k]
            assert codebook[j, k] == pytest.approx(expected, rel=1e-5, abs=1e-6)


@both_losses
@each_size
def test_codewords_of_nobody_stay(words: int, anisotropic: bool) -> None:
    tiles, _, _ = make(9, 32, 6, anisotropic)
    start = normal(1, 6, words)
    taken = [1, 4, words - 7]
    codes = np.random.default_rng(0).choice(np.array(taken, np.uint8), (2, 3, LANES))
    for joint in (False, True):
        codebook = start.copy()
        kernels.update_codebook(tiles, codes, 2, codebook, 1, joint)
        unused = np.setdiff1d(np.arange(words), taken)
        np.testing.assert_array_equal(codebook[:, unused], start[:, unused])
        assert (codebook[:, taken] != start[:, taken]).all()


def test_wide_blocks_of_many_codewords() -> None:
    """Their equations are summed in fewer parts, for the memory, and still alike on any threads."""
    tiles, _, _ = make(2, 512, 180, True)
    codebook = normal(3, 180, 256)
    codes, _ = kernels.encode_tiles(tiles, codebook, 180, 2, 1)
    other, before = codebook.copy(), loss_of(tiles, codes, codebook, 180)
    kernels.update_codebook(tiles, codes, 180, codebook, 1)
    kernels.update_codebook(tiles, codes, 180, other, 3)
    assert codebook.tobytes() == other.tobytes()
    assert loss_of(tiles, codes, codebook, 180) < before


# ---- Training


def train(
    tiles: Tiles, width: int, seed: int = 0, words: int = 16, **options: Any
) -> tuple[F32, list[float]]:
    losses: list[float] = []

    def on_iteration(number: int, loss: float) -> None:
        assert number == len(losses)
        losses.append(loss)

    codebook = train_codebook(
        tiles,
        width,
        codewords=words,
        rng=np.random.default_rng(seed),
        on_iteration=on_iteration,
        **options,
    )
    assert codebook.shape == (tiles.targets.shape[1], words)
    assert codebook.dtype == np.float32
    assert np.isfinite(codebook).all()
    return codebook, losses


@both_losses
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(("seed", "words"), [(0, 16), (1, 16), (2, 16), (3, 16), (0, 256)])
@each_shape
def test_the_loss_never_rises_within_a_stage(
    dimension: int, width: int, anisotropic: bool, seed: int, words: int, joint: bool
) -> None:
    tiles, _, _ = make(seed, 480, dimension, anisotropic)
    _, losses = train(tiles, width, seed, words, iterations=12, joint=joint)
    plain = Tiles(tiles.targets, None, None)
    _, first = train(plain, width, seed, words, iterations=12)
    assert losses[: len(first)] == first
    second = losses[len(first) :]
    assert bool(second) == anisotropic
    for stage in (first, second):
        assert (np.diff(stage) <= 1e-5 * max(losses)).all()
    assert max(len(first), len(second)) <= 12


@each_size
def test_the_anisotropic_stage_lowers_the_anisotropic_loss(words: int) -> None:
    tiles, _, _ = make(1, 1600, 16, True)
    plain, _ = train(Tiles(tiles.targets, None, None), 2, words=words)
    tuned, _ = train(tiles, 2, words=words)
    _, before = kernels.encode_tiles(tiles, plain, 2, 4, 1)
    _, after = kernels.encode_tiles(tiles, tuned, 2, 4, 1)
    assert after.mean() < 0.99 * before.mean()


@both_losses
@each_shape
@each_size
def test_threads_do_not_matter(words: int, dimension: int, width: int, anisotropic: bool) -> None:
    tiles, _, _ = make(2, 320, dimension, anisotropic)
    one, *others = (train(tiles, width, words=words, threads=threads) for threads in (1, 2, 3))
    for other in others:
        assert one[0].tobytes() == other[0].tobytes()
        assert one[1] == other[1]
    if dimension > 1:
        assert one[0].tobytes() != train(tiles, width, seed=1, words=words)[0].tobytes()


def test_more_codewords_lower_the_loss() -> None:
    tiles, _, _ = make(1, 4000, 12, True)
    _, few = train(tiles, 2)
    _, many = train(tiles, 2, words=256)
    assert many[-1] < 0.15 * few[-1]  # 16 times as many in two dimensions: about a sixteenth


@each_size
def test_as_many_distinct_values_as_codewords_are_met_exactly(words: int) -> None:
    """Each block sees that many vectors; a k-means++ start takes each of them once."""
    vectors = normal(0, words, 6)
    tiles = kernels.make_tiles(np.tile(vectors, (10, 1)), None, None, None, 1)
    _, losses = train(tiles, 3, words=words)
    assert losses[-1] == pytest.approx(0, abs=1e-10)


@both_losses
@each_size
@pytest.mark.parametrize("value", [0.0, 1.0, -1e15, 1e-15])
def test_identical_datapoints(value: float, words: int, anisotropic: bool) -> None:
    rows = np.full((32, 5), value, np.float32)
    weights = np.full(32, 4, np.float32) if anisotropic else None
    codebook, losses = train(kernels.make_tiles(rows, None, None, weights, 1), 2, words=words)
    assert losses[-1] <= 1e-10 * value**2
    np.testing.assert_allclose(codebook[:, 0], rows[0], rtol=1e-5)


# ---- Packing


@both_losses
@pytest.mark.parametrize("corrected", [False, True])
@each_shape
@each_size
def test_packed_codes_are_those_of_the_twin(
    words: int, dimension: int, width: int, corrected: bool, anisotropic: bool
) -> None:
    sizes = [33, 0, 64, 1, 30]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint32)
    rows, centroids = normal(0, starts[-1], dimension), normal(1, len(sizes), dimension)
    rng = np.random.default_rng(0)
    weights = rng.uniform(0, 8, len(rows)).astype(np.float32) if anisotropic else None
    codebook = normal(2, dimension, words)
    blocks = kernels.num_blocks(dimension, width)
    groups = sum(-(-size // GROUP) for size in sizes)
    codes = np.zeros((groups, blocks, kernels.block_bytes(words)), np.uint8)
    corrections = np.full(groups * GROUP, np.nan, np.float32) if corrected else None
    center = normal(3, dimension) if corrected and anisotropic else None
    counted = centroids.astype(np.float64) - (0 if center is None else center)
    leaves = np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)
    first_groups = np.concatenate([[0], np.cumsum([-(-size // GROUP) for size in sizes])])
    places = (first_groups[leaves] * GROUP + np.arange(len(rows)) - starts[leaves]).astype("u8")
    order = rng.permutation(len(rows))  # they come in any order, and in parts
    for part in (order[:50], order[50:51], order[51:]):
        kernels.pack_codes(
            rows[part],
            None if weights is None else weights[part],
            centroids,
            leaves[part],
            places[part],
            codebook,
            width,
            4,
            codes,
            corrections,
            2,
            center=center,
        )
    unpacked = reference.unpack_codes(codes)
    group, same = 0, 0
    for leaf, size in enumerate(sizes):
        found = unpacked[group : group + -(-size // GROUP)].reshape(-1, blocks)[:size]
        members = rows[starts[leaf] : starts[leaf + 1]]
        for i, (row, code) in enumerate(zip(members, found, strict=True)):
            target = np.repeat((row - centroids[leaf])[:, None], LANES, axis=1)
            unit = np.repeat((row / np.linalg.norm(row))[:, None], LANES, axis=1)
            weight = np.zeros(LANES, np.float32)
            if weights is not None:
                weight += weights[starts[leaf] + i]
            twin, _ = reference.encode_tile(
                target, unit.astype(np.float32) if anisotropic else None, weight, codebook, width, 4
            )
            same += int((twin[:, 0] == code).all())
            if corrections is not None:
                decoded = codebook[np.arange(dimension), code[np.arange(dimension) // width]]
                exact = -2 * (counted[leaf] * decoded).sum()
                stored = corrections[group * GROUP + i]
                assert stored == pytest.approx(exact, rel=1e-6, abs=1e-6)
        group += -(-size // GROUP)
    assert same >= 0.97 * len(rows)

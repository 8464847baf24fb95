"""k-means: assignment, means, and what training promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import normal
from numpy.typing import NDArray

from swann import kernels
from swann.partition import kmeans
from swann.partition.kmeans import train_centroids

F32 = NDArray[np.float32]
some = settings(max_examples=40)


def blobs(seed: int, n: int = 1500, d: int = 12, centers: int = 20, noise: float = 0.05) -> F32:
    """Well separated clusters: no datapoint is near a border between two."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((centers, d)) * 3
    points = middles[rng.integers(centers, size=n)] + noise * rng.standard_normal((n, d))
    return points.astype(np.float32)


def train(sample: F32, k: int, seed: int = 0, **options: object) -> tuple[F32, list[float]]:
    losses: list[float] = []

    def on_iteration(number: int, loss: float) -> None:
        assert number == len(losses)
        losses.append(loss)

    centroids = train_centroids(
        sample,
        k,
        rng=np.random.default_rng(seed),
        on_iteration=on_iteration,
        **options,  # type: ignore[arg-type]
    )
    assert centroids.shape == (k, sample.shape[1])
    assert centroids.dtype == np.float32
    assert np.isfinite(centroids).all()
    return centroids, losses


def squared_distances(sample: F32, centroids: F32) -> NDArray[np.float64]:
    difference = sample.astype(np.float64)[:, None] - centroids.astype(np.float64)
    return np.asarray((difference**2).sum(axis=2))


# ---- The loops


@pytest.mark.parametrize(("leaves", "width"), [(1, 1), (40, 7), (40, 40), (700, 96)])
def test_assign_near_chooses_among_the_nearest_of_the_origin(leaves: int, width: int) -> None:
    rng = np.random.default_rng(leaves)
    # Small integers: distances are exact, with ties, which go to the lowest number.
    rows, origins, centroids = (
        rng.integers(-9, 10, (n, 5)).astype(np.float32) for n in (1000, leaves, leaves)
    )
    before = rng.integers(0, leaves, len(rows)).astype(np.uint32)
    order, starts = kernels.sort_by_leaf(before, leaves)
    labels, scores = kernels.assign_near(rows, origins, centroids, width, order, starts, 1)
    # |x - c|^2 less |x|^2, and where that ties by number: as one integer.
    key = (centroids**2).sum(axis=1) - 2 * origins @ centroids.T
    near = np.argsort(key * 1000 + np.arange(leaves), axis=1)[:, :width]
    allowed = np.sort(near, axis=1)[before]
    reached = (rows[:, None, :] * centroids[allowed]).sum(axis=2)
    reached -= (centroids**2).sum(axis=1)[allowed] / 2
    place = reached.argmax(axis=1)[:, None]
    np.testing.assert_array_equal(labels, np.take_along_axis(allowed, place, axis=1)[:, 0])
    np.testing.assert_array_equal(scores, np.take_along_axis(reached, place, axis=1)[:, 0])
    again = kernels.assign_near(rows, origins, centroids, width, order, starts, 3)
    np.testing.assert_array_equal(again[0], labels)
    if width == leaves:
        np.testing.assert_array_equal(labels, kernels.assign_leaves(rows, centroids, 1)[0])


def test_near_centroids_lose_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is compared with few centroids; that hardly shows in what is reached."""
    sample = normal(3, 6000, 8)
    _, losses = train(sample, 400)
    monkeypatch.setattr(kmeans, "NEAR", 400)
    _, everywhere = train(sample, 400)
    assert everywhere[-1] < losses[0] * 0.8
    assert losses[-1] < everywhere[-1] * 1.005


@pytest.mark.parametrize("shape", [(1, 1, 1), (63, 5, 3), (64, 16, 17), (130, 33, 8), (70, 1, 100)])
def test_assignment_is_to_the_nearest(shape: tuple[int, int, int]) -> None:
    n, k, d = shape
    sample, centroids = normal(n, n, d), normal(k + 1, k, d)
    labels, scores = kernels.assign_leaves(sample, centroids, 2)
    distances = squared_distances(sample, centroids)
    np.testing.assert_allclose(distances[np.arange(n), labels], distances.min(axis=1), rtol=1e-5)
    squares = (sample.astype(np.float64) ** 2).sum(axis=1)
    np.testing.assert_allclose(squares - 2 * scores, distances.min(axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [3, 16, 40, 1024, 1030, 2500])
def test_ties_go_to_the_lowest_centroid(k: int) -> None:
    """Exact arithmetic, few distinct centroids; more of them than are scored at once."""
    rng = np.random.default_rng(k)
    sample = rng.integers(-2, 3, (80, 3)).astype(np.float32)
    centroids = rng.integers(-2, 3, (k, 3)).astype(np.float32)
    labels, _ = kernels.assign_leaves(sample, centroids, 1)
    expected = squared_distances(sample, centroids).argmin(axis=1)
    np.testing.assert_array_equal(labels, expected)
    # The best stands in the first place of a later run of centroids, and again behind it.
    far = np.full((k, 3), 9, np.float32)
    far[[k - 2, k - 1]] = sample[0]
    labels, _ = kernels.assign_leaves(sample[:1], far, 1)
    assert labels.tolist() == [k - 2]


@some
@given(st.lists(st.integers(0, 9), min_size=1, max_size=200))
def test_sorting_is_stable_and_leaves_may_be_empty(given_labels: list[int]) -> None:
    labels = np.array(given_labels, np.uint32)
    order, starts = kernels.sort_by_leaf(labels, 10)
    np.testing.assert_array_equal(order, np.argsort(labels, kind="stable"))
    np.testing.assert_array_equal(np.diff(starts), np.bincount(labels, minlength=10))
    assert starts[0] == 0


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_means(threads: int) -> None:
    sample = normal(0, 300, 7) + np.float32(1000)  # far from zero: float32 sums would lose digits
    labels = np.random.default_rng(1).integers(0, 6, 300).astype(np.uint32)
    labels[labels == 4] = 2  # an empty leaf
    order, starts = kernels.sort_by_leaf(labels, 6)
    means = kernels.leaf_means(sample, order, starts, threads)
    for leaf in range(6):
        members = sample[labels == leaf].astype(np.float64)
        expected = members.mean(axis=0) if len(members) else np.zeros(7)
        np.testing.assert_allclose(means[leaf], expected, rtol=1e-7)


# ---- Training


@some
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 300),
    k=st.integers(1, 40),
    d=st.integers(1, 10),
    random_init=st.booleans(),
    grid=st.booleans(),
)
def test_the_loss_never_rises_where_no_cluster_is_dissolved(
    seed: int, n: int, k: int, d: int, random_init: bool, grid: bool
) -> None:
    """Nor where centroids of nothing move: that costs nobody anything."""
    k = min(n, k)
    sample = normal(seed, n, d)
    if grid:  # many ties, many empty clusters
        sample = np.rint(sample)
    _, losses = train(sample, k, seed, iterations=20, min_partition_size=0, random_init=random_init)
    scale = float((sample.astype(np.float64) ** 2).sum(axis=1).mean())
    assert (np.diff(losses) <= 1e-6 * scale).all()
    assert losses[-1] >= -1e-6 * scale


def test_a_round_is_that_of_lloyd() -> None:
    """Against Lloyd's k-means in plain NumPy from the same start."""
    sample = normal(5, 800, 6)
    _, losses = train(sample, 10, iterations=6, min_partition_size=0)
    start = np.sort(np.random.default_rng(0).choice(800, 10, replace=False))
    centroids = sample[start].astype(np.float64)
    for loss in losses:
        distances = ((sample[:, None] - centroids) ** 2).sum(axis=2)
        np.testing.assert_allclose(loss, distances.min(axis=1).mean(), rtol=1e-4)
        labels = distances.argmin(axis=1)
        centroids = np.array([sample[labels == k].mean(axis=0) for k in range(10)])
    assert len(losses) == 6


def test_centroids_end_as_the_means_of_their_clusters() -> None:
    sample = blobs(3)
    centroids, losses = train(sample, 20, iterations=50, random_init=False)
    labels, _ = kernels.assign_leaves(sample, centroids, 1)
    for leaf in range(20):
        members = sample[labels == leaf].astype(np.float64)
        np.testing.assert_allclose(centroids[leaf], members.mean(axis=0), rtol=1e-4, atol=1e-4)
    assert len(losses) < 50  # it stopped when nothing moved


def test_the_first_half_sees_a_part_and_the_end_is_as_good() -> None:
    sample = normal(4, 20000, 6)
    sample[::2] += 3
    start = np.sort(np.random.default_rng(0).choice(20000, 20, replace=False))
    centroids, losses = train(sample, 20, at_first=6400)
    some = squared_distances(sample[:6400], sample[start])
    np.testing.assert_allclose(losses[0], some.min(axis=1).mean(), rtol=1e-4)
    ends = squared_distances(sample, centroids).min(axis=1).mean()
    assert ends <= losses[6]
    assert (np.diff(losses[6:]) <= 0).all()
    assert ends < squared_distances(sample, train(sample, 20)[0]).min(axis=1).mean() * 1.01


def test_a_single_iteration_sees_the_whole_sample() -> None:
    sample = normal(6, 2000, 4)
    start = np.sort(np.random.default_rng(0).choice(2000, 3, replace=False))
    _, losses = train(sample, 3, iterations=1, at_first=500)
    expected = squared_distances(sample, sample[start]).min(axis=1).mean()
    np.testing.assert_allclose(losses, [expected], rtol=1e-5)


@pytest.mark.parametrize("clusters", [20, 250])  # compared with all of them, or with some
def test_directions_choose_and_the_end_is_at_means(clusters: int) -> None:
    sample = blobs(3, 5000, centers=clusters) + 2
    unit, _ = train(sample, clusters, spherical=True, random_init=False)
    means, _ = train(sample, clusters, spherical=True, random_init=False, end_at_means=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-5)
    labels, _ = kernels.assign_leaves(sample, means, 1)
    far = [
        np.abs(means[leaf] - sample[labels == leaf].mean(axis=0)).max()
        for leaf in np.unique(labels)
    ]
    assert np.median(far) < 1e-3
    cosines = (means / np.linalg.norm(means, axis=1, keepdims=True) * unit).sum(axis=1)
    assert np.median(cosines) > 0.99


@pytest.mark.parametrize("random_init", [True, False])
@pytest.mark.parametrize("spherical", [True, False])
def test_threads_do_not_matter(random_init: bool, spherical: bool) -> None:
    sample = normal(1, 700, 9)
    one, *others = (
        train(sample, 30, random_init=random_init, spherical=spherical, threads=threads)
        for threads in (1, 2, 3)
    )
    for other in others:
        assert one[0].tobytes() == other[0].tobytes()
        assert one[1] == other[1]


def test_the_seed_decides() -> None:
    sample = normal(1, 700, 9)
    assert train(sample, 8, seed=1)[0].tobytes() == train(sample, 8, seed=1)[0].tobytes()
    assert train(sample, 8, seed=1)[0].tobytes() != train(sample, 8, seed=2)[0].tobytes()


def test_spherical_centroids_have_unit_length() -> None:
    sample = normal(2, 400, 5)
    centroids, _ = train(sample, 12, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-6)
    assert not np.allclose(np.linalg.norm(train(sample, 12)[0], axis=1), 1, rtol=0.05)


def test_plus_plus_starts_far_apart() -> None:
    """Of 20 distant blobs it hits nearly all; random datapoints miss about a third."""

    def first_loss(seed: int, random_init: bool) -> float:
        sample = blobs(seed, noise=0.01)
        return train(sample, 20, seed, iterations=1, random_init=random_init)[1][0]

    spread = sum(first_loss(seed, False) for seed in range(8))
    random = sum(first_loss(seed, True) for seed in range(8))
    assert spread < random / 4


def test_plus_plus_never_takes_a_datapoint_twice() -> None:
    sample = np.arange(40, dtype=np.float32).reshape(20, 2) ** 2
    centroids, losses = train(sample, 20, random_init=False)
    assert losses[-1] == 0.0
    np.testing.assert_array_equal(np.sort(centroids, axis=0), sample)


class Zeros:
    """Draws the least number there is, every time."""

    def integers(self, *_: object) -> int:
        return 0

    def random(self, count: int) -> NDArray[np.float64]:
        return np.zeros(count)


def test_plus_plus_never_takes_a_datapoint_of_weight_zero() -> None:
    sample = np.array([[1], [1], [1], [5], [5], [9]], np.float32)
    centroids = train_centroids(sample, 3, iterations=1, random_init=False, rng=Zeros())  # type: ignore[arg-type]
    assert sorted(centroids.ravel().tolist()) == [1, 5, 9]


def test_plus_plus_draws_as_if_one_by_one() -> None:
    """The chosen sets of three come as often as the definition says; many are drawn at once."""
    sample = np.array([[0], [1], [3], [4], [9]], np.float32)
    points = sample[:, 0].astype(float)
    expected: dict[tuple[int, ...], float] = {}
    for chosen in itertools.permutations(range(5), 3):
        chance = 1 / 5
        for i in (1, 2):
            nearest = ((points[:, None] - points[list(chosen[:i])]) ** 2).min(axis=1)
            chance *= nearest[chosen[i]] / nearest.sum()
        key = tuple(sorted(chosen))
        expected[key] = expected.get(key, 0) + chance
    rng = np.random.default_rng(0)
    seen = dict.fromkeys(expected, 0)
    runs = 6000
    for _ in range(runs):
        centroids = kmeans._plus_plus(sample, 3, rng, 1)
        seen[tuple(np.flatnonzero(np.isin(sample, centroids)).tolist())] += 1
    statistic = sum((seen[key] - runs * p) ** 2 / (runs * p) for key, p in expected.items())
    assert statistic < 33  # 9 degrees of freedom: one in ten thousand is above


def skewed() -> F32:
    """One crowded cluster and 30 loners: random starts are wasted on loners."""
    crowd, loners = normal(0, 2000, 4), 30 * normal(1, 30, 4)
    return np.concatenate([crowd, loners])


def small_clusters(sample: F32, centroids: F32, least: int) -> int:
    labels, _ = kernels.assign_leaves(sample, centroids, 1)
    return int((np.bincount(labels, minlength=len(centroids)) < least).sum())


def test_centroids_of_few_datapoints_are_put_to_better_use() -> None:
    sample = skewed()
    least = len(sample) // (8 * 40)
    kept, _ = train(sample, 40, random_init=False, min_partition_size=0)
    moved, _ = train(sample, 40, random_init=False, min_partition_size=50)
    assert small_clusters(sample, kept, least) >= 10
    assert small_clusters(sample, moved, least) < small_clusters(sample, kept, least) / 2


# ---- Odd samples


def odd(n: int, d: int) -> list[tuple[str, Callable[[], F32]]]:
    return [
        ("all identical", lambda: np.full((n, d), 3.25, np.float32)),
        ("all zeros", lambda: np.zeros((n, d), np.float32)),
        ("two values", lambda: np.repeat(np.eye(2, d, dtype=np.float32), [1, n - 1], axis=0)),
        ("distinct", lambda: normal(0, n, d)),
        ("tiny", lambda: normal(0, n, d) * np.float32(1e-15)),
        ("squares underflow", lambda: normal(0, n, d) * np.float32(1e-30)),
        ("huge", lambda: normal(0, n, d) * np.float32(1e17)),
    ]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in odd(17, 3)])
@pytest.mark.parametrize("k", [1, 2, 16, 17])
@pytest.mark.parametrize("random_init", [True, False])
@pytest.mark.parametrize("spherical", [True, False])
def test_odd_samples(make: Callable[[], F32], k: int, random_init: bool, spherical: bool) -> None:
    sample = make()
    centroids, losses = train(sample, k, random_init=random_init, spherical=spherical)
    if k == 17 and not spherical:  # as many as datapoints: each has its own
        labels, _ = kernels.assign_leaves(sample, centroids, 1)
        np.testing.assert_allclose(centroids[labels], sample, rtol=1e-3, atol=1e-29)
    if not np.ptp(sample, axis=0).any() and not spherical:  # nor do those of nobody go astray
        np.testing.assert_allclose(centroids, np.broadcast_to(sample[0], centroids.shape))
    if k == 1 and not spherical:
        np.testing.assert_allclose(
            centroids[0], sample.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-35
        )
    assert losses


def test_one_datapoint() -> None:
    centroids, _ = train(np.array([[2.0, -1.0]], np.float32), 1)
    assert centroids.tolist() == [[2.0, -1.0]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [150, 200])
def test_tight_clusters_do_not_share_a_centroid(seed: int, k: int) -> None:
    """Lloyd's iteration leaves two in one leaf and two centroids in another: .8 of 150 apart."""
    middles = normal(seed, 100, 16)
    of = np.random.default_rng(seed).integers(0, 100, 6000)
    centroids, losses = train(middles[of] + np.float32(0.01) * normal(seed + 9, 6000, 16), k)
    nearest = ((middles[:, None] - centroids) ** 2).sum(axis=2).min(axis=1)
    assert (nearest < 0.01).mean() >= 0.99
    assert losses[-1] < 0.02

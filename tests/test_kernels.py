"""Every kernel at every level that this machine can run, against its NumPy twin.

Integer kernels agree exactly. Float kernels are within the bound that the order of their sums
gives (a chain of ceil(d / 16) products, then 4 additions), and wherever float32 is exact they are
too. Levels with fma agree bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from swann.kernels import GROUP, LANES, kernel_levels, reference
from swann.kernels.reference import MAX_ENTRY, decode_key, make_key
from swann.kernels.testing import KERNELS, call_kernel

LEVELS = kernel_levels()
FMA_LEVELS = [level for level in LEVELS if level != "scalar"]
DIMENSIONS = [*range(1, 71), 100, 128, 784]

each_level = pytest.mark.parametrize("level", LEVELS)
each_dimension = pytest.mark.parametrize("dimension", DIMENSIONS)
some = settings(max_examples=150, deadline=None)

Rng = np.random.Generator
Seeds = st.integers(0, 2**32 - 1)


def normal(rng: Rng, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)


def dyadic(rng: Rng, *shape: int) -> NDArray[np.float32]:
    """Small multiples of 1/4: float32 sums of their products are exact, and often tie."""
    return rng.integers(-8, 9, shape).astype(np.float32) / 4


def gamma(roundings: int) -> float:
    """Relative error of so many roundings (Higham, lemma 3.1)."""
    unit = 2.0**-24
    return roundings * unit / (1 - roundings * unit)


def chain(dimension: int) -> int:
    """Roundings on the longest way from a product to a sum: fma, folds; the scalar's product."""
    return -(-dimension // LANES) + 4 + 1


def test_the_levels() -> None:
    assert LEVELS[-1] == "scalar"
    assert len(set(LEVELS)) == len(LEVELS)
    for kernel in KERNELS:
        assert callable(getattr(reference, kernel))


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot run"):
        call_kernel("dot_f32", "sse", normal(np.random.default_rng(0), 1, 4), np.eye(4, dtype="f4"))


# ---- Inner products and distances


@each_level
@each_dimension
def test_pairs_are_within_the_bound(level: str, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    queries, rows = normal(rng, 7, dimension), normal(rng, 11, dimension)
    rows[0] = 0
    rows[1] = queries[0]

    dots = call_kernel("dot_f32", level, queries, rows)
    error = np.abs(dots - reference.dot_f32(queries, rows))
    assert (error <= gamma(chain(dimension)) * reference.dot_f32(abs(queries), abs(rows))).all()

    distances = call_kernel("squared_l2_f32", level, queries, rows)
    exact = reference.squared_l2_f32(queries, rows)
    # Each difference is rounded before it is squared: two roundings more.
    assert (np.abs(distances - exact) <= gamma(chain(dimension) + 2) * exact).all()
    assert distances[0, 1] == 0.0


@each_level
@each_dimension
def test_a_score_does_not_depend_on_its_company(level: str, dimension: int) -> None:
    """Tiles of any shape, and rows fetched by id, give the same bits as one pair alone."""
    rng = np.random.default_rng(dimension)
    queries, rows = normal(rng, 9, dimension), normal(rng, 70, dimension)
    ids = rng.integers(0, len(rows), 23).astype(np.uint32)
    for kernel, gather in (
        ("dot_f32", "dot_gather_f32"),
        ("squared_l2_f32", "squared_l2_gather_f32"),
    ):
        together = call_kernel(kernel, level, queries, rows)
        for q in (0, 4, 8):
            for x in (0, 13, 69):
                alone = call_kernel(kernel, level, queries[q : q + 1], rows[x : x + 1])
                assert alone[0, 0] == together[q, x]
        for q in range(1, 9):
            part = call_kernel(kernel, level, queries[:q], rows[3 : 3 + 2 * q + 1])
            np.testing.assert_array_equal(part, together[:q, 3 : 3 + 2 * q + 1])
        fetched = call_kernel(gather, level, queries[2], rows, ids)
        np.testing.assert_array_equal(fetched, together[2, ids])


def parts(result: Any) -> tuple[NDArray[Any], ...]:
    return result if isinstance(result, tuple) else (result,)


@each_dimension
def test_fma_levels_agree_bit_for_bit(dimension: int) -> None:
    if len(FMA_LEVELS) < 2:
        pytest.skip("fewer than two levels with fma on this machine")
    rng = np.random.default_rng(dimension)
    queries, rows = normal(rng, 5, dimension), normal(rng, 9, dimension)
    codebook, target = normal(rng, dimension, LANES), normal(rng, dimension, LANES)
    direction = target / np.linalg.norm(target, axis=0)
    weight = rng.uniform(0, 9, LANES).astype(np.float32)
    calls: list[tuple[Any, ...]] = [
        ("dot_f32", queries, rows),
        ("squared_l2_f32", queries, rows),
        *(("lut_f32", queries[0], codebook, w, l2) for w in (1, 2, 5) for l2 in (False, True)),
        *(("encode_tile", target, None, weight, codebook, w, 0) for w in (1, 2, 5)),
        *(("encode_tile", target, direction, weight, codebook, w, 4) for w in (1, 2, 5)),
    ]
    for name, *arguments in calls:
        first, *others = (call_kernel(name, level, *arguments) for level in FMA_LEVELS)
        for other in others:
            for a, b in zip(parts(first), parts(other), strict=True):
                np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))


@some
@given(seed=Seeds, shape=st.tuples(*[st.integers(0, 40)] * 2, st.integers(1, 70)))
def test_pairs_are_exact_where_float32_is(seed: int, shape: tuple[int, int, int]) -> None:
    num_queries, num_rows, dimension = shape
    rng = np.random.default_rng(seed)
    queries, rows = dyadic(rng, num_queries, dimension), dyadic(rng, num_rows, dimension)
    for level in LEVELS:
        for name in ("dot_f32", "squared_l2_f32"):
            exact = getattr(reference, name)(queries, rows)
            np.testing.assert_array_equal(call_kernel(name, level, queries, rows), exact)


@each_level
@pytest.mark.parametrize("count", [0, 1, 2, 9, 30])
def test_gathers(level: str, count: int) -> None:
    rng = np.random.default_rng(count)
    for dimension in (1, 17, 128, 129, 513, 784):
        query, rows = dyadic(rng, dimension), dyadic(rng, 12, dimension)
        ids = rng.integers(0, 12, count).astype(np.uint32)
        for name in ("dot_gather_f32", "squared_l2_gather_f32"):
            exact = getattr(reference, name)(query, rows, ids)
            np.testing.assert_array_equal(call_kernel(name, level, query, rows, ids), exact)


@each_level
def test_large_and_small_values_survive(level: str) -> None:
    for scale in (np.float32(2.0**60), np.float32(2.0**-60)):
        row = np.full((1, 33), scale, np.float32)
        assert call_kernel("dot_f32", level, row, row)[0, 0] == 33 * scale * scale
        assert call_kernel("squared_l2_f32", level, row, -row)[0, 0] == 4 * 33 * scale * scale


# ---- Lookup tables


@each_level
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("squared_l2", [False, True])
def test_lookup_tables(level: str, width: int, squared_l2: bool) -> None:
    rng = np.random.default_rng(width)
    for dimension in (width, width + 1, 2 * width, 101):
        query, codebook = normal(rng, dimension), normal(rng, dimension, LANES)
        lut, lows, highs = call_kernel("lut_f32", level, query, codebook, width, squared_l2)
        exact, _, _ = reference.lut_f32(query, codebook, width, squared_l2)
        bound = abs(2 * query[:, None] - codebook) if squared_l2 else abs(query[:, None])
        terms = np.add.reduceat(
            bound.astype(np.float64) * abs(codebook), np.arange(0, dimension, width)
        )
        assert (np.abs(lut - exact) <= gamma(width + 2) * terms).all()
        np.testing.assert_array_equal(lows, lut.min(axis=1))
        np.testing.assert_array_equal(highs, lut.max(axis=1))


@some
@given(seed=Seeds, dimension=st.integers(1, 40), width=st.integers(1, 40), squared_l2=st.booleans())
def test_lookup_tables_are_exact_where_float32_is(
    seed: int, dimension: int, width: int, squared_l2: bool
) -> None:
    rng = np.random.default_rng(seed)
    query, codebook = dyadic(rng, dimension), dyadic(rng, dimension, LANES)
    exact = reference.lut_f32(query, codebook, min(width, dimension), squared_l2)
    for level in LEVELS:
        found = call_kernel("lut_f32", level, query, codebook, min(width, dimension), squared_l2)
        for a, b in zip(found, exact, strict=True):
            np.testing.assert_array_equal(a, b)


@some
@given(seed=Seeds, blocks=st.integers(1, 70), width=st.floats(1e-6, 1e6))
def test_quantized_tables(seed: int, blocks: int, width: float) -> None:
    """Equal to the twin, but where the value lies so near a half that its rounding decides."""
    rng = np.random.default_rng(seed)
    lut = normal(rng, blocks, LANES) * np.float32(width)
    lows = lut.min(axis=1)
    scale = float(np.float32(MAX_ENTRY / np.ptp(lut, axis=1).max()))
    exact = reference.lut_quantize_u8(lut, lows, scale).astype(int)
    values = (lut - lows[:, None]).astype(np.float64) * scale + 0.5
    doubtful = np.abs(values - np.rint(values)) < MAX_ENTRY * 2.0**-22
    for level in LEVELS:
        found = call_kernel("lut_quantize_u8", level, lut, lows, scale).astype(int)
        assert ((found == exact) | doubtful).all()
        assert (np.abs(found - exact) <= 1).all()
        assert (np.abs(found / scale - (lut - lows[:, None])) <= 0.5001 / scale).all()


@each_level
def test_quantized_tables_round_halves_up_and_end_at_the_greatest_entry(level: str) -> None:
    lut = np.arange(2 * LANES, dtype=np.float32).reshape(2, LANES) / 2
    lut[1, 15] = 1e9
    found = call_kernel("lut_quantize_u8", level, lut, lut.min(axis=1), 1.0)
    assert found[0].tolist() == [(i + 1) // 2 for i in range(LANES)]
    assert found[1, 15] == MAX_ENTRY
    np.testing.assert_array_equal(found, reference.lut_quantize_u8(lut, lut.min(axis=1), 1.0))


# ---- The scan


def scan_all_levels(*arguments: Any) -> tuple[int, list[NDArray[np.uint64]]]:
    """Scan at every level, compare with the twin, and return what all found."""
    stopped, keys = reference.lut16_scan(*arguments)
    for level in LEVELS:
        at, found = call_kernel("lut16_scan", level, *arguments)
        assert at == stopped, level
        for a, b in zip(found, keys, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=level)
    return stopped, keys


@settings(max_examples=800, deadline=None)
@given(
    seed=Seeds,
    blocks=st.integers(1, 40),
    count=st.integers(1, 200),
    num_queries=st.integers(1, 3),
    corrected=st.booleans(),
    share=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    room=st.integers(0, 300),
    few_values=st.booleans(),
)
def test_scan(
    seed: int,
    blocks: int,
    count: int,
    num_queries: int,
    corrected: bool,
    share: float,
    room: int,
    few_values: bool,
) -> None:
    """Any shape, with ties, keys found before, little room, and a first group in the middle."""
    rng = np.random.default_rng(seed)
    groups = -(-count // GROUP)
    codes = rng.integers(0, 256, (groups, blocks, 16), np.uint8)
    top = 2 if few_values else MAX_ENTRY + 1
    luts = rng.integers(0, top, (num_queries, blocks, 16), np.uint8)
    corrections = rng.integers(0, 65536, groups * GROUP, np.uint16) if corrected else None
    reach = blocks * (top - 1)
    multipliers = rng.integers(0, 65536 - reach, num_queries).tolist()
    thresholds = np.quantile(np.arange(reach + 1), rng.uniform(0, share, num_queries)).astype(int)
    biases = rng.integers(-(2**30), 2**30, num_queries).tolist()
    known = [rng.integers(0, 2**63, rng.integers(0, 50), np.uint64) for _ in range(num_queries)]
    scan_all_levels(
        codes,
        corrections,
        count,
        int(rng.integers(0, 2**31)),
        int(rng.integers(0, groups + 1)),
        luts,
        thresholds.tolist(),
        biases,
        multipliers,
        known,
        50 + room,
    )


def one_value(value: int, blocks: int, count: int = 70) -> tuple[NDArray[np.uint8], ...]:
    codes = np.random.default_rng(blocks).integers(
        0, 256, (-(-count // GROUP), blocks, 16), np.uint8
    )
    return codes, np.full((1, blocks, 16), value, np.uint8)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 257, 300, 771])
def test_the_greatest_sums(blocks: int) -> None:
    """771 blocks of the greatest entry add up to 65535 exactly; nothing overflows on the way."""
    codes, luts = one_value(MAX_ENTRY, blocks)
    total = MAX_ENTRY * blocks
    assert total <= 65535
    for threshold, hits in ((0, 70), (total, 70), (total + 1, 0), (65535, 70 * (total == 65535))):
        if threshold > 65535:
            continue
        _, keys = scan_all_levels(
            codes, None, 70, 5, 0, luts, [threshold], [-7], [0], [np.empty(0, np.uint64)], 500
        )
        assert len(keys[0]) == hits
        for place, key in enumerate(keys[0].tolist()):
            assert decode_key(key) == (total - 7, 5 + place)


@pytest.mark.parametrize("blocks", [1, 50, 257, 770])
def test_corrections_fill_the_sum_to_its_end(blocks: int) -> None:
    codes, luts = one_value(MAX_ENTRY, blocks)
    rest = 65535 - MAX_ENTRY * blocks
    corrections = np.full(len(codes) * GROUP, 65535, np.uint16)
    multiplier = min(65535, -(-rest * 65536 // 65535))
    assert 65535 * multiplier >> 16 in (rest, rest - 1)
    total = MAX_ENTRY * blocks + (65535 * multiplier >> 16)
    for threshold, hits in ((0, 70), (total - 1, 70), (total, 70), (total + 1, 0)):
        if threshold > 65535:
            continue
        nothing = [np.empty(0, np.uint64)]
        _, keys = scan_all_levels(
            codes, corrections, 70, 0, 0, luts, [threshold], [0], [multiplier], nothing, 500
        )
        assert len(keys[0]) == hits


@pytest.mark.parametrize("num_queries", [1, 2, 3])
@pytest.mark.parametrize("room", [0, 31, 32, 63, 64, 65, 95, 96])
def test_the_scan_stops_where_room_ends_and_goes_on_from_there(num_queries: int, room: int) -> None:
    rng = np.random.default_rng(room)
    codes = rng.integers(0, 256, (9, 4, 16), np.uint8)
    luts = rng.integers(0, MAX_ENTRY + 1, (num_queries, 4, 16), np.uint8)
    count, group = 9 * GROUP - 5, 0
    collected: list[list[int]] = [[] for _ in range(num_queries)]
    rest = ([0] * num_queries, [0] * num_queries, [0] * num_queries)
    while group < 9:
        empty = [np.empty(0, np.uint64)] * num_queries
        stopped, keys = scan_all_levels(codes, None, count, 0, group, luts, *rest, empty, room)
        assert stopped == min(9, group + room // GROUP)
        if room < GROUP:
            return
        for place, found in zip(collected, keys, strict=True):
            place += found.tolist()
        group = stopped
    everything = [np.empty(0, np.uint64)] * num_queries
    _, keys = scan_all_levels(codes, None, count, 0, 0, luts, *rest, everything, count + GROUP)
    assert collected == [found.tolist() for found in keys]
    assert all(len(found) == count for found in keys)


def test_queries_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (5, 13, 16), np.uint8)
    luts = rng.integers(0, MAX_ENTRY + 1, (3, 13, 16), np.uint8)
    empty = [np.empty(0, np.uint64)]
    rest = [300, 500, 700], [1, 2, 3], [0, 0, 0]
    for level in LEVELS:
        _, together = call_kernel(
            "lut16_scan", level, codes, None, 150, 0, 0, luts, *rest, empty * 3, 1000
        )
        for q in range(3):
            one = [[part[q]] for part in rest]
            _, alone = call_kernel(
                "lut16_scan", level, codes, None, 150, 0, 0, luts[q : q + 1], *one, empty, 1000
            )
            np.testing.assert_array_equal(alone[0], together[q])


def test_keys_order_as_scores_then_lowest_rows() -> None:
    pairs = [(-(2**31), 0), (-1, 9), (0, 2**32 - 1), (0, 7), (0, 0), (5, 3), (2**31 - 1, 1)]
    keys = [make_key(*pair) for pair in pairs]
    assert keys == sorted(keys)
    assert [decode_key(key) for key in keys] == pairs


# ---- Choosing


@some
@given(seed=Seeds, count=st.integers(1, 100), values=st.sampled_from([1, 2, 3, 1000]))
def test_argmax(seed: int, count: int, values: int) -> None:
    """The first of the best, ties or none, minus infinity too."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, count).astype(np.float32)
    bias = -rng.integers(0, values, count).astype(np.float32)
    scores[rng.random(count) < 0.1] = -np.inf
    expected = reference.argmax_f32(scores, bias)
    for level in LEVELS:
        assert call_kernel("argmax_f32", level, scores, bias) == expected


@each_level
@pytest.mark.parametrize("count", [1, 15, 16, 17, 31, 32, 33, 1024, 1500])
def test_argmax_finds_every_place(level: str, count: int) -> None:
    for place in {0, 1, count // 2, count - 2, count - 1} & set(range(count)):
        scores, bias = np.zeros(count, np.float32), np.full(count, -2.5, np.float32)
        scores[place] = 1
        assert call_kernel("argmax_f32", level, scores, bias) == (place, -1.5)
        scores[place:] = 1
        assert call_kernel("argmax_f32", level, scores, bias) == (place, -1.5)


@some
@given(
    scores=st.lists(
        st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1.0, 2.0, np.inf, np.nan]), max_size=80
    ),
    threshold=st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1.0, 1.5, np.inf]),
)
def test_at_least(scores: list[float], threshold: float) -> None:
    array = np.array(scores, np.float32)
    expected = reference.at_least_f32(array, threshold)
    for level in LEVELS:
        found = call_kernel("at_least_f32", level, array, threshold)
        np.testing.assert_array_equal(found, expected)


@some
@given(
    seed=Seeds,
    size=st.integers(0, 300),
    limit=st.integers(1, 310),
    values=st.sampled_from([1, 2, 30, 2**32]),
)
def test_keep_best(seed: int, size: int, limit: int, values: int) -> None:
    """All that tie with the limit-th best stay, in their order."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, size, np.uint64) + np.uint64(2**32 - values)
    keys = scores << np.uint64(32) | rng.integers(0, 2**32, size, np.uint64)
    expected = reference.keep_best(keys, limit)
    assert len(expected) >= min(size, limit)
    for level in LEVELS:
        np.testing.assert_array_equal(call_kernel("keep_best", level, keys, limit), expected)


@pytest.mark.parametrize("score", [0, 1, 2**32 - 1])
def test_keep_best_of_equal_scores_keeps_all(score: int) -> None:
    keys = np.uint64(score << 32) | np.arange(100, dtype=np.uint64)
    for level in LEVELS:
        np.testing.assert_array_equal(call_kernel("keep_best", level, keys, 7), keys)


# ---- Encoding


@some
@given(
    seed=Seeds,
    dimension=st.integers(1, 24),
    width=st.integers(1, 24),
    sweeps=st.integers(0, 5),
    anisotropic=st.booleans(),
    warm=st.booleans(),
)
def test_encode_is_exact_where_float32_is(
    seed: int, dimension: int, width: int, sweeps: int, anisotropic: bool, warm: bool
) -> None:
    """On small dyadic numbers, full of ties, codes and losses are those of the twin."""
    rng = np.random.default_rng(seed)
    width = min(width, dimension)
    target, codebook = dyadic(rng, dimension, LANES), dyadic(rng, dimension, LANES)
    direction = rng.integers(-1, 2, (dimension, LANES)).astype(np.float32) if anisotropic else None
    weight = rng.integers(0, 8, LANES).astype(np.float32)
    blocks = -(-dimension // width)
    codes = rng.integers(0, 16, (blocks, LANES), np.uint8) if warm else None
    arguments = (target, direction, weight, codebook, width, sweeps, codes)
    expected_codes, expected_loss = reference.encode_tile(*arguments)
    for level in LEVELS:
        found, loss = call_kernel("encode_tile", level, *arguments)
        np.testing.assert_array_equal(found, expected_codes, err_msg=level)
        np.testing.assert_array_equal(loss, expected_loss, err_msg=level)


def anisotropic_problem(rng: Rng, dimension: int) -> tuple[NDArray[np.float32], ...]:
    target, codebook = normal(rng, dimension, LANES), normal(rng, dimension, LANES)
    direction = target / np.linalg.norm(target, axis=0)
    return target, direction, rng.uniform(0, 20, LANES).astype(np.float32), codebook


def loss_of(
    codes: NDArray[np.uint8],
    target: NDArray[np.float32],
    direction: NDArray[np.float32],
    weight: NDArray[np.float32],
    codebook: NDArray[np.float32],
    width: int,
) -> NDArray[np.float64]:
    """The loss by its definition."""
    block = np.arange(len(target)) // width
    decoded = np.take_along_axis(codebook, codes[block].astype(np.int64), axis=1)
    error = target.astype(np.float64) - decoded
    return np.asarray((error**2).sum(axis=0) + weight * (error * direction).sum(axis=0) ** 2)


@each_level
@each_dimension
def test_encode_reaches_the_loss_it_reports(level: str, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    problem = anisotropic_problem(rng, dimension)
    for width in {1, 2, 3, dimension} & set(range(1, dimension + 1)):
        codes, loss = call_kernel("encode_tile", level, *problem, width, 10)
        assert (codes < 16).all()
        np.testing.assert_allclose(loss, loss_of(codes, *problem, width), rtol=2e-5, atol=1e-4)
        twin, _ = reference.encode_tile(*problem, width, 10)
        assert (codes == twin).all(axis=0).sum() >= LANES - 1  # a near tie may fall otherwise


@each_level
def test_descent_never_worsens_and_ends_where_no_block_can_do_better(level: str) -> None:
    rng = np.random.default_rng(1)
    for dimension, width in ((20, 2), (21, 4), (9, 9)):
        problem = anisotropic_problem(rng, dimension)
        before = np.full(LANES, np.inf)
        codes = None
        for _ in range(8):
            codes, loss = call_kernel("encode_tile", level, *problem, width, 1, codes)
            assert (loss <= before * (1 + 1e-5)).all()
            before = loss
        whole, _ = call_kernel("encode_tile", level, *problem, width, 8)
        np.testing.assert_array_equal(whole, codes)  # eight sweeps are eight times one
        for m in range(len(codes)):
            for k in range(16):
                other = codes.copy()
                other[m] = k
                assert (loss_of(other, *problem, width) >= before * (1 - 1e-5) - 1e-5).all()


@each_level
def test_without_weight_the_nearest_codewords_win(level: str) -> None:
    target, direction, _, codebook = anisotropic_problem(np.random.default_rng(2), 30)
    nothing = np.zeros(LANES, np.float32)
    plain = call_kernel("encode_tile", level, target, None, nothing, codebook, 3, 0)
    same = call_kernel("encode_tile", level, target, direction, nothing, codebook, 3, 5)
    for a, b in zip(plain, same, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)

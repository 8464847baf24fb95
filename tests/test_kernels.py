"""Every kernel at every level that this machine can run, against its NumPy twin.

Integer kernels agree exactly. Float kernels are within the bound that the order of their sums
gives (a chain of ceil(d / 16) products, then 4 additions), and wherever float32 is exact they are
too. Levels with fma agree bit for bit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Lut:
    """Codes of 4 bits, or of 8."""

    words: int
    block_bytes: int
    most: tuple[int, ...]
    """The greatest entries of a block, of the next and so on, in turns."""
    scan: str
    name: str

    def limits(self, blocks: int) -> NDArray[np.int64]:
        """The greatest entry of each block; none is so great that a sum may be more than 65535."""
        return np.minimum(np.resize(self.most, blocks), 65535 // blocks)


# Of three entries of 16 that are added in 8 bits one is of a wide block where tables are uneven.
LUTS = [
    Lut(16, 16, (MAX_ENTRY // 3,), "lut16_scan", "even"),
    Lut(16, 16, (20, MAX_ENTRY - 2 * 20, 20), "lut16_scan", "uneven"),
    Lut(256, 32, (MAX_ENTRY,), "lut256_scan", "256"),
]

each_lut = pytest.mark.parametrize("lut", LUTS, ids=lambda lut: lut.name)
each_level = pytest.mark.parametrize("level", LEVELS)
each_dimension = pytest.mark.parametrize("dimension", DIMENSIONS)
some = settings(max_examples=150)

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
    assert [level for level in LEVELS if level != "emulated"][-1] == "scalar"
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


def tiles_of(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    count, dimension = vectors.shape
    padded = np.zeros((-(-count // LANES) * LANES, dimension), np.float32)
    padded[:count] = vectors
    return np.ascontiguousarray(padded.reshape(-1, LANES, dimension).transpose(0, 2, 1))


@each_dimension
def test_dots_of_tiles(dimension: int) -> None:
    """Within the bound of a sum in order, alike at all levels with fma, whatever the company."""
    rng = np.random.default_rng(dimension)
    rows, tiles = normal(rng, 15, dimension), tiles_of(normal(rng, 6 * LANES - 3, dimension))
    exact, most = (
        reference.dot_tiles_f32(r, t) for r, t in ((rows, tiles), (abs(rows), abs(tiles)))
    )
    results = {level: call_kernel("dot_tiles_f32", level, rows, tiles) for level in LEVELS}
    for level, found in results.items():
        assert (np.abs(found - exact) <= gamma(dimension + 1) * most).all()
        for i, t in ((0, 0), (6, 3), (14, 5)):
            alone = call_kernel("dot_tiles_f32", level, rows[i : i + 1], tiles[t : t + 1])
            np.testing.assert_array_equal(alone[0], found[i, t * LANES : (t + 1) * LANES])
    for level in FMA_LEVELS[1:]:
        np.testing.assert_array_equal(results[level], results[FMA_LEVELS[0]])


def parts(result: Any) -> tuple[NDArray[Any], ...]:
    return result if isinstance(result, tuple) else (result,)


@each_dimension
def test_fma_levels_agree_bit_for_bit(dimension: int) -> None:
    if len(FMA_LEVELS) < 2:
        pytest.skip("fewer than two levels with fma on this machine")
    rng = np.random.default_rng(dimension)
    queries, rows = normal(rng, 5, dimension), normal(rng, 9, dimension)
    target = normal(rng, dimension, LANES)
    direction = target / np.linalg.norm(target, axis=0)
    weight = rng.uniform(0, 9, LANES).astype(np.float32)
    calls: list[tuple[Any, ...]] = [
        ("dot_f32", queries, rows),
        ("squared_l2_f32", queries, rows),
    ]
    for codebook in (normal(rng, dimension, lut.words) for lut in LUTS):
        calls += [
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
@each_lut
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("squared_l2", [False, True])
def test_lookup_tables(level: str, lut: Lut, width: int, squared_l2: bool) -> None:
    rng = np.random.default_rng(width)
    for dimension in (width, width + 1, 2 * width, 101):
        query, codebook = normal(rng, dimension), normal(rng, dimension, lut.words)
        table, lows, highs = call_kernel("lut_f32", level, query, codebook, width, squared_l2)
        exact, _, _ = reference.lut_f32(query, codebook, width, squared_l2)
        bound = abs(2 * query[:, None] - codebook) if squared_l2 else abs(query[:, None])
        terms = np.add.reduceat(
            bound.astype(np.float64) * abs(codebook), np.arange(0, dimension, width)
        )
        assert (np.abs(table - exact) <= gamma(width + 2) * terms).all()
        np.testing.assert_array_equal(lows, table.min(axis=1))
        np.testing.assert_array_equal(highs, table.max(axis=1))


@some
@given(
    seed=Seeds,
    lut=st.sampled_from(LUTS),
    dimension=st.integers(1, 40),
    width=st.integers(1, 40),
    squared_l2=st.booleans(),
)
def test_lookup_tables_are_exact_where_float32_is(
    seed: int, lut: Lut, dimension: int, width: int, squared_l2: bool
) -> None:
    rng = np.random.default_rng(seed)
    query, codebook = dyadic(rng, dimension), dyadic(rng, dimension, lut.words)
    exact = reference.lut_f32(query, codebook, min(width, dimension), squared_l2)
    for level in LEVELS:
        found = call_kernel("lut_f32", level, query, codebook, min(width, dimension), squared_l2)
        for a, b in zip(found, exact, strict=True):
            np.testing.assert_array_equal(a, b)


@some
@given(
    seed=Seeds,
    lut=st.sampled_from(LUTS),
    blocks=st.integers(1, 70),
    width=st.floats(1e-6, 1e6),
)
def test_quantized_tables(seed: int, lut: Lut, blocks: int, width: float) -> None:
    """Equal to the twin, but where the value lies so near a half that its rounding decides."""
    rng = np.random.default_rng(seed)
    tables = normal(rng, blocks, lut.words) * np.float32(width)
    lows = tables.min(axis=1)
    scale = float(np.float32(MAX_ENTRY / np.ptp(tables, axis=1).max()))
    exact = reference.lut_quantize_u8(tables, lows, scale).astype(int)
    values = (tables - lows[:, None]).astype(np.float64) * scale + 0.5
    doubtful = np.abs(values - np.rint(values)) < MAX_ENTRY * 2.0**-22
    for level in LEVELS:
        found = call_kernel("lut_quantize_u8", level, tables, lows, scale).astype(int)
        assert ((found == exact) | doubtful).all()
        assert (np.abs(found - exact) <= 1).all()
        assert (np.abs(found / scale - (tables - lows[:, None])) <= 0.5001 / scale).all()


@each_level
@each_lut
def test_quantized_tables_round_halves_up_and_end_at_the_greatest_entry(
    level: str, lut: Lut
) -> None:
    tables = np.arange(2 * lut.words, dtype=np.float32).reshape(2, lut.words) / 2
    tables[1, -1] = 1e9
    lows = tables.min(axis=1)
    found = call_kernel("lut_quantize_u8", level, tables, lows, 1.0)
    assert found[0].tolist() == [(i + 1) // 2 for i in range(lut.words)]
    assert found[1, -1] == MAX_ENTRY
    np.testing.assert_array_equal(found, reference.lut_quantize_u8(tables, lows, 1.0))


# ---- The scan


def scan_all_levels(lut: Lut, *arguments: Any) -> tuple[int, list[NDArray[np.uint64]]]:
    """Scan at every level, compare with the twin, and return what all found."""
    stopped, keys = getattr(reference, lut.scan)(*arguments)
    for level in LEVELS:
        at, found = call_kernel(lut.scan, level, *arguments)
        assert at == stopped, level
        for a, b in zip(found, keys, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=level)
    return stopped, keys


def random_codes(rng: Rng, lut: Lut, groups: int, blocks: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (groups, blocks, lut.block_bytes), np.uint8)


def random_tables(rng: Rng, lut: Lut, queries: int, blocks: int) -> NDArray[np.uint8]:
    most = lut.limits(blocks)[:, None]
    return rng.integers(0, most + 1, (queries, blocks, lut.words)).astype(np.uint8)


@settings(max_examples=800)
@given(
    lut=st.sampled_from(LUTS),
    seed=Seeds,
    blocks=st.integers(1, 40),
    count=st.integers(1, 600),
    num_queries=st.integers(1, 3),
    corrected=st.booleans(),
    share=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    room=st.integers(0, 300),
    few_values=st.booleans(),
)
def test_scan(
    lut: Lut,
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
    codes = random_codes(rng, lut, groups, blocks)
    luts = random_tables(rng, lut, num_queries, blocks)
    if few_values:
        luts = np.minimum(luts, 1)
    corrections = rng.integers(0, 65536, groups * GROUP, np.uint16) if corrected else None
    reach = int(luts.max(axis=2).sum(axis=1).max())
    multipliers = rng.integers(0, 65536 - reach, num_queries).tolist()
    thresholds = np.quantile(np.arange(reach + 1), rng.uniform(0, share, num_queries)).astype(int)
    biases = rng.integers(-(2**30), 2**30, num_queries).tolist()
    known = [rng.integers(0, 2**63, rng.integers(0, 50), np.uint64) for _ in range(num_queries)]
    scan_all_levels(
        lut,
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


def greatest_entries(
    lut: Lut, blocks: int, count: int = 70
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """Codes, tables of one value a block, and the sum of all: 65535 at most."""
    codes = random_codes(np.random.default_rng(blocks), lut, -(-count // GROUP), blocks)
    limits = lut.limits(blocks)
    luts = np.repeat(limits[None, :, None], lut.words, axis=2).astype(np.uint8)
    return codes, luts, int(limits.sum())


@each_lut
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 257, 300, 771])
def test_the_greatest_sums(lut: Lut, blocks: int) -> None:
    """771 blocks of the greatest entry add up to 65535 exactly, as do 257 where it is 255; nothing
    overflows on the way."""
    codes, luts, total = greatest_entries(lut, blocks)
    assert total <= 65535
    for threshold, hits in ((0, 70), (total, 70), (total + 1, 0), (65535, 70 * (total == 65535))):
        if threshold > 65535:
            continue
        _, keys = scan_all_levels(
            lut, codes, None, 70, 5, 0, luts, [threshold], [-7], [0], [np.empty(0, np.uint64)], 500
        )
        assert len(keys[0]) == hits
        for place, key in enumerate(keys[0].tolist()):
            assert decode_key(key) == (total - 7, 5 + place)


@each_lut
@pytest.mark.parametrize("blocks", [1, 50, 256, 770])
def test_corrections_fill_the_sum_to_its_end(lut: Lut, blocks: int) -> None:
    codes, luts, total = greatest_entries(lut, blocks)
    rest = 65535 - total
    corrections = np.full(len(codes) * GROUP, 65535, np.uint16)
    multiplier = min(65535, -(-rest * 65536 // 65535))
    assert 65535 * multiplier >> 16 in (rest, rest - 1)
    total += 65535 * multiplier >> 16
    for threshold, hits in ((0, 70), (total - 1, 70), (total, 70), (total + 1, 0)):
        if threshold > 65535:
            continue
        nothing = [np.empty(0, np.uint64)]
        _, keys = scan_all_levels(
            lut, codes, corrections, 70, 0, 0, luts, [threshold], [0], [multiplier], nothing, 500
        )
        assert len(keys[0]) == hits


@each_lut
@pytest.mark.parametrize("num_queries", [1, 2, 3])
@pytest.mark.parametrize("room", [0, 31, 32, 63, 64, 65, 95, 96, 256])
def test_the_scan_stops_where_room_ends_and_goes_on_from_there(
    lut: Lut, num_queries: int, room: int
) -> None:
    rng = np.random.default_rng(room)
    codes = random_codes(rng, lut, 9, 4)
    luts = random_tables(rng, lut, num_queries, 4)
    count, group = 9 * GROUP - 5, 0
    collected: list[list[int]] = [[] for _ in range(num_queries)]
    rest = ([0] * num_queries, [0] * num_queries, [0] * num_queries)
    while group < 9:
        empty = [np.empty(0, np.uint64)] * num_queries
        stopped, keys = scan_all_levels(lut, codes, None, count, 0, group, luts, *rest, empty, room)
        assert stopped == min(9, group + room // GROUP)
        if room < GROUP:
            return
        for place, found in zip(collected, keys, strict=True):
            place += found.tolist()
        group = stopped
    everything = [np.empty(0, np.uint64)] * num_queries
    _, keys = scan_all_levels(lut, codes, None, count, 0, 0, luts, *rest, everything, count + GROUP)
    assert collected == [found.tolist() for found in keys]
    assert all(len(found) == count for found in keys)


@each_lut
def test_every_code_is_looked_up_in_its_place(lut: Lut) -> None:
    """All codes, in every lane, in blocks whose tables differ."""
    lanes = np.arange(GROUP)
    for block, num_queries in itertools.product(range(12), (1, 3)):
        for shift in range(0, lut.words, 8):
            wanted = (lanes * 8 + shift) % lut.words
            unpacked = np.zeros((1, 12, GROUP), np.uint8)
            unpacked[0, block] = wanted
            codes = unpacked
            if lut.words == 16:
                codes = unpacked[:, :, :16] | unpacked[:, :, 16:] << 4
            luts = np.zeros((num_queries, 12, lut.words), np.uint8)
            luts[:, block] = np.arange(lut.words)
            zeros, nothing = [0] * num_queries, [np.empty(0, np.uint64)] * num_queries
            _, keys = scan_all_levels(
                lut, codes, None, GROUP, 0, 0, luts, zeros, zeros, zeros, nothing, 64
            )
            for found in keys:
                assert [decode_key(key)[0] for key in found.tolist()] == wanted.tolist()


@each_lut
def test_queries_do_not_disturb_each_other(lut: Lut) -> None:
    rng = np.random.default_rng(0)
    codes = random_codes(rng, lut, 5, 13)
    luts = random_tables(rng, lut, 3, 13)
    empty = [np.empty(0, np.uint64)]
    rest = [300, 500, 700], [1, 2, 3], [0, 0, 0]
    for level in LEVELS:
        _, together = call_kernel(
            lut.scan, level, codes, None, 150, 0, 0, luts, *rest, empty * 3, 1000
        )
        for q in range(3):
            one = [[part[q]] for part in rest]
            _, alone = call_kernel(
                lut.scan, level, codes, None, 150, 0, 0, luts[q : q + 1], *one, empty, 1000
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
        kept, least = call_kernel("keep_best", level, keys, limit)
        np.testing.assert_array_equal(kept, expected)
        np.testing.assert_array_equal(kept, keys[keys >= np.uint64(least)])


@some
@given(
    seed=Seeds,
    size=st.integers(1, 700),
    limit=st.integers(1, 310),
    more=st.integers(0, 100),
    values=st.sampled_from([1, 2, 30, 2**32]),
)
def test_keep_best_and_a_few_more(seed: int, size: int, limit: int, more: int, values: int) -> None:
    """What stays is all from some key on, the limit best among it, and few others."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, size, np.uint64) + np.uint64(2**32 - values)
    keys = scores << np.uint64(32) | rng.integers(0, 2**32, size, np.uint64)
    best = reference.keep_best(keys, limit)
    for level in LEVELS:
        kept, least = call_kernel("keep_best", level, keys, limit, limit + more)
        np.testing.assert_array_equal(kept, keys[keys >= np.uint64(least)])
        assert set(best.tolist()) <= set(kept.tolist())
        assert len(kept) <= max(limit + more, len(best))


@some
@given(
    seed=Seeds,
    size=st.integers(5_000, 9_000),
    limit=st.integers(1, 4_500),
    values=st.sampled_from([2, 300, 2**32]),
)
def test_keep_best_of_very_many(seed: int, size: int, limit: int, values: int) -> None:
    """More than what is selected from a copy of the scores."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, size, np.uint64)
    keys = scores << np.uint64(32) | rng.integers(0, 2**32, size, np.uint64)
    expected = reference.keep_best(keys, limit)
    for level in LEVELS:
        kept, _ = call_kernel("keep_best", level, keys, limit)
        np.testing.assert_array_equal(kept, expected)


@some
@given(
    seed=Seeds,
    size=st.integers(0, 2_000),
    limit=st.integers(1, 300),
    values=st.sampled_from([1, 5, 1_000_000]),
)
def test_least_of_best(seed: int, size: int, limit: int, values: int) -> None:
    """The limit best reach it, and few others: fewer than half as many where scores differ."""
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-values, values, size) / 8).astype(np.float32)
    least = {call_kernel("least_of_best_f32", level, scores, limit) for level in LEVELS}
    assert len(least) == 1
    (score,) = least
    assert score <= reference.least_of_best_f32(scores, limit)
    reached = np.count_nonzero(scores >= score)
    assert reached >= min(size, limit)
    if size >= limit and limit <= 250 and values > size:
        assert reached <= 2 * limit + 20


def test_least_of_best_of_wild_scores() -> None:
    wild = np.array([-np.inf, -3e38, -0.0, 0.0, 1e-45, 3e38, np.inf] * 20, np.float32)
    for level in LEVELS:
        score = call_kernel("least_of_best_f32", level, wild, 20)
        assert np.count_nonzero(wild >= score) == 20
        assert call_kernel("least_of_best_f32", level, wild, 140) == -np.inf
        assert call_kernel("least_of_best_f32", level, wild, 141) == -np.inf
        assert call_kernel("least_of_best_f32", level, wild[2:4], 2) == 0.0


@pytest.mark.parametrize("score", [0, 1, 2**32 - 1])
def test_keep_best_of_equal_scores_keeps_all(score: int) -> None:
    keys = np.uint64(score << 32) | np.arange(100, dtype=np.uint64)
    for level in LEVELS:
        kept, least = call_kernel("keep_best", level, keys, 7)
        np.testing.assert_array_equal(kept, keys)
        assert least <= score << 32


# ---- Encoding


@some
@given(
    lut=st.sampled_from(LUTS),
    seed=Seeds,
    dimension=st.integers(1, 24),
    width=st.integers(1, 24),
    sweeps=st.integers(0, 5),
    anisotropic=st.booleans(),
    warm=st.booleans(),
)
def test_encode_is_exact_where_float32_is(
    lut: Lut, seed: int, dimension: int, width: int, sweeps: int, anisotropic: bool, warm: bool
) -> None:
    """On small dyadic numbers, full of ties, codes and losses are those of the twin.

    But prices are not dyadic, so what has no fused multiplication may round otherwise.
    """
    rng = np.random.default_rng(seed)
    width = min(width, dimension)
    target, codebook = dyadic(rng, dimension, LANES), dyadic(rng, dimension, lut.words)
    direction = rng.integers(-1, 2, (dimension, LANES)).astype(np.float32) if anisotropic else None
    weight = rng.integers(0, 8, LANES).astype(np.float32)
    blocks = -(-dimension // width)
    codes = rng.integers(0, lut.words, (blocks, LANES), np.uint8) if warm else None
    arguments = (target, direction, weight, codebook, width, sweeps, codes)
    expected_codes, expected_loss = reference.encode_tile(*arguments)
    priced = anisotropic and not warm and sweeps > 0
    for level in LEVELS:
        if priced and level == "scalar":
            continue
        found, loss = call_kernel("encode_tile", level, *arguments)
        np.testing.assert_array_equal(found, expected_codes, err_msg=level)
        np.testing.assert_array_equal(loss, expected_loss, err_msg=level)
        if not warm:
            along = None if direction is None else direction[:, 0].copy()
            one = (target[:, 0].copy(), along, float(weight[0]), codebook, width, sweeps)
            found, loss = call_kernel("encode_one", level, *one)
            twin, least = reference.encode_one(*one)
            np.testing.assert_array_equal(found, twin, err_msg=level)
            assert loss == least == expected_loss[0]


@each_level
@some
@given(
    lut=st.sampled_from(LUTS),
    seed=Seeds,
    dimension=st.integers(1, 40),
    width=st.integers(1, 9),
)
def test_encode_one_is_a_lane_of_a_tile(
    level: str, lut: Lut, seed: int, dimension: int, width: int
) -> None:
    """Bit for bit, so that an upserted datapoint gets the code that a build would give it."""
    rng = np.random.default_rng(seed)
    width = min(width, dimension)
    target, direction, weight, codebook = anisotropic_problem(rng, dimension, lut)
    for along in (None, direction):
        codes, losses = call_kernel("encode_tile", level, target, along, weight, codebook, width, 4)
        for lane in (0, 7, 15):
            one = None if along is None else along[:, lane].copy()
            arguments = (target[:, lane].copy(), one, float(weight[lane]), codebook, width, 4)
            found, loss = call_kernel("encode_one", level, *arguments)
            np.testing.assert_array_equal(found, codes[:, lane])
            assert loss == losses[lane]


def anisotropic_problem(rng: Rng, dimension: int, lut: Lut) -> tuple[NDArray[np.float32], ...]:
    target, codebook = normal(rng, dimension, LANES), normal(rng, dimension, lut.words)
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


@each_lut
@each_dimension
def test_encode_reaches_the_loss_it_reports(lut: Lut, dimension: int) -> None:
    if lut.words * dimension > 256 * 128:
        pytest.skip("the twin would take seconds")
    rng = np.random.default_rng(dimension)
    problem = anisotropic_problem(rng, dimension, lut)
    for width in {1, 2, 3, dimension} & set(range(1, dimension + 1)):
        twin, _ = reference.encode_tile(*problem, width, 10)
        for level in LEVELS:
            codes, loss = call_kernel("encode_tile", level, *problem, width, 10)
            assert (codes < lut.words).all()
            np.testing.assert_allclose(loss, loss_of(codes, *problem, width), rtol=2e-5, atol=1e-4)
            assert (codes == twin).all(axis=0).sum() >= LANES - 1  # a near tie may fall otherwise


@each_level
@each_lut
def test_descent_never_worsens_and_ends_where_no_block_can_do_better(level: str, lut: Lut) -> None:
    rng = np.random.default_rng(1)
    for dimension, width in ((20, 2), (21, 4), (9, 9)):
        problem = anisotropic_problem(rng, dimension, lut)
        before = np.full(LANES, np.inf)
        codes = None
        for _ in range(8):
            codes, loss = call_kernel("encode_tile", level, *problem, width, 1, codes)
            assert (loss <= before * (1 + 1e-5)).all()
            before = loss
        whole, _ = call_kernel("encode_tile", level, *problem, width, 8)
        np.testing.assert_array_equal(whole, codes)  # eight sweeps are eight times one
        for m in range(len(codes)):
            for k in range(lut.words):
                other = codes.copy()
                other[m] = k
                assert (loss_of(other, *problem, width) >= before * (1 - 1e-5) - 1e-5).all()


@each_level
def test_where_errors_along_the_datapoint_are_welcome_there_is_no_price(level: str) -> None:
    target, direction, weight, codebook = anisotropic_problem(np.random.default_rng(3), 24, LUTS[0])
    for welcome in (-weight / 21, np.full(LANES, -1, np.float32)):
        arguments = (target, direction, welcome, codebook, 2)
        nearest, _ = call_kernel("encode_tile", level, *arguments, 0)
        descended, reached = call_kernel("encode_tile", level, *arguments, 3, nearest)
        found, loss = call_kernel("encode_tile", level, *arguments, 3)
        np.testing.assert_array_equal(found, descended)
        np.testing.assert_array_equal(loss, reached)
        one = (target[:, 2].copy(), direction[:, 2].copy(), float(welcome[2]), codebook, 2, 3)
        np.testing.assert_array_equal(call_kernel("encode_one", level, *one)[0], found[:, 2])


@each_level
@each_lut
def test_without_weight_the_nearest_codewords_win(level: str, lut: Lut) -> None:
    target, direction, _, codebook = anisotropic_problem(np.random.default_rng(2), 30, lut)
    nothing = np.zeros(LANES, np.float32)
    plain = call_kernel("encode_tile", level, target, None, nothing, codebook, 3, 0)
    same = call_kernel("encode_tile", level, target, direction, nothing, codebook, 3, 5)
    for a, b in zip(plain, same, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)

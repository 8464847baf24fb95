// Level avx512bw: F, BW, DQ, VL, CD (Skylake-X, Zen 4 and newer).
#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "kernels.h"
#include "prefetch.h"

namespace swann {
namespace {

using F16 = __m512;

constexpr int kTileQueries = 4, kTileRows = 4, kSingleTileRows = 16;
constexpr int kTiledRows = 6, kTilesAtOnce = 4;

inline F16 f16_zero() noexcept { return _mm512_setzero_ps(); }
inline F16 f16_set(float a) noexcept { return _mm512_set1_ps(a); }
inline F16 f16_load(const float* p) noexcept { return _mm512_loadu_ps(p); }
inline F16 f16_load_bf16(const uint16_t* p) noexcept {
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(all), 16));
}
inline F16 f16_load_i8(const int8_t* p) noexcept {
  const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(all));
}
inline F16 f16_load_first(const float* p, size_t count) noexcept {
  return _mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
}
constexpr bool kLoadsFirst = true;  // of short rows, too
inline F16 f16_load_first(const uint16_t* p, size_t count) noexcept {
  const __m256i all = _mm256_maskz_loadu_epi16(__mmask16((1u << count) - 1), p);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(all), 16));
}
inline F16 f16_load_first(const int8_t* p, size_t count) noexcept {
  const __m128i all = _mm_maskz_loadu_epi8(__mmask16((1u << count) - 1), p);
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(all));
}
inline F16 f16_add(F16 a, F16 b) noexcept { return _mm512_add_ps(a, b); }
inline F16 f16_sub(F16 a, F16 b) noexcept { return _mm512_sub_ps(a, b); }
inline F16 f16_mul(F16 a, F16 b) noexcept { return _mm512_mul_ps(a, b); }
inline F16 f16_fma(F16 a, F16 b, F16 c) noexcept { return _mm512_fmadd_ps(a, b, c); }
inline F16 f16_min(F16 a, F16 b) noexcept { return _mm512_min_ps(a, b); }
inline F16 f16_select_less(F16 a, F16 b, F16 x, F16 y) noexcept {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
inline uint32_t f16_at_least(F16 a, F16 b) noexcept {
  return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
inline void f16_store(float* p, F16 a) noexcept { _mm512_storeu_ps(p, a); }
inline void f16_store_u8(uint8_t* p, F16 a) noexcept {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(a)));
}
inline F16 f16_lookup(const float* table, const uint8_t* codes) noexcept {
  const __m128i c = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(c), _mm512_loadu_ps(table));
}
inline F16 f16_lookup256(const float* table, const uint8_t* codes) noexcept {
  const __m128i c = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  return _mm512_i32gather_ps(_mm512_cvtepu8_epi32(c), table, 4);
}
using Lanes = __mmask16;
inline Lanes lanes_of(const uint8_t* codes, uint8_t k) noexcept {
  const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  return _mm_cmpeq_epi8_mask(all, _mm_set1_epi8(char(k)));
}
inline F16 f16_add_in(Lanes lanes, F16 sum, F16 x) noexcept {
  return _mm512_mask_add_ps(sum, lanes, sum, x);
}

inline float f16_lowest(F16 a) noexcept { return _mm512_reduce_min_ps(a); }
inline float f16_highest(F16 a) noexcept { return _mm512_reduce_max_ps(a); }

inline float f16_fold(F16 a) noexcept {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

inline __m512 fold_to_8(__m512 a, __m512 b) noexcept {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
}
inline __m512 fold_to_4(__m512 a, __m512 b) noexcept {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}
inline __m512 fold_to_2(__m512 a, __m512 b) noexcept {
  const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                       _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
inline __m512 fold_to_1(__m512 a, __m512 b) noexcept {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
}
// Folds 16 registers together; place 4 * i + j of the result is the sum of a[4 * j + i].
inline __m512 fold_16(const __m512* a) noexcept {
  __m512 four[4];
  for (int i = 0; i < 4; ++i)
    four[i] = fold_to_4(fold_to_8(a[4 * i], a[4 * i + 1]), fold_to_8(a[4 * i + 2], a[4 * i + 3]));
  return fold_to_1(fold_to_2(four[0], four[1]), fold_to_2(four[2], four[3]));
}

template <int Q, int X>
inline void f16_store_folded(F16 (&acc)[X][Q], float* out, size_t stride) noexcept {
  if constexpr (Q == 4 && X == 4) {
    const __m512 sums = fold_16(&acc[0][0]);  // lane q, place x
    _mm_storeu_ps(out, _mm512_castps512_ps128(sums));
    _mm_storeu_ps(out + stride, _mm512_extractf32x4_ps(sums, 1));
    _mm_storeu_ps(out + 2 * stride, _mm512_extractf32x4_ps(sums, 2));
    _mm_storeu_ps(out + 3 * stride, _mm512_extractf32x4_ps(sums, 3));
  } else if constexpr (Q == 1 && X == 16) {
    const __m512i order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_ps(out, _mm512_permutexvar_ps(order, fold_16(&acc[0][0])));
  } else {
    for (int q = 0; q < Q; ++q)
      for (int x = 0; x < X; ++x) out[q * stride + x] = f16_fold(acc[x][q]);
  }
}

}  // namespace
}  // namespace swann

namespace swann {
#include "float_kernels.inl"
#include "encode.inl"
#include "equations.inl"
#include "bounds.inl"

namespace {

#include "scan.inl"
#include "avx512_scan.inl"

// Compressed within a register: a compressing store is slow on some machines.
inline size_t drop_below(Key* keys, size_t size, Key least) noexcept {
  const __m512i bound = _mm512_set1_epi64(int64_t(least));
  size_t kept = 0, i = 0;
  for (; i + 8 <= size; i += 8) {
    const __m512i eight = _mm512_loadu_si512(keys + i);
    const __mmask8 stay = _mm512_cmpge_epu64_mask(eight, bound);
    _mm512_storeu_si512(keys + kept, _mm512_maskz_compress_epi64(stay, eight));
    kept += size_t(__builtin_popcount(stay));
  }
  for (; i < size; ++i) {
    const Key key = keys[i];
    keys[kept] = key;
    kept += key >= least;
  }
  return kept;
}

#include "select.inl"

// Sums of one group for one query. Up to three lookups are first added in 8 bits. Of these, a 16-bit
// lane holds two: `both` adds whole lanes (low byte plus 256 times high byte), `odd` the high
// bytes; low sums follow by subtraction.
struct Sums {
  __m512i both_low, odd_low, both_high, odd_high;
};

inline void widen(__m512i low, __m512i high, Sums& sums) noexcept {
  sums.both_low = _mm512_add_epi16(sums.both_low, low);
  sums.odd_low = _mm512_add_epi16(sums.odd_low, _mm512_srli_epi16(low, 8));
  sums.both_high = _mm512_add_epi16(sums.both_high, high);
  sums.odd_high = _mm512_add_epi16(sums.odd_high, _mm512_srli_epi16(high, 8));
}

// Adds the four 128-bit lanes (four blocks) and puts the 32 sums in the order of the datapoints.
inline __m512i finish(const Sums& s) noexcept {
  const __m512i even_low = _mm512_sub_epi16(s.both_low, _mm512_slli_epi16(s.odd_low, 8));
  const __m512i even_high = _mm512_sub_epi16(s.both_high, _mm512_slli_epi16(s.odd_high, 8));
  const __m512i low = _mm512_add_epi16(_mm512_shuffle_i32x4(even_low, s.odd_low, 0x44),
                                       _mm512_shuffle_i32x4(even_low, s.odd_low, 0xEE));
  const __m512i high = _mm512_add_epi16(_mm512_shuffle_i32x4(even_high, s.odd_high, 0x44),
                                        _mm512_shuffle_i32x4(even_high, s.odd_high, 0xEE));
  const __m512i all = _mm512_add_epi16(_mm512_shuffle_i32x4(low, high, 0x88),
                                       _mm512_shuffle_i32x4(low, high, 0xDD));
  const __m512i order = _mm512_set_epi16(31, 23, 30, 22, 29, 21, 28, 20, 27, 19, 26, 18, 25, 17,
                                         24, 16, 15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1,
                                         8, 0);
  return _mm512_permutexvar_epi16(order, all);
}

// Looks 64 bytes of codes (four blocks) up for G groups and Q queries: codes are unpacked once for
// all queries, tables loaded once for all groups. Absent blocks look up a table of zeros.
template <int G, int Q>
inline void add_lookups(const uint8_t* codes, size_t group_bytes, const ScanQuery* queries,
                        size_t at, __mmask64 present, __m512i (&low)[G][Q],
                        __m512i (&high)[G][Q]) noexcept {
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i table[Q];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) table[q] = _mm512_maskz_loadu_epi8(present, queries[q].lut + at);
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    const __m512i packed = _mm512_maskz_loadu_epi8(present, codes + g * group_bytes + at);
    const __m512i a = _mm512_and_si512(packed, nibble);
    const __m512i b = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      low[g][q] = _mm512_add_epi8(low[g][q], _mm512_shuffle_epi8(table[q], a));
      high[g][q] = _mm512_add_epi8(high[g][q], _mm512_shuffle_epi8(table[q], b));
    }
  }
}

template <int G, int Q>
inline void clear(__m512i (&low)[G][Q], __m512i (&high)[G][Q]) noexcept {
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) low[g][q] = high[g][q] = _mm512_setzero_si512();
}

template <int G, int Q>
inline void widen_all(const __m512i (&low)[G][Q], const __m512i (&high)[G][Q],
                      Sums (&sums)[G][Q]) noexcept {
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) widen(low[g][q], high[g][q], sums[g][q]);
}

// G groups against Q queries in one pass.
template <int G, int Q, size_t most>
inline void scan_tile(const PackedLeaf& leaf, size_t group, size_t place, const ScanQuery* queries,
                      const __m512i (&thresholds)[Q], Found<most> (&found)[Q]) noexcept {
  constexpr __mmask64 kAll = ~__mmask64(0);
  const size_t bytes = leaf.blocks * 16;
  const uint8_t* codes = leaf.codes + group * bytes;
  const Ahead<G, Q> ahead(leaf, group);
  Sums sums[G][Q];
  const __m512i zero = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) sums[g][q] = {zero, zero, zero, zero};
  __m512i low[G][Q], high[G][Q];
  size_t at = 0;
  for (; at + 64 * 3 <= bytes; at += 64 * 3) {
    clear<G, Q>(low, high);
#pragma GCC unroll 3
    for (size_t i = 0; i < 3; ++i) {
      ahead.fetch(at + 64 * i);
      add_lookups<G, Q>(codes, bytes, queries, at + 64 * i, kAll, low, high);
    }
    widen_all<G, Q>(low, high, sums);
  }
  if (at < bytes) {
    clear<G, Q>(low, high);
    for (; at + 64 <= bytes; at += 64)
      add_lookups<G, Q>(codes, bytes, queries, at, kAll, low, high);
    if (at < bytes)
      add_lookups<G, Q>(codes, bytes, queries, at, (__mmask64(1) << (bytes - at)) - 1, low, high);
    widen_all<G, Q>(low, high, sums);
  }
  // Unrolled like the rest: an index known only at run time would put the sums into memory.
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      found[q].masks[place + g] = keep_sums(leaf, group + g, queries[q], thresholds[q],
                                            finish(sums[g][q]), found[q].sums[place + g]);
    }
}

template <int G, int Q>
inline size_t scan(const PackedLeaf& leaf, size_t group, ScanQuery* queries) noexcept {
  Found<Q == 1 ? 32 : 16> found[Q];
  __m512i thresholds[Q];
  for (int q = 0; q < Q; ++q) thresholds[q] = threshold_of(queries[q]);
  while (const size_t count = groups_from(leaf, group, queries, Q, found->kMost)) {
    size_t g = 0;
    for (; g + G <= count; g += G)
      scan_tile<G, Q>(leaf, group + g, g, queries, thresholds, found);
    if constexpr (G > 1)
      for (; g < count; ++g) scan_tile<1, Q>(leaf, group + g, g, queries, thresholds, found);
    take_found(leaf, group, count, found, queries, Q, append_found);
  }
  return group;
}

size_t lut16_scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                  size_t num_queries) noexcept {
  if (num_queries == 1) return scan<2, 1>(*leaf, first_group, queries);
  if (num_queries == 2) return scan<1, 2>(*leaf, first_group, queries);
  return scan<1, 3>(*leaf, first_group, queries);
}

// ---- Codes of 8 bits

constexpr size_t kGroupsAtOnce = 8;

// A code's upper seven bits name a pair of entries, its lowest bit one of the two.
template <size_t count>
inline void sums_of(const uint8_t* codes, size_t group_bytes, size_t blocks, const uint8_t* lut,
                    uint16_t* sums) noexcept {
  const __m512i one = _mm512_set1_epi16(1), byte = _mm512_set1_epi16(255);
  const __m512i top = _mm512_set1_epi16(128);
  __m512i total[count];
#pragma GCC unroll 8
  for (size_t g = 0; g < count; ++g) total[g] = _mm512_setzero_si512();
  for (size_t m = 0; m < blocks; ++m, codes += kGroup, lut += kWords256) {
    const __m512i pairs[] = {_mm512_loadu_si512(lut), _mm512_loadu_si512(lut + 64),
                             _mm512_loadu_si512(lut + 128), _mm512_loadu_si512(lut + 192)};
#pragma GCC unroll 8
    for (size_t g = 0; g < count; ++g) {
      const __m512i code = _mm512_cvtepu8_epi16(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + g * group_bytes)));
      const __m512i pair = _mm512_srli_epi16(code, 1);
      const __m512i lower = _mm512_permutex2var_epi16(pairs[0], pair, pairs[1]);
      const __m512i upper = _mm512_permutex2var_epi16(pairs[2], pair, pairs[3]);
      __m512i entry =
          _mm512_mask_blend_epi16(_mm512_test_epi16_mask(code, top), lower, upper);
      entry = _mm512_mask_srli_epi16(entry, _mm512_test_epi16_mask(code, one), entry, 8);
      total[g] = _mm512_add_epi16(total[g], _mm512_and_si512(entry, byte));
    }
  }
#pragma GCC unroll 8
  for (size_t g = 0; g < count; ++g) _mm512_store_si512(sums + g * kGroup, total[g]);
}

void lut256_sums(const PackedLeaf& leaf, size_t group, size_t count, const uint8_t* lut,
                 uint16_t* sums) noexcept {
  const size_t bytes = leaf.blocks * kGroup;
  const uint8_t* codes = leaf.codes + group * bytes;
  if (count == 8) return sums_of<8>(codes, bytes, leaf.blocks, lut, sums);
  for (size_t g = 0; g < count; ++g)
    sums_of<1>(codes + g * bytes, bytes, leaf.blocks, lut, sums + g * kGroup);
}

#include "lut256_scan.inl"

// ---- Rows of 8 bits

using I16 = __m512i;

inline I16 i16_zero() noexcept { return _mm512_setzero_si512(); }
inline void add_wide_products(I16& sums, const int16_t* query, const int8_t* row) noexcept {
  const __m512i words =
      _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row)));
  sums = _mm512_add_epi32(sums, _mm512_madd_epi16(words, _mm512_loadu_si512(query)));
}
inline F16 f16_from(I16 sums) noexcept { return _mm512_cvtepi32_ps(sums); }

#include "upper_i8.inl"

#include "put_kernels.inl"

}  // namespace

void put_avx512bw(KernelTable& table) noexcept {
  table.level = "avx512bw";
  table.scan_queries = 3;
  put_kernels(table);
  table.upper_i8 = upper_i8;
}

}  // namespace swann

// Level avx2: AVX2, FMA, F16C, BMI, POPCNT (Haswell, Zen and newer).
#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "kernels.h"
#include "prefetch.h"

namespace swann {
namespace {

struct F16 {
  __m256 a, b;
};

constexpr int kTileQueries = 2, kTileRows = 2, kSingleTileRows = 4;
constexpr int kTiledRows = 6, kTilesAtOnce = 1;

inline F16 f16_zero() noexcept { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F16 f16_set(float x) noexcept { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F16 f16_load(const float* p) noexcept {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
inline F16 from_bf16(__m128i first, __m128i second) noexcept {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(first), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(second), 16))};
}
inline F16 from_i8(__m128i all) noexcept {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(all)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(all, 8)))};
}
inline __m128i load_16_bytes(const void* p) noexcept {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
inline F16 f16_load_bf16(const uint16_t* p) noexcept {
  return from_bf16(load_16_bytes(p), load_16_bytes(p + 8));
}
inline F16 f16_load_i8(const int8_t* p) noexcept { return from_i8(load_16_bytes(p)); }

// The last n of 16 bytes that end at `end`, moved to the front; the rest is zero.
inline __m128i last_bytes(const void* end, size_t n) noexcept {
  alignas(16) static const uint8_t order[32] = {
      0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,   12,   13,   14,   15,
      0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};
  return _mm_shuffle_epi8(load_16_bytes(static_cast<const char*>(end) - 16),
                          load_16_bytes(order + 16 - n));
}
constexpr bool kLoadsFirst = false;  // of long rows only: they reach back
inline F16 f16_load_first(const uint16_t* p, size_t count) noexcept {
  const uint16_t* end = p + count;
  if (count < 8) return from_bf16(last_bytes(end, 2 * count), _mm_setzero_si128());
  return from_bf16(load_16_bytes(p), last_bytes(end, 2 * (count - 8)));
}
inline F16 f16_load_first(const int8_t* p, size_t count) noexcept {
  return from_i8(last_bytes(p + count, count));
}
inline F16 f16_load_first(const float* p, size_t count) noexcept {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i n = _mm256_set1_epi32(int(count));
  const __m256i low = _mm256_cmpgt_epi32(n, lane);
  const __m256i high = _mm256_cmpgt_epi32(n, _mm256_add_epi32(lane, _mm256_set1_epi32(8)));
  return {_mm256_maskload_ps(p, low), _mm256_maskload_ps(p + 8, high)};
}
inline F16 f16_add(F16 x, F16 y) noexcept {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
inline F16 f16_sub(F16 x, F16 y) noexcept {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
inline F16 f16_mul(F16 x, F16 y) noexcept {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
inline F16 f16_fma(F16 x, F16 y, F16 z) noexcept {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline F16 f16_min(F16 x, F16 y) noexcept {
  return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
inline F16 f16_select_less(F16 l, F16 r, F16 x, F16 y) noexcept {
  return {_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(l.a, r.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(l.b, r.b, _CMP_LT_OQ))};
}
inline uint32_t f16_at_least(F16 x, F16 y) noexcept {
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ));
  return uint32_t(low) | uint32_t(high) << 8;
}
inline void f16_store(float* p, F16 x) noexcept {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void f16_store_u8(uint8_t* p, F16 x) noexcept {
  const __m256i words = _mm256_permute4x64_epi64(
      _mm256_packus_epi32(_mm256_cvttps_epi32(x.a), _mm256_cvttps_epi32(x.b)), 0xD8);
  const __m128i bytes =
      _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
inline F16 f16_lookup(const float* table, const uint8_t* codes) noexcept {
  const __m128i c = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  return {_mm256_i32gather_ps(table, _mm256_cvtepu8_epi32(c), 4),
          _mm256_i32gather_ps(table, _mm256_cvtepu8_epi32(_mm_srli_si128(c, 8)), 4)};
}
inline F16 f16_lookup256(const float* table, const uint8_t* codes) noexcept {
  return f16_lookup(table, codes);
}

struct Lanes {
  __m256 a, b;
};
inline Lanes lanes_of(const uint8_t* codes, uint8_t k) noexcept {
  const __m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)),
                                       _mm_set1_epi8(char(k)));
  return {_mm256_castsi256_ps(_mm256_cvtepi8_epi32(equal)),
          _mm256_castsi256_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(equal, 8)))};
}
inline F16 f16_add_in(const Lanes& lanes, F16 sum, F16 x) noexcept {
  return {_mm256_add_ps(sum.a, _mm256_and_ps(lanes.a, x.a)),
          _mm256_add_ps(sum.b, _mm256_and_ps(lanes.b, x.b))};
}

inline float f16_fold(F16 x) noexcept {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float f16_lowest(F16 x) noexcept {
  const __m256 eight = _mm256_min_ps(x.a, x.b);
  const __m128 four = _mm_min_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_min_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_min_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float f16_highest(F16 x) noexcept {
  const __m256 eight = _mm256_max_ps(x.a, x.b);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
template <int Q, int X>
inline void f16_store_folded(F16 (&acc)[X][Q], float* out, size_t stride) noexcept {
  for (int q = 0; q < Q; ++q)
    for (int x = 0; x < X; ++x) out[q * stride + x] = f16_fold(acc[x][q]);
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
#include "avx2_drop_below.inl"
#include "select.inl"

#include "avx2_scan.inl"

// ---- Codes of 8 bits

constexpr size_t kGroupsAtOnce = 4;

// The table in 16 parts of 16 entries, which a shuffle looks up by the low half of a code. A shuffle
// gives 0 where the code's top bit is set. So codes count down by 16 from part to part and stay
// negative once they are: those of the upper half in eight steps, after their top bit is turned.
// Part k holds its difference (by xor) to part k - 1: what a code meets on its way adds up to the
// entry of its own part.
template <size_t count>
inline void look_up_half(const uint8_t* parts, __m256i (&codes)[count],
                         __m256i (&entries)[count]) noexcept {
  const __m256i step = _mm256_set1_epi8(16);
  __m256i before = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (size_t k = 0; k < 8; ++k) {
    const __m256i part = _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(parts + 16 * k)));
    const __m256i difference = _mm256_xor_si256(part, before);
    before = part;
#pragma GCC unroll 4
    for (size_t g = 0; g < count; ++g) {
      entries[g] = _mm256_xor_si256(entries[g], _mm256_shuffle_epi8(difference, codes[g]));
      codes[g] = _mm256_subs_epi8(codes[g], step);
    }
  }
}

template <size_t count>
inline void sums_of(const uint8_t* codes, size_t group_bytes, size_t blocks, const uint8_t* lut,
                    uint16_t* sums) noexcept {
  const __m256i top = _mm256_set1_epi8(-128);
  __m256i both[count], odd[count];  // as in Sums
  for (size_t g = 0; g < count; ++g) both[g] = odd[g] = _mm256_setzero_si256();
  for (size_t m = 0; m < blocks; ++m, codes += kGroup, lut += kWords256) {
    __m256i lower[count], upper[count], entries[count];
#pragma GCC unroll 4
    for (size_t g = 0; g < count; ++g) {
      lower[g] = load_two(codes + g * group_bytes);
      entries[g] = _mm256_setzero_si256();
    }
    look_up_half<count>(lut, lower, entries);
#pragma GCC unroll 4
    for (size_t g = 0; g < count; ++g)
      upper[g] = _mm256_xor_si256(load_two(codes + g * group_bytes), top);
    look_up_half<count>(lut + 128, upper, entries);
#pragma GCC unroll 4
    for (size_t g = 0; g < count; ++g) {
      both[g] = _mm256_add_epi16(both[g], entries[g]);
      odd[g] = _mm256_add_epi16(odd[g], _mm256_srli_epi16(entries[g], 8));
    }
  }
  for (size_t g = 0; g < count; ++g) {
    const __m256i even = _mm256_sub_epi16(both[g], _mm256_slli_epi16(odd[g], 8));
    auto* out = reinterpret_cast<__m256i*>(sums + g * kGroup);  // as append_found takes them
    _mm256_store_si256(out, even);
    _mm256_store_si256(out + 1, odd[g]);
  }
}

void lut256_sums(const PackedLeaf& leaf, size_t group, size_t count, const uint8_t* lut,
                 uint16_t* sums) noexcept {
  const size_t bytes = leaf.blocks * kGroup;
  const uint8_t* codes = leaf.codes + group * bytes;
  if (count == 4) return sums_of<4>(codes, bytes, leaf.blocks, lut, sums);
  for (size_t g = 0; g < count; ++g)
    sums_of<1>(codes + g * bytes, bytes, leaf.blocks, lut, sums + g * kGroup);
}

#include "lut256_scan.inl"

// ---- Rows of 8 bits

constexpr size_t kI8Tile = 5, kI8Groups = 4;
constexpr int32_t kI8Most = 63;  // two products of a query's byte and a row's fit 16 bits

struct I16 {
  __m256i a, b;
};
using I8Quad = __m256i;

inline I16 i16_start(int32_t start) noexcept {
  return {_mm256_set1_epi32(start), _mm256_set1_epi32(start)};
}
inline I8Quad i8_quad(const int8_t* bytes) noexcept {
  int32_t four;
  __builtin_memcpy(&four, bytes, 4);
  return _mm256_set1_epi32(four);
}
inline __m256i products_of(const uint8_t* rows, I8Quad quad) noexcept {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(load_two(rows), quad), _mm256_set1_epi16(1));
}
inline void add_products(I16& sums, const uint8_t* rows, I8Quad quad) noexcept {
  sums.a = _mm256_add_epi32(sums.a, products_of(rows, quad));
  sums.b = _mm256_add_epi32(sums.b, products_of(rows + 32, quad));
}
inline F16 f16_from(I16 sums) noexcept {
  return {_mm256_cvtepi32_ps(sums.a), _mm256_cvtepi32_ps(sums.b)};
}
inline uint32_t not_below(F16 x, F16 y) noexcept {
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_NLT_UQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_NLT_UQ));
  return uint32_t(low) | uint32_t(high) << 8;
}

#include "i8.inl"

inline I16 i16_zero() noexcept { return i16_start(0); }
inline void add_wide_products(I16& sums, const int16_t* query, const int8_t* row) noexcept {
  const auto products = [&](size_t at) SWANN_INLINE {
    const auto* values = reinterpret_cast<const __m256i*>(query + at);
    return _mm256_madd_epi16(_mm256_cvtepi8_epi16(load_16_bytes(row + at)),
                             _mm256_loadu_si256(values));
  };
  sums.a = _mm256_add_epi32(sums.a, products(0));
  sums.b = _mm256_add_epi32(sums.b, products(16));
}

#include "upper_i8.inl"

#include "put_kernels.inl"

}  // namespace

void put_avx2(KernelTable& table) noexcept {
  table.level = "avx2";
  table.scan_queries = 12;
  put_kernels(table);
  table.i8_pack = i8_pack;
  table.i8_filter = i8_filter;
  table.i8_products = i8_products;
  table.i8_most = kI8Most;
  table.upper_i8 = upper_i8;
}

}  // namespace swann

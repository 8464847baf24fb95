// Level avx512vnni: bytes are looked up in 64 at a time (VBMI), and four of them added into 32 bits
// (VNNI): Ice Lake, Zen 4 and newer. The scans are all that it adds to avx512bw.
#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "kernels.h"

namespace swann {
namespace {

#include "scan.inl"
#include "avx512_scan.inl"

// Calls f(0), ..., f(N - 1) with constants: arrays indexed by them live in registers, where the
// compiler's own unrolling would come too late for that.
#define SWANN_INLINE __attribute__((always_inline))
template <size_t N, typename F>
SWANN_INLINE inline void unrolled(const F& f) noexcept {
  [&]<size_t... I>(std::index_sequence<I...>) SWANN_INLINE {
    (f(std::integral_constant<size_t, I>{}), ...);
  }(std::make_index_sequence<N>{});
}

// Adds the four products of bytes in each lane. Saying that the sum is in a register keeps GCC 12
// from storing it in every turn of a loop.
SWANN_INLINE inline void add_products(__m512i& sum, __m512i unsigned_bytes,
                                      __m512i signed_bytes) noexcept {
  sum = _mm512_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
  __asm__("" : "+v"(sum));
}

// ---- Codes of 4 bits

// Scores of the datapoints 0 to 15 and 16 to 31 of a group.
struct Sums {
  __m512i low, high;
};

// Looks 64 bytes of codes (four blocks) up for G groups and Q queries. Turned, the codes of a
// datapoint in four blocks lie side by side, so that one register looks up in the tables of all
// four, and one instruction adds what was found. Absent blocks look up a table of zeros.
template <size_t G, size_t Q>
inline void add_lookups(const uint8_t* codes, size_t group_bytes, const ScanQuery* queries,
                        size_t at, __mmask64 present, Sums (&sums)[G][Q]) noexcept {
  const __m512i turn = _mm512_set_epi8(
      63, 47, 31, 15, 62, 46, 30, 14, 61, 45, 29, 13, 60, 44, 28, 12, 59, 43, 27, 11, 58, 42, 26,
      10, 57, 41, 25, 9, 56, 40, 24, 8, 55, 39, 23, 7, 54, 38, 22, 6, 53, 37, 21, 5, 52, 36, 20, 4,
      51, 35, 19, 3, 50, 34, 18, 2, 49, 33, 17, 1, 48, 32, 16, 0);
  const __m512i nibble = _mm512_set1_epi8(15), ones = _mm512_set1_epi8(1);
  const __m512i tables = _mm512_set1_epi32(0x30201000);  // where each block's entries begin
  constexpr int kAndOr = 0xEA;                           // a & b | c
  __m512i low[G], high[G];
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g) {
    const __m512i packed = _mm512_permutexvar_epi8(
        turn, _mm512_maskz_loadu_epi8(present, codes + g * group_bytes + at));
    low[g] = _mm512_ternarylogic_epi32(packed, nibble, tables, kAndOr);
    high[g] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(packed, 4), nibble, tables, kAndOr);
  }
#pragma GCC unroll 8
  for (size_t q = 0; q < Q; ++q) {
    const __m512i table = _mm512_maskz_loadu_epi8(present, queries[q].lut + at);
#pragma GCC unroll 4
    for (size_t g = 0; g < G; ++g) {
      Sums& s = sums[g][q];
      add_products(s.low, _mm512_permutexvar_epi8(low[g], table), ones);
      add_products(s.high, _mm512_permutexvar_epi8(high[g], table), ones);
    }
  }
}

// Appends the keys of the datapoints in `mask`, of 16 from `row` on: without a loop, whose end no
// processor foresees.
inline void append_keys(ScanQuery& query, uint32_t row, uint32_t mask, __m512i sums) noexcept {
  const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i rows = _mm512_sub_epi32(_mm512_set1_epi32(int32_t(~row)), count);
  const __m512i scores =
      _mm512_add_epi32(sums, _mm512_set1_epi32(int32_t(uint32_t(query.bias) ^ 0x80000000u)));
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  Key* out = query.out + query.size;
  const auto low = __mmask8(mask), high = __mmask8(mask >> 8);
  _mm512_storeu_si512(
      out, _mm512_maskz_compress_epi64(low, _mm512_permutex2var_epi32(rows, first, scores)));
  _mm512_storeu_si512(
      out + __builtin_popcount(low),
      _mm512_maskz_compress_epi64(high, _mm512_permutex2var_epi32(rows, second, scores)));
  query.size += size_t(__builtin_popcount(mask));
}

inline void keep_survivors(const PackedLeaf& leaf, size_t group, Sums sums,
                           ScanQuery& query) noexcept {
  if (leaf.corrections != nullptr) {
    const __m512i added = _mm512_mulhi_epu16(
        _mm512_loadu_si512(leaf.corrections + group * kGroup),
        _mm512_set1_epi16(int16_t(query.multiplier)));
    sums.low = _mm512_add_epi32(sums.low,
                                _mm512_cvtepu16_epi32(_mm512_castsi512_si256(added)));
    sums.high = _mm512_add_epi32(sums.high,
                                 _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(added, 1)));
  }
  const __m512i threshold = _mm512_set1_epi32(query.threshold);
  uint32_t mask = uint32_t(_mm512_cmpge_epi32_mask(sums.low, threshold)) |
                  uint32_t(_mm512_cmpge_epi32_mask(sums.high, threshold)) << 16;
  mask &= valid_mask(leaf, group);
  if (mask == 0) return;
  const uint32_t row = leaf.first_row + uint32_t(group * kGroup);
  append_keys(query, row, mask & 0xFFFF, sums.low);
  append_keys(query, row + 16, mask >> 16, sums.high);
}

// Where to fetch from while `bytes` from `at` on are scanned: a little further on, or what comes
// after the leaf. Memory answers an early query in time, and no instruction waits for it.
inline const uint8_t* ahead(const PackedLeaf& leaf, size_t at, size_t bytes) noexcept {
  constexpr size_t kAhead = 6144;
  const size_t end = (leaf.count + kGroup - 1) / kGroup * leaf.blocks * 16;
  if (at + kAhead + bytes <= end || leaf.next == nullptr) return leaf.codes + at + kAhead;
  return leaf.next + (at + kAhead + bytes - end);
}

// G groups against Q queries in one pass.
template <size_t G, size_t Q>
inline void scan_tile(const PackedLeaf& leaf, size_t group, ScanQuery* queries) noexcept {
  constexpr __mmask64 kAll = ~__mmask64(0);
  const size_t bytes = leaf.blocks * 16;
  const uint8_t* codes = leaf.codes + group * bytes;
  if constexpr (Q == 1) {
    const uint8_t* fetched = ahead(leaf, group * bytes, G * bytes);
    for (size_t i = 0; i < G * bytes; i += 64)
      _mm_prefetch(reinterpret_cast<const char*>(fetched + i), _MM_HINT_T0);
  }
  Sums sums[G][Q];
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (size_t q = 0; q < Q; ++q)
      sums[g][q] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  size_t at = 0;
  for (; at + 64 <= bytes; at += 64) add_lookups<G, Q>(codes, bytes, queries, at, kAll, sums);
  if (at < bytes)
    add_lookups<G, Q>(codes, bytes, queries, at, (__mmask64(1) << (bytes - at)) - 1, sums);
#pragma GCC unroll 8
  for (size_t q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (size_t g = 0; g < G; ++g) keep_survivors(leaf, group + g, sums[g][q], queries[q]);
}

template <size_t G, size_t Q>
inline size_t scan(const PackedLeaf& leaf, size_t group, ScanQuery* queries) noexcept {
  const size_t groups = (leaf.count + kGroup - 1) / kGroup;
  for (; group + G <= groups; group += G) {
    if (!has_room(queries, Q, G * kGroup)) break;
    scan_tile<G, Q>(leaf, group, queries);
  }
  for (; group < groups && has_room(queries, Q, kGroup); ++group)
    scan_tile<1, Q>(leaf, group, queries);
  return group;
}

size_t lut16_scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                  size_t num_queries) noexcept {
  switch (num_queries) {
    case 1: return scan<4, 1>(*leaf, first_group, queries);
    case 2: return scan<2, 2>(*leaf, first_group, queries);
    case 3: return scan<2, 3>(*leaf, first_group, queries);
    case 4: return scan<2, 4>(*leaf, first_group, queries);
    case 5: return scan<1, 5>(*leaf, first_group, queries);
    default: return scan<1, 6>(*leaf, first_group, queries);
  }
}

// ---- Codes of 8 bits

constexpr size_t kGroupsAtOnce = 8;

// Two groups, which lie group_bytes apart, fill a register.
template <size_t pairs>
inline void sums_of(const uint8_t* codes, size_t group_bytes, size_t blocks, const uint8_t* lut,
                    uint16_t* sums) noexcept {
  const __m512i sixth = _mm512_set1_epi8(64);
  __m512i both[pairs], odd[pairs];  // whole 16-bit lanes, and their upper bytes
#pragma GCC unroll 4
  for (size_t p = 0; p < pairs; ++p) both[p] = odd[p] = _mm512_setzero_si512();
  for (size_t m = 0; m < blocks; ++m, codes += kGroup, lut += kWords256) {
    const __m512i table[] = {_mm512_loadu_si512(lut), _mm512_loadu_si512(lut + 64),
                             _mm512_loadu_si512(lut + 128), _mm512_loadu_si512(lut + 192)};
#pragma GCC unroll 4
    for (size_t p = 0; p < pairs; ++p) {
      const uint8_t* at = codes + 2 * p * group_bytes;
      const __m512i code = _mm512_inserti64x4(
          _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + group_bytes)), 1);
      // Of a code, six bits find an entry of a quarter, the two above them the quarter.
      const __mmask64 odd_quarter = _mm512_test_epi8_mask(code, sixth);
      __m512i lower = _mm512_permutexvar_epi8(code, table[0]);
      lower = _mm512_mask_permutexvar_epi8(lower, odd_quarter, code, table[1]);
      __m512i upper = _mm512_permutexvar_epi8(code, table[2]);
      upper = _mm512_mask_permutexvar_epi8(upper, odd_quarter, code, table[3]);
      const __m512i entry = _mm512_mask_blend_epi8(_mm512_movepi8_mask(code), lower, upper);
      both[p] = _mm512_add_epi16(both[p], entry);
      odd[p] = _mm512_add_epi16(odd[p], _mm512_srli_epi16(entry, 8));
    }
  }
#pragma GCC unroll 4
  for (size_t p = 0; p < pairs; ++p) {
    const __m512i even = _mm512_sub_epi16(both[p], _mm512_slli_epi16(odd[p], 8));
    store_in_order<false>(even, odd[p], sums + 2 * p * kGroup);
    store_in_order<true>(even, odd[p], sums + (2 * p + 1) * kGroup);
  }
}

void lut256_sums(const PackedLeaf& leaf, size_t group, size_t count, const uint8_t* lut,
                 uint16_t* sums) noexcept {
  const size_t bytes = leaf.blocks * kGroup;
  const uint8_t* codes = leaf.codes + group * bytes;
  if (count == 8) return sums_of<4>(codes, bytes, leaf.blocks, lut, sums);
  size_t g = 0;
  for (; g + 2 <= count; g += 2)
    sums_of<1>(codes + g * bytes, bytes, leaf.blocks, lut, sums + g * kGroup);
  // A last group alone is taken twice: there is room for the sums of eight.
  if (g < count) sums_of<1>(codes + g * bytes, 0, leaf.blocks, lut, sums + g * kGroup);
}

#include "lut256_scan.inl"

#include "avx512_i8.inl"

constexpr KernelTable only_the_scans() noexcept {
  KernelTable table = {};
  table.level = "avx512vnni";
  table.scan_queries = 6;
  table.lut16_scan = lut16_scan;
  table.lut16_wide_scan = lut16_scan;  // adds in 32 bits
  table.lut256_scan = lut256_scan;
  table.i8_pack = i8_pack;
  table.i8_filter = i8_filter;
  table.i8_bounds = i8_bounds;
  return table;
}

}  // namespace

constinit const KernelTable avx512vnni_table = only_the_scans();

}  // namespace swann

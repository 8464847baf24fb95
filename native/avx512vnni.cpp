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
#include "unrolled.inl"

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

// 64 bytes of codes (four blocks of 32 datapoints) turned, so that the codes of a datapoint lie side
// by side, each with the place where its block's table begins in a register of four tables.
inline void turn_codes(__m512i codes, __m512i& low, __m512i& high) noexcept {
  const __m512i turn = _mm512_set_epi8(
      63, 47, 31, 15, 62, 46, 30, 14, 61, 45, 29, 13, 60, 44, 28, 12, 59, 43, 27, 11, 58, 42, 26,
      10, 57, 41, 25, 9, 56, 40, 24, 8, 55, 39, 23, 7, 54, 38, 22, 6, 53, 37, 21, 5, 52, 36, 20, 4,
      51, 35, 19, 3, 50, 34, 18, 2, 49, 33, 17, 1, 48, 32, 16, 0);
  const __m512i nibble = _mm512_set1_epi8(15), tables = _mm512_set1_epi32(0x30201000);
  constexpr int kAndOr = 0xEA;  // a & b | c
  const __m512i packed = _mm512_permutexvar_epi8(turn, codes);
  low = _mm512_ternarylogic_epi32(packed, nibble, tables, kAndOr);
  high = _mm512_ternarylogic_epi32(_mm512_srli_epi16(packed, 4), nibble, tables, kAndOr);
}

// Looks four blocks up for G groups and Q queries: one register looks up in the tables of all four,
// one instruction adds what was found. Absent blocks look up a table of zeros.
template <size_t G, size_t Q>
inline void add_lookups(const uint8_t* codes, size_t group_bytes, const ScanQuery* queries,
                        size_t at, __mmask64 present, Sums (&sums)[G][Q]) noexcept {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i low[G], high[G];
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g)
    turn_codes(_mm512_maskz_loadu_epi8(present, codes + g * group_bytes + at), low[g], high[g]);
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

inline __m512i sixteen_from(uint32_t first) noexcept {
  return _mm512_add_epi32(
      _mm512_set1_epi32(int32_t(first)),
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

// Sixteen keys, of rows (their complements) and scores in order.
inline void store_16_keys(__m512i rows, __m512i scores, Key* out) noexcept {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi32(rows, first, scores));
  _mm512_storeu_si512(out + 8, _mm512_permutex2var_epi32(rows, second, scores));
}

// Appends the keys of those of 16 rows that are in `mask`: without a loop, whose end no processor
// foresees. There is room for 16.
inline void append_rows(ScanQuery& query, __m512i named, uint32_t mask, __m512i sums) noexcept {
  const __m512i rows = _mm512_xor_si512(named, _mm512_set1_epi32(-1));
  const __m512i scores =
      _mm512_add_epi32(sums, _mm512_set1_epi32(int32_t(uint32_t(query.bias) ^ 0x80000000u)));
  store_16_keys(_mm512_maskz_compress_epi32(__mmask16(mask), rows),
                _mm512_maskz_compress_epi32(__mmask16(mask), scores), query.out + query.size);
  query.size += size_t(__builtin_popcount(mask));
}

// Datapoints of a group in the order in which two registers of sums become one of 16 bits.
inline __m512i lanes() noexcept {
  return _mm512_set_epi16(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8, 23, 22, 21,
                          20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
}

inline void store_keys(__m256i sums, __m256i places, __m512i bias, __m512i row, Key* out) noexcept {
  const __m512i scores = _mm512_add_epi32(_mm512_cvtepu16_epi32(sums), bias);
  const __m512i rows = _mm512_add_epi32(_mm512_cvtepu16_epi32(places), row);
  store_16_keys(_mm512_xor_si512(rows, _mm512_set1_epi32(-1)), scores, out);
}

// As `append`, of sums in the order of `lanes`. There is room for 32.
inline void append_lanes(ScanQuery& query, uint32_t row, uint32_t mask,
                         const uint16_t* sums) noexcept {
  const __m512i bias = _mm512_set1_epi32(int32_t(uint32_t(query.bias) ^ 0x80000000u));
  const __m512i first = _mm512_set1_epi32(int32_t(row));
  const __m512i found = _mm512_maskz_compress_epi16(mask, _mm512_load_si512(sums));
  const __m512i places = _mm512_maskz_compress_epi16(mask, lanes());
  const auto size = size_t(__builtin_popcount(mask));
  Key* const out = query.out + query.size;
  store_keys(_mm512_castsi512_si256(found), _mm512_castsi512_si256(places), bias, first, out);
  if (size > 16)
    store_keys(_mm512_extracti64x4_epi64(found, 1), _mm512_extracti64x4_epi64(places, 1), bias,
               first, out + 16);
  query.size += size;
}

// What a group adds to the sums of a query.
struct Corrections {
  __m512i values = _mm512_setzero_si512();
  uint32_t valid;  // datapoints that there are

  Corrections(const PackedLeaf& leaf, size_t group) noexcept {
    if (leaf.corrections != nullptr)
      values = _mm512_permutexvar_epi16(lanes(), _mm512_loadu_si512(leaf.corrections + group * kGroup));
    const size_t left = leaf.count - group * kGroup;
    valid = left >= kGroup ? ~0u : _mm512_cmplt_epu16_mask(lanes(), _mm512_set1_epi16(short(left)));
  }
};

// G groups against Q queries in one pass.
template <size_t G, size_t Q, size_t most>
inline void scan_tile(const PackedLeaf& leaf, size_t group, size_t place, const ScanQuery* queries,
                      const __m512i (&thresholds)[Q], Found<most> (&found)[Q]) noexcept {
  constexpr __mmask64 kAll = ~__mmask64(0);
  const size_t bytes = leaf.blocks * 16;
  const uint8_t* codes = leaf.codes + group * bytes;
  const Ahead<G, Q> ahead(leaf, group);
  Sums sums[G][Q];
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (size_t q = 0; q < Q; ++q)
      sums[g][q] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  size_t at = 0;
  for (; at + 64 <= bytes; at += 64) {
    ahead.fetch(at);
    add_lookups<G, Q>(codes, bytes, queries, at, kAll, sums);
  }
  if (at < bytes)
    add_lookups<G, Q>(codes, bytes, queries, at, (__mmask64(1) << (bytes - at)) - 1, sums);
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g) {
    const Corrections corrections(leaf, group + g);
#pragma GCC unroll 8
    for (size_t q = 0; q < Q; ++q) {
      __m512i all = _mm512_packus_epi32(sums[g][q].low, sums[g][q].high);
      if (leaf.corrections != nullptr)
        all = _mm512_add_epi16(all, _mm512_mulhi_epu16(corrections.values, _mm512_set1_epi16(int16_t(queries[q].multiplier))));
      const uint32_t mask = _mm512_cmpge_epu16_mask(all, thresholds[q]) & corrections.valid;
      _mm512_store_si512(found[q].sums[place + g], all);
      found[q].masks[place + g] = mask;
    }
  }
}

template <size_t G, size_t Q>
inline size_t scan(const PackedLeaf& leaf, size_t group, ScanQuery* queries) noexcept {
  Found<Q == 1 ? 32 : 16> found[Q];
  __m512i thresholds[Q];
  for (size_t q = 0; q < Q; ++q) thresholds[q] = _mm512_set1_epi16(int16_t(queries[q].threshold));
  while (const size_t count = groups_from(leaf, group, queries, Q, found->kMost)) {
    size_t g = 0;
    for (; g + G <= count; g += G)
      scan_tile<G, Q>(leaf, group + g, g, queries, thresholds, found);
    // One group alone waits for its own sums: two are as fast.
    if constexpr (G > 2)
      if (g + 2 <= count) {
        scan_tile<2, Q>(leaf, group + g, g, queries, thresholds, found);
        g += 2;
      }
    if constexpr (G > 1)
      if (g < count) scan_tile<1, Q>(leaf, group + g, g, queries, thresholds, found);
    take_found(leaf, group, count, found, queries, Q, append_lanes);
  }
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

// ---- Codes of 4 bits as tiles

// Which of the four blocks from `block` on there are, 16 bytes each.
inline __mmask64 present_blocks(size_t blocks, size_t block) noexcept {
  const size_t left = blocks - block;
  return left >= 4 ? ~__mmask64(0) : (__mmask64(1) << (16 * left)) - 1;
}

// Rows become columns, of 4 bytes each.
inline void transpose(__m512i (&rows)[16]) noexcept {
  __m512i pairs[16];
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; ++h) {
      const __m512i a = rows[i + h], b = rows[i + h + 2];
      pairs[i + 2 * h] = _mm512_unpacklo_epi32(a, b);
      pairs[i + 2 * h + 1] = _mm512_unpackhi_epi32(a, b);
    }
  // Of four rows i to i + 3, the pairs hold (i, i + 2) and (i + 1, i + 3) of two columns in four.
  __m512i fours[16];
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; i += 4) {
    fours[i] = _mm512_unpacklo_epi32(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm512_unpackhi_epi32(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm512_unpacklo_epi32(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm512_unpackhi_epi32(pairs[i + 1], pairs[i + 3]);
  }
#pragma GCC unroll 16
  for (size_t c = 0; c < 4; ++c) {  // column 4 l + c is in lane l
    const __m512i a = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0x44);
    const __m512i b = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0xEE);
    const __m512i d = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0x44);
    const __m512i e = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0xEE);
    rows[c] = _mm512_shuffle_i32x4(a, d, 0x88);
    rows[4 + c] = _mm512_shuffle_i32x4(a, d, 0xDD);
    rows[8 + c] = _mm512_shuffle_i32x4(b, e, 0x88);
    rows[12 + c] = _mm512_shuffle_i32x4(b, e, 0xDD);
  }
}

// Up to 64 blocks, from `codes` on, of one group.
inline void unpack_blocks(const uint8_t* packed, size_t blocks, const uint8_t* words,
                          size_t dims_per_block, uint8_t* rows, size_t row_bytes, uint8_t* codes,
                          size_t code_bytes) noexcept {
  __m512i low[16], high[16];
#pragma GCC unroll 16
  for (size_t f = 0; f < 16; ++f) {
    low[f] = high[f] = _mm512_setzero_si512();
    if (4 * (f & ~size_t(1)) >= blocks) continue;  // nor are these looked up
    if (4 * f >= blocks) {
      low[f] = high[f] = _mm512_set1_epi8(64);
      continue;
    }
    turn_codes(_mm512_maskz_loadu_epi8(present_blocks(blocks, 4 * f), packed + 64 * f), low[f],
               high[f]);
    for (size_t i = f * dims_per_block; i < (f + 1) * dims_per_block; ++i) {
      const __m512i table = _mm512_loadu_si512(words + 64 * i);
      _mm512_storeu_si512(rows + 64 * i, _mm512_permutexvar_epi8(low[f], table));
      _mm512_storeu_si512(rows + row_bytes + 64 * i, _mm512_permutexvar_epi8(high[f], table));
    }
    if (f % 2 == 1) {
      low[f] = _mm512_or_si512(low[f], _mm512_set1_epi8(64));
      high[f] = _mm512_or_si512(high[f], _mm512_set1_epi8(64));
    }
  }
  transpose(low);
  transpose(high);
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; ++i) {
    _mm512_storeu_si512(codes + i * code_bytes, low[i]);
    _mm512_storeu_si512(codes + (16 + i) * code_bytes, high[i]);
  }
}

void lut16_unpack(const PackedLeaf* leaf, const uint8_t* words, size_t dims_per_block,
                  uint8_t* rows, uint8_t* codes) noexcept {
  const size_t groups = (leaf->count + kGroup - 1) / kGroup, blocks = leaf->blocks;
  const size_t row_bytes = (blocks + 3) / 4 * dims_per_block * 64;
  const size_t code_bytes = unpacked_bytes(blocks);
  for (size_t g = 0; g < groups; ++g, rows += 2 * row_bytes, codes += kGroup * code_bytes)
    for (size_t m = 0; m < blocks; m += 64)
      unpack_blocks(leaf->codes + (g * blocks + m) * 16, blocks - m < 64 ? blocks - m : 64,
                    words + m / 4 * dims_per_block * 64, dims_per_block,
                    rows + m / 4 * dims_per_block * 64, row_bytes, codes + m, code_bytes);
}

// Sums of four unpacked datapoints: each byte of a code finds its entry among those of eight blocks.
inline __m128i sums_of_four(const uint8_t* codes, const uint32_t* listed, size_t code_bytes,
                            const uint8_t* lut, size_t blocks) noexcept {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sums[4];
  unrolled<4>([&](auto i) SWANN_INLINE { sums[i] = _mm512_setzero_si512(); });
  for (size_t m = 0; m < blocks; m += 64) {
    __m512i found[4];
    unrolled<4>([&](auto i) SWANN_INLINE {
      found[i] = _mm512_loadu_si512(codes + listed[i] * code_bytes + m);
    });
    const size_t end = blocks - m < 64 ? blocks : m + 64;
    for (size_t at = m; at < end; at += 8) {
      const __m512i a = _mm512_maskz_loadu_epi8(present_blocks(blocks, at), lut + 16 * at);
      const __m512i b = at + 4 < blocks ? _mm512_maskz_loadu_epi8(present_blocks(blocks, at + 4),
                                                                  lut + 16 * at + 64)
                                        : _mm512_setzero_si512();
      const __mmask64 here = __mmask64(0xFF) << (at - m);
      unrolled<4>([&](auto i) SWANN_INLINE {
        found[i] = _mm512_mask2_permutex2var_epi8(a, found[i], here, b);
      });
    }
    unrolled<4>([&](auto i) SWANN_INLINE { add_products(sums[i], found[i], ones); });
  }
  const auto add_pairs = [](__m512i a, __m512i b) SWANN_INLINE {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  };
  const __m512i even = add_pairs(sums[0], sums[2]), odd = add_pairs(sums[1], sums[3]);
  const __m512i all = add_pairs(even, odd);
  const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(all),
                                         _mm512_extracti64x4_epi64(all, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
}

// Numbers of the datapoints in the masks; room for 16 more than there are.
inline size_t list_marked(const uint16_t* masks, size_t stride, size_t count,
                          uint32_t* listed) noexcept {
  size_t found = 0;
  for (size_t at = 0; at < count; at += 16, masks += stride) {
    const uint32_t valid = count - at >= 16 ? 0xFFFFu : (1u << (count - at)) - 1;
    const uint32_t mask = *masks & valid;
    _mm512_storeu_si512(listed + found, _mm512_maskz_compress_epi32(__mmask16(mask),
                                                                    sixteen_from(uint32_t(at))));
    found += size_t(__builtin_popcount(mask));
  }
  return found;
}

size_t lut16_scan_marked(const PackedLeaf* leaf, const uint8_t* codes, const uint16_t* masks,
                         size_t stride, size_t first, ScanQuery* query) noexcept {
  alignas(64) uint32_t listed[kMostUnpacked + 32];
  const size_t count = list_marked(masks, stride, leaf->count, listed);
  for (size_t i = 0; i < 16; ++i) listed[count + i] = 0;  // summed up for nothing
  const size_t code_bytes = unpacked_bytes(leaf->blocks);
  for (; first < count; first += 16) {
    if (query->capacity - query->size < 16) return first;
    const size_t left = count - first;
    __m128i sums[4] = {};
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i)
      if (4 * i < left)
        sums[i] = sums_of_four(codes, listed + first + 4 * i, code_bytes, query->lut, leaf->blocks);
    const __m512i all = _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm256_set_m128i(sums[1], sums[0])),
        _mm256_set_m128i(sums[3], sums[2]), 1);
    const uint32_t valid = left >= 16 ? 0xFFFFu : (1u << left) - 1;
    const __m512i rows = _mm512_add_epi32(_mm512_loadu_si512(listed + first),
                                          _mm512_set1_epi32(int32_t(leaf->first_row)));
    append_rows(*query, rows,
                valid & _mm512_cmpge_epi32_mask(all, _mm512_set1_epi32(query->threshold)), all);
  }
  return kAllScanned;
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

#include "avx512_i8_masks.inl"
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
  table.i8_products = i8_products;
  table.lut16_unpack = lut16_unpack;
  table.lut16_scan_marked = lut16_scan_marked;
  return table;
}

}  // namespace

constinit const KernelTable avx512vnni_table = only_the_scans();

}  // namespace swann

// Level avx512vnni: bytes are looked up in 64 at a time (VBMI), taken apart (GFNI), and four of them added into 32 bits
// (VNNI): Ice Lake, Zen 4 and newer. It adds scans, rows and codes in bytes to avx512bw.
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

#include "avx512vnni_scan.inl"

// ---- Codes of 4 bits, unpacked

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
  const size_t groups = groups_of(leaf->count), blocks = leaf->blocks;
  const size_t row_bytes = ceil_div(blocks, 4) * dims_per_block * 64;
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

}  // namespace

void put_avx512vnni(KernelTable& table) noexcept {
  table.level = "avx512vnni";
  table.scan_queries = 8;
  table.lut16_scan = lut16_scan;
  table.lut256_scan = lut256_scan;
  table.i8_pack = i8_pack;
  table.i8_filter = i8_filter;
  table.i8_products = i8_products;
  table.i8_most = 127;
  table.lut16_unpack = lut16_unpack;
  table.lut16_scan_marked = lut16_scan_marked;
}

}  // namespace swann

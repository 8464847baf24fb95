// Level avx512vbmi: bytes are looked up in 64 at a time (Ice Lake, Zen 4 and newer). The scan of
// 8-bit codes is all that it adds to avx512.
#include <immintrin.h>

#include <cstdint>

#include "kernels.h"

namespace swann {
namespace {

#include "scan.inl"
#include "avx512_scan.inl"

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

constexpr KernelTable only_the_scan() noexcept {
  KernelTable table = {};
  table.level = "avx512vbmi";
  table.lut256_scan = lut256_scan;
  return table;
}

}  // namespace

constinit const KernelTable avx512vbmi_table = only_the_scan();

}  // namespace swann

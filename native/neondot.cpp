// Level neondot: dot products of bytes (FEAT_DotProd: Cortex-A76, Neoverse, Apple M1 and newer).
// What they make faster; all else is that of level neon.
#include <arm_neon.h>

#include <cstdint>
#include <utility>

#include "kernels.h"

namespace swann {
namespace {

#include "neon_f16.inl"
#include "unrolled.inl"

constexpr size_t kI8Tile = 5, kI8Groups = 4;

using I8Quad = int8x16_t;

// Bytes of rows become signed ones here, so nothing has to be made up for.
inline I16 i16_start(int32_t) noexcept { return i16_zero(); }
inline I8Quad i8_quad(const int8_t* bytes) noexcept {
  int32_t four;
  __builtin_memcpy(&four, bytes, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
inline void add_products(I16& sums, const uint8_t* rows, I8Quad quad) noexcept {
  const uint8x16_t top = vdupq_n_u8(0x80);
  for (int i = 0; i < 4; ++i)
    sums.v[i] =
        vdotq_s32(sums.v[i], vreinterpretq_s8_u8(veorq_u8(vld1q_u8(rows + 16 * i), top)), quad);
}
inline uint32_t not_below(F16 x, F16 y) noexcept {
  const uint32x4_t bit = {1, 2, 4, 8};
  uint32_t below = 0;
  for (int i = 0; i < 4; ++i)
    below |= vaddvq_u32(vandq_u32(vcltq_f32(x.v[i], y.v[i]), bit)) << (4 * i);
  return ~below & 0xFFFF;
}

#include "i8.inl"

}  // namespace

void put_neondot(KernelTable& table) noexcept {
  table.level = "neondot";
  table.i8_pack = i8_pack;
  table.i8_filter = i8_filter;
  table.i8_products = i8_products;
}

}  // namespace swann

// Level neon: Advanced SIMD, which every 64-bit ARM has.
#include <arm_neon.h>

#include <cstdint>

#include "kernels.h"

namespace swann {
namespace {

struct F16 {
  float32x4_t v[4];
};

constexpr int kTileQueries = 2, kTileRows = 2, kSingleTileRows = 4;

#define SWANN_EACH(expression)                      \
  F16 r;                                            \
  for (int i = 0; i < 4; ++i) r.v[i] = (expression); \
  return r

inline F16 f16_zero() noexcept { SWANN_EACH(vdupq_n_f32(0.0f)); }
inline F16 f16_set(float a) noexcept { SWANN_EACH(vdupq_n_f32(a)); }
inline F16 f16_load(const float* p) noexcept { SWANN_EACH(vld1q_f32(p + 4 * i)); }
inline F16 f16_load_bf16(const uint16_t* p) noexcept {
  SWANN_EACH(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)));
}
inline F16 f16_load_i8(const int8_t* p) noexcept {
  const int8x16_t all = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(all)), high = vmovl_s8(vget_high_s8(all));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
           vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
inline F16 f16_load_first(const float* p, size_t count) noexcept {
  float lane[16] = {};
  for (size_t i = 0; i < count; ++i) lane[i] = p[i];
  return f16_load(lane);
}
inline F16 f16_add(F16 a, F16 b) noexcept { SWANN_EACH(vaddq_f32(a.v[i], b.v[i])); }
inline F16 f16_sub(F16 a, F16 b) noexcept { SWANN_EACH(vsubq_f32(a.v[i], b.v[i])); }
inline F16 f16_mul(F16 a, F16 b) noexcept { SWANN_EACH(vmulq_f32(a.v[i], b.v[i])); }
inline F16 f16_fma(F16 a, F16 b, F16 c) noexcept {
  SWANN_EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i]));
}
inline F16 f16_min(F16 a, F16 b) noexcept { SWANN_EACH(vminq_f32(a.v[i], b.v[i])); }
inline F16 f16_select_less(F16 a, F16 b, F16 x, F16 y) noexcept {
  SWANN_EACH(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]));
}
inline F16 f16_lookup(const float* table, const uint8_t* codes) noexcept {
  float lane[16];
  for (int i = 0; i < 16; ++i) lane[i] = table[codes[i]];
  return f16_load(lane);
}
#undef SWANN_EACH

inline uint32_t f16_at_least(F16 a, F16 b) noexcept {
  const uint32x4_t bit = {1, 2, 4, 8};
  uint32_t mask = 0;
  for (int i = 0; i < 4; ++i)
    mask |= vaddvq_u32(vandq_u32(vcgeq_f32(a.v[i], b.v[i]), bit)) << (4 * i);
  return mask;
}
inline void f16_store(float* p, F16 a) noexcept {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline void f16_store_u8(uint8_t* p, F16 a) noexcept {
  uint16x4_t half[4];
  for (int i = 0; i < 4; ++i) half[i] = vmovn_u32(vcvtq_u32_f32(a.v[i]));
  vst1_u8(p, vmovn_u16(vcombine_u16(half[0], half[1])));
  vst1_u8(p + 8, vmovn_u16(vcombine_u16(half[2], half[3])));
}
inline float f16_fold(F16 a) noexcept {
  const float32x4_t low = vaddq_f32(a.v[0], a.v[2]), high = vaddq_f32(a.v[1], a.v[3]);
  const float32x4_t four = vaddq_f32(low, high);
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float f16_lowest(F16 a) noexcept {
  return vminvq_f32(vminq_f32(vminq_f32(a.v[0], a.v[1]), vminq_f32(a.v[2], a.v[3])));
}
inline float f16_highest(F16 a) noexcept {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
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

namespace {

#include "lut16_scan.inl"
#include "select.inl"

// Sums of one group: 32 datapoints in order, eight to a register.
struct Sums {
  uint16x8_t v[4];
};

inline Sums group_sums(const uint8_t* codes, const uint8_t* lut, size_t blocks) noexcept {
  const uint8x16_t nibble = vdupq_n_u8(15);
  Sums sums;
  for (int i = 0; i < 4; ++i) sums.v[i] = vdupq_n_u16(0);
  for (size_t step = 0; step < blocks; step += 3) {  // three lookups are added in 8 bits
    uint8x16_t low = vdupq_n_u8(0), high = low;
    const size_t end = blocks - step < 3 ? blocks : step + 3;
    for (size_t m = step; m < end; ++m) {
      const uint8x16_t table = vld1q_u8(lut + 16 * m), packed = vld1q_u8(codes + 16 * m);
      low = vaddq_u8(low, vqtbl1q_u8(table, vandq_u8(packed, nibble)));
      high = vaddq_u8(high, vqtbl1q_u8(table, vshrq_n_u8(packed, 4)));
    }
    sums.v[0] = vaddw_u8(sums.v[0], vget_low_u8(low));
    sums.v[1] = vaddw_high_u8(sums.v[1], low);
    sums.v[2] = vaddw_u8(sums.v[2], vget_low_u8(high));
    sums.v[3] = vaddw_high_u8(sums.v[3], high);
  }
  return sums;
}

inline uint16x8_t scaled(const uint16_t* corrections, uint32_t multiplier) noexcept {
  const uint16x8_t c = vld1q_u16(corrections);
  const uint16_t m = uint16_t(multiplier);
  const uint16x4_t low = vshrn_n_u32(vmull_n_u16(vget_low_u16(c), m), 16);
  return vshrn_high_n_u32(low, vmull_n_u16(vget_high_u16(c), m), 16);
}

size_t lut16_scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                  size_t num_queries) noexcept {
  const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
  const size_t groups = (leaf->count + kGroup - 1) / kGroup;
  for (size_t g = first_group; g < groups; ++g) {
    if (!has_room(queries, num_queries, kGroup)) return g;
    const uint8_t* codes = leaf->codes + g * leaf->blocks * 16;
    for (size_t q = 0; q < num_queries; ++q) {
      ScanQuery& query = queries[q];
      Sums sums = group_sums(codes, query.lut, leaf->blocks);
      const uint16x8_t threshold = vdupq_n_u16(uint16_t(query.threshold));
      uint32_t mask = 0;
      uint16_t values[kGroup];
      for (int i = 0; i < 4; ++i) {
        if (leaf->corrections != nullptr)
          sums.v[i] = vaddq_u16(
              sums.v[i], scaled(leaf->corrections + g * kGroup + 8 * i, query.multiplier));
        mask |= uint32_t(vaddvq_u16(vandq_u16(vcgeq_u16(sums.v[i], threshold), bit))) << (8 * i);
        vst1q_u16(values + 8 * i, sums.v[i]);
      }
      mask &= valid_mask(*leaf, g);
      if (mask != 0) append(query, *leaf, g, mask, values);
    }
  }
  return groups;
}

}  // namespace

const KernelTable neon_table = {
    "neon",
    dot_f32,         squared_l2_f32,  dot_bf16,        squared_l2_bf16, dot_i8,
    dot_gather_f32,  squared_l2_gather_f32, dot_gather_bf16, squared_l2_gather_bf16, dot_gather_i8,
    lut_f32,         lut_quantize_u8, lut16_scan, argmax_f32,     at_least_f32,
    encode_tile,     keep_best,       keys_from_f32,
};

}  // namespace swann

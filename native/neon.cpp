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
constexpr int kTiledRows = 5, kTilesAtOnce = 1;

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
// The last n of 16 bytes that end at `end`, moved to the front; the rest is zero.
inline uint8x16_t last_bytes(const void* end, size_t n) noexcept {
  static const uint8_t first[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const uint8x16_t order = vaddq_u8(vld1q_u8(first), vdupq_n_u8(uint8_t(16 - n)));
  return vqtbl1q_u8(vld1q_u8(static_cast<const uint8_t*>(end) - 16), order);
}
constexpr bool kLoadsFirst = false;  // of long rows only: they reach back
inline F16 f16_load_first(const uint16_t* p, size_t count) noexcept {
  const uint16_t* end = p + count;
  const bool half = count < 8;
  const uint16x8_t low =
      half ? vreinterpretq_u16_u8(last_bytes(end, 2 * count)) : vld1q_u16(p);
  const uint16x8_t high =
      half ? vdupq_n_u16(0) : vreinterpretq_u16_u8(last_bytes(end, 2 * (count - 8)));
  return {{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)),
           vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(low), 16)),
           vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)),
           vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(high), 16))}};
}
inline F16 from_i8(int8x16_t all) noexcept {
  const int16x8_t low = vmovl_s8(vget_low_s8(all)), high = vmovl_s8(vget_high_s8(all));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
           vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
inline F16 f16_load_i8(const int8_t* p) noexcept { return from_i8(vld1q_s8(p)); }
inline F16 f16_load_first(const int8_t* p, size_t count) noexcept {
  return from_i8(vreinterpretq_s8_u8(last_bytes(p + count, count)));
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
inline F16 f16_lookup256(const float* table, const uint8_t* codes) noexcept {
  return f16_lookup(table, codes);
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

#include "scan.inl"
#include "drop_below.inl"
#include "select.inl"

// Sums of one group: 32 datapoints in order, eight to a register.
struct Sums {
  uint16x8_t v[4];
};

// Up to `together` lookups are added in 8 bits.
template <size_t together>
inline Sums group_sums(const uint8_t* codes, const uint8_t* lut, size_t blocks) noexcept {
  const uint8x16_t nibble = vdupq_n_u8(15);
  Sums sums;
  for (int i = 0; i < 4; ++i) sums.v[i] = vdupq_n_u16(0);
  for (size_t step = 0; step < blocks; step += together) {
    uint8x16_t low = vdupq_n_u8(0), high = low;
    const size_t end = blocks - step < together ? blocks : step + together;
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

inline void keep_survivors(const PackedLeaf& leaf, size_t group, Sums sums,
                           ScanQuery& query) noexcept {
  const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t threshold = vdupq_n_u16(uint16_t(query.threshold));
  uint32_t mask = 0;
  uint16_t values[kGroup];
  for (int i = 0; i < 4; ++i) {
    if (leaf.corrections != nullptr)
      sums.v[i] = vaddq_u16(
          sums.v[i], scaled(leaf.corrections + group * kGroup + 8 * i, query.multiplier));
    mask |= uint32_t(vaddvq_u16(vandq_u16(vcgeq_u16(sums.v[i], threshold), bit))) << (8 * i);
    vst1q_u16(values + 8 * i, sums.v[i]);
  }
  mask &= valid_mask(leaf, group);
  if (mask != 0) append(query, leaf, group, mask, values);
}

template <size_t together>
inline size_t scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                   size_t num_queries) noexcept {
  const size_t groups = (leaf->count + kGroup - 1) / kGroup;
  for (size_t g = first_group; g < groups; ++g) {
    if (!has_room(queries, num_queries, kGroup)) return g;
    const uint8_t* codes = leaf->codes + g * leaf->blocks * 16;
    for (size_t q = 0; q < num_queries; ++q)
      keep_survivors(*leaf, g, group_sums<together>(codes, queries[q].lut, leaf->blocks), queries[q]);
  }
  return groups;
}

size_t lut16_scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                  size_t num_queries) noexcept {
  return scan<3>(leaf, first_group, queries, num_queries);
}

size_t lut16_wide_scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                       size_t num_queries) noexcept {
  return scan<1>(leaf, first_group, queries, num_queries);
}

// ---- Codes of 8 bits

constexpr size_t kGroupsAtOnce = 1;

// The table in four quarters of 64 entries; a lookup beyond its quarter leaves what is there.
void lut256_sums(const PackedLeaf& leaf, size_t group, size_t, const uint8_t* lut,
                 uint16_t* sums) noexcept {
  const uint8_t* codes = leaf.codes + group * leaf.blocks * kGroup;
  const uint8x16_t quarter = vdupq_n_u8(64);
  uint16x8_t total[4];
  for (int i = 0; i < 4; ++i) total[i] = vdupq_n_u16(0);
  for (size_t m = 0; m < leaf.blocks; ++m, codes += kGroup, lut += kWords256) {
    const uint8x16x4_t table[] = {vld1q_u8_x4(lut), vld1q_u8_x4(lut + 64),
                                  vld1q_u8_x4(lut + 128), vld1q_u8_x4(lut + 192)};
    for (int half = 0; half < 2; ++half) {
      uint8x16_t code = vld1q_u8(codes + 16 * half);
      uint8x16_t entry = vqtbl4q_u8(table[0], code);
      for (int t = 1; t < 4; ++t) {
        code = vsubq_u8(code, quarter);
        entry = vqtbx4q_u8(entry, table[t], code);
      }
      total[2 * half] = vaddw_u8(total[2 * half], vget_low_u8(entry));
      total[2 * half + 1] = vaddw_high_u8(total[2 * half + 1], entry);
    }
  }
  for (int i = 0; i < 4; ++i) vst1q_u16(sums + 8 * i, total[i]);
}

inline void offer(const PackedLeaf& leaf, size_t group, const uint16_t* sums,
                  ScanQuery& query) noexcept {
  Sums loaded;
  for (int i = 0; i < 4; ++i) loaded.v[i] = vld1q_u16(sums + 8 * i);
  keep_survivors(leaf, group, loaded, query);
}

#include "lut256_scan.inl"

}  // namespace

const KernelTable neon_table = {
    "neon",
    3,
    dot_f32,         squared_l2_f32,  dot_bf16,        squared_l2_bf16, dot_i8,
    dot_gather_f32,  squared_l2_gather_f32, dot_gather_bf16, squared_l2_gather_bf16, dot_gather_i8,
    lut_f32,         lut_quantize_u8, lut16_scan,      lut16_wide_scan, lut256_scan,     argmax_f32,
    at_least_f32,    encode_tile,     encode_one,      keep_best,       keys_from_f32,
    dot_tiles_f32,   nullptr,         nullptr,         nullptr,         nullptr,         nullptr,
};

}  // namespace swann

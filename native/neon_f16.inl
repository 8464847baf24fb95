// Sixteen floats as NEON has them. Included inside the unnamed namespace of each level file for ARM.

struct F16 {
  float32x4_t v[4];
};

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

struct Lanes {
  uint32x4_t v[4];
};
inline Lanes lanes_of(const uint8_t* codes, uint8_t k) noexcept {
  // Widened with their sign: all bits of a lane are those of its byte.
  const int8x16_t equal = vreinterpretq_s8_u8(vceqq_u8(vld1q_u8(codes), vdupq_n_u8(k)));
  const int16x8_t low = vmovl_s8(vget_low_s8(equal)), high = vmovl_high_s8(equal);
  return {{vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(low))),
           vreinterpretq_u32_s32(vmovl_high_s16(low)),
           vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(high))),
           vreinterpretq_u32_s32(vmovl_high_s16(high))}};
}
inline F16 f16_add_in(const Lanes& lanes, F16 sum, F16 x) noexcept {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t bits = vandq_u32(lanes.v[i], vreinterpretq_u32_f32(x.v[i]));
    sum.v[i] = vaddq_f32(sum.v[i], vreinterpretq_f32_u32(bits));
  }
  return sum;
}

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

// Sixteen sums.
struct I16 {
  int32x4_t v[4];
};
inline I16 i16_zero() noexcept {
  const int32x4_t zero = vdupq_n_s32(0);
  return {{zero, zero, zero, zero}};
}
inline F16 f16_from(const I16& sums) noexcept {
  F16 all;
  for (int i = 0; i < 4; ++i) all.v[i] = vcvtq_f32_s32(sums.v[i]);
  return all;
}

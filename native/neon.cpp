// Level neon: Advanced SIMD, which every 64-bit ARM has.
#include <arm_neon.h>

#include <cstdint>
#include <utility>

#include "kernels.h"
#include "prefetch.h"

namespace swann {
namespace {

#include "neon_f16.inl"

constexpr int kTileQueries = 2, kTileRows = 2, kSingleTileRows = 4;
constexpr int kTiledRows = 5, kTilesAtOnce = 1;

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
#include "drop_below.inl"
#include "select.inl"

// Sums of one group: 32 datapoints in order, eight to a register.
struct Sums {
  uint16x8_t v[4];
};

// Up to three lookups are added in 8 bits.
inline Sums group_sums(const uint8_t* codes, const uint8_t* lut, size_t blocks) noexcept {
  const uint8x16_t nibble = vdupq_n_u8(15);
  Sums sums;
  for (int i = 0; i < 4; ++i) sums.v[i] = vdupq_n_u16(0);
  for (size_t step = 0; step < blocks; step += 3) {
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

inline void store(const Sums& sums, uint16_t* out) noexcept {
  for (int i = 0; i < 4; ++i) vst1q_u16(out + 8 * i, sums.v[i]);
}

constexpr auto append_found = append;  // sums are in the order of the datapoints

inline uint32_t survivors(const PackedLeaf& leaf, size_t group, const ScanQuery& query,
                          uint16_t* sums) noexcept {
  const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t threshold = vdupq_n_u16(uint16_t(query.threshold));
  uint32_t mask = 0;
  for (int i = 0; i < 4; ++i) {
    uint16x8_t eight = vld1q_u16(sums + 8 * i);
    if (leaf.corrections != nullptr) {
      eight = vaddq_u16(eight, scaled(leaf.corrections + group * kGroup + 8 * i, query.multiplier));
      vst1q_u16(sums + 8 * i, eight);
    }
    mask |= uint32_t(vaddvq_u16(vandq_u16(vcgeq_u16(eight, threshold), bit))) << (8 * i);
  }
  return mask & valid_mask(leaf, group);
}

size_t lut16_scan(const PackedLeaf* leaf, size_t group, ScanQuery* queries,
                  size_t num_queries) noexcept {
  Found<8> found[kMaxScanQueries];
  while (const size_t count = groups_from(*leaf, group, queries, num_queries, found->kMost)) {
    for (size_t g = 0; g < count; ++g) {
      const uint8_t* codes = leaf->codes + (group + g) * leaf->blocks * 16;
      for (size_t q = 0; q < num_queries; ++q) {
        uint16_t* const sums = found[q].sums[g];
        store(group_sums(codes, queries[q].lut, leaf->blocks), sums);
        found[q].masks[g] = survivors(*leaf, group + g, queries[q], sums);
      }
    }
    take_found(*leaf, group, count, found, queries, num_queries, append_found);
  }
  return group;
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

#include "lut256_scan.inl"

// ---- Rows of 8 bits

inline void add_wide_products(I16& sums, const int16_t* query, const int8_t* row) noexcept {
  for (int i = 0; i < 4; ++i) {
    const int16x8_t eight = vmovl_s8(vld1_s8(row + 8 * i)), times = vld1q_s16(query + 8 * i);
    sums.v[i] = vmlal_s16(sums.v[i], vget_low_s16(eight), vget_low_s16(times));
    sums.v[i] = vmlal_high_s16(sums.v[i], eight, times);
  }
}

#include "upper_i8.inl"

#include "put_kernels.inl"

}  // namespace

void put_neon(KernelTable& table) noexcept {
  table.level = "neon";
  table.scan_queries = 3;
  put_kernels(table);
  table.upper_i8 = upper_i8;
}

}  // namespace swann

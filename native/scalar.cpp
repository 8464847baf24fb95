// Level scalar: plain C++ for the oldest machine; the reference that the other levels are read
// against.
#include <cstdint>
#include <utility>

#include "kernels.h"
#include "prefetch.h"

namespace swann {
namespace {

struct F16 {
  float v[16];
};

constexpr int kTileQueries = 2, kTileRows = 1, kSingleTileRows = 1;
constexpr int kTiledRows = 1, kTilesAtOnce = 1;

#define SWANN_EACH(expression)       \
  F16 r;                             \
  for (int i = 0; i < 16; ++i) r.v[i] = (expression); \
  return r

inline F16 f16_zero() noexcept { SWANN_EACH(0.0f); }
inline F16 f16_set(float a) noexcept { SWANN_EACH(a); }
inline F16 f16_load(const float* p) noexcept { SWANN_EACH(p[i]); }
inline F16 f16_load_bf16(const uint16_t* p) noexcept {
  F16 r;
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = uint32_t(p[i]) << 16;
    __builtin_memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
inline F16 f16_load_i8(const int8_t* p) noexcept { SWANN_EACH(float(p[i])); }
inline F16 f16_load_first(const float* p, size_t count) noexcept {
  SWANN_EACH(size_t(i) < count ? p[i] : 0.0f);
}
constexpr bool kLoadsFirst = true;
inline F16 f16_load_first(const uint16_t* p, size_t count) noexcept {
  uint16_t all[16] = {};
  for (size_t i = 0; i < count; ++i) all[i] = p[i];
  return f16_load_bf16(all);
}
inline F16 f16_load_first(const int8_t* p, size_t count) noexcept {
  SWANN_EACH(size_t(i) < count ? float(p[i]) : 0.0f);
}
inline F16 f16_add(const F16& a, const F16& b) noexcept { SWANN_EACH(a.v[i] + b.v[i]); }
inline F16 f16_sub(const F16& a, const F16& b) noexcept { SWANN_EACH(a.v[i] - b.v[i]); }
inline F16 f16_mul(const F16& a, const F16& b) noexcept { SWANN_EACH(a.v[i] * b.v[i]); }
inline F16 f16_fma(const F16& a, const F16& b, const F16& c) noexcept {
  SWANN_EACH(a.v[i] * b.v[i] + c.v[i]);
}
inline F16 f16_min(const F16& a, const F16& b) noexcept {
  SWANN_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
inline F16 f16_select_less(const F16& a, const F16& b, const F16& x, const F16& y) noexcept {
  SWANN_EACH(a.v[i] < b.v[i] ? x.v[i] : y.v[i]);
}
inline F16 f16_lookup(const float* table, const uint8_t* codes) noexcept {
  SWANN_EACH(table[codes[i]]);
}
inline F16 f16_lookup256(const float* table, const uint8_t* codes) noexcept {
  return f16_lookup(table, codes);
}
#undef SWANN_EACH

struct Lanes {
  uint32_t v[16];
};
inline Lanes lanes_of(const uint8_t* codes, uint8_t k) noexcept {
  Lanes lanes;
  for (int i = 0; i < 16; ++i) lanes.v[i] = codes[i] == k ? ~0u : 0;
  return lanes;
}
inline F16 f16_add_in(const Lanes& lanes, F16 sum, const F16& x) noexcept {
  for (int i = 0; i < 16; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x.v[i], 4);
    bits &= lanes.v[i];
    float added;
    __builtin_memcpy(&added, &bits, 4);
    sum.v[i] += added;
  }
  return sum;
}

inline uint32_t f16_at_least(const F16& a, const F16& b) noexcept {
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= uint32_t(a.v[i] >= b.v[i]) << i;
  return mask;
}
inline void f16_store(float* p, const F16& a) noexcept {
  for (int i = 0; i < 16; ++i) p[i] = a.v[i];
}
inline void f16_store_u8(uint8_t* p, const F16& a) noexcept {
  for (int i = 0; i < 16; ++i) p[i] = uint8_t(int32_t(a.v[i]));
}
inline float f16_lowest(const F16& a) noexcept {
  float low = a.v[0];
  for (int i = 1; i < 16; ++i) low = a.v[i] < low ? a.v[i] : low;
  return low;
}
inline float f16_highest(const F16& a) noexcept {
  float high = a.v[0];
  for (int i = 1; i < 16; ++i) high = a.v[i] > high ? a.v[i] : high;
  return high;
}
inline float f16_fold(F16 a) noexcept {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
  return a.v[0];
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

void group_sums(const PackedLeaf& leaf, size_t group, const uint8_t* lut,
                uint16_t* sums) noexcept {
  const uint8_t* codes = leaf.codes + group * leaf.blocks * 16;
  for (size_t i = 0; i < kGroup; ++i) sums[i] = 0;
  for (size_t m = 0; m < leaf.blocks; ++m) {
    const uint8_t* table = lut + 16 * m;
    for (size_t i = 0; i < 16; ++i) {
      sums[i] += table[codes[16 * m + i] & 15];
      sums[16 + i] += table[codes[16 * m + i] >> 4];
    }
  }
}

#include "scan.inl"
#include "drop_below.inl"
#include "select.inl"

constexpr auto append_found = append;  // sums are in the order of the datapoints

uint32_t survivors(const PackedLeaf& leaf, size_t group, const ScanQuery& query,
                   uint16_t* sums) noexcept {
  uint32_t mask = 0;
  for (size_t i = 0; i < kGroup; ++i) {
    if (leaf.corrections != nullptr)
      sums[i] += (leaf.corrections[group * kGroup + i] * query.multiplier) >> 16;
    mask |= uint32_t(sums[i] >= query.threshold) << i;
  }
  return mask & valid_mask(leaf, group);
}

size_t lut16_scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                  size_t num_queries) noexcept {
  size_t g = first_group;
  for (; groups_from(*leaf, g, queries, num_queries, 1) == 1; ++g)
    for (size_t q = 0; q < num_queries; ++q) {
      uint16_t sums[kGroup];
      group_sums(*leaf, g, queries[q].lut, sums);
      append(queries[q], leaf->first_row + uint32_t(g * kGroup),
             survivors(*leaf, g, queries[q], sums), sums);
    }
  return g;
}

constexpr size_t kGroupsAtOnce = 1;

void lut256_sums(const PackedLeaf& leaf, size_t group, size_t, const uint8_t* lut,
                 uint16_t* sums) noexcept {
  const uint8_t* codes = leaf.codes + group * leaf.blocks * kGroup;
  for (size_t i = 0; i < kGroup; ++i) sums[i] = 0;
  for (size_t m = 0; m < leaf.blocks; ++m)
    for (size_t i = 0; i < kGroup; ++i)
      sums[i] += lut[kWords256 * m + codes[kGroup * m + i]];
}

#include "lut256_scan.inl"

#include "put_kernels.inl"

}  // namespace

void put_scalar(KernelTable& table) noexcept {
  table.level = "scalar";
  table.scan_queries = 3;
  put_kernels(table);
}

}  // namespace swann

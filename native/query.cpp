// What is done once per query: the choice of its leaves and its lookup table.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "search.h"

namespace swann {

int32_t ordered(float value) noexcept {
  const int32_t bits = std::bit_cast<int32_t>(value + 0.0f);  // no negative zero
  return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

float from_ordered(int32_t value) noexcept {
  return std::bit_cast<float>(value ^ ((value >> 31) & 0x7FFFFFFF));
}

size_t cut_to(Key* keys, size_t size, size_t limit) noexcept {
  const size_t kept = kernels().keep_best(keys, size, limit);
  if (kept <= limit) return kept;
  std::nth_element(keys, keys + (limit - 1), keys + kept, std::greater<>());
  return limit;
}

void Candidates::cut() noexcept {
  if (size < limit) return;
  size = cut_to(keys, size, limit);
  worst = *std::min_element(keys, keys + size);
}

namespace {

constexpr size_t kQueriesAtOnce = 32;  // their scores of all centroids stay in the cache

void choose_for(const IndexView& index, const float* query, float* scores, bool in_order,
                size_t leaves, Key* keys, LeafChoice* choices) {
  const size_t num_leaves = index.num_leaves;
  const KernelTable& k = kernels();
  float length = 0;
  if (index.spreads != nullptr) {
    k.dot_f32(query, 1, query, 1, index.dim, &length, 1);
    length = std::sqrt(length);
  }
  if (index.squared_l2())
    for (size_t c = 0; c < num_leaves; ++c) scores[c] = -scores[c];
  k.keys_from_f32(scores, index.spreads, length, num_leaves, keys);
  Key* const end = keys + cut_to(keys, num_leaves, leaves);
  if (in_order)
    std::sort(keys, end, std::greater<>());
  else
    std::iter_swap(keys, std::max_element(keys, end));
  for (size_t i = 0; i < leaves; ++i) choices[i] = {key_row(keys[i]), scores[key_row(keys[i])]};
}

}  // namespace

void choose_leaves(const IndexView& index, const float* queries, size_t count, size_t leaves,
                   LeafChoice* choices) {
  const size_t num_leaves = index.num_leaves, dim = index.dim;
  thread_local std::vector<float> scores;
  thread_local std::vector<Key> keys;
  scores.resize(std::min(count, kQueriesAtOnce) * num_leaves);
  keys.resize(num_leaves);
  const auto compute = index.squared_l2() ? kernels().squared_l2_f32 : kernels().dot_f32;
  for (size_t first = 0; first < count; first += kQueriesAtOnce) {
    const size_t n = std::min(kQueriesAtOnce, count - first);
    compute(queries + first * dim, n, index.centroids, num_leaves, dim, scores.data(), num_leaves);
    for (size_t q = 0; q < n; ++q)
      choose_for(index, queries + (first + q) * dim, scores.data() + q * num_leaves, count == 1,
                 leaves, keys.data(), choices + (first + q) * leaves);
  }
}

Table build_table(const IndexView& index, const float* query, float reach, uint8_t* lut) {
  thread_local std::vector<float> entries;
  const size_t blocks = index.blocks;
  entries.resize(blocks * 18);
  float* lows = entries.data() + blocks * 16;
  float* highs = lows + blocks;
  const KernelTable& k = kernels();
  k.lut_f32(query, index.codebook, index.dim, index.dims_per_block, index.squared_l2(),
            entries.data(), lows, highs);
  double low = index.correction_low, span = index.correction_span, widest = 0;
  for (size_t m = 0; m < blocks; ++m) {
    const double width = double(highs[m]) - double(lows[m]);
    low += lows[m];
    span += width;
    widest = std::max(widest, width);
  }
  // The scale is the greatest at which an entry is kMaxEntry at most, a sum with its roundings fits 16,
  // and a score fits 31.
  constexpr double kScoreLimit = double(1 << 30);
  const double magnitude = std::fabs(low) + double(reach);
  double scale = kScoreLimit / std::max(magnitude, 1e-30);
  if (widest > 0) scale = std::min(scale, double(kMaxEntry) / widest);
  if (span > 0) scale = std::min(scale, std::max(65535.0 - double(blocks) - 1, 1.0) / span);
  scale = std::min(scale, 1e30);
  k.lut_quantize_u8(entries.data(), lows, blocks, float(scale), lut);
  Table table;
  table.scale = scale;
  table.base = low;
  table.multiplier = uint32_t(std::floor(index.correction_span * scale * (65536.0 / 65535.0)));
  return table;
}

}  // namespace swann

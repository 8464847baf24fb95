// The lookup table of a query.
#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <utility>
#include <vector>

#include "search.h"

namespace swann {
namespace {

// A codeword is an outlier where it is so many times as long as most. Entries count then that are at most so
// many usual widths below the greatest of their block.
constexpr double kOutlying = 16.0, kSaturated = 10.0;

}  // namespace

void find_outliers(IndexView& index) {
  std::vector<std::pair<double, uint16_t>> squares(index.codewords);
  std::vector<uint16_t> usual_words(index.blocks);
  double greatest = 0, usual = 0;
  for (size_t m = 0; m < index.blocks; ++m) {
    for (size_t k = 0; k < index.codewords; ++k) squares[k] = {0.0, uint16_t(k)};
    const size_t end = std::min((m + 1) * index.dims_per_block, index.reduced_dim);
    for (size_t j = m * index.dims_per_block; j < end; ++j)
      for (size_t k = 0; k < index.codewords; ++k) {
        const double value = double(index.codebook[j * index.codewords + k]);
        squares[k].first += value * value;
      }
    const auto middle = squares.begin() + ptrdiff_t(squares.size() / 2);
    std::nth_element(squares.begin(), middle, squares.end());
    usual += middle->first / double(index.blocks);
    usual_words[m] = middle->second;
    greatest = std::max(greatest, std::max_element(middle, squares.end())->first);
  }
  index.usual_words.clear();
  if (greatest > kOutlying * kOutlying * usual) index.usual_words = std::move(usual_words);
}

namespace {

// What entries usually differ by: the root mean square, over the blocks, of the greatest less that of the
// codeword of middling length.
double usual_width(const IndexView& index, const float* entries, const float* highs) {
  double squares = 0;
  for (size_t m = 0; m < index.blocks; ++m) {
    const double width = double(highs[m]) - double(entries[m * index.codewords + index.usual_words[m]]);
    squares += width * width;
  }
  return std::sqrt(squares / double(index.blocks));
}

// Raises entries to what is `most` below the greatest of their block. Outliers would have the steps of all
// entries be theirs; and a datapoint that has one here is no neighbor, as far as it is.
void saturate(float* entries, float* lows, const float* highs, size_t blocks, size_t words, double most) {
  for (size_t m = 0; m < blocks; ++m) {
    const auto least = float(double(highs[m]) - most);
    if (lows[m] >= least) continue;
    lows[m] = least;
    for (size_t k = m * words; k < (m + 1) * words; ++k) entries[k] = std::max(entries[k], least);
  }
}

// Room for what lies behind the last block: zeros.
constexpr size_t kBehind = 2 * kAdded[std::size(kAdded) - 1];

// What entries that a scan adds in 8 bits differ by together, at most (kernels.h, kAdded).
float widest_three(const float* widths, size_t blocks) {
  int32_t widest = 0;  // numbers of one sign are in the order of their bits, and compared faster so
  for (const size_t s : kAdded)
    for (size_t m = 0; m < blocks; ++m)
      widest = std::max(widest, std::bit_cast<int32_t>(widths[m] + widths[m + s] + widths[m + 2 * s]));
  return std::bit_cast<float>(widest);
}

}  // namespace

Table build_table(const IndexView& index, const float* query, float reach, uint8_t* lut) {
  thread_local std::vector<float> entries, centered;
  const size_t blocks = index.blocks, words = index.codewords;
  double length = 1;  // that corrections are counted in
  if (index.code_center != nullptr) {
    if (!index.squared_l2()) length = std::sqrt(kernels().square_f64(query, index.reduced_dim));
    centered.resize(index.reduced_dim);
    for (size_t j = 0; j < index.reduced_dim; ++j)
      centered[j] = float(double(query[j]) - length * double(index.code_center[j]));
    query = centered.data();
  }
  const double correction_span = length * index.correction_span;
  entries.resize(blocks * (words + 3) + kBehind);
  float* const lows = entries.data() + blocks * words;
  float *const highs = lows + blocks, *const widths = highs + blocks;
  const KernelTable& k = kernels();
  k.lut_f32(query, index.codebook, words, index.reduced_dim, index.dims_per_block,
            index.squared_l2(), entries.data(), lows, highs);
  if (!index.usual_words.empty()) {
    const double usual = usual_width(index, entries.data(), highs);
    if (usual > 0) saturate(entries.data(), lows, highs, blocks, words, kSaturated * usual);
  }
  double low = length * index.correction_low, span = correction_span;
  for (size_t m = 0; m < blocks; ++m) {
    widths[m] = highs[m] - lows[m];
    low += double(lows[m]);
    span += double(widths[m]);
  }
  // The scale is the greatest at which entries fit 8 bits (of three that are added with their roundings), a
  // sum with its roundings fits 16, and a score 30: far from the least of 31 (kLeastBias), which is that of
  // leaves beyond reach.
  constexpr double kScoreLimit = double(1 << 29);
  double widest, most;
  if (words == kWords16) {
    std::fill_n(widths + blocks, kBehind, 0.0f);
    widest = widest_three(widths, blocks), most = kMaxEntry - 1.5;
  } else {
    widest = *std::max_element(widths, widths + blocks), most = kMaxEntry;
  }
  double scale = 1e37;
  if (widest > 0) scale = std::min(scale, most / widest);
  if (span > 0) scale = std::min(scale, std::max(65535.0 - double(blocks) - 1, 1.0) / span);
  const double magnitude = std::fabs(low) + double(reach);
  const bool cramped = magnitude * scale > kScoreLimit;
  if (cramped) scale = kScoreLimit / magnitude;
  k.lut_quantize_u8(entries.data(), lows, words, blocks, float(scale), lut);
  Table table;
  table.scale = scale;
  table.base = low;
  table.cramped = cramped;
  table.multiplier = uint32_t(std::floor(correction_span * scale * (65536.0 / 65535.0)));
  return table;
}

}  // namespace swann

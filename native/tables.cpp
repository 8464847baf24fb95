// The lookup table of a query.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "search.h"

namespace swann {
namespace {

// The widest block over the root mean square of all: from here on a table is uneven.
constexpr double kUneven = 3.0;
// A codeword is an outlier where it is so many times as long as most. Entries count then that are at most so
// many usual widths below the greatest of their block.
constexpr double kOutlying = 16.0, kSaturated = 10.0;

}  // namespace

void mark_sixes(const uint8_t* lut, size_t blocks, uint8_t* sixes) noexcept {
  for (size_t six = 0; six < blocks / 6; ++six) {
    int first = 0, second = 0, third = 0;  // the greatest entries of three blocks
    for (size_t m = 6 * six; m < 6 * six + 6; ++m) {
      uint8_t greatest = 0;
      for (size_t k = 0; k < kWords16; ++k) greatest = std::max(greatest, lut[m * kWords16 + k]);
      const int most = greatest;
      third = std::max(third, std::min(second, most));
      second = std::max(second, std::min(first, most));
      first = std::max(first, most);
    }
    sixes[six] = first + second + third <= 255;
  }
}

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
  entries.resize(blocks * (words + 2));
  float* lows = entries.data() + blocks * words;
  float* highs = lows + blocks;
  const KernelTable& k = kernels();
  k.lut_f32(query, index.codebook, words, index.reduced_dim, index.dims_per_block,
            index.squared_l2(), entries.data(), lows, highs);
  if (!index.usual_words.empty()) {
    const double usual = usual_width(index, entries.data(), highs);
    if (usual > 0) saturate(entries.data(), lows, highs, blocks, words, kSaturated * usual);
  }
  double low = length * index.correction_low, span = correction_span, widest = 0, squares = 0;
  for (size_t m = 0; m < blocks; ++m) {
    const double width = double(highs[m]) - double(lows[m]);
    low += lows[m];
    span += width;
    widest = std::max(widest, width);
    squares += width * width;
  }
  // One scale serves all blocks. Where one is far wider than most, its 85 steps leave few for the
  // others, which together say as much: such a query is worth the slower scan.
  const bool wide =
      words == kWords16 && widest * widest * double(blocks) > kUneven * kUneven * squares;
  const int most = wide ? kMaxEntryWide : max_entry(words);
  // The scale is the greatest at which an entry is `most` at most, a sum with its roundings fits 16
  // bits, and a score 30: far from the least of 31 (kLeastBias), which is that of leaves beyond reach.
  constexpr double kScoreLimit = double(1 << 29);
  double scale = 1e37;
  if (widest > 0) scale = std::min(scale, double(most) / widest);
  if (span > 0) scale = std::min(scale, std::max(65535.0 - double(blocks) - 1, 1.0) / span);
  const double magnitude = std::fabs(low) + double(reach);
  const bool cramped = magnitude * scale > kScoreLimit;
  if (cramped) scale = kScoreLimit / magnitude;
  k.lut_quantize_u8(entries.data(), lows, words, blocks, float(scale), most, lut);
  Table table;
  table.scale = scale;
  table.base = low;
  table.wide = wide;
  table.cramped = cramped;
  table.multiplier = uint32_t(std::floor(correction_span * scale * (65536.0 / 65535.0)));
  return table;
}

}  // namespace swann

#include "unpacked_codes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "search.h"

namespace swann {
namespace {

std::atomic<int> forced_way{-1};

// The dimension that byte k of quad `quad` holds, or reduced_dim where it holds none; its block.
size_t dimension_of(const IndexView& index, size_t quad, size_t k, size_t& block) {
  const size_t width = index.dims_per_block;
  block = quad / width * 4 + k;
  const size_t j = block * width + quad % width;
  return block < index.blocks && j < index.reduced_dim ? j : index.reduced_dim;
}

}  // namespace

// ---- The faster way

void force_scan(bool forced, ScanWay way) noexcept { forced_way = forced ? int(way) : -1; }

bool ScanTrial::decided() const noexcept {
  constexpr float kClearly = 1.5f;
  if (forced_way.load(std::memory_order_relaxed) >= 0) return true;
  const uint32_t tries = std::min(tries_[0].load(std::memory_order_relaxed),
                                  tries_[1].load(std::memory_order_relaxed));
  if (tries < kFewTries) return false;
  const float tables = best_[0].load(std::memory_order_relaxed);
  const float unpacked = best_[1].load(std::memory_order_relaxed);
  return tries >= kTries || tables > kClearly * unpacked || unpacked > kClearly * tables;
}

ScanWay ScanTrial::next() const noexcept {
  const int forced = forced_way.load(std::memory_order_relaxed);
  if (forced >= 0) return ScanWay(forced);
  const uint32_t tables = tries_[0].load(std::memory_order_relaxed);
  const uint32_t unpacked = tries_[1].load(std::memory_order_relaxed);
  const bool faster = decided() ? best_[1].load(std::memory_order_relaxed) <
                                      best_[0].load(std::memory_order_relaxed)
                                : unpacked < tables;
  return faster ? ScanWay::unpacked : ScanWay::tables;
}

void ScanTrial::report(ScanWay way, double pairs, double nanoseconds) noexcept {
  const auto w = size_t(way);
  if (tries_[w].load(std::memory_order_relaxed) >= kTries) return;
  const auto cost = float(nanoseconds / pairs);
  // Threads that report at once may lose a time; the next one is as good.
  if (cost < best_[w].load(std::memory_order_relaxed)) best_[w].store(cost, std::memory_order_relaxed);
  tries_[w].fetch_add(1, std::memory_order_relaxed);
}

// ---- Rounding

void prepare_byte_codebook(IndexView& index) {
  const KernelTable& k = kernels();
  if (k.lut16_unpack == nullptr || k.i8_filter == nullptr || index.codes == nullptr ||
      index.codewords != kWords16 || index.squared_l2() || index.corrections != nullptr ||
      index.reduced_dim > kMostI8Dimensions)
    return;
  ByteCodebook& book = index.byte_codebook;
  const size_t width = index.dims_per_block, fours = ceil_div(index.blocks, 4);
  book.words.assign(fours * width * 64, 128);
  book.steps.assign(index.blocks, 0.0f);
  for (size_t j = 0; j < index.reduced_dim; ++j)
    for (size_t c = 0; c < kWords16; ++c) {
      float& step = book.steps[j / width];
      step = std::max(step, std::fabs(index.codebook[j * kWords16 + c]) / 127);
    }
  for (float& step : book.steps) step = std::max(step, 1e-30f);
  for (size_t at = 0; at < fours * width * 4; ++at) {
    size_t block;
    const size_t j = dimension_of(index, at / 4, at % 4, block);
    for (size_t c = 0; c < kWords16 && j < index.reduced_dim; ++c) {
      const float value = index.codebook[j * kWords16 + c] / book.steps[block];
      book.words[at * kWords16 + c] = uint8_t(std::clamp(std::lrint(value), -127l, 127l) + 128);
    }
  }
  book.trial = std::make_shared<ScanTrial>();
}

UnpackedQuery round_for_unpacked(const IndexView& index, const float* query, const uint8_t* lut,
                                 double scale, int8_t* bytes) {
  const ByteCodebook& book = index.byte_codebook;
  const size_t width = index.dims_per_block;
  float most = 1e-30f;
  for (size_t j = 0; j < index.reduced_dim; ++j)
    most = std::max(most, std::fabs(query[j] * book.steps[j / width]));
  const float inverse = 127 / most;
  UnpackedQuery out;
  for (size_t at = 0; at < book.quads() * 4; ++at) {
    size_t block;
    const size_t j = dimension_of(index, at / 4, at % 4, block);
    const bool present = j < index.reduced_dim;
    bytes[at] = present ? int8_t(std::lrint(query[j] * book.steps[block] * inverse)) : int8_t(0);
    out.start -= 128 * bytes[at];
  }
  out.scale = scale / double(inverse);
  const float factor = float(out.scale);  // the products of a block fit a float
  for (size_t m = 0; m < index.blocks; ++m) {
    int32_t products[kWords16] = {};
    for (size_t i = 0; i < width; ++i) {
      const size_t at = (m / 4 * width + i) * 4 + m % 4;
      for (size_t c = 0; c < kWords16; ++c)
        products[c] += bytes[at] * (int32_t(book.words[at * kWords16 + c]) - 128);
    }
    float above = -std::numeric_limits<float>::infinity(), greatest = 0;
    for (size_t c = 0; c < kWords16; ++c) {
      const float product = factor * float(products[c]);
      above = std::max(above, float(lut[m * kWords16 + c]) - product);
      greatest = std::max(greatest, std::fabs(product));
    }
    out.above += double(above) + 1e-6 * (double(greatest) + 256);  // these numbers are rounded, too
  }
  return out;
}

float UnpackedQuery::least(int32_t threshold) const noexcept {
  const double product = (double(threshold) - above) / scale;
  if (!(scale > 0) || !std::isfinite(product)) return -std::numeric_limits<float>::max();
  return float(product - 1e-6 * std::fabs(product) - 1);
}

}  // namespace swann

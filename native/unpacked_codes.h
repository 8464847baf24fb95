// Codes of a leaf, unpacked and multiplied in 8 bits: where many queries visit a leaf, and products are
// faster than lookups, they say which datapoints are worth looking up. The lookups stay what counts:
// both ways find the same keys.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "rounded.h"

namespace swann {

struct IndexView;

// Two ways to the same keys.
enum class ScanWay : uint8_t { tables, unpacked };

// Which way is faster here and for this index, found out while searching: leaves are scanned in turns
// until each way has had its share, or one is clearly slower, and the best time a datapoint and query
// counts, since whatever disturbs a machine makes times longer.
class ScanTrial {
 public:
  bool decided() const noexcept;
  ScanWay next() const noexcept;
  void report(ScanWay way, double pairs, double nanoseconds) noexcept;

 private:
  static constexpr uint32_t kTries = 24, kFewTries = 8;  // of each way
  std::atomic<uint32_t> tries_[2] = {};
  std::atomic<float> best_[2] = {1e30f, 1e30f};
};

// For tests: one way, wherever it can go, or (`forced` false) the faster.
void force_scan(bool forced, ScanWay way) noexcept;

// The codebook in 8 bits, as lut16_unpack wants it; empty where an index is scanned by tables only.
// Each block has a scale of its own, which goes to the queries.
struct ByteCodebook {
  std::vector<uint8_t> words;  // [fours][dims_per_block][4][16]
  std::vector<float> steps;    // [blocks] what a byte stands for
  std::shared_ptr<ScanTrial> trial;

  bool empty() const noexcept { return words.empty(); }
  size_t quads() const noexcept { return words.size() / 64; }
};

// Makes the byte codebook of an index, where its codes can be multiplied here: those of 4 bits, under
// dot products. (Under squared l2 a datapoint's own length, which tables hold, is no product.)
void prepare_byte_codebook(IndexView& index);

// A query rounded for unpacked codes: a sum of table entries that reaches t means a product that reaches
// (t - above) / scale. Both are measured from the very tables.
struct UnpackedQuery {
  int32_t start = 0;  // -128 times the sum of the bytes
  double scale = 0, above = 0;

  float least(int32_t threshold) const noexcept;
};

// Rounds a query [reduced_dim] to bytes [quads][4]; `scale` is that of its tables `lut`.
UnpackedQuery round_for_unpacked(const IndexView& index, const float* query, const uint8_t* lut,
                                 double scale, int8_t* bytes);

}  // namespace swann

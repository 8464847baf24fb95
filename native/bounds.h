// Centroids in 8 bits, and bounds of their scores: they find the few that need to be scored exactly.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned.h"
#include "kernels.h"

namespace swann {

// How vectors x rank centroids: by <x, c>, or by squared distance.
enum class Ranking { along, nearest };

// Centroids are counted from their mean, each in steps of its own. Their scores are <x, c'>, where
// c' = c - mean, or <x - mean, c'> - |c'|^2 / 2, by which they rank as they should.
struct RoundedCentroids {
  size_t num = 0, dim = 0;
  std::vector<float> mean;                         // [dim]
  Aligned<uint8_t> bytes;                          // [groups][quads][16][4]
  AlignedFloats steps, errors, lengths;            // [groups][16], as in BoundRows
  AlignedFloats nothing, halves;                   // the same: biases, 0 and -|c'|^2 / 2
  float longest = 0, mean_length = 0;              // |c|, at most; |mean|

  RoundedCentroids() = default;
  RoundedCentroids(const float* centroids, size_t num, size_t dim, size_t threads);
  void take(const RoundedCentroids& from, const uint32_t* list, size_t count);  // some of them

  // Whether this level multiplies bytes, for so many dimensions.
  static bool are_faster(size_t dim) noexcept;

  bool empty() const noexcept { return num == 0; }
  size_t quads() const noexcept { return quads_of(dim); }
  size_t groups() const noexcept { return ceil_div(num, kI8Group); }
  size_t nbytes() const noexcept;

 private:
  void resize(size_t count, size_t dimension);
};

// Bounds of the scores of a few vectors. A vector whose values differ much is rounded twice: what the
// first byte of each value leaves goes to a second one.
class CentroidBounds {
 public:
  static constexpr size_t kVectors = 12;  // at a time, at most

  // `ahead` [next] are vectors that are wanted soon: they are asked for meanwhile.
  void round(const RoundedCentroids& centroids, Ranking ranking, const float* const* vectors,
             size_t count, const float* const* ahead = nullptr, size_t next = 0);
  // Of the centroids in these groups. `extra` times a vector's length is added to how far off they
  // may be, beside what a score summed up in float32 may lose: a whole squared distance, or what
  // tells two of them apart.
  void find(const RoundedCentroids& centroids, size_t first_group, size_t groups, float extra,
            bool whole_distances = false);

  // [groups of the last find][16]; of centroids that are not there -infinity.
  float* lower(size_t q) noexcept { return lower_.data() + q * stride_; }
  float* upper(size_t q) noexcept { return upper_.data() + q * stride_; }
  float greatest(size_t q) const noexcept { return greatest_[q]; }  // of the lower ones

 private:
  static constexpr uint8_t kNone = 0xff;

  Ranking ranking_ = Ranking::along;
  size_t count_ = 0, stride_ = 0;
  size_t planes_ = 0;                // vectors, and second bytes of some behind them
  Aligned<int8_t> bytes_;            // [planes][quads][4]
  AlignedFloats rest_, products_, lower_, upper_;
  int32_t starts_[2 * kVectors];
  float steps_[2 * kVectors], lengths_[kVectors], errors_[kVectors], greatest_[kVectors];
  uint8_t seconds_[kVectors];        // plane of the second bytes, or kNone
};

}  // namespace swann

// The rows of an index in 8 bits, kept from search to search: where few queries visit a leaf, reading
// it is most of the work, and these are a quarter of the bytes.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "bounds_trial.h"
#include "byte_parts.h"
#include "kernels.h"

namespace swann {

struct IndexView;

// Made part by part, by the first searches that come to a part once enough queries have shown what
// queries are like: how dimensions are weighed depends on it. Rows that come later lie with their
// chunks (updates.h). Any thread may call everything.
class ByteRows {
 public:
  ByteRows(size_t entries, size_t dim, bool keeps);

  // Whether enough queries were seen. Until then they are looked at.
  bool is_on() const noexcept { return is_on_.load(std::memory_order_acquire); }
  void look_at(const IndexView& index, const float* queries, size_t count);
  // Of the dimensions; there once it is on.
  const std::vector<float>& weights() const noexcept { return weights_; }

  // Makes the rows of entries [first, first + count) where nobody did; false while another thread does.
  bool make(const IndexView& index, size_t first, size_t count);
  // Rows from the group on, as far as they were made.
  I8Rows from_group(size_t group) noexcept { return rows_->from_group(group); }

  // Whether bounds are of use where so many candidates are wanted, of rows as they are kept or lie,
  // and of rows rounded for a block.
  BoundsTrial& trial(size_t candidates, bool fresh) noexcept;

 private:
  static constexpr size_t kPart = 64;  // entries: few, since leaves may have few

  void turn_on(const IndexView& index);

  static constexpr size_t kSizes = 8;  // of what is wanted, each four times the one before

  BoundsTrial trials_[2][kSizes];
  size_t entries_, dim_;
  bool keeps_;
  std::atomic<bool> is_on_ = false;
  std::mutex looking_;
  size_t seen_ = 0;                  // queries
  std::vector<double> squares_;      // [dim] of theirs
  std::vector<float> weights_;
  std::unique_ptr<ByteParts> rows_;
};

// Adds the squares of the values of a vector.
void add_squares(const float* vector, std::vector<double>& squares);

// Weights of the dimensions: where queries are large and rows are small, and the other way round,
// weights that make both alike leave the least to rounding. `squares` [dim] are sums over some queries.
std::vector<float> weights_of(const IndexView& index, std::vector<double> squares);

// Rounds the rows of entries [first, first + count), which go through the buffer where they lie apart.
void take_entries(const IndexView& index, size_t first, size_t count, const float* weights,
                  std::vector<float>& buffer, const I8Rows& out);

}  // namespace swann

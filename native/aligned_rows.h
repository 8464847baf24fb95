// Copies of rows that kernels read faster.
#pragma once
#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

#include "kernels.h"

namespace swann {

// Rows that begin on a cache line each, filled up with zeros to whole registers: no load straddles
// two lines, and sums keep every bit, because kernels read what is missing of a register as zeros.
class AlignedRows {
 public:
  void copy(const float* rows, size_t count, size_t dim) {
    const size_t width = (dim + kLanes - 1) / kLanes * kLanes;
    if (count * width > capacity_) {
      capacity_ = 0;
      values_.reset(new (kLine) float[count * width]);
      capacity_ = count * width;
    }
    dim_ = width;
    for (size_t i = 0; i < count; ++i) {
      float* const end = std::copy_n(rows + i * dim, dim, values_.get() + i * width);
      std::fill_n(end, width - dim, 0.0f);
    }
  }

  const float* rows() const noexcept { return values_.get(); }
  size_t dim() const noexcept { return dim_; }
  size_t nbytes() const noexcept { return capacity_ * sizeof(float); }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(float* values) const noexcept { ::operator delete[](values, kLine); }
  };

  std::unique_ptr<float[], Free> values_;
  size_t capacity_ = 0, dim_ = 0;
};

}  // namespace swann

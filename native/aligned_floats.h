// Floats that begin on a cache line: no load of a whole register straddles two.
#pragma once
#include <cstddef>
#include <memory>
#include <new>

namespace swann {

class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(size_t size) { resize(size); }

  // What was there is lost where it grows; nothing is filled in.
  void resize(size_t size) {
    if (size > capacity_) {
      capacity_ = 0;
      values_.reset(new (kLine) float[size]);
      capacity_ = size;
    }
  }

  float* data() noexcept { return values_.get(); }
  const float* data() const noexcept { return values_.get(); }
  size_t nbytes() const noexcept { return capacity_ * sizeof(float); }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(float* values) const noexcept { ::operator delete[](values, kLine); }
  };

  std::unique_ptr<float[], Free> values_;
  size_t capacity_ = 0;
};

}  // namespace swann

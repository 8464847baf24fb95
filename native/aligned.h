// Arrays that begin on a cache line: no load of a whole register straddles two.
#pragma once
#include <cstddef>
#include <memory>
#include <new>

namespace swann {

template <typename Value>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(size_t size) { resize(size); }

  // What was there is lost where it grows; nothing is filled in.
  void resize(size_t size) {
    if (size > capacity_) {
      capacity_ = 0;
      values_.reset(new (kLine) Value[size]);
      capacity_ = size;
    }
  }

  Value* data() noexcept { return values_.get(); }
  const Value* data() const noexcept { return values_.get(); }
  size_t nbytes() const noexcept { return capacity_ * sizeof(Value); }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(Value* values) const noexcept { ::operator delete[](values, kLine); }
  };

  std::unique_ptr<Value[], Free> values_;
  size_t capacity_ = 0;
};

using AlignedFloats = Aligned<float>;

}  // namespace swann

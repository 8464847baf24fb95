// Rows in 8 bits, made little by little by the searches that come to them.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "aligned.h"
#include "counted.h"
#include "kernels.h"

namespace swann {

// Any thread may call everything.
class ByteParts {
 public:
  // Room for `entries` rows, of which `part`, a multiple of sixteen, are made at a time. Throws
  // bad_alloc.
  ByteParts(size_t entries, size_t dim, size_t part);

  size_t entries() const noexcept { return entries_; }

  // Has take(first, count, out) round what nobody did of entries [first, first + count); false while
  // another thread does, or where there is no memory.
  template <typename Take>
  bool make(size_t first, size_t count, const Take& take) {
    bool all = true;
    for (size_t part = first / part_; part * part_ < first + count; ++part)
      all &= make_part(part, take);
    return all;
  }

  // Rows from the group on, as far as they were made.
  I8Rows from_group(size_t group) noexcept;

 private:
  enum State : uint8_t { nothing, being_made, made };

  template <typename Take>
  bool make_part(size_t part, const Take& take) {
    std::atomic<uint8_t>& state = states_[part];
    uint8_t now = state.load(std::memory_order_acquire);
    if (now == made) return true;
    if (now == being_made || !state.compare_exchange_strong(now, being_made)) return now == made;
    const size_t first = part * part_;
    try {
      take(first, std::min(part_, entries_ - first), from_group(first / kI8Group));
    } catch (const std::bad_alloc&) {
      state.store(nothing, std::memory_order_relaxed);
      return false;
    }
    state.store(made, std::memory_order_release);
    return true;
  }

  size_t entries_, dim_, part_;
  Aligned<uint8_t> bytes_;  // [groups][quads][16][4]
  AlignedFloats inverses_, errors_, lengths_, halves_;
  std::unique_ptr<std::atomic<uint8_t>[]> states_;  // [parts]
};

// Rows that others are added to. Those that hold more take the place of those before, which stay,
// since they may be read: twice the room in all, since places double.
class GrowingByteRows {
 public:
  GrowingByteRows() = default;
  GrowingByteRows(const GrowingByteRows& other) noexcept;  // shares them
  GrowingByteRows& operator=(const GrowingByteRows&) = delete;
  ~GrowingByteRows();

  // With room for `entries` rows at least, none of them made where there was less before; null where
  // there is no memory.
  ByteParts* with_room(size_t entries, size_t dim) const noexcept;

 private:
  struct Node : Shared {
    ByteParts rows;
    Ref<Node> before;
    Node(size_t entries, size_t dim) : rows(entries, dim, kI8Group) {}
  };

  mutable std::atomic<Node*> newest_{nullptr};
};

}  // namespace swann

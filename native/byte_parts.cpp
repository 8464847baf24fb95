#include "byte_parts.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "ceil_div.h"

namespace swann {
namespace {

// Asks for large pages, as NumPy does for its arrays: small ones are read at half the speed.
void want_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) noexcept {
#if defined(__linux__)
  constexpr uintptr_t kPage = 1 << 16;  // or a part of it
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kPage * kPage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace

ByteParts::ByteParts(size_t entries, size_t dim, size_t part)
    : entries_(entries), dim_(dim), part_(part) {
  const size_t parts = ceil_div(entries, part), groups = parts * part / kI8Group;
  bytes_.resize(groups * kI8Group * quads_of(dim) * 4);
  want_large_pages(bytes_.data(), bytes_.nbytes());
  for (auto* values : {&inverses_, &errors_, &lengths_}) values->resize(groups);
  halves_.resize(groups * kI8Group);
  states_ = std::make_unique<std::atomic<uint8_t>[]>(parts);
}

I8Rows ByteParts::from_group(size_t group) noexcept {
  return {bytes_.data() + group * kI8Group * quads_of(dim_) * 4, inverses_.data() + group,
          errors_.data() + group, lengths_.data() + group, halves_.data() + group * kI8Group};
}

GrowingByteRows::GrowingByteRows(const GrowingByteRows& other) noexcept
    : newest_(other.newest_.load(std::memory_order_acquire)) {
  if (Node* const newest = newest_) newest->references.fetch_add(1, std::memory_order_relaxed);
}

GrowingByteRows::~GrowingByteRows() {
  Node* const newest = newest_;
  if (newest != nullptr && newest->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
    delete newest;
}

ByteParts* GrowingByteRows::with_room(size_t entries, size_t dim) const noexcept {
  Node* newest = newest_.load(std::memory_order_acquire);
  while (newest == nullptr || newest->rows.entries() < entries) {
    try {
      auto made = std::make_unique<Node>(entries, dim);
      made->references = 1;  // newest_
      made->before = Ref<Node>(newest);
      if (newest_.compare_exchange_strong(newest, made.get(), std::memory_order_acq_rel)) {
        if (newest != nullptr) newest->references.fetch_sub(1, std::memory_order_release);
        return &made.release()->rows;
      }
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }
  return &newest->rows;
}

}  // namespace swann

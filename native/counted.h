// Nodes that count who holds them.
#pragma once
#include <atomic>
#include <cstddef>
#include <utility>

namespace swann {

struct Shared {
  mutable std::atomic<size_t> references{0};
  Shared() = default;
  Shared(const Shared&) noexcept {}  // a copy is a node of its own
  Shared& operator=(const Shared&) = delete;
};

template <typename T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* node) noexcept : node_(node) { retain(); }
  Ref(const Ref& other) noexcept : node_(other.node_) { retain(); }
  Ref(Ref&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(node_, other.node_);
    return *this;
  }
  ~Ref() {
    if (node_ != nullptr && node_->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
      delete node_;
  }
  T* get() const noexcept { return node_; }
  T* operator->() const noexcept { return node_; }
  T& operator*() const noexcept { return *node_; }
  explicit operator bool() const noexcept { return node_ != nullptr; }
  // Nobody else holds the node, and what others read of it they have read.
  bool unique() const noexcept {
    return node_->references.load(std::memory_order_acquire) == 1;
  }
  // The node, after a copy where it is shared; made where there is none.
  T& own() {
    if (node_ == nullptr)
      *this = Ref(new T());
    else if (!unique())
      *this = Ref(new T(*node_));
    return *node_;
  }

 private:
  void retain() const noexcept {
    if (node_ != nullptr) node_->references.fetch_add(1, std::memory_order_relaxed);
  }
  T* node_ = nullptr;
};

}  // namespace swann

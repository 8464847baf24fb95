// Whether bounds are worth while, found out while searching.
#pragma once
#include <atomic>
#include <cstdint>

namespace swann {

// Whether bounds of scores by 8 bits are of use: where queries have a few dimensions that are far greater
// than the others, they leave all leaves, for one query like for the next. Any thread may say so.
class BoundsTrial {
 public:
  bool worth_it() noexcept {
    constexpr uint32_t kEnough = 8, kAgain = 256;
    const uint32_t failed = failed_.load(std::memory_order_relaxed);
    if (failed < kEnough) return true;
    failed_.store(failed + 1, std::memory_order_relaxed);
    return failed % kAgain == 0;  // queries may have changed
  }
  // `weight`: of many queries together, more than 1.
  void report(bool good, uint32_t weight = 1) noexcept {
    const uint32_t failed = failed_.load(std::memory_order_relaxed);
    if (good ? failed != 0 : failed < UINT32_MAX - weight)
      failed_.store(good ? 0 : failed + weight, std::memory_order_relaxed);
  }

 private:
  std::atomic<uint32_t> failed_ = 0;  // one after the other, and those that were not tried
};

}  // namespace swann

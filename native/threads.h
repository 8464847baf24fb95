// swann's own pool of threads. No OpenMP: its workers do not survive fork, ours are started again.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>

#include "ceil_div.h"

namespace swann {

// Calls task(i) once for each i below count, from the caller and up to num_threads - 1 workers.
// Tasks must write to places of their own. The first exception thrown is thrown again here.
void parallel_for(size_t count, size_t num_threads, const std::function<void(size_t)>& task);

// Cuts `count` things into blocks of one size, `most` at most and as many for each thread: calls
// each(first, size) for all of them.
template <typename Do>
void for_blocks(size_t count, size_t threads, size_t most, const Do& each) {
  if (count == 0) return;
  threads = std::clamp<size_t>(threads, 1, count);
  const size_t rounds = ceil_div(count, threads * most);
  const size_t blocks = std::min(count, rounds * threads), block = ceil_div(count, blocks);
  parallel_for(ceil_div(count, block), threads, [&](size_t i) {
    each(i * block, std::min(block, count - i * block));
  });
}

// Lowers `least` to i, if that is less.
inline void lower(std::atomic<size_t>& least, size_t i) noexcept {
  size_t seen = least.load();
  while (i < seen && !least.compare_exchange_weak(seen, i)) {
  }
}

// While one lives, every parallel_for of this thread calls `check` each twentieth of a second, between
// tasks; what it throws ends the loop.
class Interruptible {
 public:
  explicit Interruptible(void (*check)()) noexcept;
  ~Interruptible();
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  void (*before_)();
};

// Threads of this process that run at once.
size_t hardware_threads() noexcept;

}  // namespace swann

// Locks that no thread but the one that forks holds while a process forks.
#pragma once
#include <functional>

namespace swann {

// While one lives, a fork first calls `lock`, and then, in parent and child, `unlock`: of a child only
// the forking thread is left, and what others hold stays locked for ever. What is called must not
// wait for the forking thread, nor for the GIL, which it may hold.
class ForkGuard {
 public:
  ForkGuard(std::function<void()> lock, std::function<void()> unlock);
  ~ForkGuard();
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;

 private:
  friend struct ForkGuards;
  std::function<void()> lock_, unlock_;
};

}  // namespace swann

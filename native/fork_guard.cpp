#include "fork_guard.h"

#include <algorithm>
#include <mutex>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace swann {

struct ForkGuards {
  std::mutex mutex;
  std::vector<const ForkGuard*> all;

  void lock() {
    mutex.lock();
    for (const ForkGuard* guard : all) guard->lock_();
  }
  void unlock() {
    for (const ForkGuard* guard : all) guard->unlock_();
    mutex.unlock();
  }

  static ForkGuards& get() {
    static ForkGuards* const guards = [] {  // never destroyed: processes may fork to their end
      auto* const made = new ForkGuards();
#if defined(__unix__) || defined(__APPLE__)
      pthread_atfork([] { get().lock(); }, [] { get().unlock(); }, [] { get().unlock(); });
#endif
      return made;
    }();
    return *guards;
  }
};

ForkGuard::ForkGuard(std::function<void()> lock, std::function<void()> unlock)
    : lock_(std::move(lock)), unlock_(std::move(unlock)) {
  ForkGuards& guards = ForkGuards::get();
  const std::lock_guard<std::mutex> held(guards.mutex);
  guards.all.push_back(this);
}

ForkGuard::~ForkGuard() {
  ForkGuards& guards = ForkGuards::get();
  const std::lock_guard<std::mutex> held(guards.mutex);
  guards.all.erase(std::find(guards.all.begin(), guards.all.end(), this));
}

}  // namespace swann

#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace swann {
namespace {

// Waits for `there` while going to sleep and being woken would take longer (up to a tenth of a
// millisecond on a virtual machine). Others may have the core meanwhile.
template <typename There>
void await_briefly(const There& there) noexcept {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::microseconds(50);
  while (!there() && Clock::now() < end) std::this_thread::yield();
}

thread_local void (*interrupt_check)() = nullptr;
thread_local std::chrono::steady_clock::time_point next_check;

void hear_interrupts() {
  if (interrupt_check == nullptr) return;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_check) return;
  next_check = now + std::chrono::milliseconds(50);
  interrupt_check();
}

// One call of parallel_for. Threads draw the next index until none is left.
struct Job {
  const std::function<void(size_t)>& task;
  const size_t count;
  size_t places;                   // workers that may still join; guarded by the pool's mutex
  std::atomic<size_t> running{0};  // workers inside; changed under the pool's mutex
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::mutex error_mutex;

  Job(const std::function<void(size_t)>& t, size_t n, size_t p) : task(t), count(n), places(p) {}

  void run() noexcept {
    while (!failed.load(std::memory_order_relaxed)) {
      const size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= count) return;
      try {
        hear_interrupts();
        task(i);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        failed = true;
      }
    }
  }
};

class Pool {
 public:
  void run(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      start_workers(job.places);
      jobs_.push_back(&job);
      given_.fetch_add(1);
    }
    wake_.notify_all();
    job.run();
    await_briefly([&] { return job.running.load() == 0; });
    std::unique_lock lock(mutex_);
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    done_.wait(lock, [&] { return job.running == 0; });
  }

 private:
  // Workers are never joined: they sleep between jobs and end with the process. Where the system
  // gives no more threads, those there are do the work.
  void start_workers(size_t wanted) {
    try {
      for (; started_ < wanted; ++started_) std::thread([this] { work(); }).detach();
    } catch (const std::system_error&) {
    }
  }

  [[noreturn]] void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      Job* job = nullptr;
      for (Job* j : jobs_)
        if (j->places > 0) {
          job = j;
          break;
        }
      if (job == nullptr) {
        const size_t given = given_.load();
        lock.unlock();
        await_briefly([&] { return given_.load() != given; });
        lock.lock();
        if (given_.load() == given) wake_.wait(lock);
        continue;
      }
      --job->places;
      ++job->running;
      lock.unlock();
      job->run();
      lock.lock();
      if (--job->running == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<Job*> jobs_;
  std::atomic<size_t> given_{0};  // jobs ever; changed under the mutex
  size_t started_ = 0;
};

// The pool is never destroyed, and a forked child leaves the parent's behind: its threads did not
// come along, and its mutex may be held for ever.
std::atomic<Pool*> current{nullptr};

Pool& pool() {
  Pool* p = current.load(std::memory_order_acquire);
  if (p != nullptr) return *p;
#if defined(__unix__) || defined(__APPLE__)
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, [] { current.store(nullptr, std::memory_order_release); });
  });
#endif
  auto fresh = std::make_unique<Pool>();
  if (!current.compare_exchange_strong(p, fresh.get(), std::memory_order_acq_rel)) return *p;
  return *fresh.release();
}

}  // namespace

void parallel_for(size_t count, size_t num_threads, const std::function<void(size_t)>& task) {
  const size_t threads = std::min(num_threads, count);
  if (threads <= 1) {
    for (size_t i = 0; i < count; ++i) {
      hear_interrupts();
      task(i);
    }
    return;
  }
  Job job(task, count, threads - 1);
  pool().run(job);
  if (job.error) std::rethrow_exception(job.error);
}

Interruptible::Interruptible(void (*check)()) noexcept : before_(interrupt_check) {
  interrupt_check = check;
}

Interruptible::~Interruptible() { interrupt_check = before_; }

size_t hardware_threads() noexcept {
#if defined(__linux__)
  cpu_set_t mine;  // a process may be bound to few CPUs of many
  if (sched_getaffinity(0, sizeof mine, &mine) == 0) return size_t(std::max(1, CPU_COUNT(&mine)));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace swann

// The native code tests itself, without Python: for sanitizers, emulators and new machines.
// Kernels are tested at every level this machine can run, the pipeline at the one chosen
// (SWANN_SIMD forces it). Exits with 1 when a check fails. The argument no-fork leaves out threads
// in a forked child, which not every emulator or sanitizer can follow.
#include "selftest.h"

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"
#include "threads.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace swann;

namespace selftest {
namespace {

void add_all(size_t count, size_t threads, std::atomic<size_t>& wrong) {
  std::vector<size_t> calls(count, 0);
  parallel_for(count, threads, [&](size_t i) { ++calls[i]; });
  for (const size_t n : calls) wrong += n != 1;
}

// Returns only when as many threads as asked are at work at the same time.
void meet(size_t threads) {
  std::atomic<size_t> arrived{0};
  parallel_for(threads, threads, [&](size_t) {
    ++arrived;
    while (arrived < threads) std::this_thread::yield();
  });
}

void test_threads() {
  Group group("threads: parallel_for");
  std::atomic<size_t> wrong{0};
  for (const size_t count : {0, 1, 2, 3, 100, 5000})
    for (const size_t threads : {0, 1, 2, 4, 9}) add_all(count, threads, wrong);
  check(wrong == 0, "each index once");
  meet(5);
  std::vector<std::thread> callers;
  for (size_t c = 0; c < 6; ++c)
    callers.emplace_back([&, c] {
      for (size_t i = 0; i < 60; ++i) add_all(i * 7, 1 + c, wrong);
    });
  for (std::thread& caller : callers) caller.join();
  check(wrong == 0, "many callers");
  parallel_for(8, 3, [&](size_t i) { add_all(i * 10, 3, wrong); });
  check(wrong == 0, "a task that calls parallel_for");
  for (const size_t threads : {1, 2, 5}) {
    std::string caught;
    try {
      parallel_for(100, threads, [](size_t i) {
        if (i % 40 == 7) throw std::runtime_error("thrown by a task");
      });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    check(caught == "thrown by a task", "an exception comes back", threads);
    add_all(100, threads, wrong);
    check(wrong == 0, "usable after an exception", threads);
  }
}

#if defined(__unix__) || defined(__APPLE__)
void test_fork() {
  Group group("threads: fork after use, then use");
  std::atomic<size_t> wrong{0};
  std::atomic<bool> stop{false};
#if defined(SWANN_SANITIZED)
  std::thread busy([] {});  // a sanitizer's own locks may be held by others at the time of a fork
#else
  std::thread busy([&] {
    while (!stop) add_all(50, 3, wrong);
  });
#endif
  bool alive = true;
  for (size_t round = 0; round < 20 && alive; ++round) {
    add_all(100, 4, wrong);
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // a child that hangs ends
      std::atomic<size_t> wrong_here{0};
      meet(4);  // with threads of its own
      add_all(100, 4, wrong_here);
      _exit(wrong_here == 0 ? 0 : 1);
    }
    int status = -1;
    alive = child > 0 && waitpid(child, &status, 0) == child && status == 0;
    check(alive, "a forked child", round);
  }
  stop = true;
  busy.join();
  add_all(100, 4, wrong);
  check(wrong == 0, "the parent goes on");
}
#else
void test_fork() {}
#endif

}  // namespace
}  // namespace selftest

int main(int count, char** arguments) {
  using namespace selftest;
  if (level_error() != nullptr) {
    std::fprintf(stderr, "%s\n", level_error());
    return 2;
  }
  std::printf("level: %s\n", kernels().level);
  test_kernels();
  test_scans();
  test_bytes();
  test_rounding_of_vectors();
  test_sums();
  test_training();
  test_codes();
  test_rows();
  test_pipeline();
  test_projection();
  test_centroids();
  test_updates();
  test_together();
  test_unpacked_codes();
  test_threads();
  if (count < 2 || std::strcmp(arguments[1], "no-fork") != 0) test_fork();
  std::printf("%zu passed, %zu failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

// Preloaded into a process of the campaign: lets allocations of one module fail. Only its own calls
// count: Python's and NumPy's fail too where memory is short, but NumPy then ends the process.
// For glibc, whose own names of the functions are called.
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

std::atomic<std::uintptr_t> first{0}, last{0};  // addresses of the module's code
std::atomic<long> left{-1};                     // its allocations until one fails; below 0: none
std::atomic<bool> others{false};                // and all after that one
std::atomic<long> failed{0};

bool fails(const void* caller) {
  const auto address = reinterpret_cast<std::uintptr_t>(caller);
  if (left.load(std::memory_order_relaxed) < 0 || address < first || address >= last) return false;
  if (left.fetch_sub(1) != 0) return false;
  if (others) left = 0;
  ++failed;
  return true;
}

void* allocated(std::size_t size, std::size_t alignment, const void* caller) {
  void* made = nullptr;
  if (!fails(caller)) made = alignment ? __libc_memalign(alignment, size) : __libc_malloc(size);
  return made;
}

void* or_throw(void* made) {
  if (made == nullptr) throw std::bad_alloc();
  return made;
}

}  // namespace

#define CALLER __builtin_return_address(0)

extern "C" {

// Says whose allocations may fail: those called from these addresses.
void fail_within(std::uintptr_t begin, std::uintptr_t end) {
  first = begin;
  last = end;
}

// From now on the n-th allocation (from 0) fails; n < 0: none. Returns how many have failed.
long fail_allocation(long n, int and_others) {
  left = -1;
  others = and_others != 0;
  const long before = failed.exchange(0);
  left = n;
  return before;
}

void* malloc(std::size_t size) {
  void* made = allocated(size, 0, CALLER);
  if (made == nullptr) errno = ENOMEM;
  return made;
}

}  // extern "C"

void* operator new(std::size_t size) { return or_throw(allocated(size, 0, CALLER)); }
void* operator new[](std::size_t size) { return or_throw(allocated(size, 0, CALLER)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return allocated(size, 0, CALLER);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return allocated(size, 0, CALLER);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return or_throw(allocated(size, static_cast<std::size_t>(alignment), CALLER));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return or_throw(allocated(size, static_cast<std::size_t>(alignment), CALLER));
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }

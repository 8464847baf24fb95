// Rows lie anywhere in memory: ask for them well before they are used.
#pragma once
#include <cstddef>

namespace swann {

// Of internal linkage: files for other instruction sets have functions of their own.
[[maybe_unused]] static inline void prefetch_bytes(const void* from, size_t bytes) noexcept {
  const char* p = static_cast<const char*>(from);
  for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(p + b);
}

// How many rows ahead.
[[maybe_unused]] static inline size_t rows_ahead(size_t bytes) noexcept {
  return bytes <= 2048 ? 8 : 1;
}

}  // namespace swann

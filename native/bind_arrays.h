// Typed views of NumPy arrays for the binding files: contiguous, on the CPU, never converted.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

namespace swann {

namespace nb = nanobind;

template <typename T, size_t rank>
using In = nb::ndarray<const T, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;
template <typename T, size_t rank>
using Out = nb::ndarray<T, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;

// Sizes are checked at this border; behind it pointers are trusted.
inline void expect(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(std::string("native call: ") + what);
}

// The greatest of all values, without branches: there may be hundreds of millions.
template <typename T>
T greatest(const T* values, size_t count) noexcept {
  T most = 0;
  for (size_t i = 0; i < count; ++i) most = values[i] > most ? values[i] : most;
  return most;
}

// Bytes by sixteens, spelled out: bindings are compiled for size.
inline uint8_t greatest(const uint8_t* values, size_t count) noexcept {
  using Sixteen = uint8_t __attribute__((vector_size(16)));
  Sixteen most = {};
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    Sixteen some;
    std::memcpy(&some, values + i, sizeof some);
    most = some > most ? some : most;
  }
  uint8_t lanes[16];
  std::memcpy(lanes, &most, sizeof lanes);
  return std::max(greatest<uint8_t>(lanes, 16), greatest<uint8_t>(values + i, count - i));
}

template <typename T>
void expect_below(const T* values, size_t count, size_t limit, const char* what) {
  expect(count == 0 || greatest(values, count) < limit, what);
}

// Null where there is no array; an empty array has a pointer that is not null.
template <typename T>
auto pointer(const std::optional<T>& array) -> decltype(array->data()) {
  alignas(64) static char nothing[64];
  if (!array.has_value()) return nullptr;
  return array->size() > 0 ? array->data() : reinterpret_cast<decltype(array->data())>(nothing);
}

void bind_index(nb::module_& module);
void bind_kernels(nb::module_& module);
void bind_building(nb::module_& module);
void bind_projection(nb::module_& module);

}  // namespace swann

// Typed views of NumPy arrays for the binding files: contiguous, on the CPU, never converted.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

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

// Expects all values to be below `limit`. Without branches: there may be hundreds of millions.
template <typename T>
void expect_below(const T* values, size_t count, size_t limit, const char* what) {
  T most = 0;
  for (size_t i = 0; i < count; ++i) most = values[i] > most ? values[i] : most;
  expect(count == 0 || most < limit, what);
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

// NumPy's own interface to its arrays: in the call for one query, what nanobind takes for an array, a
// third of a microsecond, would be a tenth of the time.
#pragma once
#include "bind_arrays.h"

namespace swann {

// To be called before all else; throws where NumPy is too old.
void import_numpy();

// The values of a float32 array [dim] that can be read as they lie; null for all other objects.
const float* plain_floats(nb::handle array, size_t dim) noexcept;

// A new array [size], and where its values go. A MemoryError where there is no room.
struct NewArray {
  nb::object array;
  void* values;
};
NewArray new_int64(size_t size);
NewArray new_float32(size_t size);

}  // namespace swann

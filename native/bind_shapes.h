// What the binding files share: arrays that may be missing, and shapes that follow from others.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "bind_arrays.h"
#include "kernels.h"

namespace swann {

using MaybeF32x2 = std::optional<In<float, 2>>;
using MaybeF32 = std::optional<In<float, 1>>;
using MaybeU32 = std::optional<In<uint32_t, 1>>;

inline size_t codewords_of(size_t columns) {
  expect(columns == kWords16 || columns == kWords256, "a block has 16 or 256 codewords");
  return columns;
}

inline std::vector<size_t> first_groups(const uint32_t* leaf_starts, size_t num_leaves) {
  std::vector<size_t> starts(num_leaves + 1, 0);
  for (size_t l = 0; l < num_leaves; ++l) {
    expect(leaf_starts[l] <= leaf_starts[l + 1], "leaf_starts must not descend");
    starts[l + 1] = starts[l] + groups_of(leaf_starts[l + 1] - leaf_starts[l]);
  }
  return starts;
}

}  // namespace swann

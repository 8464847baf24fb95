// New datapoints between their arrival and the places where they are kept.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "updates.h"

namespace swann {

// New datapoints on their way in; kept between calls for its memory.
struct Encoded {
  const float* rows = nullptr;       // [count][dim], of unit length under cosine
  const float* reduced = nullptr;    // [count][reduced_dim], for centroids and codes
  std::vector<float> unit, norms, projected, mapped, reduced_norms, scores;
  std::vector<uint32_t> leaves, spilled, origins;
  std::vector<float> directions, weights, row_weights, found_corrections;
  std::vector<uint8_t> codes[kCopies];  // [tiles][blocks][16]
  std::vector<uint16_t> corrections[kCopies];
  size_t copies = 1;

  uint32_t leaf(size_t copy, size_t i) const { return copy == 0 ? leaves[i] : spilled[i]; }
  // Of datapoint i; the codes of its blocks lie kLanes apart.
  const uint8_t* code(size_t copy, size_t i, size_t blocks) const {
    return codes[copy].data() + i / kLanes * blocks * kLanes + i % kLanes;
  }
};

}  // namespace swann

// Single codes within packed ones (PackedLeaf, kernels.h).
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels.h"
#include "search.h"

namespace swann {

// The code of datapoint `at` of a run of groups, in one block.
inline uint8_t code_at(const IndexView& index, const uint8_t* codes, size_t at, size_t block) {
  const size_t lane = at % kGroup, bytes = block_bytes(index.codewords);
  const uint8_t byte = codes[(at / kGroup * index.blocks + block) * bytes + lane % bytes];
  if (index.codewords == kWords256) return byte;
  return lane < 16 ? byte & 15 : byte >> 4;
}

inline void put_code(const IndexView& index, uint8_t* codes, size_t at, size_t block, uint8_t code) {
  const size_t lane = at % kGroup, bytes = block_bytes(index.codewords);
  uint8_t& byte = codes[(at / kGroup * index.blocks + block) * bytes + lane % bytes];
  if (index.codewords == kWords256)
    byte = code;
  else
    byte = lane < 16 ? uint8_t((byte & 0xF0) | code) : uint8_t((byte & 0x0F) | code << 4);
}

}  // namespace swann

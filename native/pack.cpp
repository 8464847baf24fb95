// Codes of rows go to their places among packed ones.
#include <algorithm>
#include <bit>
#include <vector>

#include "kernels.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

// Where one row's codes go.
struct Place {
  uint8_t* byte;  // of block 0
  int shift;

  Place(const EncodeJob& rows, const Packed& out, uint64_t place) {
    const size_t bytes = block_bytes(rows.codewords), at = place % kGroup;
    const bool narrow = rows.codewords == kWords16;
    byte = out.codes + place / kGroup * rows.blocks * bytes + (narrow ? at % kLanes : at);
    shift = narrow && at >= kLanes ? 4 : 0;
  }
};

// Two rows share a byte: so a task has all rows of its groups, every `parts`-th, a power of two.
void put(const EncodeJob& rows, const Packed& out, const uint8_t* codes, const float* corrections,
         size_t part, size_t parts) {
  const size_t bytes = block_bytes(rows.codewords);
  for (size_t i = 0; i < rows.count; ++i) {
    if ((out.places[i] / kGroup & (parts - 1)) != part) continue;
    const Place place(rows, out, out.places[i]);
    const uint8_t* code = codes + i / kLanes * rows.blocks * kLanes + i % kLanes;
    for (size_t m = 0; m < rows.blocks; ++m)
      place.byte[m * bytes] = uint8_t(place.byte[m * bytes] | code[m * kLanes] << place.shift);
    if (out.corrections != nullptr) out.corrections[out.places[i]] = corrections[i];
  }
}

}  // namespace

void pack_codes(const EncodeJob& rows, const Packed& out, size_t threads) {
  std::vector<uint8_t> codes(tiles_of(rows.count) * rows.blocks * kLanes);
  std::vector<float> corrections(out.corrections == nullptr ? 0 : rows.count);
  encode_rows(rows, threads, codes.data(), out.corrections == nullptr ? nullptr : corrections.data());
  constexpr size_t kMostThreads = 64;
  const size_t parts = threads <= 1 ? 1 : 4 * std::bit_ceil(std::min(threads, kMostThreads));
  parallel_for(parts, threads, [&](size_t part) {
    put(rows, out, codes.data(), corrections.data(), part, parts);
  });
}

}  // namespace swann

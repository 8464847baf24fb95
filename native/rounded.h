// Vectors rounded to 8 bits, and how much that may change a score: what finds the few rows that
// need to be scored exactly.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace swann {

constexpr size_t kMostI8Dimensions = 1 << 15;  // sums of 8-bit products fit 32 bits

// How far the rounding of a float32 score may go, relative to the lengths of its vectors: four
// times what sums in 16 lanes may lose.
float rounding(size_t dim) noexcept;

// The greatest size of a value.
float greatest_of(const float* values, size_t dim);

// The nearest whole number, of sizes below 2^22: next to `kWhole` floats are whole numbers, so that sums
// are rounded.
inline float nearest_whole(float x) noexcept {
  constexpr float kWhole = 12582912.0f;
  return (x + kWhole) - kWhole;
}

// Queries, one after the other. Bytes are those of round_i8, but lengths and errors are added up in
// double, and what exact scores lose is among the errors.
struct RoundedQueries {
  std::vector<int8_t> bytes;                     // [count, in sixteens][quads][4]
  std::vector<int32_t> starts;                   // [count]
  std::vector<float> inverses, lengths, errors;  // [count]
  std::vector<float> halves;                     // [count] half the squared length
  std::vector<float> weights, parts;             // [dim] of the dimensions, and 1 over them
  std::vector<float> scaled;                     // [dim] a query, times parts

  void set_weights(const std::vector<float>& of_dimensions);
  void resize(size_t count, size_t dim);
  void round(const float* query, size_t dim, size_t q);  // with the weights, where there are any
  I8Queries view() const noexcept;               // without thresholds and count
};

// Queries in 16 bits, for rows of int8.
struct WideQueries {
  std::vector<int16_t> values;         // [count][dim]
  std::vector<float> steps, offs;      // [count] as in WideQuery
  std::vector<float> halves;           // [count] half the squared length

  void round(const float* queries, size_t count, size_t dim);
  WideQuery view(size_t q) const noexcept;
};

struct RoundedRows {
  std::vector<uint8_t> bytes;
  std::vector<float> inverses, errors, lengths, halves;

  void resize(size_t rows, size_t dim);
  I8Rows view() const noexcept;  // which kernels only read, but for i8_pack
};

}  // namespace swann

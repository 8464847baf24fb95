// The rows that are scored one by one (brute force, reordering), in one of three precisions.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace swann {

// Exactly one of f32, bf16 and i8 is set where there are rows. A row of int8 stands for
// scales[row] * i8[row]; squares[row] is the squared length of that (squared l2 only).
struct ExactRows {
  const float* f32 = nullptr;
  const uint16_t* bf16 = nullptr;
  const int8_t* i8 = nullptr;
  const float* scales = nullptr;
  const float* squares = nullptr;
  size_t dim = 0;

  bool present() const noexcept {
    return f32 != nullptr || bf16 != nullptr || i8 != nullptr;
  }
};

// Scores, greater is better, of `count` queries and rows [first, first + num_rows): dot products,
// or negated squared distances. out[i * stride + j].
void score_run(const ExactRows& rows, bool squared_l2, const float* queries, size_t count,
               size_t first, size_t num_rows, float* out, size_t stride);

// The same for one query and the rows named; scores agree bit for bit with score_run's.
void score_rows(const ExactRows& rows, bool squared_l2, const float* query, const uint32_t* ids,
                size_t count, float* out);

// Rounds rows to bfloat16, or to int8 with a scale of each row's own (its greatest magnitude over
// 127). weights [count], where not null, are eta - 1: then each value is rounded up or down so that
// |e|^2 + weight <e, x / |x|>^2 falls, by coordinate descent from the nearest values.
void round_to_bf16(const float* rows, size_t count, size_t dim, const float* weights,
                   size_t threads, uint16_t* out);
void round_to_i8(const float* rows, size_t count, size_t dim, const float* weights,
                 size_t threads, int8_t* out, float* scales, float* squares);

// Copies rows of so many bytes to places [count] of their own.
void put_rows(const uint8_t* rows, size_t count, size_t bytes, const uint32_t* places,
              size_t threads, uint8_t* out);

}  // namespace swann

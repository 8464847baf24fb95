// The rows that are scored one by one (brute force, reordering), in one of three precisions.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace swann {

// Exactly one of f32, bf16 and i8 is set where there are rows. A row of int8 stands for
// scales[row] * i8[row], counted from the origin that labels[row] names where there are origins;
// squares[row] is the squared length of all that (squared l2 only).
struct ExactRows {
  const float* f32 = nullptr;
  const uint16_t* bf16 = nullptr;
  const int8_t* i8 = nullptr;
  const float* scales = nullptr;
  const float* squares = nullptr;
  size_t dim = 0;
  const uint8_t* labels = nullptr;
  const float* origins = nullptr;  // [num_origins][dim]
  size_t num_origins = 0;

  bool present() const noexcept {
    return f32 != nullptr || bf16 != nullptr || i8 != nullptr;
  }
};

// The dot products of queries with all origins: [count][num_origins].
void score_origins(const ExactRows& rows, const float* queries, size_t count, float* out);

// Scores, greater is better, of `count` queries and rows [first, first + num_rows): dot products,
// or negated squared distances. out[i * stride + j]. of_origins [count] has each query's scores of
// the origins, where there are any.
void score_run(const ExactRows& rows, bool squared_l2, const float* queries, size_t count,
               size_t first, size_t num_rows, float* out, size_t stride,
               const float* const* of_origins = nullptr);

// The same for one query and the rows named; scores agree bit for bit with score_run's. Where
// of_origins is null, the origins of these rows alone are scored.
void score_rows(const ExactRows& rows, bool squared_l2, const float* query, const uint32_t* ids,
                size_t count, float* out, const float* of_origins = nullptr);

// Copies of rows, one after the other, for score_run.
class RowCopies {
 public:
  const ExactRows& take(const ExactRows& rows, const uint32_t* ids, size_t count);

 private:
  ExactRows view_;
  std::vector<float> f32_, scales_, squares_;
  std::vector<uint16_t> bf16_;
  std::vector<int8_t> i8_;
  std::vector<uint8_t> labels_;
};

// Rounds rows to bfloat16, or to int8 with a scale of each row's own (its greatest magnitude over
// 127). weights [count], where not null, are eta - 1: then each value is rounded up or down so that
// |e|^2 + weight <e, x / |x|>^2 falls, by coordinate descent from the nearest values.
//
// What is rounded to int8 is the row less the origin that labels [count] name, where origins
// [..][dim] are given. Where the first origin leaves a smaller step, the label becomes 0.
void round_to_bf16(const float* rows, size_t count, size_t dim, const float* weights,
                   size_t threads, uint16_t* out);
void round_to_i8(const float* rows, size_t count, size_t dim, const float* weights,
                 size_t threads, const float* origins, uint8_t* labels, int8_t* out,
                 float* scales, float* squares);

// What a row stands for, as floats [dim].
void copy_row(const ExactRows& rows, size_t row, float* out) noexcept;

// The squared length of what an int8 row stands for; origin may be null.
float i8_square(const int8_t* row, float scale, const float* origin, size_t dim);

// Copies the float32 rows named in ids [count], one after the other.
void take_rows(const float* rows, const int64_t* ids, size_t count, size_t dim, size_t threads,
               float* out);

// Copies rows of so many bytes to places [count] of their own.
void put_rows(const uint8_t* rows, size_t count, size_t bytes, const uint32_t* places,
              size_t threads, uint8_t* out);

}  // namespace swann

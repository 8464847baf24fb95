#include "rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "prefetch.h"
#include "threads.h"

namespace swann {
namespace {

constexpr size_t kRowsPerTask = 256;
constexpr int kSweeps = 4;
constexpr size_t kAtOnce = 64;  // rows whose origins are looked up

float square_of(const float* query, size_t dim) {
  float square;
  kernels().dot_f32(query, 1, query, 1, dim, &square, 1);
  return square;
}

// From the dot products with the stored numbers and with their origin to the score. Squared l2 is
// expanded, so that one kernel serves both.
float from_i8(const ExactRows& rows, bool squared_l2, float query_square, size_t row, float dot,
              float of_origin) {
  const float scaled = rows.scales[row] * dot + of_origin;
  if (!squared_l2) return scaled;
  return -std::max(query_square - 2.0f * scaled + rows.squares[row], 0.0f);
}

void negate(float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) values[i] = -values[i];
}

// The dot products of a query with the origins of kAtOnce rows at most.
void gather_origins(const ExactRows& rows, const float* query, const uint32_t* ids, size_t count,
                    float* out) {
  uint32_t labels[kAtOnce];
  for (size_t i = 0; i < count; ++i) labels[i] = rows.labels[ids[i]];
  kernels().dot_gather_f32(query, rows.origins, labels, count, rows.dim, out);
}

// Scores of int8 rows, from the dot products in `out`.
void finish_i8(const ExactRows& rows, bool squared_l2, const float* query, const uint32_t* ids,
               size_t count, const float* of_origins, float* out) {
  const float square = squared_l2 ? square_of(query, rows.dim) : 0.0f;
  float all[256];  // labels have a byte
  if (of_origins == nullptr && rows.origins != nullptr && count >= rows.num_origins) {
    score_origins(rows, query, 1, all);
    of_origins = all;
  }
  for (size_t first = 0; first < count; first += kAtOnce) {
    const size_t n = std::min(kAtOnce, count - first);
    float added[kAtOnce] = {};
    if (of_origins != nullptr)
      for (size_t i = 0; i < n; ++i) added[i] = of_origins[rows.labels[ids[first + i]]];
    else if (rows.origins != nullptr)
      gather_origins(rows, query, ids + first, n, added);
    for (size_t i = first; i < first + n; ++i)
      out[i] = from_i8(rows, squared_l2, square, ids[i], out[i], added[i - first]);
  }
}

// Coordinate descent on |e|^2 + weight <e, u>^2, where value j may be low[j] or high[j].
struct Rounding {
  std::vector<double> error, direction, target;
  std::vector<double> low, high;
  std::vector<char> up;

  explicit Rounding(size_t dim)
      : error(dim), direction(dim), target(dim), low(dim), high(dim), up(dim) {}

  // x is the row, and gives the direction; what is rounded (target), low and high are set by the
  // caller. Fills `up`.
  void run(const float* x, size_t dim, double weight) {
    double square = 0;
    for (size_t j = 0; j < dim; ++j) square += double(x[j]) * double(x[j]);
    const double inverse = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
    double along = 0;
    for (size_t j = 0; j < dim; ++j) {
      direction[j] = x[j] * inverse;
      const double below = target[j] - low[j], above = target[j] - high[j];
      up[j] = std::fabs(above) < std::fabs(below);
      error[j] = up[j] ? above : below;
      along += error[j] * direction[j];
    }
    bool changed = weight > 0;
    for (int sweep = 0; changed && sweep < kSweeps; ++sweep) {
      changed = false;
      for (size_t j = 0; j < dim; ++j) {
        const double other = target[j] - (up[j] ? low[j] : high[j]);
        const double moved = along + (other - error[j]) * direction[j];
        const double now = error[j] * error[j] + weight * along * along;
        if (other * other + weight * moved * moved >= now) continue;
        up[j] = !up[j];
        error[j] = other;
        along = moved;
        changed = true;
      }
    }
  }
};

template <typename Task>
void for_rows(size_t count, size_t threads, const Task& task) {
  parallel_for(ceil_div(count, kRowsPerTask), threads, [&](size_t t) {
    task(t * kRowsPerTask, std::min(count, (t + 1) * kRowsPerTask));
  });
}

// The greatest magnitude of x - origin over 127; but so much that the float32 nearest to
// origin + scale * n tells n.
float i8_scale(const float* x, const float* origin, size_t dim) {
  constexpr float kLeast = 1.0f / (1 << 22);
  float widest = 0, of_origin = 0;
  for (size_t j = 0; j < dim; ++j) {
    widest = std::max(widest, std::fabs(x[j] - origin[j]));
    of_origin = std::max(of_origin, std::fabs(origin[j]));
  }
  return widest > 0 ? std::max(widest / 127.0f, of_origin * kLeast) : 0.0f;
}

float from_bf16(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }

}  // namespace

void score_origins(const ExactRows& rows, const float* queries, size_t count, float* out) {
  kernels().dot_f32(queries, count, rows.origins, rows.num_origins, rows.dim, out,
                    rows.num_origins);
}

void score_run(const ExactRows& rows, bool squared_l2, const float* queries, size_t count,
               size_t first, size_t num_rows, float* out, size_t stride,
               const float* const* of_origins) {
  const KernelTable& k = kernels();
  const size_t dim = rows.dim, at = first * dim;
  if (rows.f32 != nullptr)
    (squared_l2 ? k.squared_l2_f32 : k.dot_f32)(queries, count, rows.f32 + at, num_rows, dim, out,
                                                stride);
  else if (rows.bf16 != nullptr)
    (squared_l2 ? k.squared_l2_bf16 : k.dot_bf16)(queries, count, rows.bf16 + at, num_rows, dim,
                                                  out, stride);
  else
    k.dot_i8(queries, count, rows.i8 + at, num_rows, dim, out, stride);
  for (size_t q = 0; q < count; ++q) {
    float* scores = out + q * stride;
    if (rows.i8 != nullptr) {
      const float square = squared_l2 ? square_of(queries + q * dim, dim) : 0.0f;
      for (size_t j = 0; j < num_rows; ++j) {
        const float added =
            rows.origins == nullptr ? 0.0f : of_origins[q][rows.labels[first + j]];
        scores[j] = from_i8(rows, squared_l2, square, first + j, scores[j], added);
      }
    } else if (squared_l2) {
      negate(scores, num_rows);
    }
  }
}

void score_rows(const ExactRows& rows, bool squared_l2, const float* query, const uint32_t* ids,
                size_t count, float* out, const float* of_origins) {
  const KernelTable& k = kernels();
  const size_t dim = rows.dim;
  if (rows.i8 != nullptr) {
    k.dot_gather_i8(query, rows.i8, ids, count, dim, out);
    finish_i8(rows, squared_l2, query, ids, count, of_origins, out);
    return;
  }
  if (rows.f32 != nullptr)
    (squared_l2 ? k.squared_l2_gather_f32 : k.dot_gather_f32)(query, rows.f32, ids, count, dim,
                                                              out);
  else
    (squared_l2 ? k.squared_l2_gather_bf16 : k.dot_gather_bf16)(query, rows.bf16, ids, count, dim,
                                                                out);
  if (squared_l2) negate(out, count);
}

void copy_row(const ExactRows& rows, size_t row, float* out) noexcept {
  const size_t dim = rows.dim, at = row * dim;
  if (rows.f32 != nullptr) {
    std::copy_n(rows.f32 + at, dim, out);
  } else if (rows.bf16 != nullptr) {
    std::transform(rows.bf16 + at, rows.bf16 + at + dim, out, from_bf16);
  } else {
    const float scale = rows.scales[row];
    for (size_t j = 0; j < dim; ++j) out[j] = scale * float(rows.i8[at + j]);
    if (rows.origins == nullptr) return;
    const float* const origin = rows.origins + rows.labels[row] * dim;
    for (size_t j = 0; j < dim; ++j) out[j] += origin[j];
  }
}

namespace {

// Copies of values [..][width] by their numbers; null where there are none.
template <typename Value>
const Value* copies_of(const Value* values, size_t width, const uint32_t* ids, size_t count,
                       std::vector<Value>& copies) {
  if (values == nullptr) return nullptr;
  copies.resize(count * width);
  const size_t bytes = width * sizeof(Value), ahead = rows_ahead(bytes);
  for (size_t i = 0; i < count; ++i) {
    if (i + ahead < count) prefetch_bytes(values + size_t(ids[i + ahead]) * width, bytes);
    std::copy_n(values + size_t(ids[i]) * width, width, copies.data() + i * width);
  }
  return copies.data();
}

}  // namespace

const ExactRows& RowCopies::take(const ExactRows& rows, const uint32_t* ids, size_t count) {
  view_ = rows;  // but for what lies row by row
  view_.f32 = copies_of(rows.f32, rows.dim, ids, count, f32_);
  view_.bf16 = copies_of(rows.bf16, rows.dim, ids, count, bf16_);
  view_.i8 = copies_of(rows.i8, rows.dim, ids, count, i8_);
  view_.scales = copies_of(rows.scales, 1, ids, count, scales_);
  view_.squares = copies_of(rows.squares, 1, ids, count, squares_);
  view_.labels = copies_of(rows.labels, 1, ids, count, labels_);
  return view_;
}

void round_to_bf16(const float* rows, size_t count, size_t dim, const float* weights,
                   size_t threads, uint16_t* out) {
  for_rows(count, threads, [&](size_t begin, size_t end) {
    Rounding rounding(dim);
    for (size_t i = begin; i < end; ++i) {
      const float* x = rows + i * dim;
      uint16_t* bits = out + i * dim;
      for (size_t j = 0; j < dim; ++j) {  // the two neighbors, towards zero and away from it
        bits[j] = uint16_t(std::bit_cast<uint32_t>(x[j]) >> 16);
        rounding.low[j] = from_bf16(bits[j]);
        const bool fits = rounding.low[j] != double(x[j]) && (bits[j] & 0x7FFF) < 0x7F7F;
        rounding.high[j] = fits ? double(from_bf16(uint16_t(bits[j] + 1))) : rounding.low[j];
        rounding.target[j] = x[j];
      }
      rounding.run(x, dim, weights == nullptr ? 0.0 : double(weights[i]));
      for (size_t j = 0; j < dim; ++j)
        if (rounding.up[j] && rounding.high[j] != rounding.low[j]) ++bits[j];
    }
  });
}

void round_to_i8(const float* rows, size_t count, size_t dim, const float* weights,
                 size_t threads, const float* origins, uint8_t* labels, int8_t* out,
                 float* scales, float* squares) {
  for_rows(count, threads, [&](size_t begin, size_t end) {
    Rounding rounding(dim);
    const std::vector<float> nowhere(origins == nullptr ? dim : 0);
    for (size_t i = begin; i < end; ++i) {
      const float* x = rows + i * dim;
      const float* origin = origins == nullptr ? nowhere.data() : origins + labels[i] * dim;
      float scale = i8_scale(x, origin, dim);
      if (origins != nullptr && labels[i] != 0) {
        const float from_first = i8_scale(x, origins, dim);
        if (from_first < scale) scale = from_first, origin = origins, labels[i] = 0;
      }
      scales[i] = scale;
      for (size_t j = 0; j < dim; ++j) {
        rounding.target[j] = double(x[j]) - double(origin[j]);
        const double steps = scale > 0 ? rounding.target[j] / double(scale) : 0.0;
        const double down = std::clamp(std::floor(steps), -127.0, 126.0);
        rounding.low[j] = down * double(scale);
        rounding.high[j] = (down + 1.0) * double(scale);
        out[i * dim + j] = int8_t(down);
      }
      rounding.run(x, dim, weights == nullptr ? 0.0 : double(weights[i]));
      for (size_t j = 0; j < dim; ++j)
        out[i * dim + j] = int8_t(out[i * dim + j] + rounding.up[j]);
      if (squares != nullptr) squares[i] = i8_square(out + i * dim, scale, origin, dim);
    }
  });
}

float i8_square(const int8_t* row, float scale, const float* origin, size_t dim) {
  double square = 0;
  for (size_t j = 0; j < dim; ++j) {
    const double value = double(scale) * row[j] + (origin == nullptr ? 0.0 : double(origin[j]));
    square += value * value;
  }
  return float(square);
}

void take_rows(const float* rows, const int64_t* ids, size_t count, size_t dim, size_t threads,
               float* out) {
  const size_t bytes = dim * sizeof(float), ahead = rows_ahead(bytes);
  for_rows(count, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      if (i + ahead < end) prefetch_bytes(rows + size_t(ids[i + ahead]) * dim, bytes);
      std::copy_n(rows + size_t(ids[i]) * dim, dim, out + i * dim);
    }
  });
}

void put_rows(const uint8_t* rows, size_t count, size_t bytes, const uint32_t* places,
              size_t threads, uint8_t* out) {
  for_rows(count, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i)
      std::copy_n(rows + i * bytes, bytes, out + size_t(places[i]) * bytes);
  });
}

}  // namespace swann

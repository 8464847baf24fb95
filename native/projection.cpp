#include "projection.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels.h"
#include "rounded.h"
#include "threads.h"

namespace swann {
namespace {

constexpr size_t kRowsPerTask = 64;
constexpr size_t kSlab = 512;       // rows whose products are added up in float32
constexpr size_t kDimsPerTask = 32;
constexpr int kBasisSteps = 127, kQuerySteps = 63;  // AVX2 adds two products in 16 bits

// A query in whole steps; false where its values differ too much for that, which is told from the steps:
// so it is no round_i8, which knows lengths and errors as floats.
bool round_query(const float* query, size_t dim, int8_t* bytes, int32_t& start, float& step) {
  constexpr int64_t kSpike = 64;  // square of the greatest value over the mean square
  const float greatest = std::max(greatest_of(query, dim), 1e-30f);
  const float inverse = float(kQuerySteps) / greatest;
  step = greatest / float(kQuerySteps);
  int32_t sum = 0, squares = 0;
  for (size_t j = 0; j < dim; ++j) {
    const int32_t whole = int32_t(nearest_whole(query[j] * inverse));
    bytes[j] = int8_t(whole);
    sum += whole;
    squares += whole * whole;
  }
  start = -128 * sum;
  return squares * kSpike >= int64_t(dim) * kQuerySteps * kQuerySteps;
}

// i8_products, for levels that have none.
void products(const uint8_t* rows, size_t groups, size_t quads, const int8_t* queries,
              const int32_t* starts, const float* factors, size_t count, float* out,
              size_t stride) noexcept {
  for (size_t q = 0; q < count; ++q, queries += 4 * quads)
    for (size_t g = 0; g < groups; ++g) {
      int32_t sums[kI8Group];
      std::fill_n(sums, kI8Group, starts[q]);
      const uint8_t* row = rows + g * quads * 4 * kI8Group;
      for (size_t j = 0; j < quads; ++j, row += 4 * kI8Group)
        for (size_t r = 0; r < kI8Group; ++r)
          for (size_t i = 0; i < 4; ++i) sums[r] += int32_t(row[4 * r + i]) * queries[4 * j + i];
      for (size_t r = 0; r < kI8Group; ++r)
        out[q * stride + g * kI8Group + r] = float(sums[r]) * factors[q];
    }
}

// Up to kRowsPerTask queries.
void project_some(const float* queries, size_t count, size_t dim, const float* basis,
                  const RoundedBasis& rounded, size_t reduced, float* out) {
  thread_local std::vector<int8_t> bytes;
  thread_local std::vector<float> found;
  const size_t quads = quads_of(dim), stride = rounded.groups * kI8Group;
  bytes.assign(count * quads * 4, 0), found.resize(count * stride);
  int32_t starts[kRowsPerTask];
  float factors[kRowsPerTask];
  bool even[kRowsPerTask];
  for (size_t q = 0; q < count; ++q) {
    float step;
    even[q] = round_query(queries + q * dim, dim, bytes.data() + q * quads * 4, starts[q], step);
    factors[q] = rounded.step * step;
  }
  const auto multiply = kernels().i8_products != nullptr ? kernels().i8_products : products;
  multiply(rounded.bytes.data(), rounded.groups, quads, bytes.data(), starts, factors, count,
           found.data(), stride);
  for (size_t q = 0; q < count; ++q)
    if (even[q])
      std::copy_n(found.data() + q * stride, reduced, out + q * reduced);
    else
      kernels().dot_f32(queries + q * dim, 1, basis, reduced, dim, out + q * reduced, reduced);
}

}  // namespace

RoundedBasis rounded_basis(const float* basis, size_t reduced, size_t dim) {
  const auto larger = [](float most, float value) { return std::max(most, std::fabs(value)); };
  const float step = std::accumulate(basis, basis + reduced * dim, 0.0f, larger) / kBasisSteps;
  const auto is_whole = [&](float value) {
    const float steps = std::rint(value / step);  // more than there may be where steps underflow
    return std::fabs(steps) <= float(kBasisSteps) && steps * step == value;
  };
  if (!(step > 0) || dim > kMostI8Dimensions || !std::all_of(basis, basis + reduced * dim, is_whole))
    return {};
  const size_t quads = quads_of(dim);
  RoundedBasis out;
  out.step = step;
  out.groups = ceil_div(reduced, kI8Group);
  out.bytes.assign(out.groups * quads * 4 * kI8Group, 128);
  for (size_t r = 0; r < reduced; ++r)
    for (size_t j = 0; j < dim; ++j)
      out.bytes[((r / kI8Group * quads + j / 4) * kI8Group + r % kI8Group) * 4 + j % 4] =
          uint8_t(128 + int(std::rint(basis[r * dim + j] / step)));
  return out;
}

void project_queries(const float* queries, size_t count, size_t dim, const float* basis,
                     const RoundedBasis& rounded, size_t reduced, size_t threads, float* out) {
  if (rounded.empty()) return project_rows(queries, count, dim, basis, reduced, threads, out);
  parallel_for(ceil_div(count, kRowsPerTask), threads, [&](size_t task) {
    const size_t first = task * kRowsPerTask, n = std::min(kRowsPerTask, count - first);
    project_some(queries + first * dim, n, dim, basis, rounded, reduced, out + first * reduced);
  });
}

void project_rows(const float* rows, size_t count, size_t dim, const float* basis, size_t reduced,
                  size_t threads, float* out) {
  parallel_for(ceil_div(count, kRowsPerTask), threads, [&](size_t task) {
    const size_t first = task * kRowsPerTask, n = std::min(kRowsPerTask, count - first);
    if (basis != nullptr)
      kernels().dot_f32(rows + first * dim, n, basis, reduced, dim, out + first * reduced, reduced);
    else
      for (size_t i = first; i < first + n; ++i)
        std::copy_n(rows + i * dim, reduced, out + i * reduced);
  });
}

void unproject_row(const float* row, size_t dim, const float* basis, size_t reduced, float* out) {
  if (basis == nullptr) {
    std::fill(std::copy_n(row, reduced, out), out + dim, 0.0f);
    return;
  }
  std::vector<double> sum(dim, 0.0);
  for (size_t r = 0; r < reduced; ++r)
    for (size_t j = 0; j < dim; ++j) sum[j] += double(row[r]) * double(basis[r * dim + j]);
  std::copy(sum.begin(), sum.end(), out);
}

void add_moments(const float* rows, size_t count, size_t dim, const double* shift, double scale,
                 size_t threads, double* sums, double* products) {
  std::vector<float> columns(dim * kSlab);
  const size_t tasks = ceil_div(dim, kDimsPerTask);
  for (size_t first = 0; first < count; first += kSlab) {
    const size_t n = std::min(kSlab, count - first);
    parallel_for(tasks, threads, [&](size_t task) {
      const size_t end = std::min(dim, (task + 1) * kDimsPerTask);
      for (size_t i = 0; i < n; ++i)
        for (size_t j = task * kDimsPerTask; j < end; ++j) {
          const double y = scale * (double(rows[(first + i) * dim + j]) - shift[j]);
          sums[j] += y;
          columns[j * n + i] = float(y);
        }
    });
    parallel_for(tasks, threads, [&](size_t task) {
      const size_t begin = task * kDimsPerTask, end = std::min(dim, begin + kDimsPerTask);
      std::vector<float> dots((end - begin) * end);
      kernels().dot_f32(columns.data() + begin * n, end - begin, columns.data(), end, n,
                        dots.data(), end);
      for (size_t i = begin; i < end; ++i)
        for (size_t j = 0; j <= i; ++j) products[i * dim + j] += double(dots[(i - begin) * end + j]);
    });
  }
}

}  // namespace swann

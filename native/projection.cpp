#include "projection.h"

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace swann {
namespace {

constexpr size_t kRowsPerTask = 64;
constexpr size_t kSlab = 512;       // rows whose products are added up in float32
constexpr size_t kDimsPerTask = 32;

}  // namespace

void project_rows(const float* rows, size_t count, size_t dim, const float* basis, size_t reduced,
                  size_t threads, float* out) {
  parallel_for((count + kRowsPerTask - 1) / kRowsPerTask, threads, [&](size_t task) {
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
  const size_t tasks = (dim + kDimsPerTask - 1) / kDimsPerTask;
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

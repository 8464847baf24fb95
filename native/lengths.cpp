// The lengths of rows: rows that are too long or no numbers, and rows of unit length.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "kernels.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

double norm_of(const float* x, size_t dim) { return std::sqrt(kernels().square_f64(x, dim)); }

}  // namespace

void square_rows(const float* rows, size_t count, size_t dim, size_t threads, double* squares) {
  parallel_for(ceil_div(count, 1024), threads, [&](size_t task) {
    for (size_t i = task * 1024; i < std::min(count, (task + 1) * 1024); ++i)
      squares[i] = kernels().square_f64(rows + i * dim, dim);
  });
}

size_t normalize_rows(const float* rows, size_t count, size_t dim, size_t threads, float* out) {
  std::atomic<size_t> zero{count};
  parallel_for(ceil_div(count, 256), threads, [&](size_t task) {
    for (size_t i = task * 256; i < std::min(count, (task + 1) * 256); ++i) {
      const float* x = rows + i * dim;
      const double norm = norm_of(x, dim);
      if (norm == 0) return lower(zero, i);
      const double inverse = 1.0 / norm;
      for (size_t j = 0; j < dim; ++j) out[i * dim + j] = float(double(x[j]) * inverse);
    }
  });
  return zero;
}

size_t check_rows(const float* rows, size_t count, size_t dim, float* norms, size_t threads) {
  std::atomic<size_t> bad{count};
  parallel_for(ceil_div(count, 1024), threads, [&](size_t task) {
    const size_t end = std::min(count, (task + 1) * 1024);
    for (size_t i = task * 1024; i < end; ++i) {
      const double norm = norm_of(rows + i * dim, dim);
      if (norms != nullptr) norms[i] = float(norm);
      if (!(norm <= kMaxNorm)) return lower(bad, i);
    }
  });
  return bad;
}

}  // namespace swann

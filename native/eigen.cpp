// Eigenvectors of a symmetric matrix, for PCA: Householder's reduction to a tridiagonal matrix, then
// implicitly shifted QR steps (Golub and Van Loan, Matrix Computations, sections 8.3.1 and 8.3.2).
// LAPACK would do, but its bits change with its number of threads. Here every row or column is the
// work of one task and sums run in a fixed order.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "projection.h"
#include "threads.h"

namespace swann {
namespace {

constexpr size_t kRowsPerTask = 16;
constexpr size_t kColumnsPerTask = 64;
constexpr size_t kWorthThreads = 256;    // rows of a step that are worth more than one thread
constexpr size_t kKeptRotations = 1 << 18;
constexpr size_t kMostSteps = 60;        // of QR for an eigenvalue; two are usual
constexpr double kLeastSquare = 1e-200;  // of what is reflected; 2 over less may be infinite

double dot(const double* a, const double* b, size_t n) {
  double lanes[8] = {};
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (size_t l = 0; l < 8; ++l) lanes[l] += a[i + l] * b[i + l];
  double sum = 0;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (size_t l = 0; l < 8; ++l) sum += lanes[l];
  return sum;
}

template <typename Task>
void for_rows(size_t begin, size_t end, size_t threads, const Task& task) {
  const size_t tasks = ceil_div(end - begin, kRowsPerTask);
  parallel_for(tasks, end - begin < kWorthThreads ? 1 : threads, [&](size_t t) {
    const size_t first = begin + t * kRowsPerTask;
    for (size_t i = first; i < std::min(end, first + kRowsPerTask); ++i) task(i);
  });
}

// Q^T A Q is tridiagonal; Q is the product of the reflections I - tau v v^T.
struct Tridiagonal {
  std::vector<double> diagonal, below;  // [n], [n - 1]
  std::vector<double> tau;              // [n - 2]; reflection k lies in row k, from column k + 1 on
};

Tridiagonal reduce(double* a, size_t n, size_t threads) {
  Tridiagonal t{std::vector<double>(n), std::vector<double>(n - 1), std::vector<double>(n)};
  std::vector<double> p(n), v(n, 0.0), w(n, 0.0);
  // What a reflection does to a row, A - v w^T - w v^T, is done when the row is read next.
  for (size_t k = 0; k + 1 < n; ++k) {
    double* const row = a + k * n;
    for (size_t j = k; j < n; ++j) row[j] -= v[k] * w[j] + w[k] * v[j];
    t.diagonal[k] = row[k];
    double* const x = row + k + 1;
    const size_t m = n - k - 1;
    const double rest = dot(x + 1, x + 1, m - 1);
    const bool reflects = k + 2 < n && rest > kLeastSquare;
    if (reflects) {
      const double length = std::sqrt(x[0] * x[0] + rest);
      t.below[k] = x[0] > 0 ? -length : length;
      x[0] -= t.below[k];
      t.tau[k] = 2.0 / (x[0] * x[0] + rest);
    } else {
      t.below[k] = x[0];
      t.tau[k] = 0;
    }
    for_rows(k + 1, n, threads, [&](size_t i) {
      double* const r = a + i * n;
      for (size_t j = k + 1; j < n; ++j) r[j] -= v[i] * w[j] + w[i] * v[j];
      p[i] = reflects ? t.tau[k] * dot(r + k + 1, x, m) : 0.0;
    });
    const double half = 0.5 * t.tau[k] * dot(p.data() + k + 1, x, m);
    for (size_t i = k + 1; i < n; ++i) {
      v[i] = reflects ? row[i] : 0.0;
      w[i] = p[i] - half * v[i];
    }
  }
  const size_t last = n - 1;
  t.diagonal[last] = a[last * n + last];
  return t;
}

// Q^T, from the reflections: row j is the last j of them applied to the unit vector j.
std::vector<double> transposed_q(const double* a, const Tridiagonal& t, size_t n, size_t threads) {
  std::vector<double> q(n * n, 0.0);
  const size_t tasks = ceil_div(n, kRowsPerTask);
  parallel_for(tasks, n < kWorthThreads ? 1 : threads, [&](size_t task) {
    const size_t first = task * kRowsPerTask, end = std::min(n, first + kRowsPerTask);
    for (size_t j = first; j < end; ++j) q[j * n + j] = 1.0;
    for (size_t k = std::min(end - 1, n - 1); k-- > 0;) {
      const double* const v = a + k * n;
      if (t.tau[k] == 0) continue;
      for (size_t j = std::max(first, k + 1); j < end; ++j) {
        double* const row = q.data() + j * n;
        const double along = t.tau[k] * dot(row + k + 1, v + k + 1, n - k - 1);
        for (size_t i = k + 1; i < n; ++i) row[i] -= along * v[i];
      }
    }
  });
  return q;
}

struct Rotation {
  size_t row;  // and the next
  double c, s;
};

// Columns are the work of one task each, which takes all rotations while they are in its cache.
void rotate(double* rows, size_t n, const std::vector<Rotation>& rotations, size_t threads) {
  parallel_for(ceil_div(n, kColumnsPerTask), threads, [&](size_t task) {
    const size_t begin = task * kColumnsPerTask, width = std::min(kColumnsPerTask, n - begin);
    for (const Rotation& r : rotations) {
      double* const upper = rows + r.row * n + begin;
      double* const lower = upper + n;
      for (size_t j = 0; j < width; ++j) {
        const double u = upper[j], l = lower[j];
        upper[j] = r.c * u + r.s * l;
        lower[j] = r.c * l - r.s * u;
      }
    }
  });
}

// One QR step on rows [low, high] of the tridiagonal matrix (d, e).
void qr_step(double* d, double* e, size_t low, size_t high, std::vector<Rotation>& rotations) {
  const double half = (d[high - 1] - d[high]) / 2, last = e[high - 1];
  const double shift = d[high] - last * (last / (half + std::copysign(std::hypot(half, last), half)));
  double x = d[low] - shift, z = e[low];
  for (size_t k = low; k < high; ++k) {
    const double r = std::hypot(x, z), c = r > 0 ? x / r : 1.0, s = r > 0 ? z / r : 0.0;
    if (k > low) e[k - 1] = r;
    const double dk = d[k], dn = d[k + 1], ek = e[k], twice = 2 * c * s * ek;
    d[k] = c * c * dk + twice + s * s * dn;
    d[k + 1] = s * s * dk - twice + c * c * dn;
    e[k] = c * s * (dn - dk) + (c * c - s * s) * ek;
    x = e[k];
    if (k + 1 < high) {
      z = s * e[k + 1];
      e[k + 1] *= c;
    }
    rotations.push_back({k, c, s});
  }
}

}  // namespace

void symmetric_eigen(double* matrix, size_t n, size_t threads, double* values) {
  double largest = 0;
  for (size_t i = 0; i < n * n; ++i) largest = std::max(largest, std::fabs(matrix[i]));
  const int exponent = largest > 0 ? std::ilogb(largest) : 0;
  for (size_t i = 0; i < n * n; ++i) matrix[i] = std::ldexp(matrix[i], -exponent);

  Tridiagonal t = reduce(matrix, n, threads);
  std::vector<double> vectors = transposed_q(matrix, t, n, threads);
  double* const d = t.diagonal.data();
  double* const e = t.below.data();
  double norm = std::fabs(d[n - 1]);
  for (size_t i = 0; i + 1 < n; ++i) norm = std::max(norm, std::fabs(d[i]) + std::fabs(e[i]));
  const double nothing = norm * DBL_EPSILON;

  std::vector<Rotation> rotations;
  size_t steps = 0;
  for (size_t high = n - 1; high > 0;) {
    if (std::fabs(e[high - 1]) <= nothing) {
      --high;
      continue;
    }
    if (++steps > kMostSteps * n) throw std::runtime_error("eigenvalues were not found");
    size_t low = high - 1;
    while (low > 0 && std::fabs(e[low - 1]) > nothing) --low;
    qr_step(d, e, low, high, rotations);
    if (rotations.size() >= kKeptRotations) {
      rotate(vectors.data(), n, rotations, threads);
      rotations.clear();
    }
  }
  rotate(vectors.data(), n, rotations, threads);

  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return d[i] > d[j]; });
  for (size_t k = 0; k < n; ++k) {
    values[k] = std::ldexp(d[order[k]], exponent);
    std::copy_n(vectors.data() + order[k] * n, n, matrix + k * n);
  }
}

}  // namespace swann

// The centroids of an anisotropic partition (Guo et al. 2020, theorem 4.2).
#include <algorithm>
#include <cmath>
#include <vector>

#include "threads.h"
#include "train.h"

namespace swann {
namespace {

constexpr double kEnough = 1e-7;     // of the right side: as exact as the float32 that is stored
constexpr size_t kMostSteps = 256;   // the loss falls at every step, so any number of them is sound

double inner(const double* a, const double* b, size_t dim) {
  double lane[4] = {};
  size_t j = 0;
  for (; j + 4 <= dim; j += 4)
    for (int l = 0; l < 4; ++l) lane[l] += a[j + l] * b[j + l];
  for (; j < dim; ++j) lane[0] += a[j] * b[j];
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

// The system of one leaf, (I + sum of s (eta - 1) u u^T / S) c = sum of s eta x / S, u = x / |x|, with
// s the weight of a row and S their sum: 1 and the number of rows, where rows count alike.
struct LeafSystem {
  size_t dim, count;
  double total;               // S
  std::vector<double> units;  // [count][dim]
  std::vector<double> gains;  // [count]: s (eta - 1)

  void multiply(const double* v, double* out) const {
    std::copy_n(v, dim, out);
    for (size_t i = 0; i < count; ++i) {
      const double* u = units.data() + i * dim;
      const double along = inner(u, v, dim) * gains[i] / total;
      for (size_t j = 0; j < dim; ++j) out[j] += along * u[j];
    }
  }
};

// Conjugate gradients from the centroid as it is. The eigenvalues lie between 1 and eta, so few steps
// are enough at any dimension, and no d x d matrix is made.
void solve(const LeafSystem& leaf, const double* right, double* c, std::vector<double>& scratch) {
  const size_t dim = leaf.dim;
  scratch.resize(3 * dim);
  double *rest = scratch.data(), *step = rest + dim, *image = step + dim;
  leaf.multiply(c, image);
  for (size_t j = 0; j < dim; ++j) step[j] = rest[j] = right[j] - image[j];
  const double enough = kEnough * kEnough * inner(right, right, dim);
  double square = inner(rest, rest, dim);
  for (size_t i = 0; i < kMostSteps && square > enough; ++i) {
    leaf.multiply(step, image);
    const double length = square / inner(step, image, dim);
    for (size_t j = 0; j < dim; ++j) {
      c[j] += length * step[j];
      rest[j] -= length * image[j];
    }
    const double before = square;
    square = inner(rest, rest, dim);
    for (size_t j = 0; j < dim; ++j) step[j] = rest[j] + square / before * step[j];
  }
}

}  // namespace

void anisotropic_centroids(const float* rows, size_t dim, const uint32_t* order,
                           const uint32_t* starts, size_t num_leaves, float eta, size_t threads,
                           float* centroids, const float* etas, const float* scales) {
  parallel_for(num_leaves, threads, [&](size_t l) {
    const size_t count = starts[l + 1] - starts[l];
    const uint32_t* members = order + starts[l];
    const auto scale_of = [&](size_t i) {
      return scales == nullptr ? 1.0 : double(scales[members[i]]);
    };
    LeafSystem leaf{dim, count, 0.0, {}, std::vector<double>(count)};
    for (size_t i = 0; i < count; ++i) leaf.total += scale_of(i);
    if (!(leaf.total > 0)) return;
    leaf.units.resize(count * dim);
    std::vector<double> right(dim, 0.0), centroid(dim), scratch;
    for (size_t i = 0; i < count; ++i) {
      const float* x = rows + size_t(members[i]) * dim;
      const double own = etas == nullptr ? double(eta) : double(etas[members[i]]);
      const double pull = scale_of(i) * own;
      leaf.gains[i] = scale_of(i) * (own - 1);
      double* u = leaf.units.data() + i * dim;
      for (size_t j = 0; j < dim; ++j) {
        u[j] = double(x[j]);
        right[j] += u[j] * pull / leaf.total;
      }
      const double square = inner(u, u, dim), inverse = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
      for (size_t j = 0; j < dim; ++j) u[j] *= inverse;
    }
    float* c = centroids + l * dim;
    for (size_t j = 0; j < dim; ++j) centroid[j] = double(c[j]);
    solve(leaf, right.data(), centroid.data(), scratch);
    for (size_t j = 0; j < dim; ++j) c[j] = float(centroid[j]);
  });
}

}  // namespace swann

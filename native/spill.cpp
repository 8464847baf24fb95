// SOAR: a second leaf for every row.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "bounds.h"
#include "kernels.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

constexpr size_t kRows = CentroidBounds::kVectors;  // at a time
constexpr size_t kCentroidsAtOnce = 512;            // keeps their scores in the second-level cache

// A row beside its own centroid.
struct Residual {
  const float* row;
  const float* direction;  // u, of x - c, or zeros
  float along;             // <x, u>
  float around;            // the same of x - mean, where bounds are counted from that
  uint32_t label;
};

// The sum of term(j), eight side by side: in one chain each would wait for the one before it.
template <typename Term>
double total(size_t count, const Term& term) {
  constexpr size_t kSums = 8;
  double sums[kSums] = {};
  size_t j = 0;
  for (; j + kSums <= count; j += kSums)
    for (size_t i = 0; i < kSums; ++i) sums[i] += term(j + i);
  for (; j < count; ++j) sums[j % kSums] += term(j);
  for (size_t half = kSums / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  return sums[0];
}

// |x - c|^2 + lambda <x - c, u>^2, less |x|^2.
float cost_of(float score, float half, float along, float own, float lambda) {
  const float parallel = own - along;
  return -2.0f * (score + half) + lambda * parallel * parallel;
}

// Tells the second centroids of a few rows, as Nearest tells the first ones.
class Second {
 public:
  // Among these; the working memory stays from call to call.
  void among(const TiledCentroids& centroids, float lambda) { all_ = &centroids, lambda_ = lambda; }

  void find(const float* rows, const uint32_t* labels, size_t count, uint32_t* spilled) {
    const size_t dim = all_->dim;
    directions_.resize(kRows * dim);
    for (size_t i = 0; i < count; ++i) residuals_[i] = residual(rows + i * dim, labels[i], i);
    std::fill_n(least_, count, std::numeric_limits<float>::infinity());
    if (all_->rounded.empty())
      for (size_t i = 0; i < count; ++i) by_floats(residuals_[i], least_[i], spilled[i]);
    else
      by_bounds(count, spilled);
  }

 private:
  Residual residual(const float* x, uint32_t label, size_t i) {
    const float* c = all_->rows + size_t(label) * all_->dim;
    float* u = directions_.data() + i * all_->dim;
    const std::vector<float>& mean = all_->rounded.mean;
    const double square =
        total(all_->dim, [&](size_t j) { return double(x[j] - c[j]) * double(x[j] - c[j]); });
    const double inverse = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
    for (size_t j = 0; j < all_->dim; ++j) u[j] = float((x[j] - c[j]) * inverse);
    const double along = total(all_->dim, [&](size_t j) { return double(x[j]) * double(u[j]); });
    const double of_mean =
        total(mean.size(), [&](size_t j) { return double(mean[j]) * double(u[j]); });
    return {x, u, float(along), float(along - of_mean), label};
  }

  void take(const Residual& of, uint32_t centroid, float score, float along, float& least,
            uint32_t& spilled) const {
    if (centroid == of.label) return;
    const float cost = cost_of(score, all_->halves[centroid], along, of.along, lambda_);
    if (cost < least || least == std::numeric_limits<float>::infinity())
      least = cost, spilled = centroid;
  }

  void by_floats(const Residual& of, float& least, uint32_t& spilled) {
    scores_.resize(all_->num), alongs_.resize(all_->num);
    const KernelTable& k = kernels();
    k.dot_f32(of.row, 1, all_->rows, all_->num, all_->dim, scores_.data(), all_->num);
    k.dot_f32(of.direction, 1, all_->rows, all_->num, all_->dim, alongs_.data(), all_->num);
    for (uint32_t c = 0; c < all_->num; ++c) take(of, c, scores_[c], alongs_[c], least, spilled);
  }

  void by_bounds(size_t count, uint32_t* spilled) {
    constexpr size_t kGroupsAtOnce = kCentroidsAtOnce / kI8Group;
    const RoundedCentroids& rounded = all_->rounded;
    const float *rows[kRows], *directions[kRows];
    float greatest[kRows];
    for (size_t i = 0; i < count; ++i)
      rows[i] = residuals_[i].row, directions[i] = residuals_[i].direction;
    std::fill_n(greatest, count, -std::numeric_limits<float>::infinity());
    of_rows_.round(rounded, Ranking::nearest, rows, count);
    of_directions_.round(rounded, Ranking::along, directions, count);
    for (size_t g = 0; g < rounded.groups(); g += kGroupsAtOnce) {
      const size_t groups = std::min(kGroupsAtOnce, rounded.groups() - g);
      of_rows_.find(rounded, g, groups, 0.0f);
      of_directions_.find(rounded, g, groups, 0.0f);
      for (size_t i = 0; i < count; ++i)
        settle(i, g * kI8Group, groups, greatest[i], spilled[i]);
    }
  }

  // Takes the best of a row's centroids, from `first` on, that may cost as little as any.
  void settle(size_t i, size_t first, size_t groups, float& greatest, uint32_t& spilled) {
    constexpr float kRounded = 1e-6f;  // of the last operations on a cost
    const KernelTable& k = kernels();
    const RoundedCentroids& rounded = all_->rounded;
    const Residual& of = residuals_[i];
    const size_t count = groups * kI8Group, there = std::min(count, rounded.num - first);
    if (of.label - first < there)  // its own is out of the question
      of_rows_.lower(i)[of.label - first] = of_rows_.upper(i)[of.label - first] =
          -std::numeric_limits<float>::infinity();
    gains_.resize(count), near_.resize(count), scores_.resize(count), alongs_.resize(count);
    const float certain = k.spill_gains_f32(
        of_rows_.lower(i), of_rows_.upper(i), of_directions_.lower(i), of_directions_.upper(i),
        count, of.around, lambda_ * (1 - kRounded), lambda_ * (1 + kRounded), gains_.data());
    greatest = std::max(greatest, certain);
    const size_t found = k.at_least_f32(gains_.data(), there, greatest, near_.data());
    for (size_t n = 0; n < found; ++n) near_[n] += uint32_t(first);
    k.dot_gather_f32(of.row, all_->rows, near_.data(), found, all_->dim, scores_.data());
    k.dot_gather_f32(of.direction, all_->rows, near_.data(), found, all_->dim, alongs_.data());
    for (size_t n = 0; n < found; ++n)
      take(of, near_[n], scores_[n], alongs_[n], least_[i], spilled);
  }

  const TiledCentroids* all_ = nullptr;
  float lambda_ = 0;
  CentroidBounds of_rows_, of_directions_;
  Residual residuals_[kRows];
  float least_[kRows];
  std::vector<float> directions_, scores_, alongs_;
  AlignedFloats gains_;
  std::vector<uint32_t> near_;
};

}  // namespace

void spill_leaves(const float* rows, size_t count, const TiledCentroids& centroids,
                  const uint32_t* labels, float lambda, size_t threads, uint32_t* spilled) {
  constexpr size_t kRowsPerTask = 8 * kRows;
  parallel_for(ceil_div(count, kRowsPerTask), threads, [&](size_t task) {
    thread_local Second second;
    second.among(centroids, lambda);
    const size_t end = std::min(count, (task + 1) * kRowsPerTask);
    for (size_t first = task * kRowsPerTask; first < end; first += kRows)
      second.find(rows + first * centroids.dim, labels + first, std::min(kRows, end - first),
                  spilled + first);
  });
}

}  // namespace swann

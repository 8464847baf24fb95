#include "bounds.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "prefetch.h"
#include "rounded.h"
#include "threads.h"

namespace swann {

bool RoundedCentroids::are_faster(size_t dim) noexcept {
  return kernels().i8_products != nullptr && dim <= kMostI8Dimensions;
}

size_t RoundedCentroids::nbytes() const noexcept {
  return bytes.nbytes() + 5 * steps.nbytes() + mean.size() * sizeof(float);
}

void RoundedCentroids::resize(size_t count, size_t dimension) {
  num = count, dim = dimension;
  bytes.resize(groups() * quads() * 4 * kI8Group);
  const size_t rows = groups() * kI8Group, last = rows < kI8Group ? 0 : rows - kI8Group;
  for (auto* values : {&steps, &errors, &lengths, &nothing, &halves}) {
    values->resize(rows);
    std::fill(values->data() + last, values->data() + rows, 0.0f);
  }
  // Those that are not there never reach anything.
  for (auto* biases : {&nothing, &halves})
    std::fill(biases->data() + num, biases->data() + rows, -std::numeric_limits<float>::infinity());
  const size_t group_bytes = quads() * 4 * kI8Group;
  if (num % kI8Group != 0)
    std::fill_n(bytes.data() + num / kI8Group * group_bytes, group_bytes, uint8_t(128));
}

RoundedCentroids::RoundedCentroids(const float* centroids, size_t count, size_t dimension,
                                   size_t threads) {
  resize(count, dimension);
  std::vector<double> sums(dim, 0.0);
  for (size_t c = 0; c < num; ++c)
    for (size_t j = 0; j < dim; ++j) sums[j] += double(centroids[c * dim + j]);
  double square = 0;
  for (double& sum : sums) {
    mean.push_back(float(sum / double(num)));
    square += double(mean.back()) * double(mean.back());
  }
  constexpr double kUp = 1.0001;
  mean_length = float(kUp * std::sqrt(square));
  std::vector<float> far(groups(), 0.0f);
  parallel_for(groups(), threads, [&](size_t g) {
    const KernelTable& k = kernels();
    std::vector<int8_t> row(quads() * 4);
    std::vector<float> away(dim);
    for (size_t c = g * kI8Group; c < std::min(num, (g + 1) * kI8Group); ++c) {
      const float* x = centroids + c * dim;
      RoundedVector rounded;
      k.round_i8(x, mean.data(), dim, 127, row.data(), nullptr, &rounded);
      steps.data()[c] = rounded.step;
      errors.data()[c] = rounded.error;
      lengths.data()[c] = rounded.length + rounded.error;
      for (size_t j = 0; j < dim; ++j) away[j] = x[j] - mean[j];
      nothing.data()[c] = 0.0f, halves.data()[c] = float(-0.5 * k.square_f64(away.data(), dim));
      far[g] = std::max(far[g], float(kUp * std::sqrt(k.square_f64(x, dim))));
      uint8_t* to = bytes.data() + (g * quads() * kI8Group + c % kI8Group) * 4;
      for (size_t quad = 0; quad < quads(); ++quad) {
        uint32_t four;
        std::memcpy(&four, row.data() + 4 * quad, 4);
        four ^= 0x80808080u;
        std::memcpy(to + quad * kI8Group * 4, &four, 4);
      }
    }
  });
  longest = *std::max_element(far.begin(), far.end());
}

void RoundedCentroids::take(const RoundedCentroids& from, const uint32_t* list, size_t count) {
  resize(count, from.dim);
  mean = from.mean, longest = from.longest, mean_length = from.mean_length;
  const size_t group_bytes = quads() * 4 * kI8Group;
  for (size_t i = 0; i < count; ++i) {
    const size_t c = list[i];
    const uint8_t* row = from.bytes.data() + c / kI8Group * group_bytes + c % kI8Group * 4;
    uint8_t* to = bytes.data() + i / kI8Group * group_bytes + i % kI8Group * 4;
    for (size_t at = 0; at < group_bytes; at += 4 * kI8Group) std::copy_n(row + at, 4, to + at);
    steps.data()[i] = from.steps.data()[c], errors.data()[i] = from.errors.data()[c];
    lengths.data()[i] = from.lengths.data()[c];
    nothing.data()[i] = 0.0f, halves.data()[i] = from.halves.data()[c];
  }
}

void CentroidBounds::round(const RoundedCentroids& centroids, Ranking ranking,
                           const float* const* vectors, size_t count, const float* const* ahead,
                           size_t next) {
  // Of evenly spread values the greatest is some three times their root mean square; beyond eight
  // times, that they are rounded weighs more than that centroids are.
  constexpr float kCoarse = 2.4f;
  const KernelTable& k = kernels();
  const size_t dim = centroids.dim, width = centroids.quads() * 4;
  const float* mean = ranking == Ranking::nearest ? centroids.mean.data() : nullptr;
  ranking_ = ranking;
  count_ = planes_ = count;
  bytes_.resize(2 * kVectors * width);
  rest_.resize(ceil_div(dim, 16) * 16);
  const auto store = [&](size_t plane, const RoundedVector& rounded) {
    starts_[plane] = rounded.start, steps_[plane] = rounded.step;
  };
  for (size_t q = 0; q < count; ++q) {
    if (q < next) prefetch_bytes(ahead[q], dim * sizeof(float));
    RoundedVector rounded;
    k.round_i8(vectors[q], mean, dim, k.i8_most, bytes_.data() + q * width, rest_.data(), &rounded);
    store(q, rounded);
    seconds_[q] = kNone;
    lengths_[q] = rounded.length;
    if (rounded.error * float(k.i8_most) > kCoarse * rounded.length) {
      RoundedVector second;
      k.round_i8(rest_.data(), nullptr, dim, k.i8_most, bytes_.data() + planes_ * width, nullptr,
                 &second);
      store(planes_, second);
      seconds_[q] = uint8_t(planes_++);
      rounded.error = second.error;
    }
    errors_[q] = rounded.error;
  }
}

void CentroidBounds::find(const RoundedCentroids& centroids, size_t first_group, size_t groups,
                          float extra, bool whole_distances) {
  constexpr size_t kNearBytes = 24 << 10;  // of the first-level cache
  const KernelTable& k = kernels();
  const size_t quads = centroids.quads(), group_bytes = quads * 4 * kI8Group;
  const bool once = planes_ <= 2;  // levels that gain from it read groups once for two
  const size_t step = once ? groups : std::max<size_t>(8, kNearBytes / group_bytes / 2 * 2);
  stride_ = groups * kI8Group;
  products_.resize(planes_ * std::min(step, groups) * kI8Group);
  lower_.resize(count_ * stride_), upper_.resize(count_ * stride_);
  std::fill_n(greatest_, count_, -std::numeric_limits<float>::infinity());
  // What scores in float32 may lose, of centroids as they are; a hundred times what differences from
  // the mean do.
  const float lost = 4 * rounding(centroids.dim) * centroids.longest;
  const bool nearest = ranking_ == Ranking::nearest;
  const float always = nearest ? lost * (centroids.mean_length + centroids.longest) : 0.0f;
  const float* biases = nearest ? centroids.halves.data() : centroids.nothing.data();
  for (size_t g = 0; g < groups; g += step) {
    const size_t n = std::min(step, groups - g), width = n * kI8Group;
    k.i8_products(centroids.bytes.data() + (first_group + g) * group_bytes, n, quads,
                  bytes_.data(), starts_, steps_, planes_, products_.data(), width);
    const size_t at = (first_group + g) * kI8Group;
    const BoundRows rows{centroids.steps.data() + at, centroids.errors.data() + at,
                         centroids.lengths.data() + at, biases + at};
    for (size_t q = 0; q < count_; ++q) {
      const float* more =
          seconds_[q] == kNone ? nullptr : products_.data() + seconds_[q] * width;
      // |x - c| at most; bounds are of halves of squares.
      const float distance = whole_distances ? lengths_[q] + 2 * centroids.longest : 0.0f;
      const float off = always + (lost + extra) * lengths_[q] +
                        rounding(centroids.dim) * distance * distance;
      const float greatest = k.bounds_f32(
          products_.data() + q * width, more, &rows, width, lengths_[q], errors_[q], off,
          lower_.data() + q * stride_ + g * kI8Group, upper_.data() + q * stride_ + g * kI8Group);
      greatest_[q] = std::max(greatest_[q], greatest);
    }
  }
}

}  // namespace swann

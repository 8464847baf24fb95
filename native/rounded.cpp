#include "rounded.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace swann {

float rounding(size_t dim) noexcept { return float(dim / 16 + 16) * 2.4e-7f; }

void RoundedQueries::set_weights(const std::vector<float>& of_dimensions) {
  weights = of_dimensions;
  parts.resize(weights.size());
  for (size_t j = 0; j < weights.size(); ++j) parts[j] = 1.0f / weights[j];
}

void RoundedQueries::resize(size_t count, size_t dim) {
  const size_t tiles = ceil_div(count, kI8Queries);
  bytes.assign(tiles * kI8Queries * quads_of(dim) * 4, 0);
  starts.resize(count);
  for (auto* values : {&inverses, &lengths, &errors, &halves}) values->resize(count);
}

namespace {

constexpr size_t kSums = 8;  // side by side, so that none waits for the one before

}  // namespace

float greatest_of(const float* values, size_t dim) {
  float lanes[kSums] = {}, greatest = 0;
  size_t j = 0;
  for (; j + kSums <= dim; j += kSums)
    for (size_t l = 0; l < kSums; ++l) lanes[l] = std::max(lanes[l], std::fabs(values[j + l]));
  for (; j < dim; ++j) greatest = std::max(greatest, std::fabs(values[j]));
  return std::max(greatest, *std::max_element(lanes, lanes + kSums));
}

namespace {

// What a query's values are like; rounding adds up the rest.
struct Lanes {
  double errors[kSums] = {}, squares[kSums] = {};
  int32_t sums[kSums] = {};

  void round(const float* x, size_t count, float inverse, float step, int8_t* to) {
    for (size_t l = 0; l < count; ++l) {
      const float whole = nearest_whole(x[l] * inverse);
      const double off = double(x[l]) - double(whole * step);
      errors[l] += off * off;
      squares[l] += double(x[l]) * double(x[l]);
      sums[l] += int32_t(whole);
      to[l] = int8_t(whole);
    }
  }
};

template <typename T>
T total(const T (&sums)[kSums]) {
  return std::accumulate(sums, sums + kSums, T(0));
}

double square_of(const float* values, size_t dim) {
  double square = 0;
  for (size_t j = 0; j < dim; ++j) square += double(values[j]) * double(values[j]);
  return square;
}

}  // namespace

void RoundedQueries::round(const float* query, size_t dim, size_t q) {
  const float* values = query;
  if (!parts.empty()) {
    scaled.resize(dim);
    for (size_t j = 0; j < dim; ++j) scaled[j] = query[j] * parts[j];
    values = scaled.data();
  }
  const float greatest = std::max(greatest_of(values, dim), 1e-18f);
  const float inverse = float(kernels().i8_most) / greatest, step = 1.0f / inverse;
  int8_t* to = bytes.data() + q * quads_of(dim) * 4;
  Lanes lanes;
  size_t j = 0;
  for (; j + kSums <= dim; j += kSums) lanes.round(values + j, kSums, inverse, step, to + j);
  lanes.round(values + j, dim - j, inverse, step, to + j);
  constexpr double kUp = 1.0001;
  const double square = total(lanes.squares), length = std::sqrt(square) * kUp;
  starts[q] = -128 * total(lanes.sums);
  inverses[q] = inverse;
  lengths[q] = float(length);
  errors[q] = float(std::sqrt(total(lanes.errors)) * kUp + double(rounding(dim)) * length);
  halves[q] = float((parts.empty() ? square : square_of(query, dim)) / 2);
}

I8Queries RoundedQueries::view() const noexcept {
  return {bytes.data(),   starts.data(), inverses.data(), lengths.data(),
          errors.data(), nullptr,       0};
}

void WideQueries::round(const float* queries, size_t count, size_t dim) {
  values.resize(count * dim);
  for (auto* each : {&steps, &offs, &halves}) each->resize(count);
  for (size_t q = 0; q < count; ++q) {
    const float* const x = queries + q * dim;
    const float greatest = std::max(greatest_of(x, dim), 1e-18f);
    const float inverse = float(most_wide(dim)) / greatest, step = 1.0f / inverse;
    double error = 0, square = 0;
    for (size_t j = 0; j < dim; ++j) {
      const float whole = nearest_whole(x[j] * inverse);
      const double off = double(x[j]) - double(whole) * double(step);
      error += off * off;
      square += double(x[j]) * double(x[j]);
      values[q * dim + j] = int16_t(whole);
    }
    // Of a row of int8 numbers, whose length is no more than this. What is lost by sums in floats,
    // those of exact scores and those of bounds, is in proportion to the query.
    const double longest = 128 * std::sqrt(double(dim));
    const double lost = double(4 * rounding(dim)) * std::sqrt(square);
    steps[q] = step;
    offs[q] = float(1.0001 * longest * (std::sqrt(error) + lost));
    halves[q] = float(square / 2);
  }
}

WideQuery WideQueries::view(size_t q) const noexcept {
  const size_t dim = values.size() / steps.size();
  return {values.data() + q * dim, steps[q], offs[q]};
}

void RoundedRows::resize(size_t rows, size_t dim) {
  const size_t groups = ceil_div(rows, kI8Group);
  bytes.resize(groups * kI8Group * quads_of(dim) * 4);
  for (auto* values : {&inverses, &errors, &lengths}) values->resize(groups);
  halves.resize(groups * kI8Group);
}

I8Rows RoundedRows::view() const noexcept {
  return {const_cast<uint8_t*>(bytes.data()), const_cast<float*>(inverses.data()),
          const_cast<float*>(errors.data()), const_cast<float*>(lengths.data()),
          const_cast<float*>(halves.data())};
}

}  // namespace swann

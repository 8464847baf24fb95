#include "rounded.h"

#include <algorithm>
#include <cmath>

namespace swann {

float rounding(size_t dim) noexcept { return float(dim / 16 + 16) * 2.4e-7f; }

void RoundedQueries::resize(size_t count, size_t dim) {
  const size_t tiles = (count + kI8Queries - 1) / kI8Queries;
  bytes.assign(tiles * kI8Queries * ((dim + 3) / 4 * 4), 0);
  starts.resize(count);
  for (auto* values : {&inverses, &lengths, &errors, &halves}) values->resize(count);
}

void RoundedQueries::round(const float* query, size_t dim, size_t q) {
  const float* part = parts.empty() ? nullptr : parts.data();
  const auto value_of = [&](size_t j) { return part == nullptr ? query[j] : query[j] * part[j]; };
  float greatest = 1e-18f;
  for (size_t j = 0; j < dim; ++j)
    greatest = std::max(greatest, std::fabs(value_of(j)));
  const float inverse = float(kernels().i8_most) / greatest, step = 1.0f / inverse;
  double error = 0, length = 0, square = 0;
  int32_t sum = 0;
  int8_t* to = bytes.data() + q * ((dim + 3) / 4 * 4);
  for (size_t j = 0; j < dim; ++j) {
    const float value = value_of(j);
    const int32_t whole = int32_t(std::lrint(value * inverse));
    const double off = double(value) - double(float(whole) * step);
    error += off * off;
    length += double(value) * double(value);
    square += double(query[j]) * double(query[j]);
    sum += whole;
    to[j] = int8_t(whole);
  }
  constexpr double kUp = 1.0001;
  length = std::sqrt(length) * kUp;
  starts[q] = -128 * sum;
  inverses[q] = inverse;
  lengths[q] = float(length);
  errors[q] = float(std::sqrt(error) * kUp + double(rounding(dim)) * length);
  halves[q] = float(square / 2);
}

I8Queries RoundedQueries::view() const noexcept {
  return {bytes.data(),   starts.data(), inverses.data(), lengths.data(),
          errors.data(), nullptr,       0};
}

I8Queries RoundedQueries::view(size_t q, size_t dim) const noexcept {
  return {bytes.data() + q * ((dim + 3) / 4 * 4), starts.data() + q, inverses.data() + q,
          lengths.data() + q, errors.data() + q, nullptr, 0};
}

void RoundedRows::resize(size_t rows, size_t dim) {
  const size_t groups = (rows + kI8Group - 1) / kI8Group;
  bytes.resize(groups * kI8Group * ((dim + 3) / 4 * 4));
  for (auto* values : {&inverses, &errors, &lengths}) values->resize(groups);
  halves.resize(groups * kI8Group);
}

I8Rows RoundedRows::view() const noexcept {
  return {const_cast<uint8_t*>(bytes.data()), const_cast<float*>(inverses.data()),
          const_cast<float*>(errors.data()), const_cast<float*>(lengths.data()),
          const_cast<float*>(halves.data())};
}

I8Rows RoundedRows::view(size_t group, size_t dim) const noexcept {
  const I8Rows all = view();
  return {all.bytes + group * kI8Group * ((dim + 3) / 4 * 4), all.inverses + group,
          all.errors + group, all.lengths + group, all.halves + group * kI8Group};
}

}  // namespace swann

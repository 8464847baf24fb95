// Rows in bfloat16 and int8: how they are rounded, and what scores of them stand for.
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "rows.h"
#include "selftest.h"
#include "train.h"

using namespace swann;

namespace selftest {
namespace {

void test_rounding() {
  Group group("training: round_to_bf16, round_to_i8");
  Random random;
  const size_t count = 300, dim = 13;
  auto rows = random.reals(count * dim), weights = random.reals(count);
  for (float& w : weights) w = std::fabs(w) * 9;
  std::fill_n(rows.begin(), dim, 0.0f);
  std::vector<uint16_t> bf16(rows.size()), bf16_weighted(rows.size()), bf16_again(rows.size());
  std::vector<int8_t> i8(rows.size()), i8_weighted(rows.size());
  std::vector<float> scales(count), squares(count);
  round_to_bf16(rows.data(), count, dim, nullptr, 1, bf16.data());
  round_to_bf16(rows.data(), count, dim, weights.data(), 1, bf16_weighted.data());
  round_to_bf16(rows.data(), count, dim, weights.data(), 3, bf16_again.data());
  round_to_i8(rows.data(), count, dim, weights.data(), 3, nullptr, nullptr, i8_weighted.data(),
              scales.data(), nullptr);
  round_to_i8(rows.data(), count, dim, nullptr, 1, nullptr, nullptr, i8.data(), scales.data(),
              squares.data());
  const auto wide = [](uint16_t v) { return std::bit_cast<float>(uint32_t(v) << 16); };
  bool nearest = true, lengths = true, better = true;
  for (size_t i = 0; i < count; ++i) {
    double square = 0, length = 0, loss[4] = {}, along[4] = {};
    for (size_t j = 0; j < dim; ++j) length += double(rows[i * dim + j]) * rows[i * dim + j];
    for (size_t at = i * dim; at < (i + 1) * dim; ++at) {
      const float x = rows[at], step = scales[i];
      const double error[] = {x - wide(bf16[at]), x - wide(bf16_weighted[at]),
                              x - double(step) * i8[at], x - double(step) * i8_weighted[at]};
      nearest &= std::fabs(error[0]) <= std::fabs(x) * 0x1p-8;
      nearest &= std::fabs(error[2]) <= step * 0.5001;
      square += double(step) * i8[at] * step * i8[at];
      for (int e = 0; e < 4; ++e) {
        loss[e] += error[e] * error[e];
        if (length > 0) along[e] += error[e] * x / std::sqrt(length);
      }
    }
    for (int e = 0; e < 4; ++e) loss[e] += weights[i] * along[e] * along[e];
    better &= loss[1] <= loss[0] + 1e-12 && loss[3] <= loss[2] + 1e-12;
    lengths &= std::fabs(squares[i] - square) <= 1e-6 * (1 + square);
  }
  check(nearest, "without weights the nearest value");
  check(better, "weights lower their loss");
  check(lengths, "squared lengths");
  check(bf16_weighted == bf16_again, "the same on three threads");
  std::vector<uint32_t> back(count);
  for (size_t i = 0; i < count; ++i) back[i] = uint32_t(count - 1 - i);
  std::vector<float> turned(rows.size());
  const auto bytes = [](auto* values) { return reinterpret_cast<uint8_t*>(values); };
  put_rows(bytes(rows.data()), count, dim * sizeof(float), back.data(), 3, bytes(turned.data()));
  check(std::equal(turned.end() - ptrdiff_t(dim), turned.end(), rows.begin()) &&
            std::equal(rows.end() - ptrdiff_t(dim), rows.end(), turned.begin()),
        "rows in their places");
}

// Of rows that lie near origins far away, int8 keeps as much as of the differences.
void test_rounding_from_origins() {
  Group group("training: round_to_i8 from origins");
  Random random;
  const size_t count = 200, dim = 13, all = 90, few = 80;
  auto rows = random.reals(count * dim), origins = random.reals(all * dim);
  const auto weights = std::vector<float>(count, 4.0f);
  for (float& value : origins) value *= 50;  // the first is one of them here
  std::vector<uint8_t> labels(count);
  for (size_t i = 0; i < count; ++i) {
    labels[i] = uint8_t(random.below(all));
    for (size_t j = 0; j < dim; ++j) rows[i * dim + j] += origins[labels[i] * dim + j];
  }
  std::copy_n(origins.begin() + labels[0] * dim, dim, rows.begin());  // an origin itself
  std::vector<int8_t> i8(rows.size()), weighted(rows.size());
  std::vector<float> scales(count), squares(count), again(count);
  round_to_i8(rows.data(), count, dim, nullptr, 1, origins.data(), labels.data(), i8.data(),
              scales.data(), squares.data());
  round_to_i8(rows.data(), count, dim, weights.data(), 3, origins.data(), labels.data(),
              weighted.data(), again.data(), nullptr);
  bool near = true, lengths = true, better = true;
  for (size_t i = 0; i < count; ++i) {
    const float* origin = origins.data() + labels[i] * dim;
    double square = 0, length = 0, loss[2] = {}, along[2] = {};
    for (size_t j = 0; j < dim; ++j) {
      const size_t at = i * dim + j;
      const double x = rows[at];
      const double values[] = {origin[j] + double(scales[i]) * i8[at],
                               origin[j] + double(scales[i]) * weighted[at]};
      near &= std::fabs(x - values[0]) <= scales[i] * 0.501;
      square += values[0] * values[0], length += x * x;
      for (int e = 0; e < 2; ++e) {
        loss[e] += (x - values[e]) * (x - values[e]);
        along[e] += (x - values[e]) * x;
      }
    }
    for (int e = 0; e < 2; ++e) loss[e] += 4 * along[e] * along[e] / length;
    better &= loss[1] <= loss[0] + 1e-12;
    near &= scales[i] < 0.1f;
    lengths &= std::fabs(squares[i] - square) <= 1e-6 * square;
  }
  check(near, "the nearest value, in small steps");
  check(scales[0] == 0.0f, "an origin is its own");
  check(better, "weights lower their loss");
  check(lengths, "squared lengths");
  check(scales == again, "the same scales");
  // Scores: bit for bit the same in runs and by number, and those of what rows stand for.
  const ExactRows kept{nullptr, nullptr,       i8.data(),      scales.data(), squares.data(),
                       dim,     labels.data(), origins.data(), all};
  const auto query = random.reals(dim);
  std::vector<float> of_origins(all), run(count), one_by_one(count), together(count), known(count);
  std::vector<uint32_t> ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = uint32_t(i);
  score_origins(kept, query.data(), 1, of_origins.data());
  const float* of_query = of_origins.data();
  for (const bool squared_l2 : {false, true}) {
    score_run(kept, squared_l2, query.data(), 1, 0, count, run.data(), count, &of_query);
    for (size_t first = 0; first < count; first += few)  // too few to score all origins
      score_rows(kept, squared_l2, query.data(), ids.data() + first, std::min(few, count - first),
                 one_by_one.data() + first);
    score_rows(kept, squared_l2, query.data(), ids.data(), count, together.data());
    score_rows(kept, squared_l2, query.data(), ids.data(), count, known.data(), of_query);
    check(run == one_by_one && run == together && run == known, "the same scores", squared_l2);
    bool right = true;
    for (size_t i = 0; i < count; ++i) {
      double score = 0;
      for (size_t j = 0; j < dim; ++j) {
        const double value = double(origins[labels[i] * dim + j]) + double(scales[i]) * i8[i * dim + j];
        const double difference = query[j] - value;
        score += squared_l2 ? -difference * difference : query[j] * value;
      }
      right &= std::fabs(run[i] - score) <= 1e-4 * (1 + squares[i]);
    }
    check(right, "scores of what rows stand for", squared_l2);
  }
}

}  // namespace

void test_rows() {
  test_rounding();
  test_rounding_from_origins();
}

}  // namespace selftest

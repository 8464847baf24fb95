// Vectors in 8 bits and bounds of their scores, against doubles.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "bounds.h"
#include "kernels.h"
#include "byte_rows.h"
#include "rounded.h"
#include "rows.h"
#include "selftest.h"
#include "selftest_index.h"
#include "train.h"

using namespace swann;

namespace selftest {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double length_of(const float* x, const float* origin, size_t dim) {
  double square = 0;
  for (size_t j = 0; j < dim; ++j) {
    const double value = double(x[j]) - (origin == nullptr ? 0.0 : double(origin[j]));
    square += value * value;
  }
  return std::sqrt(square);
}

void test_round(const KernelTable& k, Random& random, size_t dim, int32_t most, float scale) {
  const size_t quads = quads_of(dim);
  auto x = random.reals(dim), origin = random.reals(dim);
  for (auto* values : {&x, &origin})
    for (float& value : *values) value *= scale;
  for (const float* from : {static_cast<const float*>(nullptr), static_cast<const float*>(origin.data())}) {
    std::vector<int8_t> bytes(quads * 4 + 1, 77);
    std::vector<float> rest(ceil_div(dim, 16) * 16);
    RoundedVector rounded;
    k.round_i8(x.data(), from, dim, most, bytes.data(), rest.data(), &rounded);
    int32_t sum = 0;
    double lost = 0, worst = 0;
    bool small = bytes.back() == 77;
    for (size_t j = 0; j < quads * 4; ++j) sum += bytes[j], small &= std::abs(bytes[j]) <= most;
    for (size_t j = 0; j < dim; ++j) {
      const double value = double(x[j]) - (from == nullptr ? 0.0 : double(from[j]));
      const double off = value - double(bytes[j]) * double(rounded.step);
      lost += off * off;
      worst = std::max(worst, std::fabs(off - double(rest[j])));
      small &= std::fabs(off) <= 0.501 * double(rounded.step);
    }
    for (size_t j = dim; j < quads * 4; ++j) small &= bytes[j] == 0;
    const double length = length_of(x.data(), from, dim);
    check(small && rounded.start == -128 * sum, "round_i8: bytes", dim, size_t(most));
    check(worst <= 1e-6 * double(scale), "round_i8: the rest", dim);
    const auto bounds = [&](float upper, double value) {
      return double(upper) >= value && double(upper) <= 1.001 * value + 1e-6 * length + 2e-16;
    };
    check(bounds(rounded.length, length) && bounds(rounded.error, std::sqrt(lost)),
          "round_i8: length and error", dim);
  }
}

void test_bounds_f32(const KernelTable& k, Random& random, size_t count) {
  const auto products = random.reals(count), more = random.reals(count), biases = random.reals(count);
  auto steps = random.reals(count), errors = random.reals(count), lengths = random.reals(count);
  for (auto* values : {&steps, &errors, &lengths})
    for (float& value : *values) value = std::fabs(value);
  const BoundRows rows{steps.data(), errors.data(), lengths.data(), biases.data()};
  for (const bool twice : {false, true}) {
    std::vector<float> lower(count), upper(count);
    const float greatest = k.bounds_f32(products.data(), twice ? more.data() : nullptr, &rows, count,
                                        0.7f, 0.3f, 0.1f, lower.data(), upper.data());
    bool right = true;
    for (size_t i = 0; i < count; ++i) {
      const double product = double(products[i]) + (twice ? double(more[i]) : 0.0);
      const double score = product * double(steps[i]) + double(biases[i]);
      const double off = 0.7 * double(errors[i]) + 0.3 * double(lengths[i]) + 0.1;
      right &= std::fabs(double(lower[i]) - (score - off)) < 1e-5 &&
               std::fabs(double(upper[i]) - (score + off)) < 1e-5;
    }
    check(right && greatest == *std::max_element(lower.begin(), lower.end()), "bounds_f32", count);
  }
}

void test_spill_gains(const KernelTable& k, Random& random, size_t count) {
  auto lower = random.reals(count), upper = random.reals(count), least = random.reals(count),
       most = random.reals(count);
  for (size_t i = 0; i < count; ++i) {
    if (lower[i] > upper[i]) std::swap(lower[i], upper[i]);
    if (least[i] > most[i]) std::swap(least[i], most[i]);
  }
  const float own = 0.1f, less = 1.4f, more = 1.6f;
  std::vector<float> gains(count);
  const float greatest = k.spill_gains_f32(lower.data(), upper.data(), least.data(), most.data(),
                                           count, own, less, more, gains.data());
  bool right = true;
  double best = -1e9;
  for (size_t i = 0; i < count; ++i) {
    const double a = double(own) - double(least[i]), b = double(own) - double(most[i]);  // b <= a
    const double near = a * b <= 0 ? 0.0 : std::min(a * a, b * b), far = std::max(a * a, b * b);
    right &= std::fabs(double(gains[i]) - (2 * double(upper[i]) - double(less) * near)) < 1e-5;
    best = std::max(best, 2 * double(lower[i]) - double(more) * far);
  }
  check(right && std::fabs(double(greatest) - best) < 1e-5, "spill_gains_f32", count);
}

void test_square(const KernelTable& k, Random& random, size_t dim) {
  const auto x = random.reals(dim);
  const double length = length_of(x.data(), nullptr, dim), square = k.square_f64(x.data(), dim);
  check(std::fabs(square - length * length) <= 1e-14 * double(dim), "square_f64", dim);
  check(square == find_level("scalar")->square_f64(x.data(), dim), "square_f64: levels", dim);
}

void test_add_row(const KernelTable& k, Random& random, size_t dim) {
  const auto row = random.reals(dim);
  std::vector<double> sums(dim, 0.25), want(dim, 0.25);
  k.add_row(row.data(), dim, sums.data());
  for (size_t j = 0; j < dim; ++j) want[j] += double(row[j]);
  check(sums == want, "add_row", dim);
}

// Centroids about a point that is not zero, and vectors of which every third has a value that dwarfs the others.
struct Cloud {
  size_t num, count, dim;
  std::vector<float> centroids, vectors;

  Cloud(Random& random, size_t n, size_t c, size_t d, float scale, float away)
      : num(n), count(c), dim(d), centroids(random.reals(n * d)), vectors(random.reals(c * d)) {
    const auto about = random.reals(dim);
    for (size_t i = 0; i < centroids.size(); ++i)
      centroids[i] = scale * (centroids[i] + away * about[i % dim]);
    for (size_t i = 0; i < vectors.size(); ++i)
      vectors[i] = scale * (vectors[i] + away * about[i % dim]);
    for (size_t q = 0; q < count; q += 3) vectors[q * dim + q % dim] *= 100;
  }

  // Centroids that are nothing but whole steps from their mean, zero: all the error is of the vectors.
  void make_whole(Random& random) {
    for (size_t c = 0; c + 1 < num; c += 2)
      for (size_t j = 0; j < dim; ++j) {
        const int steps = j == 0 ? 127 : int(random.below(255)) - 127;
        centroids[c * dim + j] = float(steps), centroids[(c + 1) * dim + j] = float(-steps);
      }
  }

  // The score that bounds are of, and |x| |c'|.
  std::pair<double, double> score(const RoundedCentroids& of, size_t q, size_t c, Ranking ranking) const {
    const bool nearest = ranking == Ranking::nearest;
    double score = 0, x_square = 0, c_square = 0;
    for (size_t j = 0; j < dim; ++j) {
      const double mean = double(of.mean[j]), from = double(centroids[c * dim + j]) - mean;
      const double x = double(vectors[q * dim + j]) - (nearest ? mean : 0.0);
      score += x * from - (nearest ? 0.5 * from * from : 0.0);
      x_square += x * x, c_square += from * from;
    }
    return {score, std::sqrt(x_square * c_square)};
  }
};

void test_centroid_bounds(Random& random, size_t num, size_t dim, float scale, float away,
                          bool whole) {
  const size_t count = CentroidBounds::kVectors;
  Cloud cloud(random, num, count, dim, scale, away);
  if (whole) cloud.make_whole(random);
  const RoundedCentroids all(cloud.centroids.data(), num, dim, 2);
  std::vector<uint32_t> list;
  for (uint32_t c = 0; c < num; c += 1 + random.below(3)) list.push_back(c);
  RoundedCentroids some;
  some.take(all, list.data(), list.size());
  CentroidBounds bounds;
  for (const Ranking ranking : {Ranking::along, Ranking::nearest})
    for (const size_t together : {size_t(1), size_t(2), count})
      for (const bool few : {false, true}) {
        const RoundedCentroids& of = few ? some : all;
        const size_t first = of.groups() / 3, groups = of.groups() - first;
        std::vector<const float*> rows;
        for (size_t q = 0; q < together; ++q) rows.push_back(cloud.vectors.data() + q * dim);
        bounds.round(of, ranking, rows.data(), together);
        bounds.find(of, first, groups, 0.0f);
        bool hold = true, near = true, ends = true;
        for (size_t q = 0; q < together; ++q) {
          float greatest = -kInfinity;
          for (size_t i = 0; i < groups * kI8Group; ++i) {
            const size_t at = first * kI8Group + i;
            const double lower = double(bounds.lower(q)[i]), upper = double(bounds.upper(q)[i]);
            greatest = std::max(greatest, bounds.lower(q)[i]);
            if (at >= of.num) {
              ends &= bounds.upper(q)[i] == -kInfinity;
              continue;
            }
            const auto [score, product] = cloud.score(all, q, few ? list[at] : at, ranking);
            hold &= lower <= score && score <= upper;
            const double length = length_of(rows[q], nullptr, dim), longest = double(all.longest);
            near &= upper - lower <= 8.0 / double(kernels().i8_most) * product +
                                         (2e-4 * longest + 1e-15) * (length + longest);
          }
          ends &= greatest == bounds.greatest(q);
        }
        check(hold, "scores within their bounds", num, dim);
        check(near, "bounds near each other", num, dim);
        check(ends, "the greatest, and none where none is", num, dim);
      }
}

// The nearest centroids and the cheapest second ones: the same whether bounds find them or all scores.
void test_assigning(Random& random, size_t leaves, size_t dim, float away) {
  const size_t count = 150;
  const Cloud cloud(random, leaves, count, dim, 1.0f, away);
  TiledCentroids centroids(cloud.centroids.data(), leaves, dim, 2);
  std::vector<uint32_t> labels(count), spilled(count), all_labels(count), all_spilled(count);
  std::vector<float> scores(count), all_scores(count);
  const float* x = cloud.vectors.data();
  assign_leaves(x, count, centroids, 2, labels.data(), scores.data());
  constexpr float kLambda = 1.5f;
  spill_leaves(x, count, centroids, labels.data(), kLambda, 2, spilled.data());
  centroids.rounded = {};
  assign_leaves(x, count, centroids, 2, all_labels.data(), all_scores.data());
  spill_leaves(x, count, centroids, all_labels.data(), kLambda, 2, all_spilled.data());
  bool first = labels == all_labels && same_bits(scores, all_scores), second = spilled == all_spilled;
  for (size_t i = 0; i < count; ++i) {
    const float* row = x + i * dim;
    const float* own = cloud.centroids.data() + labels[i] * dim;
    const double length = length_of(row, nullptr, dim), residual = length_of(row, own, dim);
    const auto cost = [&](size_t c, double lambda) {
      double square = 0, along = 0;
      for (size_t j = 0; j < dim; ++j) {
        const double e = double(row[j]) - double(cloud.centroids[c * dim + j]);
        square += e * e, along += e * (double(row[j]) - double(own[j]));
      }
      return square + (residual > 0 ? lambda * along * along / (residual * residual) : 0.0);
    };
    const double slack = 1e-5 * (length + 1 + double(away)) * (length + 1 + double(away));
    for (size_t c = 0; c < leaves; ++c) {
      first &= cost(labels[i], 0) <= cost(c, 0) + slack;
      second &= c == labels[i] || cost(spilled[i], double(kLambda)) <= cost(c, double(kLambda)) + slack;
    }
    second &= spilled[i] != labels[i];
    float score;
    kernels().dot_f32(row, 1, own, 1, dim, &score, 1);
    first &= leaves <= 32 || scores[i] == score + centroids.halves[labels[i]];
  }
  check(first, "the nearest centroid and its score", leaves, dim);
  check(second, "the cheapest second centroid", leaves, dim);
}

// Queries in 16 bits: no row of int8 is farther off than they say, and some are nearly as far.
void test_wide_queries(Random& random, size_t dim, float scale) {
  constexpr size_t kCount = 3, kRows = 200;
  auto queries = random.reals(kCount * dim);
  for (float& value : queries) value *= scale;
  queries[dim] *= 100;
  WideQueries wide;
  wide.round(queries.data(), kCount, dim);
  for (size_t q = 0; q < kCount; ++q) {
    const float* const query = &queries[q * dim];
    const WideQuery view = wide.view(q);
    const double lost = 4 * double(rounding(dim)) * length_of(query, nullptr, dim);
    double error = 0;
    bool small = true;
    const auto off = [&](size_t j) { return double(query[j]) - double(view.step) * view.values[j]; };
    for (size_t j = 0; j < dim; ++j) {
      error += off(j) * off(j);
      small &= std::abs(view.values[j]) <= most_wide(dim);
    }
    const double longest = 128 * std::sqrt(double(dim));
    double worst = 0;
    for (size_t r = 0; r < kRows; ++r) {
      double total = 0;
      for (size_t j = 0; j < dim; ++j)  // the first is as bad as any
        total += off(j) * (r == 0 ? std::copysign(128.0, off(j)) : double(random.below(256)) - 128);
      worst = std::max(worst, std::fabs(total));
    }
    check(small, "wide queries: values", dim, q);
    check(worst + longest * lost <= double(view.off), "wide queries: off by less", dim, q);
    check(double(view.off) <= 1.001 * longest * (std::sqrt(error) + lost), "and by no more", dim, q);
    const double half = std::pow(length_of(query, nullptr, dim), 2) / 2;
    check(std::fabs(double(wide.halves[q]) - half) <= 1e-6 * half, "wide queries: halves", dim, q);
  }
}

// Rows of int8 rounded to bytes: errors leave room for what scores lose, and squares are those kept.
void test_i8_entries(Random& random, Distance distance, size_t dim) {
  if (kernels().i8_pack == nullptr) return;
  constexpr size_t kCount = 300, kFirst = 32, kTaken = 75;
  SmallIndex index(random, distance, kCount, dim, 0, 0);
  index.rows = random.reals(index.rows.size());
  index.round_rows(random);
  std::vector<float> weights(dim), buffer, row(dim);
  for (float& weight : weights) weight = 0.5f + float(random.below(100)) / 50;
  RoundedRows rounded;
  rounded.resize(kTaken, dim);
  const I8Rows view = rounded.view();
  take_entries(index.view, kFirst, kTaken, weights.data(), buffer, view);
  for (size_t i = 0; i < kTaken; ++i) {
    const size_t at = kFirst + i, g = i / kI8Group;
    const float* const origin = &index.origins[index.labels[at] * dim];
    double off = 0, of_numbers = 0, of_origin = 0;
    copy_row(index.view.rows, at, row.data());
    bool near = true;
    for (size_t j = 0; j < dim; ++j) {
      const double weight = double(weights[j]), number = double(index.scales[at]) * index.i8[at * dim + j];
      const uint8_t byte = view.bytes[((g * quads_of(dim) + j / 4) * kI8Group + i % kI8Group) * 4 + j % 4];
      const double value = number + double(origin[j]);
      near &= std::fabs(double(row[j]) - value) < 1e-6;
      off += std::pow(weight * value - (double(byte) - 128) / double(view.inverses[g]), 2);
      of_numbers += std::pow(weight * number, 2), of_origin += std::pow(weight * double(origin[j]), 2);
    }
    const double lost = double(rounding(dim)) * (std::sqrt(of_numbers) + std::sqrt(of_origin));
    check(near, "copy_row: int8", dim, at);
    check(std::sqrt(off) + lost <= double(view.errors[g]) * 1.000001, "int8 in bytes: errors", dim, at);
    if (index.view.squared_l2())
      check(view.halves[i] == 0.5f * view.inverses[g] * index.squares[at], "int8 in bytes: squares", at);
  }
}

void test_rows_of_i8() {
  Group group("bounds: queries in 16 bits, rows of int8 in bytes");
  Random random;
  for (const size_t dim : {1, 5, 16, 33, 100, 20000})
    for (const float scale : {1e-12f, 1.0f, 1e9f}) test_wide_queries(random, dim, scale);
  for (const size_t dim : {1, 5, 16, 33, 100})
    for (const Distance distance : {Distance::dot_product, Distance::squared_l2})
      test_i8_entries(random, distance, dim);
}

}  // namespace

void test_rounding_of_vectors() {
  size_t count;
  const Level* all = levels(&count);
  for (size_t i = 0; i < count; ++i) {
    const KernelTable& k = *all[i].table;
    Group group(std::string(k.level) + ": round_i8, bounds_f32, spill_gains_f32, square_f64, add_row");
    Random random;
    for (const size_t dim : {1, 3, 4, 15, 16, 17, 33, 100, 784})
      for (const float scale : {1e-12f, 1.0f, 1e9f}) {
        test_round(k, random, dim, 127, scale);
        test_round(k, random, dim, 63, scale);
      }
    for (const size_t rows : {16, 48, 1600}) {
      test_bounds_f32(k, random, rows);
      test_spill_gains(k, random, rows);
    }
    for (const size_t dim : {1, 7, 8, 15, 16, 31, 100}) {
      test_add_row(k, random, dim);
      test_square(k, random, dim);
    }
  }
  Group group("bounds: of centroids, and who is nearest");
  Random random;
  for (const size_t dim : {1, 5, 16, 100, 300})
    for (const float away : {0.0f, 3.0f, 1000.0f}) {
      if (RoundedCentroids::are_faster(dim))
        for (const size_t num : {1, 16, 40, 600})
          for (const float scale : {1e-12f, 1.0f, 1e9f})
            test_centroid_bounds(random, num, dim, scale, away, false);
      if (RoundedCentroids::are_faster(dim))
        test_centroid_bounds(random, 40, dim, 1.0f, away, true);
      for (const size_t leaves : {2, 33, 48, 600}) test_assigning(random, leaves, dim, away);
    }
  test_rows_of_i8();
}

}  // namespace selftest

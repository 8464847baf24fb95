// The kernels of rows in 8 bits, at every level that has them: bounds that no row may break, and sums
// of whole numbers, which are exact.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels.h"
#include "selftest.h"

using namespace swann;

namespace selftest {
namespace {

// Every row that reaches a query's threshold is named; of rows that stay far below it, none.
void test_i8_filter_once(const KernelTable& k, Random& random, size_t dim, size_t rows,
                         size_t count, bool squared_l2) {
  const size_t quads = quads_of(dim), groups = ceil_div(rows, kI8Group);
  const auto db = random.reals(rows * dim), wanted = random.reals(count * dim);
  std::vector<float> weights(dim);
  for (float& w : weights) w = 0.5f + float(random.below(100)) / 50;
  std::vector<uint8_t> bytes(groups * quads * 64);
  std::vector<float> inverses(groups), errors(groups), lengths(groups), halves(groups * kI8Group);
  const I8Rows packed{bytes.data(), inverses.data(), errors.data(), lengths.data(), halves.data()};
  k.i8_pack(db.data(), rows, dim, weights.data(), &packed);
  std::vector<int8_t> query_bytes(ceil_div(count, kI8Queries) * kI8Queries * quads * 4);
  std::vector<int32_t> starts(count);
  std::vector<float> query_inverses(count), query_lengths(count), query_errors(count),
      thresholds(count);
  std::vector<double> scores(rows * count);
  for (size_t q = 0; q < count; ++q) {
    double greatest = 1e-9, error = 0, length = 0;
    const auto value = [&](size_t j) { return double(wanted[q * dim + j]) / double(weights[j]); };
    for (size_t j = 0; j < dim; ++j) greatest = std::max(greatest, std::fabs(value(j)));
    for (size_t j = 0; j < dim; ++j) {
      const double whole = std::round(value(j) * k.i8_most / greatest);
      const double off = value(j) - whole * greatest / k.i8_most;
      query_bytes[q * quads * 4 + j] = int8_t(whole);
      starts[q] -= 128 * int32_t(whole);
      error += off * off;
      length += value(j) * value(j);
    }
    query_inverses[q] = float(k.i8_most / greatest);
    query_lengths[q] = float(std::sqrt(length) * 1.0001);
    query_errors[q] = float(std::sqrt(error) * 1.0001 + std::sqrt(length) * 1e-5);
    for (size_t r = 0; r < rows; ++r) {
      double dot = 0, square = 0;
      for (size_t j = 0; j < dim; ++j) {
        const double x = double(db[r * dim + j]);
        dot += x * double(wanted[q * dim + j]);
        square += x * x;
      }
      scores[r * count + q] = squared_l2 ? dot - square / 2 : dot;
    }
    thresholds[q] = float(scores[random.below(rows) * count + q]);
  }
  const I8Queries side{query_bytes.data(),   starts.data(),       query_inverses.data(),
                       query_lengths.data(), query_errors.data(), thresholds.data(), count};
  const FoundOfFilter found(k, packed, groups, quads, side, squared_l2, 1e-5f);
  std::vector<char> names(groups * kI8Group * count);
  std::vector<size_t> last(count);
  bool all = true, few = true, in_order = true, right = true;
  for (size_t i = 0; i < found.count; ++i) {
    const size_t row = found.rows[i], q = found.queries[i];
    in_order &= last[q] < row + 1;
    last[q] = row + 1;
    names[row * count + q] = true;
    int32_t sum = starts[q];
    for (size_t j = 0; j < quads * 4; ++j)
      sum += bytes[((row / kI8Group * quads + j / 4) * kI8Group + row % kI8Group) * 4 + j % 4] *
             query_bytes[q * quads * 4 + j];
    right &= found.products[i] == float(sum);
  }
  check(in_order, "i8_filter names rows once, in their order", dim, rows);
  check(right, "i8_filter tells the products", dim, rows);
  for (size_t r = 0; r < rows; ++r)
    for (size_t q = 0; q < count; ++q) {
      const bool named = names[r * count + q];
      const double above = scores[r * count + q] - double(thresholds[q]);
      all &= above < 1e-6 || named;
      few &= above > -1.0 - 0.05 * double(dim) || !named;
    }
  check(all, "i8_filter names all rows that reach", dim, rows);
  check(few, "i8_filter leaves out what is far below", dim, rows);
}

void test_i8_products(const KernelTable& k, Random& random, size_t dim, size_t rows, size_t count) {
  const size_t quads = quads_of(dim), groups = ceil_div(rows, kI8Group);
  const size_t stride = groups * kI8Group + 3;
  const auto bytes = random.bytes(groups * quads * 64, 256);
  std::vector<int8_t> queries(count * quads * 4);
  std::vector<int32_t> starts(count, 0);
  const auto factors = random.reals(count);
  for (size_t i = 0; i < queries.size(); ++i) {
    const int most = k.i8_most;
    queries[i] = int8_t(i % 5 == 0 ? most : int(random.below(2 * most + 1)) - most);
    starts[i / (quads * 4)] -= 128 * queries[i];
  }
  std::vector<float> out(count * stride, 7.0f);
  k.i8_products(bytes.data(), groups, quads, queries.data(), starts.data(), factors.data(), count,
                out.data(), stride);
  bool right = true;
  for (size_t q = 0; q < count; ++q) {
    for (size_t r = 0; r < groups * kI8Group; ++r) {
      int64_t sum = 0;
      for (size_t j = 0; j < quads * 4; ++j) {
        const size_t quad = r / kI8Group * quads + j / 4;
        sum += (int64_t(bytes[(quad * kI8Group + r % kI8Group) * 4 + j % 4]) - 128) *
               queries[q * quads * 4 + j];
      }
      right &= out[q * stride + r] == float(sum) * factors[q];
    }
    for (size_t r = groups * kI8Group; r < stride; ++r) right &= out[q * stride + r] == 7.0f;
  }
  check(right, "i8_products", dim, count);
}

// Sums of whole numbers, of any length, at their greatest too; nothing behind the rows is read.
void test_upper_i8(const KernelTable& k) {
  if (k.upper_i8 == nullptr) return;
  Group group(std::string(k.level) + ": upper_i8");
  Random random;
  for (const size_t dim : {1, 15, 31, 32, 33, 64, 100, 1000, 20000})
    for (const size_t count : {1, 3, 16, 21, 50}) {
      const int32_t most = most_wide(dim);
      std::vector<int16_t> values(dim);
      for (int16_t& v : values) v = int16_t(int(random.below(2 * most + 1)) - most);
      std::vector<int8_t> rows(count * dim);
      for (int8_t& v : rows) v = int8_t(int(random.below(256)) - 128);
      if (count == 3) {
        values.assign(dim, int16_t(-most));
        rows.assign(rows.size(), -128);
      }
      auto scales = random.reals(count);
      const WideQuery query{values.data(), 1.0f / 1024, 3};
      std::vector<float> out(ceil_div(count, 16) * 16);
      k.upper_i8(&query, rows.data(), scales.data(), count, dim, out.data());
      bool right = true;
      for (size_t r = 0; r < count; ++r) {
        double sum = 0, size = 0;
        for (size_t j = 0; j < dim; ++j) {
          const double product = double(values[j]) * rows[r * dim + j];
          sum += product, size += std::fabs(product);
        }
        const double want = double(scales[r]) * (sum / 1024 + 3);
        right &= std::fabs(double(out[r]) - want) <= 1e-6 * std::fabs(double(scales[r])) * (size / 1024 + 3);
      }
      check(right, "upper_i8", dim, count);
    }
}

void test_i8_filter(const KernelTable& k) {
  if (k.i8_filter == nullptr) return;
  Group group(std::string(k.level) + ": i8_pack, i8_filter, i8_products");
  Random random;
  for (const size_t dim : {1, 4, 15, 200})
    for (const size_t rows : {1, 16, 33, 130, 150})
      for (const size_t count : {1, 2, 5, 6, 7, 13}) test_i8_products(k, random, dim, rows, count);
  for (const size_t dim : {1, 3, 4, 5, 15, 16, 17, 64, 100})
    for (const size_t rows : {1, 15, 16, 17, 63, 64, 65, 130})
      for (const size_t count : {1, 5, 6, 7, 12, 13, 29})
        for (const bool squared_l2 : {false, true})
          test_i8_filter_once(k, random, dim, rows, count, squared_l2);
}

}  // namespace

void test_bytes() {
  size_t count;
  const Level* all = levels(&count);
  for (size_t i = 0; i < count; ++i) {
    const KernelTable& k = *all[i].table;
    if (is_new(all, i, &KernelTable::i8_filter)) test_i8_filter(k);
    if (is_new(all, i, &KernelTable::upper_i8)) test_upper_i8(k);
  }
}

}  // namespace selftest

// Projections and the eigenvectors they come from; a search that chooses leaves in a reduced space.
#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "projection.h"
#include "search.h"
#include "selftest.h"

using namespace swann;

namespace selftest {
namespace {

// What an eigenvector leaves of A v - lambda v, and how far the vectors are from orthonormal.
double error_of(const std::vector<double>& matrix, const std::vector<double>& vectors,
                const std::vector<double>& values) {
  const size_t n = values.size();
  double worst = 0;
  for (size_t k = 0; k < n; ++k)
    for (size_t i = 0; i < n; ++i) {
      double image = 0, product = 0;
      for (size_t j = 0; j < n; ++j) {
        image += matrix[i * n + j] * vectors[k * n + j];
        product += vectors[i * n + j] * vectors[k * n + j];
      }
      worst = std::max(worst, std::fabs(image - values[k] * vectors[k * n + i]));
      worst = std::max(worst, std::fabs(product - (i == k ? 1.0 : 0.0)));
    }
  return worst;
}

void test_eigen() {
  Group group("projection: eigenvectors");
  Random random;
  for (const size_t n : {1, 2, 3, 17, 64, 300})
    for (const size_t rank : {size_t(0), size_t(1), n}) {
      std::vector<double> matrix(n * n, 0.0);
      for (size_t r = 0; r < rank; ++r) {
        const auto x = random.reals(n);
        for (size_t i = 0; i < n; ++i)
          for (size_t j = 0; j < n; ++j) matrix[i * n + j] += double(x[i]) * x[j] / double(n);
      }
      std::vector<double> vectors = matrix, again = matrix, values(n), values_again(n);
      symmetric_eigen(vectors.data(), n, 1, values.data());
      symmetric_eigen(again.data(), n, 3, values_again.data());
      check(error_of(matrix, vectors, values) < 1e-12, "eigenvectors", n, rank);
      check(std::is_sorted(values.rbegin(), values.rend()), "descending", n, rank);
      check(vectors == again && values == values_again, "the same on three threads", n, rank);
    }
}

void test_moments() {
  Group group("projection: moments, rows");
  Random random;
  for (const size_t count : {1, 511, 1300})
    for (const size_t dim : {1, 31, 70}) {
      const auto rows = random.integers(count * dim);  // all sums are exact
      std::vector<double> shift(dim, 1.0), sums(dim, 0.0), products(dim * dim, 0.0);
      add_moments(rows.data(), count, dim, shift.data(), 2.0, 3, sums.data(), products.data());
      bool right = true;
      for (size_t i = 0; i < dim; ++i) {
        double sum = 0;
        for (size_t r = 0; r < count; ++r) sum += 2 * (double(rows[r * dim + i]) - 1);
        right &= sums[i] == sum;
        for (size_t j = 0; j <= i; ++j) {
          double product = 0;
          for (size_t r = 0; r < count; ++r)
            product += 4 * (double(rows[r * dim + i]) - 1) * (double(rows[r * dim + j]) - 1);
          right &= products[i * dim + j] == product;
        }
      }
      check(right, "sums and products", count, dim);

      const size_t reduced = (dim + 1) / 2;
      const auto basis = random.integers(reduced * dim);
      std::vector<float> all(count * reduced), one(reduced), first(count * reduced);
      project_rows(rows.data(), count, dim, basis.data(), reduced, 3, all.data());
      project_rows(rows.data(), count, dim, nullptr, reduced, 3, first.data());
      for (size_t r = 0; r < count; r += 100) {
        project_rows(&rows[r * dim], 1, dim, basis.data(), reduced, 1, one.data());
        check(same_bits(one.data(), &all[r * reduced], reduced), "a row alone", count, dim);
        check(same_bits(&first[r * reduced], &rows[r * dim], reduced), "truncated", count, dim);
      }
      std::vector<float> back(dim);
      unproject_row(first.data(), dim, nullptr, reduced, back.data());
      check(same_bits(back.data(), rows.data(), reduced) &&
                std::all_of(back.begin() + long(reduced), back.end(), [](float x) { return x == 0; }),
            "zeros beyond", count, dim);
    }
}

// Queries by a basis of whole steps: each as it is alone, near to what floats make of it.
void test_rounded() {
  Group group("projection: queries by a rounded basis");
  Random random;
  for (const size_t dim : {1, 6, 100, 300})
    for (const size_t reduced : {1, 16, 41}) {
      std::vector<float> basis(reduced * dim);
      for (float& value : basis) value = (float(random.below(255)) - 127) * 0.0625f;
      basis[0] = 127 * 0.0625f;
      const RoundedBasis rounded = rounded_basis(basis.data(), reduced, dim);
      check(!rounded.empty() && rounded.step == 0.0625f, "whole steps are seen", dim, reduced);
      constexpr size_t kCount = 70;
      auto queries = random.reals(kCount * dim);
      std::fill_n(queries.begin(), dim, 0.0f);
      if (dim > 64) queries[dim + 1] = 1e6f;  // which is projected as a row is
      std::vector<float> all(kCount * reduced), one(reduced), exact(all.size());
      project_queries(queries.data(), kCount, dim, basis.data(), rounded, reduced, 3, all.data());
      project_rows(queries.data(), kCount, dim, basis.data(), reduced, 1, exact.data());
      bool same = true, near = true;
      for (size_t q = 0; q < kCount; ++q) {
        const float* x = &queries[q * dim];
        project_queries(x, 1, dim, basis.data(), rounded, reduced, 1, one.data());
        same &= same_bits(one.data(), &all[q * reduced], reduced);
        float greatest = 0;
        for (size_t j = 0; j < dim; ++j) greatest = std::max(greatest, std::fabs(x[j]));
        for (size_t r = 0; r < reduced; ++r)
          near &= std::fabs(all[q * reduced + r] - exact[q * reduced + r]) <=
                  greatest / 126 * 8 * float(dim) + 1e-4f * greatest;
      }
      check(same, "a query alone", dim, reduced);
      check(near, "near to the rows' way", dim, reduced);
      if (dim > 64)
        check(same_bits(&all[reduced], &exact[reduced], reduced), "a spike", dim, reduced);
      std::fill(basis.begin(), basis.end(), 0.0f);
      basis[0] = std::ldexp(190.0f, -149);  // a hundred and ninety times the least float there is
      check(rounded_basis(basis.data(), reduced, dim).empty(), "steps that underflow", dim, reduced);
      for (float& value : basis) value = 0.0625f;
      basis.back() = 0.001f;
      check(dim * reduced == 1 || rounded_basis(basis.data(), reduced, dim).empty(),
            "other values are not whole steps", dim, reduced);
    }
}

// Exact rows in leaves whose centroids have fewer dimensions.
void test_search() {
  Group group("projection: leaves in a reduced space");
  constexpr size_t kDim = 6, kReduced = 3, kLeaves = 20, kEach = 5, kQueries = 4;
  Random random;
  const auto rows = random.reals(kLeaves * kEach * kDim);
  const auto centroids = random.reals(kLeaves * kReduced), basis = random.reals(kReduced * kDim);
  const auto queries = random.reals(kQueries * kDim);
  std::vector<uint32_t> starts(kLeaves + 1);
  for (size_t l = 0; l <= kLeaves; ++l) starts[l] = uint32_t(l * kEach);
  IndexView view;
  view.dim = kDim, view.reduced_dim = kReduced, view.projection = basis.data();
  view.num_rows = view.num_entries = kLeaves * kEach, view.num_leaves = kLeaves;
  view.centroids = centroids.data(), view.leaf_starts = starts.data();
  view.rows.f32 = rows.data(), view.rows.dim = kDim;
  std::vector<int64_t> ids(kQueries);
  std::vector<float> distances(kQueries);
  search_block(view, nullptr, {1, 1, 1}, queries.data(), kQueries, ids.data(), distances.data());
  for (size_t q = 0; q < kQueries; ++q) {
    float reduced[kReduced], scores[kLeaves], exact[kLeaves * kEach];
    kernels().dot_f32(&queries[q * kDim], 1, basis.data(), kReduced, kDim, reduced, kReduced);
    kernels().dot_f32(reduced, 1, centroids.data(), kLeaves, kReduced, scores, kLeaves);
    kernels().dot_f32(&queries[q * kDim], 1, rows.data(), kLeaves * kEach, kDim, exact, 1);
    const size_t leaf = size_t(std::max_element(scores, scores + kLeaves) - scores);
    const float* best = std::max_element(exact + leaf * kEach, exact + (leaf + 1) * kEach);
    check(ids[q] == best - exact && distances[q] == *best, "the best of the leaf", q);
    int64_t id;
    float distance;
    search_block(view, nullptr, {1, 1, 1}, &queries[q * kDim], 1, &id, &distance);
    check(id == ids[q] && distance == distances[q], "alone", q);
  }
  constexpr size_t kMany = 1500;  // more than a block
  std::vector<float> many(kMany * kDim);
  for (size_t i = 0; i < many.size(); ++i) many[i] = queries[i % queries.size()];
  std::vector<int64_t> many_ids(kMany);
  std::vector<float> many_distances(kMany);
  search_batch(view, nullptr, {1, 1, 1}, many.data(), kMany, 2, many_ids.data(),
               many_distances.data());
  bool same = true;
  for (size_t q = 0; q < kMany; ++q)
    same &= many_ids[q] == ids[q % kQueries] && many_distances[q] == distances[q % kQueries];
  check(same, "many together");
}

}  // namespace

void test_projection() {
  test_eigen();
  test_rounded();
  test_moments();
  test_search();
}

}  // namespace selftest

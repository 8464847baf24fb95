// The loops that train leaves, against plain loops; on one thread and on several.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels.h"
#include "selftest.h"
#include "train.h"

using namespace swann;

namespace selftest {
namespace {

void test_check_rows() {
  Group group("training: check_rows");
  Random random;
  for (const size_t count : {1, 3, 1024, 2500})
    for (const size_t dim : {1, 4, 7}) {
      auto rows = random.reals(count * dim);
      std::vector<float> norms(count);
      check(check_rows(rows.data(), count, dim, norms.data(), 3) == count, "all good", count);
      double worst = 0;
      for (size_t i = 0; i < count; ++i) {
        double square = 0;
        for (size_t j = 0; j < dim; ++j) square += double(rows[i * dim + j]) * rows[i * dim + j];
        worst = std::max(worst, std::fabs(norms[i] - std::sqrt(square)));
      }
      check(worst < 1e-6, "norms", count, dim);
      const float bad[] = {std::nanf(""), -std::numeric_limits<float>::infinity(), 2e18f};
      const size_t last = count - 1, first = random.below(count);
      for (const float value : bad) {
        rows[last * dim] = value;
        rows[first * dim + dim - 1] = value;
        check(check_rows(rows.data(), count, dim, nullptr, 3) == first, "first bad row", count);
        rows[last * dim] = rows[first * dim + dim - 1] = 0;
      }
    }
}

void test_leaves() {
  Group group("training: assign, sort, means");
  Random random;
  for (const size_t leaves : {1, 7, 16, 100, 1500}) {
    const size_t count = 333, dim = 5;
    // Small integers: scores are exact, with many ties, which go to the lowest centroid.
    const auto rows = random.integers(count * dim), centroids = random.integers(leaves * dim);
    std::vector<uint32_t> labels(count), again(count), want(count);
    std::vector<float> scores(count), scores_again(count), want_scores(count);
    for (size_t i = 0; i < count; ++i) {
      want_scores[i] = -std::numeric_limits<float>::infinity();
      for (size_t c = 0; c < leaves; ++c) {
        float score = 0;
        for (size_t j = 0; j < dim; ++j) {
          const float x = rows[i * dim + j], y = centroids[c * dim + j];
          score += x * y - 0.5f * y * y;
        }
        if (score > want_scores[i]) want_scores[i] = score, want[i] = uint32_t(c);
      }
    }
    const TiledCentroids tiled(centroids.data(), leaves, dim, 2);
    assign_leaves(rows.data(), count, tiled, 1, labels.data(), scores.data());
    assign_leaves(rows.data(), count, tiled, 3, again.data(), scores_again.data());
    check(labels == want && scores == want_scores, "assign_leaves", leaves);
    check(labels == again && same_bits(scores, scores_again), "assign on three threads", leaves);

    std::vector<uint32_t> order(count), want_order(count), starts(leaves + 1);
    std::iota(want_order.begin(), want_order.end(), 0u);
    std::stable_sort(want_order.begin(), want_order.end(),
                     [&](uint32_t a, uint32_t b) { return labels[a] < labels[b]; });
    sort_by_leaf(labels.data(), count, leaves, order.data(), starts.data());
    check(order == want_order, "sort_by_leaf", leaves);
    bool right = starts[0] == 0 && starts[leaves] == count;
    for (size_t l = 0; l < leaves; ++l)
      for (size_t i = starts[l]; i < starts[l + 1]; ++i) right &= labels[order[i]] == l;
    check(right, "starts of leaves", leaves);

    std::vector<float> means(leaves * dim), want_means(leaves * dim);
    leaf_means(rows.data(), dim, order.data(), starts.data(), leaves, 3, means.data());
    double worst = 0;
    for (size_t l = 0; l < leaves; ++l)
      for (size_t j = 0; j < dim; ++j) {
        double sum = 0;
        for (size_t i = starts[l]; i < starts[l + 1]; ++i) sum += rows[order[i] * dim + j];
        const size_t n = starts[l + 1] - starts[l];
        worst = std::max(worst, std::fabs(means[l * dim + j] - sum / double(n > 0 ? n : 1)));
      }
    check(worst < 1e-6, "leaf_means", leaves);
  }
}

// Anisotropic assignment, and centroids against steps aside from them.
void test_anisotropic() {
  Group group("training: anisotropic leaves");
  Random random;
  for (const size_t dim : {1, 6, 19})
    for (const float eta : {1.0f, 2.5f, 1000.0f}) {
      const size_t count = 150, leaves = 7;
      auto rows = random.reals(count * dim);
      std::fill_n(rows.begin(), dim, 0.0f);  // no direction
      const auto start = random.reals(leaves * dim);
      const auto loss = [&](size_t i, const float* c) {
        double square = 0, along = 0, norm = 0;
        for (size_t j = 0; j < dim; ++j) {
          const double x = rows[i * dim + j], e = x - c[j];
          square += e * e, along += e * x, norm += x * x;
        }
        return square + (norm > 0 ? (double(eta) - 1) * along * along / norm : 0.0);
      };
      std::vector<uint32_t> labels(count), again(count), order(count), starts(leaves + 1);
      std::vector<float> scores(count);
      const TiledCentroids tiled(start.data(), leaves, dim, 1);
      assign_leaves(rows.data(), count, tiled, 3, again.data(), scores.data(), eta);
      assign_leaves(rows.data(), count, tiled, 1, labels.data(), scores.data(), eta);
      bool nearest = true;
      for (size_t i = 0; i < count; ++i)
        for (size_t c = 0; c < leaves; ++c)
          nearest &= loss(i, &start[labels[i] * dim]) <=
                     loss(i, &start[c * dim]) + 1e-5 * double(eta);
      check(nearest && labels == again, "the nearest", dim, size_t(eta));

      sort_by_leaf(labels.data(), count, leaves, order.data(), starts.data());
      auto moved = start, threaded = start;
      anisotropic_centroids(rows.data(), dim, order.data(), starts.data(), leaves, eta, 1,
                            moved.data());
      anisotropic_centroids(rows.data(), dim, order.data(), starts.data(), leaves, eta, 3,
                            threaded.data());
      check(same_bits(moved, threaded), "centroids on three threads", dim, size_t(eta));
      bool best = true, stays = true;
      for (size_t l = 0; l < leaves; ++l) {
        const auto total = [&](const float* c) {
          double sum = 0;
          for (size_t i = starts[l]; i < starts[l + 1]; ++i) sum += loss(order[i], c);
          return sum;
        };
        if (starts[l] == starts[l + 1]) {
          stays &= same_bits(&moved[l * dim], &start[l * dim], dim);
          continue;
        }
        std::vector<float> aside(moved.begin() + ptrdiff_t(l * dim),
                                 moved.begin() + ptrdiff_t((l + 1) * dim));
        const double reached = total(aside.data());
        best &= reached <= total(&start[l * dim]) + 1e-4;
        for (size_t j = 0; j < dim; ++j)
          for (const float step : {0.01f, -0.01f}) {
            aside[j] += step;
            best &= reached <= total(aside.data());
            aside[j] = moved[l * dim + j];
          }
      }
      check(best && stays, "the best centroids", dim, size_t(eta));
    }
}

void test_spilling() {
  Group group("training: spill_leaves");
  Random random;
  for (const size_t leaves : {2, 9, 60})
    for (const float lambda : {0.0f, 1.5f}) {
      const size_t count = 200, dim = 6;
      const auto rows = random.reals(count * dim), centroids = random.reals(leaves * dim);
      std::vector<uint32_t> labels(count), spilled(count), again(count);
      std::vector<float> scores(count);
      const TiledCentroids tiled(centroids.data(), leaves, dim, 2);
      assign_leaves(rows.data(), count, tiled, 2, labels.data(), scores.data());
      spill_leaves(rows.data(), count, tiled, labels.data(), lambda, 1,
                   spilled.data());
      spill_leaves(rows.data(), count, tiled, labels.data(), lambda, 3,
                   again.data());
      const auto residual = [&](size_t i, size_t c, size_t j) {
        return double(rows[i * dim + j]) - centroids[c * dim + j];
      };
      const auto cost = [&](size_t i, size_t c) {
        double square = 0, own = 0, along = 0;
        for (size_t j = 0; j < dim; ++j) {
          const double r = residual(i, c, j), u = residual(i, labels[i], j);
          square += r * r, own += u * u, along += r * u;
        }
        return square + double(lambda) * along * along / own;
      };
      bool best = true;
      for (size_t i = 0; i < count; ++i) {
        best &= spilled[i] != labels[i];
        for (size_t c = 0; c < leaves; ++c)
          best &= c == labels[i] || cost(i, spilled[i]) <= cost(i, c) + 1e-5;
      }
      check(best, "the cheapest other leaf", leaves);
      check(spilled == again, "the same on three threads", leaves);
    }
}

}  // namespace

void test_training() {
  test_check_rows();
  test_leaves();
  test_anisotropic();
  test_spilling();
}

}  // namespace selftest

// Choosing leaves by way of levels above the centroids, against plain loops.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels.h"
#include "search.h"
#include "selftest.h"

using namespace swann;

namespace selftest {
namespace {

// Centroids of small integers, whose scores are exact; levels of random partitions over them.
struct Levels {
  static constexpr size_t kDim = 9;
  bool squared_l2;
  std::vector<float> centroids, spreads;
  struct Level {
    std::vector<float> centroids, spreads, rows;
    std::vector<uint16_t> bf16;
    std::vector<uint32_t> starts, entries;
  };
  std::vector<Level> levels;
  IndexView view;

  Levels(Random& random, bool l2, const std::vector<size_t>& sizes, size_t copies, size_t to_search)
      : squared_l2(l2), centroids(random.integers(sizes[0] * kDim)) {
    view.distance = l2 ? Distance::squared_l2 : Distance::dot_product;
    view.dim = view.reduced_dim = kDim, view.num_leaves = sizes[0],
    view.centroids = centroids.data();
    if (!l2) spreads = steps(random, sizes[0]), view.spreads = spreads.data();
    levels.resize(sizes.size() - 1);
    for (size_t l = 0; l < levels.size(); ++l) {
      Level& level = levels[l];
      const auto& below = l == 0 ? centroids : levels[l - 1].centroids;
      const auto& reach = l == 0 ? spreads : levels[l - 1].spreads;
      const size_t n = sizes[l], m = sizes[l + 1];
      level.centroids = random.integers(m * kDim);
      if (!l2) level.spreads = steps(random, m);
      std::vector<std::vector<uint32_t>> members(m);
      for (size_t c = 0; c < n * copies; ++c)
        members[random.below(std::max<size_t>(m - 1, 1))].push_back(uint32_t(c % n));
      level.starts = {0};
      for (const auto& leaf : members) {  // the last is empty
        level.entries.insert(level.entries.end(), leaf.begin(), leaf.end());
        level.starts.push_back(uint32_t(level.entries.size()));
      }
      for (const uint32_t entry : level.entries)
        level.rows.insert(level.rows.end(), &below[entry * kDim], &below[entry * kDim] + kDim);
      UpperLevel upper;
      upper.num_leaves = m, upper.num_entries = n * copies, upper.num_below = n;
      upper.centroids = level.centroids.data();
      upper.spreads = l2 ? nullptr : level.spreads.data();
      upper.starts = level.starts.data(), upper.entries = level.entries.data();
      upper.rows.dim = kDim;
      if (l % 2 == 0) {
        upper.rows.f32 = level.rows.data();
      } else {  // which holds small integers
        level.bf16.resize(level.rows.size());
        round_to_bf16(level.rows.data(), n * copies, kDim, nullptr, 1, level.bf16.data());
        upper.rows.bf16 = level.bf16.data();
      }
      for (const uint32_t entry : level.entries)
        if (!l2) upper.reach.push_back(reach[entry]);
      upper.to_search = std::min(to_search, m), upper.gather = float(copies);
      view.upper.push_back(upper);
    }
  }

  static std::vector<float> steps(Random& random, size_t n) {
    std::vector<float> x(n);
    for (float& v : x) v = float(random.below(4));
    return x;
  }

  float score(const float* q, const float* c) const {
    float sum = 0;
    for (size_t j = 0; j < kDim; ++j) sum += squared_l2 ? -(q[j] - c[j]) * (q[j] - c[j]) : q[j] * c[j];
    return sum;
  }

  // The best `wanted` centroids of a level: best first, ties to the lowest number.
  std::vector<uint32_t> best(const float* q, float length, size_t level, size_t wanted) const {
    const auto& rows = level == 0 ? centroids : levels[level - 1].centroids;
    const auto& reach = level == 0 ? spreads : levels[level - 1].spreads;
    std::vector<uint32_t> reached;
    if (level == levels.size()) {
      reached.resize(rows.size() / kDim);
      std::iota(reached.begin(), reached.end(), 0u);
    } else {
      const UpperLevel& upper = view.upper[level];
      size_t entries = 0;
      const size_t needed = std::min(size_t(upper.gather) * wanted, upper.num_entries);
      for (size_t n = upper.to_search;; n = std::min(2 * n, upper.num_leaves)) {
        const auto leaves = best(q, length, level + 1, n);
        entries = 0, reached.clear();
        for (const uint32_t leaf : leaves) {
          entries += upper.starts[leaf + 1] - upper.starts[leaf];
          reached.insert(reached.end(), upper.entries + upper.starts[leaf],
                         upper.entries + upper.starts[leaf + 1]);
        }
        if (entries >= needed || n == upper.num_leaves) break;
      }
      std::sort(reached.begin(), reached.end());
      reached.erase(std::unique(reached.begin(), reached.end()), reached.end());
    }
    std::vector<float> scores(rows.size() / kDim);
    for (const uint32_t c : reached)
      scores[c] = score(q, &rows[c * kDim]) + (squared_l2 ? 0.0f : length * reach[c]);
    std::stable_sort(reached.begin(), reached.end(),
                     [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
    reached.resize(std::min(wanted, reached.size()));
    return reached;
  }
};

void test_descent(bool squared_l2, const std::vector<size_t>& sizes, size_t copies) {
  Group group("pipeline: " + std::to_string(sizes.size() - 1) + " levels above, " +
              (copies == 2 ? "spilled, " : "") + (squared_l2 ? "squared l2" : "dot product"));
  Random random;
  constexpr size_t kQueries = 150, kDim = Levels::kDim;  // more than go down together
  const auto queries = random.integers(kQueries * kDim);
  for (const size_t to_search : {size_t(1), size_t(3), sizes[1]}) {
    const Levels levels(random, squared_l2, sizes, copies, to_search);
    for (const size_t leaves : {size_t(1), std::min<size_t>(7, sizes[0]), sizes[0] - 1, sizes[0]}) {
      std::vector<LeafChoice> choices(kQueries * leaves), alone(leaves);
      choose_leaves(levels.view, queries.data(), kQueries, leaves, choices.data());
      bool right = true, first = true, scored = true, alike = true;
      for (size_t q = 0; q < kQueries; ++q) {
        const float* query = &queries[q * kDim];
        float length;
        kernels().dot_f32(query, 1, query, 1, kDim, &length, 1);
        const auto want = levels.best(query, std::sqrt(length), 0, leaves);
        choose_leaves(levels.view, query, 1, leaves, alone.data());
        std::vector<uint32_t> found, by_itself;
        for (size_t i = 0; i < leaves; ++i) {
          const LeafChoice choice = choices[q * leaves + i];
          found.push_back(choice.leaf), by_itself.push_back(alone[i].leaf);
          scored &= choice.score == levels.score(query, &levels.centroids[choice.leaf * kDim]);
        }
        first &= found[0] == want[0] && by_itself[0] == want[0];
        auto sorted = want;
        for (auto* numbers : {&sorted, &found, &by_itself})
          std::sort(numbers->begin(), numbers->end());
        right &= found == sorted;
        alike &= by_itself == sorted;
      }
      check(right, "the best that the levels lead to", leaves, to_search);
      check(first, "the best comes first", leaves, to_search);
      check(scored, "scores of the centroids themselves", leaves, to_search);
      check(alike, "the same alone", leaves, to_search);
    }
  }
}

// Leaves chosen by bounds are those of all scores, also where these are of rounded centroids.
void test_bounds(bool squared_l2, int bits) {
  Group group("pipeline: bounds for " + std::to_string(bits) + " bits, " +
              (squared_l2 ? "squared l2" : "dot product"));
  Random random;
  constexpr size_t kQueries = 40, kLeaves = 700, kDim = 37;
  std::vector<float> centroids = random.reals(kLeaves * kDim), spreads = random.reals(kLeaves);
  for (float& value : spreads) value = std::fabs(value) / 4;
  for (size_t i = 0; i < centroids.size(); ++i) centroids[i] += float(i % kDim) / 10;  // off zero
  std::copy_n(centroids.begin(), 30 * kDim, centroids.begin() + 300 * kDim);           // ties
  std::vector<int8_t> i8(centroids.size());
  std::vector<uint16_t> bf16(centroids.size());
  std::vector<float> scales(kLeaves), squares(kLeaves);
  IndexView view;
  view.distance = squared_l2 ? Distance::squared_l2 : Distance::dot_product;
  view.dim = view.reduced_dim = view.rounded.dim = kDim;
  view.num_leaves = kLeaves, view.centroids = centroids.data();
  if (!squared_l2) view.spreads = spreads.data();
  if (bits == 8) {
    round_to_i8(centroids.data(), kLeaves, kDim, nullptr, 1, nullptr, nullptr, i8.data(),
                scales.data(), squares.data());
    view.rounded.i8 = i8.data(), view.rounded.scales = scales.data();
    view.rounded.squares = squares.data();
  } else if (bits == 16) {
    round_to_bf16(centroids.data(), kLeaves, kDim, nullptr, 1, bf16.data());
    view.rounded.bf16 = bf16.data();
  }
  IndexView bounded = view;
  bound_centroids(bounded);
  check((bounded.bounds != nullptr) == RoundedCentroids::are_faster(kDim), "there where faster");
  auto queries = random.reals(kQueries * kDim);
  std::copy_n(&centroids[310 * kDim], kDim, &queries[5 * kDim]);
  for (const size_t leaves : {1, 7, 40, 300}) {
    std::vector<LeafChoice> want(kQueries * leaves), found = want;
    choose_leaves(view, queries.data(), kQueries, leaves, want.data());
    ExactRows floats;
    floats.f32 = centroids.data(), floats.dim = kDim;
    bool scored = true;
    for (size_t i = 0; i < want.size(); ++i) {
      float score;
      score_rows(floats, squared_l2, &queries[i / leaves * kDim], &want[i].leaf, 1, &score);
      scored &= score == want[i].score;
    }
    check(scored, "scores of the centroids themselves", leaves);
    for (const size_t at_once : {size_t(1), kQueries}) {
      for (size_t q = 0; q < kQueries; q += at_once)
        choose_leaves(bounded, &queries[q * kDim], at_once, leaves, &found[q * leaves]);
      bool same = true;
      for (size_t q = 0; q < kQueries; ++q) {
        const auto order = [&](std::vector<LeafChoice>& choices) {
          const auto begin = choices.begin() + ptrdiff_t(q * leaves);
          std::sort(begin, begin + ptrdiff_t(leaves),
                    [](const auto& a, const auto& b) { return a.leaf < b.leaf; });
        };
        same &= want[q * leaves].leaf == found[q * leaves].leaf;  // the best comes first
        auto sorted = want;
        order(sorted), order(found);
        for (size_t i = q * leaves; i < (q + 1) * leaves; ++i)
          same &= sorted[i].leaf == found[i].leaf && sorted[i].score == found[i].score;
      }
      check(same, "as by all scores", leaves, at_once);
    }
  }
}

}  // namespace

void test_centroids() {
  for (const bool squared_l2 : {false, true})
    for (const int bits : {32, 16, 8}) test_bounds(squared_l2, bits);
  for (const bool squared_l2 : {false, true})
    for (const size_t copies : {1, 2}) {
      test_descent(squared_l2, {50, 7}, copies);
      test_descent(squared_l2, {200, 30, 5}, copies);
      test_descent(squared_l2, {60, 20, 8, 2}, copies);
      test_descent(squared_l2, {2, 1}, copies);
    }
}

}  // namespace selftest

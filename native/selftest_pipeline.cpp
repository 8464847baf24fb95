// Searching small indexes of every kind, against scoring and sorting all rows.
#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "kernels.h"
#include "search.h"
#include "selftest.h"
#include "train.h"

using namespace swann;

namespace selftest {
namespace {

// A small index of rows of small integers, whose dot products are exact. Leaf 1 has the centroid
// of leaf 0, and so no rows.
struct SmallIndex {
  std::vector<float> rows, centroids, codebook;
  std::vector<uint32_t> starts, ids;
  std::vector<uint8_t> codes;
  std::vector<uint16_t> corrections;
  IndexView view;

  SmallIndex(Random& random, Distance distance, size_t count, size_t dim, size_t leaves,
             size_t per_block)
      : rows(random.integers(count * dim)), starts{0, uint32_t(count)} {
    view.distance = distance, view.dim = dim, view.num_rows = count;
    if (leaves > 0) make_tree(random, leaves);
    view.leaf_starts = starts.data();
    view.group_starts.assign(view.num_leaves + 1, 0);
    for (size_t l = 0; l < view.num_leaves; ++l)
      view.group_starts[l + 1] =
          view.group_starts[l] + (starts[l + 1] - starts[l] + kGroup - 1) / kGroup;
    if (per_block > 0) make_codes(random, per_block);
    view.rows = rows.data();
  }

  void make_tree(Random& random, size_t leaves) {
    const size_t dim = view.dim, count = view.num_rows;
    centroids = random.integers(leaves * dim);
    if (leaves > 1) std::copy_n(centroids.begin(), dim, centroids.begin() + ptrdiff_t(dim));
    std::vector<uint32_t> labels(count);
    std::vector<float> scores(count);
    ids.resize(count), starts.resize(leaves + 1);
    assign_leaves(rows.data(), count, dim, centroids.data(), leaves, 2, labels.data(),
                  scores.data());
    sort_by_leaf(labels.data(), count, leaves, ids.data(), starts.data());
    const auto given = rows;
    for (size_t i = 0; i < count; ++i) std::copy_n(&given[ids[i] * dim], dim, &rows[i * dim]);
    view.num_leaves = leaves, view.centroids = centroids.data(), view.ids = ids.data();
  }

  void make_codes(Random& random, size_t per_block) {
    view.dims_per_block = per_block, view.blocks = (view.dim + per_block - 1) / per_block;
    codebook = random.reals(view.dim * kLanes);
    codes.resize(view.group_starts.back() * view.blocks * 16);
    std::vector<float> cross(view.group_starts.back() * kGroup);
    const bool corrected = view.squared_l2() && view.centroids != nullptr;
    pack_codes({rows.data(), nullptr, view.centroids, starts.data(), view.group_starts.data(),
                view.num_leaves, 0, view.group_starts.back(), view.dim, per_block, view.blocks, 1,
                codebook.data(), codes.data(), corrected ? cross.data() : nullptr},
               2);
    view.codes = codes.data(), view.codebook = codebook.data();
    if (!corrected) return;
    const auto [low, high] = std::minmax_element(cross.begin(), cross.end());
    view.correction_low = *low, view.correction_span = *high - *low;
    for (const float c : cross)
      corrections.push_back(
          uint16_t(std::lround((c - *low) / std::max(view.correction_span, 1e-9f) * 65535)));
    view.corrections = corrections.data();
  }

  // The score of a row, greater is better: exact, or what its codes stand for.
  double score(const float* q, size_t leaf, size_t row, bool coded) const {
    double total = 0;
    for (size_t j = 0; j < view.dim; ++j) {
      double x = rows[row * view.dim + j];
      if (coded) x = value_of_code(leaf, row, j);
      const double c = coded && view.centroids != nullptr ? centroids[leaf * view.dim + j] : 0;
      total += view.squared_l2() ? -(q[j] - c - x) * (q[j] - c - x) : q[j] * (c + x);
    }
    return total;
  }

  // The code of the block that dimension j is in.
  size_t code(size_t leaf, size_t row, size_t j) const {
    const size_t i = row - starts[leaf], group = view.group_starts[leaf] + i / kGroup;
    const uint8_t byte = codes[(group * view.blocks + j / view.dims_per_block) * 16 + i % 16];
    return i % kGroup < 16 ? byte & 15 : byte >> 4;
  }
  double value_of_code(size_t leaf, size_t row, size_t j) const {
    return codebook[j * kLanes + code(leaf, row, j)];
  }
  uint16_t correction(size_t leaf, size_t row) const {
    return corrections[view.group_starts[leaf] * kGroup + row - starts[leaf]];
  }
};

struct Answer {
  std::vector<int64_t> ids;
  std::vector<float> distances;
};

Answer search(const IndexView& view, size_t k, size_t candidates, size_t leaves,
              const float* queries, size_t count) {
  Answer answer{std::vector<int64_t>(count * k), std::vector<float>(count * k)};
  const bool reorders = view.codes != nullptr && view.rows != nullptr;
  const SearchLimits limits{k, std::min(reorders ? std::max(candidates, k) : k, view.num_rows),
                            std::min(leaves, view.num_leaves)};
  search_block(view, limits, queries, count, answer.ids.data(), answer.distances.data());
  return answer;
}

// The leaves that a query searches, and their scores: best first, ties to the lowest.
std::vector<std::pair<size_t, float>> best_leaves(const SmallIndex& index, const float* q,
                                                  size_t leaves) {
  const IndexView& view = index.view;
  std::vector<std::pair<size_t, float>> ranked;
  for (size_t l = 0; l < view.num_leaves; ++l) {
    float score = 0;
    for (size_t j = 0; j < view.dim; ++j) {
      const float c = view.centroids == nullptr ? 0 : index.centroids[l * view.dim + j];
      score += view.squared_l2() ? -(q[j] - c) * (q[j] - c) : q[j] * c;
    }
    ranked.emplace_back(l, score);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  ranked.resize(std::min(leaves, ranked.size()));
  return ranked;
}

// The key of every row searched: exact, or as the query's table scores its codes.
std::vector<Key> keys_of(const SmallIndex& index, const float* q, size_t leaves,
                         const Table* table, const uint8_t* lut) {
  const IndexView& view = index.view;
  std::vector<Key> keys;
  for (const auto& [l, centre] : best_leaves(index, q, leaves))
    for (uint32_t row = index.starts[l]; row < index.starts[l + 1]; ++row) {
      if (table == nullptr) {
        keys.push_back(make_key(ordered(float(index.score(q, l, row, false))), row));
        continue;
      }
      auto sum = int32_t(std::lround((centre + table->base) * table->scale));
      for (size_t m = 0; m < view.blocks; ++m)
        sum += lut[16 * m + index.code(l, row, m * view.dims_per_block)];
      if (view.corrections != nullptr)
        sum += int32_t((index.correction(l, row) * table->multiplier) >> 16);
      keys.push_back(make_key(sum, row));
    }
  return keys;
}

// Whether an answer is what sorting gives: the best candidates, ties to the lowest row; of them,
// scored exactly where rows are at hand, the k best, ties to the lowest id.
bool as_sorted(const SmallIndex& index, const IndexView& view, const float* q, size_t k,
               size_t candidates, size_t leaves, const int64_t* ids, const float* distances) {
  std::vector<uint8_t> lut(view.blocks * 16);
  Table table;
  if (view.codes != nullptr) table = build_table(view, q, 0, lut.data());
  auto keys = keys_of(index, q, leaves, view.codes == nullptr ? nullptr : &table, lut.data());
  std::sort(keys.begin(), keys.end(), std::greater<>());
  keys.resize(std::min(view.rows == nullptr || view.codes == nullptr ? k : candidates,
                       keys.size()));
  for (Key& key : keys) {
    const uint32_t row = key_row(key), id = view.ids == nullptr ? row : view.ids[row];
    const bool exact = view.rows != nullptr;
    key = make_key(exact ? ordered(float(index.score(q, 0, row, false))) : key_score(key), id);
  }
  std::sort(keys.begin(), keys.end(), std::greater<>());
  bool right = true;
  for (size_t i = 0; i < k; ++i) {
    if (i >= keys.size()) {
      right &= ids[i] == -1 && std::isnan(distances[i]);
      continue;
    }
    const int32_t score = key_score(keys[i]);
    const float value = view.rows != nullptr ? from_ordered(score)
                                             : float(double(score) / table.scale);
    const float distance = view.squared_l2() ? std::max(-value, 0.0f) : value;
    right &= ids[i] == key_row(keys[i]) && distances[i] == distance;
  }
  return right;
}

// An answer by codes alone: no further from the decoded scores than the tables are rounded.
bool near(const SmallIndex& index, const float* q, size_t k, size_t leaves, const int64_t* ids,
          const float* distances) {
  const IndexView& view = index.view;
  std::vector<double> by_id(view.num_rows, std::nan("")), sorted;
  for (const auto& [l, centre] : best_leaves(index, q, leaves))
    for (size_t row = index.starts[l]; row < index.starts[l + 1]; ++row) {
      double score = index.score(q, l, row, true);
      if (view.corrections != nullptr) {  // the product with the centroid, at 16 bits
        for (size_t j = 0; j < view.dim; ++j)
          score += 2 * index.centroids[l * view.dim + j] * index.value_of_code(l, row, j);
        score += view.correction_low +
                 double(view.correction_span) * index.correction(l, row) / 65535;
      }
      by_id[view.ids == nullptr ? row : view.ids[row]] = score;
      sorted.push_back(score);
    }
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  std::vector<uint8_t> lut(view.blocks * 16);
  const double scale = build_table(view, q, 0, lut.data()).scale;
  // Each entry rounds by 1/2, so does the bias; a correction loses less than 2.
  const double bound = (0.5 * double(view.blocks) + 2.5) / scale + 1e-3;
  bool right = true;
  for (size_t i = 0; i < k; ++i) {
    if (i >= sorted.size()) {
      right &= ids[i] == -1 && std::isnan(distances[i]);
      continue;
    }
    double& score = by_id[size_t(ids[i])];
    const double shown = view.squared_l2() ? std::min(score, 0.0) : score;
    const double found = view.squared_l2() ? -distances[i] : distances[i];
    right &= std::fabs(found - shown) <= bound && score >= sorted[i] - 2 * bound;
    right &= i == 0 || (view.squared_l2() ? distances[i] >= distances[i - 1]
                                          : distances[i] <= distances[i - 1]);
    score = std::nan("");  // no datapoint twice
  }
  return right;
}

void test_search(const char* name, Distance distance, size_t leaves, size_t per_block) {
  Group group(std::string("pipeline: ") + name);
  Random random;
  constexpr size_t kQueries = 7, kDim = 9;
  for (const size_t count : {1, 31, 33, 1500}) {
    SmallIndex index(random, distance, count, kDim, leaves, per_block);
    IndexView view = index.view;
    const auto queries = random.integers(kQueries * kDim);
    for (const size_t k : {size_t(1), size_t(10), count + 3})
      for (const size_t searched : {size_t(1), size_t(3), view.num_leaves})
        for (const bool rows : {true, false}) {
          if (!rows && per_block == 0) continue;
          view.rows = rows ? index.rows.data() : nullptr;
          const size_t candidates = k + 3;
          const Answer answer = search(view, k, candidates, searched, queries.data(), kQueries);
          bool sorted = true, scored = true, alike = true;
          for (size_t q = 0; q < kQueries; ++q) {
            const float* query = &queries[q * kDim];
            const int64_t* ids = &answer.ids[q * k];
            const float* distances = &answer.distances[q * k];
            sorted &= as_sorted(index, view, query, k, candidates, searched, ids, distances);
            if (!rows) scored &= near(index, query, k, searched, ids, distances);
            const Answer one = search(view, k, candidates, searched, query, 1);
            alike &= std::equal(one.ids.begin(), one.ids.end(), ids) &&
                     same_bits(one.distances.data(), distances, k);
          }
          check(sorted, "what sorting finds", count, k);
          check(scored, "scores near those of the decoded rows", count, k);
          check(alike, "a block finds what single queries find", count, k);
        }
  }
}

void test_choice(Distance distance) {
  Group group(std::string("pipeline: choice of leaves, ") +
              (distance == Distance::squared_l2 ? "squared l2" : "dot product"));
  Random random;
  SmallIndex index(random, distance, 100, 9, 40, 0);
  const auto queries = random.integers(5 * 9);
  for (const size_t leaves : {1, 2, 7, 40})
    for (const size_t count : {1, 5}) {
      std::vector<LeafChoice> choices(count * leaves);
      choose_leaves(index.view, queries.data(), count, leaves, choices.data());
      for (size_t q = 0; q < count; ++q) {
        const auto want = best_leaves(index, &queries[q * 9], leaves);
        std::vector<std::pair<size_t, float>> found;
        for (size_t i = 0; i < leaves; ++i)
          found.emplace_back(choices[q * leaves + i].leaf, choices[q * leaves + i].score);
        check(found[0] == want[0], "the best comes first", leaves, count);
        if (count > 1)  // then the rest comes in any order
          std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
            return a.second != b.second ? a.second > b.second : a.first < b.first;
          });
        check(found == want, "the best leaves", leaves, count);
      }
    }
}

}  // namespace

void test_pipeline() {
  test_search("brute force, dot product", Distance::dot_product, 0, 0);
  test_search("brute force, squared l2", Distance::squared_l2, 0, 0);
  test_search("tree, dot product", Distance::dot_product, 12, 0);
  test_search("codes, dot product", Distance::dot_product, 0, 2);
  test_search("codes, squared l2", Distance::squared_l2, 0, 2);
  test_search("tree and codes, dot product", Distance::dot_product, 12, 4);
  test_search("tree and codes, squared l2", Distance::squared_l2, 12, 2);
  test_choice(Distance::dot_product);
  test_choice(Distance::squared_l2);
}

}  // namespace selftest

// Searching small indexes of every kind, against scoring and sorting all rows.
#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "kernels.h"
#include "search.h"
#include "selftest.h"
#include "selftest_index.h"
#include "threads.h"

using namespace swann;

namespace selftest {
namespace {

struct Answer {
  std::vector<int64_t> ids;
  std::vector<float> distances;
};

Answer search(const IndexView& view, size_t k, size_t candidates, size_t leaves,
              const float* queries, size_t count) {
  Answer answer{std::vector<int64_t>(count * k), std::vector<float>(count * k)};
  const bool reorders = view.codes != nullptr && view.rows.present();
  const SearchLimits limits{k, std::min(reorders ? std::max(candidates, k) : k, view.num_rows),
                            std::min(leaves, view.num_leaves)};
  search_block(view, nullptr, limits, queries, count, answer.ids.data(), answer.distances.data());
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
        sum += lut[view.codewords * m + index.code(l, row, m * view.dims_per_block)];
      if (view.corrections != nullptr)
        sum += int32_t((index.correction(l, row) * table->multiplier) >> 16);
      keys.push_back(make_key(sum, row));
    }
  return keys;
}

// Whether an answer is what sorting gives: the best candidates, ties to the lowest row; of them,
// scored exactly where rows are at hand, the k best, ties to the lowest id.
bool as_sorted(const SmallIndex& index, const float* q, size_t k, size_t candidates,
               size_t leaves, const int64_t* ids, const float* distances) {
  const IndexView& view = index.view;
  std::vector<uint8_t> lut(view.blocks * view.codewords);
  Table table;
  if (view.codes != nullptr) table = build_table(view, q, 0, lut.data());
  auto keys = keys_of(index, q, leaves, view.codes == nullptr ? nullptr : &table, lut.data());
  std::sort(keys.begin(), keys.end(), std::greater<>());
  keys.resize(std::min(!view.rows.present() || view.codes == nullptr ? k : candidates,
                       keys.size()));
  for (Key& key : keys) {
    const uint32_t row = key_row(key), id = view.ids == nullptr ? row : view.ids[row];
    const bool exact = view.rows.present();
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
    const float value = view.rows.present() ? from_ordered(score)
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
                 view.correction_span * index.correction(l, row) / 65535;
      }
      by_id[view.ids == nullptr ? row : view.ids[row]] = score;
      sorted.push_back(score);
    }
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  std::vector<uint8_t> lut(view.blocks * view.codewords);
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

void test_search(const char* name, Distance distance, size_t leaves, size_t per_block,
                 size_t codewords = kWords16) {
  Group group(std::string("pipeline: ") + name);
  Random random;
  constexpr size_t kQueries = 7, kDim = 9;
  for (const size_t count : {1, 31, 33, 1500}) {
    SmallIndex index(random, distance, count, kDim, leaves, per_block, codewords);
    const IndexView& view = index.view;
    auto queries = random.integers(kQueries * kDim);
    std::fill_n(queries.begin(), kDim, 0.0f);  // to it, all dot products are equal
    for (const size_t k : {size_t(1), size_t(10), count + 3})
      for (const size_t searched : {size_t(1), size_t(3), view.num_leaves})
        for (const int bits : {32, 16, 8, 0}) {
          if (bits == 0 && per_block == 0) continue;
          index.give_rows(bits);
          const size_t candidates = k + 3;
          const Answer answer = search(view, k, candidates, searched, queries.data(), kQueries);
          bool sorted = true, scored = true, alike = true;
          for (size_t q = 0; q < kQueries; ++q) {
            const float* query = &queries[q * kDim];
            const int64_t* ids = &answer.ids[q * k];
            const float* distances = &answer.distances[q * k];
            sorted &= as_sorted(index, query, k, candidates, searched, ids, distances);
            if (bits == 0) scored &= near(index, query, k, searched, ids, distances);
            const Answer one = search(view, k, candidates, searched, query, 1);
            alike &= std::equal(one.ids.begin(), one.ids.end(), ids) &&
                     same_bits(one.distances.data(), distances, k);
          }
          check(sorted, "what sorting finds", count, size_t(bits));
          check(scored, "scores near those of the decoded rows", count, k);
          check(alike, "a block finds what single queries find", count, k);
        }
  }
}

// Two leaves of one row. Leaf 1 is the better one and is searched first, but the codes make both
// rows score the same: the row of leaf 0 must still win, being the lowest.
void test_tie() {
  Group group("pipeline: a tie between leaves");
  const float centroids[] = {0, 2}, query[] = {1, 1};
  const uint32_t starts[] = {0, 1, 2};
  std::vector<float> codebook(kLanes);
  for (size_t k = 0; k < kLanes; ++k) codebook[k] = float(k);
  std::vector<uint8_t> codes(2 * 16);
  codes[0] = 2;
  IndexView view;
  view.dim = view.reduced_dim = view.dims_per_block = view.blocks = 1;
  view.num_rows = view.num_entries = view.num_leaves = 2;
  view.centroids = centroids, view.leaf_starts = starts;
  view.codes = codes.data(), view.codebook = codebook.data();
  view.group_starts = {0, 1, 2};
  for (const size_t count : {1, 2}) {
    const Answer answer = search(view, 1, 1, 2, query, count);
    check(answer.ids == std::vector<int64_t>(count, 0), "the lowest row", count);
    check(std::fabs(answer.distances[0] - 2) < 0.1, "its score", count);
  }
}

// Every row in two leaves: found as without, each datapoint once.
void test_spilled() {
  Group group("pipeline: spilled rows");
  Random random;
  SmallIndex index(random, Distance::squared_l2, 300, 9, 12, 0);
  index.rows = random.reals(index.rows.size());  // no ties
  index.give_rows(32);
  const IndexView plain = index.view;
  index.spill(5);
  const auto queries = random.reals(4 * 9);
  for (const size_t k : {1, 7, 300})
    for (const size_t count : {1, 4}) {
      const Answer want = search(plain, k, k, 12, queries.data(), count);
      Answer answer{std::vector<int64_t>(count * k), std::vector<float>(count * k)};
      search_block(index.view, nullptr, {k, 2 * k, 12}, queries.data(), count, answer.ids.data(),
                   answer.distances.data());
      check(answer.ids == want.ids && same_bits(answer.distances, want.distances),
            "as without spilling", k, count);
    }
}

// More queries than a block holds are taken in another order, and answered as if alone.
void test_many_queries(size_t leaves, size_t per_block) {
  Group group("pipeline: many queries, " + std::string(per_block == 0 ? "rows" : "codes"));
  Random random;
  constexpr size_t kDim = 9, kCount = 2500, kNeighbors = 5;
  SmallIndex index(random, Distance::squared_l2, 400, kDim, 24, per_block);
  index.give_rows(16);
  const auto queries = random.reals(kCount * kDim);
  const SearchLimits limits{kNeighbors, 20, leaves};
  const auto answers = [&](size_t threads) {
    Answer all{std::vector<int64_t>(kCount * kNeighbors), std::vector<float>(kCount * kNeighbors)};
    search_batch(index.view, nullptr, limits, queries.data(), kCount, threads, all.ids.data(),
                 all.distances.data());
    return all;
  };
  Answer alone{std::vector<int64_t>(kCount * kNeighbors), std::vector<float>(kCount * kNeighbors)};
  for (size_t q = 0; q < kCount; ++q)
    search_block(index.view, nullptr, limits, &queries[q * kDim], 1, &alone.ids[q * kNeighbors],
                 &alone.distances[q * kNeighbors]);
  for (const size_t threads : {1, 3}) {
    const Answer together = answers(threads);
    check(together.ids == alone.ids && same_bits(together.distances, alone.distances),
          "as alone", leaves, threads);
  }
}

// Rows in 8 bits, which the first searches make while they search, or as they are: the answers of floats,
// to the bit.
void test_byte_rows(Distance distance, size_t leaves, bool spills, int bits) {
  Group group(std::string("pipeline: rows in bytes, ") + (leaves == 0 ? "one leaf" : "a tree") +
              (spills ? ", spilled" : "") + (bits == 16 ? ", bfloat16" : bits == 8 ? ", int8" : "") +
              (distance == Distance::squared_l2 ? ", squared l2" : ""));
  Random random;
  constexpr size_t kDim = 21, kCount = 2500, kQueries = 40, kSearchers = 4, kNeighbors = 6;
  SmallIndex index(random, distance, kCount, kDim, leaves, 0);
  index.rows = random.reals(index.rows.size());
  std::copy_n(index.rows.begin(), 30 * kDim, index.rows.begin() + 1000 * kDim);  // ties
  if (bits == 8)
    index.round_rows(random);
  else
    index.give_rows(bits);
  if (spills) index.spill(5);
  IndexView floats = index.view;
  floats.byte_rows = nullptr;
  auto queries = random.reals(kQueries * kDim);
  for (size_t q = 0; q < kQueries; ++q) {
    queries[q * kDim + 3] *= 1000;  // weighed
    if (q < 20) queries[q * kDim + 5] = 0;  // seen first
  }
  std::copy_n(&index.rows[1000 * kDim], kDim, &queries[30 * kDim]);
  const SearchLimits limits{kNeighbors, spills ? 2 * kNeighbors : kNeighbors,
                            std::max<size_t>(1, leaves / 2)};
  Answer want{std::vector<int64_t>(kQueries * kNeighbors),
              std::vector<float>(kQueries * kNeighbors)};
  search_block(floats, nullptr, limits, queries.data(), kQueries, want.ids.data(),
               want.distances.data());
  std::vector<Answer> found(kSearchers, want);
  for (Answer& answer : found) answer.ids.assign(answer.ids.size(), -2);
  parallel_for(kSearchers, kSearchers, [&](size_t s) {
    const size_t at_once = s == 3 ? kQueries : s == 1 ? 5 : 1;
    for (size_t q = 0; q < kQueries; q += at_once)
      search_block(index.view, nullptr, limits, &queries[q * kDim], at_once,
                   &found[s].ids[q * kNeighbors], &found[s].distances[q * kNeighbors]);
  });
  const bool can = kernels().i8_filter != nullptr ||
                   (bits == 8 && kernels().upper_i8 != nullptr);
  check((index.view.byte_rows != nullptr) == can, "there where bytes are multiplied", kCount);
  check(!can || bits == 8 || index.view.byte_rows->is_on(), "made by searches", kCount);
  for (const Answer& answer : found)
    check(answer.ids == want.ids && same_bits(answer.distances, want.distances), "as by floats",
          leaves, kQueries);
}

// Bounds that fail where many are wanted are tried on where few are; and once in a while there, too.
void test_bounds_trials() {
  Group group("pipeline: whether bounds are worth it");
  ByteRows rows(1000, 20, true);
  BoundsTrial& many = rows.trial(1000, false);
  for (int i = 0; i < 8; ++i) {
    check(many.worth_it(), "until they failed 8 times", size_t(i));
    many.report(false);
  }
  check(!many.worth_it(), "not then");
  for (const size_t wanted : {1, 10, 100, 100000}) check(rows.trial(wanted, false).worth_it(), "others", wanted);
  check(rows.trial(1000, true).worth_it(), "nor of rows that are kept");
  size_t tried = 0;
  for (int i = 0; i < 1000; ++i) tried += many.worth_it();
  check(tried == 3, "once in 256", tried);
  many.report(true);
  check(many.worth_it(), "good again");
  many.report(false, 4), many.report(false, 4);
  check(!many.worth_it(), "of blocks of many queries two tell");
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
  test_search("codes of 8 bits, dot product", Distance::dot_product, 0, 2, kWords256);
  test_search("tree and codes of 8 bits, dot product", Distance::dot_product, 12, 4, kWords256);
  test_search("tree and codes of 8 bits, squared l2", Distance::squared_l2, 12, 2, kWords256);
  test_tie();
  test_spilled();
  for (const size_t leaves : {1, 6, 20}) {
    test_many_queries(leaves, 2);
    test_many_queries(leaves, 0);
  }
  for (const Distance distance : {Distance::dot_product, Distance::squared_l2})
    for (const size_t leaves : {0, 12})
      for (const int bits : {32, 16, 8}) test_byte_rows(distance, leaves, false, bits);
  for (const int bits : {32, 8}) test_byte_rows(Distance::dot_product, 12, true, bits);
  test_bounds_trials();
  test_choice(Distance::dot_product);
  test_choice(Distance::squared_l2);
}

}  // namespace selftest

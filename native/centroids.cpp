// Which leaves a query visits. Without levels above, all centroids are scored; with them a query
// goes down: the best leaves of a level say which of the centroids below are scored at all.
#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "search.h"

namespace swann {
namespace {

constexpr size_t kQueriesAtOnce = 32;  // their scores of all centroids stay in the cache
constexpr size_t kMostTogether = 128;  // queries that go down a level together
constexpr size_t kMostKeys = 1 << 19;  // that they gather, roughly

// One level's working memory, kept between calls. A visit is a query in a leaf.
struct Scratch {
  std::vector<Key> above, wider, keys;
  std::vector<uint32_t> leaves, owners;       // of each visit: its leaf, its query
  std::vector<size_t> places, ends;           // where a visit's keys go; where a query's keys end
  std::vector<uint32_t> starts, visits;       // leaf -> its visits
  std::vector<float> scores, gathered, sums;
  std::vector<uint32_t> numbers;
};

struct Queries {
  const float* rows;     // [count][dim]
  const float* lengths;  // [count]
  size_t count, dim;

  const float* row(size_t q) const { return rows + q * dim; }
  Queries part(size_t first, size_t n) const {
    return {row(first), lengths + first, std::min(n, count - first), dim};
  }
};

size_t size_of(const UpperLevel& level, size_t leaf) {
  return level.starts[leaf + 1] - level.starts[leaf];
}

// What a leaf may have beyond its centroid's score.
struct Reach {
  const float* spreads;  // or null
  float length;          // of the query

  const float* added(const float* scores, size_t count, std::vector<float>& sums) const {
    if (spreads == nullptr) return scores;
    sums.resize(count);
    for (size_t i = 0; i < count; ++i) sums[i] = scores[i] + length * spreads[i];
    return sums.data();
  }
};

// The keys of the best scores, in any order.
void best_keys(const float* scores, const Reach& reach, size_t count, size_t wanted, Scratch& s,
               Key* best) {
  const KernelTable& k = kernels();
  const float* sums = reach.added(scores, count, s.sums);
  s.numbers.resize(count);
  s.keys.resize(count);
  const float least = k.least_of_best_f32(sums, count, wanted);
  size_t found = k.at_least_f32(sums, count, least, s.numbers.data());
  for (size_t i = 0; i < found; ++i)
    s.keys[i] = make_key(ordered(sums[s.numbers[i]]), s.numbers[i]);
  if (found < wanted) {  // some are no numbers
    k.keys_from_f32(sums, nullptr, 0.0f, count, s.keys.data());
    found = count;
  }
  cut_to(s.keys.data(), found, wanted);
  std::copy_n(s.keys.data(), wanted, best);
}

// The centroids as they are scored to choose leaves.
ExactRows choosing_rows(const IndexView& index) {
  if (index.rounded.present()) return index.rounded;
  return {.f32 = index.centroids, .dim = index.reduced_dim};
}

class Descent {
 public:
  Descent(const IndexView& index, std::vector<Scratch>& scratch)
      : index_(index), scratch_(scratch) {}

  // Fills best [count][wanted] with the keys of each query's best centroids of a level, in any
  // order; the level has that many.
  void choose(size_t level, const Queries& queries, size_t wanted, Key* best) const {
    size_t together = kQueriesAtOnce;
    const bool topmost = level == index_.upper.size();
    if (!topmost) {
      const UpperLevel& upper = index_.upper[level];
      const size_t visited = (upper.num_entries / upper.num_leaves + 1) * upper.to_search;
      together = std::clamp<size_t>(kMostKeys / visited, 1, kMostTogether);
    }
    for (size_t q = 0; q < queries.count; q += together) {
      const Queries part = queries.part(q, together);
      if (topmost)
        score_all(level, part, wanted, best + q * wanted);
      else
        go_down(level, part, wanted, best + q * wanted);
    }
  }

  // Scores every centroid of a level for a few queries; returns the scores [count][centroids].
  const float* score_all(size_t level, const Queries& queries, size_t wanted, Key* best) const {
    Scratch& s = scratch_[level];
    const bool lowest = level == 0;
    const size_t n = lowest ? index_.num_leaves : index_.upper[level - 1].num_leaves;
    const float* spreads = lowest ? index_.spreads : index_.upper[level - 1].spreads;
    const ExactRows rows = lowest ? choosing_rows(index_)
                                  : ExactRows{.f32 = index_.upper[level - 1].centroids,
                                              .dim = index_.reduced_dim};
    s.scores.resize(queries.count * n);
    score_run(rows, index_.squared_l2(), queries.rows, queries.count, 0, n, s.scores.data(), n);
    for (size_t q = 0; q < queries.count; ++q) {
      const Reach reach{spreads, queries.lengths[q]};
      best_keys(s.scores.data() + q * n, reach, n, wanted, s, best + q * wanted);
    }
    return s.scores.data();
  }

 private:
  // The level above names leaves, and what lies in them is scored.
  void go_down(size_t level, const Queries& queries, size_t wanted, Key* best) const {
    const UpperLevel& upper = index_.upper[level];
    Scratch& s = scratch_[level];
    choose_visits(level, queries, wanted);
    s.keys.resize(s.ends.back());
    if (queries.count == 1)
      for (uint32_t visit = 0; visit < s.leaves.size(); ++visit)
        score_leaf(upper, queries, &visit, 1, s);
    else
      score_leaves(upper, queries, s);
    size_t begin = 0;
    for (size_t q = 0; q < queries.count; ++q) {
      Key* const keys = s.keys.data() + begin;
      size_t size = s.ends[q] - begin;
      if (upper.num_entries == upper.num_below) {
        cut_to(keys, size, wanted);
      } else {  // a centroid comes twice at most, with the same key
        size = cut_to(keys, size, 2 * wanted);
        std::sort(keys, keys + size, std::greater<>());
        std::unique(keys, keys + size);
      }
      std::copy_n(keys, wanted, best + q * wanted);
      begin = s.ends[q];
    }
  }

  // Lists the visits of each query. Where the leaves of the setting hold too few centroids, twice
  // as many are visited, and so on.
  void choose_visits(size_t level, const Queries& queries, size_t wanted) const {
    const UpperLevel& upper = index_.upper[level];
    Scratch& s = scratch_[level];
    const size_t visited = std::min(upper.to_search, upper.num_leaves);
    const double gathered = std::ceil(double(upper.gather) * double(wanted));
    const size_t needed = size_t(std::min(gathered, double(upper.num_entries)));
    s.above.resize(queries.count * visited);
    choose(level + 1, queries, visited, s.above.data());
    s.leaves.clear(), s.owners.clear(), s.places.clear(), s.ends.clear();
    const auto entries_of = [&](const Key* keys, size_t n) {
      size_t entries = 0;
      for (size_t i = 0; i < n; ++i) entries += size_of(upper, key_row(keys[i]));
      return entries;
    };
    size_t end = 0;
    for (size_t q = 0; q < queries.count; ++q) {
      const Key* keys = s.above.data() + q * visited;
      size_t n = visited;
      while (n < upper.num_leaves && entries_of(keys, n) < needed) {
        n = std::min(2 * n, upper.num_leaves);
        s.wider.resize(n);
        choose(level + 1, queries.part(q, 1), n, s.wider.data());
        keys = s.wider.data();
      }
      for (size_t i = 0; i < n; ++i) {
        s.leaves.push_back(key_row(keys[i]));
        s.owners.push_back(uint32_t(q));
        s.places.push_back(end);
        end += size_of(upper, s.leaves.back());
      }
      s.ends.push_back(end);
    }
  }

  // Each leaf once, for all queries that visit it.
  void score_leaves(const UpperLevel& upper, const Queries& queries, Scratch& s) const {
    s.starts.assign(upper.num_leaves, 0);
    for (const uint32_t leaf : s.leaves) ++s.starts[leaf];
    uint32_t total = 0;
    for (uint32_t& start : s.starts) total += std::exchange(start, total);
    s.visits.resize(s.leaves.size());
    for (uint32_t visit = 0; visit < s.leaves.size(); ++visit)
      s.visits[s.starts[s.leaves[visit]]++] = visit;
    uint32_t begin = 0;
    for (const uint32_t end : s.starts) {  // the starts have moved to the ends
      if (end > begin) score_leaf(upper, queries, s.visits.data() + begin, end - begin, s);
      begin = end;
    }
  }

  // Puts the keys of a leaf's centroids where its visits want them.
  void score_leaf(const UpperLevel& upper, const Queries& queries, const uint32_t* visits,
                  size_t count, Scratch& s) const {
    const size_t leaf = s.leaves[visits[0]], first = upper.starts[leaf], size = size_of(upper, leaf);
    if (size == 0) return;
    const float* rows = queries.rows;
    if (queries.count > 1) {
      s.gathered.resize(count * queries.dim);
      for (size_t i = 0; i < count; ++i)
        std::copy_n(queries.row(s.owners[visits[i]]), queries.dim,
                    s.gathered.data() + i * queries.dim);
      rows = s.gathered.data();
    }
    s.scores.resize(std::max(s.scores.size(), count * size));
    score_run(upper.rows, index_.squared_l2(), rows, count, first, size, s.scores.data(), size);
    const float* reach = upper.reach.empty() ? nullptr : upper.reach.data() + first;
    const uint32_t* entries = upper.entries + first;
    for (size_t i = 0; i < count; ++i) {
      Key* keys = s.keys.data() + s.places[visits[i]];
      kernels().keys_from_f32(s.scores.data() + i * size, reach,
                              queries.lengths[s.owners[visits[i]]], size, keys);
      for (size_t j = 0; j < size; ++j) keys[j] = (keys[j] >> 32 << 32) | uint32_t(~entries[j]);
    }
  }

  const IndexView& index_;
  std::vector<Scratch>& scratch_;
};

// The best kFirstLeaves come first.
void arrange(Key* keys, size_t leaves) {
  const size_t first = std::min(leaves, kFirstLeaves);
  std::partial_sort(keys, keys + first, keys + leaves, std::greater<>());
}

// In 8 bits centroids are a quarter as long and several times as fast to score, and bounds of their
// scores leave few to be scored exactly.
class NearCentroids {
 public:
  static constexpr size_t kQueries = CentroidBounds::kVectors;

  // Fills choices [count][leaves]; false where the bounds leave too many.
  bool choose(const IndexView& index, const Queries& queries, size_t leaves, LeafChoice* choices) {
    const float* rows[kQueries];
    for (size_t q = 0; q < queries.count; ++q) rows[q] = queries.row(q);
    const RoundedCentroids& centroids = *index.bounds;
    const Ranking ranking = index.squared_l2() ? Ranking::nearest : Ranking::along;
    bounds_.round(centroids, ranking, rows, queries.count);
    bounds_.find(centroids, 0, centroids.groups(), 1e-6f * index.widest_spread,
                 index.squared_l2());
    for (size_t q = 0; q < queries.count; ++q)
      if (!choose(index, queries, q, leaves, choices + q * leaves)) return false;
    return true;
  }

 private:
  bool choose(const IndexView& index, const Queries& queries, size_t q, size_t leaves,
              LeafChoice* choices) {
    const KernelTable& k = kernels();
    const size_t n = index.num_leaves;
    const float length = queries.lengths[q];
    const Reach reach{index.spreads, length};
    float* const lower = bounds_.lower(q);
    const float least = k.least_of_best_f32(reach.added(lower, n, sums_), n, leaves);
    near_.resize(n);
    const float* const upper = reach.added(bounds_.upper(q), n, sums_);
    const size_t count = k.at_least_f32(upper, n, least, near_.data());
    if (count < leaves || count > n / 2) return false;
    scores_.resize(count), keys_.resize(count);
    score_rows(choosing_rows(index), index.squared_l2(), queries.row(q), near_.data(), count,
               scores_.data());
    for (size_t i = 0; i < count; ++i) {
      const uint32_t leaf = near_[i];
      const float added = index.spreads == nullptr ? 0.0f : length * index.spreads[leaf];
      keys_[i] = make_key(ordered(scores_[i] + added), leaf);
      lower[leaf] = scores_[i];
    }
    cut_to(keys_.data(), count, leaves);
    arrange(keys_.data(), leaves);
    for (size_t i = 0; i < leaves; ++i) {
      const uint32_t leaf = key_row(keys_[i]);
      choices[i] = {leaf, lower[leaf]};
    }
    return true;
  }

  CentroidBounds bounds_;
  std::vector<float> sums_, scores_;
  std::vector<uint32_t> near_;
  std::vector<Key> keys_;
};

// Whether bounds pay: a single query reads all centroids from memory that its codes and rows have
// pushed out of the near cache; many share the reading, and gain where few leaves are wanted. Where
// more than half are, or more than kMostBest, bounds would fail, and their trial take it for the queries'
// fault.
bool bounds_pay(const IndexView& index, size_t count, size_t leaves) {
  const size_t share = count == 1 ? 2 : 16;
  return index.bounds != nullptr && leaves * share <= index.num_leaves && leaves <= kMostBest;
}

}  // namespace

void bound_centroids(IndexView& index) {
  constexpr size_t kFew = 128;  // are scored in no time
  if (index.centroids == nullptr || index.num_leaves < kFew || !index.upper.empty() ||
      !RoundedCentroids::are_faster(index.reduced_dim) ||
      (index.squared_l2() && index.spreads != nullptr))
    return;
  const ExactRows rows = choosing_rows(index);
  const size_t dim = index.reduced_dim;
  std::vector<float> floats(rows.f32 == nullptr ? index.num_leaves * dim : 0);
  for (size_t i = 0; i < floats.size() / dim; ++i) copy_row(rows, i, floats.data() + i * dim);
  index.bounds = std::make_shared<RoundedCentroids>(rows.f32 == nullptr ? floats.data() : rows.f32,
                                                    index.num_leaves, dim, 1);
  index.bounds_trial = std::make_shared<BoundsTrial>();
  if (index.spreads != nullptr)
    index.widest_spread = *std::max_element(index.spreads, index.spreads + index.num_leaves);
}

namespace {

// The best of all centroids.
void choose_from_all(const IndexView& index, const Descent& descent, const Queries& all,
                     size_t leaves, std::vector<Key>& best, LeafChoice* choices) {
  thread_local NearCentroids near;
  const bool bounds = bounds_pay(index, all.count, leaves);
  for (size_t first = 0, together; first < all.count; first += together) {
    const bool tried = bounds && index.bounds_trial->worth_it();
    together = tried ? NearCentroids::kQueries : kQueriesAtOnce;
    const Queries part = all.part(first, together);
    if (tried) {
      const bool enough = near.choose(index, part, leaves, choices + first * leaves);
      index.bounds_trial->report(enough);
      if (enough) continue;
    }
    const float* found = descent.score_all(0, part, leaves, best.data());
    for (size_t q = 0; q < part.count; ++q) {
      Key* const keys = best.data() + q * leaves;
      arrange(keys, leaves);
      for (size_t i = 0; i < leaves; ++i)
        choices[(first + q) * leaves + i] = {key_row(keys[i]),
                                             found[q * index.num_leaves + key_row(keys[i])]};
    }
  }
}

// Scores that datapoints build on are those of the float32 centroids.
void score_choices(const IndexView& index, const Queries& all, size_t leaves,
                   LeafChoice* choices) {
  thread_local std::vector<float> scores;
  thread_local std::vector<uint32_t> numbers;
  const ExactRows centroids = {.f32 = index.centroids, .dim = index.reduced_dim};
  numbers.resize(leaves), scores.resize(leaves);
  for (size_t q = 0; q < all.count; ++q, choices += leaves) {
    for (size_t i = 0; i < leaves; ++i) numbers[i] = choices[i].leaf;
    score_rows(centroids, index.squared_l2(), all.row(q), numbers.data(), leaves, scores.data());
    for (size_t i = 0; i < leaves; ++i) choices[i].score = scores[i];
  }
}

}  // namespace

void choose_leaves(const IndexView& index, const float* queries, size_t count, size_t leaves,
                   LeafChoice* choices) {
  if (index.centroids == nullptr) {
    std::fill_n(choices, count * leaves, LeafChoice{0, 0.0f});
    return;
  }
  thread_local std::vector<Scratch> scratch;
  thread_local std::vector<float> lengths;
  thread_local std::vector<Key> best;
  const size_t dim = index.reduced_dim;
  scratch.resize(std::max(scratch.size(), index.upper.size() + 1));
  lengths.assign(count, 0.0f);
  bool reaches = index.spreads != nullptr;
  for (const UpperLevel& level : index.upper) reaches |= level.spreads != nullptr;
  for (size_t q = 0; q < count && reaches; ++q) {
    kernels().dot_f32(queries + q * dim, 1, queries + q * dim, 1, dim, &lengths[q], 1);
    lengths[q] = std::sqrt(lengths[q]);
  }
  const Queries all{queries, lengths.data(), count, dim};
  const Descent descent(index, scratch);
  best.resize(count * leaves);
  if (index.upper.empty()) {
    choose_from_all(index, descent, all, leaves, best, choices);
  } else {
    descent.choose(0, all, leaves, best.data());
    for (size_t q = 0; q < count; ++q) {
      Key* const keys = best.data() + q * leaves;
      arrange(keys, leaves);
      for (size_t i = 0; i < leaves; ++i) choices[q * leaves + i].leaf = key_row(keys[i]);
    }
  }
  if (!index.upper.empty() || index.rounded.present()) score_choices(index, all, leaves, choices);
}

}  // namespace swann

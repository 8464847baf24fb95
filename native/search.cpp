// The order of a search. One query goes through its leaves best first; a block of queries goes leaf by
// leaf, so that a leaf's codes are read once for all queries that visit it.
#include "block.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "waiting.h"

namespace swann {

// ---- Candidates of changed indexes

void drop_dead(const Block& block, Candidates& best, size_t size) {
  if (block.changes == nullptr || block.changes->dead == 0) return;
  Key* const end = std::remove_if(best.keys + size, best.keys + best.size, [&](Key key) {
    return block.changes->is_dead(row_of(block.index, key_row(key)));
  });
  best.size = size_t(end - best.keys);
}

void name_new(const Block& block, const uint32_t* slots, Candidates& best, size_t size) {
  const Changes& changes = *block.changes;
  size_t kept = size;
  for (size_t i = size; i < best.size; ++i) {
    const uint32_t slot = slots[key_row(best.keys[i])];
    if (changes.dead > 0 && changes.is_dead(changes.base_rows + slot)) continue;
    best.keys[kept++] =
        make_key(key_score(best.keys[i]), uint32_t(block.index.num_entries + slot));
  }
  best.size = kept;
}

namespace {

// Candidates gathered before a cut: of a query alone, and of each of many, whose memory counts.
constexpr size_t kSlackAlone = 1024, kSlack = 512;

// Visits every leaf once for the choices of ranks [first, last) of all queries.
void scan_ranks(const Block& block, size_t first, size_t last) {
  Scratch& s = block.scratch;
  const size_t leaves = block.limits.leaves;
  s.visit_starts.assign(block.index.num_leaves + 1, 0);
  for (size_t q = 0; q < block.count; ++q)
    for (size_t r = first; r < last; ++r) ++s.visit_starts[s.choices[q * leaves + r].leaf + 1];
  for (size_t l = 0; l < block.index.num_leaves; ++l) s.visit_starts[l + 1] += s.visit_starts[l];
  s.visits.resize(block.count * (last - first));
  for (size_t q = 0; q < block.count; ++q)
    for (size_t r = first; r < last; ++r) {
      const size_t choice = q * leaves + r;
      s.visits[s.visit_starts[s.choices[choice].leaf]++] = uint32_t(choice);
    }
  // The starts have moved to the ends: leaf l now ends where it says, and begins where l - 1 ends.
  size_t begin = 0;
  for (size_t l = 0, next; l < block.index.num_leaves; l = next) {
    const size_t end = s.visit_starts[l];
    for (next = l + 1; next < block.index.num_leaves && s.visit_starts[next] == end;) ++next;
    const bool has_next = next < block.index.num_leaves && block.index.codes != nullptr;
    scan_leaf(block, l, s.visits.data() + begin, end - begin,
              has_next ? codes_of(block.index, next) : nullptr);
    begin = end;
  }
}

void scan(const Block& block) {
  const size_t leaves = block.limits.leaves;
  if (block.count == 1) {
    const LeafChoice* choices = block.scratch.choices.data();
    for (uint32_t r = 0; r < leaves; ++r)
      scan_leaf(block, choices[r].leaf, &r, 1,
                r + 1 < leaves ? codes_of(block.index, choices[r + 1].leaf) : nullptr);
    return;
  }
  // The best leaf of each query first: it sets a good threshold.
  scan_ranks(block, 0, 1);
  if (leaves == 1) return;
  for (size_t q = 0; q < block.count; ++q) block.scratch.candidates[q].cut();
  scan_ranks(block, 1, leaves);
}

// Codes of whole datapoints: what a leaf adds to their scores is the part of the distance that no
// table holds, -|q|^2 for squared l2, in every leaf.
void forget_centroids(const Block& block) {
  const IndexView& index = block.index;
  const size_t leaves = block.limits.leaves;
  for (size_t q = 0; q < block.count; ++q) {
    float square = 0;
    if (index.squared_l2())
      kernels().dot_f32(block.reduced_query(q), 1, block.reduced_query(q), 1, index.reduced_dim,
                        &square, 1);
    for (size_t r = 0; r < leaves; ++r) block.scratch.choices[q * leaves + r].score = -square;
  }
}

// Asks for the codes that a single query scans first while its tables are made.
void fetch_first_codes(const Block& block) {
  constexpr size_t kMost = 4096;
  const IndexView& index = block.index;
  const size_t leaf = block.scratch.choices[0].leaf;
  const size_t bytes = (index.group_starts[leaf + 1] - index.group_starts[leaf]) * index.group_bytes();
  for (size_t at = 0; at < std::min(bytes, kMost); at += 64)
    __builtin_prefetch(codes_of(index, leaf) + at, 0, 2);  // into the second-level cache
}

// How far from zero the scores of chosen leaves are.
float reach_of(const LeafChoice* choices, size_t count) {
  float reach = 0;
  for (size_t r = 0; r < count; ++r) reach = std::max(reach, std::fabs(choices[r].score));
  return reach;
}

// The same of the best leaves, as many as hold what is looked for.
float reach_of_best(const Block& block, const LeafChoice* choices) {
  const size_t dead = block.changes == nullptr ? 0 : block.changes->dead;
  const size_t wanted = block.limits.candidates + dead;
  std::vector<LeafChoice> best(choices, choices + block.limits.leaves);
  std::sort(best.begin(), best.end(),
            [](const LeafChoice& a, const LeafChoice& b) { return a.score > b.score; });
  size_t needed = 0;
  for (size_t held = 0; needed < best.size() && held < wanted; ++needed)
    held += leaf_size(block.index, best[needed].leaf);
  return reach_of(best.data(), needed);
}

void build_tables(const Block& block) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  const size_t leaves = block.limits.leaves;
  s.luts.resize(block.count * Block::table_bytes(index));
  s.tables.resize(block.count);
  for (size_t q = 0; q < block.count; ++q) {
    const LeafChoice* const choices = &s.choices[q * leaves];
    const auto build = [&](float reach) {
      return build_table(index, block.reduced_query(q), reach, block.lut(q));
    };
    s.tables[q] = build(reach_of(choices, leaves));
    // No room for far leaves: these then share the least score, and what is better is told apart.
    if (s.tables[q].cramped) s.tables[q] = build(reach_of_best(block, choices));
  }
}

// Scans the leaves in scratch.choices; the candidates are in scratch.candidates then.
void scan_choices(const Block& block) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  if (index.codes != nullptr && !index.codes_of_residuals()) forget_centroids(block);
  if (index.codes != nullptr && block.count == 1) fetch_first_codes(block);
  if (index.codes != nullptr) {
    build_tables(block);
  } else if (index.rows.origins != nullptr) {
    s.origin_scores.resize(block.count * index.rows.num_origins);
    score_origins(index.rows, block.queries, block.count, s.origin_scores.data());
  }
  const size_t limit = block.limits.candidates;
  const size_t capacity = Candidates::most(limit) + (block.count == 1 ? kSlackAlone : kSlack);
  s.keys.resize(block.count * capacity);
  s.candidates.resize(block.count);
  for (size_t q = 0; q < block.count; ++q)
    s.candidates[q] = {s.keys.data() + q * capacity, 0, limit, capacity, 0};
  if (index.codes == nullptr) start_rows(block);
  scan(block);
  if (index.codes == nullptr) end_rows(block);
}

// One thread's working memory, ready for a block.
Scratch& fresh_scratch() {
  thread_local Scratch scratch;
  scratch.is_rounded = false;
  return scratch;
}

// The queries in an order in which those with the same best leaf follow each other: they have many
// candidates in common, whose rows are near then.
const std::vector<uint32_t>& by_best_leaf(const Block& block) {
  Scratch& s = block.scratch;
  s.visits.resize(block.count);
  std::iota(s.visits.begin(), s.visits.end(), 0u);
  const auto leaf = [&](uint32_t q) { return s.choices[q * block.limits.leaves].leaf; };
  std::sort(s.visits.begin(), s.visits.end(),
            [&](uint32_t a, uint32_t b) { return leaf(a) < leaf(b); });
  return s.visits;
}

// Queries whose tables the second-level cache holds; more where fewer would share the codes of a leaf.
size_t with_near_tables(const IndexView& index, const SearchLimits& limits) {
  constexpr size_t kNearBytes = size_t(1) << 20, kVisits = 40;
  if (index.codes == nullptr) return std::numeric_limits<size_t>::max();
  return std::max(kNearBytes / Block::table_bytes(index),
                  kVisits * index.num_leaves / std::max<size_t>(1, limits.leaves));
}

}  // namespace

size_t most_queries(const IndexView& index, const SearchLimits& limits) noexcept {
  constexpr size_t kMaxBlock = 1024, kMaxBytes = size_t(64) << 20;
  // Interrupts are heard between blocks: of rows that are scored one by one, seconds lie between them.
  constexpr size_t kMaxScores = size_t(1) << 30, kFewQueries = 64;
  const size_t waiting = index.codes == nullptr ? room_to_wait(limits.candidates) : 0;
  const size_t bytes = (Candidates::most(limits.candidates) + kSlack + waiting) * sizeof(Key) +
                       limits.leaves * (sizeof(LeafChoice) + sizeof(uint32_t)) +
                       Block::table_bytes(index) +
                       (index.dim + index.reduced_dim) * sizeof(float);
  const size_t scores = index.codes == nullptr && index.num_leaves == 1 ? index.num_entries : 1;
  const size_t quick = std::max(kFewQueries, kMaxScores / std::max<size_t>(1, scores));
  const size_t most = std::min({kMaxBlock, quick, with_near_tables(index, limits)});
  return std::clamp<size_t>(kMaxBytes / bytes, 1, most);
}

void search_block(const IndexView& index, const Changes* changes, const SearchLimits& limits,
                  const float* queries, size_t count, int64_t* ids, float* distances) {
  Scratch& scratch = fresh_scratch();
  const float* reduced = reduce_queries(index, queries, count, 1, scratch.reduced);
  const Block block{index, changes, limits, queries, reduced, count, scratch};
  scratch.choices.resize(count * limits.leaves);
  choose_leaves(index, block.reduced, count, limits.leaves, scratch.choices.data());
  scan_choices(block);
  for (const uint32_t q : by_best_leaf(block))
    write_result(block, q, ids + q * limits.neighbors, distances + q * limits.neighbors);
}

void search_chosen(const IndexView& index, const Changes* changes, const SearchLimits& limits,
                   const ChosenQueries& queries, const uint32_t* numbers, size_t count,
                   int64_t* ids, float* distances) {
  Scratch& scratch = fresh_scratch();
  const size_t leaves = limits.leaves, k = limits.neighbors;
  const auto put_together = [&](const float* from, size_t dim, std::vector<float>& to) {
    to.resize(count * dim);
    for (size_t i = 0; i < count; ++i)
      std::copy_n(from + numbers[i] * dim, dim, to.data() + i * dim);
    return to.data();
  };
  const float* whole = put_together(queries.whole, index.dim, scratch.queries);
  const float* reduced =
      queries.reduced == queries.whole
          ? whole
          : put_together(queries.reduced, index.reduced_dim, scratch.reduced);
  const Block block{index, changes, limits, whole, reduced, count, scratch};
  scratch.choices.resize(count * leaves);
  for (size_t i = 0; i < count; ++i)
    std::copy_n(queries.choices + numbers[i] * leaves, leaves, scratch.choices.data() + i * leaves);
  scan_choices(block);
  for (size_t i = 0; i < count; ++i)
    write_result(block, i, ids + numbers[i] * k, distances + numbers[i] * k);
}

void gather_block(const IndexView& index, const Changes* changes, const SearchLimits& limits,
                  const float* queries, size_t count, const uint32_t* leaves, const float* scores,
                  const uint32_t* whole_starts, const Found& found) {
  Scratch& scratch = fresh_scratch();
  const float* reduced = reduce_queries(index, queries, count, 1, scratch.reduced);
  const Block block{index, changes, limits, queries, reduced, count, scratch};
  scratch.choices.resize(count * limits.leaves);
  for (size_t i = 0; i < scratch.choices.size(); ++i) scratch.choices[i] = {leaves[i], scores[i]};
  scan_choices(block);
  const size_t width = limits.candidates;
  for (size_t q = 0; q < count; ++q)
    write_found(block, q, whole_starts,
                {found.first + q * width, found.last + q * width, found.distances + q * width});
}

}  // namespace swann

// From the candidates of a scan to results: exact scores, the best of them, each datapoint once.
#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <utility>

#include "block.h"

namespace swann {

void score_candidates(const Block& block, const float* query, const uint32_t* rows, size_t count,
                      float* scores, const float* of_origins) {
  const IndexView& index = block.index;
  if (block.changes == nullptr || block.changes->slots == 0)
    return score_rows(index.rows, index.squared_l2(), query, rows, count, scores, of_origins);
  const ExactRows added = block.changes->rows->exact(index.rows);
  for (size_t i = 0, end; i < count; i = end) {  // runs of old and of new ones
    const bool old = rows[i] < index.num_rows;
    for (end = i + 1; end < count && (rows[end] < index.num_rows) == old;) ++end;
    if (old) {
      score_rows(index.rows, index.squared_l2(), query, rows + i, end - i, scores + i,
                 of_origins);
      continue;
    }
    std::vector<uint32_t>& slots = block.scratch.slots;
    slots.resize(std::max(slots.size(), end - i));
    for (size_t j = i; j < end; ++j) slots[j - i] = uint32_t(rows[j] - index.num_rows);
    score_rows(added, index.squared_l2(), query, slots.data(), end - i, scores + i, of_origins);
  }
}

namespace {

uint32_t id_of(const Block& block, uint32_t row) {
  if (row < block.index.num_rows) return block.index.id_of(row);
  return block.changes->rows->ids[row - block.index.num_rows];
}

// Whether the codes' scores only choose what is scored exactly.
bool reorders(const IndexView& index) { return index.codes != nullptr && index.rows.present(); }

// Asks for what `row_of_candidate` will read.
void prefetch_rows(const IndexView& index, const Candidates& best) {
  for (size_t i = 0; i < best.size; ++i) {
    const uint32_t entry = key_row(best.keys[i]);
    if (entry < index.num_entries) __builtin_prefetch(index.entry_rows + entry);
  }
}

// Drops keys of entries whose row an earlier key has: their exact scores would be the same.
void drop_twins(const IndexView& index, Candidates& best, std::vector<uint32_t>& table) {
  constexpr uint32_t kNone = ~0u;  // no row
  const int bits = std::bit_width(2 * best.size);
  table.assign(size_t(1) << bits, kNone);
  size_t kept = 0;
  for (size_t i = 0; i < best.size; ++i) {
    const uint32_t row = row_of_candidate(index, key_row(best.keys[i]));
    size_t at = row * 0x9E3779B1u >> (32 - bits);
    while (table[at] != kNone && table[at] != row) at = (at + 1) & (table.size() - 1);
    if (std::exchange(table[at], row) != row) best.keys[kept++] = best.keys[i];
  }
  best.size = kept;
}

// The rows of a query's candidates; what is kept of each is asked for.
const uint32_t* candidate_rows(const Block& block, const Candidates& best) {
  const IndexView& index = block.index;
  std::vector<uint32_t>& rows = block.scratch.rows;
  rows.resize(std::max(rows.size(), best.size));
  for (size_t i = 0; i < best.size; ++i) {
    rows[i] = row_of_candidate(index, key_row(best.keys[i]));
    if (rows[i] >= index.num_rows) continue;
    if (index.ids != nullptr) __builtin_prefetch(index.ids + rows[i]);
    if (index.rows.scales != nullptr) __builtin_prefetch(index.rows.scales + rows[i]);
    if (index.rows.labels != nullptr) __builtin_prefetch(index.rows.labels + rows[i]);
  }
  return rows.data();
}

// Their exact scores.
const float* exact_scores(const Block& block, size_t q, const uint32_t* rows, size_t count) {
  std::vector<float>& scores = block.scratch.scores;
  scores.resize(std::max(scores.size(), count));
  score_candidates(block, block.query(q), rows, count, scores.data());
  return scores.data();
}

// Puts the exact scores, where there are exact rows, and the datapoints' numbers into the keys.
void rescore(const Block& block, size_t q) {
  Candidates& best = block.scratch.candidates[q];
  const uint32_t* const rows = candidate_rows(block, best);
  const float* const scores =
      reorders(block.index) ? exact_scores(block, q, rows, best.size) : nullptr;
  for (size_t i = 0; i < best.size; ++i) {
    const int32_t score = scores == nullptr ? key_score(best.keys[i]) : ordered(scores[i]);
    best.keys[i] = make_key(score, id_of(block, rows[i]));
  }
}

// The same where exact scores are many more than are wanted: of the others there are no keys then.
void rescore_best(const Block& block, size_t q, size_t wanted) {
  Scratch& s = block.scratch;
  Candidates& best = s.candidates[q];
  const KernelTable& k = kernels();
  const uint32_t* const rows = candidate_rows(block, best);
  const float* const scores = exact_scores(block, q, rows, best.size);
  s.passing.resize(std::max(s.passing.size(), best.size));
  uint32_t* const found = s.passing.data();
  const float least = k.least_of_best_f32(scores, best.size, wanted);
  best.size = k.at_least_f32(scores, best.size, least, found);
  for (size_t i = 0; i < best.size; ++i)
    best.keys[i] = make_key(ordered(scores[found[i]]), id_of(block, rows[found[i]]));
}

// Drops, of keys in order, the worse one of each datapoint that comes twice; returns how many stay.
size_t drop_repeats(Key* keys, size_t count, std::vector<uint64_t>& places) {
  places.resize(count);
  for (size_t i = 0; i < count; ++i) places[i] = uint64_t(key_row(keys[i])) << 32 | i;
  std::sort(places.begin(), places.end());
  constexpr Key kNone = 0;  // no candidate: its row would be 2^32 - 1
  for (size_t i = 1; i < count; ++i)
    if (places[i] >> 32 == places[i - 1] >> 32) keys[uint32_t(places[i])] = kNone;
  return size_t(std::remove(keys, keys + count, kNone) - keys);
}

// Sorts the best k keys to the front, each datapoint once; returns how many there are.
size_t sort_best(const IndexView& index, Candidates& best, size_t k, Scratch& scratch) {
  // A datapoint has two entries at most: 2 k of them hold k datapoints. Reordering left one.
  const bool spilled = index.spills && !reorders(index);
  const size_t wanted = std::min(spilled ? 2 * k : k, best.size);
  Key* const keys = best.keys;
  if (wanted < best.size) std::nth_element(keys, keys + wanted, keys + best.size, std::greater<>());
  std::sort(keys, keys + wanted, std::greater<>());
  if (!spilled) return wanted;
  return std::min(k, drop_repeats(best.keys, wanted, scratch.places));
}

// The distance that a final key stands for.
float distance_of(const Block& block, size_t q, Key key) {
  const int32_t score = key_score(key);
  const float value = block.index.rows.present()
                          ? from_ordered(score)
                          : float(double(score) / block.scratch.tables[q].scale);
  return block.index.squared_l2() ? std::max(0.0f, -value) : value;  // no negative zero
}

// A candidate as it counts in an index of which this one has some leaves.
Key whole_key(const Block& block, const uint32_t* whole_starts, Key key) {
  const IndexView& index = block.index;
  const uint32_t entry = key_row(key), size = uint32_t(index.num_entries);
  if (entry >= size)  // of a new datapoint: behind all others
    return make_key(key_score(key), whole_starts[index.num_leaves] + (entry - size));
  const uint32_t* const starts = index.leaf_starts;
  const size_t leaf =
      size_t(std::upper_bound(starts, starts + index.num_leaves + 1, entry) - starts) - 1;
  return make_key(key_score(key), whole_starts[leaf] + (entry - starts[leaf]));
}

}  // namespace

void write_result(const Block& block, size_t q, int64_t* ids, float* distances) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  Candidates& best = s.candidates[q];
  best.size = cut_to(best.keys, best.size, best.limit);
  if (index.entry_rows != nullptr) prefetch_rows(index, best);
  if (reorders(index) && index.spills && best.size > 0)
    drop_twins(index, best, s.slots);
  constexpr size_t kManyMore = 8;
  const size_t k = block.limits.neighbors;
  if (reorders(index) && best.size > kManyMore * k)
    rescore_best(block, q, k);
  else
    rescore(block, q);
  const size_t found = sort_best(index, best, k, s);
  for (size_t i = 0; i < found; ++i) {
    ids[i] = key_row(best.keys[i]);
    distances[i] = distance_of(block, q, best.keys[i]);
  }
  std::fill(ids + found, ids + k, int64_t(-1));
  std::fill(distances + found, distances + k, std::numeric_limits<float>::quiet_NaN());
}

void write_found(const Block& block, size_t q, const uint32_t* whole_starts, const Found& found) {
  Candidates& best = block.scratch.candidates[q];
  best.size = cut_to(best.keys, best.size, best.limit);
  for (size_t i = 0; i < best.size; ++i)
    found.first[i] = whole_key(block, whole_starts, best.keys[i]);
  rescore(block, q);
  for (size_t i = 0; i < best.size; ++i) {
    found.last[i] = best.keys[i];
    found.distances[i] = distance_of(block, q, best.keys[i]);
  }
  const size_t limit = block.limits.candidates;
  std::fill(found.first + best.size, found.first + limit, Key{0});
  std::fill(found.last + best.size, found.last + limit, Key{0});
  std::fill(found.distances + best.size, found.distances + limit, 0.0f);
}

}  // namespace swann

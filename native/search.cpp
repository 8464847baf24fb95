// Scan and reorder. One query goes through its leaves best first; a block of queries goes leaf by
// leaf, so that a leaf's codes are read once for all queries that visit it.
#include "search.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace swann {
namespace {

constexpr size_t kSlack = 512;     // candidates gathered before a cut
constexpr size_t kExactRows = 128; // rows scored exactly at a time

// One thread's working memory for a block of queries, kept between calls.
struct Scratch {
  std::vector<LeafChoice> choices;
  std::vector<uint8_t> luts;
  std::vector<Table> tables;
  std::vector<Key> keys;
  std::vector<Candidates> candidates;
  std::vector<uint32_t> visit_starts, visits;  // leaf -> the choices that name it
  std::vector<float> scores, gathered;
  std::vector<uint32_t> rows;
  std::vector<uint64_t> places;
};

struct Block {
  const IndexView& index;
  const SearchLimits& limits;
  const float* queries;
  size_t count;
  Scratch& scratch;

  const float* query(size_t q) const { return queries + q * index.dim; }
};

size_t leaf_size(const IndexView& index, size_t leaf) {
  return index.leaf_starts[leaf + 1] - index.leaf_starts[leaf];
}

// ---- Scoring codes

PackedLeaf packed_leaf(const IndexView& index, size_t leaf) {
  const size_t group = index.group_starts[leaf];
  return {index.codes + group * index.blocks * 16,
          index.corrections == nullptr ? nullptr : index.corrections + group * kGroup,
          index.blocks, leaf_size(index, leaf), index.leaf_starts[leaf]};
}

void set_threshold(ScanQuery& scan, const Candidates& candidates) {
  if (candidates.worst == 0) {
    scan.threshold = 0;
    return;
  }
  const int64_t threshold = int64_t(key_score(candidates.worst)) - scan.bias;
  scan.threshold = int32_t(std::clamp<int64_t>(threshold, 0, 65535));
}

// Scores one leaf for up to kMaxScanQueries choices (positions in scratch.choices).
void scan_codes(const Block& block, size_t leaf, const uint32_t* visits, size_t count) {
  const IndexView& index = block.index;
  const PackedLeaf packed = packed_leaf(index, leaf);
  const size_t groups = (packed.count + kGroup - 1) / kGroup;
  ScanQuery scans[kMaxScanQueries];
  Candidates* candidates[kMaxScanQueries];
  size_t used = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t q = visits[i] / block.limits.leaves;
    const Table& table = block.scratch.tables[q];
    Candidates& best = block.scratch.candidates[q];
    const double offset = double(block.scratch.choices[visits[i]].score) + table.base;
    const auto bias = int32_t(std::lround(offset * table.scale));
    if (best.worst != 0 && int64_t(key_score(best.worst)) - bias > 65535) continue;
    scans[used] = {block.scratch.luts.data() + q * index.blocks * 16, 0, bias, table.multiplier,
                   best.keys, best.size, best.capacity};
    set_threshold(scans[used], best);
    candidates[used++] = &best;
  }
  if (used == 0) return;
  size_t group = 0;
  while (true) {
    group = kernels().lut16_scan(&packed, group, scans, used);
    for (size_t i = 0; i < used; ++i) {
      Candidates& best = *candidates[i];
      best.size = scans[i].size;
      const bool full = best.capacity - best.size < 2 * kGroup;
      if (full || (group == groups && (best.worst == 0 || best.size >= 2 * best.limit))) {
        best.cut();
        scans[i].size = best.size;
        set_threshold(scans[i], best);
      }
    }
    if (group == groups) return;
  }
}

// ---- Scoring rows exactly

void offer_scores(Candidates& best, const float* scores, size_t count, uint32_t first_row,
                  uint32_t* found) {
  const float threshold = best.worst == 0 ? -std::numeric_limits<float>::infinity()
                                          : from_ordered(key_score(best.worst));
  const size_t kept = kernels().at_least_f32(scores, count, threshold, found);
  if (best.capacity - best.size < kept) best.cut();
  for (size_t i = 0; i < kept; ++i)
    best.keys[best.size++] = make_key(ordered(scores[found[i]]), first_row + found[i]);
}

void scan_rows(const Block& block, size_t leaf, const uint32_t* visits, size_t count) {
  const IndexView& index = block.index;
  Scratch& scratch = block.scratch;
  const size_t dim = index.dim, first = index.leaf_starts[leaf], rows = leaf_size(index, leaf);
  const float* queries = block.query(visits[0] / block.limits.leaves);
  if (count > 1 && count < block.count) {  // not all of the block: bring them together
    scratch.gathered.resize(block.count * dim);
    for (size_t i = 0; i < count; ++i)
      std::copy_n(block.query(visits[i] / block.limits.leaves), dim,
                  scratch.gathered.data() + i * dim);
    queries = scratch.gathered.data();
  }
  scratch.scores.resize(block.count * kExactRows);
  scratch.rows.resize(std::max(scratch.rows.size(), kExactRows));
  for (size_t at = 0; at < rows; at += kExactRows) {
    const size_t n = std::min(kExactRows, rows - at);
    if (index.entry_rows == nullptr)
      score_run(index.rows, index.squared_l2(), queries, count, first + at, n,
                scratch.scores.data(), kExactRows);
    else
      for (size_t i = 0; i < count; ++i)
        score_rows(index.rows, index.squared_l2(), queries + i * dim,
                   index.entry_rows + first + at, n, scratch.scores.data() + i * kExactRows);
    for (size_t i = 0; i < count; ++i) {
      const float* scores = scratch.scores.data() + i * kExactRows;
      offer_scores(scratch.candidates[visits[i] / block.limits.leaves], scores, n,
                   uint32_t(first + at), scratch.rows.data());
    }
  }
}

void scan_leaf(const Block& block, size_t leaf, const uint32_t* visits, size_t count) {
  if (count == 0 || leaf_size(block.index, leaf) == 0) return;
  if (block.index.codes == nullptr) return scan_rows(block, leaf, visits, count);
  for (size_t i = 0; i < count; i += kMaxScanQueries)
    scan_codes(block, leaf, visits + i, std::min(kMaxScanQueries, count - i));
}

// ---- The order of the scan

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
  for (size_t l = 0; l < block.index.num_leaves; ++l) {
    const size_t end = s.visit_starts[l];
    scan_leaf(block, l, s.visits.data() + begin, end - begin);
    begin = end;
  }
}

void scan(const Block& block) {
  const size_t leaves = block.limits.leaves;
  if (block.count == 1) {
    for (uint32_t r = 0; r < leaves; ++r)
      scan_leaf(block, block.scratch.choices[r].leaf, &r, 1);
    return;
  }
  scan_ranks(block, 0, 1);  // the best leaf of each query first: it sets a good threshold
  if (leaves > 1) scan_ranks(block, 1, leaves);
}

// ---- Reordering

// Puts the exact scores, where there are exact rows, and the datapoints' numbers into the keys.
void rescore(const Block& block, size_t q) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  Candidates& best = s.candidates[q];
  const bool reorder = index.codes != nullptr && index.rows.present();
  s.rows.resize(std::max(s.rows.size(), best.size));
  s.scores.resize(std::max(s.scores.size(), best.size));
  for (size_t i = 0; i < best.size; ++i) {
    const uint32_t entry = key_row(best.keys[i]);
    s.rows[i] = index.entry_rows == nullptr ? entry : index.entry_rows[entry];
    if (index.ids != nullptr) __builtin_prefetch(index.ids + s.rows[i]);
  }
  if (reorder)
    score_rows(index.rows, index.squared_l2(), block.query(q), s.rows.data(), best.size,
               s.scores.data());
  for (size_t i = 0; i < best.size; ++i) {
    int32_t score = key_score(best.keys[i]);
    if (reorder) score = ordered(s.scores[i]);
    best.keys[i] = make_key(score, index.ids == nullptr ? s.rows[i] : index.ids[s.rows[i]]);
  }
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
  // A datapoint has two entries at most: 2 k of them hold k datapoints.
  const bool spilled = index.entry_rows != nullptr;
  const size_t wanted = std::min(spilled ? 2 * k : k, best.size);
  std::partial_sort(best.keys, best.keys + wanted, best.keys + best.size, std::greater<>());
  if (!spilled) return wanted;
  return std::min(k, drop_repeats(best.keys, wanted, scratch.places));
}

void write_result(const Block& block, size_t q, int64_t* ids, float* distances) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  Candidates& best = s.candidates[q];
  best.cut();
  rescore(block, q);
  const size_t k = block.limits.neighbors, found = sort_best(index, best, k, s);
  const bool exact = index.rows.present();
  for (size_t i = 0; i < found; ++i) {
    ids[i] = key_row(best.keys[i]);
    const int32_t score = key_score(best.keys[i]);
    const float value =
        exact ? from_ordered(score) : float(double(score) / s.tables[q].scale);
    distances[i] = index.squared_l2() ? std::max(-value, 0.0f) : value;
  }
  std::fill(ids + found, ids + k, int64_t(-1));
  std::fill(distances + found, distances + k, std::numeric_limits<float>::quiet_NaN());
}

// Without a tree all queries share the one leaf; for codes its score is the part of the distance
// that no table holds: -|q|^2 for squared l2.
void choose_only_leaf(const Block& block) {
  const IndexView& index = block.index;
  for (size_t q = 0; q < block.count; ++q) {
    float square = 0;
    if (index.squared_l2())
      kernels().dot_f32(block.query(q), 1, block.query(q), 1, index.dim, &square, 1);
    block.scratch.choices[q] = {0, -square};
  }
}

void build_tables(const Block& block) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  const size_t leaves = block.limits.leaves;
  s.luts.resize(block.count * index.blocks * 16);
  s.tables.resize(block.count);
  for (size_t q = 0; q < block.count; ++q) {
    float reach = 0;
    for (size_t r = 0; r < leaves; ++r)
      reach = std::max(reach, std::fabs(s.choices[q * leaves + r].score));
    s.tables[q] =
        build_table(index, block.query(q), reach, s.luts.data() + q * index.blocks * 16);
  }
}

}  // namespace

size_t most_queries(const IndexView& index, const SearchLimits& limits) noexcept {
  constexpr size_t kMaxBlock = 512, kMaxBytes = size_t(64) << 20;
  const size_t bytes = (limits.candidates + kSlack) * sizeof(Key) +
                       limits.leaves * (sizeof(LeafChoice) + sizeof(uint32_t)) +
                       index.blocks * 16 + index.dim * sizeof(float);
  return std::clamp<size_t>(kMaxBytes / bytes, 1, kMaxBlock);
}

void search_block(const IndexView& index, const SearchLimits& limits, const float* queries,
                  size_t count, int64_t* ids, float* distances) {
  thread_local Scratch scratch;
  const Block block{index, limits, queries, count, scratch};
  scratch.choices.resize(count * limits.leaves);
  if (index.centroids == nullptr)
    choose_only_leaf(block);
  else
    choose_leaves(index, queries, count, limits.leaves, scratch.choices.data());
  if (index.codes != nullptr) build_tables(block);
  const size_t capacity = limits.candidates + kSlack;
  scratch.keys.resize(count * capacity);
  scratch.candidates.resize(count);
  for (size_t q = 0; q < count; ++q)
    scratch.candidates[q] = {scratch.keys.data() + q * capacity, 0, limits.candidates, capacity, 0};
  scan(block);
  for (size_t q = 0; q < count; ++q)
    write_result(block, q, ids + q * limits.neighbors, distances + q * limits.neighbors);
}

}  // namespace swann

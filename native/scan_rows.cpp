// Exact scores of the rows of leaves. Where there are rows in 8 bits, those that are kept or, where many
// queries visit a leaf, its own rounded for them, only rows whose rounded score says that they may be
// among the best are scored: by the very kernel that would have scored all, so that nothing changes
// but the time.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "scan_rows.h"

namespace swann {

void make_room(const Block& block) {
  Scratch& s = block.scratch;
  s.scores.resize(std::max({s.scores.size(), block.count * kExactRows, kRoundedRows}));
  s.rows.resize(std::max(s.rows.size(), kRoundedRows));
  s.passing.resize(kRoundedRows);
  s.entries.resize(kRoundedRows);
}

size_t offer_scores(Candidates& best, const float* scores, size_t count, uint32_t first_row,
                    uint32_t* found) {
  const float threshold = best.worst == 0 ? -std::numeric_limits<float>::infinity()
                                          : from_ordered(key_score(best.worst));
  const size_t kept = kernels().at_least_f32(scores, count, threshold, found);
  if (best.capacity - best.size < kept) best.trim();
  const size_t before = best.size;
  for (size_t i = 0; i < kept; ++i)
    best.keys[best.size++] = make_key(ordered(scores[found[i]]), first_row + found[i]);
  return before;
}

const float* visiting(const Block& block, const uint32_t* visits, size_t count) {
  const size_t dim = block.index.dim;
  if (count == 1 || count == block.count) return block.query(visits[0] / block.limits.leaves);
  std::vector<float>& gathered = block.scratch.gathered;
  gathered.resize(block.count * dim);
  for (size_t i = 0; i < count; ++i)
    std::copy_n(block.query(visits[i] / block.limits.leaves), dim, gathered.data() + i * dim);
  return gathered.data();
}

const float* const* origins_of(const Block& block, const uint32_t* visits, size_t count) {
  std::vector<const float*>& all = block.scratch.of_origins;
  all.resize(count);
  for (size_t i = 0; i < count; ++i) all[i] = block.of_origins(visits[i] / block.limits.leaves);
  return all.data();
}

namespace {

// Scores rows [at, at + n) of a leaf for all its visits.
void score_part(const Block& block, size_t first, size_t n, const float* queries,
                const uint32_t* visits, size_t count) {
  const IndexView& index = block.index;
  Scratch& scratch = block.scratch;
  float* const scores = scratch.scores.data();
  const float* const* of_origins = origins_of(block, visits, count);
  if (index.entry_rows == nullptr)
    score_run(index.rows, index.squared_l2(), queries, count, first, n, scores, kExactRows,
              of_origins);
  else
    for (size_t i = 0; i < count; ++i)
      score_rows(index.rows, index.squared_l2(), queries + i * index.dim,
                 index.entry_rows + first, n, scores + i * kExactRows, of_origins[i]);
  for (size_t i = 0; i < count; ++i) {
    Candidates& best = scratch.candidates[visits[i] / block.limits.leaves];
    const size_t before =
        offer_scores(best, scores + i * kExactRows, n, uint32_t(first), scratch.rows.data());
    drop_dead(block, best, before);
  }
}

// ---- By rounded rows

constexpr size_t kBatch = 256;  // queries: without a tree rows are rounded for them, kept or not

bool is_worth_it(const Block& block, bool fresh) {
  return block.index.byte_rows->trial(block.limits.candidates, fresh).worth_it();
}

// What is kept, where this block goes by it.
ByteRows* kept_for(const Block& block, ByteRows& kept) {
  const bool tree = block.index.num_leaves > 1;
  // A batch without a tree rounds rows for itself in no time.
  if (!kept.is_on() && (tree || block.count < kManyQueries))
    kept.look_at(block.index, block.queries, block.count);
  const bool gains = tree || block.count < kBatch;
  return gains && kept.is_on() && is_worth_it(block, false) ? &kept : nullptr;
}

std::vector<float> weights_for(const Block& block) {
  if (block.scratch.kept != nullptr) return block.scratch.kept->weights();
  constexpr size_t kSample = 256;
  const size_t dim = block.index.dim;
  std::vector<double> squares(dim);
  for (size_t i = 0; i < kSample; ++i) add_squares(block.query(i * block.count / kSample), squares);
  return weights_of(block.index, std::move(squares));
}

void round_queries(const Block& block) {
  Scratch& s = block.scratch;
  if (s.is_rounded) return;
  RoundedQueries& all = s.rounded;
  const size_t dim = block.index.dim;
  all.set_weights(weights_for(block));
  all.resize(block.count, dim);
  for (size_t q = 0; q < block.count; ++q) all.round(block.query(q), dim, q);
  s.is_rounded = true;
}

}  // namespace

const RoundedQueries& rounded_visiting(const Block& block, const uint32_t* visits, size_t count) {
  Scratch& s = block.scratch;
  round_queries(block);
  if (count == block.count) return s.rounded;
  const size_t bytes = quads_of(block.index.dim) * 4;
  RoundedQueries& some = s.visiting;
  some.resize(count, block.index.dim);
  for (size_t i = 0; i < count; ++i) {
    const size_t q = visits[i] / block.limits.leaves;
    std::copy_n(s.rounded.bytes.data() + q * bytes, bytes, some.bytes.data() + i * bytes);
    some.starts[i] = s.rounded.starts[q];
    some.inverses[i] = s.rounded.inverses[q];
    some.lengths[i] = s.rounded.lengths[q];
    some.errors[i] = s.rounded.errors[q];
    some.halves[i] = s.rounded.halves[q];
  }
  return some;
}

bool have_thresholds(const Block& block, const uint32_t* visits, size_t count) {
  bool all = true;
  for (size_t i = 0; i < count; ++i) {
    Candidates& best = block.scratch.candidates[visits[i] / block.limits.leaves];
    // One that is old lets pass what need not be.
    if (best.worst == 0 || best.size >= Candidates::most(best.limit) + best.limit) best.trim();
    all &= best.worst != 0;
  }
  return all;
}

namespace {

// Bounds of the scores of a query, by its products: what i8_filter holds against the threshold, with its two
// products for values whose squares are nothing in floats, and more for the conversion of products.
class Bounds {
 public:
  Bounds(const Block& block, const I8Rows& rows, const RoundedQueries& queries, size_t q)
      : rows_(rows), step_(1 / double(queries.inverses[q])), length_(queries.lengths[q]),
        error_(queries.errors[q]),
        of_half_(block.index.squared_l2() ? 1 - 1e-5 - 4 * double(rounding(block.index.dim)) : 0) {}

  float operator()(FoundRow found) const {
    constexpr double kRounding = 1e-6;
    const size_t group = found.row / kI8Group;
    const double step = 1 / double(rows_.inverses[group]);
    const double score = double(found.product) * step_ * step;
    const double off = length_ * double(rows_.errors[group]) + error_ * double(rows_.lengths[group]);
    const double half = of_half_ * double(rows_.halves[found.row]) * step;
    return float(score + off - half + kRounding * (std::fabs(score) + off + half) +
                 2 * step_ * step);
  }

 private:
  const I8Rows& rows_;
  double step_, length_, error_, of_half_;
};

// Puts what was found for a query side by side: from starts[q] to starts[q + 1].
void sort_by_query(Scratch& s, const I8Found& all, size_t found, size_t count) {
  s.found_starts.assign(count + 2, 0);
  s.found_rows.resize(std::max(s.found_rows.size(), found));
  uint32_t* const next = s.found_starts.data() + 1;
  for (size_t i = 0; i < found; ++i) ++next[all.queries[i] + 1];
  for (size_t i = 0; i < count; ++i) next[i + 1] += next[i];
  for (size_t i = 0; i < found; ++i)
    s.found_rows[next[all.queries[i]]++] = {all.rows[i], all.products[i]};
}

}  // namespace

void filter_part(const Block& block, const EntryNames& names, const I8Rows& rows, size_t base,
                 size_t first, size_t n, const RoundedQueries& queries, const uint32_t* visits,
                 size_t count) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  const size_t groups = ceil_div(first + n - base, kI8Group), leaves = block.limits.leaves;
  s.thresholds.resize(count);
  for (size_t i = 0; i < count; ++i) s.thresholds[i] = least_bound(block, visits[i] / leaves);
  const I8Found room = s.found.of(groups, count);
  I8Queries side = queries.view();
  side.thresholds = s.thresholds.data();
  side.count = count;
  const size_t found = kernels().i8_filter(&rows, groups, quads_of(index.dim), &side,
                                           index.squared_l2(), 4 * rounding(index.dim), &room);
  sort_by_query(s, room, found, count);
  // Where many queries want the same rows, these are best scored while they are near.
  const bool is_dense = found > kDense * groups * kI8Group;
  const FoundRow* const all = s.found_rows.data();
  for (size_t i = 0; i < count; ++i) {
    const FoundRow *at = all + s.found_starts[i], *const end = all + s.found_starts[i + 1];
    if (at == end) continue;
    const size_t q = visits[i] / leaves;
    const Bounds bound(block, rows, queries, i);
    size_t passing = 0;
    for (; at != end; ++at) {
      const size_t entry = base + at->row;
      if (entry < first || entry >= first + n) continue;
      if (is_dense)
        s.passing[passing++] = names.name(entry);
      else
        wait(block, q, bound(*at), names.name(entry));
    }
    if (passing > 0) score_entries(block, q, s.passing.data(), passing);
    make_room_to_wait(block, q);
  }
  s.num_filtered += n * count;
}

namespace {

// Entries from the first on by rows rounded for these visits; returns how many it has gone through.
size_t filter_rounded(const Block& block, size_t first, size_t rows, const uint32_t* visits,
                      size_t count) {
  Scratch& s = block.scratch;
  const RoundedQueries& queries = rounded_visiting(block, visits, count);
  s.rounded_rows.resize(kRoundedRows, block.index.dim);
  const I8Rows view = s.rounded_rows.view();
  return in_pieces(rows, [&](size_t at, size_t n) {
    take_entries(block.index, first + at, n, s.rounded.weights.data(), s.gathered_rows, view);
    filter_part(block, {}, view, first + at, first + at, n, queries, visits, count);
    return true;
  });
}

// The same by what is kept, to where another thread is making it.
size_t filter_kept(const Block& block, size_t first, size_t rows, const uint32_t* visits,
                   size_t count) {
  ByteRows& kept = *block.scratch.kept;
  const RoundedQueries& queries = rounded_visiting(block, visits, count);
  return in_pieces(rows, [&](size_t at, size_t n) {
    if (!kept.make(block.index, first + at, n)) return false;
    const size_t group = (first + at) / kI8Group;
    filter_part(block, {}, kept.from_group(group), group * kI8Group, first + at, n, queries, visits,
                count);
    return true;
  });
}

// ---- Rows of int8, as they lie

// Adds to scores of rows from the first on, of what they have beyond their origins, what those have.
void add_origins(const Block& block, size_t q, size_t first, size_t n, float* scores) {
  const float* const of_origins = block.of_origins(q);
  const uint8_t* const labels = block.index.rows.labels + first;
  for (size_t i = 0; i < n; ++i) scores[i] += of_origins[labels[i]];
}

// Scores, of rows [first, first + n), those that may be among the best of a query.
void filter_wide(const Block& block, size_t q, size_t first, size_t n) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  const float slack = 4 * rounding(index.dim);
  float* const scores = s.scores.data();
  const WideQuery query = s.wide.view(q);
  kernels().upper_i8(&query, index.rows.i8 + first * index.dim, index.rows.scales + first, n,
                     index.dim, scores);
  float lost = 0;
  if (index.rows.origins != nullptr) {
    add_origins(block, q, first, n, scores);
    lost = slack * greatest_of(block.of_origins(q), index.rows.num_origins);
  }
  if (index.squared_l2()) {
    const float* const squares = index.rows.squares + first;
    for (size_t i = 0; i < n; ++i) scores[i] -= squares[i] * (0.5f - slack);
  }
  const float threshold = least_bound(block, q) - lost;
  const size_t passing = kernels().at_least_f32(scores, n, threshold, s.passing.data());
  for (size_t i = 0; i < passing; ++i)
    wait(block, q, scores[s.passing[i]] + lost, uint32_t(first + s.passing[i]));
  make_room_to_wait(block, q);
  s.num_filtered += n;
}

size_t filter_as_they_lie(const Block& block, size_t first, size_t rows, const uint32_t* visits,
                          size_t count) {
  return in_pieces(rows, [&](size_t at, size_t n) {
    for (size_t i = 0; i < count; ++i)
      filter_wide(block, visits[i] / block.limits.leaves, first + at, n);
    return true;
  });
}

// How the rows of a leaf are held against thresholds, or null.
using Filter = size_t (*)(const Block&, size_t first, size_t rows, const uint32_t* visits,
                          size_t count);

Filter filter_for(const Block& block, size_t rows, size_t count) {
  const Scratch& s = block.scratch;
  if (s.kept != nullptr) return filter_kept;
  if (s.rounds && count >= kManyQueries && rows > kExactRows) return filter_rounded;
  return s.widens ? filter_as_they_lie : nullptr;
}

}  // namespace

void start_rows(const Block& block) {
  Scratch& s = block.scratch;
  const IndexView& index = block.index;
  constexpr size_t kFew = 256;  // entries, of which bounds leave out too few
  const size_t entries = index.num_entries + (block.changes == nullptr ? 0 : block.changes->entries);
  ByteRows* const byte_rows = entries < kFew ? nullptr : index.byte_rows.get();
  s.kept = byte_rows == nullptr ? nullptr : kept_for(block, *byte_rows);
  s.rounds = byte_rows != nullptr && s.kept == nullptr && block.count >= kManyQueries &&
             kernels().i8_filter != nullptr && is_worth_it(block, true);
  s.widens = byte_rows != nullptr && index.rows.i8 != nullptr && index.entry_rows == nullptr &&
             kernels().upper_i8 != nullptr && is_worth_it(block, false);
  if (s.widens) s.wide.round(block.queries, block.count, index.dim);
  s.num_filtered = s.num_scored = 0;
  start_waiting(block);
}

void end_rows(const Block& block) {
  const Scratch& s = block.scratch;
  for (size_t q = 0; q < block.count; ++q) score_best_waiting(block, q, 0);
  if (s.num_filtered == 0) return;
  const bool fresh = s.kept == nullptr && s.rounds;
  // Where a greater part passes, floats are as fast, more so where queries share the reading of rows.
  const size_t share = block.count == 1 ? 2 : 8;
  block.index.byte_rows->trial(block.limits.candidates, fresh)
      .report(s.num_scored * share < s.num_filtered, block.count < kManyQueries ? 1 : 4);
}

void scan_rows(const Block& block, size_t leaf, const uint32_t* visits, size_t count) {
  const IndexView& index = block.index;
  const size_t first = index.leaf_starts[leaf], rows = leaf_size(index, leaf);
  const float* queries = nullptr;
  make_room(block);
  const Filter filter = filter_for(block, rows, count);
  for (size_t at = 0, n; at < rows; at += n) {
    if (filter != nullptr && have_thresholds(block, visits, count)) {
      at += filter(block, first + at, rows - at, visits, count);
      if (at == rows) return;
    }
    n = std::min(kExactRows, rows - at);
    if (queries == nullptr) queries = visiting(block, visits, count);
    score_part(block, first + at, n, queries, visits, count);
  }
}

}  // namespace swann

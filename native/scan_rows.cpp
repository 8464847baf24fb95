// Exact scores of the rows of leaves. Where many queries visit a leaf, its rows and the queries are
// rounded to 8 bits, and only rows whose rounded score says that they may be among the best are
// scored: by the very kernel that would have scored all, so that nothing changes but the time.
#include <algorithm>
#include <cmath>
#include <limits>

#include "block.h"

namespace swann {
namespace {

constexpr size_t kExactRows = 128;     // rows scored at a time
constexpr size_t kRoundedRows = 512;   // rows rounded at a time
constexpr size_t kManyQueries = 24;    // from here on it pays to round rows

void make_room(const Block& block) {
  Scratch& s = block.scratch;
  s.scores.resize(std::max(s.scores.size(), block.count * kExactRows));
  s.rows.resize(std::max(s.rows.size(), kExactRows));
}

// Adds the keys of scores that reach the threshold; returns how many keys there were before, after
// a cut where there was no room.
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

// The queries of `count` visits side by side: of all of a block, or of one, as they lie.
const float* visiting(const Block& block, const uint32_t* visits, size_t count) {
  const size_t dim = block.index.dim;
  if (count == 1 || count == block.count) return block.query(visits[0] / block.limits.leaves);
  std::vector<float>& gathered = block.scratch.gathered;
  gathered.resize(block.count * dim);
  for (size_t i = 0; i < count; ++i)
    std::copy_n(block.query(visits[i] / block.limits.leaves), dim, gathered.data() + i * dim);
  return gathered.data();
}

// Scores rows [at, at + n) of a leaf for all its visits.
void score_part(const Block& block, size_t first, size_t n, const float* queries,
                const uint32_t* visits, size_t count) {
  const IndexView& index = block.index;
  Scratch& scratch = block.scratch;
  float* const scores = scratch.scores.data();
  scratch.of_origins.resize(count);
  for (size_t i = 0; i < count; ++i)
    scratch.of_origins[i] = block.of_origins(visits[i] / block.limits.leaves);
  if (index.entry_rows == nullptr)
    score_run(index.rows, index.squared_l2(), queries, count, first, n, scores, kExactRows,
              scratch.of_origins.data());
  else
    for (size_t i = 0; i < count; ++i)
      score_rows(index.rows, index.squared_l2(), queries + i * index.dim,
                 index.entry_rows + first, n, scores + i * kExactRows, scratch.of_origins[i]);
  for (size_t i = 0; i < count; ++i) {
    Candidates& best = scratch.candidates[visits[i] / block.limits.leaves];
    const size_t before =
        offer_scores(best, scores + i * kExactRows, n, uint32_t(first), scratch.rows.data());
    drop_dead(block, best, before);
  }
}

// ---- By rounded rows

bool can_round(const Block& block, size_t rows, size_t count) {
  const IndexView& index = block.index;
  return kernels().i8_filter != nullptr && index.rows.f32 != nullptr &&
         index.entry_rows == nullptr && index.dim <= kMostI8Dimensions && count >= kManyQueries &&
         rows > kExactRows;
}

// Weights of the dimensions: where queries are large and rows are small, and the other way round,
// weights that make both alike leave the least to rounding.
void choose_weights(const Block& block, RoundedQueries& out) {
  constexpr size_t kSample = 256;
  constexpr double kMost = 1 << 20;
  const size_t dim = block.index.dim, rows = block.index.num_rows;
  std::vector<double> of_queries(dim), of_rows(dim);
  const auto add = [dim](const float* vector, std::vector<double>& squares) {
    for (size_t j = 0; j < dim; ++j) squares[j] += double(vector[j]) * double(vector[j]);
  };
  for (size_t i = 0; i < kSample; ++i) {
    add(block.query(i * block.count / kSample), of_queries);
    add(block.index.rows.f32 + i * rows / kSample * dim, of_rows);
  }
  out.weights.resize(dim);
  out.parts.resize(dim);
  for (size_t j = 0; j < dim; ++j) {
    const double ratio = std::sqrt(std::sqrt(of_queries[j] / of_rows[j]));
    out.weights[j] = float(std::isfinite(ratio) ? std::clamp(ratio, 1 / kMost, kMost) : 1.0);
    out.parts[j] = 1.0f / out.weights[j];
  }
}

void round_queries(const Block& block) {
  Scratch& s = block.scratch;
  if (s.is_rounded) return;
  RoundedQueries& all = s.rounded;
  const size_t dim = block.index.dim;
  choose_weights(block, all);
  all.resize(block.count, dim);
  for (size_t q = 0; q < block.count; ++q) all.round(block.query(q), dim, q);
  s.is_rounded = true;
}

// The rounded queries of `count` visits side by side.
const RoundedQueries& rounded_visiting(const Block& block, const uint32_t* visits, size_t count) {
  Scratch& s = block.scratch;
  round_queries(block);
  if (count == block.count) return s.rounded;
  const size_t bytes = (block.index.dim + 3) / 4 * 4;
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

// What the rounded scores are held against. Under squared l2 a row is among the best when
// <q, x> - |x|^2 / 2 >= (|q|^2 - d) / 2, d being the greatest squared distance of those.
float threshold_of(const Block& block, const Candidates& best, float half, float slack) {
  if (best.worst == 0) return -std::numeric_limits<float>::infinity();
  const float worst = from_ordered(key_score(best.worst));
  if (!block.index.squared_l2()) return worst;
  return worst / 2 + half - 4 * slack * (half + std::fabs(worst));
}

// Scores the rows that the masks of one group name.
void score_masked(const Block& block, size_t first, uint32_t valid, const uint16_t* masks,
                  const uint32_t* visits, size_t count) {
  const IndexView& index = block.index;
  for (size_t i = 0; i < count; ++i) {
    uint32_t mask = masks[i] & valid;
    if (mask == 0) continue;
    const size_t q = visits[i] / block.limits.leaves;
    uint32_t rows[kI8Group];
    float scores[kI8Group];
    size_t n = 0;
    for (; mask != 0; mask &= mask - 1)
      rows[n++] = uint32_t(first) + uint32_t(__builtin_ctz(mask));
    score_rows(index.rows, index.squared_l2(), block.query(q), rows, n, scores);
    Candidates& best = block.scratch.candidates[q];
    if (best.capacity - best.size < n) best.trim();
    const size_t before = best.size;
    const int32_t worst = best.worst == 0 ? INT32_MIN : key_score(best.worst);
    for (size_t r = 0; r < n; ++r)
      if (ordered(scores[r]) >= worst) best.keys[best.size++] = make_key(ordered(scores[r]), rows[r]);
    drop_dead(block, best, before);
  }
}

void filter_rows(const Block& block, size_t first, size_t rows, const uint32_t* visits,
                 size_t count) {
  const IndexView& index = block.index;
  const KernelTable& k = kernels();
  const RoundedQueries& queries = rounded_visiting(block, visits, count);
  RoundedRows& rounded = block.scratch.rounded_rows;
  std::vector<float>& thresholds = block.scratch.thresholds;
  std::vector<uint16_t>& masks = block.scratch.masks;
  const size_t quads = (index.dim + 3) / 4, groups_at_once = kRoundedRows / kI8Group;
  const float slack = rounding(index.dim);
  rounded.resize(kRoundedRows, index.dim);
  thresholds.resize(count);
  masks.resize(groups_at_once * count);
  const I8Rows view = rounded.view();
  I8Queries side = queries.view();
  side.thresholds = thresholds.data();
  side.count = count;
  for (size_t at = 0; at < rows; at += kRoundedRows) {
    const size_t n = std::min(kRoundedRows, rows - at), groups = (n + kI8Group - 1) / kI8Group;
    for (size_t i = 0; i < count; ++i) {
      Candidates& best = block.scratch.candidates[visits[i] / block.limits.leaves];
      if (best.size >= Candidates::most(best.limit) + best.limit) best.trim();
      thresholds[i] = threshold_of(block, best, queries.halves[i], slack);
    }
    k.i8_pack(index.rows.f32 + (first + at) * index.dim, n, index.dim,
              block.scratch.rounded.weights.data(), &view);
    k.i8_filter(&view, groups, quads, &side, index.squared_l2(), 4 * slack, masks.data());
    for (size_t g = 0; g < groups; ++g) {
      const size_t left = n - g * kI8Group;
      const uint32_t valid = left >= kI8Group ? 0xFFFFu : (1u << left) - 1;
      score_masked(block, first + at + g * kI8Group, valid, masks.data() + g * count, visits,
                   count);
    }
  }
}

}  // namespace

void scan_rows(const Block& block, size_t leaf, const uint32_t* visits, size_t count) {
  const IndexView& index = block.index;
  const size_t first = index.leaf_starts[leaf], rows = leaf_size(index, leaf);
  const float* queries = visiting(block, visits, count);
  const auto candidates = [&](size_t i) -> Candidates& {
    return block.scratch.candidates[visits[i] / block.limits.leaves];
  };
  make_room(block);
  const bool rounds = can_round(block, rows, count);
  for (size_t at = 0; at < rows; at += kExactRows) {
    if (rounds && at > 0) {  // thresholds are known once each query has seen enough rows
      bool known = true;
      for (size_t i = 0; i < count; ++i) {
        if (candidates(i).worst == 0) candidates(i).trim();
        known &= candidates(i).worst != 0;
      }
      if (known) return filter_rows(block, first + at, rows - at, visits, count);
    }
    score_part(block, first + at, std::min(kExactRows, rows - at), queries, visits, count);
  }
}

void scan_new_rows(const Block& block, const NewLeaf& leaf, const uint32_t* visits, size_t count) {
  const IndexView& index = block.index;
  Scratch& scratch = block.scratch;
  const ExactRows rows = block.changes->rows->exact(index.rows);
  make_room(block);
  for (size_t at = 0; at < leaf.count; at += kExactRows) {
    const size_t n = std::min(kExactRows, leaf.count - at);
    const uint32_t* slots = leaf.chunks[at / Chunk::kMost]->slots.data() + at % Chunk::kMost;
    for (size_t i = 0; i < count; ++i) {
      const size_t q = visits[i] / block.limits.leaves;
      Candidates& best = scratch.candidates[q];
      score_rows(rows, index.squared_l2(), block.query(q), slots, n, scratch.scores.data(),
                 block.of_origins(q));
      const size_t before = offer_scores(best, scratch.scores.data(), n, 0, scratch.rows.data());
      name_new(block, slots, best, before);
    }
  }
}

}  // namespace swann
